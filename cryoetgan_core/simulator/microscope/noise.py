"""Noise of a tilt series: electrons counted one by one, or Gaussian at a signal-to-noise ratio; and what that ratio
means.

Images are ``(T, B, n, n)``, volumes ``(B, D, H, W)``. All draws come from the generator given, on its device.
"""

import torch

from .transfer import interaction_constant

# Mean electrostatic potential of protein above vitreous ice, in volts, per unit of the densities of this package (1
# inside a protein):
# the integral over three PDB entries, whose hydrogens are not in the files (tests/test_specimen_atoms.py repeats two).
PROTEIN_CONTRAST_V = 2.15


def contrast_per_unit(voltage_kV: float, voxel_size_A: float) -> float:
    """Image contrast (I - I0) / I0 of one voxel of density 1 under a transfer function of 1: twice its phase shift
    (weak phase object).
    """
    return 2 * interaction_constant(voltage_kV) * PROTEIN_CONTRAST_V * voxel_size_A


def electrons_per_pixel(
    dose_e_A2: float,
    angles_deg: torch.Tensor,
    voxel_size_A: float,
    *,
    detected: float = 1.0,
    ice_thickness_A: float = 0.0,
    inelastic_mean_free_path_A: float = 0.0,
) -> torch.Tensor:
    """Mean electrons (T,) counted in a pixel of each tilt, for a dose shared equally by the tilts.

    `detected` is the fraction that the detector counts. An energy filter removes what scatters inelastically:
    exp(-thickness / (mean free path cos(tilt))) is left; a mean free path of 0 stands for no loss.
    """
    left = torch.ones_like(angles_deg)
    if inelastic_mean_free_path_A > 0:
        left = torch.exp(
            -ice_thickness_A / (inelastic_mean_free_path_A * torch.cos(torch.deg2rad(angles_deg)).clamp(min=1e-3))
        )
    return dose_e_A2 / len(angles_deg) * voxel_size_A**2 * detected * left


def count_electrons(
    images: torch.Tensor, electrons: torch.Tensor, contrast: float, generator: torch.Generator
) -> torch.Tensor:
    """Images (T, B, n, n) as counted: Poisson counts at a mean of electrons x (1 - contrast x image), back in the
    images' own units.

    On the detector of an underfocused microscope protein is dark, hence the minus; the images come back with protein
    bright.

    `electrons` (T,) a pixel and `contrast` are those of `electrons_per_pixel` and `contrast_per_unit`.
    """
    mean = electrons[:, None, None, None].to(images.device)
    counts = torch.poisson((mean * (1 - contrast * images)).clamp(min=0), generator=generator)
    return (1 - counts / mean) / contrast


def noise_scale(signal: torch.Tensor, noise: torch.Tensor, snr: float) -> float:
    """Factor for `noise` so that mean variance of signal / mean variance of noise is `snr`; both (B, D, H, W).

    The mean runs over the whole set: noise does not depend on the class, as in one tomogram, so weak scatterers end up
    below `snr`.
    """
    power = [v.var(dim=(-3, -2, -1), correction=0).mean() for v in (signal, noise)]
    return float((power[0] / power[1] / snr).sqrt())
