"""All metrics of a finished run on the test halves, and the same metrics of any other set of volumes, as floor or
control.

Everything is measured on volumes in network units, by a classifier that never saw the test halves nor a generated
volume. A metric is one number a run: its uncertainty is the spread over runs of other data draws and training seeds,
which the tables take.
"""

import numpy as np
import torch

from ..generation import TrainedRun, generate, generate_repeats, restore
from ..models import C3D
from ..volumes.domains import Domains
from .classification import auc, predict, two_sample_scores
from .metrics import (
    angular_log_ratio,
    angular_power_spectra,
    autocorrelation,
    calibration,
    fourier_shell_correlation,
    frechet_distance,
    inception_score,
    kernel_distance,
    log_ratio,
    manifold_scores,
    moments_distance,
    nearest_real,
    radial_power_spectra,
)

EXAMPLES = 3  # volumes of each class whose central slices are kept for the figures


def _evenly(volumes: torch.Tensor, count: int) -> torch.Tensor:
    """`count` of `volumes`, evenly spaced, so that a set in the order of its classes keeps its mixture."""
    return volumes[torch.linspace(0, len(volumes) - 1, count).round().long()]


def _standardised(volumes: torch.Tensor) -> torch.Tensor:
    """Each of `volumes` (N, D, H, W) with mean 0 and standard deviation 1: its amplitude no longer counts."""
    flat = volumes.flatten(1)
    return (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True).clamp(min=1e-12)


