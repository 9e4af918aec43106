"""What the grey values are like: moments, and how a voxel goes with its neighbours."""

import torch
from scipy import stats


def voxel_moments(volumes: torch.Tensor) -> torch.Tensor:
    """Mean, standard deviation, skewness and excess kurtosis (N, 4) of the voxels of each of `volumes` (N, D, H, W)."""
    v = volumes.double().flatten(1)
    mean = v.mean(1, keepdim=True)
    centred = v - mean
    std = centred.square().mean(1).sqrt().clamp(min=1e-300)
    skewness = centred.pow(3).mean(1) / std**3
    return torch.stack([mean[:, 0], std, skewness, centred.pow(4).mean(1) / std**4 - 3], 1)


def autocorrelation(volumes: torch.Tensor, lags: int = 3) -> torch.Tensor:
    """Correlation (N, 3, lags) of the voxels of each of `volumes` (N, D, H, W) with those 1 to `lags` further along z,
    y and x.
    """
    v = volumes.double()
    v = v - v.mean((1, 2, 3), keepdim=True)
    variance = v.square().mean((1, 2, 3)).clamp(min=1e-300)
    values = []
    for axis in (1, 2, 3):
        n = v.shape[axis]
        values.append(
            torch.stack(
                [
                    (v.narrow(axis, 0, n - k) * v.narrow(axis, k, n - k)).mean((1, 2, 3)) / variance
                    for k in range(1, lags + 1)
                ],
                1,
            )
        )
    return torch.stack(values, 1)


def nearest_real(fake: torch.Tensor, train: torch.Tensor, held_out: torch.Tensor) -> torch.Tensor:
    """Whether each of `fake` (M, ...) lies nearer to its nearest training volume than to its nearest held-out one, (M,)
    of 0 and 1.

    Memorising shows as a mean above the one that real volumes of a third set reach, which is 0.5 where the two sets are
    as large. Points are flattened, the distance is Euclidean; give `train` and `held_out` the same number, since more
    points are nearer.

    Raises ValueError when the two reference sets differ in number.
    """
    if len(train) != len(held_out):
        raise ValueError(
            f"nearest_real: {len(train)} training and {len(held_out)} held-out volumes; expected as many of each."
        )
    fake, train, held_out = (t.flatten(1).double() for t in (fake, train, held_out))
    nearest = [torch.cat([torch.cdist(rows, other).amin(1) for rows in fake.split(256)]) for other in (train, held_out)]
    return (nearest[0] < nearest[1]).double()


def calibration(deviation: torch.Tensor, error: torch.Tensor) -> tuple[float, float]:
    """How well predicted standard deviations (...) predict errors (...): two numbers.

    The root mean square of error / deviation, 1 where calibrated; and Spearman's rank correlation of |error| with the
    deviation, 0 where the map says nothing about where errors are large, NaN where it is constant.
    """
    ratio = float((error.double() / deviation.double().clamp(min=1e-12)).square().mean().sqrt())
    if deviation.min() == deviation.max():
        return ratio, float("nan")
    return ratio, float(stats.spearmanr(deviation.flatten().numpy(), error.abs().flatten().numpy())[0])
