"""Sets of volumes to compare a generator with: formulas and simulators without learning, and controls that a metric
must not pass.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch_ctf import calculate_ctf_1d

from ..config import DATASETS, RunConfig
from ..physics.fourier_grid import coordinates, wedge
from ..reproducibility.seeds import stream
from ..simulator.microscope.released import released_simulator
from ..simulator.microscope.simulate import Microscope, draw_recordings, reconstruct
from ..simulator.sets import Poses, image_size, subtomograms
from ..volumes.domains import Domains

WHITE, K_SQUARED, CTF, RELEASED = (
    "density + white noise",
    "density x k^2 + noise",
    "CTF formula + noise",
    "released simulator",
)
CTF_AND_WEDGE = "CTF formula + wedge + noise"
DEFOCUS_ERRORS_um = (-2.0, -1.0, 1.0, 2.0)
OFF = {f"CTF formula, {error:+g} um + noise": error for error in DEFOCUS_ERRORS_um}
FORMULAS = (WHITE, K_SQUARED, CTF, *OFF, CTF_AND_WEDGE)  # what a user can make from densities in a few lines
BACKGROUND = "CTF formula + wedge + real background"
WRONG_MICROSCOPE = "our microscope, wrong settings"
REDRAWS = 5  # independent draws of real subtomograms that play the perfect generator


def standardised_set(volumes: torch.Tensor) -> torch.Tensor:
    """A set (N, D, H, W) z-scored as a whole, as the networks see it."""
    return (volumes - volumes.mean()) / volumes.std()


def ctf_factor(box: int, voxel_size_A: float, microscope: Microscope, defocus_um: float) -> torch.Tensor:
    """`ctf_at` of a box's transform, (box, box, box // 2 + 1)."""
    return ctf_at(coordinates(box)[0], voxel_size_A, microscope, defocus_um)


def ctf_at(radius: torch.Tensor, voxel_size_A: float, microscope: Microscope, defocus_um: float) -> torch.Tensor:
    """Contrast transfer function at spatial frequencies in cycles a voxel, up to 1, by torch-ctf; protein bright."""
    samples = 2048
    curve = calculate_ctf_1d(
        defocus=defocus_um, voltage=microscope.voltage_kV, spherical_aberration=microscope.cs_mm,
        amplitude_contrast=microscope.amplitude_contrast, phase_shift=microscope.phase_shift_deg,
        pixel_size=voxel_size_A / 2, n_samples=samples, oversampling_factor=1,
    )  # fmt: skip
    # samples run from 0 to 1 / voxel: half a voxel as the pixel takes in the corners of the box, at sqrt(3) times its
    # Nyquist frequency
    return curve[(radius * (samples - 1)).round().long()]


