"""Reading STAR files of particles, each table and name checked before any image is touched."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pandas as pd
import starfile
import torch
from torch import Tensor

from ..volumes.poses import pose_to_relion_angles, rotations_of

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
BOX_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
NAMES = [  # a name of digits is not a number: 000017 keeps its zeros
    "rlnTomoName", "rlnMicrographName", "rlnTomoParticleName", "rlnImageName", "cryoetganClassName",
    "cryoetganParticleName",
]  # fmt: skip
_PROJECT: ContextVar[Path | None] = ContextVar("project", default=None)
_WORD = re.compile(r"""'[^']*'(?=\s|$)|"[^"]*"(?=\s|$)|#.*|\S+""")  # of a row, quoted or not, or a comment


def read_star(path: Path) -> dict[str, pd.DataFrame | dict]:
    """All blocks of a STAR file by name; ValueError when it is missing or is no STAR file."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a STAR file")
    _check_lines(path)
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=NAMES)
    except Exception as error:  # the parser raises whatever its lines lead to
        raise ValueError(f"{path}: cannot be read as a STAR file ({error})") from error
    if not blocks:
        raise ValueError(f"{path}: no STAR block (data_...) found, expected a STAR file")
    return blocks


def _check_lines(path: Path) -> None:
    """Raise ValueError where a row has not one word a column, which would shift them, or a block is there twice."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a STAR file ({error})") from error
    seen, columns, looped = set(), 0, False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("data_"):
            if text in seen:
                raise ValueError(f"{path}: line {number} begins {text} a second time; expected each block once")
            seen.add(text)
            columns, looped = 0, False
        elif text.startswith("loop_"):
            columns, looped = 0, True
        elif text.startswith("_") and looped:
            columns += 1
        elif text and not text.startswith("#") and looped:
            words = sum(not word.startswith("#") for word in _WORD.findall(text))
            if words != columns:
                raise ValueError(
                    f"{path}: line {number} has {words} words, expected {columns}, one a column; write an empty one as "
                    '""'
                )


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


@contextmanager
def within_project(root: str | Path | None) -> Iterator[None]:
    """Let `inside` take `root`, where it is given, for the project's folder."""
    token = _PROJECT.set(Path(root).resolve() if root else None)
    try:
        yield
    finally:
        _PROJECT.reset(token)


def inside(folder: Path, name: str, path: Path) -> Path:
    """The file that `path`, in `folder`, calls `name`: in that folder, or, as RELION names its files, from the
    project's folder above it. A name may go up a folder (``../volumes/1.mrc``) within the project's folder.

    A folder above is the project's when it is told (`within_project`), holds default_pipeline.star, or when the name
    begins on the way from it to the folder (``Extract/job013/1.mrc`` in PROJECT/Extract/job013/particles.star).

    Raises ValueError when the name leads out of these folders, or is nowhere there.
    """
    folder, first = folder.resolve(), Path(name).parts[:1]
    projects = [
        p
        for child, p in zip([folder, *folder.parents], folder.parents, strict=False)
        if (p / "default_pipeline.star").is_file() or first == (child.name,)
    ]
    told = _PROJECT.get()
    if told is not None:
        if not folder.is_relative_to(told):
            raise ValueError(f"{path} lies outside of {told}; project_root is a folder above it")
        projects.insert(0, told)
    for root in [folder, *projects]:
        target = (root / name).resolve()
        if not any(target.is_relative_to(allowed) for allowed in [folder, *projects]):
            raise ValueError(
                f"{path}: {name!r} leads out of the file's folder; move the data beside the STAR file, or name the "
                "folder that holds both (project_root)"
            )
        if target.is_file() or (target.suffix == ".zarr" and target.is_dir()):
            return target
    raise ValueError(
        f"{path}: {name!r} does not exist in {folder}, nor from a RELION project's folder above it; names are relative "
        "to one of these"
    )


