"""The six metrics of Table 2, FID, IS and the spectrum distance of a finished run, on the test halves, with intervals and floors.

Everything is measured on volumes in network units, by a classifier that never saw the test halves nor a generated volume.
"""

from collections.abc import Callable

import numpy as np
import torch

from .classification import predict
from .generation import TrainedRun, generate, restore, uncertainty
from .metrics import (
    ManifoldScores,
    bootstrap_interval,
    frechet_distance,
    inception_score,
    jackknife_interval,
    log_ratio,
    manifold_scores,
    radial_power_spectra,
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


def compare(real: torch.Tensor, fake: torch.Tensor, labels: torch.Tensor, classifier: C3D) -> tuple[dict, torch.Tensor]:
    """All metrics of `fake` (M, D, H, W) with wanted `labels` (M,) against `real` (N, D, H, W), and fake's confusion matrix.

    Names: psnr, precision, recall, density, coverage (raw voxels, k = 5), accuracy (%), feature_* (penultimate layer of the classifier),
    fid, inception_score (of the classifier), spectrum (log radial power distance).
    """
    n = min(len(real), len(fake))
    _, real_features = predict(classifier, real[:, None])
    probabilities, features = predict(classifier, fake[:, None])
    right = 100 * (probabilities.argmax(1) == labels).double()
    error = (real[:n].double() - fake[:n].double()).square().flatten(1).mean(1)
    real_spectrum, spectra = radial_power_spectra(real).mean(0), radial_power_spectra(fake)
    # each statistic is a function of per-volume values, so a resample costs no pass over voxels
    statistics = {
        "psnr": (n, lambda i: -10 * float(error[i].mean().log10())),
        "accuracy": (len(right), lambda i: float(right[i].mean())),
        "fid": (len(features), lambda i: frechet_distance(real_features, features[i])),
        "inception_score": (len(features), lambda i: inception_score(probabilities[i])),
        "spectrum": (len(spectra), lambda i: log_ratio(real_spectrum, spectra[i].mean(0))),
    }
    metrics = {name: _with_interval(f(np.arange(m)), f, m) for name, (m, f) in statistics.items()}
    m, f = statistics["fid"]  # a bootstrap repeats volumes, which biases a covariance
    metrics["fid"]["low"], metrics["fid"]["high"] = jackknife_interval(f, m, groups=min(20, m))
    metrics |= _manifold_metrics(manifold_scores(real, fake), "")
    metrics |= _manifold_metrics(manifold_scores(real_features, features), "feature_")
    classes = classifier.logits.out_features
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    confusion.index_put_((labels, probabilities.argmax(1)), torch.ones_like(labels), accumulate=True)
    return metrics, confusion


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


def evaluate(run: TrainedRun, domains: Domains, classifier: C3D, *, seed: int = 0) -> tuple[dict, dict[str, np.ndarray]]:
    """Metrics of a run on the test densities, and central slices for the figures.

    Returns
    -------
    numbers : {"metrics": ..., "confusion": ..., "real_confusion": ..., "real_accuracy": ...}, the last of the classifier on real test volumes.
    slices : name to array (classes, EXAMPLES, D, W): xy slices "density", "real", "generated", "restored" (F of a real volume),
        "cycled" (F of G of a density) and "density_xz", "generated_xz", "real_xz"; and "uncertainty_5", "uncertainty_40" (classes, 1, D, W) of the first density of each class.
    """
    real, labels = run.scaling.y(domains.volumes("Y_test")), domains.labels("X_test")
    fake = generate(run, domains.volumes("X_test"), seed=seed)
    metrics, confusion = compare(real, fake, labels, classifier)
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
    for repeats in UNCERTAINTY_REPEATS:
        slices[f"uncertainty_{repeats}"] = uncertainty(run, densities[::EXAMPLES], repeats=repeats, seed=seed + 1)[:, middle]
    slices |= {f"{name}_xz": volumes[name][:, :, middle] for name in ("density", "generated", "real")}
    numbers = {
        "classes": list(domains.classes),
        "voxel_size_A": domains.X_test.voxel_size_A,
        "metrics": metrics,
        "real_accuracy": _with_interval(100 * float(right.mean()), lambda i: 100 * float(right[i].mean()), len(right)),
        "density_ceiling": len(real) / 5,
        "confusion": confusion.tolist(),
        "real_confusion": real_confusion.tolist(),
    }
    shaped = {k: v.reshape(classes, -1, *v.shape[1:]).numpy().astype(np.float32) for k, v in slices.items()}
    return numbers, shaped
