"""Poses: rotations, Euler angles and turned volumes, against known answers."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoetgan_core.simulator.specimen import (
    pose_to_relion_angles,
    random_rotations,
    random_shifts,
    reference_map,
    relion_angles_to_pose,
    rotate_volume,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_rotations_are_uniform():
    r = random_rotations(20000, generator())
    torch.testing.assert_close(r @ r.mT, torch.eye(3).double().expand_as(r))
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(len(r)).double())
    # Haar moments: E[R] = 0, E[R_ij^2] = 1/3, E[trace^2] = 1, and the angle's density (1 - cos) / pi
    assert r.mean(0).abs().max() < 0.02
    assert (r.square().mean(0) - 1 / 3).abs().max() < 0.015
    trace = r.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(trace.mean()) < 0.03 and abs(trace.square().mean() - 1) < 0.05
    angle = torch.acos(((trace - 1) / 2).clamp(-1, 1))
    for limit in (0.8, 1.6, 2.4):
        expected = (limit - torch.sin(torch.tensor(limit))) / torch.pi
        assert abs((angle < limit).double().mean() - expected) < 0.012


def test_draws_depend_on_the_generator_only():
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    a, s = random_rotations(4, generator(7)), random_shifts(4, 50.0, generator(7))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(a, random_rotations(4, generator(7)))
    assert not torch.equal(a, random_rotations(4, generator(8)))
    assert s.shape == (4, 3) and s.abs().max() <= 50


def test_shifts_fill_the_cube():
    s = random_shifts(5000, 30.0, generator())
    assert s.abs().max() <= 30 and s.mean(0).abs().max() < 1.0
    assert (s.std(0) - 30 / 3**0.5).abs().max() < 0.5
    with pytest.raises(ValueError, match="max_shift_A"):
        random_shifts(1, -1.0, generator())


def test_a_pose_is_relions_euler_matrix():
    # A, by an independent implementation: the inverse of the intrinsic ZYZ rotation
    angles = torch.tensor([[10.0, 20.0, 30.0], [-170.0, 95.0, 140.0], [0.0, 180.0, 45.0]])
    expected = Rotation.from_euler("ZYZ", angles.numpy(), degrees=True).inv().as_matrix()
    torch.testing.assert_close(relion_angles_to_pose(*angles.T), torch.from_numpy(expected))
    back = torch.stack(pose_to_relion_angles(torch.from_numpy(expected[:2])), 1)
    torch.testing.assert_close(back, angles[:2].double())
    # the third row is the direction of view in the reference's frame
    row = relion_angles_to_pose(torch.tensor(90.0), torch.tensor(90.0), torch.tensor(33.0))[2]
    torch.testing.assert_close(row, torch.tensor([0.0, 1.0, 0.0]).double())


def test_euler_round_trip():
    g = generator(3)
    rot, psi = (torch.rand(2, 500, generator=g, dtype=torch.float64) * 2 - 1) * 179.9
    tilt = torch.rand(500, generator=g, dtype=torch.float64) * 179 + 0.5
    back = pose_to_relion_angles(relion_angles_to_pose(rot, tilt, psi))
    for found, given in zip(back, (rot, tilt, psi), strict=True):
        assert (found - given).abs().max() < 1e-4
    matrices = random_rotations(500, g)
    again = relion_angles_to_pose(*pose_to_relion_angles(matrices))
    assert (again - matrices).abs().max() < 1e-9


@pytest.mark.parametrize("tilt", [0.0, 180.0])
def test_euler_at_the_poles(tilt):
    a = relion_angles_to_pose(torch.tensor(25.0), torch.tensor(tilt), torch.tensor(60.0))
    rot, found, psi = pose_to_relion_angles(a)
    assert rot == 0 and found == pytest.approx(tilt)
    torch.testing.assert_close(relion_angles_to_pose(rot, found, psi), a)


@pytest.mark.parametrize("size", [17, 24])
def test_quarter_turns_equal_rot90(size):
    volume = torch.zeros(size, size, size)
    c = size // 2
    inner = slice(c - 5, c + 6)  # the same reach on both sides of the centre
    volume[inner, inner, inner] = torch.randn(11, 11, 11, generator=generator())
    # a quarter turn about z sends x to y: in a volume (z, y, x) that is rot90 from dim 2 to dim 1
    about_z = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    about_x = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # y to z
    out = rotate_volume(volume, torch.stack((about_z, about_x)), torch.zeros(2, 3), 7.0)
    crop = volume[inner, inner, inner]
    for found, dims in zip(out, ((2, 1), (1, 0)), strict=True):
        torch.testing.assert_close(found[inner, inner, inner], torch.rot90(crop, 1, dims), atol=1e-4, rtol=0)


def test_a_point_lands_where_the_docstring_says():
    size, voxel = 32, 5.0
    r_zyx = torch.stack(torch.meshgrid(*[torch.arange(size) - size // 2] * 3, indexing="ij"), -1).double()
    x = torch.tensor([20.0, -10.0, 5.0])  # xyz, angstrom
    blob = torch.exp(-(r_zyx * voxel - x.flip(0)).square().sum(-1) / (2 * 9.0**2))
    matrices, shifts = random_rotations(3, generator(5)), random_shifts(3, 15.0, generator(6))
    out = rotate_volume(blob, matrices, shifts, voxel, box=30)
    grid = (r_zyx[1:31, 1:31, 1:31] * voxel).reshape(-1, 3)
    for volume, matrix, shift in zip(out, matrices, shifts, strict=True):
        found = (volume.reshape(-1, 1) * grid).sum(0) / volume.sum()
        torch.testing.assert_close(found, (matrix @ x.double()).flip(0) + shift, atol=0.3, rtol=0)


def test_identity_is_exact_and_batches_equal_single_volumes():
    volume = torch.randn(2, 12, 12, 12, generator=generator())
    eye = torch.eye(3).expand(2, 3, 3)
    torch.testing.assert_close(rotate_volume(volume, eye, torch.zeros(2, 3), 9.4), volume, atol=1e-5, rtol=0)
    turns = random_rotations(2, generator())
    both = rotate_volume(volume, turns, torch.zeros(2, 3), 9.4)
    torch.testing.assert_close(both[1:], rotate_volume(volume[1], turns[1:], torch.zeros(1, 3), 9.4))


@pytest.mark.parametrize(("upsample", "limit"), [(2, 0.04), (3, 0.02)])
def test_interpolation_error_is_what_the_docstring_says(upsample, limit):
    volume = reference_map("t20s", voxel_size_A=9.4, resolution_A=18.8, box=28)
    turns = random_rotations(3, generator())
    exact = rotate_volume(volume, turns, torch.zeros(3, 3), 9.4, upsample=8)
    error = rotate_volume(volume, turns, torch.zeros(3, 3), 9.4, upsample=upsample) - exact
    assert error.square().mean().sqrt() / exact.square().mean().sqrt() < limit


def test_bad_poses_are_refused():
    volume, zero = torch.zeros(8, 8, 8), torch.zeros(1, 3)
    eye = torch.eye(3)[None]
    for args in (
        (volume[0], eye, zero, 1.0),
        (volume, eye, torch.zeros(2, 3), 1.0),
        (volume.expand(2, 8, 8, 8), eye, zero, 1.0),
        (volume, 2 * eye, zero, 1.0),
        (volume, -eye, zero, 1.0),
        (volume, eye, zero, 0.0),
    ):
        with pytest.raises(ValueError):
            rotate_volume(*args)
    with pytest.raises(ValueError, match="expected orthonormal"):
        pose_to_relion_angles(torch.ones(3, 3))
    with pytest.raises(ValueError, match="expected 0 or more"):
        random_rotations(-1, generator())
