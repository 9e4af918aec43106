"""The released code's own physical simulator, the baseline that the paper compares with (described in the paper's
supplement and code).
"""

import torch
from torch_ctf import calculate_ctf_1d


def wedge_mask(box: int, half_angle_deg: float = 30.0, device: torch.device | None = None) -> torch.Tensor:
    """Fourier mask (box, box, box/2 + 1), rfft layout: 0 within `half_angle_deg` of the beam (z) in the (z, x) plane,
    else 1.
    """
    kz = torch.fft.fftfreq(box, device=device)[:, None, None]
    kx = torch.fft.rfftfreq(box, device=device)[None, None, :]
    inside = kx.abs() < kz.abs() * torch.tan(torch.deg2rad(torch.tensor(half_angle_deg)))
    return (~inside).float().expand(box, box, -1)


def _low_pass(pixels: torch.Tensor, radius: float, fall: float) -> torch.Tensor:
    """1 up to `radius`, then exp(-((k - radius) / fall)^2), cut off at exp(-3); all in Fourier pixels."""
    beyond = torch.exp(-(((pixels - radius) / fall) ** 2))
    return torch.where(pixels <= radius, 1.0, torch.where(beyond < torch.exp(torch.tensor(-3.0)), 0.0, beyond))


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
    """Subtomograms (B, N, N, N) from densities (B, N, N, N), as xulabs/aitom's reconstruction by "simple convolution"
    makes them; the beam is z, protein bright.

    Density and half of the noise are low-passed and convolved with one CTF; the other half, of low frequencies, is
    added; a low-pass and the wedge end it. The low-pass begins at (N / 8) / (Nyquist frequency in 1/nm) Fourier pixels:
    no effect in a large voxel. The CTF is pure phase contrast under exp(-(q / 0.4)^2) with q in units of the Nyquist
    frequency. Noise is set volume by volume: the SNR is the variance of the density behind CTF and wedge over that of
    both halves of white noise behind the same.
    """
    n, device = densities.shape[-1], densities.device
    q = [torch.fft.fftfreq(n, device=device)] * 2 + [torch.fft.rfftfreq(n, device=device)]
    radius = (q[0][:, None, None] ** 2 + q[1][None, :, None] ** 2 + q[2][None, None, :] ** 2).sqrt()
    samples = 1024
    curve = calculate_ctf_1d(
        defocus=defocus_um, voltage=voltage_kV, spherical_aberration=cs_mm, amplitude_contrast=0.0, phase_shift=0.0,
        pixel_size=voxel_size_A, n_samples=samples, oversampling_factor=1,
    ).to(device)  # fmt: skip
    index = (radius / 0.5 * (samples - 1)).round().long()
    ctf = torch.where(radius <= 0.5, curve[index.clamp(max=samples - 1)], 0.0) * torch.exp(
        -((radius / (0.4 * 0.5)) ** 2)
    )
    wedge = wedge_mask(n, wedge_half_angle_deg, device)
    spectra = torch.fft.rfftn(densities, dim=(-3, -2, -1))

    def volumes(transformed: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfftn(transformed, s=(n,) * 3, dim=(-3, -2, -1))

    passed = volumes(ctf * wedge).square().sum()  # share of white noise that gets through
    variance = volumes(spectra * ctf * wedge).var(dim=(-3, -2, -1), keepdim=True) / passed / snr
    white = (variance / 2).sqrt() * torch.randn((2, *densities.shape), generator=generator).to(device)
    before, after = torch.fft.rfftn(white, dim=(-3, -2, -1))
    nyquist_per_nm = 10 / (2 * voxel_size_A)
    low_pass = _low_pass(radius * n, (n / 8) // nyquist_per_nm, 2.0)
    return volumes(
        ((spectra * low_pass + before) * ctf + after * _low_pass(radius * n, 1.0, 0.2 * n)) * low_pass * wedge
    )
