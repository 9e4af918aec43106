"""Tilt series of RELION and WarpTools: their geometry, and particles that are kept as stacks of 2-D images."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import torch
from torch import Tensor

from ..volumes.maps import read_map
from .relion_tables import ANGLES, ORIGINS, inside, numeric, particle_files, read_star, table_of, without_turned_boxes

LOG = logging.getLogger(__name__)
PARTICLE_COLUMNS = (
    "rlnTomoName", "rlnImageName", "rlnTomoVisibleFrames", "rlnOpticsGroup",
    "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
)  # fmt: skip
OPTICS_COLUMNS = (
    "rlnOpticsGroup", "rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration",
    "rlnAmplitudeContrast", "rlnCtfDataAreCtfPremultiplied",
)  # fmt: skip
TILT_COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
MATRIX_ROWS = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")  # RELION 4 and WarpTools
TURNS = ("rlnTomoYTilt", "rlnTomoZRot")  # RELION 5, with rlnTomoXTilt where it is not 0
DOSE = "rlnMicrographPreExposure"
SERIES_FILE = "rlnTomoTiltSeriesStarFile"


@dataclass(frozen=True)
class TiltStack:
    """One particle of a tilt-stack STAR file; `tilts` has a row a tilt, `visible` (T,) says which to use."""

    path: Path
    name: str
    tomogram: str
    tilts: pd.DataFrame
    matrices: np.ndarray  # (T, 3, 3), tomogram xyz to image uvw
    visible: np.ndarray
    angles_deg: np.ndarray  # rot, tilt, psi, from the reference to the tomogram
    coordinates: np.ndarray  # xyz as in the file, NaN where it has none
    origins_A: np.ndarray  # xyz, in the tomogram
    size: int
    pixel_size_A: float
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    premultiplied: bool  # by the CTF


def open_tilt_stacks(path: str | Path) -> list[TiltStack]:
    """Every particle of optimisation_set.star, or of particles.star beside tomograms.star, unread.

    Raises ValueError when a file, block, column, tomogram or optics group is missing, a value has the wrong form,
    images are no 2-D stacks, or a name leads out of the folder.
    """
    path = Path(path)
    particles_path, tomograms_path, blocks = particle_files(path)
    if tomograms_path is None:
        raise ValueError(f"{path}: tilt stacks need tomograms.star beside it, or the optimisation set that names it")
    general = blocks.get("general", {})
    if isinstance(general, dict) and int(general.get("rlnTomoSubTomosAre2DStacks", 1)) != 1:
        raise ValueError(f"{particles_path}: particles are 3-D subtomograms; use read_subtomogram_star")
    optics = table_of(blocks, "optics", particles_path, OPTICS_COLUMNS).set_index("rlnOpticsGroup")
    particles = without_turned_boxes(table_of(blocks, "particles", particles_path, PARTICLE_COLUMNS), particles_path)
    if len(optics[["rlnImageSize", "rlnImagePixelSize"]].drop_duplicates()) != 1:
        raise ValueError(f"{particles_path}: optics groups differ in box or pixel size; read them one by one")
    numeric(particles, ANGLES, particles_path)
    numeric(optics, OPTICS_COLUMNS[1:], particles_path)
    tomograms = read_star(tomograms_path)
    note_hand(tomograms, tomograms_path)
    geometry = {
        name: tilt_series(tomograms, str(name), tomograms_path, TILT_COLUMNS)
        for name in particles["rlnTomoName"].unique()
    }
    return [_stack(row, i, optics, geometry, particles_path) for i, row in enumerate(particles.to_dict("records"))]


def read_images(stack: TiltStack) -> Tensor:
    """The visible images (T, B, B) float32 of a particle; stacks of all tilts or of the visible ones only."""
    images, _ = read_map(stack.path, voxel_size_A=stack.pixel_size_A)
    tilts, size = len(stack.visible), stack.size
    if tuple(images.shape[1:]) != (size, size):
        raise ValueError(
            f"{stack.path}: images of {tuple(images.shape[1:])} pixels, expected {size} x {size} (rlnImageSize)"
        )
    if len(images) == tilts:
        return images[torch.from_numpy(stack.visible)]
    if len(images) == stack.visible.sum():
        return images
    raise ValueError(
        f"{stack.path}: {len(images)} frames, expected {tilts} (all tilts of {stack.tomogram}) or "
        f"{stack.visible.sum()} (the visible ones)"
    )


def tilt_series(
    tomograms: dict, name: str, path: Path, columns: tuple[str, ...] = ()
) -> tuple[pd.DataFrame, np.ndarray]:
    """Table of a tilt series, a row a tilt, with `columns`; and its matrices (T, 3, 3), tomogram xyz to image uvw.

    Matrices of WarpTools and RELION 4 stand in the tomogram file's own block of that name. RELION 5 names a file a
    series in data_global, with angles: the matrix is Rz(rlnTomoZRot) Ry(rlnTomoYTilt) Rx(rlnTomoXTilt), as
    Tomogram::setProjectionMatrix of RELION 5 composes it.

    Raises ValueError when the series, a file or a column is missing, or holds no numbers.
    """
    if name not in tomograms and SERIES_FILE in tomograms.get("global", {}):
        table = table_of(tomograms, "global", path, ("rlnTomoName", SERIES_FILE))
        row = table[table["rlnTomoName"].astype(str) == name]
        if row.empty:
            raise ValueError(f"{path}: no tomogram {name} in data_global, found {sorted(table['rlnTomoName'])[:5]}")
        file = inside(path.parent, str(row[SERIES_FILE].iloc[0]), path)
        blocks = read_star(file)
        block = name if name in blocks else next(iter(blocks))
        tilts = table_of(blocks, block, file, (*TURNS, *columns))
        numeric(tilts, (*TURNS, *columns, *(c for c in ("rlnTomoXTilt",) if c in tilts)), file)
        x = tilts["rlnTomoXTilt"].to_numpy(float) if "rlnTomoXTilt" in tilts else np.zeros(len(tilts))
        angles = np.stack([x, *(tilts[c].to_numpy(float) for c in TURNS)], 1)
        return tilts, scipy.spatial.transform.Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    tilts = table_of(tomograms, name, path, (*MATRIX_ROWS, *columns))
    numeric(tilts, columns, path)
    rows = [[_row(v, 4, path) for v in tilts[c]] for c in MATRIX_ROWS]
    return tilts, np.array(rows).transpose(1, 0, 2)[..., :3]


def tilts_deg(matrices: np.ndarray) -> np.ndarray:
    """Tilt (T,) of each image: the angle of its slice through Fourier space about y, as `fourier_grid.coordinates`
    counts it.
    """
    beam = matrices[:, 2]  # in the tomogram, xyz
    return (np.degrees(np.arctan2(beam[:, 0], beam[:, 2])) + 90) % 180 - 90


def recorded(stack: TiltStack) -> dict[str, float]:
    """What the tables tell of a particle's recording, as columns: tilt range, defocus of the least tilted image, dose,
    optics.
    """
    tilts, visible = tilts_deg(stack.matrices[stack.visible]), stack.tilts[stack.visible]
    least = visible.iloc[int(np.abs(tilts).argmin())]
    found = {
        "tilt_min_deg": tilts.min(),
        "tilt_max_deg": tilts.max(),
        "defocus_um": (float(least["rlnDefocusU"]) + float(least["rlnDefocusV"])) / 2e4,
        "voltage_kV": stack.voltage_kV,
        "cs_mm": stack.spherical_aberration_mm,
        "amplitude_contrast": stack.amplitude_contrast,
    }
    if DOSE in stack.tilts:  # before each image: the last one's own is that of the others
        before = np.sort(stack.tilts[DOSE].to_numpy(float))
        found["dose_e_A2"] = before[-1] + np.median(np.diff(before)) if len(before) > 1 else before[-1]
    return found


def tilt_ranges(tomograms_path: Path, names: pd.Series) -> dict[str, np.ndarray]:
    """Columns tilt_min_deg and tilt_max_deg (N,) of particles in the tomograms `names`."""
    tomograms = read_star(tomograms_path)
    note_hand(tomograms, tomograms_path)
    found = {name: tilts_deg(tilt_series(tomograms, str(name), tomograms_path)[1]) for name in names.unique()}
    return {
        "tilt_min_deg": names.map({k: v.min() for k, v in found.items()}).to_numpy(),
        "tilt_max_deg": names.map({k: v.max() for k, v in found.items()}).to_numpy(),
    }


def note_hand(tomograms: dict, path: Path) -> None:
    """Say what rlnTomoHand of tomograms.star is, and that it turns nothing."""
    block = tomograms.get("global", {})
    if "rlnTomoHand" in block:
        hands = ", ".join(sorted({f"{float(hand):g}" for hand in np.ravel(block["rlnTomoHand"])}))
        LOG.warning(
            "%s: rlnTomoHand %s tells how the defocus changes with depth; volumes stay as they are (mirror_z=True for "
            "tomograms of the other hand)",
            path,
            hands,
        )


def _row(text: object, length: int | None, path: Path) -> list[float]:
    """A bracketed list of numbers such as [1,0,0,0]."""
    try:
        values = [float(v) for v in json.loads(str(text))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {text!r} is not a list of numbers such as [0,1]") from error
    if (length is not None and len(values) != length) or not np.isfinite(values).all():
        raise ValueError(f"{path}: {text!r}, expected {length or 'some'} finite numbers")
    return values


def _stack(row: dict, index: int, optics: pd.DataFrame, geometry: dict, path: Path) -> TiltStack:
    tilts, matrices = geometry[row["rlnTomoName"]]
    if row["rlnOpticsGroup"] not in optics.index:
        raise ValueError(f"{path}: particle {index + 1} has optics group {row['rlnOpticsGroup']}, not in data_optics")
    group = optics.loc[row["rlnOpticsGroup"]]
    visible = np.array(_row(row["rlnTomoVisibleFrames"], None, path)) == 1
    if len(visible) != len(tilts) or not visible.any():
        raise ValueError(
            f"{path}: particle {index + 1} marks {visible.sum()} of {len(visible)} frames visible, expected "
            f"one or more of the {len(tilts)} tilts of {row['rlnTomoName']}"
        )
    return TiltStack(
        path=inside(path.parent, str(row["rlnImageName"]), path),
        name=str(row.get("rlnTomoParticleName", index + 1)),
        tomogram=str(row["rlnTomoName"]),
        tilts=tilts,
        matrices=matrices,
        visible=visible,
        angles_deg=np.array([float(row[c]) for c in ANGLES]),
        coordinates=np.array([float(row.get(f"rlnCoordinate{a}", np.nan)) for a in "XYZ"]),
        origins_A=np.array([float(row.get(c, np.nan)) for c in ORIGINS]),
        size=int(group["rlnImageSize"]),
        pixel_size_A=float(group["rlnImagePixelSize"]),
        voltage_kV=float(group["rlnVoltage"]),
        spherical_aberration_mm=float(group["rlnSphericalAberration"]),
        amplitude_contrast=float(group["rlnAmplitudeContrast"]),
        premultiplied=float(group["rlnCtfDataAreCtfPremultiplied"]) == 1,
    )
