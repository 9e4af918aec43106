"""Radial power spectra of volumes, and the distance between two sets by them."""

import torch


def radial_power_spectrum(volumes: torch.Tensor) -> torch.Tensor:
    """Mean power of volumes (N, D, D, D) in shells of one Fourier voxel, (D/2,), DC left out; the corners beyond Nyquist too."""
    n = volumes.shape[-1]
    power = torch.zeros(n, n, n // 2 + 1, dtype=torch.float64)
    for chunk in volumes.split(256):
        power += torch.fft.rfftn(chunk.double(), dim=(-3, -2, -1)).abs().square().sum(0).cpu()
    power /= len(volumes) * n**3
    q = torch.fft.fftfreq(n, 1 / n), torch.fft.rfftfreq(n, 1 / n)
    radius = (q[0][:, None, None] ** 2 + q[0][None, :, None] ** 2 + q[1][None, None, :] ** 2).sqrt().round().long()
    weight = torch.full_like(power, 2.0)
    weight[..., 0] = 1.0
    if n % 2 == 0:
        weight[..., -1] = 1.0
    shells = n // 2 + 1
    keep = radius < shells
    total = torch.zeros(shells, dtype=torch.float64).index_add_(0, radius[keep], (power * weight)[keep])
    count = torch.zeros(shells, dtype=torch.float64).index_add_(0, radius[keep], weight[keep])
    return (total / count)[1:]


def log_spectrum_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """Root mean square over shells of the natural log ratio of two mean radial power spectra (0.1 is about 10 %)."""
    floor = torch.finfo(torch.float64).tiny
    ratio = (radial_power_spectrum(fake) + floor).log() - (radial_power_spectrum(real) + floor).log()
    return float(ratio.square().mean().sqrt())
