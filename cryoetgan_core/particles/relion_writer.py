"""STAR files that RELION's programs read: an MRC volume a particle, optics, pose, the weight of the missing wedge.

RELION takes ``3@stack.mrcs`` for a section, so each particle is a file of its own. A wedge's weight (rlnCtfImage) is
the half transform that RELION 3.1 and later read: (D, D, D // 2 + 1), kz and ky in FFT order, kx from 0; 1 where a
slice passes, 0 in the wedge.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd

from ..physics.fourier_grid import wedge
from ..reproducibility.files import write_atomically
from ..volumes.table import ANGLE_COLUMNS, CENTRED_COLUMNS, POSITION_COLUMNS, SHIFT_COLUMNS, ParticleSet
from .relion_tables import ANGLES, ORIGINS

COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")  # voxels of rlnTomoTiltSeriesPixelSize
CENTRED = tuple(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")  # RELION 5: angstrom, from the tomogram's centre
CLASS, NAME = "cryoetganClassName", "cryoetganParticleName"  # RELION keeps columns that it does not know
RECORDED = {  # how a particle was recorded, by our column
    "tilt_min_deg": "cryoetganTiltMin",
    "tilt_max_deg": "cryoetganTiltMax",
    "dose_e_A2": "cryoetganDose",
}
# A tomogram without a name: an empty word would shift the columns after it, and cryoCAT asks for a number
UNKNOWN = "unknown-0"
WEDGE_SAMPLES = 2  # of the reconstruction whose outermost slices the wedge ends with, a voxel
# What RELION asks of every optics group; only computing a CTF from a defocus uses them, and these STAR files hold none
OPTICS = {"rlnVoltage": 300.0, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
_MICROSCOPE = dict(zip(OPTICS, ("voltage_kV", "cs_mm", "amplitude_contrast"), strict=True))


def volume_name(class_name: str, number: int, particle: str) -> str:
    """Name of a particle's file without its ending; TomoTwin reads the class from what follows ``id``."""
    safe = (re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:60] for text in (class_name or "unknown", particle))
    return f"{next(safe)}_id{number:04d}_{next(safe)}"


def write_mrc(
    path: Path, data: np.ndarray, voxel_size_A: float, kind: type = np.float32, *, images: bool = False
) -> None:
    """Write a volume, or a stack of images, with the same bytes whenever it is written."""
    with mrcfile.new(path, overwrite=True) as handle:
        handle.set_data(np.ascontiguousarray(data, kind))
        if images:
            handle.set_image_stack()
        handle.voxel_size = voxel_size_A
        handle.header.nlabl = 0  # mrcfile's label carries the time of writing
        handle.header.label = b""


def write_wedge(folder: Path, tilt_range_deg: tuple[float, float], box: int, voxel_size_A: float) -> Path:
    """Write the weight of a missing wedge (beam z, tilt axis y) for a box into `folder`; returns the file."""
    low, high = tilt_range_deg
    path = folder / f"wedge_{low:.1f}_{high:.1f}.mrc"
    weight = wedge(box, low, high, WEDGE_SAMPLES * box).numpy()
    write_atomically(path, lambda p: write_mrc(p, weight, voxel_size_A))
    return path


def optics_of(table: pd.DataFrame, box: int, voxel_size_A: float, version: int = 3) -> dict[str, object]:
    """The one optics group of particles: the microscope as their table tells it, else 300 kV, 2.7 mm and 0.1."""
    told = {c: float(table[m].iloc[0]) for c, m in _MICROSCOPE.items() if m in table and table[m].nunique() == 1}
    return {
        "rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", **(OPTICS | told),
        "rlnTomoTiltSeriesPixelSize": voxel_size_A, **({"rlnTomoSubtomogramBinning": 1.0} if version == 5 else {}),
        "rlnCtfDataAreCtfPremultiplied": 0, "rlnImagePixelSize": voxel_size_A, "rlnImageSize": box,
        "rlnImageDimensionality": 3,
    }  # fmt: skip


