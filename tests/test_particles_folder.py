"""Folders, stacks and arrays of volumes, their labels, and the one entry for particles of any kind."""

import h5py
import mrcfile
import numpy as np
import pytest
import torch
from common import SHARED, needs_shared
from scipy.spatial.transform import Rotation

import cryoetgan_core as cg
from cryoetgan_core.particles.folder import load_particles, read_volumes
from cryoetgan_core.particles.relion_writer import write_star
from cryoetgan_core.simulator.sets import class_references, poses_of
from cryoetgan_core.volumes.poses import rotate_volume

SIMULATED = SHARED / "simulated"


def volumes(n=3, edge=6):
    return np.random.default_rng(0).normal(size=(n, edge, edge, edge)).astype(np.float32)


def blobs(edge):
    """A reference (edge, edge, edge) of three blobs, that no rotation brings back."""
    line = torch.arange(edge) - edge // 2
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    centres = ((0, 0, 4, 1.0), (0, 3, -2, 0.7), (3, -1, 0, 0.5))
    return sum(h * torch.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 6.0) for a, b, c, h in centres)


@pytest.mark.parametrize("kind", [".npy", ".npz", ".h5", ".mrcs", "4-D .mrcs"])
def test_stacks(tmp_path, kind):
    data, path = volumes(), tmp_path / f"a{kind[-5:].strip()}" if "mrcs" in kind else tmp_path / f"a{kind}"
    if kind == ".npy":
        np.save(path, data)
    elif kind == ".npz":
        np.savez(path, volumes=data)
    elif kind == ".h5":
        with h5py.File(path, "w") as handle:
            handle["v"] = data
    else:
        with mrcfile.new(path) as handle:
            handle.set_data(data if "4-D" in kind else data.reshape(-1, 6, 6))
            handle.voxel_size = 9.0
    found = cg.load_particles(path, voxel_size_A=8.0, labels={"0": "a", "1": "b", "2": "b"})
    np.testing.assert_array_equal(found.volumes, data)
    assert found.voxel_size_A == 8.0 and found.table["class_name"].tolist() == ["a", "b", "b"]
    if "mrcs" in kind:
        assert load_particles(path).voxel_size_A == pytest.approx(9.0)
    else:
        with pytest.raises(ValueError, match="give voxel_size_A"):
            load_particles(path)


def test_poses_of_a_simulator_archive(tmp_path):
    quaternion = Rotation.random(3, random_state=0).as_quat().astype(np.float32)
    path = tmp_path / "a.npz"
    np.savez(
        path, volumes=np.full((3, 6, 6, 6), 2, np.int8), scale=np.float32(0.5),
        label=np.array(["a", "b", "c"]), quaternion_xyzw=quaternion,
        shift_zyx_voxels=np.array([[1, 2, 3]] * 3, np.float32), voxel_size_A=10.0,
    )  # fmt: skip
    found = load_particles(path)
    assert (found.volumes == 1).all() and found.table["class_name"].tolist() == ["a", "b", "c"]
    assert found.table[["shift_x_A", "shift_y_A", "shift_z_A"]].iloc[0].tolist() == [25.0, 15.0, 5.0]  # from 6 // 2
    # R takes zyx offsets in the box to the reference; the table's pose takes xyz of the reference to the box
    for q, row in zip(quaternion, found.table.itertuples(), strict=True):
        to_box = Rotation.from_euler("ZYZ", (row.rot_deg, row.tilt_deg, row.psi_deg), degrees=True).inv()
        offset = np.array([1.0, -2.0, 0.5])
        reference = Rotation.from_quat(q).apply(offset)
        np.testing.assert_allclose(to_box.apply(reference[::-1])[::-1], offset, atol=1e-5)
    write_star(found, tmp_path / "a.star", tmp_path / "volumes")
    again = load_particles(tmp_path / "a.star")
    np.testing.assert_allclose(again.table["rot_deg"], found.table["rot_deg"], atol=1e-4)
    np.testing.assert_allclose(again.table["shift_x_A"], found.table["shift_x_A"], atol=1e-4)


def test_tomograms_go_through_the_same_entry(tmp_path):
    mrcfile.write(tmp_path / "t.mrc", volumes(1, 20)[0], voxel_size=9.0)
    found = load_particles(tmp_path / "t.mrc", box=6, coordinates=[(10, 10, 10)], protein="dark")
    np.testing.assert_array_equal(found.volumes[0], -volumes(1, 20)[0][7:13, 7:13, 7:13])
    assert found.table["tomogram"].tolist() == ["t"] and found.table["voxel_size_A"].tolist() == [9.0]
    halved = found.map(lambda v: v[::2, ::2, ::2], 3, 18.0)
    assert halved.table["voxel_size_A"].tolist() == [18.0] and found.table["voxel_size_A"].tolist() == [9.0]


