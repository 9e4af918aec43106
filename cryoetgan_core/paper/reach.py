"""How far the physics generator reaches: how few particles it needs, and whether a pose survives it."""

import numpy as np
import torch

from ..config import DATASETS, RunConfig
from ..evaluation.compare import told_apart
from ..evaluation.downstream import PHYSICS, REAL, benchmark
from ..evaluation.metrics import fourier_shell_correlation
from ..generation import generate
from ..physics.fourier_grid import coordinates
from ..reproducibility import paths
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import transfer_function
from ..simulator.sets import class_references, poses_of
from ..volumes.alignment import unposed
from ..volumes.domains import Domains
from ..volumes.poses import rotate_volume
from ..volumes.table import ParticleSet
from .case import Case
from .proof import HEADLINE_SNR, proof_config, small_probes
from .record import described
from .runs import train_on
from .simulated_sets import simulated_domains

COUNTS = (20, 50, 100, 200, 1000)  # unlabelled particles that the generator is estimated from
POSED = 40  # particles of each class that are aligned
SEARCH_DEG, ROUNDS, TRIES = 20.0, 5, 80  # of rotations about the true one, each round half as wide about the best


def make_few(config: RunConfig) -> dict:
    """Accuracy and distances of the generator estimated from COUNTS particles of S1, all classes alike."""
    domains = simulated_domains(config)
    wanted_volumes = domains.volumes("Y_test")
    y = domains.volumes("Y_train")
    rows = []
    for count in (n for n in COUNTS if n <= len(y)):
        chosen = domains.Y_train.select(np.linspace(0, len(y) - 1, count).round().astype(int))
        both = Domains(domains.X_train, domains.X_test, chosen, domains.Y_test)
        run = train_on(config, both, paths.runs(config.profile) / "reach" / f"few_{count}_seed{config.seed}")
        sets = {PHYSICS: generate(run, domains.volumes("X_train"), seed=config.seed + 1)}
        found = benchmark(sets, domains, seed=config.seed, **small_probes(config))
        told = told_apart(run.scaling.y(wanted_volumes), generate(run, domains.volumes("X_test"), seed=config.seed + 2))
        rows += [
            row | {"particles": count} | {"metrics": told, "tilt_range_deg": run.G.tilt_range_deg} for row in found
        ]
    real = benchmark({REAL: (y - y.mean()) / y.std()}, domains, seed=config.seed, **small_probes(config))
    return {"rows": rows, "real": real} | described(config, "paper.reach", domains)


def aligned(
    volumes: torch.Tensor,
    template: torch.Tensor,
    rotations: torch.Tensor,
    shifts_A: torch.Tensor,
    voxel_size_A: float,
    seed: int,
) -> torch.Tensor:
    """Angle (N,) in degrees between the true rotation of each of `volumes` (N, D, D, D) and the one near it whose
    template correlates best.

    Template matching in a neighbourhood of SEARCH_DEG about the true rotation, so that symmetric particles have one
    answer.

    Parameters
    ----------
    template : Tensor (d, d, d)
        The reference as the microscope shows it, without noise.
    rotations, shifts_A
        True poses, (N, 3, 3) and (N, 3).
    """
    generator, errors, box = stream(seed, "align"), [], volumes.shape[-1]
    for volume, true, shift in zip(volumes, rotations, shifts_A, strict=True):
        wanted, width, best, most = (volume - volume.mean()).flatten(), np.deg2rad(SEARCH_DEG), true.double(), -1.0
        # the search begins anywhere in the neighbourhood: the true rotation itself is not among the candidates
        candidates = _near(true.double(), width, generator, 3 * TRIES)
        for _ in range(ROUNDS):
            turned = rotate_volume(
                template, candidates, shift.expand(len(candidates), 3), voxel_size_A, box=box, upsample=1
            ).flatten(1)
            turned = turned - turned.mean(1, keepdim=True)
            value = turned @ wanted / (turned.norm(dim=1) * wanted.norm())
            if float(value.max()) > most:
                best, most = candidates[value.argmax()], float(value.max())
            width /= 2
            candidates = _near(best, width, generator, TRIES)
        errors.append(torch.rad2deg(((best @ true.double().mT).diagonal().sum() - 1).div(2).clamp(-1, 1).acos()))
    return torch.stack(errors)


def _near(rotation: torch.Tensor, width: float, generator: torch.Generator, count: int) -> torch.Tensor:
    """Rotations (count, 3, 3) by up to `width` radians about random axes, on top of one."""
    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    axis = (
        axis
        / axis.norm(dim=1, keepdim=True)
        * (width * torch.rand(count, 1, generator=generator, dtype=torch.float64) ** (1 / 3))
    )
    skew = torch.zeros(count, 3, 3, dtype=torch.float64)
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    return torch.matrix_exp(skew - skew.mT) @ rotation


def make_poses(config: RunConfig) -> dict:
    """Angular errors of the same alignment on generated and on real particles of known pose, and the FSC of their
    averages at these poses, by class.
    """
    domains = simulated_domains(config)
    run = train_on(config, domains, paths.runs(config.profile) / "reach" / f"poses_seed{config.seed}")
    voxel_size_A = domains.X_test.voxel_size_A
    references, found = class_references(domains.classes, config.box, voxel_size_A), {}
    scope, defoci = DATASETS[config.dataset].microscope, domains.Y_train.table.groupby("tomogram")["defocus_um"].mean()
    defoci = torch.from_numpy(defoci.to_numpy(copy=True)).float().expand(len(scope.angles_deg), -1)
    # the simulator's transfer, mean over tilts and tomograms: the generator's own might favour generated particles
    transfer = transfer_function(scope, defoci, (256, 256), voxel_size_A).mean((0, 1))[0]
    for k, name in enumerate(domains.classes):
        template = _seen(references[name], transfer)
        errors, means = {}, {}
        for kind, half in (("generated", "X_test"), ("real", "Y_test")):
            index = torch.where(domains.labels(half) == k)[0][: 2 if config.profile == "smoke" else POSED]
            particles: ParticleSet = getattr(domains, half).select(index.numpy())
            volumes = domains.volumes(half)[index]
            volumes = generate(run, volumes, seed=config.seed + 1) if kind == "generated" else run.scaling.y(volumes)
            rotations, shifts = poses_of(particles.table)
            errors[kind] = aligned(volumes, template, rotations, shifts, voxel_size_A, config.seed)
            means[kind] = unposed(volumes, rotations, shifts, voxel_size_A).mean(0)
        found[name] = {
            "median_error_deg": {kind: float(e.median()) for kind, e in errors.items()},
            "fsc_of_means": fourier_shell_correlation(means["generated"], means["real"]).tolist(),
        }
    return {"classes": found} | described(config, "paper.reach", domains)


def _seen(reference: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """A reference (d, d, d) behind a transfer function (F,) from zero to Nyquist, without wedge or noise."""
    d = len(reference)
    T = torch.from_numpy(np.interp(coordinates(d)[0], np.linspace(0, 0.5, len(transfer)), transfer)).float()
    return torch.fft.irfftn(torch.fft.rfftn(reference.float()) * T, s=(d, d, d))


def planned(profile: str, seed: int) -> dict[str, Case]:
    """Both results, by name."""
    few = proof_config(profile, "S1", HEADLINE_SNR, seed, **({} if profile == "smoke" else {"train_per_class": 250}))
    poses = proof_config(profile, "S1", 0.1, seed)
    return {f"physics_few_seed{seed}": Case(few, make_few), f"physics_poses_seed{seed}": Case(poses, make_poses)}
