"""Tilt angles that lie beside a tomogram: .tlt and .rawtlt of IMOD, .mdoc of SerialEM, Tomo 5 and others."""

import logging
import re
from pathlib import Path

import numpy as np

from ..volumes.table import ParticleSet
from .names import tomogram_name

LOG = logging.getLogger(__name__)
SUFFIXES = (".tlt", ".rawtlt", ".mdoc")  # refined angles are taken before those of the stage
STACKS = (".mrc", ".st", ".ali", ".rec")  # endings that a tilt file's name may keep
MOST_DEG = 90.0
_KEY = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*$")


def read_tilts(path: str | Path) -> np.ndarray:
    """Tilt angles (T,) in degrees, in the file's order.

    Raises
    ------
    ValueError
        when the file is of another kind, or holds no angles or impossible ones.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: not a file of tilt angles known here; expected {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected tilt angles")
    lines = path.read_text(errors="replace").splitlines()
    if path.suffix.lower() == ".mdoc":
        words = [found.group(2) for found in map(_KEY.match, lines) if found and found.group(1) == "TiltAngle"]
    else:
        words = [line.split()[0] for line in lines if line.strip()]
    try:
        tilts = np.array(words, float)
    except ValueError as error:
        raise ValueError(f"{path}: a tilt angle is no number ({error})") from error
    if len(tilts) < 2 or not (np.abs(tilts) <= MOST_DEG).all():
        raise ValueError(f"{path}: {len(tilts)} angles, {tilts[:5].tolist()} ...; expected two or more, -90 to 90")
    return tilts


def tilt_file_beside(tomogram: Path) -> Path | None:
    """The file of tilt angles in a tomogram's folder that has its name, or a name with which the tomogram's begins."""
    wanted, found = tomogram_name(tomogram.name), []
    folder = tomogram.parent
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix.lower() in SUFFIXES:
            name = file.stem
            name = Path(name).stem if Path(name).suffix.lower() in STACKS else name
            if name == wanted or wanted.startswith(tuple(name + c for c in "_-.")):
                found.append((-len(name), SUFFIXES.index(file.suffix.lower()), file))
    return min(found)[2] if found else None


def with_tilts(
    particles: ParticleSet, path: Path, tilt_file: str | Path | None, tilt_range_deg: tuple[float, float] | None
) -> ParticleSet:
    """The particles with the columns tilt_min_deg and tilt_max_deg: as told by hand, from a file of tilt angles, else
    from one beside their tomogram; unchanged where nothing tells, or their own file did.

    Raises
    ------
    ValueError
        as `read_tilts`, or for a range that is none.
    """
    table = particles.table.copy()
    if tilt_range_deg is not None:
        low, high = np.ravel(tilt_range_deg) if np.size(tilt_range_deg) == 2 else (0.0, 0.0)
        if not -MOST_DEG <= low < high <= MOST_DEG:
            raise ValueError(f"{path}: tilt_range_deg is {tilt_range_deg!r}; expected two angles such as [-60, 60]")
        table["tilt_min_deg"], table["tilt_max_deg"] = float(low), float(high)
        return ParticleSet(particles.volumes, table, particles.voxel_size_A)
    if tilt_file is None and "tilt_min_deg" in table:
        return particles
    sources = sorted(set(table["source"]))
    files = {source: Path(tilt_file) if tilt_file else tilt_file_beside(Path(source)) for source in sources}
    ranges = {}
    for source, file in files.items():
        tilts = None if file is None else read_tilts(file)
        ranges[source] = (np.nan, np.nan) if tilts is None else (tilts.min(), tilts.max())
        if tilts is not None:
            LOG.warning("%s: tilts of %g to %g degrees, from %s", source, *ranges[source], file.name)
    if not any(files.values()):
        return particles
    table["tilt_min_deg"] = table["source"].map({k: v[0] for k, v in ranges.items()})
    table["tilt_max_deg"] = table["source"].map({k: v[1] for k, v in ranges.items()})
    return ParticleSet(particles.volumes, table, particles.voxel_size_A)
