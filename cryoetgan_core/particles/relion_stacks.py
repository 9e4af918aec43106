"""RELION 5 and WarpTools particles kept as 2-D tilt stacks: volumes in the tomogram's frame, and their mean.

Conventions, of the pose in `volumes.poses`, of the images measured on 30 real ribosomes of WarpTools
(rlnTomoHand -1):

* the projection matrix ``M`` (rows rlnTomoProjX, Y, Z) is used as written: the tomogram's point x (xyz) is
  seen at (u, v) = first two entries of ``M x``; columns of an image run along u, rows along v; stack and
  tomogram table have the same order. The common line of the tilts confirms the direction of the axis.
* images are centred on the pixel ``size // 2``, without a half-pixel shift.
* the mirror image of that one data set: the particles' mean correlates 0.66 with the published average and
  0.79 with its mirror image along z. RELION 5 itself gets 0.667 and 0.796 from these stacks, so the mirror is
  in the data (most likely the sign of the tilt angles when the series were imported), not in the convention.
  ``mirror_z=True`` is for such data sets; data of another origin need not be mirrored.
* CTF-premultiplied WarpTools stacks show protein BRIGHT.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..volumes.lazy import empty_volumes
from ..volumes.maps import read_map, resample
from ..volumes.poses import relion_angles_to_pose
from ..volumes.table import ParticleSet, check_voxel_size, particle_table, protein_sign
from .relion_series import TiltStack, open_tilt_stacks, read_images, recorded
from .tilt_stack import WIENER, check_wiener, ctf_of_tilts, insert_tilts, to_volume


def read_tilt_stack_particles(
    path: str | Path,
    *,
    box: int | None = None,
    target_voxel_size_A: float | None = None,
    protein: Literal["bright", "dark"] = "bright",
    wiener: float = WIENER,
    coordinate_voxel_size_A: float | None = None,
    class_name: str = "",
    limit: int | None = None,
) -> ParticleSet:
    """Back-project every particle of an optimisation set into a volume as a subtomogram would show it.

    Frame of the tomogram: the beam is z, the missing wedge is in place, poses are in the table and not
    applied. Tilts that rlnTomoVisibleFrames marks 0 are left out. The defocus is that of the tomogram's
    centre, as the file gives it: a particle's own depth is not taken into account.

    Parameters
    ----------
    path
        optimisation_set.star, or a particles.star beside its tomograms.star.
    box, target_voxel_size_A
        of the result; by default those of the stacks. Coarser voxels are low-passed first.
    protein
        how the stacks show it; the result is always bright.
    wiener
        constant c of `tilt_stack`; smaller lifts weakly transferred frequencies, noise with them.
    coordinate_voxel_size_A
        unit of rlnCoordinateX, Y, Z; by default the pixel of the stacks, which is what WarpTools writes.
    limit
        read this many particles only.

    Raises ValueError, here and in `open_tilt_stacks`, before any back-projection, when a file or column is
    missing, stacks do not match the tables, or a name leads out of the file's folder.
    """
    sign = protein_sign(protein, path)
    stacks = open_tilt_stacks(path)[:limit]
    if not stacks:
        raise ValueError(f"{path}: no particles to read (limit {limit}); expected at least one")
    size, pixel = stacks[0].size, stacks[0].pixel_size_A
    box, voxel = box or size, target_voxel_size_A or pixel
    check_voxel_size(voxel, path)
    if box < 1 or box * voxel > size * pixel * 1.001:
        raise ValueError(
            f"{path}: a box of {box} voxels of {voxel:g} A does not fit the stacks' {size} of {pixel:g} A; expected at "
            f"most {int(size * pixel / voxel)} voxels of that size"
        )
    check_wiener(wiener)
    volumes = empty_volumes((len(stacks), box, box, box))
    for i, stack in enumerate(stacks):
        volume = to_volume(insert_tilts(*_inputs(stack), premultiplied=stack.premultiplied), wiener)
        if (box, voxel) != (size, pixel):
            volume = resample(volume, pixel, new_voxel_size_A=voxel, box=box)
        volumes[i] = sign * volume.numpy()
    return ParticleSet(volumes, _table(path, stacks, coordinate_voxel_size_A or pixel, class_name), voxel)


def average_with_poses(path: str | Path, *, mirror_z: bool = False) -> tuple[Tensor, Tensor]:
    """Mean of all particles in the frame of the reference, Wiener-filtered by its own half sets.

    All tilts of all particles go into one transform, each behind its pose. The Fourier shell correlation F
    between odd and even particles gives each shell the factor ``2F / (1 + F)``, the Wiener filter of the full
    set (Rosenthal and Henderson, J. Mol. Biol. 333, 2003).

    Parameters
    ----------
    mirror_z
        return the mirror image along z, for files whose tomograms are mirror images: see this module's text.

    Returns
    -------
    The average (B, B, B) on the grid of the stacks, protein bright; F (B // 2 + 1,), one a shell of one
    Fourier voxel of the box, the mean (shell 0, which stacks do not hold) set to 0.

    Raises ValueError as `read_tilt_stack_particles`, and for fewer than two particles.
    """
    stacks = open_tilt_stacks(path)
    if len(stacks) < 2:
        raise ValueError(f"{path}: {len(stacks)} particle, expected two or more to average")
    halves = [0, 0]
    for i, stack in enumerate(stacks):
        images, matrices, ctf = _inputs(stack)
        matrices = matrices @ relion_angles_to_pose(*torch.tensor(stack.angles_deg)).to(matrices.dtype)
        if mirror_z:
            matrices = matrices * torch.tensor([1.0, 1.0, -1.0])
        halves[i % 2] = halves[i % 2] + insert_tilts(images, matrices, ctf, premultiplied=stack.premultiplied)
    first, second = (to_volume(half, WIENER) for half in halves)
    correlation, shell = _shell_correlation(first, second)
    gain = 2 * correlation.clamp(0, 1) / (1 + correlation.clamp(0, 1))
    full = to_volume(halves[0] + halves[1], WIENER)
    return torch.fft.ifftn(torch.fft.fftn(full) * gain[shell]).real, correlation


def _shell_correlation(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Fourier shell correlation (B // 2 + 1,), and the shell of each voxel (B, B, B), corners in the last."""
    box = first.shape[0]
    axis = torch.fft.fftfreq(box) * box
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    shell = radius.round().long().clamp(max=box // 2)
    a, b = torch.fft.fftn(first), torch.fft.fftn(second)
    products = ((a * b.conj()).real, a.abs() ** 2, b.abs() ** 2)
    ab, aa, bb = (
        torch.bincount(shell.flatten(), weights=p.flatten().double(), minlength=box // 2 + 1) for p in products
    )
    correlation = (ab / (aa * bb).sqrt().clamp(min=1e-30)).float()
    correlation[0] = 0.0
    return correlation, shell


def _inputs(stack: TiltStack) -> tuple[Tensor, Tensor, Tensor]:
    """Visible images (T, B, B), projection matrices (T, 3, 3) and CTF of one particle."""
    return read_images(stack), torch.tensor(stack.matrices[stack.visible], dtype=torch.float32), ctf_of_tilts(stack)


def _table(path: str | Path, stacks: list[TiltStack], unit_A: float, class_name: str) -> pd.DataFrame:
    angles = np.array([s.angles_deg for s in stacks])
    position = np.array([s.coordinates for s in stacks]) * unit_A
    # RELION's origin offsets move the particle's centre by minus their value
    shift = -np.array([s.origins_A for s in stacks])
    told = pd.DataFrame([recorded(s) for s in stacks])
    return particle_table(
        len(stacks),
        class_name=class_name,
        particle=[s.name for s in stacks],
        tomogram=[s.tomogram for s in stacks],
        source=str(path),
        **dict(zip(("rot_deg", "tilt_deg", "psi_deg"), angles.T, strict=True)),
        **dict(zip(("x_A", "y_A", "z_A"), position.T, strict=True)),
        **dict(zip(("shift_x_A", "shift_y_A", "shift_z_A"), shift.T, strict=True)),
        **{column: told[column].to_numpy() for column in told},
    )


def average_correlation(path: str | Path, average: str | Path, *, mirror_z: bool = False) -> float:
    """Normalised correlation, over the whole box, of the particles' aligned mean with a given average (MRC).

    Parameters
    ----------
    mirror_z
        compare the mirror image along z, for data sets whose tomograms are mirror images (see this module's text).

    Raises ValueError as `average_with_poses`, and when the average's box is not that of the stacks.
    """
    given, _ = read_map(average)
    mean, _ = average_with_poses(path, mirror_z=mirror_z)
    if mean.shape != given.shape:
        raise ValueError(f"{average}: box {tuple(given.shape)}; expected that of the stacks, {tuple(mean.shape)}")
    return float(torch.corrcoef(torch.stack([mean.flatten(), given.flatten().to(mean)]))[0, 1])
