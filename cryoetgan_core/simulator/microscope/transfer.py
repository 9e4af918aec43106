"""What an electron microscope does to the projection of a specimen, as factors over spatial frequency.

Frequencies are in cycles per angstrom, defocus in micrometres (positive is underfocus), doses in electrons per square
angstrom. Factors are positive where protein comes out bright, as after the contrast inversion that subtomogram
averaging expects.
"""

import math

import torch
from torch_ctf import calculate_ctf_2d

REST_keV, HC_keV_A = 510.99895, 12.398420  # electron's rest energy; Planck's constant times the speed of light


def wavelength_A(voltage_kV: float) -> float:
    """Relativistic wavelength of the electron in angstrom: 0.0197 at 300 kV."""
    return HC_keV_A / math.sqrt(voltage_kV * (2 * REST_keV + voltage_kV))


def interaction_constant(voltage_kV: float) -> float:
    """Phase shift in radians per volt and angstrom: 2 pi m e lambda / h^2 with the relativistic mass (Kirkland 2010,
    eq. 2.37).
    """
    relativistic = (REST_keV + voltage_kV) / (2 * REST_keV + voltage_kV)
    return 2 * math.pi / (wavelength_A(voltage_kV) * voltage_kV * 1e3) * relativistic


def ctf(
    defocus_um: torch.Tensor,
    image_shape: tuple[int, int],
    pixel_size_A: float,
    *,
    voltage_kV: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: float = 0.0,
    astigmatism_um: float = 0.0,
    astigmatism_angle_deg: float = 0.0,
    rfft: bool = True,
) -> torch.Tensor:
    """Contrast transfer function (..., h, w // 2 + 1), or (..., h, w) without `rfft`, for mean defoci (...), by
    torch-ctf.

    Astigmatism is half the difference of the two principal defoci, its angle that of the larger one from the x axis
    (measured: torch-ctf's own docstring says y); the phase shift is that of a phase plate.
    """
    return calculate_ctf_2d(
        defocus=defocus_um, astigmatism=astigmatism_um, astigmatism_angle=astigmatism_angle_deg, voltage=voltage_kV,
        spherical_aberration=cs_mm, amplitude_contrast=amplitude_contrast, phase_shift=phase_shift_deg,
        pixel_size=pixel_size_A, image_shape=image_shape, rfft=rfft, fftshift=False,
    )  # fmt: skip


def frequencies(
    image_shape: tuple[int, int], pixel_size_A: float, device: torch.device, rfft: bool = True
) -> torch.Tensor:
    """Magnitude of the spatial frequency (h, w // 2 + 1), or (h, w) without `rfft`, of an image's transform."""
    h, w = image_shape
    qy = torch.fft.fftfreq(h, pixel_size_A, device=device)
    qx = (torch.fft.rfftfreq if rfft else torch.fft.fftfreq)(w, pixel_size_A, device=device)
    return (qy[:, None] ** 2 + qx**2).sqrt()


def dose_filter(dose_e_A2: torch.Tensor, frequency_per_A: torch.Tensor, voltage_kV: float = 300.0) -> torch.Tensor:
    """Amplitude that survives a dose: exp(-N / 2 N_c(q)), N_c = 0.245 q^-1.665 + 2.81 e/A^2 at 300 kV.

    Grant & Grigorieff 2015 (doi 10.7554/eLife.06980), eq. 3; at 200 kV the critical dose is 0.8 of it. Shapes
    broadcast.
    """
    critical = 0.24499 * frequency_per_A.clamp(min=1e-6) ** -1.6649 + 2.8141
    return torch.exp(-dose_e_A2 / (2 * critical * (0.8 if voltage_kV < 250 else 1.0)))


def b_factor_envelope(b_factor_A2: float, frequency_per_A: torch.Tensor) -> torch.Tensor:
    """exp(-B q^2 / 4): coherence, drift and whatever else falls as a Gaussian."""
    return torch.exp(-b_factor_A2 / 4 * frequency_per_A**2)


def detector_mtf(frequency_per_A: torch.Tensor, camera_pixel_A: float, spread_px: float) -> torch.Tensor:
    """Modulation transfer of a detector: the sinc of a square pixel (along the radius) and the Gaussian of a charge
    spread.

    Parameters
    ----------
    camera_pixel_A
        the camera's own pixel at the specimen, before binning.
    spread_px
        standard deviation of the spread, in camera pixels; with 0.3 the transfer at the camera's Nyquist frequency is
        0.41.
    """
    f = frequency_per_A * camera_pixel_A  # cycles a camera pixel
    return torch.sinc(f) * torch.exp(-2 * (math.pi * spread_px * f) ** 2)