def numeric(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    """Raise ValueError unless the columns hold finite numbers."""
    for column in columns:
        values = pd.to_numeric(table[column], errors="coerce")
        if not np.isfinite(values).all():
            bad = table[column][~np.isfinite(values)].iloc[0]
            raise ValueError(
                f"{path}: {column} holds {bad if isinstance(bad, float) else repr(bad)}, expected finite numbers"
            )


def series_pixels(table: pd.DataFrame, blocks: dict, path: Path) -> np.ndarray | None:
    """Pixel size (N,) in angstrom of the tilt series of each particle, in which RELION counts coordinates whatever the
    binning of the boxes; None where the optics table is missing or does not say.

    Warns where the optics table contradicts itself.

    Raises ValueError when a particle's optics group is not in the table.
    """
    name = "rlnTomoTiltSeriesPixelSize"
    if "optics" not in blocks or name not in blocks["optics"]:
        return None
    optics = table_of(blocks, "optics", path, (name,))
    numeric(optics, (name,), path)
    binned = ("rlnImagePixelSize", "rlnTomoSubtomogramBinning")
    if set(binned) <= set(optics):
        numeric(optics, binned, path)
        pixel, series = optics["rlnImagePixelSize"].astype(float), optics[name].astype(float)
        wrong = (pixel / (series * optics["rlnTomoSubtomogramBinning"].astype(float)) - 1).abs() > 0.02
        if wrong.any():
            k = wrong.idxmax()
            warnings.warn(
                f"{path}: {binned[0]} {pixel[k]:g} is not {name} {series[k]:g} times {binned[1]} "
                f"{optics[binned[1]][k]:g}; positions are taken in units of {series[k]:g} A",
                stacklevel=2,
            )
    if len(optics) == 1 or optics[name].astype(float).nunique() == 1:
        return np.full(len(table), float(optics[name].iloc[0]))
    if not {"rlnOpticsGroup"} <= set(table) & set(optics):
        raise ValueError(f"{path}: {len(optics)} optics groups with several pixel sizes, and no rlnOpticsGroup")
    units = table["rlnOpticsGroup"].map(dict(zip(optics["rlnOpticsGroup"], optics[name].astype(float), strict=True)))
    if units.isna().any():
        raise ValueError(f"{path}: optics group {table['rlnOpticsGroup'][units.isna()].iloc[0]} is not in data_optics")
    return units.to_numpy(float)


def box_poses(table: pd.DataFrame, path: Path) -> Tensor:
    """Rotations (N, 3, 3) of the boxes of a particle table (RELION 4 and 5), the identity where it says none.

    The box's point x is the tomogram's ``A_subtomogram x``.

    Raises ValueError when one of the three columns is missing while another is there, or holds no finite numbers.
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
    return rotations_of(table, BOX_ANGLES)


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
            if columns == ANGLES:
                values = torch.stack(pose_to_relion_angles(boxes @ rotations_of(table, ANGLES)), 1)
            else:
                values = (boxes @ torch.from_numpy(table[list(columns)].to_numpy(float, copy=True))[:, :, None])[..., 0]
            table[list(columns)] = values.numpy()
        elif columns == ANGLES:  # the particle lies in its box as the reference does
            table[list(columns)] = torch.stack(pose_to_relion_angles(boxes), 1).numpy()
    return table


def particle_files(path: Path) -> tuple[Path, Path | None, dict]:
    """Particle file, tomogram file (None where there is none) and the particle file's blocks, from an optimisation set
    or a particle file; the table of RELION 3.0, which has no name, as "particles".
    """
    found, tomograms, blocks = _particle_files(path)
    table = blocks["particles"]
    if "rlnImageName" not in table and "rlnTomoName" in table:
        raise ValueError(
            f"{found}: places in tomograms, and no extracted particles; give the tomograms, and this file as "
            "coordinates="
        )
    return found, tomograms, blocks


def _particle_files(path: Path) -> tuple[Path, Path | None, dict]:
    blocks = read_star(path)
    if "particles" in blocks:
        beside = path.parent / "tomograms.star"
        return path, beside if beside.is_file() else None, blocks
    names = next((b for b in blocks.values() if isinstance(b, dict) and "rlnTomoParticlesFile" in b), None)
    if names is not None and "rlnTomoTomogramsFile" in names:
        particles = inside(path.parent, str(names["rlnTomoParticlesFile"]), path)
        tomograms = inside(path.parent, str(names["rlnTomoTomogramsFile"]), path)
        found = read_star(particles)
        if "particles" not in found:
            raise ValueError(f"{particles}: no block data_particles, found {sorted(found)}")
        return particles, tomograms, found
    if len(blocks) == 1 and "rlnImageName" in next(iter(blocks.values())):
        return path, None, {"particles": next(iter(blocks.values()))}
    raise ValueError(
        f"{path}: neither data_particles nor rlnTomoParticlesFile and rlnTomoTomogramsFile found, "
        "expected an optimisation_set.star or a particles.star"
    )
