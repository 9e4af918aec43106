"""Tomograms: axes, signs, cutting, picking, label volumes, and files that are broken."""

from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import torch
from common import SHARED, needs_shared
from scipy.ndimage import gaussian_filter

from cryoetgan_core.particles.coordinates import read_coordinates
from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.particles.picked import background
from cryoetgan_core.particles.picking import find_candidates, label_centres
from cryoetgan_core.particles.tomogram import cut_cubes, read_labelled_tomogram, read_tomogram

EXPERIMENTAL = SHARED / "experimental"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float16, np.float32])
@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".h5"])
def test_every_kind_and_type(tmp_path, suffix, dtype):
    data = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    path = tmp_path / f"a{suffix}"
    if suffix == ".mrc":
        mrcfile.write(path, data, voxel_size=7.0)
    elif suffix == ".tif":
        tifffile.imwrite(path, data, photometric="minisblack")
    else:
        with h5py.File(path, "w") as handle:
            handle["dataset"] = data
    volume, voxel = read_tomogram(path, 8.0, protein="bright")
    assert volume.dtype == np.float32 and voxel == 8.0
    np.testing.assert_array_equal(volume, data.astype(np.float32))
    np.testing.assert_array_equal(read_tomogram(path, 8.0, protein="dark")[0], -volume)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_beam_axis_is_turned_not_swapped(tmp_path, axis):
    # a right-handed corner: unit steps along x, y, z of different brightness; a rotation keeps its hand
    data = np.zeros((7, 7, 7), np.float32)
    for zyx, value in (((3, 3, 5), 1), ((3, 5, 3), 2), ((5, 3, 3), 3)):
        data[zyx] = value
    mrcfile.write(tmp_path / "a.mrc", data, voxel_size=7.0)
    volume, _ = read_tomogram(tmp_path / "a.mrc", beam_axis=axis, protein="bright")
    x, y, z = ((np.argwhere(volume == v)[0] - 3)[::-1] for v in (1, 2, 3))
    assert np.linalg.det(np.stack([x, y, z])) > 0
    assert abs({"x": x, "y": y}[axis][2]) == 2


def test_cubes_hold_the_voxels_around_their_point():
    volume = np.random.default_rng(0).normal(size=(20, 24, 28)).astype(np.float32)
    cut = cut_cubes(volume, 10.0, 8, coordinates=[(4, 5, 6), (15, 18, 23)])
    np.testing.assert_array_equal(cut.volumes[0], volume[0:8, 1:9, 2:10])
    np.testing.assert_array_equal(cut.volumes[1], volume[11:19, 14:22, 19:27])
    assert cut.table[["z_A", "y_A", "x_A"]].iloc[1].tolist() == [150.0, 180.0, 230.0]


def test_edges_are_refused_or_skipped():
    volume = np.ones((20, 20, 20), np.float32)
    points = [(10, 10, 10), (2, 10, 10)]
    with pytest.raises(ValueError, match="1 of 2 cubes .* leave"):
        cut_cubes(volume, 10.0, 8, coordinates=points)
    cut = cut_cubes(volume, 10.0, 8, coordinates=points, edge="skip", class_names=["a", "b"])
    assert cut.table["class_name"].tolist() == ["a"]
    with pytest.raises(ValueError, match="leave"):
        cut_cubes(volume, 10.0, 8, coordinates=points[1:], edge="skip")
    with pytest.raises(ValueError, match="either coordinates or n"):
        cut_cubes(volume, 10.0, 8)


def test_rescaling_keeps_waves_and_cuts_what_would_alias():
    x = np.arange(48)
    slow, fast = np.cos(2 * np.pi * x / 16), np.cos(2 * np.pi * x / 2.5)
    volume = np.broadcast_to(slow + fast, (48, 48, 48)).astype(np.float32)
    cut = cut_cubes(volume, 10.0, 12, 20.0, coordinates=[(24, 24, 24)])
    # centre 24 is voxel 6; the wave of 2.5 voxels lies above the new Nyquist frequency of 4 voxels
    expected = np.cos(2 * np.pi * (24 + 2 * (np.arange(12) - 6)) / 16)
    assert np.abs(cut.volumes[0] - expected).max() < 0.1 and cut.voxel_size_A == 20.0


