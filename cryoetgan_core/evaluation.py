"""All metrics of a finished run, on the test halves, each with an interval; and the same metrics of any other set of volumes, as floor or control.

Everything is measured on volumes in network units, by a classifier that never saw the test halves nor a generated volume.
"""

from collections.abc import Callable

import numpy as np
import torch

from .classification import auc, predict, two_sample_scores
from .generation import TrainedRun, generate, generate_repeats, restore
from .metrics import (
    ManifoldScores,
    angular_log_ratio,
    angular_power_spectra,
    autocorrelation,
    bootstrap_interval,
    calibration,
    fourier_shell_correlation,
    frechet_distance,
    imagenet_features,
    inception_score,
    jackknife_interval,
    kernel_distance,
    log_ratio,
    manifold_scores,
    nearest_real,
    radial_power_spectra,
    student_interval,
    voxel_moments,
    weights_path,
)
from .models import C3D
from .particles.domains import Domains

EXAMPLES = 3  # volumes of each class whose central slices are kept for the figures
UNCERTAINTY_REPEATS = (5, 40)  # generations from one density: as the released code, and enough to see structure


def _with_interval(value: float, statistic: Callable[[np.ndarray], float], n: int) -> dict[str, float]:
    low, high = bootstrap_interval(statistic, n)
    return {"value": value, "low": low, "high": high}


def _manifold_metrics(scores: ManifoldScores, prefix: str) -> dict[str, dict[str, float]]:
    """The four numbers with intervals over resampled volumes; the balls stay as they are."""
    per_volume = {
        "precision": (scores.inside > 0).double(), "recall": scores.recalled.double(),
        "density": scores.inside.double() / scores.k, "coverage": scores.covered.double(),
    }  # fmt: skip
    return {
        f"{prefix}{name}": _with_interval(float(values.mean()), lambda i, v=values: float(v[i].mean()), len(values))
        for name, values in per_volume.items()
    }


def _imagenet_metrics(real: torch.Tensor, fake: torch.Tensor) -> dict[str, dict[str, float]]:
    """FID and IS on ImageNet features of slices, imagenet_fid and imagenet_is, as in the paper; empty where the weights are not at hand."""
    try:
        path = weights_path()
    except FileNotFoundError:
        return {}
    real_features, _ = imagenet_features(real, path)
    features, probabilities = imagenet_features(fake, path)
    slices = lambda i: np.concatenate([i, i + len(fake), i + 2 * len(fake)])  # noqa: E731  a volume is resampled with its three slices
    distance = lambda i: frechet_distance(real_features, features[slices(i)])  # noqa: E731
    score = lambda i: inception_score(probabilities[slices(i)])  # noqa: E731
    return {
        "imagenet_fid": _jackknifed(distance, len(fake), least=0.0),
        "imagenet_is": _with_interval(score(np.arange(len(fake))), score, len(fake)),
    }


def _jackknifed(statistic: Callable[[np.ndarray], float], n: int, least: float = -np.inf) -> dict[str, float]:
    """A statistic that repeated items would bias, with its jackknife interval, cut off at the `least` value it can take."""
    low, high = jackknife_interval(statistic, n, groups=min(20, n))
    return {"value": statistic(np.arange(n)), "low": max(low, least), "high": high}


