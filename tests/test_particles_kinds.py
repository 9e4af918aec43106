"""Every other kind of file that particles come in: EM, packed maps, zarr and OME-Zarr, AITom's pickles, coordinates of
the picking programs, copick projects; and volumes that stay on disk.
"""

import bz2
import gzip
import json
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import emfile
import h5py
import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import tifffile
import torch
import zarr
from scipy.spatial.transform import Rotation

from cryoetgan_core.particles.coordinates import dynamo_to_relion, relion_to_dynamo
from cryoetgan_core.particles.copick import read_picks, write_picks
from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.particles.tomogram import read_tomogram
from cryoetgan_core.volumes.lazy import LazyVolumes, _allocate, empty_volumes
from cryoetgan_core.volumes.table import ParticleSet, particle_table

POSITIONS = np.array([[20.0, 16, 12], [14, 18, 11], [25, 15, 13]])  # xyz, voxels


def volumes(n=3, edge=6):
    return np.random.default_rng(0).normal(size=(n, edge, edge, edge)).astype(np.float32)


def tomogram(tmp_path, shape=(24, 32, 40), voxel=10.0):
    data = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    mrcfile.write(tmp_path / "TS_1.mrc", data, voxel_size=voxel)
    return tmp_path / "TS_1.mrc", data


def cubes(data, positions=POSITIONS, box=8):
    half = box // 2
    return np.stack(
        [
            data[z - half : z + half, y - half : y + half, x - half : x + half]
            for x, y, z in positions.round().astype(int)
        ]
    )


@pytest.mark.parametrize("kind", ["em", "tif", "mrc.gz", "map.bz2", "rec", "float16", "int8"])
def test_a_folder_of_each_kind_of_volume(tmp_path, kind):
    data = (10 * volumes()).round()
    for i, v in enumerate(data):
        path = tmp_path / f"v{i}.{kind if '1' not in kind and '8' not in kind else 'mrc'}"
        if kind == "em":
            emfile.write(path, v)
        elif kind == "tif":
            tifffile.imwrite(path, v)
        else:
            plain = tmp_path / "plain.mrc"
            mrcfile.write(
                plain,
                v.astype({"float16": np.float16, "int8": np.int8}.get(kind, np.float32)),
                voxel_size=7.0,
                overwrite=True,
            )
            packing = {"gz": gzip, "bz2": bz2}.get(path.suffix[1:])
            path.write_bytes(packing.compress(plain.read_bytes()) if packing else plain.read_bytes())
            plain.unlink()
    found = load_particles(tmp_path, voxel_size_A=7.0)
    assert isinstance(found.volumes, LazyVolumes) and found.voxel_size_A == 7.0
    np.testing.assert_array_equal(found.volumes, data)
    np.testing.assert_array_equal(load_particles(tmp_path, voxel_size_A=7.0, protein="dark").volumes[1], -data[1])


def test_volumes_stay_on_disk_until_they_are_asked_for(tmp_path):
    read = []
    lazy = LazyVolumes(lambda i: read.append(i) or np.full((4, 4, 4), i, np.float32), 4, [str(i) for i in range(1000)])
    part = lazy.take(np.arange(1000) % 100 == 7).map(lambda v: v[::2, ::2, ::2] + 1, box=2)
    assert part.shape == (10, 2, 2, 2) and not read
    assert part[3].tolist() == np.full((2, 2, 2), 308).tolist() and read == [307]
    assert np.asarray(part)[:, 0, 0, 0].tolist() == [100 * k + 8 for k in range(10)]
    assert lazy[-2:].shape == (2, 4, 4, 4) and lazy[np.zeros(1000, bool)].shape == (0, 4, 4, 4)
    broken = LazyVolumes(lambda i: np.full((4, 4, 4), np.nan if i else 0.0), 4, ["good", "bad"])
    assert (broken[0] == 0).all()
    with pytest.raises(ValueError, match="bad: 64 voxels are NaN"):
        broken[:]


