"""Plain collections of volumes (folders, stacks, NumPy, HDF5), and the one entry for any particles."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ..specimen.maps import MAP_SUFFIXES, read_map
from ..specimen.poses import matrix_to_relion_euler, relion_euler_to_matrix
from .arrays import read_mrcs, read_npy, read_npz
from .relion import read_subtomogram_star, read_tilt_stack_particles
from .relion_files import read_star
from .table import ParticleSet, check_beam_axis, check_voxel_size, particle_table, protein_sign
from .tomogram import HDF5_SUFFIXES, TIFF_SUFFIXES, cut_cubes, read_hdf5, read_tomogram

KINDS = (
    "a folder of .mrc volumes, .npy, .npz, .mrcs, .h5 with 4-D data, optimisation_set.star or "
    "particles.star, or a tomogram (.mrc, .map, .ccp4, .rec, .tif, .h5 with 3-D data) with box= "
    "and n= or coordinates="
)


def load_particles(path: str | Path, **options) -> ParticleSet:
    """Particles from whatever `path` is; `options` are those of the function that reads this kind.

    Folders, .npy, .npz, .mrcs and .h5 with 4-D data: `read_volumes`. A .star file:
    `read_tilt_stack_particles`, or `read_subtomogram_star` where its optics table says 3-D. Other single
    files are tomograms: `read_tomogram` with `cut_cubes`.

    Raises
    ------
    ValueError
        when nothing here reads the path, an option belongs to no reader of this kind, or the reader refuses.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; expected {KINDS}")
    suffix = path.suffix.lower()
    if suffix == ".star":
        reader = read_subtomogram_star if is_3d_star(path) else read_tilt_stack_particles
        return reader(path, **_known(path, options, reader))
    if path.is_dir() or suffix in (".npy", ".npz", ".mrcs"):
        return read_volumes(path, **_known(path, options, read_volumes))
    if suffix in HDF5_SUFFIXES and not {"box", "coordinates", "n"} & set(options):
        return read_volumes(path, **_known(path, options, read_volumes))
    if suffix in MAP_SUFFIXES + TIFF_SUFFIXES + HDF5_SUFFIXES:
        options = _known(path, options, read_tomogram, cut_cubes)
        reading = {k: options.pop(k) for k in ("voxel_size_A", "beam_axis", "protein") if k in options}
        if "box" not in options:
            raise ValueError(f"{path}: a tomogram needs box= and n= or coordinates=; found {sorted(options)}")
        volume, voxel = read_tomogram(path, **reading)
        return cut_cubes(volume, voxel, **{"tomogram": path.stem, "source": str(path), **options})
    raise ValueError(f"{path}: not a kind of particles known here; expected {KINDS}")


def read_volumes(
    path: str | Path,
    *,
    voxel_size_A: float | None = None,
    labels: str | Path | Mapping[str, object] | None = None,
    protein: Literal["bright", "dark"] = "bright",
    beam_axis: Literal["x", "y", "z"] = "z",
) -> ParticleSet:
    """Cubic volumes of one size from a folder of .mrc files, or from one .npy, .npz, .mrcs or .h5 file.

    Parameters
    ----------
    path
        In an .npz the array ``volumes`` (times ``scale`` where that is there); ``label``, ``voxel_size_A``,
        ``quaternion_xyzw`` and ``shift_zyx_voxels`` are used where they are there: a voxel p of the volume
        shows the density at ``R (p - centre - shift)``, R from the quaternion acting on zyx indices.
    voxel_size_A
        overrides headers; needed where the file has none (.npy, .h5).
    labels
        a CSV file with columns ``particle,label``, or a mapping, from file name (folders) or index from 0 as
        text (the other kinds) to class. A folder's only .csv file is used by itself.
    protein
        how the file shows it; the result is bright.
    beam_axis
        the axis of the file along which the electrons went. Volumes and their poses are turned as `read_tomogram` turns a tomogram: the result has the beam along z.

    Raises
    ------
    ValueError
        when there is nothing to read, shapes or voxel sizes differ, values are not finite real numbers,
        labels do not match, or a voxel size is missing. Shapes are checked before data are read.
    """
    path = Path(path)
    sign = protein_sign(protein, path)
    if voxel_size_A is not None:
        check_voxel_size(voxel_size_A, path)
    check_beam_axis(beam_axis, path)
    if path.is_dir():
        volumes, names, voxel, columns = _read_folder(path, voxel_size_A)
        csv = sorted(path.glob("*.csv"))
        labels = csv[0] if labels is None and len(csv) == 1 else labels
    else:
        volumes, voxel, columns = _read_stack(path, voxel_size_A)
        names = [str(i) for i in range(len(volumes))]
    if voxel is None:
        raise ValueError(f"{path}: holds no voxel size; give voxel_size_A")
    if labels is not None:
        columns["class_name"] = _class_names(labels, names)
    table = particle_table(len(names), particle=names, source=str(path), **columns)
    particles = ParticleSet(sign * np.asarray(volumes, np.float32), table, float(voxel))
    return particles if beam_axis == "z" else _beam_to_z(particles, beam_axis)


