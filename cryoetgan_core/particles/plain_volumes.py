"""Plain collections of cubic volumes: folders, stacks, NumPy, HDF5, zarr, pickles."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ..volumes.lazy import LazyVolumes
from ..volumes.table import ParticleSet, check_beam_axis, check_voxel_size, particle_table, protein_sign, read_csv
from .arrays import open_mrcs, open_npy, read_npz
from .pickles import PICKLE_SUFFIXES, read_pickle
from .turned import beam_to_z
from .volume_files import (
    HDF5_SUFFIXES,
    VOLUME_SUFFIXES,
    ZARR_SUFFIXES,
    ChunkedStack,
    open_hdf5,
    open_zarr,
    read_volume,
    suffix_of,
    volume_shape,
)

STACK_SUFFIXES = (".npy", ".npz", ".mrcs", *PICKLE_SUFFIXES)
KINDS = (
    "a folder of volumes (.mrc, .map, .rec, .em, .tif; also .gz, .bz2), a stack (.npy, .npz, .mrcs, .h5 or .zarr with "
    "4-D data, .pickle of AITom), optimisation_set.star or particles.star or a RELION project's folder, particles.csv "
    "of generated particles, "
    "a copick project, a run of the CryoET Data Portal (portal:NUMBER), or a tomogram (.mrc, .map, .ccp4, .rec, .em, "
    ".tif, .h5 or .zarr with 3-D data) with box= and n=, coordinates= or labels_path="
)


def read_volumes(
    path: str | Path,
    *,
    voxel_size_A: float | None = None,
    labels: str | Path | Mapping[str, object] | None = None,
    protein: Literal["bright", "dark"] = "bright",
    beam_axis: Literal["x", "y", "z"] = "z",
) -> ParticleSet:
    """Cubic volumes of one size from a folder of volumes (an MRC, EM or TIFF file each), or from one stack: .npy, .npz,
    .mrcs, .h5, .zarr or a pickle of AITom.

    Voxels stay on disk until they are asked for, except those of .npz and pickles.

    Parameters
    ----------
    path
        In an .npz the array ``volumes`` (times ``scale`` where that is there); ``label``, ``voxel_size_A``,
        ``quaternion_xyzw`` and ``shift_zyx_voxels`` are used where they are there: a voxel p of the volume
        shows the density at ``R (p - (n - 1) / 2 - shift)``, R from the quaternion acting on zyx indices, n the box.
    voxel_size_A
        overrides headers; needed where the file has none.
    labels
        a CSV file with columns ``particle,label``, or a mapping, from file name (folders) or index from 0 as
        text (the other kinds) to class. In a folder, its .csv file or the one with these columns is used by itself.
    protein
        how the file shows it; the result is bright.
    beam_axis
        the axis of the file along which the electrons went. Volumes and their poses are turned as `read_tomogram` turns
        a tomogram: the result has the beam along z.

    Raises ValueError when there is nothing to read, shapes or voxel sizes differ, values are not finite real numbers,
    labels do not match, or a voxel size is missing. Shapes are checked before data are read.
    """
    path = Path(path)
    sign = protein_sign(protein, path)
    if voxel_size_A is not None:
        check_voxel_size(voxel_size_A, path)
    check_beam_axis(beam_axis, path)
    if path.is_dir() and suffix_of(path) not in ZARR_SUFFIXES:
        (volumes, names, voxel), columns = _open_folder(path, voxel_size_A), {}
        labels = _labels_in(path) if labels is None else labels
    else:
        volumes, voxel, columns = _open_stack(path, voxel_size_A)
        names = [str(i) for i in range(len(volumes))]
    if voxel is None:
        raise ValueError(f"{path}: holds no voxel size; give voxel_size_A")
    if labels is not None:
        columns["class_name"] = _class_names(labels, names)
    if isinstance(volumes, np.ndarray) and volumes.dtype != np.float32:
        volumes = volumes.astype(np.float32)
    particles = ParticleSet(
        volumes, particle_table(len(names), particle=names, source=str(path), **columns), float(voxel)
    )
    if sign < 0:
        particles = particles.map(np.negative)
    return particles if beam_axis == "z" else beam_to_z(particles, beam_axis)


def _open_folder(path: Path, voxel_size_A: float | None) -> tuple[LazyVolumes, list[str], float | None]:
    """Volumes, names, and voxel size or None, of a folder whose headers agree."""
    files = sorted(f for f in path.iterdir() if suffix_of(f) in VOLUME_SUFFIXES and not f.name.startswith("."))
    if not files:
        hint = "; give its particles.csv" if (path / "particles.csv").is_file() else "; expected one a particle"
        raise ValueError(f"{path}: no volumes ({', '.join(VOLUME_SUFFIXES)}) in this folder{hint}")
    first, voxels = None, []
    for file in files:
        shape, voxel = volume_shape(file, voxel_size_A)
        if len(set(shape)) != 1 or (first and shape != first):
            wanted = f"{files[0].name} has {first}" if first else "expected a cube"
            raise ValueError(f"{file}: shape {tuple(shape)}, but {wanted}; crop them to one cubic box")
        first = first or tuple(shape)
        voxels.append(voxel)
    known = [v for v in voxels if v is not None]
    of_all = len(known) == len(voxels)
    if of_all and max(known) > 1.01 * min(known):
        raise ValueError(
            f"{path}: voxel sizes from {min(known):g} to {max(known):g} A; rescale to one, or give voxel_size_A"
        )
    volumes = LazyVolumes(lambda i: read_volume(files[i], voxels[i])[0], first[0], [str(f) for f in files])
    return volumes, [f.name for f in files], known[0] if of_all else None


def _open_stack(path: Path, voxel_size_A: float | None) -> tuple[np.ndarray | LazyVolumes, float | None, dict]:
    """Volumes (N, D, D, D), voxel size or None, and table columns of one file or zarr store."""
    suffix = suffix_of(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; expected {KINDS}")
    if suffix == ".npz":
        return read_npz(path, voxel_size_A)
    if suffix in PICKLE_SUFFIXES:
        volumes = read_pickle(path)
        shapes = {v.shape for values in volumes.values() for v in values}
        if len(shapes) > 1:
            raise ValueError(f"{path}: volumes of shapes {sorted(shapes)[:3]}; crop them to one cubic box")
        labels = [name for name, values in volumes.items() for _ in values]
        return np.stack([v for values in volumes.values() for v in values]), voxel_size_A, {"class_name": labels}
    if suffix == ".npy":
        stack = open_npy(path)
    elif suffix in HDF5_SUFFIXES:
        stack = open_hdf5(path, (3, 4))
        voxel_size_A = voxel_size_A or getattr(stack, "voxel_size_A", None)
    elif suffix in ZARR_SUFFIXES:
        stack, own = open_zarr(path, (3, 4))
        stack = ChunkedStack(stack) if stack.ndim == 4 else stack
        voxel_size_A = voxel_size_A or own
    elif suffix == ".mrcs":
        stack, voxel_size_A = open_mrcs(path, voxel_size_A)
    else:
        raise ValueError(
            f"{path}: not a kind of volumes known here; expected a folder, {', '.join(STACK_SUFFIXES)}, .h5 or .zarr"
        )
    shape = stack.shape if len(stack.shape) == 4 else (1, *stack.shape)
    if len(set(shape[1:])) != 1:
        raise ValueError(f"{path}: volumes of {shape[1:]} voxels, expected cubic boxes")
    read = (lambda i: np.asarray(stack[i])) if len(stack.shape) == 4 else (lambda i: np.asarray(stack[:]))
    return LazyVolumes(read, shape[1], [f"{path}: volume {i}" for i in range(shape[0])]), voxel_size_A, {}


def _labels_in(folder: Path) -> Path | None:
    """The table of labels among a folder's .csv files: the only one, or the only one with the columns of labels."""
    csv = sorted(folder.glob("*.csv"))
    if len(csv) > 1:
        first = {c: c.read_text(errors="replace").partition("\n")[0] for c in csv}
        csv = [c for c in csv if {"particle", "label"} <= {word.strip(' "\r') for word in re.split("[,;]", first[c])}]
    if len(csv) > 1:
        raise ValueError(f"{folder}: {', '.join(c.name for c in csv)} all have the columns particle,label; give labels")
    return csv[0] if csv else None


def _class_names(labels: str | Path | Mapping[str, object], names: list[str]) -> list[str]:
    """The class of each name, from a CSV file or a mapping."""
    if isinstance(labels, str | Path):
        table = read_csv(labels, dtype=str)
        if not {"particle", "label"} <= set(table) or table["particle"].duplicated().any():
            raise ValueError(f"{labels}: columns {list(table)}, expected particle,label with each particle once")
        labels, where = dict(zip(table["particle"], table["label"], strict=True)), labels
    else:
        where = "labels"
    given = list(labels)
    stems = {name: Path(name).stem for name in names}
    if len(set(stems.values())) == len(names):  # names without their suffix do too
        labels = {name: labels.get(name, labels.get(stem)) for name, stem in stems.items()}
    missing = [n for n in names if labels.get(n) is None or labels[n] != labels[n]]
    if missing:
        raise ValueError(
            f"{where}: no label for {len(missing)} of {len(names)} particles, first {missing[:3]}; it names {given[:3]}"
        )
    return [str(labels[n]) for n in names]
