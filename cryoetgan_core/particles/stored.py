"""Volumes on disk that a table names, ``FILE`` or ``NUMBER@FILE`` (from 1), and our own table, particles.csv.

Volumes stay unread until they are indexed.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..volumes.lazy import LazyVolumes
from ..volumes.maps import read_map, read_map_header
from ..volumes.table import NUMBER_COLUMNS, TEXT_COLUMNS, ParticleSet, particle_table, protein_sign
from .arrays import open_mrcs
from .relion_tables import inside, numeric
from .volume_files import HDF5_SUFFIXES, ZARR_SUFFIXES, ChunkedStack, open_hdf5, open_zarr, suffix_of

OPEN_STACKS = 8  # files at a time: a million particles lie in thousands, and what is mapped counts as memory


def stored_volumes(
    path: Path, names: Sequence[str], box: int, voxel_size_A: float, change: Callable[[int, np.ndarray], np.ndarray]
) -> tuple[LazyVolumes, list[str]]:
    """The volumes that a table at `path` names, each behind ``change(row, volume)``, and a name for each of them.

    Raises ValueError when a file is missing, leads out of the table's folder or holds another box, or a stack has
    fewer volumes.
    """
    numbers, files = [], []
    for name in names:
        number, at, file = name.rpartition("@")
        if at and not (number.isdigit() and int(number) > 0):
            raise ValueError(f"{path}: image name {name!r}; expected NUMBER@FILE, numbers from 1, or FILE")
        numbers.append(int(number) - 1 if at else None)
        files.append(inside(path.parent, file, path))
    opened = lru_cache(maxsize=OPEN_STACKS)(partial(_open_stack, box=box))
    largest: dict[Path, int] = {}
    for file, number in zip(files, numbers, strict=True):
        if number is not None:
            largest[file] = max(number, largest.get(file, 0))
            continue
        shape, _ = read_map_header(file, voxel_size_A)
        if shape != (box,) * 3:
            raise ValueError(f"{file}: {shape} voxels, expected {box} on every side")
    for file, number in largest.items():
        if number >= opened(file).shape[0]:
            raise ValueError(f"{path}: names volume {number + 1} of {file}, which holds {opened(file).shape[0]}")

    def read(i: int) -> np.ndarray:
        if numbers[i] is not None:
            return change(i, np.asarray(opened(files[i])[numbers[i]], np.float32))
        return change(i, read_map(files[i], voxel_size_A=voxel_size_A)[0].numpy())

    labels = [str(f) if k is None else f"{f}: volume {k + 1}" for f, k in zip(files, numbers, strict=True)]
    short = [f.name if k is None else f"{k + 1}@{f.name}" for f, k in zip(files, numbers, strict=True)]
    return LazyVolumes(read, box, labels), short


def read_particles_csv(path: str | Path, *, protein: str = "bright") -> ParticleSet:
    """Read what `streaming.generate_to` wrote beside particles.csv; the table keeps all of its columns.

    Raises ValueError when the file is no such table, its particles lie in tomograms, or a volume is missing or has
    another box.
    """
    path = Path(path)
    sign = protein_sign(protein, path)
    try:
        texts = dict.fromkeys((*TEXT_COLUMNS, "file"), str)
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from error
    missing = {"file", "voxel_size_A", "box", *NUMBER_COLUMNS} - set(table)
    if missing or table.empty:
        raise ValueError(
            f"{path}: {len(table)} rows, without {', '.join(sorted(missing))}; expected particles.csv of generated "
            "particles"
        )
    if table["x_A"].notna().any():
        raise ValueError(
            f"{path}: its particles lie in tomograms; give the tomogram, with coordinates={path.name!r}, or the copick "
            "project"
        )
    numeric(table, ("voxel_size_A", "box"), path)
    table[list(TEXT_COLUMNS)] = table[list(TEXT_COLUMNS)].fillna("")
    voxel, box = float(table["voxel_size_A"].iloc[0]), int(table["box"].iloc[0])
    volumes, _ = stored_volumes(path, table["file"].astype(str), box, voxel, lambda i, v: sign * v)
    return ParticleSet(volumes, particle_table(len(table), **dict(table.items()) | {"source": str(path)}), voxel)


def _open_stack(file: Path, box: int) -> object:
    """A stack of volumes (N, D, D, D), unread, that image names of the form NUMBER@FILE refer to."""
    suffix = suffix_of(file)
    if suffix in HDF5_SUFFIXES:
        stack = open_hdf5(file, (4,))
    elif suffix in ZARR_SUFFIXES:
        stack = ChunkedStack(open_zarr(file, (4,))[0])
    else:
        stack = open_mrcs(file, 1.0)[0]
    if tuple(stack.shape[1:]) != (box,) * 3:
        raise ValueError(f"{file}: volumes of {tuple(stack.shape[1:])} voxels, expected {box} on every side")
    return stack
