"""Amplitude and sign of a transfer function T from the power and the third moments of noisy subtomograms.

Two things tell signal from noise: noise has the same power everywhere in a box while a particle is in the middle, and
the values of noise are symmetric about zero.
"""

import math

import torch

from .fourier_grid import RADII, Lookup

ENOUGH = 640  # subtomograms at most that power in space is measured from
PARTS = 8  # subsets of the subtomograms; their spread gives the standard error
PARTS_FOR_SIGNS = 32  # the same for third moments, whose distribution has heavier tails
LEAST_LOW = 3  # nodes at the lowest frequencies, where the sign of T does not change
DIP = 0.8  # |T| has a minimum, where a zero may be, if it falls below this share of its largest value before
SIGN_CHANGE = 6.0  # log likelihood ratio that each change of sign must gain
BEND = 0.3  # smoothness: expected second difference of |T| between nodes, as a share of its median


def hats(at: Lookup, size: int) -> torch.Tensor:
    """Weight (RADII, size) of each node of a radial table at each voxel, for linear interpolation."""
    return torch.zeros(RADII, size).scatter_add_(0, at.index.T, at.weight.T)


def power_in_space(volumes: torch.Tensor, bands: torch.Tensor, margin: int = 0, chunk: int = 64) -> torch.Tensor:
    """Mean square (K, W) of volumes (N, D, D, D) filtered by each of `bands` (K, V), over the voxels of their rfft.

    W are the voxels at least `margin` from the faces of the box. Nearer to them the filter, which is periodic, mixes in
    the opposite face.
    """
    n = volumes.shape[-1]
    inner = slice(margin, n - margin)
    total = torch.zeros(len(bands), (n - 2 * margin) ** 3)
    for part in volumes.split(chunk):
        spectra = torch.fft.rfftn(part, dim=(-3, -2, -1))
        for k, band in enumerate(bands.view(-1, n, n, n // 2 + 1)):
            filtered = torch.fft.irfftn(spectra * band, s=(n, n, n), dim=(-3, -2, -1))
            total[k] += filtered[:, inner, inner, inner].square().sum(0).flatten()
    return total / len(volumes)


def parts_in_space(y: torch.Tensor, bands: torch.Tensor, margin: int = 0) -> torch.Tensor:
    """`power_in_space` (P, K, W) of up to PARTS parts of at most ENOUGH subtomograms."""
    y = y[:: -(-len(y) // ENOUGH)]
    return torch.stack([power_in_space(y[i::PARTS], bands, margin) for i in range(min(PARTS, len(y)))])


def slopes(parts: torch.Tensor, made: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least-squares slope (K,) over the voxels of `parts` (P, K, W) on `made` (K, W), and its standard error.

    Noise has the same power everywhere in a box and adds a constant; a particle has not. So the slope is the power of
    the signal in the recorded volumes over that in `made`.
    """
    made = made.double() - made.double().mean(1, keepdim=True)
    slopes = ((parts * made).sum(2) / made.square().sum(1).clamp(min=1e-60)).float()
    slope = slopes.mean(0)
    return slope, slopes.std(0) / len(parts) ** 0.5 if len(parts) > 1 else slope.abs()


def level_by_power(parts: torch.Tensor, made: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """T (RADII,), its amplitude measured anew, at which the signal has the power that it has in the subtomograms; and
    the standard deviation.

    At the lowest frequency T is kept, and its sign is that of all. Where the error is large, the values at neighbouring
    frequencies decide (BEND).

    Parameters
    ----------
    parts, made : Tensor (P, RADII, W), (RADII, W)
        Power of the subtomograms, and that of the signal made with T = `level` (RADII,).
    """
    slope, error = slopes(parts, made)
    slope = slope.clamp(min=1e-2)
    found, sigma = level.abs() * slope.sqrt(), level.abs() * error / (2 * torch.maximum(slope, error).sqrt())
    found[0], sigma[0] = level[0].abs(), 0
    precision = 1 / (sigma.square() + (0.03 * found).square())
    bend = torch.diff(torch.eye(RADII), n=2, dim=0) / (BEND * found.median())
    covariance = torch.linalg.inv(torch.diag(precision) + bend.T @ bend)
    smooth = torch.maximum(covariance @ (precision * found), 0.01 * found.median())
    smooth[0] = found[0]
    return smooth * level[0].sign(), covariance.diag().sqrt()


def signs(
    level: torch.Tensor, y: torch.Tensor, signal: torch.Tensor, shells: torch.Tensor, uncorrected: bool = False
) -> torch.Tensor:
    """Sign (RADII,), 1 or -1, of T relative to its sign at low frequencies: beyond a zero of the CTF it changes, which
    the power does not show. All 1 for fewer than PARTS_FOR_SIGNS subtomograms.

    The mean over particles of (volume, low frequencies)^2 times (volume, a band of higher ones) is a third moment.
    Noise whose values are symmetric about zero adds nothing of its own, where the two have no frequency in common; with
    the signal it adds its power times the mean particle in the band, which has the sign of T as well. That of
    subtomograms `y` is compared with that of a `signal` whose T has one sign, (N, D, D, D).

    All sequences of signs over the K bands are compared by their log likelihood, bands taken as independent, and the
    best is taken. Each change of sign costs SIGN_CHANGE. If |T| has a minimum, though, the prior probability of one
    change there or beyond is one half, shared evenly by the K bands, so that the first change costs log K. Where nobody
    corrected the CTF (`uncorrected`), a change at that minimum or in the band beyond it gains SIGN_CHANGE instead: only
    strong moments speak against it, as where noise made the minimum.
    """
    sign, level = torch.ones(RADII), level.abs()
    if len(y) < PARTS_FOR_SIGNS:  # too few to tell
        return sign
    falls = (level[1:-1] < DIP * level.cummax(0).values[:-2]) & (level[1:-1] <= level[2:])
    falls[: LEAST_LOW - 1] = False
    # the bands below have the sign of the lowest
    first = int(torch.where(falls)[0][0]) + 1 if falls.any() else RADII // 2
    low = shells[:first].sum(0) * (shells[first:].sum(0) == 0)
    low[0] = 0  # the mean, which an offset changes
    recorded = torch.stack([_third_moment(y[i::PARTS_FOR_SIGNS], low, shells[first:]) for i in range(PARTS_FOR_SIGNS)])
    slope, error = slopes(recorded, _third_moment(signal, low, shells[first:]))
    z = slope / error.clamp(min=1e-12)
    gain = z * z.abs() / 4  # twice this is the log likelihood ratio of both signs, the amplitude unknown
    courses = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * (RADII - first))
    changes = (torch.diff(courses, dim=1, prepend=torch.ones(len(courses), 1)) != 0).sum(1)
    must_gain = SIGN_CHANGE * changes
    if falls.any() and uncorrected:
        must_gain = must_gain - 2 * SIGN_CHANGE * (courses[:, :2][:, -1] < 0)
    elif falls.any():
        must_gain = torch.where(changes > 0, must_gain - SIGN_CHANGE + math.log(RADII - first), 0.0)
    sign[first:] = courses[(courses @ gain - must_gain).argmax()]
    return sign


def _third_moment(volumes: torch.Tensor, low: torch.Tensor, bands: torch.Tensor, chunk: int = 64) -> torch.Tensor:
    """Mean (K, D^3), at each voxel, of the square of volumes (N, D, D, D) filtered by `low` (V,) times these filtered
    by each of `bands` (K, V), over the voxels of their rfft.
    """
    n = volumes.shape[-1]
    total = torch.zeros(len(bands), n**3)
    for part in volumes.split(chunk):
        spectra = torch.fft.rfftn(part, dim=(-3, -2, -1))
        squared = torch.fft.irfftn(spectra * low.view(n, n, -1), s=(n, n, n), dim=(-3, -2, -1)).square()
        for k, band in enumerate(bands.view(-1, n, n, n // 2 + 1)):
            total[k] += (squared * torch.fft.irfftn(spectra * band, s=(n, n, n), dim=(-3, -2, -1))).sum(0).flatten()
    return total / len(volumes)
