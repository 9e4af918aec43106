"""Reading STAR files of particles, each table and name checked before any image is touched."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
import torch
from torch import Tensor

from ..volumes.maps import read_map
from ..volumes.poses import pose_to_relion_angles, relion_angles_to_pose

PARTICLE_COLUMNS = (
    "rlnTomoName", "rlnImageName", "rlnTomoVisibleFrames", "rlnOpticsGroup",
    "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
)  # fmt: skip
OPTICS_COLUMNS = (
    "rlnOpticsGroup", "rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration",
    "rlnAmplitudeContrast", "rlnCtfDataAreCtfPremultiplied",
)  # fmt: skip
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
BOX_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
NAMES = [  # a name of digits is not a number: 000017 keeps its zeros
    "rlnTomoName", "rlnMicrographName", "rlnTomoParticleName", "rlnImageName", "cryoetganClassName",
    "cryoetganParticleName",
]  # fmt: skip
TILT_COLUMNS = (
    "rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle",
)  # fmt: skip


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


def read_star(path: Path) -> dict[str, pd.DataFrame | dict]:
    """All blocks of a STAR file by name; ValueError when it is missing or is no STAR file."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a STAR file")
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=NAMES)
    except Exception as error:  # the parser raises whatever its lines lead to
        raise ValueError(f"{path}: cannot be read as a STAR file ({error})") from error
    if not blocks:
        raise ValueError(f"{path}: no STAR block (data_...) found, expected a STAR file")
    return blocks


def table_of(blocks: dict, name: str, path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A block as a table that has the given columns and at least one row."""
    if name not in blocks:
        raise ValueError(f"{path}: no block data_{name}, found {sorted(blocks)}")
    block = blocks[name]
    table = pd.DataFrame([block]) if isinstance(block, dict) else block
    missing = [c for c in columns if c not in table]
    if missing:
        raise ValueError(f"{path}: data_{name} lacks {', '.join(missing)}; export the particles with them")
    if table.empty:
        raise ValueError(f"{path}: data_{name} has no rows, expected at least one")
    return table


def inside(folder: Path, name: str, path: Path) -> Path:
    """The file that `path`, in `folder`, calls `name`: in that folder, or, as RELION names its files, from the
    project's folder above it.

    A folder above is the project's when it holds default_pipeline.star, or when the name begins on the way from it to
    the folder (``Extract/job013/1.mrc`` in PROJECT/Extract/job013/particles.star).

    Raises
    ------
    ValueError
        when the name leads out of these folders, or is nowhere there.
    """
    folder, first = folder.resolve(), Path(name).parts[:1]
    projects = [
        p
        for child, p in zip([folder, *folder.parents], folder.parents, strict=False)
        if _is_project(p, child.name, first)
    ]
    for root in [folder, *projects]:
        target = (root / name).resolve()
        if not target.is_relative_to(root):
            raise ValueError(f"{path}: {name!r} leads out of the file's folder; move the data beside the STAR file")
        if target.is_file() or (target.suffix == ".zarr" and target.is_dir()):
            return target
    raise ValueError(
        f"{path}: {name!r} does not exist in {folder}, nor from a RELION project's folder above it; names are relative "
        "to one of these"
    )


def _is_project(folder: Path, child: str, first: tuple[str, ...]) -> bool:
    return (folder / "default_pipeline.star").is_file() or first == (child,)


def open_tilt_stacks(path: str | Path) -> list[TiltStack]:
    """Every particle of optimisation_set.star, or of particles.star beside tomograms.star, unread.

    Raises
    ------
    ValueError
        when a file, block, column, tomogram or optics group is missing, a value has the wrong form, images
        are no 2-D stacks, or a name leads out of the folder.
    """
    path = Path(path)
    particles_path, tomograms_path, blocks = _pair(path)
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
    geometry: dict[str, tuple[pd.DataFrame, np.ndarray]] = {}
    for name in particles["rlnTomoName"].unique():
        tilts = table_of(tomograms, str(name), tomograms_path, TILT_COLUMNS)
        numeric(tilts, TILT_COLUMNS[3:], tomograms_path)
        rows = [[_row(v, 4, tomograms_path) for v in tilts[c]] for c in TILT_COLUMNS[:3]]
        geometry[name] = tilts, np.array(rows).transpose(1, 0, 2)[..., :3]
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


def numeric(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    """Raise ValueError unless the columns hold finite numbers."""
    for column in columns:
        values = pd.to_numeric(table[column], errors="coerce")
        if not np.isfinite(values).all():
            bad = table[column][~np.isfinite(values)].iloc[0]
            raise ValueError(f"{path}: {column} holds {bad!r}, expected finite numbers")


def box_poses(table: pd.DataFrame, path: Path) -> Tensor:
    """Rotations (N, 3, 3) of the boxes of a particle table (RELION 4 and 5), the identity where it says none.

    The box's point x is the tomogram's ``A_subtomogram x``.

    Raises
    ------
    ValueError
        when one of the three columns is missing while another is there, or holds no finite numbers.
    """
    there = [c for c in BOX_ANGLES if c in table]
    if not there:
        return torch.eye(3, dtype=torch.float64).expand(len(table), 3, 3)
    if len(there) < len(BOX_ANGLES):
        raise ValueError(
            f"{path}: has {', '.join(there)} and not all of {', '.join(BOX_ANGLES)}; export the particles with the "
            "three"
        )
    numeric(table, BOX_ANGLES, path)
    return relion_angles_to_pose(*torch.from_numpy(table[list(BOX_ANGLES)].to_numpy(float, copy=True)).unbind(1))


def without_turned_boxes(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A particle table with poses and origins in the tomogram: rlnTomoSubtomogramRot, Tilt and Psi go into them.

    The orientation is ``A_subtomogram A_particle``, and A_subtomogram turns the origin.
    """
    if not set(BOX_ANGLES) & set(table):
        return table
    boxes = box_poses(table, path)
    table = table.drop(columns=list(BOX_ANGLES))
    for columns in (ANGLES, ORIGINS):
        if set(columns) <= set(table):
            numeric(table, columns, path)
            values = torch.from_numpy(table[list(columns)].to_numpy(float, copy=True))
            if columns == ANGLES:
                values = torch.stack(pose_to_relion_angles(boxes @ relion_angles_to_pose(*values.unbind(1))), 1)
            else:
                values = (boxes @ values[:, :, None])[..., 0]
            table[list(columns)] = values.numpy()
        elif columns == ANGLES:  # the particle lies in its box as the reference does
            table[list(columns)] = torch.stack(pose_to_relion_angles(boxes), 1).numpy()
    return table


def _pair(path: Path) -> tuple[Path, Path, dict]:
    """Particle file, tomogram file and the particle file's blocks."""
    blocks = read_star(path)
    if "particles" in blocks:
        return path, inside(path.parent, "tomograms.star", path), blocks
    names = next((b for b in blocks.values() if isinstance(b, dict) and "rlnTomoParticlesFile" in b), None)
    if names is None or "rlnTomoTomogramsFile" not in names:
        raise ValueError(
            f"{path}: neither data_particles nor rlnTomoParticlesFile and rlnTomoTomogramsFile found, "
            "expected an optimisation_set.star or a particles.star"
        )
    particles = inside(path.parent, str(names["rlnTomoParticlesFile"]), path)
    return particles, inside(path.parent, str(names["rlnTomoTomogramsFile"]), path), read_star(particles)


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
