"""Poses: random rotations and shifts, RELION Euler angles, and volumes turned into a pose.

Conventions
-----------
A pose is a rotation ``R`` acting on **xyz** column vectors and a shift in angstrom, **zyx** as volumes are
indexed. A point ``x`` of the reference (seen from its centre) lies at ``R x + shift`` in the particle's box,
so

    output(r) = reference(R^T (r - shift)).

RELION's angles give the same rotation: ``R = A``, its Euler matrix, scipy's
``Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).inv()``. RELION 3.1, 4 and 5, Warp and M place the
point ``x`` of the reference at ``A x`` in the particle. Whatever reads or writes angles goes through
`relion_angles_to_pose` and `pose_to_relion_angles`. Files that hold matrices from the reference to the tomogram
(copick, the CryoET Data Portal) hold ``R`` itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor


def random_rotations(n: int, generator: torch.Generator) -> Tensor:
    """Rotations uniform on SO(3) (Haar measure), as (n, 3, 3) matrices acting on xyz column vectors.

    Drawn as normalised 4-D Gaussian vectors read as unit quaternions (Shoemake 1992), on the generator's
    device.
    """
    if n < 0:
        raise ValueError(f"random_rotations: n is {n}, expected 0 or more")
    q = torch.randn(n, 4, generator=generator, device=generator.device, dtype=torch.float64)
    return quaternions_to_matrices(q)


def quaternions_to_matrices(quaternions: Tensor) -> Tensor:
    """Rotations (n, 3, 3) on xyz column vectors of quaternions (n, 4), wxyz, of any length but 0."""
    w, x, y, z = (quaternions / quaternions.norm(dim=1, keepdim=True)).unbind(1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)), 1),
        torch.stack((2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)), 1),
        torch.stack((2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)), 1),
    )
    return torch.stack(rows, 1)


def random_shifts(n: int, max_shift_A: float, generator: torch.Generator) -> Tensor:
    """Shifts (n, 3) zyx in angstrom, uniform in the cube from ``-max_shift_A`` to ``+max_shift_A``."""
    if n < 0 or max_shift_A < 0:
        raise ValueError(f"random_shifts: n {n} and max_shift_A {max_shift_A} must both be 0 or more")
    unit = torch.rand(n, 3, generator=generator, device=generator.device, dtype=torch.float64)
    return (2 * unit - 1) * max_shift_A


def relion_angles_to_pose(rot_deg: Tensor, tilt_deg: Tensor, psi_deg: Tensor) -> Tensor:
    """Poses R (..., 3, 3), on xyz column vectors, of RELION's angles (...) in degrees.

    RELION's Euler matrix A, in the 3DEM convention (Heymann, Chagoyen and Belnap, J. Struct. Biol. 151, 2005).
    """
    angles = (torch.as_tensor(a, dtype=torch.float64) for a in (rot_deg, tilt_deg, psi_deg))
    a, b, g = torch.broadcast_tensors(*(torch.deg2rad(v) for v in angles))
    ca, cb, cg, sa, sb, sg = a.cos(), b.cos(), g.cos(), a.sin(), b.sin(), g.sin()
    rows = (
        torch.stack((cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb), -1),
        torch.stack((-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb), -1),
        torch.stack((sb * ca, sb * sa, cb), -1),
    )
    return torch.stack(rows, -2)


def rotations_of(table: pd.DataFrame, columns: Sequence[str] = ("rot_deg", "tilt_deg", "psi_deg")) -> Tensor:
    """Poses (N, 3, 3) that the angles of a table tell."""
    return relion_angles_to_pose(*torch.from_numpy(table[list(columns)].to_numpy(float, copy=True)).unbind(1))


def mirrored_z(volume: Tensor) -> Tensor:
    """The mirror image of (n, n, n) along z, about the voxel n // 2; an even box has no voxel opposite its first."""
    return volume.flip(0).roll(1 - len(volume) % 2, 0)


