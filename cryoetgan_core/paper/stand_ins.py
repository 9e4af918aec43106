"""Simulated particles that stand for a user's own, so that every notebook runs without files."""

from pathlib import Path

from ..config import DATASETS
from ..particles.relion_writer import write_star
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references, subtomograms
from ..volumes.table import ParticleSet

STAND_IN_PARTICLES = 12


def make_stand_in(folder: Path, seed: int) -> Path:
    """Write a few simulated ribosomes as a RELION 3.1 STAR with MRC volumes, in place of a user's file; returns the
    STAR's path.
    """
    box, voxel = 28, DATASETS["S2"].field_of_view_A / 28 * 2
    particles = _few(("ribosome",), box, voxel, "S2", seed)
    folder.mkdir(parents=True, exist_ok=True)
    star = folder / "particles.star"
    write_star(particles, star, folder / "volumes")
    return star


def labelled_stand_in(box: int, seed: int) -> ParticleSet:
    """A few simulated ribosomes and chaperonins with labels, from several tomograms, in place of a user's file."""
    voxel = DATASETS["S1"].field_of_view_A / box
    return _few(("ribosome", "tric"), box, voxel, "S1", seed)


def _few(classes: tuple[str, ...], box: int, voxel_size_A: float, dataset: str, seed: int) -> ParticleSet:
    """STAND_IN_PARTICLES of each class, as the microscope of a set records them."""
    references, rng = class_references(classes, box, voxel_size_A), stream(seed, "stand-in")
    scope = DATASETS[dataset].microscope
    return subtomograms(references, STAND_IN_PARTICLES, box, voxel_size_A, scope, rng, snr=0.3, tomograms=3)
