"""The one entry for particles of any kind: it finds what a path holds, and calls the reader of that kind."""

import glob
import inspect
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..reproducibility.seeds import stream
from ..volumes.lazy import filled, reading
from ..volumes.maps import resample
from ..volumes.table import LEFT_OUT, ParticleSet, check_beam_axis
from . import copick
from .coordinates import NotInTableError, in_tomogram, read_coordinates
from .data_portal import fetch_run, is_portal_run
from .names import tomogram_name
from .picked import cut_at, read_copick
from .plain_volumes import KINDS, STACK_SUFFIXES, read_volumes
from .relion_stacks import read_tilt_stack_particles
from .relion_tables import particle_files, within_project
from .stored import read_particles_csv
from .subtomogram_star import read_subtomogram_star
from .tilt_files import with_tilts
from .tomogram import cut_cubes, read_labelled_tomogram, read_tomogram
from .turned import beam_to_z, mirrored
from .volume_files import HDF5_SUFFIXES, VOLUME_SUFFIXES, ZARR_SUFFIXES, open_hdf5, open_zarr, suffix_of, volume_shape

LOG = logging.getLogger(__name__)


def load_particles(
    path: str | Path | Sequence[str | Path],
    box: int | None = None,
    target_voxel_size_A: float | None = None,
    *,
    tilt_file: str | Path | None = None,
    tilt_range_deg: tuple[float, float] | None = None,
    mirror_z: bool = False,
    project_root: str | Path | None = None,
    **options,
) -> ParticleSet:
    """Read particles of any kind, into boxes of `box` voxels of `target_voxel_size_A` angstrom.

    Folders and stacks: `read_volumes`. A .star file: `read_tilt_stack_particles`, or `read_subtomogram_star` where its
    optics table says 3-D; particles.csv of generated particles: `read_particles_csv`. A copick project, or
    "portal:NUMBER" of a run of the CryoET Data Portal (`data_portal.fetch_run`): `read_copick`. Other single files are
    tomograms: `read_tomogram` with `cut_cubes`, where `coordinates` may be a file (`read_coordinates`), or
    `read_labelled_tomogram` where `labels_path` is given.

    Parameters
    ----------
    path
        Several, as a list or as a pattern such as "tomograms/TS_*.mrc", become one set; `labels_path` is then a list or
        a pattern too, in the same order. `coordinates` may be, or is one file that names the tomograms.
    box
        None keeps the volumes of the source; tomograms need one.
    target_voxel_size_A
        None, or 0, keeps the voxels of the source. Without `box` the boxes keep their size in angstrom.
    tilt_file, tilt_range_deg
        where the particles' files do not tell their tilts: a .tlt, .rawtlt or .mdoc file, Warp's .xml of the series, or
        least and greatest angle. One beside a tomogram, of its name, is found by itself.
    mirror_z
        the tomograms have the other hand than the molecules: volumes, poses and tilts are mirrored along z. Positions
        in a tomogram stay as its file counts them.
    project_root
        of STAR files: the folder above them from which they name their files, or within which names may go up a folder.
        RELION's own projects are found by themselves.
    options
        of the function that reads this kind. Often needed: ``protein`` ("bright" or "dark", how the file shows it),
        ``beam_axis``, ``voxel_size_A`` (of the file, where its header lacks it or is wrong), ``coordinates``,
        ``labels_path`` or ``n`` (of a tomogram).

    Raises
    ------
    ValueError
        when nothing here reads the path, an option belongs to no reader of this kind, the particles are smaller than
        the box asked for, or the reader refuses.
    """
    if not isinstance(mirror_z, bool):
        raise ValueError(f"{path}: mirror_z is {mirror_z!r}; expected true or false.")
    of_all = {"tilt_file": tilt_file, "tilt_range_deg": tilt_range_deg, "mirror_z": mirror_z}
    paths = _several(path)
    if paths is not None:
        return _together(paths, box, target_voxel_size_A, options | of_all | {"project_root": project_root})
    path = path if is_portal_run(path) else Path(path)
    grid = {k: v for k, v in (("box", box), ("target_voxel_size_A", target_voxel_size_A)) if v}
    with reading(path), within_project(project_root):
        particles, cut = _read(path, grid, options)
    particles = with_tilts(particles, Path(path), tilt_file, tilt_range_deg)
    particles = mirrored(particles) if mirror_z else particles
    told = options | ({"mirror_z": True} if mirror_z else {})
    particles.table.attrs["read_with"] = {"protein": "dark" if cut else "bright"} | told
    return _on_grid(particles, path, **grid)


