"""A user's particles and density as the two domains of a training: what `your_data.ipynb` calls."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..config import RunConfig
from ..particles import copick
from ..particles.coordinates import NotInTableError, read_coordinates
from ..particles.data_portal import is_portal_run
from ..particles.folder import is_3d_star, optimisation_set
from ..particles.folder import load_particles as read
from ..particles.picked import background
from ..particles.relion_tables import within_project
from ..particles.volume_files import (
    HDF5_SUFFIXES,
    VOLUME_SUFFIXES,
    ZARR_SUFFIXES,
    open_hdf5,
    open_zarr,
    suffix_of,
    volume_shape,
)
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references, density_maps
from ..simulator.specimen import ASSEMBLIES
from ..simulator.specimen.render import parse_source, source_exists
from ..volumes.domains import Domains
from ..volumes.lazy import filled
from ..volumes.maps import resample
from ..volumes.table import LEFT_OUT, ParticleSet, check_class_names

LOG = logging.getLogger(__name__)
LEAST_TO_CHOOSE = 20  # training particles
TEST_EVERY = 3  # without several tomograms, every third particle is tested on


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


def load_particles(
    path: str | Path | Sequence[str | Path], box: int | None = None, target_voxel_size_A: float | None = None, **options
) -> ParticleSet:
    """Read particles of any kind, into boxes of `box` voxels of `target_voxel_size_A` angstrom.

    Parameters
    ----------
    path
        volumes, a STAR file, a RELION project, a tomogram, a copick project: see `particles.folder.load_particles`.
        Several, as a list or as a pattern such as "tomograms/TS_*.mrc", become one set; `labels_path` is then a list or
        a pattern too, in the same order.
    box
        None keeps the volumes of the source; tomograms need one.
    target_voxel_size_A
        None, or 0, keeps the voxels of the source.
    options
        of the reader. Often needed: ``protein`` ("bright" or "dark", how the file shows it), ``beam_axis``,
        ``voxel_size_A`` (of the file, where its header lacks it or is wrong), ``coordinates``, ``labels_path`` or ``n``
        (of a tomogram), ``tilt_range_deg`` or ``tilt_file``.

    Raises
    ------
    ValueError
        When the path or an option does not fit, or the particles are smaller than the box asked for.
    """
    paths = _several(path)
    if paths is not None:
        return _together(paths, box, target_voxel_size_A, options)
    project = is_portal_run(path) or copick.is_project(Path(path))
    path = path if is_portal_run(path) else Path(path)
    if not (project or path.exists()):
        raise ValueError(f"{path}: no such file or folder.")
    path = path if project else optimisation_set(path)
    target = {"target_voxel_size_A": target_voxel_size_A} if target_voxel_size_A else {}
    boxed = {"box": box} if box else {}
    if project or _is_tomogram(path):
        if not project and not (box and {"labels_path", "coordinates", "n"} & set(options)):
            shape, voxel = _size_of(path, options.get("voxel_size_A"))
            raise ValueError(
                f"{path} is a tomogram of {' x '.join(map(str, shape))} voxels (z, y, x) of {voxel or 'unknown'} A: "
                "give box= and, for the particles, coordinates=, labels_path= or n= (the strongest density maxima)."
            )
        drawn = {"generator": stream(0, "cut")} if "n" in options else {}
        return read(path, **(boxed | drawn | target | options))
    with within_project(options.get("project_root")):
        stacks = not project and path.suffix.lower() == ".star" and not is_3d_star(path)
    if stacks:
        if "voxel_size_A" in options:
            raise ValueError(f"{path}: tilt stacks tell their pixel size; target_voxel_size_A= is that of the volumes.")
        return read(path, **(boxed | target | options))
    particles = read(path, **options)
    side, voxel = particles.volumes.shape[-1], particles.voxel_size_A
    box, wanted = box or side, target_voxel_size_A or voxel
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


def _several(path: object) -> list | None:
    """The paths of a list or a pattern; None for a single one."""
    if isinstance(path, str | Path):
        if "*" not in str(path):
            return None
        found = sorted(glob.glob(str(path)))
        if not found:
            raise ValueError(f"{path}: no file fits this pattern")
        return found
    return list(path)


def _together(paths: list, box: int | None, target_voxel_size_A: float | None, options: dict) -> ParticleSet:
    """Particles of several sources as one set, each on the voxels of the first."""
    labels = _several(options.get("labels_path", ""))
    if "labels_path" in options and (labels is None or len(labels) != len(paths)):
        raise ValueError(f"{len(paths)} tomograms and {len(labels or [1])} label volumes; expected one for each")
    if len(paths) > 1 and isinstance(options.get("coordinates"), str | Path):
        _check_named(Path(options["coordinates"]), len(paths))
    sets: list[ParticleSet] = []
    for i, path in enumerate(paths):
        own = options | ({"labels_path": labels[i]} if labels else {})
        target = target_voxel_size_A or (sets[0].voxel_size_A if sets else None)
        try:
            sets.append(load_particles(path, box, target, **own))
        except NotInTableError as none:
            LOG.warning("%s: left out; %s", path, none)
    if not sets:
        raise ValueError(f"{options.get('coordinates')}: no particles of {', '.join(map(str, paths[:5]))}")
    table = pd.concat([s.table for s in sets], ignore_index=True)
    table.attrs = sets[0].table.attrs | {LEFT_OUT: [one for s in sets for one in s.table.attrs.get(LEFT_OUT, [])]}
    volumes = filled((s.volumes[i] for s in sets for i in range(len(s))), len(table))
    return ParticleSet(volumes, table, sets[0].voxel_size_A)


def _check_named(picks: Path, tomograms: int) -> None:
    """Raise ValueError for picks that do not say which of several tomograms they lie in."""
    named = read_coordinates(picks, 1.0, (1, 1, 1), coordinate_voxel_size_A=1.0)["tomogram"]  # places do not matter
    if (named == "").all() or (picks.suffix.lower() in (".tbl", ".em") and named.nunique() == 1):
        raise ValueError(
            f"{picks}: does not say in which of the {tomograms} tomograms its particles lie; add a column with the "
            "tomogram's name, or read one tomogram with its own picks."
        )


def parse_densities(densities: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Class names and the files among them, from "ribosome=/data/4v4r.mrc, membrane"."""
    names, files = [], {}
    for part in filter(None, (p.strip() for p in densities.split(","))):
        name, equals, path = (s.strip() for s in part.partition("="))
        if equals and not source_exists(path):
            raise ValueError(f"densities: {path!r} of class {name!r} is no file, nor an entry such as pdb:3j9i.")
        if not equals and name not in ASSEMBLIES:
            raise ValueError(
                f"densities: {name!r} is no built-in class; expected class=FILE or one of {', '.join(ASSEMBLIES)}."
            )
        names.append(name)
        if equals:
            files[name] = path
    if not names:
        raise ValueError("densities is empty; expected class=FILE or a built-in class.")
    check_class_names(names)
    return tuple(names), files


