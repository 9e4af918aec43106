"""Plain collections of volumes (folders, stacks, NumPy, HDF5, zarr, pickles), and the one entry for any particles."""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ..volumes.lazy import LazyVolumes, reading
from ..volumes.poses import pose_to_relion_angles, relion_angles_to_pose
from ..volumes.table import ANGLE_COLUMNS, ParticleSet, check_beam_axis, check_voxel_size, particle_table, protein_sign
from . import copick
from .arrays import open_mrcs, open_npy, read_npz
from .coordinates import in_tomogram, read_coordinates
from .data_portal import fetch_run, is_portal_run
from .picked import cut_at, read_copick
from .pickles import PICKLE_SUFFIXES, read_pickle
from .relion_stacks import read_subtomogram_star, read_tilt_stack_particles
from .relion_tables import particle_files, within_project
from .stored import read_particles_csv
from .tilt_files import with_tilts
from .tomogram import cut_cubes, read_labelled_tomogram, read_tomogram
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

LOG = logging.getLogger(__name__)
STACK_SUFFIXES = (".npy", ".npz", ".mrcs", *PICKLE_SUFFIXES)
KINDS = (
    "a folder of volumes (.mrc, .map, .rec, .em, .tif; also .gz, .bz2), a stack (.npy, .npz, .mrcs, .h5 or .zarr with "
    "4-D data, .pickle of AITom), optimisation_set.star or particles.star or a RELION project's folder, particles.csv "
    "of generated particles, "
    "a copick project, a run of the CryoET Data Portal (portal:NUMBER), or a tomogram (.mrc, .map, .ccp4, .rec, .em, "
    ".tif, .h5 or .zarr with 3-D data) with box= and n=, coordinates= or labels_path="
)


def load_particles(
    path: str | Path,
    *,
    tilt_file: str | Path | None = None,
    tilt_range_deg: tuple[float, float] | None = None,
    mirror_z: bool = False,
    project_root: str | Path | None = None,
    **options,
) -> ParticleSet:
    """Particles from whatever `path` is; `options` are those of the function that reads this kind.

    Folders and stacks: `read_volumes`. A .star file: `read_tilt_stack_particles`, or `read_subtomogram_star` where its
    optics table says 3-D; particles.csv of generated particles: `read_particles_csv`. A copick project, or
    "portal:NUMBER" of a run of the CryoET Data Portal (`data_portal.fetch_run`): `read_copick`. Other single files are
    tomograms: `read_tomogram` with `cut_cubes`, where `coordinates` may be a file (`read_coordinates`), or
    `read_labelled_tomogram` where `labels_path` is given.

    Parameters
    ----------
    tilt_file, tilt_range_deg
        where the particles' files do not tell their tilts: a .tlt, .rawtlt or .mdoc file, Warp's .xml of the series, or
        least and greatest angle. One beside a tomogram, of its name, is found by itself.
    mirror_z
        the tomograms have the other hand than the molecules: volumes, poses and tilts are mirrored along z. Positions
        in a tomogram stay as its file counts them.
    project_root
        of STAR files: the folder above them from which they name their files, or within which names may go up a folder.
        RELION's own projects are found by themselves.

    Raises
    ------
    ValueError
        when nothing here reads the path, an option belongs to no reader of this kind, or the reader refuses.
    """
    with reading(path), within_project(project_root):
        particles = _read(path, options)
    particles = with_tilts(particles, Path(path), tilt_file, tilt_range_deg)
    particles = _mirrored(particles) if mirror_z else particles
    in_tomograms = "box" in options and (is_portal_run(path) or optimisation_set(Path(path)).suffix.lower() != ".star")
    told = options | ({"mirror_z": True} if mirror_z else {})
    particles.table.attrs["read_with"] = {"protein": "dark" if in_tomograms else "bright"} | told
    return particles


