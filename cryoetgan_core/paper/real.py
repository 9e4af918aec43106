"""A generator on few measured particles: estimated from all tilt series but one, judged on that one, in turn."""

from pathlib import Path

import torch

from ..config import RunConfig
from ..evaluation.compare import distances, network_auc
from ..evaluation.metrics import fourier_shell_correlation
from ..generation import generate
from ..physics.acquisition import acquisition
from ..physics.pick_error import as_picked
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


def left_out_in_turn(particles: ParticleSet, densities: str, config: RunConfig) -> list[str]:
    """The tomograms that `make_real` leaves out: FOLDS at most.

    Raises ValueError where it cannot: densities of several classes, one tomogram, or too few particles in it or without
    it.
    """
    names, _ = own_data.parse_densities(densities)
    if len(names) != 1:
        raise ValueError(
            f"To leave tomograms out in turn needs one density, that of the particles; {densities!r} names "
            f"{len(names)}."
        )
    counts = particles.table["tomogram"].value_counts()
    if len(counts) < 2:
        raise ValueError("To leave tomograms out in turn needs particles of several tomograms; these name one or none.")
    tomograms = sorted(counts.index)[:FOLDS]
    for tomogram in tomograms:
        test, train = int(counts[tomogram]), int(counts.sum() - counts[tomogram])
        if test < 2 or train < config.batch:
            raise ValueError(
                f"Tomogram {tomogram!r} has {test} particles, all others {train}; expected at least 2, and "
                f"{config.batch}."
            )
    return tomograms


def make_real(
    particles: ParticleSet, densities: str, config: RunConfig, folder: Path, average: str = "", *, mend: bool = False
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Estimate or train from all tomograms but one, generate as many as that one holds, and compare, for tomogram after
    tomogram. Runs are kept in `folder`. `mend` moves the densities of the physics generator as far off centre as the
    particles are found to be.

    Returns
    -------
    numbers
        for each tomogram left out the metrics of generated and, as the floor, of as many real training particles
        against it; AUC with as many volumes of each as the tomogram holds; with an `average`, "fsc", that of the means
        of generated and of real particles, each brought back by the real poses, and "fsc_ceiling", what as many other
        real ones would reach.
    volumes
        "real" and "generated" (N, D, D, D) of all folds in network units, in the same order.

    Raises ValueError as `left_out_in_turn`, before anything is estimated.
    """
    tomograms = left_out_in_turn(particles, densities, config)
    names, files = own_data.parse_densities(densities)
    reference = class_references(names, config.box, particles.voxel_size_A, files)
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
    for number, tomogram in enumerate(tomograms):
        left = (particles.table["tomogram"] == tomogram).to_numpy(copy=True)
        train, test = particles.select(~left), particles.select(left)
        both = Domains(*x_halves, train, test)
        if mend and config.generator == "physics":
            tilts = acquisition(train, tilt_range=config.tilt_range).tilt_range_deg
            both = as_picked(both, config.data_seed, tilts).domains
        run = train_on(config, both, folder / f"without_{number}", replace=True)
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
            "generated": distances(wanted, as_many) | {"auc": network_auc(wanted, volumes)},
            "real": distances(wanted, floor) | {"auc": network_auc(wanted, floor[: len(wanted)])},
            "tilt_range_deg": list(run.G.tilt_range_deg) if config.generator == "physics" else None,
        }
        real.append(wanted)
        generated.append(volumes)
    numbers = {"folds": folds, "particles": len(particles), "tomograms": particles.table["tomogram"].nunique()}
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