def test_candidates_are_found_apart_and_inside():
    volume = np.random.default_rng(1).normal(size=(40, 60, 60)).astype(np.float32)
    blobs = np.zeros_like(volume)
    truth = np.array([(20, 15, 15), (20, 40, 20), (18, 30, 45)])
    blobs[tuple(truth.T)] = 4000
    volume += gaussian_filter(blobs, 3)
    found = find_candidates(volume, 10.0, 3, 160.0, border=8)
    assert (np.abs(found[:, None] - truth).max(-1).min(0) <= 2).all()
    drawn = [find_candidates(volume, 10.0, 3, 100.0, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    gaps = np.linalg.norm(drawn[0][:, None] - drawn[0], axis=-1)[np.triu_indices(3, 1)]
    assert gaps.min() * 10.0 >= 100.0
    with pytest.raises(ValueError, match="asked for"):
        find_candidates(volume, 10.0, 500, 160.0)


def test_background_keeps_off_picks_whose_boxes_do_not_fit(tmp_path: Path) -> None:
    """A pick near the face of a thin tomogram has no box, and is a particle all the same."""
    rng, side, box = np.random.default_rng(1), 160, 12
    volume = rng.normal(0, 1, (24, side, side)).astype(np.float32)
    fits = [(12, y, x) for y in range(8, side, 32) for x in range(8, side, 32)]
    at_the_face = [(2, y + 16, x + 16) for _, y, x in fits]
    mrcfile.write(tmp_path / "t.mrc", -volume, voxel_size=10.0)
    rows = "\n".join(f"{x},{y},{z}" for z, y, x in fits + at_the_face)
    (tmp_path / "picks.csv").write_text("x,y,z\n" + rows)
    options = {"coordinates": str(tmp_path / "picks.csv"), "coordinate_voxel_size_A": 10.0}
    particles = load_particles(tmp_path / "t.mrc", box, **options)
    assert len(particles) == len(fits) and len(particles.table.attrs["left_out"]) == len(at_the_face)
    empty = background(particles, options, [str(tmp_path / "t.mrc")])
    windows = np.lib.stride_tricks.sliding_window_view(volume, (box,) * 3)
    for cube in empty.volumes:
        corner = np.argwhere(windows[..., 0, 0, 0] == cube[0, 0, 0])[0]
        away = np.abs(corner + box // 2 - np.array(fits + at_the_face)).max(1)
        assert away.min() >= box // 2


@pytest.mark.parametrize("suffix", [".mrc", ".h5"])
def test_background_holds_neither_picks_nor_what_nobody_picked_nor_vacuum(tmp_path, suffix):
    side, box = 96, 12
    rng = np.random.default_rng(0)
    volume = rng.normal(0, 1, (side, side, side)).astype(np.float32)
    volume[:, :, :30] *= 0.05  # outside the ice
    grid = np.array([(z, y, x) for z in range(10, side, 19) for y in range(10, side, 19) for x in range(40, side, 19)])
    for z, y, x in grid:
        volume[z - 4 : z + 5, y - 4 : y + 5, x - 4 : x + 5] += 2
    picked = grid[::2]
    path, options = tmp_path / f"tomogram{suffix}", {}
    if suffix == ".mrc":
        mrcfile.write(path, -volume, voxel_size=10.0)
    else:
        with h5py.File(path, "w") as handle:
            handle["dataset"] = -volume
        options = {"voxel_size_A": 10.0}
    (tmp_path / "picks.csv").write_text("x,y,z\n" + "\n".join(f"{x},{y},{z}" for z, y, x in picked))
    options |= {"coordinates": str(tmp_path / "picks.csv"), "coordinate_voxel_size_A": 10.0}
    particles = load_particles(path, box, **options)
    empty = background(particles, options, [str(path)])
    assert len(empty) > 50 and set(empty.table["source"]) == {str(path)}
    windows = np.lib.stride_tricks.sliding_window_view(volume, (box,) * 3)
    for cube in empty.volumes[:40]:
        corner = np.argwhere(windows[..., 0, 0, 0] == cube[0, 0, 0])[0]  # the values of noise name their place
        np.testing.assert_array_equal(windows[tuple(corner)], cube)
        assert np.abs(picked - (corner + box // 2)).max(1).min() >= box  # none overlaps a particle's box
        assert corner[2] > 15  # more in the ice than outside of it
    of_unpicked = particles.volumes.mean()
    assert (empty.volumes.mean((1, 2, 3)) < 0.5 * of_unpicked).all()
    assert background(particles, {"n": 5}, [str(path)]) is None
    assert background(particles, options, ["elsewhere.mrc"]) is None


def test_labels_become_particles(tmp_path, caplog):
    labels = np.zeros((40, 40, 40), np.int8)
    labels[8:13, 8:13, 8:13], labels[28:31, 20:31, 28:31], labels[20, 20, 20] = 1, 2, 2
    volume = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    for name, data in (("v", volume), ("l", labels)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as handle:
            handle["dataset"] = data
    assert label_centres(labels)["voxels"].tolist() == [125, 1, 99]
    found = read_labelled_tomogram(
        tmp_path / "v.h5", tmp_path / "l.h5", 8, 10.0, protein="bright", class_names={1: "one"}
    )
    assert found.table["class_name"].tolist() == ["one"]  # what has no name is left out
    np.testing.assert_array_equal(found.volumes[0], volume[6:14, 6:14, 6:14])
    mrcfile.write(tmp_path / "v.mrc", volume, voxel_size=10.0)  # its header tells the voxel size, for the labels too
    options = {"labels_path": str(tmp_path / "l.h5"), "class_names": {"1": "one", "2": "two"}, "protein": "bright"}
    as_json = load_particles(tmp_path / "v.mrc", box=8, **options)
    assert as_json.table["class_name"].tolist() == ["one", "two"] and as_json.voxel_size_A == 10.0
    np.testing.assert_array_equal(as_json.volumes[0], found.volumes[0])
    with pytest.raises(ValueError, match="none of the labels 7 is there"):
        load_particles(tmp_path / "v.mrc", box=8, **options | {"class_names": {"7": "one"}})
    assert "particles that touch" not in caplog.text
    labels[8:13, 20:25, 8:13], labels[8:13, 8:13, 20:30] = 1, 1  # alone, and two side by side
    mrcfile.write(tmp_path / "l.mrc", labels, voxel_size=10.0)
    load_particles(tmp_path / "v.mrc", box=8, **options | {"labels_path": str(tmp_path / "l.mrc")})
    assert "l.mrc: 1 of 4 components are over 1.7 times as large as the median of their label" in caplog.text


@needs_shared
def test_real_tomograms():
    virions, voxel = read_tomogram(EXPERIMENTAL / "emd1155_hiv" / "emd_1155.ccp4", beam_axis="y", protein="dark")
    assert virions.shape == (91, 281, 141) and voxel == pytest.approx(16.4)
    # the tilt axis runs along y (the file's z): the wedge leaves little along the beam, most beside it
    power = np.abs(np.fft.fftn(virions - virions.mean())) ** 2
    kz, ky, kx = np.meshgrid(*[np.fft.fftfreq(s) for s in virions.shape], indexing="ij")
    ring = (np.hypot(kx, kz) > 0.08) & (np.hypot(kx, kz) < 0.2) & (np.abs(ky) < 0.05)
    beside, along = ring & (np.abs(kx) > 2 * np.abs(kz)), ring & (np.abs(kz) > 4 * np.abs(kx))
    assert power[along].mean() < 0.5 * power[beside].mean()
    cubes = cut_cubes(virions, voxel, 28, n=20)
    centre = cubes.volumes[:, 10:18, 10:18, 10:18].mean()
    assert centre > virions.mean() + 0.2 * virions.std()  # picks lie on membrane, which is bright now

    tube = EXPERIMENTAL / "microtubule" / "13pf_MT.tif"
    with pytest.raises(ValueError, match="give voxel_size_A"):
        read_tomogram(tube)
    volume, _ = read_tomogram(tube, 10.52, protein="bright")
    cubes = cut_cubes(volume, 10.52, 24, 13.68, n=8)
    assert cubes.volumes.shape == (8, 24, 24, 24) and cubes.voxel_size_A == 13.68
    assert cubes.volumes[:, 8:16, 8:16, 8:16].mean() > volume.mean()


@needs_shared
def test_real_label_volume():
    folder = EXPERIMENTAL.parent / "simulated" / "deepfinder_tomos"
    found = read_labelled_tomogram(folder / "tomo1_data.h5", folder / "tomo1_target.h5", 20, 10.0)
    assert set(found.table["class_name"]) == set("123456789")


def test_angles_and_positions_of_a_csv(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Angles under RELION's plain names, and positions that stand there in two units."""
    path = tmp_path / "picks.csv"
    path.write_text("x,y,z,x_A,y_A,z_A,rot,tilt,psi\n1,2,3,10,20,30,40,50,60\n")
    table = read_coordinates(path, 10.0, (9, 9, 9))
    assert table[["rot_deg", "tilt_deg", "psi_deg"]].iloc[0].tolist() == [40, 50, 60]
    assert table[["x_A", "y_A", "z_A"]].iloc[0].tolist() == [10, 20, 30]
    assert "positions are taken from x_A, y_A, z_A" in caplog.text and "earlier row" not in caplog.text
    path.write_text("x_A,y_A,z_A,tomogram\n1,2,3,a\n1,2,3,b\n1,2,3,a\n")
    read_coordinates(path, 10.0)
    assert "1 of 3 positions are those of an earlier row" in caplog.text
