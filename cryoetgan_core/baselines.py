"""Sets of volumes to compare a generator with: simulators without learning, and controls that a metric must not mistake for real subtomograms."""

from collections.abc import Mapping

import torch

from .config import DATASETS, RunConfig
from .fourier_grid import estimate_tilt_range
from .metrics import log_ratio, radial_power_spectra
from .microscope.released import released_simulator
from .microscope.simulate import Microscope, draw_recordings, reconstruct
from .particles.domains import Domains
from .particles.simulated import image_size, subtomograms
from .seeds import stream

BASELINES = ("density + Gaussian noise", "released simulator")


def standardised_set(volumes: torch.Tensor) -> torch.Tensor:
    """A set (N, D, H, W) z-scored as a whole, as the networks see it."""
    return (volumes - volumes.mean()) / volumes.std()


def baseline(
    kind: str, densities: torch.Tensor, voxel_size_A: float, microscope: Microscope, snr: float, generator: torch.Generator
) -> torch.Tensor:
    """Subtomograms (N, D, H, W), z-scored as a set, made from densities without learning, with a microscope's optics and an SNR.

    "density + Gaussian noise" adds white noise at the SNR, mean over the set; "released simulator" is the released code's own: CTF at the mean defocus, noise at the SNR of
    each volume, and a wedge of the true width but symmetric about the beam.
    """
    if kind == BASELINES[0]:
        sigma = (densities.var(dim=(1, 2, 3)).mean() / snr).sqrt()
        return standardised_set(densities + sigma * torch.randn(densities.shape, generator=generator))
    made = released_simulator(
        densities, voxel_size_A, snr, generator, defocus_um=microscope.defocus_um, voltage_kV=microscope.voltage_kV, cs_mm=microscope.cs_mm,
        wedge_half_angle_deg=90 - (microscope.tilt_max_deg - microscope.tilt_min_deg) / 2,
    )  # fmt: skip
    return standardised_set(made)


def fitted_released_simulator(
    densities: torch.Tensor, subtomograms: torch.Tensor, voxel_size_A: float, generator: torch.Generator, sample: int = 48
) -> tuple[torch.Tensor, dict[str, float]]:
    """The released simulator with its parameters fitted to unlabelled subtomograms (N, D, D, D): volumes, z-scored as a set, and the parameters.

    The wedge has the estimated width; defocus and SNR are those of a grid at which `sample` simulated volumes have the least log distance of the radial power spectrum.
    """
    low, high = estimate_tilt_range(subtomograms)
    wanted = radial_power_spectra(standardised_set(subtomograms)).mean(0)
    few = densities[torch.linspace(0, len(densities) - 1, sample).round().long()]
    best = (float("inf"), {})
    for defocus_um in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0):
        for snr in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
            told = {"snr": snr, "defocus_um": defocus_um, "wedge_half_angle_deg": max(90 - (high - low) / 2, 0.0)}
            made = standardised_set(released_simulator(few, voxel_size_A, generator=generator, **told))
            best = min(best, (log_ratio(wanted, radial_power_spectra(made).mean(0)), told), key=lambda b: b[0])
    return standardised_set(released_simulator(densities, voxel_size_A, generator=generator, **best[1])), best[1]


def controls(domains: Domains, references: Mapping[str, torch.Tensor], config: RunConfig) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Name to volumes (N, D, H, W) in network units and labels (N,), as many as the real test half.

    First "real, another draw": what a perfect generator scores. Then noise of 0.98 and 1.02 times the right amplitude, which no eye sees; one class alone; the
    particle removed, nothing but noise; and the two baselines.
    """
    train, test, dataset = domains.volumes("Y_train"), domains.Y_test, DATASETS[config.dataset]
    mean, std = train.mean(), train.std()
    noise_std, voxel_size_A = float(test.table["noise_std"].iloc[0]), test.voxel_size_A
    labels, total = domains.labels("Y_test"), len(test)

    def real(name: str, factor: float = 1.0, only: str = "") -> torch.Tensor:
        chosen = {only: references[only]} if only else dict(references)
        made = subtomograms(
            chosen, total // len(chosen), config.box, voxel_size_A, dataset.microscope, stream(config.data_seed, "control", name),
            snr=config.snr, noise_std=factor * noise_std, crowding=dataset.crowding,
        )  # fmt: skip
        return (torch.from_numpy(made.volumes) - mean) / std

    only = domains.classes[1]
    sets = {
        "real, another draw": (real("another draw"), labels),
        "noise x 0.98": (real("less noise", 0.98), labels),
        "noise x 1.02": (real("more noise", 1.02), labels),
        f"{only} alone": (real("one class", only=only), torch.full((total,), 1)),
        "particle removed": ((_empty_ice(total, config, noise_std, voxel_size_A) - mean) / std, labels),
    }
    for kind in BASELINES:
        x = domains.volumes("X_test")
        made = baseline(kind, x, voxel_size_A, dataset.microscope, config.snr, stream(config.data_seed, "control", kind))
        sets[kind] = (made, domains.labels("X_test"))
    return sets


def _empty_ice(count: int, config: RunConfig, noise_std: float, voxel_size_A: float) -> torch.Tensor:
    """Reconstructions (count, D, H, W) of tilt images that hold nothing but noise."""
    scope, rng = DATASETS[config.dataset].microscope, stream(config.data_seed, "control", "empty")
    size, volumes = image_size(config.box), []
    for part in torch.arange(count).split(16):
        recordings = draw_recordings(scope, len(part), 1, rng)
        images = noise_std * torch.randn(len(scope.angles_deg), len(part), size, size, generator=rng)
        volumes.append(reconstruct(images, scope, recordings.defocus_um, voxel_size_A, config.box))
    return torch.cat(volumes)
