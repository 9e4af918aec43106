"""What a density map holds: the molecule's outline, separate molecules, centre of mass and size.

Volumes are (D, H, W) tensors indexed zyx in which the molecule is brighter than the solvent.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
import torch
from torch import Tensor


def outline_level(volume: Tensor) -> float:
    """The threshold between solvent and molecule: Otsu's (IEEE Trans. SMC 9, 1979), on positive voxels."""
    values = volume[volume > 0].double()
    if values.numel() < 2 or values.max() <= values.min():
        raise ValueError(
            "outline_level: the map has no contrast (no positive voxels, or all equal); expected a "
            "molecule brighter than the solvent (multiply a map with a dark one by -1)"
        )
    counts = torch.histc(values, 256)
    width = (values.max() - values.min()) / 256
    centres = values.min() + width * (torch.arange(256, dtype=torch.float64) + 0.5)
    below, total = counts.cumsum(0), counts.sum()
    first = (counts * centres).cumsum(0)
    between = (first[-1] * below / total - first) ** 2 / (below * (total - below)).clamp(min=1)
    return centres[between.argmax()].item()


def split_molecules(volume: Tensor) -> list[Tensor]:
    """The separate molecules of a map, largest first: each (D, H, W), 0 outside its own neighbourhood.

    Molecules are connected components above its `outline_level` of at least a quarter of the
    volume of the largest; every voxel within two voxels of one goes to the nearest.
    """
    labels, _ = scipy.ndimage.label((volume > outline_level(volume)).numpy())
    sizes = np.bincount(labels.ravel())[1:]
    kept = [int(i) + 1 for i in np.argsort(-sizes, kind="stable") if sizes[i] >= 0.25 * sizes.max()]
    far, nearest = scipy.ndimage.distance_transform_edt(~np.isin(labels, kept), return_indices=True)
    owner = labels[tuple(nearest)] * (far <= 2)
    return [volume * torch.from_numpy(owner == label) for label in kept]


def centre_of_mass(volume: Tensor, level: float = 0.0) -> Tensor:
    """(3,) zyx voxel indices (float64) of the centre of the density above ``level``."""
    weight = torch.where(volume > level, volume, 0).double()
    if not weight.sum() > 0:
        raise ValueError(f"centre_of_mass: no density above {level} in a map of maximum {volume.max().item():g}")
    sums = [weight.sum(tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    return torch.stack([(s * torch.arange(len(s))).sum() / s.sum() for s in sums])


def radius_of_gyration(volume: Tensor, voxel_size_A: float, level: float = 0.0) -> float:
    """Root mean square distance in angstrom of the density above ``level`` from its centre of mass."""
    weight = torch.where(volume > level, volume, 0).double()
    centre = centre_of_mass(volume, level)
    axes = [(torch.arange(n, dtype=torch.float64) - c) ** 2 for n, c in zip(volume.shape, centre, strict=True)]
    square = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    return math.sqrt(((weight * square).sum() / weight.sum()).item()) * voxel_size_A