def _read(path: str | Path, grid: dict, options: dict) -> tuple[ParticleSet, bool]:
    """Particles by the reader of their kind, and whether they were cut out of a tomogram."""
    if is_portal_run(path) or copick.is_project(path):
        if "box" not in grid:
            raise ValueError(f"{path}: picks in tomograms need box=, voxels a side")
        options = _known(path, options, read_copick)
        if is_portal_run(path):
            path = fetch_run(path, options.pop("voxel_size_A", None))
        return read_copick(path, **grid, **options), True
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; expected {KINDS}")
    path = optimisation_set(path)
    suffix = suffix_of(path)
    if suffix == ".star" and not is_3d_star(path):
        if "voxel_size_A" in options:
            raise ValueError(f"{path}: tilt stacks tell their pixel size; target_voxel_size_A= is that of the volumes.")
        options = _known(path, options, read_tilt_stack_particles)
        return read_tilt_stack_particles(path, **grid, **options), False
    if _is_tomogram(path):
        return _cut(path, grid, options), True
    if suffix in (".star", ".csv"):
        reader = read_subtomogram_star if suffix == ".star" else read_particles_csv
    elif path.is_dir() or suffix in STACK_SUFFIXES + HDF5_SUFFIXES + ZARR_SUFFIXES:
        reader = read_volumes
    else:
        raise ValueError(f"{path}: not a kind of particles known here; expected {KINDS}")
    return reader(path, **_known(path, options, reader)), False


def _cut(path: Path, grid: dict, options: dict) -> ParticleSet:
    """Particles cut out of a tomogram."""
    if "box" not in grid or not {"labels_path", "coordinates", "n"} & set(options):
        shape, voxel = _size_of(path, options.get("voxel_size_A"))
        raise ValueError(
            f"{path} is a tomogram of {' x '.join(map(str, shape))} voxels (z, y, x) of {voxel or 'unknown'} A: "
            "give box= and, for the particles, coordinates=, labels_path= or n= (the strongest density maxima)."
        )
    if "labels_path" in options:
        return read_labelled_tomogram(path, **grid, **_known(path, options, read_labelled_tomogram))
    options = grid | _known(path, options, read_tomogram, cut_cubes, read_coordinates)
    if "n" in options:
        options.setdefault("generator", stream(0, "cut"))
    of_file = {k: options.pop(k) for k in ("voxel_size_A", "beam_axis", "protein") if k in options}
    picked = options.pop("coordinates", None)
    unit = options.pop("coordinate_voxel_size_A", None)
    # such coordinates are those of the file as it lies
    axis = of_file.pop("beam_axis", "z") if isinstance(picked, str | Path) else "z"
    check_beam_axis(axis, path)
    volume, voxel = read_tomogram(path, **of_file)
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


def _on_grid(
    particles: ParticleSet, path: str | Path, box: int | None = None, target_voxel_size_A: float | None = None
) -> ParticleSet:
    """Particles in boxes and voxels of these sizes, where they are given."""
    side, voxel = particles.volumes.shape[-1], particles.voxel_size_A
    wanted = target_voxel_size_A or voxel
    box = box or int(side * voxel / wanted * 1.001)
    if side * voxel < 0.999 * box * wanted:
        raise ValueError(
            f"{path}: volumes of {side}^3 voxels of {voxel:g} A; expected at least {box}^3 of {wanted:g} A. Choose a "
            "smaller box or voxel."
        )
    if (side, voxel) == (box, wanted):
        return particles
    return particles.map(
        lambda v: resample(torch.from_numpy(v), voxel, new_voxel_size_A=wanted, box=box).numpy(), box, wanted
    )


def _is_tomogram(path: Path) -> bool:
    """Whether a file or zarr store holds one 3-D volume to cut cubes from, rather than a stack of particles."""
    suffix = suffix_of(path)
    if suffix in HDF5_SUFFIXES:
        dataset = open_hdf5(path, (3, 4))
        tomogram = len(dataset.shape) == 3
        dataset.file.close()
        return tomogram
    if suffix in ZARR_SUFFIXES:
        return len(open_zarr(path, (3, 4))[0].shape) == 3
    return path.is_file() and suffix in VOLUME_SUFFIXES


def _size_of(path: Path, voxel_size_A: float | None) -> tuple[tuple[int, ...], float | None]:
    """Shape and voxel size of a tomogram, its voxels unread."""
    if suffix_of(path) in VOLUME_SUFFIXES:
        return volume_shape(path, voxel_size_A)
    if suffix_of(path) in ZARR_SUFFIXES:
        array, voxel = open_zarr(path, (3,))
        return array.shape, voxel_size_A or voxel
    dataset = open_hdf5(path, (3,))
    shape = dataset.shape
    dataset.file.close()
    return shape, voxel_size_A