def particle_columns(table: pd.DataFrame, numbers: Mapping[str, int], voxel_size_A: float) -> pd.DataFrame:
    """Columns of data_particles but for the files' names; `numbers` are those of the classes.

    What no particle of the table knows is left out. rlnTomoParticleName is the tomogram and a number from 1, as in
    RELION 5's own files.
    """
    tomograms, names, classes = (table[c].astype(str).to_numpy() for c in ("tomogram", "particle", "class_name"))
    tomograms = np.where(tomograms == "", UNKNOWN, tomograms)
    columns: dict[str, object] = {
        "rlnMicrographName": tomograms,
        "rlnTomoName": tomograms,
        "rlnTomoParticleName": [f"{t}/{i + 1}" for t, i in zip(tomograms, table.index, strict=True)],
        NAME: np.where(names == "", "unknown", names),
        "rlnClassNumber": [numbers[c] for c in classes],
        CLASS: np.where(classes == "", "unknown", classes),
        "rlnOpticsGroup": 1,
    }
    for ours, theirs, scale in (
        (ANGLE_COLUMNS, ANGLES, 1.0),
        (SHIFT_COLUMNS, ORIGINS, -1.0),  # an origin moves the particle's centre by minus its value
        (POSITION_COLUMNS, COORDINATES, 1 / voxel_size_A),
        (CENTRED_COLUMNS, CENTRED, 1.0),
    ):
        if set(ours) <= set(table) and table[list(ours)].notna().any(axis=None):
            columns |= dict(zip(theirs, (table[list(ours)].to_numpy(float) * scale).T, strict=True))
    if "defocus_um" in table and table["defocus_um"].notna().all():
        columns |= dict.fromkeys(("rlnDefocusU", "rlnDefocusV"), 1e4 * table["defocus_um"].to_numpy(float))
        columns["rlnDefocusAngle"] = 0.0
    for ours, theirs in RECORDED.items():
        if ours in table and table[ours].notna().all():
            columns[theirs] = table[ours].to_numpy(float)
    return pd.DataFrame(columns, index=table.index)


def write_star(particles: ParticleSet, path: str | Path, volumes_mrc_dir: str | Path) -> None:
    """Write particles as MRC volumes and a STAR file that names them relative to itself, for RELION 3.1 and later.

    Coordinates are in voxels of the particles, shifts become rlnOriginXAngst... with RELION's sign (minus). A group of
    columns in which nothing is known is left out. Where the table tells tilt_min_deg and tilt_max_deg, and the tilt
    axis is y, rlnCtfImage names the weight of the missing wedge. Defocus, dose and tilt range are columns of their own
    where the table tells them.

    Raises ValueError when the volumes' folder is not inside the STAR file's, or poses are known for some particles
    only.
    """
    path, folder = Path(path), Path(volumes_mrc_dir)
    if not folder.resolve().is_relative_to(path.parent.resolve()):
        raise ValueError(f"{path}: the volumes' folder {folder} must lie inside {path.parent}")
    table, voxel, box = particles.table.reset_index(drop=True), particles.voxel_size_A, particles.volumes.shape[-1]
    for ours in (ANGLE_COLUMNS, POSITION_COLUMNS, SHIFT_COLUMNS):
        if table[list(ours)].notna().any(axis=None) and not np.isfinite(table[list(ours)].to_numpy(float)).all():
            raise ValueError(f"{path}: {', '.join(ours)} are known for some particles only; write them apart")
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {name: k + 1 for k, name in enumerate(sorted(set(table["class_name"].astype(str))))}
    columns = particle_columns(table, numbers, voxel)
    inside = folder.resolve().relative_to(path.parent.resolve())
    rows = zip(table["class_name"].astype(str), table["particle"].astype(str), table.index, strict=True)
    names = [f"{volume_name(c, numbers[c], f'{i + 1:06d}-{n}')}.mrc" for c, n, i in rows]
    for name, volume in zip(names, particles.volumes, strict=True):
        write_mrc(folder / name, volume, voxel)
    columns.insert(0, "rlnImageName", [(inside / name).as_posix() for name in names])
    ends = ["tilt_min_deg", "tilt_max_deg"]
    if set(ends) <= set(table) and table[ends].notna().all(axis=None):
        ranges = list(zip(table["tilt_min_deg"].astype(float), table["tilt_max_deg"].astype(float), strict=True))
        files = {tilts: (inside / write_wedge(folder, tilts, box, voxel).name).as_posix() for tilts in set(ranges)}
        columns.insert(1, "rlnCtfImage", [files[tilts] for tilts in ranges])
    text = star_head(optics_of(table, box, voxel), list(columns)) + star_rows(columns)
    write_atomically(path, lambda p: p.write_text(text))


def star_head(optics: Mapping[str, object], columns: list[str], general: str = "") -> str:
    """A STAR file up to the rows of data_particles."""
    group = "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(optics))
    values = " ".join(f"{v:.6f}" if isinstance(v, float) else str(v) for v in optics.values())
    rows = "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(columns))
    return f"{general}data_optics\n\nloop_\n{group}{values}\n\n\ndata_particles\n\nloop_\n{rows}"


def star_rows(columns: pd.DataFrame) -> str:
    """Rows of data_particles; words with spaces in quotation marks."""

    def word(value: object) -> str:
        return f'"{value}"' if re.search(r"\s", str(value)) else str(value)

    texts = [values.map("{:.6f}".format if values.dtype.kind == "f" else word) for _, values in columns.items()]
    return "".join(" ".join(row) + "\n" for row in zip(*texts, strict=True))
