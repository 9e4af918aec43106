"""Weighted back-projection of a tilt series by Fourier insertion.

Images are ``(T, B, n, n)`` indexed yx, volumes ``(B, box, box, box)`` indexed zyx; the beam runs along z. The device is
taken from the images. A tilt about y leaves every ky alone, so inserting slices is one sparse matrix in the (kz, kx)
plane, shared by all ky and all particles of a batch: the same linear weights as torch-fourier-slice (the tests
compare), at a small part of its time.
"""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F

from .projection import sinc2

PAD_FACTOR = 2.4  # transform size over box: below 2.4, ghosts of the linear interpolation reach the box's corners


def transform_size(image_size: int, box: int) -> int:
    """Even number of samples of the transforms in the (z, x) plane: free of wrap-round for images of that size."""
    return 2 * math.ceil(max(PAD_FACTOR * box, image_size) / 2)


@lru_cache(maxsize=8)
def _insertion(size: int, angles_deg: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse matrix (size size, T size) of bilinear weights from line samples to the (kz, kx) plane, and its row sums
    (size size,).

    Frequencies are in FFT order and wrap around. The Nyquist sample of a line, whose sign is ambiguous, is left out.
    """
    frequency = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    angle = torch.deg2rad(torch.tensor(angles_deg, dtype=torch.float64))[:, None]
    kz, kx = -frequency * angle.sin(), frequency * angle.cos()  # (T, size)
    sample = torch.arange(kz.numel()).view_as(kz)
    used = (frequency.abs() < size // 2).expand_as(kz)
    rows, columns, values = [], [], []
    for dz in (0, 1):
        for dx in (0, 1):
            z, x = kz.floor() + dz, kx.floor() + dx
            weight = (1 - (kz - z).abs()) * (1 - (kx - x).abs())
            keep = used & (weight > 1e-9)
            rows.append((z.long() % size * size + x.long() % size)[keep])
            columns.append(sample[keep])
            values.append(weight[keep].float())
    rows, columns, values = torch.cat(rows), torch.cat(columns), torch.cat(values)
    total = torch.zeros(size * size).index_add_(0, rows, values)
    matrix = torch.sparse_coo_tensor(
        torch.stack([rows, columns]), values, (size * size, kz.numel()), check_invariants=True
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return matrix.coalesce().to_sparse_csr().to(device), total.to(device)


def insertion_weights(size: int, angles_deg: tuple[float, ...]) -> torch.Tensor:
    """Sum of the weights (size size,) with which slices at the tilts reach each sample of the (kz, kx) plane, in FFT
    order.
    """
    return _insertion(size, angles_deg, torch.device("cpu"))[1]


@lru_cache(maxsize=8)
def _inverse_transform(size: int, box: int, device: torch.device) -> torch.Tensor:
    """Matrix (box, size) from Fourier values in FFT order to the box's real-space samples, interpolation weight divided
    out.
    """
    position = torch.arange(box, dtype=torch.float64) - box // 2
    frequency = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    matrix = torch.exp(2j * math.pi / size * position[:, None] * frequency) / size
    weight = sinc2(size, torch.device("cpu")).double()[size // 2 - box // 2 :][:box]
    return (matrix / weight[:, None]).to(torch.complex64).to(device)


def insert_slices(
    images: torch.Tensor,
    angles_deg: torch.Tensor,
    size: int,
    *,
    weights: Callable[[tuple[int, int]], torch.Tensor] | None = None,
    regularisation: float = 0.0,
) -> torch.Tensor:
    """The reconstruction's Fourier transform before any real-space step: (size, size, B, n // 2 + 1), indexed (kz, kx,
    particle, ky).

    kz and kx are in FFT order over `size` samples, ky in rfft order over the n of the images. Arguments as in
    `back_project`; the tilt axis is y.
    """
    t, b, n = images.shape[:3]
    matrix, total = _insertion(size, tuple(angles_deg.tolist()), images.device)

    def inserted(values: torch.Tensor) -> torch.Tensor:
        """(T, B, ky, kx) real or complex to (kz kx, B ky)."""
        flat = values.permute(0, 3, 1, 2).reshape(t * size, -1).contiguous()
        if not flat.is_complex():
            return matrix @ flat
        return torch.view_as_complex((matrix @ torch.view_as_real(flat).flatten(1)).view(size * size, -1, 2))

    # The centre of an image, at n // 2, becomes the origin: a phase along x, a roll along y.
    lines = torch.fft.fft(torch.fft.rfft(torch.fft.ifftshift(images, dim=-2), dim=-2), n=size, dim=-1)
    lines = lines * torch.exp(2j * torch.pi * torch.fft.fftfreq(size, device=images.device) * (n // 2))
    below = total[:, None].clamp(min=1.0)
    if weights is not None:
        seen = inserted(weights((n, size))[:, :, : n // 2 + 1]).view(size * size, -1, n // 2 + 1)
        # a value that only the edge of one slice reaches is divided as if the whole did
        alone = (1 / total.clamp(min=1e-6)).clamp(min=1.0)
        below = (seen * alone[:, None, None]).expand(-1, b, -1).reshape(size * size, -1)
    return (inserted(lines) / (below + regularisation).clamp(min=1e-6)).view(size, size, b, -1)


def back_project(
    images: torch.Tensor,
    angles_deg: torch.Tensor,
    box: int | None = None,
    *,
    weights: Callable[[tuple[int, int]], torch.Tensor] | None = None,
    regularisation: float = 0.0,
) -> torch.Tensor:
    """Weighted back-projection of images (T, B, n, n) to volumes (B, box, box, box).

    A Fourier value is the sum of the slices that pass beside it, each with its linear interpolation weight, over the
    sum of those weights, which counts at least as 1 so that a value which only the edge of one slice reaches is not
    blown up; it is exactly zero where no slice passes: the missing wedge. So the ramp saturates where slices stand
    farther apart than a sample, beyond a spatial frequency of about 1 / (2.4 box voxel step) with the tilt step in
    radians: a mild low-pass (at 3 degrees in a box of 40 to 0.6 of the amplitude at Nyquist).

    Parameters
    ----------
    images
        already multiplied by whatever numerator the weighting asks for (CTF, dose filter).
    angles_deg
        (T,) tilts.
    box
        edge of the volumes; default n. Beyond n / sqrt(2) the corners see fewer tilts.
    weights
        gives the denominators (T, B or 1, h, w), one for each Fourier sample of each image, for the FFT of an image of
        shape (h, w); 1 where not given. With numerator h and weight h^2 the result is a Wiener filter.
    regularisation
        added to the sum of the weights, as 1 / SNR in a Wiener filter.

    Raises ValueError when images and angles disagree.
    """
    t, b, n = images.shape[:3]
    if images.ndim != 4 or images.shape[-1] != n or len(angles_deg) != t:
        raise ValueError(
            f"back_project: images {tuple(images.shape)} and {len(angles_deg)} angles; expected (T, B, n, n) and T "
            "angles."
        )
    box = n if box is None else box
    size = transform_size(n, box)
    spectra = insert_slices(images, angles_deg, size, weights=weights, regularisation=regularisation)
    inverse = _inverse_transform(size, box, images.device)
    volumes = torch.matmul(inverse, (inverse @ spectra.reshape(size, -1)).view(box, size, -1))  # (z, x, B ky)
    volumes = torch.fft.fftshift(torch.fft.irfft(volumes.view(box, box, b, -1), n=n, dim=-1), dim=-1)
    before = n // 2 - box // 2
    volumes = F.pad(volumes, [-before, box - n + before])
    return volumes.permute(2, 0, 3, 1).contiguous()
