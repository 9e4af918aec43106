"""The physics generator on few measured particles: estimated from all tilt series but one, judged on that one, in
turn.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation.compare import told_apart
from ..evaluation.metrics import fourier_shell_correlation
from ..generation import generate
from ..reproducibility import paths
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references, density_maps
from ..volumes.alignment import align, unposed
from ..volumes.domains import Domains
from ..volumes.maps import read_map, resample
from ..volumes.poses import mirrored_z, rotate_volume, rotations_of
from ..volumes.table import ParticleSet
from . import own_data
from .record import described
from .runs import train_on
from .stand_ins import make_stand_in

SPLITS = 20  # into halves
FOLDS = 3  # tomograms at most that are left out in turn


def density_in_poses(
    reference: torch.Tensor, average: str | Path, particles: ParticleSet
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A reference density turned onto the particles' published average and from there into each particle's pose.

    Parameters
    ----------
    reference : (d, d, d) centred density on the particles' voxels.
    average : MRC of the published average, in the mirrored frame of WarpTools files (see `particles.relion_stacks`).

    Returns
    -------
    volumes : (N, D, D, D); rotations : (N, 3, 3); correlation : of the turned reference with the average.
    """
    published, voxel_size_A = read_map(average)
    target = resample(published, voxel_size_A, new_voxel_size_A=particles.voxel_size_A, box=len(reference)).float()
    turns = [(align(candidate, target), candidate) for candidate in (reference, mirrored_z(reference))]
    (rotation, correlation), chosen = max(turns, key=lambda t: t[0][1])
    turned = rotate_volume(chosen, rotation[None], torch.zeros(1, 3), particles.voxel_size_A)[0]
    rotations = rotations_of(particles.table)
    box = particles.volumes.shape[-1]
    placed = rotate_volume(
        mirrored_z(turned), rotations, torch.zeros(len(rotations), 3), particles.voxel_size_A, box=box
    )
    return placed.float(), rotations, correlation