def baseline(
    kind: str,
    densities: torch.Tensor,
    voxel_size_A: float,
    microscope: Microscope,
    snr: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Subtomograms (N, D, D, D), z-scored as a set, made from densities without learning, by one of FORMULAS or by
    RELEASED.

    The formulas filter the density (not at all, by k^2, or by the CTF at the microscope's mean defocus, right or wrong)
    and add white noise so that the variance of the filtered density over that of the noise, mean over the set, is
    `snr`. CTF_AND_WEDGE then empties the microscope's missing wedge. RELEASED is the released code's simulator at the
    mean defocus, with noise at the SNR of each volume and a wedge of the true width but symmetric about the beam.
    """
    if kind == RELEASED:
        made = released_simulator(
            densities, voxel_size_A, snr, generator, defocus_um=microscope.defocus_um, voltage_kV=microscope.voltage_kV,
            cs_mm=microscope.cs_mm, wedge_half_angle_deg=90 - (microscope.tilt_max_deg - microscope.tilt_min_deg) / 2,
        )  # fmt: skip
        return standardised_set(made)
    if kind not in FORMULAS:
        raise ValueError(f"baseline {kind!r}; expected one of {', '.join((*FORMULAS, RELEASED))}")
    box = densities.shape[-1]

    def filtered(volumes: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfftn(torch.fft.rfftn(volumes, dim=(-3, -2, -1)) * factor, s=(box,) * 3, dim=(-3, -2, -1))

    signal = densities
    if kind == K_SQUARED:
        signal = filtered(densities, coordinates(box)[0] ** 2)
    elif kind != WHITE:
        signal = filtered(
            densities, ctf_factor(box, voxel_size_A, microscope, microscope.defocus_um + OFF.get(kind, 0.0))
        )
    sigma = (signal.var(dim=(1, 2, 3)).mean() / snr).sqrt()
    made = signal + sigma * torch.randn(signal.shape, generator=generator)
    if kind == CTF_AND_WEDGE:
        made = filtered(made, wedge(box, microscope.tilt_min_deg, microscope.tilt_max_deg, box))
    return standardised_set(made)


def on_background(
    densities: torch.Tensor,
    background: torch.Tensor,
    voxel_size_A: float,
    microscope: Microscope,
    snr: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Subtomograms (N, D, D, D), z-scored as a set: densities filtered by the CTF formula, in the true wedge, added to
    empty boxes of real tomograms.

    Parameters
    ----------
    background : Tensor (M, D, D, D) Drawn with repetition, flipped along the tilt axis and turned by half about it at
        random, which leaves the wedge in place.
    """
    box = densities.shape[-1]
    factor = ctf_factor(box, voxel_size_A, microscope, microscope.defocus_um)
    factor = factor * wedge(box, microscope.tilt_min_deg, microscope.tilt_max_deg, box)
    signal = torch.fft.irfftn(torch.fft.rfftn(densities, dim=(-3, -2, -1)) * factor, s=(box,) * 3, dim=(-3, -2, -1))
    empty = background[torch.randint(len(background), (len(densities),), generator=generator)]
    for axes in ((-2,), (-3, -1)):
        turned = torch.rand((len(empty), 1, 1, 1), generator=generator) < 0.5
        empty = torch.where(turned, empty.flip(axes), empty)
    return standardised_set(signal * (snr / signal.var(dim=(1, 2, 3)).mean()).sqrt() + standardised_set(empty))


def wrong_microscope(
    references: Mapping[str, torch.Tensor],
    per_class: int,
    box: int,
    voxel_size_A: float,
    config: RunConfig,
    generator: torch.Generator,
) -> torch.Tensor:
    """Subtomograms (N, D, D, D), z-scored as a set, by our own simulator with the settings of a user who guessed them.

    Defocus 2 um too low, tilts of +-60 degrees, twice the SNR, and no neighbours.
    """
    right = DATASETS[config.dataset].microscope
    scope = dataclasses.replace(right, defocus_um=right.defocus_um - 2, tilt_min_deg=-60.0, tilt_max_deg=60.0)
    made = subtomograms(references, per_class, box, voxel_size_A, scope, generator, snr=2 * config.snr)
    return standardised_set(torch.from_numpy(made.volumes))


def more_real(
    domains: Domains,
    references: Mapping[str, torch.Tensor],
    per_class: int,
    config: RunConfig,
    generator: torch.Generator,
    *,
    noise_std: float | None = None,
    microscope: Microscope | None = None,
    alone: bool = False,
    poses: Poses | None = None,
) -> torch.Tensor:
    """Subtomograms (N, D, D, D), raw, simulated as the real ones of `domains` were: microscope, noise level and
    neighbours are theirs unless given, none where `alone`.
    """
    dataset = DATASETS[config.dataset]
    made = subtomograms(
        references, per_class, config.box, domains.Y_test.voxel_size_A, microscope or dataset.microscope, generator,
        snr=config.snr, noise_std=noise_std or noise_level(domains), crowding=None if alone else dataset.crowding,
        poses=poses,
    )  # fmt: skip
    return torch.from_numpy(made.volumes)


def noise_level(domains: Domains) -> float:
    """Of the simulated real subtomograms: standard deviation of a pixel of the tilt images."""
    return float(domains.Y_test.table["noise_std"].iloc[0])


def controls(
    domains: Domains, references: Mapping[str, torch.Tensor], config: RunConfig
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Name to volumes (N, D, H, W) in network units and labels (N,), as many as the real test half.

    First REDRAWS draws of "real, another draw": what a perfect generator scores, and how much that varies. Then noise
    of 0.98 and 1.02 times the right amplitude, which no eye sees; one class alone; the particle removed, nothing but
    noise; density + white noise; the CTF formula; and the released simulator.
    """
    train, test, dataset = domains.volumes("Y_train"), domains.Y_test, DATASETS[config.dataset]
    mean, std = train.mean(), train.std()
    noise_std, voxel_size_A = noise_level(domains), test.voxel_size_A
    labels, total = domains.labels("Y_test"), len(test)

    def real(name: str, factor: float = 1.0, only: str = "") -> torch.Tensor:
        chosen, rng = {only: references[only]} if only else references, stream(config.data_seed, "control", name)
        made = more_real(domains, chosen, total // len(chosen), config, rng, noise_std=factor * noise_std)
        return (made - mean) / std

    only = domains.classes[1]
    sets = {
        **{f"real, another draw {k + 1}": (real(f"another draw {k}"), labels) for k in range(REDRAWS)},
        "noise x 0.98": (real("less noise", 0.98), labels),
        "noise x 1.02": (real("more noise", 1.02), labels),
        f"{only} alone": (real("one class", only=only), torch.full((total,), 1)),
        "particle removed": ((empty_ice(total, config, noise_std, voxel_size_A) - mean) / std, labels),
    }
    for kind in (WHITE, CTF, RELEASED):
        x = domains.volumes("X_test")
        made = baseline(
            kind, x, voxel_size_A, dataset.microscope, config.snr, stream(config.data_seed, "control", kind)
        )
        sets[kind] = (made, domains.labels("X_test"))
    return sets


def empty_ice(count: int, config: RunConfig, noise_std: float, voxel_size_A: float) -> torch.Tensor:
    """Reconstructions (count, D, H, W) of tilt images that hold nothing but noise."""
    scope, rng = DATASETS[config.dataset].microscope, stream(config.data_seed, "control", "empty")
    size, volumes = image_size(config.box), []
    for part in torch.arange(count).split(16):
        recordings = draw_recordings(scope, len(part), 1, rng)
        images = noise_std * torch.randn(len(scope.angles_deg), len(part), size, size, generator=rng)
        volumes.append(reconstruct(images, scope, recordings.defocus_um, voxel_size_A, config.box))
    return torch.cat(volumes)
