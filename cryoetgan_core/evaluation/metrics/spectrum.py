"""Radial power spectra of volumes, and the distance between two sets by them."""

import torch


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


def radial_power_spectrum(volumes: torch.Tensor) -> torch.Tensor:
    """Mean of `radial_power_spectra` over volumes (N, D, D, D): (D/2,)."""
    return radial_power_spectra(volumes).mean(0)


def log_spectrum_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Root mean square over shells of the natural log ratio of two mean radial power spectra (0.1 is about 10 %)."""
    return log_ratio(radial_power_spectrum(real), radial_power_spectrum(fake))


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
