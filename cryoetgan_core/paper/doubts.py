"""What looks wrong when particles and densities are put side by side."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ..simulator.sets import class_references
from ..simulator.specimen.render import parse_source
from ..volumes.maps import MAP_SUFFIXES, read_map
from ..volumes.table import ParticleSet
from .own_data import LEAST_TO_CHOOSE, parse_densities

OUTLINE, LEAST_BOX = 0.25, 1.5  # of a molecule's greatest density; box over its extent
MEAN_OF, MOST_RATIO = 400, 1.35  # particles; between the radii of mean particle and density


def doubts(particles: ParticleSet, densities: str) -> list[str]:
    """What looks wrong about densities beside particles, a sentence each: classes that do not meet, molecules that
    their box cuts or hardly holds, a size that is not that of the mean particle.
    """
    names, files = parse_densities(densities)
    box, voxel = particles.volumes.shape[-1], particles.voxel_size_A
    found, labelled = [], sorted(set(particles.table["class_name"]) - {""})
    if all(name.isdigit() for name in labelled) and not set(names) & set(labelled):  # RELION's numbers name no molecule
        if len(labelled) > 1:
            found.append(
                f"The particles are of {len(labelled)} classes ({', '.join(labelled[:9])}), which the densities do not "
                f"name: all of them count as {' and '.join(names)}. If a class is another molecule, leave it out."
            )
    else:
        unseen = [name for name in names if name not in labelled]
        if unseen:
            found.append(
                f"The particles have no class {', '.join(unseen)}: give `train` the classes that they show; generate "
                "others afterwards."
            )
        without = [name for name in labelled if name not in names]
        if without:
            found.append(
                f"No density for the particles of {', '.join(without)}: leave them out, or add their densities."
            )
    wide = class_references(names, 2 * box, voxel, files)
    found += dark(names, files) + _cut(wide, box)
    for name, volume in wide.items():
        extent = _extent(volume)
        if extent <= box and LEAST_BOX * extent > box:
            found.append(
                f"{name} is {extent} of {box} voxels wide. Use a box of at least "
                f"{math.ceil(LEAST_BOX * extent)} voxels ({LEAST_BOX} times the particle), if your files allow it."
            )
    return found + _sizes(particles, {name: _half_radius(volume) * voxel for name, volume in wide.items()})


def dark(names: Sequence[str], files: Mapping[str, str]) -> list[str]:
    """A sentence about each class whose density map looks as if its molecule were darker than what surrounds it: the
    third moment of the grey values about their median is negative.
    """
    found = []
    for name in names:
        path, options = parse_source(files.get(name, ""))
        if not path.lower().endswith(MAP_SUFFIXES):
            continue
        volume, _ = read_map(path, voxel_size_A=options.get("map_voxel_size_A", 1.0))  # its size does not matter here
        if float(((volume - volume.median()) ** 3).mean()) < 0:
            found.append(
                f"{path} ({name}): its molecule looks darker than what surrounds it; expected a bright one. If so, "
                "multiply the map by -1."
            )
    return found


def doubtful(names: Sequence[str], files: Mapping[str, str], box: int, voxel_size_A: float) -> Iterator[str]:
    """A sentence about each class whose density is `dark`, before densities are read further, or cut by its `box`
    (voxels a side).
    """
    yield from dark(names, files)
    yield from _cut(class_references(names, 2 * box, voxel_size_A, files), box)


def _cut(wide: Mapping[str, torch.Tensor], box: int) -> list[str]:
    """The same of densities in boxes of twice the size."""
    return [
        f"{name} is about {_extent(volume)} voxels wide and cut by its box of {box}: choose a larger box (a membrane "
        "or filament may be cut)."
        for name, volume in wide.items()
        if _extent(volume) > box
    ]


def _extent(volume: torch.Tensor) -> int:
    """Voxels across what a density's outline holds, about the centre of its box."""
    far = (volume > OUTLINE * volume.max()).nonzero() - volume.shape[-1] // 2
    return 2 * int(far.abs().max()) + 1 if len(far) else 0


def _sizes(particles: ParticleSet, radii_A: dict[str, float]) -> list[str]:
    """Where the mean particle, of each class that has a density or of all, is smaller or larger than the densities, and
    so are the means of both halves of them: one mean of few particles may be so by chance.
    """
    classes, found = particles.table["class_name"], []
    named = {name: (classes == name).to_numpy() for name in radii_A if (classes == name).any()}
    groups = named or {"": np.ones(len(particles), bool)}
    for name, rows in groups.items():
        expected = [radii_A[name]] if name else list(radii_A.values())
        chosen = np.flatnonzero(rows)[:MEAN_OF]
        if len(chosen) < LEAST_TO_CHOOSE:
            continue
        halves = [torch.from_numpy(np.asarray(particles.volumes[chosen[k::2]], np.float32)).mean(0) for k in (0, 1)]
        radii = [_half_radius(mean) * particles.voxel_size_A for mean in (sum(halves) / 2, *halves)]
        least, most, seen = min(expected) / MOST_RATIO, max(expected) * MOST_RATIO, radii[0]
        if min(radii) and least and (max(radii) <= least or min(radii) >= most):
            told = " to ".join(f"{r:.0f}" for r in sorted({min(expected), max(expected)}))
            found.append(
                f"The mean of {len(chosen)} {name or 'particles'} falls to half at {seen:.0f} A from its centre, the "
                f"density at {told} A: is it another molecule, is a voxel size wrong, or are the positions?"
            )
    return found


def _half_radius(volume: torch.Tensor) -> float:
    """Radius in voxels beyond which the mean over shells stays below half of its greatest value; 0 where it never
    does. Within it, the transfer function may leave a dip.
    """
    n = volume.shape[-1]
    line = torch.arange(n) - n // 2
    shell = (line[:, None, None] ** 2 + line[:, None] ** 2 + line**2).sqrt().round().long().flatten()
    profile = torch.bincount(shell, weights=volume.flatten().double())[: n // 2] / torch.bincount(shell)[: n // 2]
    profile = profile - profile[-4:].median()
    top = int(profile.argmax())
    if profile[: max(1, n // 8)].mean() < -profile[top]:  # darker than what surrounds it: `describe` says so
        return 0.0
    outermost = int((profile >= profile[top] / 2).nonzero().max())
    return float(outermost + 1) if outermost + 1 < len(profile) else 0.0
