"""Particles that the generator was not made for: other optics, filtered tomograms, bad picks, a wrong density, missing
classes.

Each condition changes S1 at the headline SNR. What is recorded, or done to the tomograms, changes training and test
particles alike. Bad picks and wrong densities change only what the generator learns from.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy
import torch

from ..config import DATASETS, RunConfig
from ..evaluation.baselines import (
    BACKGROUND,
    CTF,
    baseline,
    ctf_factor,
    empty_ice,
    noise_level,
    on_background,
    standardised_set,
)
from ..evaluation.compare import told_apart
from ..evaluation.downstream import PHYSICS, REAL, benchmark
from ..generation import generate
from ..reproducibility.seeds import stream
from ..simulator.microscope.back_projection import transform_size
from ..simulator.microscope.simulate import MICROSCOPES, Microscope
from ..simulator.sets import RESOLUTION_VOXELS, class_references
from ..volumes.domains import Domains
from ..volumes.table import ParticleSet
from .case import Case
from .densities import snr_in_same_noise
from .proof import HEADLINE_SNR, estimated, proof_config, small_probes
from .record import described
from .simulated_sets import simulated_domains

Change = Callable[[np.ndarray], np.ndarray]
S1 = DATASETS["S1"].microscope
OPTICS: dict[str, Microscope] = {  # what is recorded
    "another detector and dose": dataclasses.replace(
        S1, camera_pixel_A=4.0, point_spread_px=0.5, total_dose_e_A2=150.0, dose_weighting=True
    ),
    "tilt and shift errors": dataclasses.replace(S1, tilt_error_deg=0.5, shift_error_A=8.0),
    "astigmatism": dataclasses.replace(S1, astigmatism_um=0.8),
    "phases flipped": dataclasses.replace(S1, correction="phase_flip"),
    "Wiener-corrected CTF": dataclasses.replace(S1, correction="wiener"),
    "the modern microscope": MICROSCOPES["modern"],
}


def _low_pass(volume: np.ndarray) -> np.ndarray:
    """Nothing beyond half of Nyquist."""
    f = np.fft.fftfreq(len(volume))
    inside = f[:, None, None] ** 2 + f[None, :, None] ** 2 + np.fft.rfftfreq(len(volume)) ** 2 < 0.25**2
    return np.fft.irfftn(np.fft.rfftn(volume) * inside, s=volume.shape).astype(np.float32)


def _deconvolved(volume: np.ndarray) -> np.ndarray:
    """Divided by the CTF at the nominal defocus as a Wiener filter does, as after tomogram deconvolution."""
    factor = ctf_factor(len(volume), DATASETS["S1"].field_of_view_A / len(volume), S1, S1.defocus_um).numpy()
    filtered = np.fft.rfftn(volume) * factor / (factor**2 + 0.1)
    return np.fft.irfftn(filtered, s=volume.shape).astype(np.float32)


def _wiener_corrected(volume: np.ndarray) -> np.ndarray:
    """A volume that nobody corrected, as a reconstruction with the Wiener filter corrects it: m c / (m c^2 + 1 / SNR),
    where m tilts overlap at a frequency of Fourier space and c is the CTF at the nominal defocus.

    The volume is padded to twice its side: m changes fast at low frequencies.
    """
    n, angles = len(volume), S1.angles_deg
    padded = np.pad(volume, [(0, n)] * 3)
    c = ctf_factor(2 * n, DATASETS["S1"].field_of_view_A / n, S1, S1.defocus_um).numpy()
    z, x = np.fft.fftfreq(2 * n)[:, None, None], np.fft.rfftfreq(2 * n)
    step = np.deg2rad(float(angles.max() - angles.min())) / (len(angles) - 1)
    apart = step * np.hypot(z, x) * transform_size(n, n)  # of neighbouring slices, in samples
    m = np.clip(1 / np.maximum(apart, 1e-9), 1, len(angles))
    filtered = np.fft.rfftn(padded) * m * c / (m * c**2 + S1.wiener_regularisation)
    return np.fft.irfftn(filtered, s=padded.shape)[:n, :n, :n].astype(np.float32)


def _eight_bits(volume: np.ndarray) -> np.ndarray:
    """Grey values of 0 to 255 between the 0.1 and 99.9 percentiles, as tomograms are stored to save space."""
    low, high = np.percentile(volume, (0.1, 99.9))
    return np.round(np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.float32)


def _standardised(volume: np.ndarray) -> np.ndarray:
    return ((volume - volume.mean()) / volume.std()).astype(np.float32)


FILTERS: dict[str, Change] = {  # what is done to every subtomogram
    "low-passed": _low_pass,
    "CTF-deconvolved": _deconvolved,
    "median filter": lambda volume: scipy.ndimage.median_filter(volume, 3),
    "Gaussian filter": lambda volume: scipy.ndimage.gaussian_filter(volume, 0.8),
    "8 bits": _eight_bits,
    "each scaled to one variance": _standardised,
}
FALSE_SHARE, OFF_CENTRE_VOXELS, RARE = 0.3, 2.0, 0.1  # of all picks; s.d. along each axis; of the first class
PICKS = ("false picks", "off-centre picks", "classes 10 : 1", "a class missing from the particles")
DENSITIES = ("densities at a quarter of the resolution",)
CONDITIONS = ("as recorded", *OPTICS, *FILTERS, *PICKS, *DENSITIES)
# In these voxels (angstrom), the paper's, the CTF of S1 has a zero within Nyquist; in those of the others it has none.
FINE_A, FINE = 13.68, ("as recorded", "phases flipped", "Wiener-corrected CTF", "CTF-deconvolved")
NO_NOISE = 1e9  # signal-to-noise ratio


def _picked(particles: ParticleSet, condition: str, classes: tuple[str, ...], seed: int) -> ParticleSet:
    """Training particles as a careless pick leaves them."""
    rng = np.random.default_rng([seed, PICKS.index(condition)])
    table, label = particles.table, particles.table["class_name"].to_numpy()
    if condition == "a class missing from the particles":
        return particles.select(label != classes[-1])
    if condition == "classes 10 : 1":
        keep = np.concatenate(
            [
                np.flatnonzero(label == k)[: None if i == 0 else round(RARE * (label == k).sum())]
                for i, k in enumerate(classes)
            ]
        )
        return particles.select(keep)
    volumes = np.array(particles.volumes)
    if condition == "false picks":
        # ice of the same noise: phases drawn anew, amplitudes of another particle's outer voxels
        for i in rng.choice(len(volumes), round(FALSE_SHARE * len(volumes)), replace=False):
            volumes[i] = _empty(volumes[i], rng)
    else:
        for i, shift in enumerate(np.round(rng.normal(0, OFF_CENTRE_VOXELS, (len(volumes), 3))).astype(int)):
            volumes[i] = np.roll(volumes[i], shift, (0, 1, 2))
    return ParticleSet(volumes, table, particles.voxel_size_A)


def _empty(volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A volume with the power spectrum of `volume` and random phases."""
    white = np.fft.rfftn(rng.standard_normal(volume.shape))
    return np.fft.irfftn(np.abs(np.fft.rfftn(volume)) * white / np.abs(white), s=volume.shape).astype(np.float32)


