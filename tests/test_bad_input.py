"""Bad input of every kind: one clear sentence that names the file, before any long work, and nothing is run that a file
brings along.
"""

import gzip
import json
import os
import pickle
import zipfile
from pathlib import Path

import emfile
import h5py
import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import tifffile
import zarr

from cryoetgan_core.paper import own_data
from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.volumes.lazy import reading
from cryoetgan_core.volumes.table import ParticleSet, particle_table

EDGE = 6
CASES: dict[str, tuple] = {}


def case(message: str, **options):
    """Register a maker of bad input: a function of an empty folder that returns the path to load (or the path and
    options).
    """

    def register(make):
        CASES[make.__name__] = (make, message, options)
        return make

    return register


def cube(value=None, edge=EDGE):
    data = np.random.default_rng(0).normal(size=(edge,) * 3).astype(np.float32)
    return data if value is None else np.full_like(data, value)


def map_file(path, data=None, voxel=9.0):
    mrcfile.write(path, cube() if data is None else data, voxel_size=voxel, overwrite=True)
    return path


def patched(path, offset, value, kind="<i4"):
    raw = bytearray(path.read_bytes())
    raw[offset : offset + np.dtype(kind).itemsize] = np.array(value, kind).tobytes()
    path.write_bytes(raw)
    return path


def two(folder):
    """A sound folder of two maps, to spoil."""
    for k in "ab":
        map_file(folder / f"{k}.mrc")
    return folder


# folders of volumes
@case("no such file or folder")
def nothing_there(folder):
    return folder / "gone"


@case("no volumes")
def empty_folder(folder):
    return folder


@case("b.mrc: .*cut off")
def truncated_map(folder):
    path = two(folder) / "b.mrc"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


@case("b.mrc: 500 bytes")
def truncated_header(folder):
    path = two(folder) / "b.mrc"
    path.write_bytes(path.read_bytes()[:500])
    return folder


@case("b.mrc: 0 bytes")
def empty_file(folder):
    (two(folder) / "b.mrc").write_bytes(b"")
    return folder


@case("b.mrc: .*dimensions")
def absurd_dimensions(folder):
    patched(two(folder) / "b.mrc", 0, -5)
    return folder


@case("b.mrc: .*at most")
def huge_dimensions(folder):
    path = two(folder) / "b.mrc"
    for offset in (0, 4, 8):
        patched(path, offset, 100_000)
    return folder


@case("b.mrc: mode 4")
def complex_map(folder):
    patched(two(folder) / "b.mrc", 12, 4)
    return folder


@case("b.mrc: axis order")
def axes_named_twice(folder):
    patched(two(folder) / "b.mrc", 64, 3)
    return folder


@case("b.mrc: shape .*crop them")
def mixed_boxes(folder):
    map_file(two(folder) / "b.mrc", cube(edge=8))
    return folder


@case("b.mrc: shape .*crop them")
def not_a_cube(folder):
    map_file(two(folder) / "b.mrc", cube()[:, :, :4].copy())
    return folder


@case("voxel sizes from 9 to 12 A")
def mixed_voxel_sizes(folder):
    map_file(two(folder) / "b.mrc", voxel=12.0)
    return folder


@case("b.mrc: the header's voxel size")
def no_voxel_size(folder):
    map_file(two(folder) / "b.mrc", voxel=0.0)
    return folder


@case("b.mrc: .*cubic voxel")
def voxels_not_cubic(folder):
    patched(two(folder) / "b.mrc", 40, 99.0, "<f4")
    return folder


@case("b.mrc: .*NaN")
def nan_voxels(folder):
    data = cube()
    data[1, 2, 3] = np.nan
    with pytest.warns(RuntimeWarning):
        map_file(two(folder) / "b.mrc", data)
    return folder


@case("b.mrc: .*infinite")
def infinite_voxels(folder):
    data = cube()
    data[0] = np.inf
    with pytest.warns(RuntimeWarning):
        map_file(two(folder) / "b.mrc", data)
    return folder


@case("b.mrc.gz: ")
def text_called_gz(folder):
    (two(folder) / "b.mrc.gz").write_text("not packed at all" * 100)
    return folder


