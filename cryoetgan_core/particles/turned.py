"""Particles in another frame: the beam along z, or the other hand."""

import numpy as np
import torch

from ..volumes.poses import mirrored_z, pose_to_relion_angles, rotations_of
from ..volumes.table import ANGLE_COLUMNS, ParticleSet


def beam_to_z(particles: ParticleSet, beam_axis: str) -> ParticleSet:
    """Particles turned so that the beam, along `beam_axis` before, goes along z."""
    other = 1 if beam_axis == "y" else 2  # index axis that changes places with the first
    n, table = particles.volumes.shape[-1], particles.table.copy()
    turn = torch.eye(3, dtype=torch.float64)  # from new to old zyx offsets
    turn[[0, other]] = turn[[other, 0]]
    turn[other] *= -1
    angles, shifts = ["rot_deg", "tilt_deg", "psi_deg"], ["shift_z_A", "shift_y_A", "shift_x_A"]
    if table[angles].notna().all(axis=None):
        poses = rotations_of(table)
        # a pose ends in the particle's frame, which is what turns: from the left, from old to new, on xyz
        table[angles] = torch.stack(pose_to_relion_angles(turn.flip((0, 1)).mT @ poses), 1).numpy()
    if table[shifts].notna().all(axis=None):
        old = table[shifts].to_numpy(float, copy=True)
        # an even box turns about half a voxel before its centre n // 2
        old[:, other] += particles.voxel_size_A * (n % 2 == 0)
        table[shifts] = old @ turn.numpy()
    turned = particles.map(lambda v: np.rot90(v, axes=(0, other)))
    return ParticleSet(turned.volumes, table, particles.voxel_size_A)


def mirrored(particles: ParticleSet) -> ParticleSet:
    """The mirror image along z of particles, about the centre n // 2 of the box, with that of their poses and tilts."""
    table, angles = particles.table.copy(), list(ANGLE_COLUMNS)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))  # on xyz
    if table[angles].notna().all(axis=None):
        poses = rotations_of(table)
        table[angles] = torch.stack(pose_to_relion_angles(mirror @ poses @ mirror), 1).numpy()
    for column in {"shift_z_A", "centred_z_A"} & set(table):
        table[column] = -table[column]
    if "tilt_min_deg" in table:
        table["tilt_min_deg"], table["tilt_max_deg"] = -table["tilt_max_deg"], -table["tilt_min_deg"]
    flipped = particles.map(lambda v: mirrored_z(torch.tensor(v)).numpy())
    return ParticleSet(flipped.volumes, table, particles.voxel_size_A)