def mismatched(config: RunConfig, condition: str) -> Domains:
    """S1 under a condition of CONDITIONS.

    Raises ValueError for an unknown condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition {condition!r}; expected one of {', '.join(CONDITIONS)}")
    shown = _poor(config) if condition in DENSITIES else None
    both = simulated_domains(config, microscope=OPTICS.get(condition), densities=shown)
    train, test = both.Y_train, both.Y_test
    if condition in FILTERS:
        train, test = train.map(FILTERS[condition]), test.map(FILTERS[condition])
    if condition in PICKS:
        train = _picked(train, condition, both.classes, config.data_seed)
    return Domains(both.X_train, both.X_test, train, test)


def _poor(config: RunConfig) -> dict[str, torch.Tensor]:
    """Densities of the set's classes at a quarter of the resolution."""
    dataset = DATASETS[config.dataset]
    voxel_size_A = dataset.field_of_view_A / config.box
    return class_references(dataset.classes, config.box, voxel_size_A, None, 4 * RESOLUTION_VOXELS)


def _formula(config: RunConfig, both: Domains, condition: str) -> torch.Tensor:
    """Volumes (N, D, D, D), z-scored, of the CTF formula, which is told the optics and the noise.

    Whoever filters the tomograms can do so with the formula's volumes, too. Where the reconstruction corrects the CTF,
    the signal is corrected alike and the noise stays white: that is better training data than noise corrected alike.
    """
    x, voxel_size_A, scope = both.volumes("X_train"), both.X_train.voxel_size_A, OPTICS.get(condition, S1)
    rng, change = stream(config.seed, "mismatch", condition), FILTERS.get(condition)
    if scope.correction == "wiener":
        signal = baseline(CTF, x, voxel_size_A, scope, NO_NOISE, rng)
        signal = torch.from_numpy(np.stack([_wiener_corrected(v) for v in signal.numpy()]))
        level = (signal.var((1, 2, 3)).mean() / config.snr).sqrt()
        return standardised_set(signal + level * torch.randn(signal.shape, generator=rng))
    snr = snr_in_same_noise(_poor(config), config) if condition in DENSITIES else config.snr
    made = baseline(CTF, x, voxel_size_A, scope, snr, rng)
    return standardised_set(torch.from_numpy(np.stack([change(v) for v in made.numpy()]))) if change else made


