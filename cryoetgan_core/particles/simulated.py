"""The embedded data: domain X (density maps in known poses) and domain Y (simulated subtomograms), unpaired.

X and Y are drawn from separate random streams, so no instance of one shares its pose with the other; train and test halves are
separate streams too. Everything follows from the seed.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..microscope.simulate import Microscope, noise_scale, reconstruct_noise, reconstruct_signal
from ..specimen import matrix_to_relion_euler, random_rotations, random_shifts, reference_map, rotate_volume
from .table import ParticleSet, particle_table

RESOLUTION_VOXELS = 2.2  # density maps are low-passed to this many voxels, just above Nyquist
MARGIN = 0.25  # the specimen box reaches this fraction of the subtomogram's box beyond it on each side
NEIGHBOURS = 0.5  # mean number of other particles, centred 0.6 to 0.9 boxes away: they reach into the specimen box or just miss it
UPSAMPLE = 2  # Fourier upsampling before a reference is turned: 2 to 3 % relative error
MAX_SHIFT = 0.06  # particles sit off centre by up to this fraction of the box, as picks do


def specimen_box(box: int) -> int:
    """Voxels a side of the simulated specimen around a subtomogram of `box` voxels."""
    return box + 2 * round(MARGIN * box)


def class_references(
    classes: tuple[str, ...], box: int, voxel_size_A: float, maps: Mapping[str, str | Path] | None = None
) -> dict[str, torch.Tensor]:
    """Reference density (M, M, M) of each class, centred, protein interior about 1.

    M is large enough that a copy in any pose fills the specimen box, which a membrane needs.

    Parameters
    ----------
    maps : class name to file (atomic model or density map) that replaces the embedded model of that class.

    Raises
    ------
    ValueError
        If `maps` names a class that is not among `classes`, or a file cannot be read as what its name says.
    """
    unknown = set(maps or {}) - set(classes)
    if unknown:
        raise ValueError(f"A density is given for {sorted(unknown)}; the classes are {', '.join(classes)}.")
    side = 2 * math.ceil(math.sqrt(3) * (specimen_box(box) / 2 + MAX_SHIFT * box))
    return {
        name: reference_map(
            (maps or {}).get(name, name), voxel_size_A=voxel_size_A, resolution_A=RESOLUTION_VOXELS * voxel_size_A, box=side
        )
        for name in classes
    }


def _poses(
    classes: tuple[str, ...], per_class: int, box: int, voxel_size_A: float, generator: torch.Generator
) -> tuple[pd.DataFrame, torch.Tensor, torch.Tensor]:
    """Random poses of `per_class` instances of each class, class after class: table, rotations (N, 3, 3), shifts (N, 3)."""
    n = per_class * len(classes)
    rotations = random_rotations(n, generator)
    shifts = random_shifts(n, MAX_SHIFT * box * voxel_size_A, generator)
    # RELION's Euler matrix turns the particle back onto the reference: the inverse of our pose
    rot, tilt, psi = (angle.numpy() for angle in matrix_to_relion_euler(rotations.mT))
    table = particle_table(
        n, class_name=np.repeat(classes, per_class), particle=[f"{i:06d}" for i in range(n)], rot_deg=rot, tilt_deg=tilt, psi_deg=psi,
        shift_z_A=shifts[:, 0].numpy(), shift_y_A=shifts[:, 1].numpy(), shift_x_A=shifts[:, 2].numpy(),
    )  # fmt: skip
    return table, rotations, shifts


def density_maps(
    references: Mapping[str, torch.Tensor], per_class: int, box: int, voxel_size_A: float, generator: torch.Generator
) -> ParticleSet:
    """Domain X: `per_class` random poses of every class's reference, (N, box, box, box), class after class."""
    table, rotations, shifts = _poses(tuple(references), per_class, box, voxel_size_A, generator)
    volumes = [
        rotate_volume(reference, rotations[i : i + per_class], shifts[i : i + per_class], voxel_size_A, box=box, upsample=UPSAMPLE)
        for reference, i in zip(references.values(), range(0, len(table), per_class), strict=True)
    ]
    return ParticleSet(torch.cat(volumes).float().numpy(), table, voxel_size_A)


