"""PSNR, and intervals over independent repeats."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats


def psnr(reference: torch.Tensor, volumes: torch.Tensor, peak: float = 1.0) -> float:
    """10 log10(peak^2 / mean squared error) in dB over all voxels of two equally shaped sets.

    The paper's column compares UNPAIRED z-scored volumes: two independent sets of unit variance give -3 dB, flat grey
    against them 0 dB.
    """
    if reference.shape != volumes.shape:
        raise ValueError(f"psnr: shapes {tuple(reference.shape)} and {tuple(volumes.shape)} differ.")
    error = (reference.double() - volumes.double()).square().mean()
    return float(10 * torch.log10(peak**2 / error))


def student_interval(
    values: Sequence[float], level: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float, float]:
    """Mean of independent values, and the ends of Student's interval of it, cut off at the `bounds` of the quantity.

    The ends of a single value are NaN.
    """
    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    low, high = (float(np.clip(end, *bounds)) for end in (mean - half, mean + half))
    return mean, low, high


def prediction_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values, and the ends between which another such value falls (Student's t); NaN for a single
    value.
    """
    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    half = (
        float(stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) * np.sqrt(1 + 1 / n)) if n > 1 else float("nan")
    )
    return mean, mean - half, mean + half