def test_more_than_memory_should_hold_goes_through_a_scratch_file(monkeypatch):
    read = []
    lazy = LazyVolumes(lambda i: read.append(i) or volumes(8)[i], 6, [str(i) for i in range(8)], np.arange(1, 8))
    monkeypatch.setattr("cryoetgan_core.volumes.lazy.MOST_IN_MEMORY", 6 * 6**3)
    y = torch.from_numpy(np.asarray(lazy))
    assert isinstance(np.asarray(lazy).base, np.memmap) and read == list(range(1, 8))  # once
    np.testing.assert_array_equal(y, volumes(8)[1:])
    assert not isinstance(np.asarray(lazy.take(slice(0, 3))).base, np.memmap)


def test_no_room_for_a_scratch_file_is_said(monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cryoetgan_core.volumes.lazy.MOST_IN_MEMORY", 10)
    monkeypatch.setattr("cryoetgan_core.volumes.lazy._allocate", full)
    with pytest.raises(ValueError, match="no room for 0 GiB of volumes .No space left.*set TMPDIR"):
        empty_volumes((2, 4, 4, 4))


def test_room_is_taken_where_the_system_has_no_call_for_it(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr("cryoetgan_core.volumes.lazy.BLOCK", 1000)
    with (tmp_path / "a").open("wb") as file:
        _allocate(file, 2500)
        assert os.fstat(file.fileno()).st_size == 2500 and os.fstat(file.fileno()).st_blocks * 512 >= 2500
    monkeypatch.setattr("cryoetgan_core.volumes.lazy.MOST_IN_MEMORY", 10)
    held = empty_volumes((2, 4, 4, 4))
    held[:] = 3.0
    assert isinstance(held, np.memmap) and held.shape == (2, 4, 4, 4) and float(held.sum()) == 384


def test_chosen_and_changed_cubes_stay_in_a_scratch_file(monkeypatch):
    monkeypatch.setattr("cryoetgan_core.volumes.lazy.MOST_IN_MEMORY", 2 * 6**3)
    held = empty_volumes((5, 6, 6, 6))
    held[:] = volumes(5)
    particles = ParticleSet(held, particle_table(5), 10.0)
    some = particles.select(np.array([True, False, True, True, False])).map(np.negative)
    assert isinstance(some.volumes, np.memmap)
    np.testing.assert_array_equal(some.volumes, -volumes(5)[[0, 2, 3]])


def test_cubes_of_many_picks_go_through_a_scratch_file(tmp_path, monkeypatch):
    monkeypatch.setattr("cryoetgan_core.volumes.lazy.MOST_IN_MEMORY", 2 * 8**3)
    data = np.random.default_rng(1).normal(size=(24, 32, 40)).astype(np.float32)
    copick_project(tmp_path, data)
    found = load_particles(tmp_path, box=8, protein="bright")
    assert isinstance(found.volumes, np.memmap)
    np.testing.assert_array_equal(found.volumes, cubes(data))


@pytest.mark.parametrize("version", [2, 3])
def test_stacks_and_tomograms_in_zarr(tmp_path, version):
    zarr.save_array(tmp_path / "stack.zarr", volumes(5), zarr_format=version)
    found = load_particles(tmp_path / "stack.zarr", voxel_size_A=9.0)
    np.testing.assert_array_equal(found.volumes, volumes(5))
    data = volumes(1, 20)[0]
    ome_zarr(tmp_path / "t.zarr", data, 1.5, version)
    volume, voxel = read_tomogram(tmp_path / "t.zarr", protein="bright")
    assert voxel == pytest.approx(15.0)  # nanometres in the metadata
    np.testing.assert_array_equal(volume, data)
    cut = load_particles(tmp_path / "t.zarr", box=6, coordinates=[(10, 10, 10)], protein="bright")
    np.testing.assert_array_equal(cut.volumes[0], data[7:13, 7:13, 7:13])
    chunk = next(
        p
        for p in sorted((tmp_path / "t.zarr" / "0").rglob("*"))
        if p.is_file() and "zarr" not in p.name and not p.name.startswith(".")
    )
    chunk.unlink()
    with pytest.warns(UserWarning, match="1 of 8 chunks are not there and read as one fill value"):
        read_tomogram(tmp_path / "t.zarr")


def test_neighbours_in_a_zarr_chunk_are_read_once(tmp_path, monkeypatch):
    zarr.create_array(tmp_path / "a.zarr", data=volumes(6), chunks=(3, 6, 6, 6))
    found, reads = load_particles(tmp_path / "a.zarr", voxel_size_A=9.0), []
    plain = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda array, key: reads.append(key) or plain(array, key))
    np.testing.assert_array_equal(found.volumes, volumes(6))
    assert len(reads) == 2


def ome_zarr(path, data, scale_nm, version=2):
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for level in range(2):
        part = data[:: 2**level, :: 2**level, :: 2**level]
        group.create_array(str(level), data=part, chunks=tuple(-(-s // 2) for s in part.shape))
    image = {
        "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"],
        "datasets": [
            {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [scale_nm * 2**k] * 3}]}
            for k in range(2)
        ],
    }
    group.attrs.update({"ome": {"multiscales": [image]}} if version == 3 else {"multiscales": [image]})


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_arrays_are_read_and_programs_are_not_run(tmp_path, protocol):
    data = {"ribosome": [volumes()[0], np.asfortranarray(volumes()[1])], "membrane": [volumes()[2].astype(np.float64)]}
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(data, protocol=protocol))
    found = load_particles(tmp_path / "a.pickle", voxel_size_A=9.0)
    np.testing.assert_array_equal(found.volumes, volumes())
    assert found.table["class_name"].tolist() == ["ribosome", "ribosome", "membrane"]
    trace = tmp_path / "run"

    class Program:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    (tmp_path / "b.pickle").write_bytes(pickle.dumps({"ribosome": [Program()]}, protocol=protocol))
    with pytest.raises(ValueError, match=r"it calls (posix|nt)\.mkdir"):
        load_particles(tmp_path / "b.pickle", voxel_size_A=9.0)
    assert not trace.exists()


