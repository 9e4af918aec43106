"""Exhaustive search of poses: each particle against a reference in every rotation of a grid and at every small shift.

Correlation is constrained: only spatial frequencies that the tilts saw, and that are asked for, count.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from .alignment import rotation_grid, unposed
from .poses import rotate_volume


class Found(NamedTuple):
    """Best poses of particles: rotations (N, 3, 3) on xyz, shifts (N, 3) zyx in angstrom, correlations (N,)."""

    rotations: Tensor
    shifts_A: Tensor
    correlation: Tensor


def search_poses(
    particles: Tensor,
    reference: Tensor,
    observed: Tensor,
    voxel_size_A: float,
    *,
    rotations: int = 4000,
    most_shift: int = 3,
) -> Found:
    """The rotation and shift of a reference (d, d, d) that each of `particles` (N, D, D, D) correlates with best.

    Parameters
    ----------
    observed
        (D, D, D // 2 + 1), 0 to 1: how far the tilts saw a spatial frequency, 0 where it is not to be used.
    rotations
        of the grid: with 4000 any rotation is within 13 degrees of one.
    most_shift
        voxels along each axis.

    The search runs where the particles are; what was found is on the CPU.
    """
    box, n, device = particles.shape[-1], rotations, particles.device
    reference, observed = reference.to(device), observed.to(device)
    used = observed > 0
    used[0, 0, 0] = False  # the mean
    twice = torch.full(observed.shape, 2.0, device=device)  # a half transform holds one of two conjugates
    twice[..., 0] = 1
    twice[..., box // 2] = 1
    weight = (twice * observed.clamp(min=0)).sqrt()[used]
    f = torch.stack(
        torch.meshgrid(torch.fft.fftfreq(box), torch.fft.fftfreq(box), torch.fft.rfftfreq(box), indexing="ij"), -1
    ).to(device)[used]
    steps = torch.tensor(list(itertools.product(range(-most_shift, most_shift + 1), repeat=3)), dtype=torch.float32)
    moved_back = torch.exp(2j * math.pi * (steps.to(device) @ f.T))  # (S, K)
    grid = rotation_grid(n)
    turned = torch.cat([_seen(rotate_volume(reference, part, torch.zeros(len(part), 3), voxel_size_A, box=box,
                                            upsample=1), used, weight) for part in grid.split(200)])  # fmt: skip
    best, values = [], []
    for particle in particles:
        there = moved_back * _seen(particle[None], used, weight)
        # the real part of the product with the conjugate, as one product of real matrices
        correlation = torch.view_as_real(turned).flatten(1) @ torch.view_as_real(there).flatten(1).T
        best.append(int(correlation.argmax()))
        values.append(float(correlation.max()))
    index = torch.tensor(best)
    return Found(grid[index // len(steps)], steps[index % len(steps)] * voxel_size_A, torch.tensor(values))


def _seen(volumes: Tensor, used: Tensor, weight: Tensor) -> Tensor:
    """Weighted Fourier coefficients (B, K) of volumes (B, D, D, D), of norm 1."""
    spectrum = torch.fft.rfftn(volumes, dim=(1, 2, 3))[:, used] * weight
    return spectrum / torch.linalg.vector_norm(spectrum, dim=1, keepdim=True)


def average(particles: Tensor, found: Found, voxel_size_A: float) -> Tensor:
    """Mean (D, D, D) of particles (N, D, D, D) brought back to the reference's pose."""
    total = torch.zeros(particles.shape[1:])
    for part in torch.arange(len(particles)).split(50):
        total += unposed(particles[part], found.rotations[part], found.shifts_A[part], voxel_size_A).sum(0)
    return total / len(particles)
