"""A user's particles and density as the two domains of a training: what `your_data.ipynb` calls."""

from pathlib import Path

import numpy as np
import torch

from ..config import DATASETS, RunConfig
from ..seeds import stream
from ..specimen import ASSEMBLIES
from .domains import Domains, split_halves
from .folder import is_3d_star, load_particles
from .relion import write_star
from .simulated import class_references, density_maps, subtomograms
from .table import ParticleSet
from .tomogram import HDF5_SUFFIXES, TIFF_SUFFIXES

TEST_EVERY = 3  # without several tomograms, every third particle is tested on
STAND_IN_PARTICLES = 12


def load(path: Path, box: int, voxel_size_A: float, **options: object) -> ParticleSet:
    """Read particles of any kind into boxes of `box` voxels of `voxel_size_A` (0 keeps theirs).

    Tilt stacks and tomograms are read at that box; other volumes are cropped or refused.

    Raises
    ------
    ValueError
        When the path or an option does not fit (see `load_particles`), or the volumes are smaller than `box`.
    """
    suffix = path.suffix.lower()
    is_tomogram = path.is_file() and suffix in (".mrc", ".map", ".ccp4", ".rec", *TIFF_SUFFIXES, *HDF5_SUFFIXES)
    target = {"voxel_size_A": voxel_size_A} if voxel_size_A else {}
    if is_tomogram:
        target = {"target_voxel_size_A": voxel_size_A} if voxel_size_A else {}
        particles = load_particles(path, **({"box": box, "generator": stream(0, "cut")} | target | options))
    elif suffix == ".star" and not is_3d_star(path):
        particles = load_particles(path, **({"box": box} | target | options))
    else:
        particles = load_particles(path, **(target | options))
    side = particles.volumes.shape[-1]
    if side < box:
        raise ValueError(f"{path}: volumes of {side}^3 voxels; expected at least the box of {box}. Choose a smaller box (17 at least).")
    start = side // 2 - box // 2
    cut = slice(start, start + box)
    return ParticleSet(np.ascontiguousarray(particles.volumes[:, cut, cut, cut]), particles.table, particles.voxel_size_A)


def parse_densities(densities: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Class names and the files among them, from "ribosome=/data/4v4r.mrc, membrane"."""
    names, files = [], {}
    for part in filter(None, (p.strip() for p in densities.split(","))):
        name, equals, path = (s.strip() for s in part.partition("="))
        if equals and not Path(path).is_file():
            raise ValueError(f"densities: {path!r} of class {name!r} is no file.")
        if not equals and name not in ASSEMBLIES:
            raise ValueError(f"densities: {name!r} is no embedded class; expected class=FILE or one of {', '.join(ASSEMBLIES)}.")
        names.append(name)
        if equals:
            files[name] = path
    if not names:
        raise ValueError("densities is empty; expected class=FILE or an embedded class.")
    return tuple(names), files


def densities_for(densities: str, voxel_size_A: float, box: int, per_class: int, generator: torch.Generator) -> ParticleSet:
    """Density maps in random poses, `per_class` of each class of `densities`, in boxes of `box` voxels."""
    names, files = parse_densities(densities)
    return density_maps(class_references(names, box, voxel_size_A, files), per_class, box, voxel_size_A, generator)


def domains(particles: ParticleSet, densities: str, config: RunConfig) -> Domains:
    """Both domains of a training on a user's particles; the halves of Y are split by tomogram where there are several.

    X is as large as the profile says: densities cost nothing, so few particles need not mean few poses.
    """
    tomograms = particles.table["tomogram"]
    if tomograms.nunique() > 1:
        test = (tomograms == sorted(tomograms.unique())[-1]).to_numpy()
    else:
        test = np.arange(len(particles)) % TEST_EVERY == TEST_EVERY - 1
    train_half, test_half = split_halves(particles, test)
    x = {
        half: densities_for(densities, particles.voxel_size_A, config.box, n, stream(config.data_seed, "own X", half))
        for half, n in (("train", config.train_per_class), ("test", config.test_per_class))
    }
    return Domains(x["train"], x["test"], train_half, test_half)


def sheet(both: Domains, real: torch.Tensor, fake: torch.Tensor, columns: int = 6) -> list:
    """Group for `plotting.contact_sheet`: density, generated and real (both in network units), along and across the beam."""
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
    """Write a few simulated ribosomes as a RELION 3.1 STAR with MRC volumes, in place of a user's file; returns the STAR's path."""
    box, voxel = 28, DATASETS["S2"].field_of_view_A / 28 * 2
    references = class_references(("ribosome",), box, voxel)
    particles = subtomograms(references, STAND_IN_PARTICLES, box, voxel, DATASETS["S2"].microscope, stream(seed, "stand-in"), snr=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    star = folder / "particles.star"
    write_star(particles, star, folder / "volumes")
    return star