def absolute(densities: str) -> str:
    """Densities as `parse_densities` reads them, with paths that hold from any folder."""
    names, files = parse_densities(densities)
    whole = {name: f"{Path(file).absolute()}" for name, file in files.items() if Path(parse_source(file)[0]).exists()}
    told = files | {name: path for name, path in whole.items() if "," not in path}
    return ", ".join(f"{name}={told[name]}" if name in told else name for name in names)


def _posed(densities: str, n: int, box: int, voxel_size_A: float, generator: torch.Generator) -> ParticleSet:
    names, files = parse_densities(densities)
    return density_maps(class_references(names, box, voxel_size_A, files), n, box, voxel_size_A, generator)


def _test_mask(particles: ParticleSet) -> tuple[np.ndarray, np.ndarray]:
    """Which particles test, and which train: by tomogram where there are several, by position where cubes could
    overlap, else every third tests.
    """
    table, n = particles.table, len(particles)
    if table["tomogram"].nunique() > 1:
        test = (table["tomogram"] == sorted(table["tomogram"].unique())[-1]).to_numpy()
        return test, ~test
    positions = table[["x_A", "y_A", "z_A"]].to_numpy()
    if np.isfinite(positions).all():
        along = positions[:, np.ptp(positions, axis=0).argmax()]
        edge = np.quantile(along, 1 - 1 / TEST_EVERY)
        return along > edge, along < edge - particles.volumes.shape[-1] * particles.voxel_size_A
    test = np.arange(n) % TEST_EVERY == TEST_EVERY - 1
    return test, ~test


def domains(particles: ParticleSet, densities: str, config: RunConfig) -> Domains:
    """Both domains of a training on a user's particles, and background where it can be cut beside them.

    The halves of Y are split by tomogram where there are several; cubes of one tomogram by position, with a gap of one
    box between the halves. X is as large as the profile says: densities cost nothing, so few particles need not mean
    few poses. Background needs particles that `load_particles` cut where they were picked, and LEAST_TO_CHOOSE training
    particles: fewer cannot choose between it and measured noise.

    Raises
    ------
    ValueError
        When a half holds too few particles.
    """
    test, train = _test_mask(particles)
    if test.sum() < 1 or train.sum() < config.batch:
        raise ValueError(
            f"{len(particles)} particles split into {train.sum()} to train and {test.sum()} to test; expected at least "
            f"{config.batch}, "
            "the batch, and 1. Take more particles, a second tomogram, or a smaller batch."
        )
    x = {
        half: _posed(densities, n, config.box, particles.voxel_size_A, stream(config.data_seed, "own X", half))
        for half, n in (("train", config.train_per_class), ("test", config.test_per_class))
    }
    chosen, empty, read_with = particles.select(train), None, particles.table.attrs.get("read_with")
    if read_with and config.generator == "physics" and len(chosen) >= LEAST_TO_CHOOSE:
        empty = background(particles, read_with, chosen.table["source"].unique())
    return Domains(x["train"], x["test"], chosen, particles.select(test), empty)


def sheet(both: Domains, real: torch.Tensor, fake: torch.Tensor, columns: int = 6) -> list:
    """Group for `plotting.contact_sheet`: density, generated and real (both in network units), along and across the
    beam.
    """
    middle = real.shape[-1] // 2
    index = np.linspace(0, len(fake) - 1, columns).round().astype(int)
    real_index = np.linspace(0, len(real) - 1, columns).round().astype(int)
    density = both.volumes("X_test")[index]
    rows = []
    for plane, cut in (("xy", (slice(None), middle)), ("xz", (slice(None), slice(None), middle))):
        rows.append((f"density {plane}", density[cut].numpy()[:, None], True))
        rows.append((f"generated {plane}", fake[index][cut].numpy()[:, None], False))
        rows.append((f"real {plane}", real[real_index][cut].numpy()[:, None], False))
    names = list(both.X_test.table["class_name"].iloc[index])
    return [(names, both.X_test.voxel_size_A, rows)]
