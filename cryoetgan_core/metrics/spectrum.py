"""Radial power spectra of volumes, and the distance between two sets by them."""

import torch


def radial_power_spectra(volumes: torch.Tensor) -> torch.Tensor:
    """Power of each of `volumes` (N, D, D, D) in shells of one Fourier voxel, (N, D/2); DC and the corners beyond Nyquist left out."""
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
