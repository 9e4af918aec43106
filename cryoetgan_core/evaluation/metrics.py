"""Metrics: pure functions of volumes or features. Tested against prdc, scikit-learn and scipy.

Fourier shell correlation: Harauz and van Heel 1986. Frechet distance: Heusel et al. 2017. Inception Score: Salimans et
al. 2016. Precision and recall: Kynkaanniemi et al. 2019; density and coverage: Naeem et al. 2020 (doi
10.48550/arXiv.2002.09797).
"""

from collections.abc import Sequence

import numpy as np
import scipy
import torch

CHUNK = 512  # rows of a distance matrix held at once
# power, in units of the variance of the voxels, below which a frequency does not count: files may be low-passed
FLOOR = 1e-3


def fourier_shell_correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Correlation (N // 2 + 1,) of two volumes (N, N, N) in shells of one Fourier voxel; shell i lies at i / (N voxel
    size).

    Raises ValueError when the volumes are not two equal cubes.
    """
    if a.shape != b.shape or a.ndim != 3 or len(set(a.shape)) != 1:
        raise ValueError(
            f"fourier_shell_correlation: volumes {tuple(a.shape)} and {tuple(b.shape)}; expected two equal cubes."
        )
    n = a.shape[-1]
    f, h = torch.fft.fftfreq(n, 1 / n), torch.fft.rfftfreq(n, 1 / n)
    shell = (f[:, None, None] ** 2 + f[:, None] ** 2 + h**2).sqrt().round().long()
    weight = torch.where((h == 0) | (2 * h == n), 1.0, 2.0).double().expand(n, n, -1)  # the others stand for both signs
    keep = shell <= n // 2
    fa, fb = torch.fft.rfftn(a.double()), torch.fft.rfftn(b.double())

    def summed(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(n // 2 + 1, dtype=torch.float64).index_add_(0, shell[keep], (values * weight)[keep])

    power = summed(fa.abs() ** 2) * summed(fb.abs() ** 2)
    return summed((fa * fb.conj()).real) / power.sqrt().clamp(min=1e-300)


def resolution_A(fsc: torch.Tensor, voxel_size_A: float, threshold: float = 0.5) -> float:
    """Resolution in angstrom of the last shell before the curve first falls below `threshold`; infinite where it starts
    below.

    The edge of the volumes is taken to be even.
    """
    below = (fsc[1:] < threshold).nonzero()
    last = int(below[0]) if len(below) else len(fsc) - 1
    return 2 * (len(fsc) - 1) * voxel_size_A / last if last else float("inf")


def _features(name: str, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sets in double precision. Raises ValueError if one has fewer than two points or the widths differ."""
    if min(len(real), len(fake)) < 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"{name}: features {tuple(real.shape)} and {tuple(fake.shape)}: expected (N, C), (M, C), N and M > 1."
        )
    return real.double(), fake.double()


def frechet_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """|mu_r - mu_f|^2 + Tr(C_r + C_f - 2 (C_r C_f)^(1/2)) of features (N, C) and (M, C).

    Raises ValueError if a set has fewer than two points or the widths differ.
    """
    real, fake = _features("frechet_distance", real, fake)
    mean = (real.mean(0) - fake.mean(0)).square().sum()
    c_real, c_fake = real.T.cov(), fake.T.cov()
    # The product of two covariances has real, non-negative eigenvalues: their roots sum to the trace of its root.
    roots = torch.linalg.eigvals(c_real @ c_fake).real.clamp(min=0).sqrt().sum()
    return float(mean + c_real.trace() + c_fake.trace() - 2 * roots)


def inception_score(probabilities: torch.Tensor) -> float:
    """exp(E[KL(p(class | volume) || p(class))]) of class probabilities (N, classes): 1 to the number of classes."""
    p = probabilities.double().clamp(min=1e-12)
    return float((p * (p.log() - p.mean(0).log())).sum(1).mean().exp())


