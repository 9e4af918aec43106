"""The physics generator given densities that are not the molecules': of another resolution, or of a homologue."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from ..config import DATASETS, RunConfig
from ..evaluation.baselines import CTF, baseline, ctf_factor
from ..evaluation.compare import told_apart
from ..evaluation.downstream import PHYSICS, REAL, benchmark
from ..generation import generate
from ..reproducibility.seeds import stream
from ..simulator.sets import RESOLUTION_VOXELS, class_references, density_maps
from .case import Case
from .proof import HEADLINE_SNR, estimated, proof_config, small_probes
from .record import described
from .simulated_sets import simulated_domains

GIVEN: dict[str, dict] = {  # Table 9: what X shows in place of what was recorded
    "their own": {},
    "half the resolution": {"resolution_voxels": 2 * RESOLUTION_VOXELS},
    "a quarter of the resolution": {"resolution_voxels": 4 * RESOLUTION_VOXELS},
}
FOR_VARIANCE = 20  # densities of each class, in random poses


def snr_in_same_noise(
    given: Mapping[str, torch.Tensor], config: RunConfig, recorded: Mapping[str, str] | None = None
) -> float:
    """Signal-to-noise ratio of given densities behind the CTF, in noise as strong as that of the particles: what a
    formula is told that knows the noise.

    Parameters
    ----------
    given
        Class to density, as `simulator.sets.class_references` makes it.
    recorded
        Class to source of the molecules that are recorded, in place of the built-in models.
    """
    dataset = DATASETS[config.dataset]
    voxel_size_A = dataset.field_of_view_A / config.box
    factor = ctf_factor(config.box, voxel_size_A, dataset.microscope, dataset.microscope.defocus_um)
    variance = []
    for references in (given, class_references(dataset.classes, config.box, voxel_size_A, dict(recorded or {}))):
        rng = stream(config.data_seed, "variance")
        maps = torch.from_numpy(density_maps(references, FOR_VARIANCE, config.box, voxel_size_A, rng).volumes)
        spectra = torch.fft.rfftn(maps, dim=(-3, -2, -1)) * factor
        variance.append(float(torch.fft.irfftn(spectra, s=maps.shape[1:], dim=(-3, -2, -1)).var((1, 2, 3)).mean()))
    return config.snr * variance[0] / variance[1]


def make_given(
    config: RunConfig,
    given: str,
    *,
    resolution_voxels: float = RESOLUTION_VOXELS,
    recorded: Mapping[str, str] | None = None,
    densities: Mapping[str, str] | None = None,
) -> dict:
    """Estimate the physics generator, and make the baseline, from densities that differ from what was recorded;
    accuracy on real, and how it is told apart.

    Parameters
    ----------
    resolution_voxels
        to which the given densities are low-passed.
    recorded, densities
        class to source, of what is recorded and of what is given, in place of the built-in models.
    """
    dataset = DATASETS[config.dataset]
    voxel_size_A = dataset.field_of_view_A / config.box
    shown = class_references(dataset.classes, config.box, voxel_size_A, densities, resolution_voxels)
    domains = simulated_domains(config, maps=dict(recorded or {}), densities=shown)
    run, took = estimated(config, domains, f"{config.dataset}_given-{given.replace(' ', '-')}_seed{config.seed}")
    x, y = domains.volumes("X_train"), domains.volumes("Y_train")
    snr = snr_in_same_noise(shown, config, recorded)
    sets = {
        CTF: baseline(CTF, x, voxel_size_A, dataset.microscope, snr, stream(config.seed, "baselines", "given")),
        PHYSICS: generate(run, x, seed=config.seed + 1),
        REAL: (y - y.mean()) / y.std(),
    }
    rows = benchmark(sets, domains, seed=config.seed, **small_probes(config))

    real = (domains.volumes("Y_test") - y.mean()) / y.std()
    metrics = told_apart(real, generate(run, domains.volumes("X_test"), seed=config.seed + 2))
    # these data are no other result's
    of = {"recorded": f"{given}: {sorted(Path(v).name for v in (recorded or {}).values())}"}
    return (
        {"given": given, "rows": rows, "metrics": metrics} | of | took | described(config, "paper.densities", domains)
    )


def given_names(profile: str, seed: int) -> list[str]:
    """Results of Table 9; the smoke profile has the first two."""
    return list(planned(profile, seed))[: 2 if profile == "smoke" else None]


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results with given densities, by name."""
    config = proof_config(profile, "S1", HEADLINE_SNR, seed)
    return {
        f"physics_given_{given.replace(' ', '-')}_seed{seed}": Case(config, partial(make_given, given=given, **options))
        for given, options in GIVEN.items()
    }
