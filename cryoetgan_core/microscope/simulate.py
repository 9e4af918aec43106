"""A tilt-series microscope: specimen boxes in, subtomograms with a true missing wedge out.

Specimens are electrostatic potentials ``(B, M, M, M)`` (zyx, beam along z, tilt axis y), with M larger than the subtomogram so that its edges and
neighbours are physical. Signal and noise are reconstructed separately: back-projection is linear, and the noise of a whole set can so be scaled
to one stated signal-to-noise ratio.
"""

from dataclasses import dataclass

import torch
from torch_ctf import calculate_ctf_2d

from .tilt_series import back_project, project, tilt_angles

SCHEMES = ("bidirectional", "dose_symmetric")


@dataclass(frozen=True)
class Microscope:
    """How a tilt series is recorded. Angles in degrees, lengths as named."""

    tilt_min_deg: float = -60.0
    tilt_max_deg: float = 60.0
    tilt_step_deg: float = 3.0
    scheme: str = "dose_symmetric"  # order of the tilts: "dose_symmetric" (Hagen et al. 2017) or "bidirectional" from 0
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.07
    defocus_um: float = 6.0  # mean, positive is underfocus
    defocus_spread_um: float = 0.5  # half width of the uniform spread between tomograms
    ice_thickness_A: float = 1500.0  # particles lie anywhere in it: their height adds to the defocus
    total_dose_e_A2: float = 100.0  # shared equally by the tilts
    b_factor_A2: float = 500.0  # envelope exp(-B q^2 / 4) of detector, drift and coherence

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"Microscope: scheme {self.scheme!r} must be one of {SCHEMES}.")
        tilt_angles(self.tilt_min_deg, self.tilt_max_deg, self.tilt_step_deg)

    @property
    def angles_deg(self) -> torch.Tensor:
        """Tilt angles (T,) from the lowest to the highest."""
        return tilt_angles(self.tilt_min_deg, self.tilt_max_deg, self.tilt_step_deg)


def pre_exposure(microscope: Microscope) -> torch.Tensor:
    """Dose (T,) in e/A^2 that the specimen received before each tilt, in the order of `angles_deg`."""
    angles = microscope.angles_deg
    if microscope.scheme == "dose_symmetric":
        order = sorted(range(len(angles)), key=lambda i: (abs(round(float(angles[i]), 3)), float(angles[i])))
    else:  # from the tilt nearest to 0 up to the maximum, then down from 0 to the minimum
        order = [i for i, a in enumerate(angles) if a >= -1e-3] + [i for i in reversed(range(len(angles))) if angles[i] < -1e-3]
    rank = torch.empty(len(angles))
    rank[torch.tensor(order)] = torch.arange(len(angles), dtype=torch.float32)
    return rank * microscope.total_dose_e_A2 / len(angles)


def dose_filter(dose_e_A2: torch.Tensor, frequency_per_A: torch.Tensor, voltage_kV: float = 300.0) -> torch.Tensor:
    """Amplitude that survives a dose: exp(-N / 2 N_c(q)), N_c = 0.245 q^-1.665 + 2.81 e/A^2 at 300 kV.

    Grant & Grigorieff 2015 (doi 10.7554/eLife.06980), eq. 3; at 200 kV the critical dose is 0.8 of it. Shapes broadcast.
    """
    critical = 0.24499 * frequency_per_A.clamp(min=1e-6) ** -1.6649 + 2.8141
    return torch.exp(-dose_e_A2 / (2 * critical * (0.8 if voltage_kV < 250 else 1.0)))


def transfer_function(microscope: Microscope, defocus_um: torch.Tensor, n: int, voxel_size_A: float) -> torch.Tensor:
    """What each tilt image does to the specimen's projection: CTF, envelope and dose decay, (T, B, n, n/2 + 1).

    Positive at low frequency: protein is bright, as after the contrast inversion that subtomogram averaging expects.
    """
    ctf = calculate_ctf_2d(
        defocus=defocus_um, astigmatism=0.0, astigmatism_angle=0.0, voltage=microscope.voltage_kV,
        spherical_aberration=microscope.cs_mm, amplitude_contrast=microscope.amplitude_contrast, phase_shift=0.0,
        pixel_size=voxel_size_A, image_shape=(n, n), rfft=True, fftshift=False,
    )  # (B, n, n/2 + 1)  # fmt: skip
    qy = torch.fft.fftfreq(n, voxel_size_A, device=defocus_um.device)
    qx = torch.fft.rfftfreq(n, voxel_size_A, device=defocus_um.device)
    q2 = qy[:, None] ** 2 + qx[None, :] ** 2
    dose = pre_exposure(microscope).to(q2.device)[:, None, None]
    envelope = torch.exp(-microscope.b_factor_A2 * q2 / 4) * dose_filter(dose, q2.sqrt(), microscope.voltage_kV)
    return ctf[None] * envelope[:, None]  # torch-ctf's sign: positive at low frequency for underfocus


def reconstruct_signal(
    specimens: torch.Tensor, microscope: Microscope, defocus_um: torch.Tensor, voxel_size_A: float, box: int
) -> torch.Tensor:
    """Noise-free subtomograms (B, box, box, box) of specimens (B, M, M, M) at a defocus each (B,)."""
    angles, n = microscope.angles_deg, specimens.shape[-1]
    spectra = torch.fft.rfft2(project(specimens, angles))
    images = torch.fft.irfft2(spectra * transfer_function(microscope, defocus_um, n, voxel_size_A), s=(n, n))
    return back_project(images, angles, box)


def reconstruct_noise(count: int, microscope: Microscope, box: int, margin: int, generator: torch.Generator) -> torch.Tensor:
    """Reconstructions (count, box, box, box) of white unit-variance image noise: dose and detector noise, coloured by the reconstruction.

    `margin` voxels are added around the box before the cut, as for the signal.
    """
    n = box + 2 * margin
    images = torch.randn((len(microscope.angles_deg), count, n, n), generator=generator, device=generator.device)
    return back_project(images, microscope.angles_deg, box)


def noise_scale(signal: torch.Tensor, noise: torch.Tensor, snr: float) -> float:
    """Factor for `noise` so that mean variance of signal / variance of noise, over all voxels, is `snr`.

    The mean runs over the whole set: noise does not depend on the class, as in one tomogram, so weak scatterers end up below `snr`.
    """
    return float((signal.var(dim=(-3, -2, -1)).mean() / noise.var() / snr).sqrt())