def make_real(
    particles: ParticleSet, densities: str, config: RunConfig, name: str, average: str = ""
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Estimate from all tomograms but one, generate as many as that one holds, and compare, for up to FOLDS tomograms
    in turn.

    Returns
    -------
    numbers
        for each tomogram left out the metrics of generated and, as the floor, of as many real training particles
        against it; AUC with as many volumes of each as the tomogram holds; with an `average`, "fsc", that of the means
        of generated and of real particles, each brought back by the real poses, and "fsc_ceiling", what as many other
        real ones would reach.
    volumes
        "real" and "generated" (N, D, D, D) of all folds in network units, in the same order.

    Raises ValueError when a tomogram, or what is left without it, holds too few particles; before anything is
    estimated.
    """
    counts = particles.table["tomogram"].value_counts()
    tomograms = sorted(counts.index)[:FOLDS]
    for tomogram in tomograms:
        test, train = int(counts[tomogram]), int(counts.sum() - counts[tomogram])
        if test < 2 or train < config.batch:
            raise ValueError(
                f"Tomogram {tomogram!r} has {test} particles, all others {train}; expected at least 2, and "
                f"{config.batch}."
            )
    reference = class_references(*_named(densities, particles, config))
    x_halves = [
        density_maps(reference, n, config.box, particles.voxel_size_A, stream(config.data_seed, "real X", half))
        for half, n in (("train", config.train_per_class), ("test", config.test_per_class))
    ]
    placed = None
    if average:
        voxel_size_A = particles.voxel_size_A
        cube = resample(next(iter(reference.values())), voxel_size_A, new_voxel_size_A=voxel_size_A, box=config.box)
        placed, rotations, correlation = density_in_poses(cube, average, particles)
    folds, real, generated, turned = {}, [], [], []
    for tomogram in tomograms:
        left = (particles.table["tomogram"] == tomogram).to_numpy(copy=True)
        train, test = particles.select(~left), particles.select(left)
        both = Domains(*x_halves, train, test)
        run = train_on(config, both, paths.runs(config.profile) / "real" / name / tomogram, replace=True)
        if placed is None:
            x = both.volumes("X_test")[: len(test)]
        else:
            x = placed[torch.from_numpy(left)]
            turned.append(rotations[torch.from_numpy(left)])
        volumes, wanted = generate(run, x, seed=config.seed + 1), run.scaling.y(both.volumes("Y_test"))
        floor = run.scaling.y(both.volumes("Y_train"))
        # as many as of the real ones: the mean of more would be nearer by its smaller noise alone
        as_many = generate(run, both.volumes("X_test")[: len(floor)], seed=config.seed + 2)
        folds[tomogram] = {
            "generated": _distances(wanted, as_many) | {"auc": told_apart(wanted, volumes)["auc"]},
            "real": _distances(wanted, floor) | {"auc": told_apart(wanted, floor[: len(wanted)])["auc"]},
            "tilt_range_deg": list(run.G.tilt_range_deg),
        }
        real.append(wanted)
        generated.append(volumes)
    numbers = {"folds": folds, "particles": len(particles), "tomograms": len(counts)}
    numbers["voxel_size_A"] = particles.voxel_size_A
    if placed is not None:
        zero = torch.zeros(len(torch.cat(turned)), 3)
        back = [unposed(torch.cat(v), torch.cat(turned), zero, particles.voxel_size_A) for v in (generated, real)]
        ceiling = as_many_others(back[1], stream(config.seed, "halves")).tolist()
        fsc = fourier_shell_correlation(*(v.mean(0) for v in back)).tolist()
        numbers |= {"fsc": fsc, "fsc_ceiling": ceiling, "density_correlation": correlation}
    return numbers | described(config, "paper.real"), {"real": torch.cat(real), "generated": torch.cat(generated)}


def as_many_others(volumes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Fourier shell correlation (shells,) expected between the mean of volumes (N, D, D, D) and that of as many others.

    That of halves, mean over SPLITS of them, stepped up by Spearman and Brown's 2 c / (1 + c).
    """
    curves = []
    for _ in range(SPLITS):
        order = torch.randperm(len(volumes), generator=generator)
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        curves.append(fourier_shell_correlation(*(volumes[half].mean(0) for half in halves)))
    half = torch.stack(curves).mean(0)
    return 2 * half / (1 + half)


def _named(densities: str, particles: ParticleSet, config: RunConfig) -> tuple:
    """Arguments of `class_references` for one class."""
    names, files = own_data.parse_densities(densities)
    if len(names) != 1:
        raise ValueError(f"densities: {densities!r} names {len(names)} classes; expected one, that of the particles.")
    return names, config.box, particles.voxel_size_A, files


def _distances(real: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    """Distances without a trained network."""
    return {k: v for k, v in told_apart(real, other).items() if k != "auc"}


def real_case(
    profile: str,
    name: str,
    particles: str,
    options: dict,
    densities: str,
    average: str,
    target_voxel_size_A: float,
    box: int,
    seed: int,
) -> Callable[[], dict]:
    """The call that measures particles on disk, or, without them, a simulated stand-in; volumes are kept beside the
    runs for `real_volumes`.
    """

    def make() -> dict:
        config = make_config(profile, OWN_DATA, "physics", box=box, seed=seed)
        folder = paths.runs(profile) / "real" / name
        source = Path(particles) if particles else make_stand_in(folder / "input", seed)
        measured = own_data.load_particles(source, box, target_voxel_size_A, **options)
        numbers, volumes = make_real(measured, densities, config, name, average)
        np.savez(folder / "volumes.npz", **{k: v.numpy() for k, v in volumes.items()})
        return numbers

    return make


def real_volumes(profile: str, name: str) -> dict[str, np.ndarray]:
    """Volumes (N, D, D, D) of `make_real` that `real_case` kept, "real" and "generated"."""
    with np.load(paths.runs(profile) / "real" / name / "volumes.npz", allow_pickle=False) as file:
        return {k: file[k] for k in file.files}
