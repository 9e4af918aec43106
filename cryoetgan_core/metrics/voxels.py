"""PSNR, and the resampling that gives every number its interval."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats


def psnr(reference: torch.Tensor, volumes: torch.Tensor, peak: float = 1.0) -> float:
    """10 log10(peak^2 / mean squared error) in dB over all voxels of two equally shaped sets.

    The paper's column compares UNPAIRED z-scored volumes: two independent sets of unit variance give -3 dB, flat grey against them 0 dB.
    """
    if reference.shape != volumes.shape:
        raise ValueError(f"psnr: shapes {tuple(reference.shape)} and {tuple(volumes.shape)} differ.")
    error = (reference.double() - volumes.double()).square().mean()
    return float(10 * torch.log10(peak**2 / error))


def student_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values, and the ends of Student's interval of it; the ends of a single value are NaN."""
    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return mean, mean - half, mean + half


def jackknife_interval(
    statistic: Callable[[np.ndarray], float], n: int, *, groups: int = 20, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval value +- t s.e. of `statistic(indices)`, s.e. by deleting one of `groups` random groups of the n items at a time.

    For statistics that resampling with replacement biases, such as a Frechet distance: repeated items shrink a covariance.
    """
    order = np.array_split(np.random.default_rng(seed).permutation(n), groups)
    values = np.array([statistic(np.sort(np.concatenate(order[:g] + order[g + 1 :]))) for g in range(groups)])
    error = np.sqrt((groups - 1) / groups * np.square(values - values.mean()).sum())
    half = stats.t.ppf((1 + level) / 2, groups - 1) * error
    value = statistic(np.arange(n))
    return float(value - half), float(value + half)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], n: int, *, resamples: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `statistic(indices)` over resamples, with replacement, of n items."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n)) for _ in range(resamples)]
    return tuple(float(q) for q in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
