"""What repeated generations of one density share, what they vary in, and whether that predicts the error of real
recordings: Figures 1, 2 and 4.
"""

import numpy as np
import scipy
import torch

from ..config import DATASETS, RunConfig, make_config
from ..evaluation.baselines import more_real
from ..generation import TrainedRun, generate_repeats, load_run, restore
from ..reproducibility import paths
from ..reproducibility.files import read_json
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references, poses_of
from ..volumes.domains import Domains
from .case import Case
from .plan import run_name
from .pretrained import TRAINED_IN, pretrained
from .record import described
from .runs import ensure_run
from .simulated_sets import SIMULATE_AGAIN, data_folder, has_data, load_data, simulated_domains

SHOWN = 40  # generations and recordings whose mean Figure 2 shows
REPEATS = 400  # generations and recordings whose variance Figure 4 shows
SMOOTHED = 1.0  # voxels: Gaussian over which variances are averaged, since 400 repeats tell one voxel's to 7 %
PER_CLASS, PREDICTED_FROM = 20, 40  # test densities of each class, and generations of each, of the reliability curve
BINS = 10
INSIDE_90 = 1.645  # standard deviations


def recorded(
    config: RunConfig, domains: Domains, rows: np.ndarray, repeats: int, *, alone: bool = False, noise: bool = True
) -> torch.Tensor:
    """Recordings (len(rows), repeats, D, D, D), raw, of test densities in their poses, class after class; without
    neighbours where `alone`, and without `noise` where that is false.
    """
    maps = read_json(data_folder(config) / "data.json", SIMULATE_AGAIN)["maps"] if has_data(config) else None
    references = class_references(domains.classes, config.box, domains.X_test.voxel_size_A, maps)
    rng = stream(config.data_seed, "spread", len(rows), alone, noise)
    made = more_real(
        domains, references, repeats * len(rows) // len(references), config, rng, noise_std=None if noise else 1e-9,
        alone=alone, poses=poses_of(domains.X_test.table.iloc[rows], repeats),
    )  # fmt: skip
    return made.unflatten(0, (len(rows), repeats))


def trained(config: RunConfig) -> TrainedRun:
    """The run of a configuration: one's own, or, of the evening profile, the one that comes with the repository."""
    name = run_name(config.dataset, config.preset, config.seed)
    if config.profile == TRAINED_IN and not (paths.runs(config.profile) / name / "weights.safetensors").exists():
        return load_run(pretrained(f"{config.dataset}_{config.preset}"))
    ensure_run(config.profile, name)
    return load_run(paths.runs(config.profile) / name)


def deviation_of(variance: np.ndarray) -> np.ndarray:
    """Standard deviation (D, D, D) of a variance (D, D, D) averaged over neighbouring voxels; negative where a
    difference of two variances is.
    """
    smooth = scipy.ndimage.gaussian_filter(variance, SMOOTHED)
    return np.sign(smooth) * np.sqrt(np.abs(smooth))


def reliability(deviation: np.ndarray, error: np.ndarray, bins: int = BINS) -> dict:
    """Predicted and true error in bins of equally many voxels, by predicted standard deviation.

    Returns
    -------
    dict
        "predicted" and "found", root mean squares of each bin; "ence", the expected normalised calibration error: mean
        over bins of |found - predicted| / predicted (Levi et al. 2022, Sensors 22, 5540); "inside_90", the share of
        errors within the interval that holds 90 % of a normal distribution.
    """
    order = np.argsort(deviation, axis=None)
    groups = [(deviation.ravel()[i], error.ravel()[i]) for i in np.array_split(order, bins)]
    predicted = np.array([np.sqrt(np.mean(d.astype(np.float64) ** 2)) for d, _ in groups])
    found = np.array([np.sqrt(np.mean(e.astype(np.float64) ** 2)) for _, e in groups])
    return {
        "predicted": predicted.tolist(),
        "found": found.tolist(),
        "ence": float(np.mean(np.abs(found - predicted) / predicted)),
        "inside_90": float(np.mean(np.abs(error) < INSIDE_90 * deviation)),
    }


def _reliability(config: RunConfig, run: TrainedRun, domains: Domains, per_class: int, generations: int) -> dict:
    """`reliability` over test densities of every class, each in its pose and recorded once."""
    rows = domains.X_test.table.groupby("class_name", sort=False).head(per_class).index.to_numpy(copy=True)
    errors, deviations = [], []
    real = run.scaling.y(recorded(config, domains, rows, 1))[:, 0]
    # a new value against the mean and s.d. of `generations` others, under a normal distribution
    finite = (1 + 1 / generations) ** 0.5
    for x, y in zip(domains.volumes("X_test")[rows].split(1), real, strict=True):
        made = generate_repeats(run, x, repeats=generations, seed=config.seed + 3)[0].numpy()
        deviations.append(finite * np.sqrt(scipy.ndimage.gaussian_filter(made.var(0, ddof=1), SMOOTHED)))
        errors.append(y.numpy() - made.mean(0))
    return reliability(np.stack(deviations), np.stack(errors))