def _beam_to_z(particles: ParticleSet, beam_axis: str) -> ParticleSet:
    """Particles turned so that the beam, along `beam_axis` before, goes along z."""
    other = 1 if beam_axis == "y" else 2  # index axis that changes places with the first
    n, table = particles.volumes.shape[-1], particles.table.copy()
    turn = torch.eye(3, dtype=torch.float64)  # from new to old zyx offsets
    turn[[0, other]] = turn[[other, 0]]
    turn[other] *= -1
    angles, shifts = ["rot_deg", "tilt_deg", "psi_deg"], ["shift_z_A", "shift_y_A", "shift_x_A"]
    if table[angles].notna().all(axis=None):
        matrices = relion_euler_to_matrix(*torch.from_numpy(table[angles].to_numpy(float, copy=True)).unbind(1))
        table[angles] = torch.stack(matrix_to_relion_euler(matrices @ turn.flip((0, 1))), 1).numpy()
    if table[shifts].notna().all(axis=None):
        old = table[shifts].to_numpy(float, copy=True)
        old[:, other] += particles.voxel_size_A * (n % 2 == 0)  # an even box turns about half a voxel before its centre n // 2
        table[shifts] = old @ turn.numpy()
    return ParticleSet(np.ascontiguousarray(np.rot90(particles.volumes, axes=(1, 1 + other))), table, particles.voxel_size_A)


def _read_folder(path: Path, voxel_size_A: float | None) -> tuple[np.ndarray, list[str], float, dict]:
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in MAP_SUFFIXES)
    if not files:
        raise ValueError(f"{path}: no volumes ({', '.join(MAP_SUFFIXES)}) in this folder; expected one a particle")
    volumes, voxels = [], []
    for file in files:
        volume, voxel = read_map(file, voxel_size_A=voxel_size_A)
        if len(set(volume.shape)) != 1 or (volumes and volume.shape != volumes[0].shape):
            first = f"{files[0].name} has {tuple(volumes[0].shape)}" if volumes else "expected a cube"
            raise ValueError(f"{file}: shape {tuple(volume.shape)}, but {first}; crop them to one cubic box")
        volumes.append(volume.numpy())
        voxels.append(voxel)
    if max(voxels) > 1.01 * min(voxels):
        raise ValueError(f"{path}: voxel sizes from {min(voxels):g} to {max(voxels):g} A; rescale to one, or give voxel_size_A")
    return np.stack(volumes), [f.name for f in files], voxels[0], {}


def _read_stack(path: Path, voxel_size_A: float | None) -> tuple[np.ndarray, float | None, dict]:
    """Volumes (N, D, D, D), voxel size or None, and table columns of one file."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder; expected {KINDS}")
    if suffix == ".npz":
        return read_npz(path, voxel_size_A)
    if suffix == ".npy":
        volumes = read_npy(path)
    elif suffix in HDF5_SUFFIXES:
        volumes = read_hdf5(path, (3, 4))
    elif suffix == ".mrcs":
        volumes, voxel_size_A = read_mrcs(path, voxel_size_A)
    else:
        raise ValueError(f"{path}: not a kind of volumes known here; expected a folder, .npy, .npz, .mrcs or .h5")
    return volumes if volumes.ndim == 4 else volumes[None], voxel_size_A, {}


def _class_names(labels: str | Path | Mapping[str, object], names: list[str]) -> list[str]:
    """The class of each name, from a CSV file or a mapping."""
    if isinstance(labels, str | Path):
        try:
            table = pd.read_csv(labels, dtype=str)
        except (OSError, ValueError) as error:
            raise ValueError(f"{labels}: cannot be read as CSV ({error})") from error
        if not {"particle", "label"} <= set(table) or table["particle"].duplicated().any():
            raise ValueError(f"{labels}: columns {list(table)}, expected particle,label with each particle once")
        labels, where = dict(zip(table["particle"], table["label"], strict=True)), labels
    else:
        where = "labels"
    missing = [n for n in names if n not in labels or labels[n] is None or labels[n] != labels[n]]
    if missing:
        raise ValueError(f"{where}: no label for {len(missing)} of {len(names)} particles, first {missing[:3]}")
    return [str(labels[n]) for n in names]


def is_3d_star(path: Path) -> bool:
    optics = read_star(path).get("optics", {})
    dimensions = optics.get("rlnImageDimensionality", 2)
    return int(np.ravel(dimensions)[0]) == 3


def _known(path: Path, options: dict, *readers) -> dict:
    """The options, once each is a parameter of one of the readers."""
    allowed = {p for r in readers for p in inspect.signature(r).parameters} - {"path", "volume"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(f"{path}: unknown options {unknown}; expected some of {sorted(allowed)}")
    return dict(options)
