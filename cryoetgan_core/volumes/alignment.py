"""The pose that brings one density onto another, and particles brought back to their reference's pose."""

import math

import torch
from torch import Tensor

from .maps import resample
from .poses import quaternions_to_matrices, rotate_volume


def rotation_grid(n: int) -> Tensor:
    """(n, 3, 3) rotations spread evenly over SO(3): super-Fibonacci spirals (Alexa, CVPR 2022)."""
    s = torch.arange(n, dtype=torch.float64) + 0.5
    phi, psi = math.sqrt(2), 1.533751168755204288118041
    r, big = (s / n).sqrt(), (1 - s / n).sqrt()
    alpha, beta = 2 * math.pi * s / phi, 2 * math.pi * s / psi
    xyzw = r * alpha.sin(), r * alpha.cos(), big * beta.sin(), big * beta.cos()
    return quaternions_to_matrices(torch.stack([xyzw[3], *xyzw[:3]], 1))


def align(
    volume: Tensor, target: Tensor, grid: int = 4000, refinements: int = 5, seed: int = 0
) -> tuple[Tensor, float]:
    """Rotation (3, 3) on xyz that turns `volume` (d, d, d) onto `target` of the same size, and the correlation it
    reaches.

    Both are centred. All of `grid` rotations are tried at half the sampling, then `refinements` rounds of 60 random
    ones about the best, half as wide each.
    """
    if volume.shape != target.shape or volume.ndim != 3:
        raise ValueError(
            f"align: volumes {tuple(volume.shape)} and {tuple(target.shape)}; expected the same (d, d, d)."
        )
    generator = torch.Generator().manual_seed(seed)
    half = dict(new_voxel_size_A=2.0, box=2 * math.ceil(len(volume) / 4))
    rotations = rotation_grid(grid)
    best = rotations[_correlations(resample(volume, 1.0, **half), resample(target, 1.0, **half), rotations).argmax()]
    correlation = float(_correlations(volume, target, best[None])[0])
    width = 2.5 * grid ** (-1 / 3)  # radians, about the distance of neighbours
    for _ in range(refinements):
        vectors = width * torch.randn(60, 3, generator=generator, dtype=torch.float64)
        skew = torch.zeros(60, 3, 3, dtype=torch.float64)
        skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -vectors[:, 2], vectors[:, 1], -vectors[:, 0]
        near = torch.matrix_exp(skew - skew.mT) @ best
        value = _correlations(volume, target, near)
        if value.max() > correlation:
            best, correlation = near[value.argmax()], float(value.max())
        width /= 2
    return best, correlation


def _correlations(volume: Tensor, target: Tensor, rotations: Tensor) -> Tensor:
    """Correlation (n,) of the target with the volume in each rotation (n, 3, 3)."""
    wanted = (target - target.mean()).flatten()
    found = []
    for part in rotations.split(64):
        turned = rotate_volume(volume, part, torch.zeros(len(part), 3), 1.0, upsample=1).flatten(1)
        turned = turned - turned.mean(1, keepdim=True)
        found.append(turned @ wanted / (turned.norm(dim=1) * wanted.norm()))
    return torch.cat(found)


def unposed(volumes: Tensor, rotations: Tensor, shifts_A: Tensor, voxel_size_A: float) -> Tensor:
    """Particles (B, d, d, d) brought back to the reference's pose: the inverse of `poses.rotate_volume` with the same
    pose.
    """
    back = rotations.mT
    moved = -(back.to(shifts_A.dtype) @ shifts_A.flip(1)[:, :, None])[..., 0].flip(1)
    return rotate_volume(volumes, back, moved, voxel_size_A, upsample=2)