def test_dynamo_angles_are_relions():
    # a pair of equal poses that gave the same reconstruction in both programs
    np.testing.assert_allclose(dynamo_to_relion([[-47.273, 1.1777, -132.3]]), [[137.7, 1.1777, 42.727]], atol=1e-9)
    angles = Rotation.random(20, random_state=0).as_euler("zxz", degrees=True)
    np.testing.assert_allclose(relion_to_dynamo(dynamo_to_relion(angles)), angles, atol=1e-9)
    for a, b in zip(angles, dynamo_to_relion(angles), strict=True):
        np.testing.assert_allclose(
            Rotation.from_euler("zxz", a, degrees=True).as_matrix(),
            Rotation.from_euler("ZYZ", b, degrees=True).as_matrix(),
            atol=1e-9,
        )


ANGLES = np.array([[10.0, 20, 30], [-40, 50, 60], [70, 80, -90]])


def write_coordinates(path, kind, data):
    """POSITIONS as each program writes them, for a tomogram `data` of 10 A voxels."""
    if kind == "dynamo":
        table = np.zeros((3, 35))
        table[:, 0], table[:, 19], table[:, 21] = range(1, 4), 5, 2
        table[:, 6:9], table[:, 23:26], table[:, 3:6] = relion_to_dynamo(ANGLES), POSITIONS + 0.75, 0.25
        return np.savetxt(path, table, fmt="%.6f")
    origins = {f"rlnOrigin{a}Angst": 5.0 for a in "XYZ"}
    centred = POSITIONS * 10 - np.array(data.shape[::-1]) / 2 * 10
    values, place, angle, more = {
        "relion 3.1": (
            POSITIONS + 0.5,
            "rlnCoordinate{}",
            "rlnAngle{}",
            {"rlnMicrographName": "tomo/TS_1.mrc"} | origins,
        ),
        "relion 4": (POSITIONS * 4, "rlnCoordinate{}", "rlnAngle{}", {"rlnTomoName": "TS_1"}),
        "relion 5": (centred, "rlnCenteredCoordinate{}Angst", "rlnAngle{}", {"rlnTomoName": "TS_1"}),
        "warp": (POSITIONS, "rlnCoordinate{}", "rlnAngle{}", {"rlnMicrographName": "TS_1.tomostar"}),
        "m": (POSITIONS * 10, "wrpCoordinate{}1", "wrpAngle{}1", {"wrpSourceName": "TS_1.tomostar"}),
        "csv": (POSITIONS, "{}", "{}_deg", {"class": "a", "tomogram": "TS_1"}),
        "csv in angstrom": (POSITIONS * 10, "{}_A", "", {}),
    }[kind]
    axes, turns = ("xyz", ("rot", "tilt", "psi")) if "csv" in kind else ("XYZ", ("Rot", "Tilt", "Psi"))
    columns = {place.format(a): v for a, v in zip(axes, values.T, strict=True)} | more
    columns |= {angle.format(a): v for a, v in zip(turns, ANGLES.T, strict=True) if angle}
    frame, optics = pd.DataFrame(columns), {"rlnOpticsGroup": [1], "rlnTomoTiltSeriesPixelSize": [2.5]}
    if "csv" in kind:
        frame.to_csv(path, index=False)
    else:
        optics = {"optics": pd.DataFrame(optics)} if kind == "relion 4" else {}
        starfile.write(optics | {"particles": frame} if "relion" in kind else frame, path)