def kernel_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """KID of Binkowski et al. 2018 (arXiv 1801.01401) of features (N, C) and (M, C): kernel (x . y / C + 1)^3, diagonal
    left out.

    Unbiased at any number of volumes, so that it may fall below 0 for equal distributions; a Frechet distance is not.

    Raises ValueError if a set has fewer than two points or the widths differ.
    """
    real, fake = _features("kernel_distance", real, fake)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: torch.Tensor) -> torch.Tensor:
        k = kernel(a, a)
        return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())


def _kth_neighbour(points: torch.Tensor, k: int) -> torch.Tensor:
    """Distance (N,) from each of `points` (N, C) to its k-th nearest other point."""
    # cdist of a row with itself is 0: the k-th neighbour is the (k+1)-th smallest
    return torch.cat([torch.cdist(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(CHUNK)])


def manifold_scores(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> dict[str, float]:
    """Compare `fake` (M, ...) with `real` (N, ...), each flattened to points. A ball reaches to its point's k-th
    neighbour.

    precision: share of generated points inside some real ball; recall: of real ones inside some generated ball;
    density: mean number of real balls round a generated point, over k (saturates at N / k); coverage: share of real
    balls that hold a generated point.

    Raises ValueError if either set has no more than k points or the two differ in shape.
    """
    if min(len(real), len(fake)) <= k or real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"manifold_scores: real {tuple(real.shape)} and fake {tuple(fake.shape)}: expected equal points, over {k} "
            "each."
        )
    real, fake = real.flatten(1).double(), fake.flatten(1).double()
    real_radius, fake_radius = _kth_neighbour(real, k), _kth_neighbour(fake, k)
    inside_real, recalled, covered = [], [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows in fake.split(CHUNK):
        distance = torch.cdist(rows, real)
        inside = distance < real_radius
        inside_real.append(inside.sum(dim=1))
        covered |= inside.any(dim=0)
    for rows in real.split(CHUNK):
        recalled.append((torch.cdist(rows, fake) < fake_radius).any(dim=1))
    inside = torch.cat(inside_real)
    means = {
        "precision": inside > 0,
        "recall": torch.cat(recalled),
        "density": inside.double() / k,
        "coverage": covered,
    }
    return {name: float(values.double().mean()) for name, values in means.items()}


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
    return ratio, float(scipy.stats.spearmanr(deviation.flatten().numpy(), error.abs().flatten().numpy())[0])


def radial_power_spectra(volumes: torch.Tensor) -> torch.Tensor:
    """Power of each of `volumes` (N, D, D, D) in shells of one Fourier voxel, (N, D/2); DC and the corners beyond
    Nyquist left out.
    """
    n = volumes.shape[-1]
    q = torch.fft.fftfreq(n, 1 / n), torch.fft.rfftfreq(n, 1 / n)
    radius = (q[0][:, None, None] ** 2 + q[0][None, :, None] ** 2 + q[1][None, None, :] ** 2).sqrt().round().long()
    weight = torch.full((n, n, n // 2 + 1), 2.0, dtype=torch.float64)
    weight[..., 0] = 1.0
    if n % 2 == 0:
        weight[..., -1] = 1.0
    shells = n // 2 + 1
    keep = radius < shells
    count = torch.zeros(shells, dtype=torch.float64).index_add_(0, radius[keep], weight[keep])
    spectra = []
    for chunk in volumes.split(64):
        power = torch.fft.rfftn(chunk.double().cpu(), dim=(-3, -2, -1), norm="ortho").abs().square() * weight
        total = torch.zeros(len(chunk), shells, dtype=torch.float64).index_add_(1, radius[keep], power[:, keep])
        spectra.append((total / count)[:, 1:])
    return torch.cat(spectra)


def log_spectrum_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Root mean square over shells of the natural log ratio of two mean radial power spectra (0.1 is about 10 %)."""
    return log_ratio(radial_power_spectra(real).mean(0), radial_power_spectra(fake).mean(0))


def log_ratio(real_spectrum: torch.Tensor, fake_spectrum: torch.Tensor) -> float:
    """Root mean square of the log ratio of two spectra."""
    floor = torch.finfo(torch.float64).tiny
    return float(((fake_spectrum + floor).log() - (real_spectrum + floor).log()).square().mean().sqrt())


def angular_power_spectra(volumes: torch.Tensor, radial_bins: int = 8, angular_bins: int = 12) -> torch.Tensor:
    """Power of each of `volumes` (N, D, D, D) over spatial frequency and the tilt whose slice passes there, (N,
    radial_bins, angular_bins).

    The tilt axis is y, the beam z: the tilt of a Fourier voxel is atan2(-kz, kx), from -90 to 90 degrees in equal bins,
    so that the missing wedge fills the bins at both ends. Radial bins are equal parts of the range to Nyquist. Voxels
    within one of the tilt axis belong to every tilt and are left out.
    """
    n = volumes.shape[-1]
    f, h = torch.fft.fftfreq(n, 1 / n), torch.fft.rfftfreq(n, 1 / n)
    kz, ky, kx = torch.meshgrid(f, f, h, indexing="ij")
    radius = (kz**2 + ky**2 + kx**2).sqrt()
    tilt = torch.rad2deg(torch.atan2(-kz, kx))
    tilt = (tilt + 90).remainder(180) - 90
    keep = (radius <= n / 2) & ((kz**2 + kx**2) > 1)
    shell = (radius / (n / 2) * radial_bins).long().clamp(max=radial_bins - 1)
    index = (shell * angular_bins + ((tilt + 90) / 180 * angular_bins).long().clamp(max=angular_bins - 1))[keep]
    count = torch.zeros(radial_bins * angular_bins, dtype=torch.float64).index_add_(
        0, index, torch.ones(len(index), dtype=torch.float64)
    )
    spectra = []
    for chunk in volumes.split(64):
        power = torch.fft.rfftn(chunk.double().cpu(), dim=(-3, -2, -1), norm="ortho").abs().square()
        total = torch.zeros(len(chunk), len(count), dtype=torch.float64).index_add_(1, index, power[:, keep])
        spectra.append(
            torch.where(count > 0, total / count.clamp(min=1), torch.nan).view(len(chunk), radial_bins, angular_bins)
        )
    return torch.cat(spectra)


def angular_log_ratio(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Root mean square of the log ratio of two mean angular spectra (radial, angular), empty bins left out."""
    filled = ~(real.isnan() | fake.isnan())
    return log_ratio(real[filled], fake[filled])


def student_interval(
    values: Sequence[float], bounds: tuple[float, float] = (-np.inf, np.inf), of_next: bool = False
) -> tuple[float, float, float]:
    """Mean of independent values, and the ends of Student's 95 % interval of it, or, `of_next`, of another such value;
    cut off at the `bounds` of the quantity.

    The ends of a single value are NaN.
    """
    values = np.asarray(values, dtype=float)
    mean, n = float(values.mean()), len(values)
    half = float(scipy.stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    half *= np.sqrt(n + 1) if of_next else 1
    low, high = (float(np.clip(end, *bounds)) for end in (mean - half, mean + half))
    return mean, low, high


def moments_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Root mean square difference of the mean standard deviation, skewness and kurtosis of volumes (N, D, D, D), in
    units of their spread between real volumes.
    """
    wanted, found = voxel_moments(real)[:, 1:], voxel_moments(fake)[:, 1:]
    return float(((found.mean(0) - wanted.mean(0)) / wanted.std(0)).square().mean().sqrt())


def distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """How far volumes `fake` (M, D, D, D) are from real ones (N, D, D, D), by which measured noise or real background
    is chosen on real volumes held out from the train half; fixed before any result was seen.

    The root mean square log ratio of their power over frequency and tilt, and `moments_distance`: both cheap and
    without a trained network.
    """
    angular = angular_log_ratio(
        angular_power_spectra(real).mean(0) + FLOOR, angular_power_spectra(fake).mean(0) + FLOOR
    )
    return angular + moments_distance(real, fake)