def _read(path: str | Path, options: dict) -> ParticleSet:
    """Particles by the reader of their kind."""
    if is_portal_run(path):
        options = _known(path, options, read_copick)
        return read_copick(fetch_run(path, options.pop("voxel_size_A", None)), **options)
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; expected {KINDS}")
    path = path if copick.is_project(path) else optimisation_set(path)
    suffix = suffix_of(path)
    if suffix == ".star":
        reader = read_subtomogram_star if is_3d_star(path) else read_tilt_stack_particles
        return reader(path, **_known(path, options, reader))
    if suffix == ".csv":
        return read_particles_csv(path, **_known(path, options, read_particles_csv))
    if copick.is_project(path):
        return read_copick(path, **_known(path, options, read_copick))
    if (path.is_dir() and suffix not in ZARR_SUFFIXES) or suffix in STACK_SUFFIXES:
        return read_volumes(path, **_known(path, options, read_volumes))
    if "labels_path" in options:
        if "box" not in options:
            raise ValueError(f"{path}: a tomogram with labels_path needs box=; found {sorted(options)}")
        return read_labelled_tomogram(path, **_known(path, options, read_labelled_tomogram))
    if suffix in HDF5_SUFFIXES + ZARR_SUFFIXES and not {"box", "coordinates", "n"} & set(options):
        return read_volumes(path, **_known(path, options, read_volumes))
    if suffix in VOLUME_SUFFIXES + HDF5_SUFFIXES + ZARR_SUFFIXES:
        options = _known(path, options, read_tomogram, cut_cubes, read_coordinates)
        reading = {k: options.pop(k) for k in ("voxel_size_A", "beam_axis", "protein") if k in options}
        if "box" not in options:
            raise ValueError(f"{path}: a tomogram needs box= and n= or coordinates=; found {sorted(options)}")
        picked = options.pop("coordinates", None)
        unit = options.pop("coordinate_voxel_size_A", None)
        axis = (
            reading.pop("beam_axis", "z") if isinstance(picked, str | Path) else "z"
        )  # such coordinates are those of the file as it lies
        check_beam_axis(axis, path)
        volume, voxel = read_tomogram(path, **reading)
        named = {"tomogram": path.stem, "source": str(path)}
        if isinstance(picked, str | Path):
            table = in_tomogram(
                read_coordinates(picked, voxel, volume.shape, coordinate_voxel_size_A=unit), path.name, picked
            )
            particles = cut_at(volume, voxel, table, **named, **options)
            return particles if axis == "z" else _beam_to_z(particles, axis)
        if picked is not None:
            options["coordinates"] = picked
        return cut_cubes(volume, voxel, **{**named, **options})
    raise ValueError(f"{path}: not a kind of particles known here; expected {KINDS}")


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
        shows the density at ``R (p - centre - shift)``, R from the quaternion acting on zyx indices.
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
    if path.is_dir() and suffix_of(path) not in ZARR_SUFFIXES:
        volumes, names, voxel, columns = _open_folder(path, voxel_size_A)
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
        poses = relion_angles_to_pose(*torch.from_numpy(table[angles].to_numpy(float, copy=True)).unbind(1))
        # a pose ends in the particle's frame, which is what turns: from the left, from old to new, on xyz
        table[angles] = torch.stack(pose_to_relion_angles(turn.flip((0, 1)).mT @ poses), 1).numpy()
    if table[shifts].notna().all(axis=None):
        old = table[shifts].to_numpy(float, copy=True)
        old[:, other] += particles.voxel_size_A * (
            n % 2 == 0
        )  # an even box turns about half a voxel before its centre n // 2
        table[shifts] = old @ turn.numpy()
    turned = particles.map(lambda v: np.rot90(v, axes=(0, other)))
    return ParticleSet(turned.volumes, table, particles.voxel_size_A)


def _mirrored(particles: ParticleSet) -> ParticleSet:
    """The mirror image along z of particles, about the centre n // 2 of the box, with that of their poses and tilts."""
    n, table, angles = particles.volumes.shape[-1], particles.table.copy(), list(ANGLE_COLUMNS)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))  # on xyz
    if table[angles].notna().all(axis=None):
        poses = relion_angles_to_pose(*torch.from_numpy(table[angles].to_numpy(float, copy=True)).unbind(1))
        table[angles] = torch.stack(pose_to_relion_angles(mirror @ poses @ mirror), 1).numpy()
    for column in {"shift_z_A", "centred_z_A"} & set(table):
        table[column] = -table[column]
    if "tilt_min_deg" in table:
        table["tilt_min_deg"], table["tilt_max_deg"] = -table["tilt_max_deg"], -table["tilt_min_deg"]
    flipped = particles.map(
        lambda v: np.roll(v[::-1], 1 - n % 2, axis=0)
    )  # an even box has no voxel opposite its first
    return ParticleSet(flipped.volumes, table, particles.voxel_size_A)


