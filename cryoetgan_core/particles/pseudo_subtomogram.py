"""RELION's pseudo-subtomograms: sums of CTF-weighted images, with the sum of the squared CTFs beside them, made a
volume.

A data file holds ``sum(CTF FT[image])`` back in real space, its weights file ``sum(CTF^2)`` over the half transform,
often with the number of slices that reached each voxel (the multiplicity) in a second half of the sections. The
quotient is the particle as a subtomogram shows it, the missing wedge in place (Zivanov et al., eLife 11, 2022, doi
10.7554/eLife.83724).
"""

from pathlib import Path

import numpy as np

from ..volumes.maps import read_map, read_map_header


def check_weights(path: Path, box: int) -> None:
    """Raise ValueError unless the header of a weights file fits a box."""
    shape, _ = read_map_header(path, 1.0)
    if shape not in _shapes(box):
        raise ValueError(
            f"{path}: {shape} voxels are no weights of a box of {box}; expected {' or '.join(map(str, _shapes(box)))} "
            "(rlnCtfImage)"
        )


def divided(volume: np.ndarray, weights: Path, wiener: float) -> np.ndarray:
    """The volume (D, D, D) of a pseudo-subtomogram: its transform over weights + `wiener`, which is in units of one
    slice of CTF 1.
    """
    box = volume.shape[0]
    check_weights(weights, box)
    w = read_map(weights, voxel_size_A=1.0)[0].numpy()
    if w.shape[2] == box:  # whole and centred, as older versions write it
        w = np.fft.ifftshift(w)[:, :, : box // 2 + 1]
    spectrum = np.fft.rfftn(volume) / (np.maximum(w[:box], 0) + wiener)
    return np.fft.irfftn(spectrum, s=volume.shape, axes=(0, 1, 2)).astype(np.float32)


def _shapes(box: int) -> tuple[tuple[int, int, int], ...]:
    """Half transform with and without the multiplicity, and the whole one."""
    half = box // 2 + 1
    return (2 * box, box, half), (box, box, half), (box, box, box)