def _within(variance: np.ndarray, x: torch.Tensor) -> list[float]:
    """Mean of a variance over the voxels of the molecule, density above 0.3 of its maximum; one number a class."""
    inside = (x > 0.3 * x.amax((1, 2, 3), keepdim=True)).numpy()
    return [float(v[w].mean()) for v, w in zip(variance, inside, strict=True)]


def make_spread(config: RunConfig) -> dict:
    """Slices of one and of many generations and recordings of a density of each class, the variance that the molecule
    adds to both, and how well predicted standard deviations tell the error of a recording.

    Slices are xy ("..._xz" for xz), (classes, D, D): x, generated, generated_mean, recorded, recorded_mean, cycled
    F(G(x)), real y, restored F(y), cycled_y G(F(y)), noise (s.d. of generations of an empty density), and what the
    molecule adds to it: generated_signal, the signed root of the variance of generations less that of the noise; and
    recorded_signal, the s.d. of recordings without noise and neighbours, whose defocus differs.
    """
    small = config.profile == "smoke"
    repeats, shown = (8, 4) if small else (REPEATS, SHOWN)
    domains = load_data(config) if has_data(config) else simulated_domains(config)
    run = trained(config)
    rows = domains.X_test.table.groupby("class_name", sort=False).head(1).index.to_numpy(copy=True)
    x, middle = domains.volumes("X_test")[rows], config.box // 2
    real_rows = domains.Y_test.table.groupby("class_name", sort=False).head(1).index.to_numpy(copy=True)
    real = run.scaling.y(domains.volumes("Y_test")[real_rows])
    restored = restore(run, real)
    made = generate_repeats(run, x, repeats=repeats, seed=config.seed + 1)
    # the same draws of noise, so that the difference of both variances is not that of two draws
    nothing = generate_repeats(run, torch.zeros_like(x), repeats=repeats, seed=config.seed + 1)

    def recordings(**options: object) -> np.ndarray:
        return run.scaling.y(recorded(config, domains, rows, repeats, **options)).numpy()

    of_microscope, noise_free = recordings(), recordings(alone=True, noise=False)
    noise, variance, of_recordings = (np.asarray(v).var(1, ddof=1) for v in (nothing, made, noise_free))
    back = restored * run.scaling.x_std + run.scaling.x_mean  # G takes densities that are not z-scored
    volumes = {
        "x": x, "generated": made[:, 0], "generated_mean": made[:, :shown].mean(1),
        "recorded": of_microscope[:, 0], "recorded_mean": of_microscope[:, :shown].mean(1),
        "cycled": restore(run, made[:, 0]), "real": real, "restored": restored,
        "cycled_y": generate_repeats(run, back, repeats=1, seed=config.seed + 4)[:, 0],
        "noise": np.sqrt(noise),
        "generated_signal": np.stack([deviation_of(v) for v in variance - noise]),
        "recorded_signal": np.stack([deviation_of(v) for v in of_recordings]),
    }  # fmt: skip
    arrays = {name: np.asarray(v, dtype=np.float32) for name, v in volumes.items()}
    slices = {name: v[:, middle] for name, v in arrays.items()} | {
        f"{name}_xz": v[:, :, middle] for name, v in arrays.items()
    }
    ranks = []  # over the box, of the predicted s.d. with the error that recordings really have
    for fake, of_fake, true in zip(made.numpy(), variance, of_microscope, strict=True):
        predicted = scipy.ndimage.gaussian_filter(of_fake, SMOOTHED)
        error = scipy.ndimage.gaussian_filter(np.mean((true - fake.mean(0)) ** 2, 0), SMOOTHED)
        ranks.append(float(scipy.stats.spearmanr(predicted, error, axis=None)[0]))
    return {
        "classes": list(domains.classes),
        "voxel_size_A": domains.X_test.voxel_size_A,
        "rank": ranks,
        "variance": {
            "noise, generated": float(noise.mean()),
            "all, recorded": float(of_microscope.var(1, ddof=1).mean()),
            "added by the molecule within it, generated": _within(variance - noise, x),
            "added by the molecule within it, recorded": _within(of_recordings, x),
        },
        "reliability": _reliability(config, run, domains, *((2, 4) if small else (PER_CLASS, PREDICTED_FROM))),
        "slices": slices,
    } | described(config, "paper.spread", domains)


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name."""
    plan = {}
    for dataset in DATASETS:
        config = make_config(profile, dataset, "adapted", seed=seed)
        plan[f"spread_{dataset}_seed{seed}"] = Case(config, make_spread, needs=run_name(dataset, "adapted", seed))
    return plan