def _open_folder(path: Path, voxel_size_A: float | None) -> tuple[LazyVolumes, list[str], float | None, dict]:
    """Volumes, names, voxel size or None, and no columns, of a folder whose headers agree."""
    files = sorted(f for f in path.iterdir() if suffix_of(f) in VOLUME_SUFFIXES and not f.name.startswith("."))
    if not files:
        raise ValueError(f"{path}: no volumes ({', '.join(VOLUME_SUFFIXES)}) in this folder; expected one a particle")
    first, voxels = None, []
    for file in files:
        shape, voxel = volume_shape(file, voxel_size_A)
        if len(set(shape)) != 1 or (first and shape != first):
            wanted = f"{files[0].name} has {first}" if first else "expected a cube"
            raise ValueError(f"{file}: shape {tuple(shape)}, but {wanted}; crop them to one cubic box")
        first = first or tuple(shape)
        voxels.append(voxel)
    known = [v for v in voxels if v is not None]
    if len(known) < len(voxels):
        return (
            LazyVolumes(lambda i: read_volume(files[i])[0], first[0], [str(f) for f in files]),
            [f.name for f in files],
            None,
            {},
        )
    if max(known) > 1.01 * min(known):
        raise ValueError(
            f"{path}: voxel sizes from {min(known):g} to {max(known):g} A; rescale to one, or give voxel_size_A"
        )
    volumes = LazyVolumes(lambda i: read_volume(files[i], known[i])[0], first[0], [str(f) for f in files])
    return volumes, [f.name for f in files], known[0], {}


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
        csv = [c for c in csv if {"particle", "label"} <= {word.strip(' "\r') for word in first[c].split(",")}]
    if len(csv) > 1:
        raise ValueError(f"{folder}: {', '.join(c.name for c in csv)} all have the columns particle,label; give labels")
    return csv[0] if csv else None


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


def optimisation_set(path: Path) -> Path:
    """The STAR file of particles of a RELION job or project folder; any other path as it is.

    Of several jobs of a project the last one is taken, and said.

    Raises
    ------
    ValueError
        when a folder of a job holds several.
    """
    if not path.is_dir() or suffix_of(path) in ZARR_SUFFIXES:
        return path
    for name in ("*optimisation_set.star", "particles.star"):
        found = sorted(path.glob(name))
        if len(found) > 1:
            raise ValueError(f"{path}: {', '.join(f.name for f in found)}; give one of them")
        if found:
            return found[0]
    jobs = sorted(path.glob("*/job[0-9]*/*optimisation_set.star"), key=lambda f: f.parent.name)
    if not (path / "default_pipeline.star").is_file() or not jobs:
        return path
    LOG.warning("%s: %s taken, the last of %d jobs with an optimisation set", path, jobs[-1], len(jobs))
    return jobs[-1]


def is_3d_star(path: Path) -> bool:
    """Whether a STAR file, or the one that an optimisation set names, lists volumes rather than stacks of 2-D images.

    RELION 3.0 and WarpTools' 3-D export have no optics table: what has no visible frames is a volume there.
    """
    _, _, blocks = particle_files(path)
    if "optics" not in blocks:
        return "rlnTomoVisibleFrames" not in blocks["particles"]
    return int(np.ravel(blocks["optics"].get("rlnImageDimensionality", 2))[0]) == 3


def _known(path: Path, options: dict, *readers) -> dict:
    """The options, once each is a parameter of one of the readers."""
    allowed = {p for r in readers for p in inspect.signature(r).parameters} - {"path", "volume"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(f"{path}: unknown options {unknown}; expected some of {sorted(allowed)}")
    return dict(options)
