"""What else lies around a particle: neighbours at a stated crowding. Lengths in angstrom, shifts zyx."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...volumes.poses import random_rotations

HALF_MEMBRANE_A = 25.0  # from the mid-plane of a bilayer to the outside of its head groups
LEAST_DENSITY = 0.3  # of a molecule; protein is 1
OVERLAP = 0.9  # centres may come as near as this part of the sum of two radii: molecules are not balls


@dataclass(frozen=True)
class Crowding:
    """How full the ice is."""

    volume_fraction: float = 0.0  # part of the volume that other molecules take

    def __post_init__(self) -> None:
        if not 0 <= self.volume_fraction <= 0.3:
            raise ValueError(
                f"Crowding: volume fraction {self.volume_fraction}; expected 0 to 0.3 (denser packings need more than "
                "random placing)."
            )


class Neighbours(NamedTuple):
    """Placed neighbours; `kind` is the index of the reference."""

    owner: Tensor  # (M,) index of the particle beside which it lies
    kind: Tensor  # (M,)
    rotations: Tensor  # (M, 3, 3) acting on xyz
    shifts_A: Tensor  # (M, 3) zyx, from the centre of the owner's box


def volume_A3(reference: Tensor, voxel_size_A: float) -> float:
    """Volume of a molecule of density 1: the integral of its reference."""
    return float(reference.clamp(min=0).sum()) * voxel_size_A**3


def radius_A(reference: Tensor, voxel_size_A: float) -> float:
    """Radius around the centre that holds all but 2 % of the voxels above LEAST_DENSITY."""
    index = (reference > LEAST_DENSITY).nonzero().float() - reference.shape[-1] // 2
    return float(index.norm(dim=1).quantile(0.98)) * voxel_size_A


def place_neighbours(
    references: Mapping[str, Tensor],
    names: list[str],
    rotations: Tensor,
    shifts_A: Tensor,
    voxel_size_A: float,
    reach_A: float,
    crowding: Crowding,
    generator: torch.Generator,
) -> Neighbours:
    """Neighbours for every particle, at random where they overlap neither it nor one another.

    Molecules of all kinds in `references` but "membrane", drawn alike, stand at a mean density of `volume_fraction` in
    the ball of `reach_A` round the box's centre; those that find no place in ten tries are left out, so that the
    fraction reached is lower where it is crowded. A particle of the kind "membrane" keeps its neighbours off its plane.

    Parameters
    ----------
    references
        (d, d, d) densities by name.
    names, rotations, shifts_A
        kind (n), pose (n, 3, 3) on xyz and shift (n, 3) zyx of every particle.
    """
    references = {name: r.cpu() for name, r in references.items()}
    kinds = list(references)
    balls = [k for k, name in enumerate(kinds) if name != "membrane"]
    radius = {k: radius_A(references[kinds[k]], voxel_size_A) for k in balls}
    owners, chosen, turns, places = [], [], [], []
    uniform = {"generator": generator, "dtype": torch.float64}
    mean = 0.0
    if balls and crowding.volume_fraction:
        mean_volume = sum(volume_A3(references[kinds[k]], voxel_size_A) for k in balls) / len(balls)
        mean = crowding.volume_fraction * 4 / 3 * math.pi * reach_A**3 / mean_volume
    counts = torch.poisson(torch.full((len(names),), mean), generator=generator).long().tolist()
    torch.rand(len(names), generator=generator)  # numbers that an earlier version drew: sets stay what they were
    for i, name in enumerate(names):
        taken: list[tuple[Tensor, float]] = []  # centre and radius of balls
        planes: list[tuple[Tensor, Tensor]] = []  # point and normal of bilayers
        if name == "membrane":
            planes.append((shifts_A[i], rotations[i, :, 2].flip(0)))
        else:
            taken.append((shifts_A[i], radius[kinds.index(name)]))
        for _ in range(counts[i]):
            kind = balls[int(torch.randint(len(balls), (1,), generator=generator))]
            direction = torch.randn(10, 3, **uniform)
            tries = direction / direction.norm(dim=1, keepdim=True) * reach_A * torch.rand(10, 1, **uniform) ** (1 / 3)
            free = torch.ones(10, dtype=torch.bool)
            for centre, r in taken:
                free &= (tries - centre).norm(dim=1) > OVERLAP * (r + radius[kind])
            for point, normal in planes:
                free &= ((tries - point) @ normal).abs() > OVERLAP * radius[kind] + HALF_MEMBRANE_A
            if free.any():
                place = tries[free.nonzero()[0, 0]]
                taken.append((place, radius[kind]))
                owners.append(i)
                chosen.append(kind)
                turns.append(random_rotations(1, generator)[0])
                places.append(place)
    return Neighbours(
        torch.tensor(owners, dtype=torch.long),
        torch.tensor(chosen, dtype=torch.long),
        torch.stack(turns) if turns else torch.empty(0, 3, 3, dtype=torch.float64),
        torch.stack(places) if places else torch.empty(0, 3, dtype=torch.float64),
    )