def _several(path: object) -> list | None:
    """The paths of a list or a pattern; None for a single one."""
    if isinstance(path, str | Path):
        if "*" not in str(path):
            return None
        found = sorted(glob.glob(str(path)))
        if not found:
            raise ValueError(f"{path}: no file fits this pattern")
        return found
    if not isinstance(path, Iterable):
        raise ValueError(f"{path!r} is no path; expected a file, a folder, or several of them as a list")
    return list(path)


def _together(paths: list, box: int | None, target_voxel_size_A: float | None, options: dict) -> ParticleSet:
    """Particles of several sources as one set, each on the voxels of the first."""
    beside = _one_each(paths, options)
    if "coordinates" not in beside and len(paths) > 1 and isinstance(options.get("coordinates"), str | Path):
        _check_named(Path(options["coordinates"]), paths)
    sets: list[ParticleSet] = []
    for i, path in enumerate(paths):
        own = options | {name: files[i] for name, files in beside.items()}
        target = target_voxel_size_A or (sets[0].voxel_size_A if sets else None)
        try:
            sets.append(load_particles(path, box or (sets[0].volumes.shape[-1] if sets else None), target, **own))
        except NotInTableError as none:
            if "coordinates" in beside:  # its own file
                raise
            LOG.warning("%s: left out; %s", path, none)
    if not sets:
        raise ValueError(f"{options.get('coordinates')}: no particles of {', '.join(map(str, paths[:5]))}")
    table = pd.concat([s.table for s in sets], ignore_index=True)
    table.attrs = dict(sets[0].table.attrs)
    if LEFT_OUT in table.attrs:  # cut out of tomograms
        table.attrs[LEFT_OUT] = [one for s in sets for one in s.table.attrs.get(LEFT_OUT, [])]
    volumes = filled((s.volumes[i] for s in sets for i in range(len(s))), len(table))
    return ParticleSet(volumes, table, sets[0].voxel_size_A)


def _one_each(paths: list, options: dict) -> dict[str, list]:
    """The options that give each of several tomograms a file of its own: name to files, in the order of `paths`."""
    found = {}
    for name in ("labels_path", "coordinates"):
        given = options.get(name)
        listed = isinstance(given, list | tuple) and all(isinstance(file, str | Path) for file in given)
        files = _several(given) if listed or isinstance(given, str | Path) else None  # else positions
        if files is None and (name == "coordinates" or given is None):
            continue
        found[name] = files or [given]
        if len(found[name]) != len(paths):
            raise ValueError(f"{len(paths)} tomograms, but {name}= gives {len(found[name])}; expected one for each")
        named = [tomogram_name(f).startswith(tomogram_name(p)) for f, p in zip(found[name], paths, strict=True)]
        if any(named) and not all(named):
            i = named.index(False)
            raise ValueError(
                f"{found[name][i]} would be taken for the tomogram {paths[i]}, by its place in the order; others are "
                "named after their tomograms. Give lists of the same order."
            )
    return found


def _check_named(picks: Path, tomograms: list) -> None:
    """Raise ValueError for picks that do not say in which of several tomograms they lie, or that two of them take."""
    named = read_coordinates(picks, 1.0, (1, 1, 1), coordinate_voxel_size_A=1.0)["tomogram"]  # places do not matter
    if (named == "").all() or (picks.suffix.lower() in (".tbl", ".em") and named.nunique() == 1):
        raise ValueError(
            f"{picks}: does not say in which of the {len(tomograms)} tomograms its particles lie; add a column with "
            "the tomogram's name, or give each tomogram its own file, as a list or a pattern."
        )
    table, taken = named.to_frame().assign(row=range(len(named))), {}
    for path in tomograms:
        try:
            rows = in_tomogram(table, Path(path).name, picks)["row"]
        except NotInTableError:
            continue
        other = next((taken[row] for row in rows if row in taken), None)
        if other is not None:
            raise ValueError(
                f"{picks}: the tomograms {other} and {path} would take the same particles; give one of them, or give "
                "their tomograms names of their own."
            )
        taken |= dict.fromkeys(rows, path)


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
    allowed -= {"path", "volume", "options", "readers", "generator", "particle_rows", "shape_zyx", "tilt_file"}
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(
            f"{path}: there is no {', '.join(f'{name}=' for name in unknown)} for such a file or folder; expected some "
            f"of {', '.join(f'{name}=' for name in sorted(allowed))}. Picks and label volumes go with tomogram files."
        )
    return dict(options)
