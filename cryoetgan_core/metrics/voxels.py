"""PSNR, and the bootstrap that gives every number its interval."""

from collections.abc import Callable

import numpy as np
import torch


def psnr(reference: torch.Tensor, volumes: torch.Tensor, peak: float = 1.0) -> float:
    """10 log10(peak^2 / mean squared error) in dB over all voxels of two equally shaped sets.

    The paper's column compares UNPAIRED z-scored volumes: two independent sets of unit variance give -3 dB, flat grey against them 0 dB.
    """
    if reference.shape != volumes.shape:
        raise ValueError(f"psnr: shapes {tuple(reference.shape)} and {tuple(volumes.shape)} differ.")
    error = (reference.double() - volumes.double()).square().mean()
    return float(10 * torch.log10(peak**2 / error))


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], n: int, *, resamples: int = 200, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `statistic(indices)` over resamples, with replacement, of n items."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n)) for _ in range(resamples)]
    return tuple(float(q) for q in np.quantile(values, [(1 - level) / 2, (1 + level) / 2]))