def _two_sample(real: torch.Tensor, fake: torch.Tensor, resamples: int = 200) -> dict[str, float]:
    """Mean AUC of the folds of the two-sample test; both sets are resampled for the interval, the probes are not trained again."""
    folds, rng = two_sample_scores(real, fake), np.random.default_rng(0)
    drawn = [np.mean([auc(*(s[rng.integers(0, len(s), len(s))] for s in fold)) for fold in folds]) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": float(np.mean([auc(*fold) for fold in folds])), "low": float(low), "high": float(high)}


def _evenly(volumes: torch.Tensor, count: int) -> torch.Tensor:
    """`count` of `volumes`, evenly spaced, so that a set in the order of its classes keeps its mixture."""
    return volumes[torch.linspace(0, len(volumes) - 1, count).round().long()]


def _standardised(volumes: torch.Tensor) -> torch.Tensor:
    """Each of `volumes` (N, D, H, W) with mean 0 and standard deviation 1: its amplitude no longer counts."""
    flat = volumes.flatten(1)
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp(min=1e-12)


def told_apart(real: torch.Tensor, fake: torch.Tensor) -> dict[str, dict[str, float]]:
    """Metrics that need neither labels nor a trained classifier, of `fake` (M, D, D, D) against `real` (N, D, D, D): spectrum, angular, moments, autocorrelation and auc of `compare`."""
    real_spectrum, spectra = radial_power_spectra(real).mean(0), radial_power_spectra(fake)
    real_angular, angular = angular_power_spectra(real).mean(0), angular_power_spectra(fake)
    real_moments, moments = voxel_moments(real)[:, 1:], voxel_moments(fake)[:, 1:]
    moment_mean, moment_spread = real_moments.mean(0), real_moments.std(0)
    real_correlation, correlation = autocorrelation(real).mean(0), autocorrelation(fake)
    # Distances, which a bootstrap biases upwards: a resample lies farther from the truth than the sample, and repeated volumes shrink a covariance.
    distances = {
        "spectrum": lambda i: log_ratio(real_spectrum, spectra[i].mean(0)),
        "angular": lambda i: angular_log_ratio(real_angular, angular[i].mean(0)),
        "moments": lambda i: float(((moments[i].mean(0) - moment_mean) / moment_spread).square().mean().sqrt()),
        "autocorrelation": lambda i: float((correlation[i].mean(0) - real_correlation).square().mean().sqrt()),
    }
    metrics = {name: _jackknifed(f, len(fake), least=0.0) for name, f in distances.items()}
    return metrics | {"auc": _two_sample(real, fake)}


def compare(
    real: torch.Tensor, fake: torch.Tensor, labels: torch.Tensor, classifier: C3D, train: torch.Tensor | None = None
) -> tuple[dict, torch.Tensor]:
    """All metrics of `fake` (M, D, H, W) with wanted `labels` (M,) against `real` (N, D, H, W), and fake's confusion matrix.

    Names: psnr, precision, recall, density, coverage (raw voxels, k = 5), accuracy (%), feature_* (penultimate layer of the classifier), standardised_*
    (voxels of volumes scaled to mean 0 and s.d. 1 each), fid, kid, inception_score (of the classifier), imagenet_fid and imagenet_is where those weights are at hand, spectrum (log radial power), angular (log power over frequency and
    tilt), moments (s.d., skewness and kurtosis, in units of their spread between real volumes), autocorrelation (lags 1 to 3 along each axis), auc (can a fresh network tell them
    apart), and, where `train` holds real training volumes, nearest_train (share of `fake` nearer to one of them than to `real`).
    """
    n = min(len(real), len(fake))
    _, real_features = predict(classifier, real[:, None])
    probabilities, features = predict(classifier, fake[:, None])
    right = 100 * (probabilities.argmax(1) == labels).double()
    error = (_evenly(real, n).double() - _evenly(fake, n).double()).square().flatten(1).mean(1)
    # each statistic is a function of per-volume values of `fake`, so a resample costs no pass over voxels; `real` stays as it is
    statistics = {
        "psnr": (n, lambda i: -10 * float(error[i].mean().log10())),
        "accuracy": (len(right), lambda i: float(right[i].mean())),
        "inception_score": (len(features), lambda i: inception_score(probabilities[i])),
    }
    if train is not None:
        m = min(len(train), len(real))
        nearer = nearest_real(fake, _evenly(train, m), _evenly(real, m))
        statistics["nearest_train"] = (len(nearer), lambda i: float(nearer[i].mean()))
    metrics = {name: _with_interval(f(np.arange(m)), f, m) for name, (m, f) in statistics.items()}
    metrics |= told_apart(real, fake)
    metrics["fid"] = _jackknifed(lambda i: frechet_distance(real_features, features[i]), len(fake), least=0.0)
    metrics["kid"] = _jackknifed(lambda i: kernel_distance(real_features, features[i]), len(fake))
    metrics |= _imagenet_metrics(real, fake)
    metrics |= _manifold_metrics(manifold_scores(real, fake), "")
    metrics |= _manifold_metrics(manifold_scores(real_features, features), "feature_")
    metrics |= _manifold_metrics(manifold_scores(_standardised(real), _standardised(fake)), "standardised_")
    classes = classifier.logits.out_features
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    confusion.index_put_((labels, probabilities.argmax(1)), torch.ones_like(labels), accumulate=True)
    return metrics, confusion


def compare_repeats(recorded: torch.Tensor, generated: torch.Tensor) -> dict[str, dict[str, float]]:
    """Many generations of a density against many recordings of it in the same pose, both (C, R, D, H, W), one density a class.

    Names: molecule (Fourier shell correlation of the two averages, mean over shells to half the Nyquist frequency: is the molecule kept as the microscope shows it?),
    molecule_ceiling (what recordings reach against as many other recordings: that of two halves, stepped up by Spearman and Brown's 2c / (1 + c)), uncertainty_ratio
    (root mean square of recorded minus mean generated, over the generations' standard deviation and what their finite number adds: 1 where the map predicts the error) and uncertainty_rank (rank correlation of that
    error with the map). Intervals are over classes (Student's t).
    """
    shells, r = slice(1, recorded.shape[-1] // 4 + 1), generated.shape[1]
    # a new value against the mean and s.d. of r others, under a normal distribution
    finite = ((1 + 1 / r) * (r - 1) / (r - 3)) ** 0.5
    values: dict[str, list[float]] = {"molecule": [], "molecule_ceiling": [], "uncertainty_ratio": [], "uncertainty_rank": []}
    for real, fake in zip(recorded, generated, strict=True):
        values["molecule"].append(float(fourier_shell_correlation(fake.mean(0), real.mean(0))[shells].mean()))
        half = fourier_shell_correlation(real[::2].mean(0), real[1::2].mean(0))[shells]
        values["molecule_ceiling"].append(float((2 * half / (1 + half)).mean()))
        ratio, rank = calibration(fake.std(0).expand_as(real), real - fake.mean(0))
        values["uncertainty_ratio"].append(ratio / finite)
        values["uncertainty_rank"].append(rank)
    return {name: dict(zip(("value", "low", "high"), student_interval(v), strict=True)) for name, v in values.items()}


def spectra(volumes: torch.Tensor) -> dict[str, list]:
    """Mean "radial" and "angular" power spectrum of volumes (N, D, D, D), and the radial one's spread between volumes, as lists for a file."""
    radial = radial_power_spectra(volumes)
    angular = angular_power_spectra(volumes).mean(0)
    return {"radial": radial.mean(0).tolist(), "radial_std": radial.std(0).tolist(), "angular": angular.nan_to_num(-1).tolist()}


def floor(domains: Domains, classifier: C3D) -> dict[str, dict[str, float]]:
    """All metrics of REAL train subtomograms against the real test half, as many a class: what another sample of the same microscope scores.

    The classifier was trained on these volumes, so its accuracy and feature metrics here are a little kinder than an unseen sample's.
    """
    train = domains.volumes("Y_train")
    mean, std = train.mean(), train.std()
    labels, counts = domains.labels("Y_train"), domains.labels("Y_test").bincount(minlength=len(domains.classes))
    chosen = torch.cat([torch.where(labels == k)[0][: int(counts[k])] for k in range(len(domains.classes))])
    metrics, _ = compare((domains.volumes("Y_test") - mean) / std, (train[chosen] - mean) / std, labels[chosen], classifier)
    return metrics


def evaluate(
    run: TrainedRun, domains: Domains, classifier: C3D, *, recorded: torch.Tensor | None = None, seed: int = 0
) -> tuple[dict, dict[str, np.ndarray]]:
    """Metrics of a run on the test densities, and central slices for the figures.

    Parameters
    ----------
    recorded : (classes, R, D, H, W) subtomograms of the first test density of each class in its pose, where they can be had: adds `compare_repeats`.

    Returns
    -------
    numbers : {"metrics": ..., "confusion": ..., "real_confusion": ..., "real_accuracy": ...}, the last of the classifier on real test volumes.
    slices : name to array (classes, EXAMPLES, D, W): xy slices "density", "real", "generated", "restored" (F of a real volume),
        "cycled" (F of G of a density) and "density_xz", "generated_xz", "real_xz"; and "uncertainty_5", "uncertainty_40" (classes, 1, D, W) of the first density of each class.
    """
    real, labels = run.scaling.y(domains.volumes("Y_test")), domains.labels("X_test")
    fake = generate(run, domains.volumes("X_test"), seed=seed)
    train = run.scaling.y(domains.volumes("Y_train"))[:: max(1, len(domains.Y_train) // len(real))]
    metrics, confusion = compare(real, fake, labels, classifier, train)
    real_probabilities, _ = predict(classifier, real[:, None])
    real_labels = domains.labels("Y_test")
    right = (real_probabilities.argmax(1) == real_labels).double()
    real_confusion = torch.zeros_like(confusion)
    real_confusion.index_put_((real_labels, real_probabilities.argmax(1)), torch.ones_like(real_labels), accumulate=True)

    first = lambda which: torch.cat([torch.where(which == k)[0][:EXAMPLES] for k in range(len(domains.classes))])  # noqa: E731
    x_index, y_index = first(labels), first(real_labels)
    densities = domains.volumes("X_test")[x_index]
    volumes = {
        "density": densities, "generated": fake[x_index], "real": real[y_index],
        "restored": restore(run, real[y_index]), "cycled": restore(run, fake[x_index]),
    }  # fmt: skip
    middle, classes = real.shape[-1] // 2, len(domains.classes)
    slices = {name: v[:, middle] for name, v in volumes.items()}
    repeated = generate_repeats(run, densities[::EXAMPLES], repeats=max(UNCERTAINTY_REPEATS), seed=seed + 1)
    for repeats in UNCERTAINTY_REPEATS:
        slices[f"uncertainty_{repeats}"] = repeated[:, :repeats].std(1)[:, middle]
    if recorded is not None:
        metrics |= compare_repeats(run.scaling.y(recorded), repeated)
    slices |= {f"{name}_xz": volumes[name][:, :, middle] for name in ("density", "generated", "real")}
    numbers = {
        "classes": list(domains.classes),
        "voxel_size_A": domains.X_test.voxel_size_A,
        "metrics": metrics,
        "real_accuracy": _with_interval(100 * float(right.mean()), lambda i: 100 * float(right[i].mean()), len(right)),
        "density_ceiling": len(real) / 5,
        "spectra": {"real": spectra(real), "generated": spectra(fake)},
        "confusion": confusion.tolist(),
        "real_confusion": real_confusion.tolist(),
    }
    shaped = {k: v.reshape(classes, -1, *v.shape[1:]).numpy().astype(np.float32) for k, v in slices.items()}
    return numbers, shaped
