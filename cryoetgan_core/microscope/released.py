"""The released code's own physical simulator, the baseline that the paper compares with (described in the paper's supplement and code)."""

import torch
from torch_ctf import calculate_ctf_1d


def wedge_mask(box: int, half_angle_deg: float = 30.0, device: torch.device | None = None) -> torch.Tensor:
    """Fourier mask (box, box, box/2 + 1), rfft layout: 0 within `half_angle_deg` of the beam (z) in the (z, x) plane, else 1."""
    kz = torch.fft.fftfreq(box, device=device)[:, None, None]
    kx = torch.fft.rfftfreq(box, device=device)[None, None, :]
    inside = kx.abs() < kz.abs() * torch.tan(torch.deg2rad(torch.tensor(half_angle_deg)))
    return (~inside).float().expand(box, box, -1)


def released_simulator(
    densities: torch.Tensor,
    voxel_size_A: float,
    snr: float,
    generator: torch.Generator,
    *,
    defocus_um: float = 6.0,
    voltage_kV: float = 300.0,
    cs_mm: float = 2.7,
    wedge_half_angle_deg: float = 30.0,
) -> torch.Tensor:
    """Subtomograms (B, N, N, N) from densities: CTF on the volume, Gaussian noise at an SNR, wedge mask.

    The SNR is the variance of the CTF-convolved volume over that of the noise, before the wedge. Pure phase contrast; the envelope is
    exp(-(q / 0.4)^2) with q in units of the Nyquist frequency.
    """
    n = densities.shape[-1]
    q = [torch.fft.fftfreq(n, device=densities.device)] * 2 + [torch.fft.rfftfreq(n, device=densities.device)]
    radius = (q[0][:, None, None] ** 2 + q[1][None, :, None] ** 2 + q[2][None, None, :] ** 2).sqrt()
    samples = 1024
    curve = calculate_ctf_1d(
        defocus=defocus_um, voltage=voltage_kV, spherical_aberration=cs_mm, amplitude_contrast=0.0, phase_shift=0.0,
        pixel_size=voxel_size_A, n_samples=samples, oversampling_factor=1,
    )  # fmt: skip
    index = (radius / 0.5 * (samples - 1)).round().long()
    ctf = torch.where(radius <= 0.5, curve[index.clamp(max=samples - 1)], 0.0) * torch.exp(-((radius / (0.4 * 0.5)) ** 2))
    spectra = torch.fft.rfftn(densities, dim=(-3, -2, -1))
    signal = torch.fft.irfftn(spectra * ctf, s=(n,) * 3, dim=(-3, -2, -1))
    sigma = (signal.var(dim=(-3, -2, -1), keepdim=True) / snr).sqrt()
    noise = torch.randn(signal.shape, generator=generator, device=signal.device) * sigma
    spectra = torch.fft.rfftn(signal + noise, dim=(-3, -2, -1)) * wedge_mask(n, wedge_half_angle_deg, signal.device)
    return torch.fft.irfftn(spectra, s=(n,) * 3, dim=(-3, -2, -1))