ENDINGS = {"dynamo": "tbl", "csv": "csv", "csv in angstrom": "csv"}


@pytest.mark.parametrize(
    "kind", ["relion 3.1", "relion 4", "relion 5", "warp", "m", "dynamo", "csv", "csv in angstrom"]
)
def test_coordinates_of_every_program_cut_the_same_cubes(tmp_path, kind):
    path, data = tomogram(tmp_path)
    picks = tmp_path / f"picks.{ENDINGS.get(kind, 'star')}"
    write_coordinates(picks, kind, data)
    found = load_particles(path, box=8, coordinates=picks, protein="bright")
    np.testing.assert_array_equal(found.volumes, cubes(data))
    np.testing.assert_allclose(found.table[["x_A", "y_A", "z_A"]], POSITIONS * 10, atol=1e-3)
    np.testing.assert_allclose(found.table[["shift_x_A", "shift_y_A", "shift_z_A"]], 0, atol=1e-3)
    if kind != "csv in angstrom":
        np.testing.assert_allclose(found.table[["rot_deg", "tilt_deg", "psi_deg"]], ANGLES, atol=1e-4)
    assert set(found.table["tomogram"]) == {"TS_1"}


def test_a_position_between_voxels_becomes_the_particles_shift(tmp_path):
    path, data = tomogram(tmp_path)
    pd.DataFrame({"x_A": [203.0], "y_A": [158.0], "z_A": [120.0]}).to_csv(tmp_path / "p.csv", index=False)
    found = load_particles(path, box=8, coordinates=tmp_path / "p.csv", protein="bright")
    np.testing.assert_array_equal(found.volumes, cubes(data, np.array([[20.3, 15.8, 12]])))
    assert found.table[["shift_x_A", "shift_y_A", "shift_z_A"]].iloc[0].tolist() == pytest.approx([3.0, -2.0, 0.0])


@pytest.mark.parametrize("axis", ["x", "y"])
def test_coordinates_in_a_tomogram_whose_beam_is_not_along_z(tmp_path, axis):
    path, data = tomogram(tmp_path)
    write_coordinates(tmp_path / "p.csv", "csv", data)
    found = load_particles(path, box=8, coordinates=tmp_path / "p.csv", protein="bright", beam_axis=axis)
    np.testing.assert_array_equal(found.volumes, [np.rot90(v, axes=(0, {"y": 1, "x": 2}[axis])) for v in cubes(data)])
    np.testing.assert_allclose(found.table[["x_A", "y_A", "z_A"]], POSITIONS * 10, atol=1e-3)  # as the tomogram lies


