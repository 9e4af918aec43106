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
    log_spectrum_distance,
    manifold_scores,
    psnr,
)
from .models import C3D
from .particles.domains import Domains

EXAMPLES = 2  # volumes of each class whose central slices are kept for the figures


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
    right = (probabilities.argmax(1) == labels).double()
    metrics = {
        "psnr": _with_interval(
            psnr(real[:n], fake[:n]), lambda i: psnr(real[torch.as_tensor(i)], fake[torch.as_tensor(i)]), n
        ),
        **_manifold_metrics(manifold_scores(real, fake), ""),
        "accuracy": _with_interval(100 * float(right.mean()), lambda i: 100 * float(right[i].mean()), len(right)),
        **_manifold_metrics(manifold_scores(real_features, features), "feature_"),
        "fid": _with_interval(
            frechet_distance(real_features, features), lambda i: frechet_distance(real_features, features[i]), len(features)
        ),
        "inception_score": _with_interval(
            inception_score(probabilities), lambda i: inception_score(probabilities[i]), len(features)
        ),
        "spectrum": _with_interval(
            log_spectrum_distance(real, fake), lambda i: log_spectrum_distance(real, fake[torch.as_tensor(i)]), len(fake)
        ),
    }  # fmt: skip
    classes = classifier.logits.out_features
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    confusion.index_put_((labels, probabilities.argmax(1)), torch.ones_like(labels), accumulate=True)
    return metrics, confusion


def evaluate(run: TrainedRun, domains: Domains, classifier: C3D, *, seed: int = 0) -> tuple[dict, dict[str, np.ndarray]]:
    """Metrics of a run on the test densities, and central slices for the figures.

    Returns
    -------
    numbers : {"metrics": ..., "floor": ..., "confusion": ..., "real_confusion": ...}; the floor compares train with test subtomograms, so
        its accuracy is that of the classifier on real training volumes; "real_accuracy" is that on real test volumes.
    slices : name to array (classes, EXAMPLES, D, W): xy slices "density", "real", "generated", "uncertainty", "restored" (F of a real volume),
        "cycled" (F of G of a density) and "generated_xz", "real_xz".
    """
    real, labels = run.scaling.y(domains.volumes("Y_test")), domains.labels("X_test")
    fake = generate(run, domains.volumes("X_test"), seed=seed)
    metrics, confusion = compare(real, fake, labels, classifier)
    known, known_labels = run.scaling.y(domains.volumes("Y_train")), domains.labels("Y_train")
    chosen = torch.cat([torch.where(known_labels == k)[0][: int((labels == k).sum())] for k in range(len(domains.classes))])
    floor, _ = compare(real, known[chosen], known_labels[chosen], classifier)
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
        "uncertainty": uncertainty(run, densities, seed=seed + 1),
        "restored": restore(run, real[y_index]), "cycled": restore(run, fake[x_index]),
    }  # fmt: skip
    middle, classes = real.shape[-1] // 2, len(domains.classes)
    slices = {name: v[:, middle] for name, v in volumes.items()}
    slices |= {f"{name}_xz": volumes[name][:, :, middle] for name in ("density", "generated", "real")}
    numbers = {
        "classes": list(domains.classes),
        "voxel_size_A": domains.X_test.voxel_size_A,
        "metrics": metrics,
        "floor": floor,
        "real_accuracy": _with_interval(100 * float(right.mean()), lambda i: 100 * float(right[i].mean()), len(right)),
        "density_ceiling": len(real) / 5,
        "confusion": confusion.tolist(),
        "real_confusion": real_confusion.tolist(),
    }
    shaped = {k: v.reshape(classes, -1, *v.shape[1:]).numpy().astype(np.float32) for k, v in slices.items()}
    return numbers, shaped
