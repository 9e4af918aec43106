"""Tilt angles that lie beside a tomogram: .tlt and .rawtlt of IMOD, .mdoc of SerialEM and others, .xml of Warp."""

import logging
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch

from ..physics.fourier_grid import estimate_tilt_range
from ..volumes.table import ParticleSet
from .names import tomogram_name

LOG = logging.getLogger(__name__)
SUFFIXES = (".tlt", ".xml", ".rawtlt", ".mdoc")  # refined angles are taken before those of the stage
STACKS = (".mrc", ".st", ".ali", ".rec")  # endings that a tilt file's name may keep
MOST_DEG = 90.0
LOOKED_AT = 200  # particles
_KEY = re.compile(r"\s*(\w+)\s*=\s*(.*?)\s*$")


def read_tilts(path: str | Path) -> np.ndarray:
    """Tilt angles (T,) in degrees, in the file's order.

    Raises ValueError when the file is of another kind, or holds no angles or impossible ones.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: not a file of tilt angles known here; expected {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected tilt angles")
    lines = path.read_text(errors="replace").splitlines()
    if path.suffix.lower() == ".xml":
        words = _warp_angles(path)
    elif path.suffix.lower() == ".mdoc":
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


def _warp_angles(path: Path) -> list[str]:
    """The angles of a tilt series as Warp and M keep it: element Angles of TiltSeries, without the tilts left out."""
    try:
        series = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: cannot be read as XML ({error})") from error
    angles = series.findtext("Angles") if series.tag == "TiltSeries" else None
    if angles is None:
        raise ValueError(f"{path}: a <{series.tag}>, expected Warp's <TiltSeries> with <Angles>")
    words, used = angles.split(), (series.findtext("UseTilt") or "").lower().split()
    return [w for w, use in zip(words, used, strict=True) if use == "true"] if len(used) == len(words) else words


def _tells_tilts(file: Path) -> bool:
    """Whether a file is one of tilts by its ending; of XML files only Warp's tilt series are."""
    if file.suffix.lower() == ".xml":
        with file.open("rb") as handle:
            return b"<TiltSeries" in handle.read(4096)
    return file.suffix.lower() in SUFFIXES


def tilt_file_beside(tomogram: Path) -> Path | None:
    """The file of tilt angles in a tomogram's folder that has its name, or a name with which the tomogram's begins."""
    wanted, found = tomogram_name(tomogram.name), []
    folder = tomogram.parent
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.is_file() and _tells_tilts(file):
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

    Which side of a tomogram a positive tilt turned up depends on the program that reconstructed it: the particles
    themselves show it, where the range is not symmetric. Where they do not, it is taken as RELION 5, and IMOD with
    ``trimvol -rx``, reconstruct.

    Raises ValueError as `read_tilts`, or for a range that is none.
    """
    table, ranges, told = particles.table.copy(), {}, tilt_range_deg is not None
    if not told and tilt_file is None and "tilt_min_deg" in table:
        return particles
    if told and not (np.size(tilt_range_deg) == 2 and -MOST_DEG <= tilt_range_deg[0] < tilt_range_deg[1] <= MOST_DEG):
        raise ValueError(f"{path}: tilt_range_deg is {tilt_range_deg!r}; expected two angles such as [-60, 60]")
    for source in sorted(set(table["source"])):
        file = None if told else Path(tilt_file) if tilt_file else tilt_file_beside(Path(source))
        if told or file is not None:
            tilts = np.array(tilt_range_deg, float) if told else read_tilts(file)
            rows = np.flatnonzero(table["source"] == source)
            ranges[source] = _in_tomogram(tilts.min(), tilts.max(), particles.volumes[rows[:LOOKED_AT]])
            named = "as told" if told else f"from {file.name}"
            turned = ranges[source][0] != tilts.min()
            named += "; {:g} to {:g} along the tomogram's z".format(*ranges[source]) if turned else ""
            LOG.warning("%s: tilts %g to %g degrees, %s", source, tilts.min(), tilts.max(), named)
    if not ranges:
        return particles
    for k, column in enumerate(("tilt_min_deg", "tilt_max_deg")):
        table[column] = table["source"].map({source: ends[k] for source, ends in ranges.items()})
    return ParticleSet(particles.volumes, table, particles.voxel_size_A)


def _in_tomogram(low: float, high: float, volumes: np.ndarray) -> tuple[float, float]:
    """A tilt range as the tomogram has it (`physics.fourier_grid.coordinates`): turned over, unless particles
    (N, D, D, D) show that it is not.
    """
    seen = estimate_tilt_range(torch.from_numpy(np.asarray(volumes, np.float32)))
    as_told, turned = (abs(seen[0] - a) + abs(seen[1] - b) for a, b in ((low, high), (-high, -low)))
    return (low, high) if seen != (-MOST_DEG, MOST_DEG) and as_told < turned else (-high, -low)
