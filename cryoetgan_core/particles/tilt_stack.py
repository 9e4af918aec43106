"""From the 2-D tilt images of one particle to its volume: Fourier insertion, weighted by the squared CTF.

A CTF-premultiplied image holds ``CTF^2 V + CTF n`` at every spatial frequency (V the particle's central slice, n white
noise), so the least-squares volume is ``sum(images) / (sum(CTF^2) + c)``: a Wiener filter with a constant ``c`` in
units of one perfectly transferred slice. Images as they were recorded, ``CTF V + n``, are multiplied here.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch_ctf import calculate_ctf_2d
from torch_fourier_slice import insert_central_slices_rfft_3d_multichannel
from torch_fourier_slice.volume_utils import separable_sinc2_correction

from .relion_series import TiltStack

WIENER = 0.1  # c, unless another is given
PAD = 2  # boxes are doubled before interpolating between Fourier voxels


def ctf_of_tilts(stack: TiltStack) -> Tensor:
    """CTF (T, P, P // 2 + 1), with P = PAD * size, of the visible tilts of a particle, laid out as the half spectra to
    insert; positive at zero frequency: images in which protein is bright.

    The angle of the defocus goes to torch-ctf as the STAR file has it: of the eight sign and offset choices this one
    follows the power spectra of real stacks.
    """
    tilts, size = stack.tilts[stack.visible], PAD * stack.size
    u, v, angle = (torch.tensor(tilts[f"rlnDefocus{c}"].to_numpy(np.float32)) for c in ("U", "V", "Angle"))
    # torch-ctf returns NaN for V > U, which WarpTools writes: the same ellipse with its long axis named first
    long, short = torch.maximum(u, v), torch.minimum(u, v)
    ctf = calculate_ctf_2d(
        defocus=(long + short) / 2e4,
        astigmatism=(long - short) / 2e4,
        astigmatism_angle=torch.where(v > u, angle + 90, angle),
        voltage=stack.voltage_kV,
        spherical_aberration=stack.spherical_aberration_mm,
        amplitude_contrast=stack.amplitude_contrast,
        phase_shift=0.0,
        pixel_size=stack.pixel_size_A,
        image_shape=(size, size),
        rfft=True,
        fftshift=True,
    )
    return ctf * ctf[:, size // 2, :1, None].sign()


def insert_tilts(images: Tensor, matrices: Tensor, ctf: Tensor, *, premultiplied: bool = True) -> Tensor:
    """Sums in Fourier space of inserted images and of inserted weights: (2, P, P, P // 2 + 1) complex.

    Parameters
    ----------
    images
        (T, B, B), their centre the pixel ``B // 2``.
    matrices
        (T, 3, 3) acting on xyz column vectors: the point x of the volume is seen at the pixel (u, v) =
        the first two entries of ``matrix @ x``.
    ctf
        (T, P, P // 2 + 1) with P = 2 B, from `ctf_of_tilts`.
    premultiplied
        whether the images have been multiplied by their CTF.
    """
    margin = (PAD - 1) * images.shape[-1] // 2
    padded = torch.nn.functional.pad(images, [margin] * 4)
    spectra = torch.fft.rfftn(torch.fft.ifftshift(padded, dim=(-2, -1)), dim=(-2, -1))
    spectra = torch.fft.fftshift(spectra, dim=-2)
    if not premultiplied:
        spectra = spectra * ctf
    channels = torch.stack((spectra, ctf.square().to(spectra.dtype)), dim=1)
    side = padded.shape[-1]
    # the library turns slice coordinates into the volume, which is the inverse of seeing the volume
    sums, _ = insert_central_slices_rfft_3d_multichannel(channels, (side,) * 3, matrices.mT)
    return sums


def check_wiener(wiener: float) -> None:
    """Raise ValueError unless the constant of the Wiener filter is a positive number."""
    if not (math.isfinite(wiener) and wiener > 0):
        raise ValueError(f"wiener is {wiener}, expected a positive number (0.1 is usual)")


def to_volume(sums: Tensor, wiener: float) -> Tensor:
    """The volume (B, B, B) of sums from `insert_tilts`; where nothing was sampled its spectrum is zero."""
    spectrum = sums[0] / (sums[1].real + wiener)
    side = spectrum.shape[0]
    volume = torch.fft.irfftn(torch.fft.ifftshift(spectrum, dim=(0, 1)), s=(side,) * 3)
    volume = torch.fft.fftshift(volume)
    # inserting by linear interpolation multiplies the volume by sinc^2
    volume = volume / separable_sinc2_correction(volume.shape, device=volume.device)
    box = side // PAD
    inner = slice((side - box) // 2, (side - box) // 2 + box)
    return volume[inner, inner, inner]
