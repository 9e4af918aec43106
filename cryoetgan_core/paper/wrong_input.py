"""Pickers and template matching with other optics, noise, densities and picks than `picker` and `template_matching`
give them: wrong ones, or better ones.

The tomograms, scores and budgets are theirs; formula and template matching have the true wedge, the generator its own.
Template matching is also given the transfer function and the noise that a physics generator has learned, in place of
the CTF formula: then nobody has told it the optics. Needs `pip install monai`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import scipy
import torch

from ..config import DATASETS, RunConfig
from ..evaluation.downstream import PHYSICS
from ..generation import TrainedRun
from ..physics.any_size import kernels
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..reproducibility.seeds import stream
from ..scenes import Scenes, make_scene
from ..simulator import scene
from ..simulator.microscope.simulate import Microscope
from ..simulator.sets import RESOLUTION_VOXELS, class_references
from ..simulator.specimen.crowding import radius_A
from ..volumes.table import POSITION_COLUMNS
from . import picker
from .case import Case
from .mismatch import OFF_CENTRE_VOXELS
from .picker import recorded_tomograms, what_is_picked
from .picking import (
    CTF_WEDGE,
    STEPS,
    THRESHOLDS,
    Tomogram,
    estimated,
    formula,
    noisy,
    picked_right,
    probabilities,
    scores,
    seen_by_tilts,
    train_picker,
)
from .proof import proof_config
from .record import described
from .template_matching import LEVELS, ROTATIONS, TEMPLATES, matched_heights

DEFOCUS_ERROR_UM = 3.0  # S2 has 4 um, 1 um more or less from tomogram to tomogram
NO_CTF, DEFOCUS, LEARNED = "no CTF", "defocus 3 um too large", "transfer function and noise of the generator"
UNLABELLED = "the same, and thresholds of a tomogram of the generator"
NOISE = "noise of back-projected white images"
POOR, OFF_CENTRE = "densities at half the resolution", "off-centre picks"
MENDED = "off-centre picks, densities moved as far"
CONDITIONS: dict[str, tuple[str, ...]] = {  # and what is measured under each
    LEARNED: (TEMPLATES,),
    UNLABELLED: (TEMPLATES,),
    NO_CTF: (TEMPLATES,),
    NOISE: (TEMPLATES, CTF_WEDGE),
    DEFOCUS: (TEMPLATES,),
    POOR: (TEMPLATES, PHYSICS, CTF_WEDGE),
    OFF_CENTRE: (PHYSICS,),
    MENDED: (PHYSICS,),
}
NAMES = dict(  # of files
    zip(
        CONDITIONS,
        ("learned", "unlabelled", "no-ctf", "noise", "defocus", "poor-densities", "off-centre", "mended"),
        strict=True,
    )
)
# of the mean power of the noise: what a spectrum is divided by at least. A learned power is rough, a known one is not.
LEAST_LEARNED, LEAST_KNOWN = 0.5, 0.1
SHELLS = 20
DRAWN, BLUR = 8, 2.0  # volumes of noise whose power is averaged, and the frequencies that it is smoothed over


def matched_filter(
    run: TrainedRun, shape: tuple[int, int, int], noise_power: torch.Tensor | None = None
) -> torch.Tensor:
    """Factor (Z, Y, X // 2 + 1) of an rfft: a run's transfer function over the power of its noise, which tells a known
    signal from coloured noise best, where the tilts of its first recording see; elsewhere 0. `noise_power` is that of
    empty boxes, as `kernels` takes it.
    """
    signal, noise = (_in_corner(kernel, shape) for kernel in kernels(run.G, 0, min(shape), noise_power))
    seen = seen_by_tilts(shape, *run.G.recordings[0, 2:].tolist())
    return _whitened(seen * signal, noise.square(), seen, LEAST_LEARNED)


def transfer_by_shell(run: TrainedRun, shape: tuple[int, int, int]) -> list[float]:
    """Mean of a run's transfer function, where its tilts see, in SHELLS equal shells of frequency up to Nyquist."""
    signal, seen = _in_corner(kernels(run.G, 0, min(shape))[0], shape), seen_by_tilts(shape, *run.G.tilt_range_deg)
    z, y, x = (torch.fft.fftfreq(n) for n in shape)
    radius = (z[:, None, None] ** 2 + y[:, None] ** 2 + x[: shape[2] // 2 + 1] ** 2).sqrt()
    shell = (2 * SHELLS * radius).long()
    return [round(float(signal[(shell == k) & (seen > 0)].mean()), 4) for k in range(SHELLS)]


def _whitened(factor: torch.Tensor, power: torch.Tensor, seen: torch.Tensor, least: float) -> torch.Tensor:
    """A factor over the power of noise, which counts as at least a share of its mean."""
    return factor / power.clamp(min=least * float(power[seen > 0].mean()))


def _back_projected(shape: tuple[int, int, int], scope: Microscope, rng: torch.Generator) -> np.ndarray:
    """Noise (Z, Y, X): the weighted back-projection of white images."""
    white = torch.randn((len(scope.angles_deg), *shape[1:]), generator=rng).numpy()
    return scene.tomogram(white, scope.angles_deg.numpy(), shape[0])


def _power(shape: tuple[int, int, int], scope: Microscope, rng: torch.Generator) -> torch.Tensor:
    """Power (Z, Y, X // 2 + 1) of `_back_projected`, smooth."""
    drawn = [_back_projected(shape, scope, rng) for _ in range(DRAWN)]
    power = np.mean([np.abs(np.fft.fftn(one)) ** 2 for one in drawn], axis=0)
    return torch.from_numpy(scipy.ndimage.gaussian_filter(power, BLUR, mode="wrap")[..., : shape[2] // 2 + 1]).float()


def _in_noise(density: np.ndarray, factor: torch.Tensor, noise: np.ndarray, snr: float) -> np.ndarray:
    """A specimen (Z, Y, X) whose rfft is multiplied by a factor, in noise at a ratio of the variances."""
    signal = torch.fft.irfftn(torch.fft.rfftn(torch.from_numpy(density)) * factor, s=density.shape).numpy()
    return signal + noise * np.float32(np.sqrt(signal.var() / noise.var() / snr))


def _in_corner(kernel: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """The rfft, which is real, of a kernel (d, d, d) whose centre is at index 0, in a volume of `shape`."""
    placed = torch.zeros(shape)
    placed[tuple(slice(0, n) for n in kernel.shape)] = torch.fft.fftshift(kernel)
    return torch.fft.rfftn(placed.roll([-(n // 2) for n in kernel.shape], (0, 1, 2))).real


def moved_picks(tomogram: Tomogram, error_A: float, rng: np.random.Generator) -> Tomogram:
    """A tomogram and its molecules, their places moved at random, normally with this standard deviation along each
    axis.
    """
    volume, table = tomogram
    columns = list(POSITION_COLUMNS)
    off = rng.normal(0, error_A, (len(table), 3))
    return volume, table.assign(**dict(zip(columns, (table[columns].to_numpy() + off).T, strict=True)))


def make_wrong_input(
    config: RunConfig, condition: str, steps: int = STEPS, rotations: int = ROTATIONS, tested: int = picker.TESTED_ON
) -> dict:
    """Scores, on held-out tomograms of the simulator, of what CONDITIONS lists for a condition: one picker of each
    source, its thresholds set on a tomogram of its own, and template matching, its thresholds set on real labels (but
    for UNLABELLED).
    """
    references, counts, voxel_size_A = what_is_picked(config)
    radii = {name: radius_A(r, voxel_size_A) for name, r in references.items()}
    trained_on, tested_on = recorded_tomograms(config, picker.TRAINED_ON, tested)
    scope, shape = DATASETS[config.dataset].microscope, picker.SHAPE
    if condition == DEFOCUS:
        scope = dataclasses.replace(scope, defocus_um=scope.defocus_um + DEFOCUS_ERROR_UM)
    if condition == POOR:
        references = class_references(tuple(references), config.box, voxel_size_A, None, 2 * RESOLUTION_VOXELS)
    picks = trained_on
    if condition in (OFF_CENTRE, MENDED):
        rng = np.random.default_rng([config.data_seed, 24])  # no other stream of the project
        picks = [moved_picks(tomogram, OFF_CENTRE_VOXELS * voxel_size_A, rng) for tomogram in trained_on]
    seen = seen_by_tilts(shape, scope.tilt_min_deg, scope.tilt_max_deg)
    factor = seen if condition == NO_CTF else seen * formula(shape, voxel_size_A, scope)
    folder = paths.runs(config.profile) / "picker" / f"{config.dataset}_seed{config.seed}_{NAMES[condition]}"
    run, noise_power = estimated(config, picks, references, voxel_size_A, folder, mend=condition == MENDED)

    def heights_by_templates() -> Callable[[np.ndarray], np.ndarray]:
        through = factor
        if condition in (LEARNED, UNLABELLED):
            through = matched_filter(run, shape, noise_power)
        if condition == NOISE:
            power = _power(shape, scope, stream(config.data_seed, "wrong input", "power"))
            through = _whitened(factor, power, seen, LEAST_KNOWN)
        in_voxels = [radii[name] / voxel_size_A for name in sorted(radii)]
        return lambda volume: matched_heights(volume, references, in_voxels, through, rotations)

    def tomogram_of(source: str, number: int) -> Tomogram:
        order = Scenes(counts, shape, picker.TRAINED_ON, config.data_seed, protein="bright")
        table, volumes = make_scene(run, references, order, number, voxel_size_A, noise_power)
        if source == PHYSICS:
            return volumes[""], table
        if condition == NOISE:
            noise = _back_projected(shape, scope, stream(config.data_seed, "wrong input", "noise", number))
            return _in_noise(volumes["density"], factor, noise, config.snr), table
        rng = stream(config.data_seed, "picker", source, number)
        return noisy(volumes["density"], factor, config.snr, rng, seen), table

    rows = []
    for source in CONDITIONS[condition]:
        if source == TEMPLATES:
            heights, levels = heights_by_templates(), LEVELS
            own = tomogram_of(PHYSICS, picker.TRAINED_ON - 1) if condition == UNLABELLED else trained_on[-1]
        else:
            made = [tomogram_of(source, number) for number in range(picker.TRAINED_ON)]
            network = train_picker(made[:-1], voxel_size_A, radii, 1000 * config.seed, steps)
            heights, own, levels = partial(probabilities, network), made[-1], THRESHOLDS
        rows += [{"source": source} | r for r in picked_right(heights, [own], tested_on, voxel_size_A, radii, levels)]
    return {
        "condition": condition,
        "scores": {source: scores(part) for source, part in pd.DataFrame(rows).groupby("source")},
        "rows": rows,
        "steps": steps,
        "rotations": rotations,
        "transfer": transfer_by_shell(run, shape),
        "data_hash": array_hash(*(volume for volume, _ in (*trained_on, *tested_on))),
    } | described(config, "paper.wrong_input")


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The result of every condition, by name."""
    small = dict(steps=3, rotations=3, tested=1) if profile == "smoke" else {}
    plan = {}
    for condition, name in NAMES.items():
        config = proof_config(profile, "S2", picker.SNR, seed)
        plan[f"wrong_input_S2_{name}_seed{seed}"] = Case(
            config, partial(make_wrong_input, condition=condition, **small)
        )
    return plan