@pytest.mark.parametrize("edge", [20, 21])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_beam_along_another_axis_turns_volumes_with_their_poses(tmp_path, axis, edge):
    reference = blobs(edge)
    rotations = torch.from_numpy(Rotation.random(3, random_state=1).as_matrix())
    shifts = torch.tensor([[0.0, 0, 0], [1.5, -1, 0.5], [-0.5, 2, 1]], dtype=torch.float64)
    posed = rotate_volume(reference, rotations, 9.0 * shifts, 9.0)
    # the quaternion takes offsets in the particle to the reference, both zyx
    quaternion = Rotation.from_matrix(rotations.mT.flip((1, 2)).numpy()).as_quat()
    np.savez(
        tmp_path / "p.npz",
        volumes=posed.numpy(),
        voxel_size_A=9.0,
        quaternion_xyzw=quaternion,
        shift_zyx_voxels=shifts.numpy() + (0.5 if edge % 2 == 0 else 0),  # from the middle of the box
    )
    as_it_is = read_volumes(tmp_path / "p.npz")
    torch.testing.assert_close(rotate_volume(reference, *poses_of(as_it_is.table), 9.0), posed, atol=0.02, rtol=0)
    turned = read_volumes(tmp_path / "p.npz", beam_axis=axis)
    np.testing.assert_array_equal(turned.volumes[1], np.rot90(posed[1].numpy(), axes=(0, {"y": 1, "x": 2}[axis])))
    torch.testing.assert_close(
        rotate_volume(reference, *poses_of(turned.table), 9.0), torch.from_numpy(turned.volumes), atol=0.02, rtol=0
    )


@needs_shared
@pytest.mark.parametrize("axis", ["z", "x"])
def test_the_authors_particles_lie_where_their_poses_say(axis):
    """Of all ways to move a density along, none fits their particles better than their own poses do."""
    found = load_particles(SIMULATED / "released_simulator" / "four_classes_box28_snr0.3.npz", protein="dark",
                           beam_axis=axis)  # fmt: skip
    own = found.select((found.table["class_name"] == "proteasome_t20s").to_numpy())
    file = {"proteasome_t20s": str(SIMULATED.parent / "density_maps" / "3j9i.mrc")}
    density = class_references(tuple(file), 28, own.voxel_size_A, file)["proteasome_t20s"]
    posed = rotate_volume(density, *poses_of(own.table), own.voxel_size_A, box=28).numpy()
    spectra = np.fft.fftn(own.volumes, axes=(1, 2, 3)) * np.fft.fftn(posed, axes=(1, 2, 3)).conj()
    height = np.fft.ifftn(spectra.mean(0)).real
    for axis_of in range(3):
        after, before = np.take(np.moveaxis(height, axis_of, 0), [1, -1], axis=0)[:, 0, 0]
        at = height[0, 0, 0]
        assert min(at - after, at - before) > 0
        assert abs(after - before) / (2 * (2 * at - after - before)) < 0.1  # voxels, by a parabola


@needs_shared
def test_shared_collections():
    two = load_particles(SIMULATED / "two_class_24")
    assert two.volumes.shape == (32, 24, 24, 24) and two.voxel_size_A == 5.0
    named = two.table["particle"].str.extract(r"_c(\d)_")[0]
    assert (named == two.table["class_name"]).all()
    released = load_particles(SIMULATED / "released_simulator" / "four_classes_box28_snr0.3.npz", protein="dark")
    assert released.volumes.shape == (400, 28, 28, 28) and released.voxel_size_A == pytest.approx(13.68)
    assert released.table["class_name"].nunique() == 4 and released.table["rot_deg"].notna().all()


def test_labels_name_files_with_or_without_their_suffix(tmp_path):
    for name in "ab":
        mrcfile.write(tmp_path / f"{name}.mrc", np.zeros((8, 8, 8), np.float32), voxel_size=9.0)
    (tmp_path / "labels.csv").write_text("particle,label\nb,ribosome\na.mrc,tric\n")
    assert list(load_particles(tmp_path).table["class_name"]) == ["tric", "ribosome"]