def subtomograms(
    references: Mapping[str, torch.Tensor],
    per_class: int,
    box: int,
    voxel_size_A: float,
    microscope: Microscope,
    generator: torch.Generator,
    *,
    snr: float,
    noise_std: float | None = None,
    chunk: int = 16,
) -> ParticleSet:
    """Domain Y: `per_class` simulated subtomograms of every class, (N, box, box, box), protein bright.

    Each specimen holds its particle and a random number of neighbours around it, at a defocus of its own. One noise level serves the whole set, so that
    weakly scattering classes have the lower SNR, as in one tomogram: the level that gives the mean `snr`, or `noise_std` (per image pixel) where given, as
    for a test half that must share its train half's. The table tells each particle's defocus, height, dose, tilt range, SNR and the noise level.
    """
    table, rotations, shifts = _poses(tuple(references), per_class, box, voxel_size_A, generator)
    n, m = len(table), specimen_box(box)
    spread = 2 * torch.rand(n, generator=generator) - 1
    height_A = microscope.ice_thickness_A * (torch.rand(n, generator=generator) - 0.5)
    defocus = microscope.defocus_um + microscope.defocus_spread_um * spread + height_A / 1e4
    specimens = _neighbours(references, n, box, voxel_size_A, generator)
    for reference, i in zip(references.values(), range(0, n, per_class), strict=True):
        own = slice(i, i + per_class)
        specimens[own] += rotate_volume(reference, rotations[own], shifts[own], voxel_size_A, box=m, upsample=UPSAMPLE)
    signal, noise = [], []
    for part, d in zip(specimens.split(chunk), defocus.split(chunk), strict=True):
        signal.append(reconstruct_signal(part, microscope, d, voxel_size_A, box))
        noise.append(reconstruct_noise(len(part), microscope, box, (m - box) // 2, generator))
    signal, noise = torch.cat(signal), torch.cat(noise)
    noise_std = noise_scale(signal, noise, snr) if noise_std is None else noise_std
    table = table.assign(
        defocus_um=defocus.numpy(), height_A=height_A.numpy(), dose_e_A2=microscope.total_dose_e_A2,
        tilt_min_deg=microscope.tilt_min_deg, tilt_max_deg=microscope.tilt_max_deg,
        snr=(signal.var(dim=(1, 2, 3)) / (noise_std**2 * noise.var())).numpy(), noise_std=noise_std,
    )  # fmt: skip
    return ParticleSet((signal + noise_std * noise).numpy(), table, voxel_size_A)


def _neighbours(
    references: Mapping[str, torch.Tensor], count: int, box: int, voxel_size_A: float, generator: torch.Generator
) -> torch.Tensor:
    """Return specimens (count, M, M, M) that hold only neighbours: particles of the set whose centres lie 0.6 to 0.9 boxes away."""
    m = specimen_box(box)
    specimens = torch.zeros(count, m, m, m)
    others = [r for name, r in references.items() if name != "membrane"]  # a second membrane would cut through the particle
    if not others:
        return specimens
    owner = torch.arange(count).repeat_interleave(torch.poisson(torch.full((count,), NEIGHBOURS), generator=generator).long())
    kind = torch.randint(len(others), (len(owner),), generator=generator)
    direction = torch.randn(len(owner), 3, generator=generator, dtype=torch.float64)
    distance = (0.6 + 0.3 * torch.rand(len(owner), 1, generator=generator, dtype=torch.float64)) * box * voxel_size_A
    shifts, rotations = direction / direction.norm(dim=1, keepdim=True) * distance, random_rotations(len(owner), generator)
    for k, reference in enumerate(others):
        mine = kind == k
        volumes = rotate_volume(reference, rotations[mine], shifts[mine], voxel_size_A, box=m, upsample=UPSAMPLE)
        specimens.index_add_(0, owner[mine], volumes)
    return specimens
