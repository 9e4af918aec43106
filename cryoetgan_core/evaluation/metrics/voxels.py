"""Intervals over independent repeats."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


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