def copick_project(root, data):
    ome_zarr(root / "ExperimentRuns" / "run_1" / "VoxelSpacing10.000" / "wbp.zarr", data, 1.0)
    picks = root / "ExperimentRuns" / "run_1" / "Picks"
    picks.mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("ZYZ", ANGLES[0], degrees=True).inv().as_matrix()
    points = [
        {"location": dict(zip("xyz", p * 10, strict=True)), "transformation_": matrix.tolist(), "instance_id": 0}
        for p in POSITIONS
    ]
    record = {
        "pickable_object_name": "ribosome",
        "user_id": "me",
        "session_id": "1",
        "run_name": "run_1",
        "points": points,
    }
    (picks / "me_1_ribosome.json").write_text(json.dumps(record))
    (root / "config.json").write_text(
        json.dumps({"pickable_objects": [{"name": "ribosome"}], "overlay_root": f"local://{root}"})
    )


@pytest.mark.parametrize("entry", ["", "config.json"])
def test_a_copick_project_goes_in_with_one_call(tmp_path, entry):
    data = np.random.default_rng(1).normal(size=(24, 32, 40)).astype(np.float32)
    copick_project(tmp_path, data)
    found = load_particles(tmp_path / entry, box=8, protein="bright", classes=["ribosome"])
    np.testing.assert_array_equal(found.volumes, cubes(data))
    assert set(found.table["class_name"]) == {"ribosome"} and set(found.table["tomogram"]) == {"run_1"}
    np.testing.assert_allclose(found.table[["rot_deg", "tilt_deg", "psi_deg"]].iloc[0], ANGLES[0], atol=1e-6)
    with pytest.raises(ValueError, match="no picks by you"):
        load_particles(tmp_path / entry, box=8, user="you")
    with pytest.raises(ValueError, match="no such tomogram"):
        load_particles(tmp_path / entry, box=8, voxel_size_A=5.0)


def test_picks_that_are_written_are_read_again(tmp_path):
    data = np.random.default_rng(1).normal(size=(24, 32, 40)).astype(np.float32)
    copick_project(tmp_path, data)
    table = read_picks(tmp_path)["run_1"]
    table[["rot_deg", "tilt_deg", "psi_deg"]] = ANGLES
    write_picks(tmp_path, table, user="us", session="2")
    again = read_picks(tmp_path, user="us")["run_1"]
    np.testing.assert_allclose(again[["x_A", "y_A", "z_A"]], table[["x_A", "y_A", "z_A"]], atol=1e-9)
    np.testing.assert_allclose(again[["rot_deg", "tilt_deg", "psi_deg"]], ANGLES, atol=1e-6)


def test_picks_of_two_people_are_not_mixed(tmp_path):
    data = np.random.default_rng(1).normal(size=(24, 32, 40)).astype(np.float32)
    copick_project(tmp_path, data)
    write_picks(tmp_path, read_picks(tmp_path)["run_1"], user="us", session="2", oriented=False)
    with pytest.raises(ValueError, match=r"ribosome was picked by me \(session 1\) and us \(session 2\); expected one"):
        load_particles(tmp_path, box=8)
    found = load_particles(tmp_path, box=8, user="us")
    assert len(found) == 3 and found.table["rot_deg"].isna().all()