@case("b.mrc.gz: .*cannot be read")
def packed_and_cut(folder):
    packed = gzip.compress((two(folder) / "b.mrc").read_bytes())
    (folder / "b.mrc").unlink()
    (folder / "b.mrc.gz").write_bytes(packed[: len(packed) // 2])
    return folder


@case("b.mrc: cannot be read|Permission|no such")
def unreadable_file(folder):
    target = two(folder) / "b.mrc"
    target.unlink()
    target.symlink_to(folder / "nowhere")
    return folder


@case("no label for 1 of 2")
def label_missing(folder):
    (two(folder) / "labels.csv").write_text("particle,label\na.mrc,x\n")
    return folder


@case("each particle once")
def label_twice(folder):
    (two(folder) / "labels.csv").write_text("particle,label\na.mrc,x\na.mrc,y\nb.mrc,x\n")
    return folder


@case("expected particle,label")
def label_columns(folder):
    (two(folder) / "labels.csv").write_text("name,kind\na.mrc,x\nb.mrc,x\n")
    return folder


@case("no label for 1 of 2")
def empty_class(folder):
    (two(folder) / "labels.csv").write_text("particle,label\na.mrc,x\nb.mrc,\n")
    return folder


@case("voxel size -3")
def negative_voxel_size(folder):
    return two(folder), {"voxel_size_A": -3.0}


@case("protein is 'grey'")
def unknown_sign(folder):
    return two(folder), {"protein": "grey"}


@case("beam_axis is 'w'")
def unknown_beam_axis(folder):
    return two(folder), {"beam_axis": "w"}


@case("unknown options .*'sign'")
def unknown_option(folder):
    return two(folder), {"sign": -1}


# EM and TIFF
@case("a.em: .*header", voxel_size_A=9.0)
def em_cut_header(folder):
    (folder / "a.em").write_bytes(b"\x06" * 100)
    return folder


@case("a.em: .*cut off", voxel_size_A=9.0)
def em_cut(folder):
    emfile.write(folder / "a.em", cube())
    (folder / "a.em").write_bytes((folder / "a.em").read_bytes()[:-8])
    return folder


@case("a.em: machine code 1", voxel_size_A=9.0)
def em_of_a_vax(folder):
    emfile.write(folder / "a.em", cube())
    patched(folder / "a.em", 0, 1, "i1")
    return folder


@case("give voxel_size_A")
def em_without_voxel_size(folder):
    emfile.write(folder / "a.em", cube())
    return folder


@case("a.tif: .*TIFF", voxel_size_A=9.0)
def text_called_tiff(folder):
    (folder / "a.tif").write_text("no picture")
    return folder


@case("a.tif: shape .*2-D", voxel_size_A=9.0)
def tiff_of_one_image(folder):
    tifffile.imwrite(folder / "a.tif", cube()[0])
    return folder


# NumPy
@case("a.npy: .*NumPy", voxel_size_A=9.0)
def text_called_npy(folder):
    (folder / "a.npy").write_text("no array")
    return folder / "a.npy"


@case("a.npy: .*object", voxel_size_A=9.0)
def npy_of_objects(folder):
    np.save(folder / "a.npy", np.array([{}], object), allow_pickle=True)
    return folder / "a.npy"


@case("a.npy: .*complex", voxel_size_A=9.0)
def npy_of_complex(folder):
    np.save(folder / "a.npy", np.zeros((2, 4, 4, 4), complex))
    return folder / "a.npy"


@case("a.npy: .*cut off", voxel_size_A=9.0)
def npy_cut(folder):
    np.save(folder / "a.npy", np.zeros((2, 4, 4, 4)))
    (folder / "a.npy").write_bytes((folder / "a.npy").read_bytes()[:300])
    return folder / "a.npy"


@case("a.npy: .*cubic", voxel_size_A=9.0)
def npy_of_bricks(folder):
    np.save(folder / "a.npy", np.zeros((2, 4, 4, 5)))
    return folder / "a.npy"


@case("a.npy: .*at least one", voxel_size_A=9.0)
def npy_of_nothing(folder):
    np.save(folder / "a.npy", np.zeros((0, 4, 4, 4)))
    return folder / "a.npy"


@case("give voxel_size_A")
def npy_without_voxel_size(folder):
    np.save(folder / "a.npy", np.zeros((2, 4, 4, 4)))
    return folder / "a.npy"


@case("a.npz: not an .npz", voxel_size_A=9.0)
def text_called_npz(folder):
    (folder / "a.npz").write_text("no archive")
    return folder / "a.npz"


@case("a.npz: .*one named volumes", voxel_size_A=9.0)
def npz_of_other_names(folder):
    np.savez(folder / "a.npz", data=np.zeros((2, 4, 4, 4)))
    return folder / "a.npz"


@case("label has shape", voxel_size_A=9.0)
def npz_with_wrong_count(folder):
    np.savez(folder / "a.npz", volumes=np.zeros((2, 4, 4, 4)), label=np.array(["a"]))
    return folder / "a.npz"


@case("quaternion_xyzw are not of length 1", voxel_size_A=9.0)
def npz_with_wrong_quaternions(folder):
    np.savez(folder / "a.npz", volumes=np.zeros((2, 4, 4, 4)), quaternion_xyzw=np.full((2, 4), 3.0))
    return folder / "a.npz"


@case("fixed-length text", voxel_size_A=9.0)
def npz_with_a_pickle_inside(folder):
    np.savez(folder / "a.npz", volumes=np.zeros((2, 4, 4, 4)), label=np.array([{}, {}], dtype=object))
    return folder / "a.npz"


@case("a.npz:volumes: shape .*at most", voxel_size_A=9.0)
def zip_bomb(folder):
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (400000, 64, 64, 64), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("volumes.npy", header + bytes(1 << 20))
    return folder / "a.npz"


@case("a.npz: .*unpacks to", voxel_size_A=9.0)
def zip_bomb_beside_the_volumes(folder):
    np.savez(folder / "a.npz", volumes=np.zeros((2, 4, 4, 4)))
    with zipfile.ZipFile(folder / "a.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label.npy", bytes(1 << 28))
    return folder / "a.npz"


# stacks, HDF5, zarr
@case("a.mrcs: .*no stack of cubes")
def mrcs_of_images(folder):
    return map_file(folder / "a.mrcs", cube()[:4].copy())


@case("a.h5: .*HDF5", voxel_size_A=9.0)
def text_called_hdf5(folder):
    (folder / "a.h5").write_text("no data")
    return folder / "a.h5"


@case("a.h5: datasets", voxel_size_A=9.0)
def hdf5_of_several(folder):
    with h5py.File(folder / "a.h5", "w") as handle:
        handle["a"], handle["b"] = np.zeros((2, 4, 4, 4)), np.zeros((2, 4, 4, 4))
    return folder / "a.h5"


@case("a.h5:v: .*5-D", voxel_size_A=9.0)
def hdf5_of_five_dimensions(folder):
    with h5py.File(folder / "a.h5", "w") as handle:
        handle["v"] = np.zeros((1, 2, 4, 4, 4))
    return folder / "a.h5"


@case("a.zarr: .*(cannot be read as zarr|no OME-Zarr)", voxel_size_A=9.0)
def empty_zarr(folder):
    (folder / "a.zarr").mkdir()
    return folder / "a.zarr"


@case("a.zarr: .*chunks are missing", voxel_size_A=9.0)
def zarr_with_a_missing_chunk(folder):
    zarr.create_array(folder / "a.zarr", data=np.ones((4, 4, 4, 4), np.float32), chunks=(1, 4, 4, 4))
    next(p for p in sorted((folder / "a.zarr").rglob("*")) if p.is_file() and p.name != "zarr.json").unlink()
    return folder / "a.zarr"


@case("a.zarr: .*not there", box=4, n=1, voxel_size_A=9.0)
def zarr_whose_metadata_lie(folder):
    group = zarr.open_group(folder / "a.zarr", mode="w")
    group.create_array("1", data=np.ones((8, 8, 8), np.float32))
    group.attrs.update({"multiscales": [{"datasets": [{"path": "0"}], "axes": []}]})
    return folder / "a.zarr"


@case("a.zarr: .*cannot be read as zarr", voxel_size_A=9.0)
def zarr_with_broken_metadata(folder):
    zarr.save_array(folder / "a.zarr", np.ones((4, 4, 4, 4), np.float32))
    (folder / "a.zarr" / "zarr.json").write_text("{")
    return folder / "a.zarr"


# pickles
class Program:
    """What a hostile pickle brings along."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


@case(r"a.pickle: .*calls (posix|nt)\.mkdir", voxel_size_A=9.0)
def malicious_pickle(folder):
    (folder / "a.pickle").write_bytes(pickle.dumps({"a": [Program()]}))
    return folder / "a.pickle"


@case(r"a.pickle: .*builtins\.eval", voxel_size_A=9.0)
def pickle_that_names_eval(folder):
    (folder / "a.pickle").write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    return folder / "a.pickle"


@case("a.pickle: not read", voxel_size_A=9.0)
def pickle_cut(folder):
    (folder / "a.pickle").write_bytes(pickle.dumps({"a": [cube()]})[:-40])
    return folder / "a.pickle"


@case("a.pickle: holds a list", voxel_size_A=9.0)
def pickle_of_a_list(folder):
    (folder / "a.pickle").write_bytes(pickle.dumps([cube()]))
    return folder / "a.pickle"


@case("a.pickle: class 'b'", voxel_size_A=9.0)
def pickle_with_an_empty_class(folder):
    (folder / "a.pickle").write_bytes(pickle.dumps({"a": [cube()], "b": []}))
    return folder / "a.pickle"


@case("a.pickle: volumes of shapes", voxel_size_A=9.0)
def pickle_of_mixed_boxes(folder):
    (folder / "a.pickle").write_bytes(pickle.dumps({"a": [cube(), cube(edge=8)]}))
    return folder / "a.pickle"


# STAR files of subtomograms
def star(folder, **changes):
    map_file(folder / "v.mrc")
    optics = {"rlnOpticsGroup": [1], "rlnImagePixelSize": [9.0], "rlnImageSize": [EDGE], "rlnImageDimensionality": [3]}
    rows = {"rlnImageName": ["v.mrc"], "rlnOpticsGroup": [1]} | {f"rlnAngle{a}": [0.0] for a in ("Rot", "Tilt", "Psi")}
    particles = {k: v for k, v in (rows | changes).items() if v is not None}
    starfile.write({"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}, folder / "p.star")
    return folder / "p.star"


@case("p.star: .*leads out of")
def star_with_path_traversal(folder):
    return star(folder, rlnImageName=["../../etc/passwd"])


@case("p.star: .*leads out of")
def star_with_an_absolute_path(folder):
    return star(folder, rlnImageName=["/etc/hostname"])


@case("p.star: .*does not exist")
def star_that_names_nothing(folder):
    return star(folder, rlnImageName=["w.mrc"])


@case("p.star: .*lacks rlnImageName")
def star_without_names(folder):
    return star(folder, rlnImageName=None)


@case("p.star: rlnAngleRot holds")
def star_with_text_for_angles(folder):
    return star(folder, rlnAngleRot=["east"])


@case("v.mrc: .*expected 6 on every side")
def star_of_another_box(folder):
    path = star(folder)
    map_file(folder / "v.mrc", cube(edge=8))
    return path


@case("p.star: .*NUMBER@FILE")
def star_with_a_wrong_number(folder):
    return star(folder, rlnImageName=["zero@v.mrc"])


@case("p.star: names volume 9")
def star_beyond_the_stack(folder):
    return star(folder, rlnImageName=["9@v.mrc"])


@case("p.star: ")
def text_called_star(folder):
    (folder / "p.star").write_text("no blocks here\n" * 5)
    return folder / "p.star"


# tomograms and coordinates
def tomogram(folder, text, name="p.csv", **options):
    map_file(folder / "t.mrc", cube(edge=20))
    (folder / name).write_text(text)
    return folder / "t.mrc", {"box": 6, "coordinates": folder / name} | options


@case("p.csv: .*expected x, y, z")
def coordinates_without_a_column(folder):
    return tomogram(folder, "x,y\n1,2\n")


@case("p.csv: y holds")
def coordinates_that_are_text(folder):
    return tomogram(folder, "x,y,z\n10,here,10\n")


@case("p.csv: .*0 rows")
def coordinates_of_nothing(folder):
    return tomogram(folder, "x,y,z\n")


@case("1 of 2 cubes .*leave")
def coordinates_outside(folder):
    return tomogram(folder, "x,y,z\n10,10,10\n300,10,10\n", edge="refuse")


@case("1 of 1 positions lie outside the tomogram .*another binning")
def coordinates_all_outside(folder):
    return tomogram(folder, "x,y,z\n300,10,10\n")


@case("p.csv: particle 'a' is there twice")
def coordinates_with_duplicate_names(folder):
    return tomogram(folder, "x,y,z,particle\n10,10,10,a\n11,10,10,a\n")


@case("p.csv: .*none of these is the tomogram")
def coordinates_of_another_tomogram(folder):
    return tomogram(folder, "x,y,z,tomogram\n10,10,10,other\n")


@case("p.tbl: .*columns")
def dynamo_table_too_narrow(folder):
    return tomogram(folder, "1 2 3\n", "p.tbl")


@case("p.tbl: cannot be read")
def dynamo_table_of_text(folder):
    return tomogram(folder, "one two three\n", "p.tbl")


@case("p.xyz: not a kind of coordinates")
def coordinates_of_unknown_kind(folder):
    return tomogram(folder, "1 2 3\n", "p.xyz")


@case("t.mrc: a tomogram needs box=")
def tomogram_without_a_box(folder):
    return map_file(folder / "t.mrc", cube(edge=20))


@case("labels.mrc: shape")
def labels_of_another_shape(folder):
    map_file(folder / "labels.mrc", cube(1, edge=12).astype(np.int8))
    return map_file(folder / "t.mrc", cube(edge=20)), {
        "labels_path": folder / "labels.mrc",
        "box": 6,
        "voxel_size_A": 9.0,
    }


@case("labels.mrc: no connected label")
def labels_of_nothing(folder):
    map_file(folder / "labels.mrc", cube(0, edge=20).astype(np.int8))
    return map_file(folder / "t.mrc", cube(edge=20)), {
        "labels_path": folder / "labels.mrc",
        "box": 6,
        "voxel_size_A": 9.0,
    }


# copick
def project(folder, picks):
    path = folder / "ExperimentRuns" / "r" / "Picks" / "me_1_a.json"
    path.parent.mkdir(parents=True)
    path.write_text(picks if isinstance(picks, str) else json.dumps(picks))
    return folder, {"box": 6}


PICKS = {
    "pickable_object_name": "a",
    "user_id": "me",
    "session_id": "1",
    "points": [{"location": {"x": 1, "y": 2, "z": 3}}],
}


@case("me_1_a.json: cannot be read as JSON")
def picks_that_are_no_json(folder):
    return project(folder, "{")


@case("me_1_a.json: not picks")
def picks_without_a_location(folder):
    return project(folder, PICKS | {"points": [{}]})


@case("me_1_a.json: not picks .*not finite")
def picks_that_are_nan(folder):
    return project(folder, PICKS | {"points": [{"location": {"x": float("nan"), "y": 2, "z": 3}}]})


@case("no such tomogram")
def picks_without_a_tomogram(folder):
    return project(folder, PICKS)


@case("no picks")
def a_project_without_picks(folder):
    return project(folder, PICKS | {"points": []})


@case("expected a folder on this machine")
def a_project_elsewhere(folder):
    (folder / "c.json").write_text(json.dumps({"pickable_objects": [], "overlay_root": "s3://bucket/x"}))
    return folder / "c.json", {"box": 6}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_one_clear_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message, options = CASES[name]
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "input"
    folder.mkdir()
    path = make(folder)
    path, options = (path[0], options | path[1]) if isinstance(path, tuple) else (path, options)
    with pytest.raises(ValueError, match=message) as raised:
        np.asarray(load_particles(path, **options).volumes)
    assert len(str(raised.value)) < 700 and "Traceback" not in str(raised.value)
    assert not (tmp_path / "was_run").exists()


def test_there_are_sixty_cases_and_more() -> None:
    assert len(CASES) >= 60


def test_particles_smaller_than_the_box_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least 24"):
        own_data.load_particles(two(tmp_path), 24)


def test_what_a_library_says_becomes_one_line_and_a_sentence_without_a_file_gets_one() -> None:
    sentence = r"^a.npz: cannot be read \(x x .*damaged or cut off\?$"
    with pytest.raises(ValueError, match=sentence) as found, reading("a.npz"):
        raise RuntimeError("x\n" * 1000)
    assert len(str(found.value)) < 400
    with pytest.raises(ValueError, match=r"^p.star: 1 of 2 volumes hold NaN"), reading("p.star"):
        volumes = np.zeros((2, 8, 8, 8), np.float32)
        volumes[1, 0, 0, 0] = np.nan
        ParticleSet(volumes, particle_table(2), 10.0)
