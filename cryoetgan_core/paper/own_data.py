"""A user's particles and density as the two domains of a training: what `your_data.ipynb` calls."""

from pathlib import Path

import numpy as np
import torch

from ..config import RunConfig
from ..particles.picked import background
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references, density_maps
from ..simulator.specimen import ASSEMBLIES
from ..simulator.specimen.render import parse_source, source_exists
from ..volumes.domains import Domains
from ..volumes.table import ParticleSet, check_class_names

LEAST_TO_CHOOSE = 20  # training particles
TEST_EVERY = 3  # without several tomograms, every third particle is tested on


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
        if name in names:
            raise ValueError(f"densities names {name!r} twice; expected each class once.")
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
    names, files = parse_densities(densities)
    voxel_size_A = particles.voxel_size_A
    references = class_references(names, config.box, voxel_size_A, files)
    x = {
        half: density_maps(references, n, config.box, voxel_size_A, stream(config.data_seed, "own X", half))
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