def pose_to_relion_angles(rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """RELION's angles (rot, tilt, psi), each (...) in degrees, of poses R (..., 3, 3).

    rot and psi lie in (-180, 180], tilt in [0, 180]. At tilt 0 or 180 only one angle is defined: rot is then 0.
    """
    m = _checked_matrices(rotations.to(torch.float64))
    sin_tilt = torch.hypot(m[..., 2, 0], m[..., 2, 1])
    tilt = torch.atan2(sin_tilt, m[..., 2, 2])
    # below this the rounding of a float64 matrix product decides atan2, not the pose
    locked = sin_tilt < 1e-7
    rot = torch.where(locked, 0.0, torch.atan2(m[..., 2, 1], m[..., 2, 0]))
    psi_locked = torch.atan2(m[..., 0, 1], m[..., 0, 0] * torch.sign(m[..., 2, 2]))
    psi = torch.where(locked, psi_locked, torch.atan2(m[..., 1, 2], -m[..., 0, 2]))
    return torch.rad2deg(rot), torch.rad2deg(tilt), torch.rad2deg(psi)


def rotate_volume(
    volumes: Tensor, matrices: Tensor, shifts_A: Tensor, voxel_size_A: float, box: int | None = None, upsample: int = 3
) -> Tensor:
    """Volumes turned into poses: ``output(r) = reference(R^T (r - shift))``.

    Parameters
    ----------
    volumes
        (D, H, W): one reference for all poses, or (B, D, H, W): one each; zyx, centre at index ``size // 2``.
    matrices
        (B, 3, 3) rotations R acting on xyz column vectors (see the module's text).
    shifts_A
        (B, 3) zyx, angstrom.
    voxel_size_A
        of the reference and of the output.
    box
        edge of the output in voxels, centre at ``box // 2``; by default the reference's. Outside the
        reference is 0: a reference that fills space (a membrane) needs an edge of at least ``sqrt(3) * box``.
    upsample
        factor of the exact Fourier upsampling before the trilinear look-up. On built-in references low-passed
        to 2 voxels the error (relative RMS against 8) is 8 to 11 % at 1, 2 to 3 % at 2, about 1 % at 3.

    Returns
    -------
    Tensor
        (B, box, box, box), type and device of ``volumes``.

    Raises ValueError when shapes disagree, a matrix is no rotation, or voxel size, box or upsample is not positive.
    """
    if volumes.ndim not in (3, 4) or not volumes.is_floating_point():
        raise ValueError(
            f"rotate_volume: volumes has shape {tuple(volumes.shape)} and type {volumes.dtype}, expected "
            "floating point (D, H, W) or (B, D, H, W)"
        )
    n = matrices.shape[0] if matrices.ndim == 3 else -1
    if n < 0 or tuple(shifts_A.shape) != (n, 3) or (volumes.ndim == 4 and volumes.shape[0] != n):
        raise ValueError(
            f"rotate_volume: volumes {tuple(volumes.shape)}, matrices {tuple(matrices.shape)}, shifts_A "
            f"{tuple(shifts_A.shape)}; expected (B, 3, 3) matrices, (B, 3) shifts and one volume or B of them"
        )
    size = volumes.shape[-1] if box is None else box
    if not voxel_size_A > 0 or size < 1 or upsample < 1:
        raise ValueError(
            f"rotate_volume: voxel_size_A {voxel_size_A}, box {size}, upsample {upsample}; all must be positive"
        )
    _checked_matrices(matrices.to(torch.float64))
    kind = {"dtype": volumes.dtype, "device": volumes.device}
    shape = torch.tensor(volumes.shape[-3:], **kind)
    axis = torch.arange(size, **kind) - size // 2
    r_zyx = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    # R acts on xyz; reversing both of its axes gives the same rotation acting on zyx
    r_matrix_zyx = matrices.to(**kind).flip(1, 2)
    shifts = shifts_A.to(**kind) / voxel_size_A
    shared = _fourier_upsample(volumes, upsample) if volumes.ndim == 3 else None
    out = torch.empty((n, size, size, size), **kind)
    for part in torch.arange(n).split(8):  # a few at a time: the grid is three times the output
        fine = (
            torch.stack([_fourier_upsample(volumes[b], upsample) for b in part])
            if shared is None
            else shared.expand(len(part), -1, -1, -1)
        )
        # row vectors: (R^T v)^T = v^T R
        index = ((r_zyx - shifts[part, None]) @ r_matrix_zyx[part] + shape.div(2, rounding_mode="floor")) * upsample
        # grid_sample wants xyz in -1..1 between the centres of the first and last voxels
        grid = (2 * index / (shape * upsample - 1).clamp(min=1) - 1).flip(-1).reshape(-1, size, size, size, 3)
        out[part] = F.grid_sample(fine[:, None], grid, mode="bilinear", align_corners=True)[:, 0]
    return out


def _fourier_upsample(volume: Tensor, factor: int) -> Tensor:
    """The band-limited (D, H, W) volume on a ``factor`` times finer grid; voxel i becomes ``factor * i``."""
    if factor == 1:
        return volume
    spectrum = torch.fft.fftshift(torch.fft.fftn(volume))
    pad = []
    for n in reversed(volume.shape):  # keep the zero frequency, at n // 2, at the new centre
        before = n * factor // 2 - n // 2
        pad += [before, n * factor - n - before]
    fine = torch.fft.ifftn(torch.fft.ifftshift(F.pad(spectrum, pad)))
    # the real part also splits an even size's lone Nyquist plane between its two signs
    return fine.real * float(factor**3)


def _checked_matrices(matrices: Tensor) -> Tensor:
    """The matrices, or a ValueError when one is not a proper rotation."""
    if matrices.shape[-2:] != (3, 3):
        raise ValueError(f"rotation matrices have shape {tuple(matrices.shape)}, expected (..., 3, 3)")
    eye = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    error = (matrices @ matrices.mT - eye).abs()
    if not (error < 1e-3).all() or not (torch.linalg.det(matrices) > 0).all():
        raise ValueError(
            f"not rotation matrices: |M M^T - 1| reaches {error.max().item():.3g} or a "
            "determinant is negative; expected orthonormal right-handed matrices"
        )
    return matrices