def make_mismatch(config: RunConfig, condition: str, fine: bool = False) -> dict:
    """Accuracy on real test particles of a probe trained on the formula, on the physics generator, and on clean real
    particles; how it is told apart; and the generator's transfer function. `fine`: in voxels of FINE_A; as recorded
    also of a probe trained on the formula added to empty boxes.
    """
    both = mismatched(config, condition)
    clean = both if condition not in PICKS else simulated_domains(config)  # of which real probes see the labels
    name = f"mismatch_{CONDITIONS.index(condition)}{'_fine' * fine}_seed{config.seed}"
    run, took = estimated(config, both, name)
    x, y = both.volumes("X_train"), both.volumes("Y_train")
    real = clean.volumes("Y_train")
    sets = {
        CTF: _formula(config, both, condition),
        PHYSICS: generate(run, x, seed=config.seed + 1),
        REAL: (real - real.mean()) / real.std(),
    }
    if fine and condition == CONDITIONS[0]:  # in the others' voxels Table 7 has it
        voxel_size_A, rng = both.X_train.voxel_size_A, stream(config.seed, "mismatch", BACKGROUND)
        empty = empty_ice(len(both.Y_test), config, noise_level(both), voxel_size_A)
        sets[BACKGROUND] = on_background(x, empty, voxel_size_A, S1, config.snr, rng)
    judged = Domains(both.X_train, both.X_test, clean.Y_train, both.Y_test)
    rows = benchmark(sets, judged, seed=config.seed, **small_probes(config))
    wanted = (both.volumes("Y_test") - y.mean()) / y.std()
    metrics = {PHYSICS: told_apart(wanted, generate(run, both.volumes("X_test"), seed=config.seed + 2))}
    metrics[REAL] = told_apart(wanted, sets[REAL][:: max(1, len(real) // len(wanted))])
    named = f"{condition}, {FINE_A:.1f} A voxels" if fine else condition
    return (
        {"condition": named, "rows": rows, "metrics": metrics, "transfer": run.G.T.tolist(), "recorded": named}
        | took
        | described(config, "paper.mismatch", both)
    )


def mismatch_names(profile: str, seed: int, fine: bool = False) -> list[str]:
    """Results of the table of conditions, also those in `fine` voxels if asked for; the smoke profile has two."""
    kept = 2 if profile == "smoke" else len(CONDITIONS) + len(FINE) * fine
    return list(planned(profile, seed))[:kept]


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The result of every condition, by name."""
    config = proof_config(profile, "S1", HEADLINE_SNR, seed)
    cases = {condition: Case(config, partial(make_mismatch, condition=condition)) for condition in CONDITIONS}
    if profile != "smoke":
        config = config.replace(box=round(DATASETS["S1"].field_of_view_A / FINE_A))
    for condition in FINE:
        cases[f"fine {condition}"] = Case(config, partial(make_mismatch, condition=condition, fine=True))
    return {f"physics_mismatch_{name.replace(' ', '-')}_seed{seed}": case for name, case in cases.items()}
