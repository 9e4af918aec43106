"""The one entry for particles of any kind: it finds what a path holds, and calls the reader of that kind."""

import inspect
import logging
from pathlib import Path

import numpy as np

from ..volumes.lazy import reading
from ..volumes.table import ParticleSet, check_beam_axis
from . import copick
from .coordinates import in_tomogram, read_coordinates
from .data_portal import fetch_run, is_portal_run
from .picked import cut_at, read_copick
from .plain_volumes import KINDS, STACK_SUFFIXES, read_volumes
from .relion_stacks import read_subtomogram_star, read_tilt_stack_particles
from .relion_tables import particle_files, within_project
from .stored import read_particles_csv
from .tilt_files import with_tilts
from .tomogram import cut_cubes, read_labelled_tomogram, read_tomogram
from .turned import beam_to_z, mirrored
from .volume_files import HDF5_SUFFIXES, VOLUME_SUFFIXES, ZARR_SUFFIXES, suffix_of

LOG = logging.getLogger(__name__)


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
    particles = mirrored(particles) if mirror_z else particles
    project = is_portal_run(path) or copick.is_project(Path(path))
    in_tomograms = "box" in options and (project or optimisation_set(Path(path)).suffix.lower() != ".star")
    told = options | ({"mirror_z": True} if mirror_z else {})
    particles.table.attrs["read_with"] = {"protein": "dark" if in_tomograms else "bright"} | told
    return particles


def _read(path: str | Path, options: dict) -> ParticleSet:
    """Particles by the reader of their kind."""
    if (is_portal_run(path) or copick.is_project(Path(path))) and "box" not in options:
        raise ValueError(f"{path}: picks in tomograms need box=, voxels a side")
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
        # such coordinates are those of the file as it lies
        axis = reading.pop("beam_axis", "z") if isinstance(picked, str | Path) else "z"
        check_beam_axis(axis, path)
        volume, voxel = read_tomogram(path, **reading)
        named = {"tomogram": path.stem, "source": str(path)}
        if isinstance(picked, str | Path):
            table = in_tomogram(
                read_coordinates(picked, voxel, volume.shape, coordinate_voxel_size_A=unit), path.name, picked
            )
            particles = cut_at(volume, voxel, table, **named, **options)
            return particles if axis == "z" else beam_to_z(particles, axis)
        if picked is not None:
            options["coordinates"] = picked
        return cut_cubes(volume, voxel, **{**named, **options})
    raise ValueError(f"{path}: not a kind of particles known here; expected {KINDS}")


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
    allowed = {p for r in (load_particles, *readers) for p in inspect.signature(r).parameters}
    allowed -= {"path", "volume", "options", "readers"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(f"{path}: unknown options {unknown}; expected some of {sorted(allowed)}")
    return dict(options)