def told_apart(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """`distances`, and auc of `compare`: nothing here needs labels."""
    return distances(real, fake) | {"auc": network_auc(real, fake)}


def network_auc(real: torch.Tensor, fake: torch.Tensor) -> float:
    """How well a network tells `fake` from `real`: mean over the folds of `two_sample_scores`."""
    return float(np.mean([auc(*fold) for fold in two_sample_scores(real, fake)]))


def distances(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """Metrics that need no network, of `fake` (M, D, D, D) against `real` (N, D, D, D).

    Names: spectrum, angular, moments and autocorrelation of `compare`.
    """
    lags = autocorrelation(fake).mean(0) - autocorrelation(real).mean(0)
    return {
        "spectrum": log_ratio(radial_power_spectra(real).mean(0), radial_power_spectra(fake).mean(0)),
        "angular": angular_log_ratio(angular_power_spectra(real).mean(0), angular_power_spectra(fake).mean(0)),
        "moments": moments_distance(real, fake),
        "autocorrelation": float(lags.square().mean().sqrt()),
    }


def compare(
    real: torch.Tensor, fake: torch.Tensor, labels: torch.Tensor, classifier: C3D, train: torch.Tensor | None = None
) -> tuple[dict[str, float], torch.Tensor]:
    """All metrics of `fake` (M, D, H, W) with wanted `labels` (M,) against `real` (N, D, H, W), and fake's confusion
    matrix.

    Names: psnr, precision, recall, density, coverage (raw voxels, k = 5), accuracy (%), feature_* (penultimate layer of
    the classifier), standardised_* (voxels of volumes scaled to mean 0 and s.d. 1 each), fid, kid, inception_score (of
    the classifier), spectrum (log radial power), angular (log power over frequency and tilt), moments (s.d., skewness
    and kurtosis, in units of their spread between real volumes), autocorrelation (lags 1 to 3 along each axis), auc
    (can a fresh network tell them apart), and, where `train` holds real training volumes, nearest_train (share of
    `fake` nearer to one of them than to `real`).
    """
    n = min(len(real), len(fake))
    _, real_features = predict(classifier, real[:, None])
    probabilities, features = predict(classifier, fake[:, None])
    metrics = {
        "psnr": -10 * float((_evenly(real, n).double() - _evenly(fake, n).double()).square().mean().log10()),
        "accuracy": 100 * float((probabilities.argmax(1) == labels).double().mean()),
        "inception_score": inception_score(probabilities),
    }
    if train is not None:
        m = min(len(train), len(real))
        metrics["nearest_train"] = float(nearest_real(fake, _evenly(train, m), _evenly(real, m)).double().mean())
    metrics |= told_apart(real, fake)
    metrics |= {"fid": frechet_distance(real_features, features), "kid": kernel_distance(real_features, features)}
    compared = {"": (real, fake), "feature_": (real_features, features)}
    compared["standardised_"] = (_standardised(real), _standardised(fake))
    for kind, pair in compared.items():
        metrics |= {f"{kind}{name}": value for name, value in manifold_scores(*pair).items()}
    return metrics, confusion_of(labels, probabilities)


def confusion_of(labels: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """How many of each class (rows) are taken for each (columns), (C, C), of probabilities (N, C)."""
    classes = probabilities.shape[1]
    taken_for = labels * classes + probabilities.argmax(1)
    return taken_for.bincount(minlength=classes**2).view(classes, classes)


def compare_repeats(recorded: torch.Tensor, generated: torch.Tensor) -> dict[str, float]:
    """Many generations of a density against many recordings of it in the same pose, both (C, R, D, H, W), one density a
    class.

    Names, each a mean over classes: molecule (Fourier shell correlation of the two averages, mean over shells to half
    the Nyquist frequency), molecule_ceiling (what recordings reach against as many other recordings: that of two
    halves, stepped up by Spearman and Brown's 2c / (1 + c)), uncertainty_ratio (root mean square of recorded minus mean
    generated, over the generations' standard deviation and what their finite number adds: 1 where the map predicts the
    error) and uncertainty_rank (rank correlation of that error with the map).
    """
    shells, r = slice(1, recorded.shape[-1] // 4 + 1), generated.shape[1]
    # a new value against the mean and s.d. of r others, under a normal distribution
    finite = ((1 + 1 / r) * (r - 1) / (r - 3)) ** 0.5
    values: dict[str, list[float]] = {
        "molecule": [],
        "molecule_ceiling": [],
        "uncertainty_ratio": [],
        "uncertainty_rank": [],
    }
    for real, fake in zip(recorded, generated, strict=True):
        values["molecule"].append(float(fourier_shell_correlation(fake.mean(0), real.mean(0))[shells].mean()))
        half = fourier_shell_correlation(real[::2].mean(0), real[1::2].mean(0))[shells]
        values["molecule_ceiling"].append(float((2 * half / (1 + half)).mean()))
        ratio, rank = calibration(fake.std(0).expand_as(real), real - fake.mean(0))
        values["uncertainty_ratio"].append(ratio / finite)
        values["uncertainty_rank"].append(rank)
    return {name: float(np.mean(found)) for name, found in values.items()}


def spectra(volumes: torch.Tensor) -> dict[str, list]:
    """Mean "radial" and "angular" power spectrum of volumes (N, D, D, D), and the radial one's spread between volumes,
    as lists for a file.
    """
    radial = radial_power_spectra(volumes)
    angular = angular_power_spectra(volumes).mean(0)
    return {
        "radial": radial.mean(0).tolist(),
        "radial_std": radial.std(0).tolist(),
        "angular": angular.nan_to_num(-1).tolist(),
    }


def floor(domains: Domains, redrawn: torch.Tensor, classifier: C3D) -> dict[str, float]:
    """All metrics of `redrawn` real subtomograms, raw and in the order of Y_test's labels, against the real test half.

    This is what a perfect generator scores: another draw of the same microscope, whose tomograms neither half holds.
    """
    train = domains.volumes("Y_train")
    mean, std = train.mean(), train.std()
    real, labels = (domains.volumes("Y_test") - mean) / std, domains.labels("Y_test")
    few = ((train - mean) / std)[:: max(1, len(train) // len(real))]
    metrics, _ = compare(real, (redrawn - mean) / std, labels, classifier, few)
    return metrics


def evaluate(
    run: TrainedRun, domains: Domains, classifier: C3D, *, recorded: torch.Tensor | None = None, seed: int = 0
) -> tuple[dict, dict[str, np.ndarray]]:
    """Metrics of a run on the test densities, and central slices for the figures.

    Parameters
    ----------
    recorded
        (classes, R, D, H, W) subtomograms of the first test density of each class in its pose, where they can be had:
        adds `compare_repeats` with R generations.

    Returns
    -------
    numbers
        {"metrics": ..., "confusion": ..., "real_confusion": ..., "real_accuracy": ...}, the last of the classifier on
        real test volumes.
    slices
        name to array (classes, EXAMPLES, D, W): xy slices "density", "real", "generated", "restored" (F of a real
        volume), "cycled" (F of G of a density) and "density_xz", "generated_xz", "real_xz".
    """
    real, labels = run.scaling.y(domains.volumes("Y_test")), domains.labels("X_test")
    fake = generate(run, domains.volumes("X_test"), seed=seed)
    train = run.scaling.y(domains.volumes("Y_train"))[:: max(1, len(domains.Y_train) // len(real))]
    metrics, confusion = compare(real, fake, labels, classifier, train)
    real_probabilities, _ = predict(classifier, real[:, None])
    real_labels = domains.labels("Y_test")
    right = 100 * float((real_probabilities.argmax(1) == real_labels).double().mean())
    real_confusion = confusion_of(real_labels, real_probabilities)
    classes = range(len(domains.classes))
    x_index, y_index = (
        torch.cat([torch.where(which == k)[0][:EXAMPLES] for k in classes]) for which in (labels, real_labels)
    )
    densities = domains.volumes("X_test")[x_index]
    volumes = {
        "density": densities, "generated": fake[x_index], "real": real[y_index],
        "restored": restore(run, real[y_index]), "cycled": restore(run, fake[x_index]),
    }  # fmt: skip
    middle = real.shape[-1] // 2
    slices = {name: v[:, middle] for name, v in volumes.items()}
    if recorded is not None:
        repeated = generate_repeats(run, densities[::EXAMPLES], repeats=recorded.shape[1], seed=seed + 1)
        metrics |= compare_repeats(run.scaling.y(recorded), repeated)
    slices |= {f"{name}_xz": volumes[name][:, :, middle] for name in ("density", "generated", "real")}
    numbers = {
        "classes": list(domains.classes),
        "voxel_size_A": domains.X_test.voxel_size_A,
        "metrics": metrics,
        "real_accuracy": right,
        "density_ceiling": len(real) / 5,
        "spectra": {"real": spectra(real), "generated": spectra(fake)},
        "confusion": confusion.tolist(),
        "real_confusion": real_confusion.tolist(),
    }
    shaped = {k: v.reshape(len(classes), -1, *v.shape[1:]).numpy().astype(np.float32) for k, v in slices.items()}
    return numbers, shaped