class Portal:
    """What of the portal's client is used: names as in cryoet-data-portal 4.9, downloads from this machine."""

    def __init__(self, data, reachable=True):
        self.data, self.reachable = data, reachable
        shapes = [
            self.shape("OrientedPoint", "ndjson"),
            self.shape("SegmentationMask", "zarr"),
            self.shape("Point", "ndjson"),
        ]
        shapes[2].annotation_files[0].download = self.wrong
        annotation = SimpleNamespace(id=7, object_name="cytosolic ribosome", annotation_shapes=shapes)
        path = "s3://bucket/run_1/Reconstructions/VoxelSpacing10.000/Tomograms/100/run_1.zarr"
        tomogram = SimpleNamespace(
            voxel_spacing=10.0,
            tomogram_voxel_spacing_id=3,
            alignment_id=5,
            is_visualization_default=True,
            s3_omezarr_dir=path,
            download_omezarr=self.tomogram,
        )
        self.run = SimpleNamespace(name="run_1", annotations=[annotation], tomograms=[tomogram])
        self.Run, self.Client = SimpleNamespace(get_by_id=lambda client, id: {16463: self.run}.get(id)), lambda: None

    def shape(self, kind, ending):
        place = dict(format=ending, tomogram_voxel_spacing_id=3, https_path=f"https://x/y/ribosome.{ending}")
        files = [
            SimpleNamespace(**place, alignment_id=5, download=self.points),
            SimpleNamespace(**place, alignment_id=6, download=self.wrong),
        ]
        return SimpleNamespace(shape_type=kind, annotation_files=files)

    def wrong(self, folder):
        raise AssertionError("points without orientation, or of another alignment")

    def points(self, folder):
        rotation = Rotation.from_euler("ZYZ", ANGLES, degrees=True).inv().as_matrix()
        lines = [
            json.dumps(
                {
                    "type": "orientedPoint",
                    "location": dict(zip("xyz", p, strict=True)),
                    "xyz_rotation_matrix": r.tolist(),
                }
            )
            for p, r in zip(POSITIONS, rotation, strict=True)
        ]
        (Path(folder) / "ribosome.ndjson").write_text("\n".join(lines))

    def tomogram(self, folder):
        if not self.reachable:
            raise OSError("no route to host")
        ome_zarr(Path(folder) / "run_1.zarr", self.data, 1.0)


def test_a_run_of_the_data_portal_goes_in_with_one_call(tmp_path, monkeypatch):
    data = np.random.default_rng(1).normal(size=(24, 32, 40)).astype(np.float32)
    monkeypatch.setenv("CRYOETGAN_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "cryoet_data_portal", Portal(data, reachable=False))
    with pytest.raises(ConnectionError, match="portal:16463: cannot be downloaded .*no route"):
        load_particles("portal:16463", box=8)
    monkeypatch.setitem(sys.modules, "cryoet_data_portal", Portal(data))
    with pytest.raises(ValueError, match="0 tomograms fit, with 10 A"):
        load_particles("portal:16463", box=8, voxel_size_A=5.0)
    with pytest.raises(ValueError, match="no such run"):
        load_particles("portal:1", box=8)
    found = load_particles("portal:16463", 8, protein="bright")
    assert len(load_particles("portal:16463", box=8, voxel_size_A=10.05)) == 3  # nearly what the portal says
    np.testing.assert_array_equal(found.volumes, cubes(data))
    np.testing.assert_allclose(found.table[["rot_deg", "tilt_deg", "psi_deg"]], ANGLES, atol=1e-6)
    assert set(found.table["class_name"]) == {"cytosolic-ribosome"} and found.voxel_size_A == 10.0
    monkeypatch.setitem(sys.modules, "cryoet_data_portal", None)  # as if it were not installed
    assert len(load_particles("portal:16463", box=8)) == 3  # from the cache
    with pytest.raises(ValueError, match="pip install cryoet-data-portal"):
        load_particles("portal:2", box=8)
    with pytest.raises(ValueError, match="number of a run"):
        load_particles("portal:ten", box=8)


def test_cubes_keep_what_hdf5_and_numpy_hold(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        handle["v"] = (volumes() * 100).astype(np.int8)
    found = load_particles(tmp_path / "a.h5", voxel_size_A=5.0, protein="dark")
    np.testing.assert_array_equal(found.volumes, -(volumes() * 100).astype(np.int8).astype(np.float32))
    assert torch.from_numpy(np.asarray(found.volumes)).dtype == torch.float32
