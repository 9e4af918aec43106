"""A user's particles and density as the two domains of a training: what `your_data.ipynb` calls."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..config import DATASETS, RunConfig
from ..particles import copick
from ..particles.data_portal import is_portal_run
from ..particles.folder import is_3d_star, load_particles
from ..particles.picked import background
from ..particles.relion_stacks import write_star
from ..particles.volume_files import HDF5_SUFFIXES, VOLUME_SUFFIXES, ZARR_SUFFIXES, open_hdf5, open_zarr, suffix_of
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references, density_maps, subtomograms
from ..simulator.specimen import ASSEMBLIES
from ..simulator.specimen.render import source_exists
from ..volumes.domains import Domains
from ..volumes.maps import resample
from ..volumes.table import ParticleSet, check_class_names

LEAST_TO_CHOOSE = 20  # training particles
TEST_EVERY = 3  # without several tomograms, every third particle is tested on
STAND_IN_PARTICLES = 12


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


def load(
    path: Path, box: int, target_voxel_size_A: float = 0.0, options: Mapping[str, object] | None = None
) -> ParticleSet:
    """Read particles of any kind into boxes of `box` voxels of `target_voxel_size_A` angstrom (0 keeps the voxels of
    the source).

    Parameters
    ----------
    options
        options of the reader (see `load_particles`); its ``voxel_size_A`` is the source's own, where the header lacks
        it or is wrong.

    Raises
    ------
    ValueError
        When the path or an option does not fit (see `load_particles`), or the particles are smaller than the box asked
        for.
    """
    options = dict(options or {})
    project = is_portal_run(path) or copick.is_project(path)
    if not (project or path.exists()):
        raise ValueError(f"{path}: no such file or folder.")
    if project or _is_tomogram(path):
        target = {"target_voxel_size_A": target_voxel_size_A} if target_voxel_size_A else {}
        picked = project or {"labels_path", "coordinates"} & set(options)
        drawn = {} if picked else {"generator": stream(0, "cut")}
        return load_particles(path, **({"box": box} | drawn | target | options))
    if path.suffix.lower() == ".star" and not is_3d_star(path):
        target = {"voxel_size_A": target_voxel_size_A} if target_voxel_size_A else {}
        return load_particles(path, **({"box": box} | target | options))
    particles = load_particles(path, **options)
    side, voxel = particles.volumes.shape[-1], particles.voxel_size_A
    target = target_voxel_size_A or voxel
    if side * voxel < 0.999 * box * target:
        raise ValueError(
            f"{path}: volumes of {side}^3 voxels of {voxel:g} A; expected at least {box}^3 of {target:g} A. Choose a "
            "smaller box or voxel."
        )
    if (side, voxel) == (box, target):
        return particles
    return particles.map(
        lambda v: resample(torch.from_numpy(v), voxel, new_voxel_size_A=target, box=box).numpy(), box, target
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
                f"densities: {name!r} is no embedded class; expected class=FILE or one of {', '.join(ASSEMBLIES)}."
            )
        names.append(name)
        if equals:
            files[name] = path
    if not names:
        raise ValueError("densities is empty; expected class=FILE or an embedded class.")
    check_class_names(names)
    return tuple(names), files


def densities_for(
    densities: str, voxel_size_A: float, box: int, per_class: int, generator: torch.Generator
) -> ParticleSet:
    """Density maps in random poses, `per_class` of each class of `densities`, in boxes of `box` voxels."""
    names, files = parse_densities(densities)
    return density_maps(class_references(names, box, voxel_size_A, files), per_class, box, voxel_size_A, generator)


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


def domains(
    particles: ParticleSet, densities: str, config: RunConfig, options: Mapping[str, object] | None = None
) -> Domains:
    """Both domains of a training on a user's particles, and background where it can be cut beside them.

    The halves of Y are split by tomogram where there are several; cubes of one tomogram by position, with a gap of one
    box between the halves. X is as large as the profile says: densities cost nothing, so few particles need not mean
    few poses.

    Parameters
    ----------
    options
        Those that `load` was given. None: no background is cut. Nor is it for fewer than LEAST_TO_CHOOSE training
        particles, too few to hold some out for the choice between it and measured noise.

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
        half: densities_for(densities, particles.voxel_size_A, config.box, n, stream(config.data_seed, "own X", half))
        for half, n in (("train", config.train_per_class), ("test", config.test_per_class))
    }
    chosen, empty = particles.select(train), None
    if options is not None and config.generator == "physics" and len(chosen) >= LEAST_TO_CHOOSE:
        empty = background(particles, options, chosen.table["source"].unique())
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


def make_stand_in(folder: Path, seed: int) -> Path:
    """Write a few simulated ribosomes as a RELION 3.1 STAR with MRC volumes, in place of a user's file; returns the
    STAR's path.
    """
    box, voxel = 28, DATASETS["S2"].field_of_view_A / 28 * 2
    references = class_references(("ribosome",), box, voxel)
    particles = subtomograms(
        references,
        STAND_IN_PARTICLES,
        box,
        voxel,
        DATASETS["S2"].microscope,
        stream(seed, "stand-in"),
        snr=0.3,
        tomograms=3,
    )
    folder.mkdir(parents=True, exist_ok=True)
    star = folder / "particles.star"
    write_star(particles, star, folder / "volumes")
    return star


def labelled_stand_in(box: int, seed: int) -> ParticleSet:
    """A few simulated ribosomes and chaperonins with labels, from several tomograms, in place of a user's file."""
    voxel = DATASETS["S1"].field_of_view_A / box
    references = class_references(("ribosome", "tric"), box, voxel)
    return subtomograms(
        references,
        STAND_IN_PARTICLES,
        box,
        voxel,
        DATASETS["S1"].microscope,
        stream(seed, "stand-in"),
        snr=0.3,
        tomograms=3,
    )
