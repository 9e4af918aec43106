"""Bad input of every kind: one clear sentence that names the file, before any long work, and nothing is run that a file
brings along.
"""

import gzip
import json
import pickle
import zipfile
from collections.abc import Callable
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

from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.volumes.lazy import reading
from cryoetgan_core.volumes.table import ParticleSet, particle_table

EDGE = 6
STACK = np.zeros((2, 4, 4, 4))
CASES: dict[str, tuple] = {}  # name to message, maker of the input in an empty folder, options


def case(name: str, message: str, make: Callable[[Path], object], **options: object) -> None:
    """`make` returns the path to load, or the path and more options; anything else stands for the folder."""
    CASES[name] = (message, make, options)


def cube(value=None, edge=EDGE):
    data = np.random.default_rng(0).normal(size=(edge,) * 3).astype(np.float32)
    return data if value is None else np.full_like(data, value)


def map_file(path, data=None, voxel=9.0):
    mrcfile.write(path, cube() if data is None else data, voxel_size=voxel, overwrite=True)
    return path


def patched(path, *changes):
    """Words of a file (offset, value, kind) changed."""
    raw = bytearray(path.read_bytes())
    for offset, value, kind in changes:
        raw[offset : offset + np.dtype(kind).itemsize] = np.array(value, kind).tobytes()
    path.write_bytes(raw)


def cut(path, to):
    path.write_bytes(path.read_bytes()[:to])
    return path


def two(folder):
    """A sound folder of two maps, to spoil; the second."""
    map_file(folder / "a.mrc")
    return map_file(folder / "b.mrc")


# folders of volumes
case("nothing there", "no such file or folder", lambda f: f / "gone")
case("empty folder", "no volumes", lambda f: f)
case("truncated map", "b.mrc: .*cut off", lambda f: cut(two(f), -100) and f)
case("truncated header", "b.mrc: 500 bytes", lambda f: cut(two(f), 500) and f)
case("empty file", "b.mrc: 0 bytes", lambda f: cut(two(f), 0) and f)
case("text called map", "b.mrc: not an MRC map", lambda f: two(f).write_text("this is no map " * 200) and f)
case("an image", "b.mrc: .*expected a 3-D map", lambda f: map_file(two(f), cube()[0]) and f)
for name, message, *words in (
    ("absurd dimensions", "dimensions", (0, -5, "<i4")),
    ("large dimensions", "cut off", *((offset, 900, "<i4") for offset in (0, 4, 8))),
    ("huge dimensions", "at most", *((offset, 100_000, "<i4") for offset in (0, 4, 8))),
    ("complex map", "mode 4", (12, 4, "<i4")),
    ("axes named twice", "axis order", (64, 3, "<i4")),
    ("voxels not cubic", "cubic voxel", (40, 99.0, "<f4")),
    ("NaN voxels", "NaN", (1100, np.nan, "<f4")),
):
    case(name, f"b.mrc: .*{message}", lambda f, words=words: patched(two(f), *words) or f)
case("mixed boxes", "b.mrc: shape .*crop them", lambda f: map_file(two(f), cube(edge=8)) and f)
case("not a cube", "a.mrc: shape .*a cube; crop them", lambda f: map_file(f / "a.mrc", cube()[:, :, :4].copy()) and f)
case("mixed voxel sizes", "voxel sizes from 9 to 12 A", lambda f: map_file(two(f), voxel=12.0) and f)
case("no voxel size", "b.mrc: the header's voxel size", lambda f: map_file(two(f), voxel=0.0) and f)
case(
    "longer than its header says",
    "b.mrc: .*longer than",
    lambda f: (p := two(f)).write_bytes(p.read_bytes() + bytes(512)) and f,
)
case("text called gz", "b.mrc.gz: ", lambda f: (two(f).parent / "b.mrc.gz").write_text("not packed " * 100) and f)


def packed_and_cut(folder):
    packed = gzip.compress(two(folder).read_bytes())
    (folder / "b.mrc").unlink()
    (folder / "b.mrc.gz").write_bytes(packed[: len(packed) // 2])
    return folder


def unreadable_file(folder):
    two(folder).unlink()
    (folder / "b.mrc").symlink_to(folder / "nowhere")
    return folder


case("packed and cut", "b.mrc.gz: .*cannot be read", packed_and_cut)
case("unreadable file", "b.mrc: cannot be read|Permission|no such", unreadable_file)
for name, message, text in (
    ("label missing", "no label for 1 of 2", "particle,label\na.mrc,x\n"),
    ("empty class", "no label for 1 of 2", "particle,label\na.mrc,x\nb.mrc,\n"),
    ("label twice", "each particle once", "particle,label\na.mrc,x\na.mrc,y\nb.mrc,x\n"),
    ("label columns", "expected particle,label", "name,kind\na.mrc,x\nb.mrc,x\n"),
):
    case(name, message, lambda f, text=text: (two(f).parent / "labels.csv").write_text(text) and f)
for message, options in {
    "voxel size -3": {"voxel_size_A": -3.0}, "protein is 'grey'": {"protein": "grey"},
    "beam_axis is 'w'": {"beam_axis": "w"}, "no sign= for such.*mirror_z=": {"sign": -1},
    "mirror_z is 'no'; expected true or false": {"mirror_z": "no"},
}.items():  # fmt: skip
    case(message, message, lambda f: two(f).parent, **options)

# files of text
for ending, message in {
    "tif": ".*TIFF", "npy": ".*NumPy", "npz": "not an .npz", "h5": ".*HDF5", "star": "", "mrcs": "",
    "xyz": ".*expected a folder of",
}.items():  # fmt: skip
    told = {} if ending == "star" else {"voxel_size_A": 9.0}
    case(f"text called {ending}", f"a.{ending}: {message}", lambda f, e=ending: written(f / f"a.{e}"), **told)


def written(path, text="nothing of the kind\n" * 100):
    path.write_text(text)
    return path.parent if path.suffix == ".tif" else path


# EM, TIFF, MRC stacks
def em(folder):
    emfile.write(folder / "a.em", cube())
    return folder / "a.em"


case("EM, cut header", "a.em: .*header", lambda f: (f / "a.em").write_bytes(b"\x06" * 100) and f, voxel_size_A=9.0)
case("EM, cut", "a.em: .*cut off", lambda f: cut(em(f), -8) and f, voxel_size_A=9.0)
case("EM of a VAX", "a.em: machine code 1", lambda f: patched(em(f), (0, 1, "i1")) or f, voxel_size_A=9.0)
case("EM without a voxel size", "give voxel_size_A", lambda f: em(f).parent)
case(
    "TIFF of one image", "a.tif: shape .*2-D", lambda f: tifffile.imwrite(f / "a.tif", cube()[0]) or f, voxel_size_A=9.0
)
case(
    "mrcs of other axes",
    "a.mrcs: .*axis order",
    lambda f: patched(map_file(f / "a.mrcs"), (64, 2, "<i4"), (68, 1, "<i4")) or f / "a.mrcs",
)
case("mrcs of images", "a.mrcs: .*no stack of cubes", lambda f: map_file(f / "a.mrcs", cube()[:4].copy()))


# NumPy
def saved(path, data=None, **arrays):
    np.savez(path, **arrays) if arrays else np.save(path, data, allow_pickle=True)
    return path


for name, message, data in (
    ("of objects", ".*object", np.array([{}], object)),
    ("of complex numbers", ".*complex", STACK.astype(complex)),
    ("of bricks", ".*cubic", np.zeros((2, 4, 4, 5))),
    ("of nothing", ".*at least one", STACK[:0]),
    ("of an image", ".*2-D", np.zeros((4, 4))),
):
    case(f"npy {name}", f"a.npy: {message}", lambda f, d=data: saved(f / "a.npy", d), voxel_size_A=9.0)
case("npy cut", "a.npy: .*cut off", lambda f: cut(saved(f / "a.npy", STACK), 300), voxel_size_A=9.0)
case("npy without a voxel size", "give voxel_size_A", lambda f: saved(f / "a.npy", STACK))
for message, arrays in {
    "a.npz: .*one named volumes": {"other": STACK},
    "label has shape": {"volumes": STACK, "label": np.array(["a"])},
    "quaternion_xyzw are not of length 1": {"volumes": STACK, "quaternion_xyzw": np.full((2, 4), 3.0)},
    "fixed-length text": {"volumes": STACK, "label": np.array([{}, {}], dtype=object)},
}.items():
    case(message, message, lambda f, a=arrays: saved(f / "a.npz", **a), voxel_size_A=9.0)


def zip_bomb(folder):
    shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (400000, 64, 64, 64), }".ljust(117)
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("volumes.npy", b"\x93NUMPY\x01\x00v\x00" + shape + b"\n" + bytes(1 << 20))
    return folder / "a.npz"


def zip_bomb_beside_the_volumes(folder):
    with zipfile.ZipFile(saved(folder / "a.npz", volumes=STACK), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("label.npy", bytes(1 << 28))
    return folder / "a.npz"


case("zip bomb", "a.npz:volumes: shape .*at most", zip_bomb, voxel_size_A=9.0)
case("zip bomb beside the volumes", "a.npz: .*unpacks to", zip_bomb_beside_the_volumes, voxel_size_A=9.0)


# HDF5, zarr
def hdf5(folder, **datasets):
    with h5py.File(folder / "a.h5", "w") as handle:
        handle.update(datasets)
    return folder / "a.h5"


def zarr_with_a_missing_chunk(folder):
    zarr.create_array(folder / "a.zarr", data=np.ones((4, 4, 4, 4), np.float32), chunks=(1, 4, 4, 4))
    next(p for p in sorted((folder / "a.zarr").rglob("*")) if p.is_file() and p.name != "zarr.json").unlink()
    return folder / "a.zarr"


def zarr_larger_than_memory(folder):
    """2^19 volumes of 24^3 in a store that holds none of them: only its description is read."""
    zarr.create_array(folder / "a.zarr", shape=(1 << 19, 24, 24, 24), chunks=(1 << 19, 24, 24, 24), dtype="i1")
    return folder / "a.zarr"


def hdf5_whose_voxels_lie_elsewhere(folder):
    layout = h5py.VirtualLayout((8, 8, 8), "f4")
    layout[:] = h5py.VirtualSource("gone.h5", "v", (8, 8, 8))
    with h5py.File(folder / "a.h5", "w") as handle:
        handle.create_virtual_dataset("v", layout)
    return folder / "a.h5", {"box": 4, "n": 1}


def zarr_whose_metadata_lie(folder):
    group = zarr.open_group(folder / "a.zarr", mode="w")
    group.create_array("1", data=np.ones((8, 8, 8), np.float32))
    group.attrs.update({"multiscales": [{"datasets": [{"path": "0"}], "axes": []}]})
    return folder / "a.zarr", {"box": 4, "n": 1}


def zarr_with_broken_metadata(folder):
    zarr.save_array(folder / "a.zarr", np.ones((4, 4, 4, 4), np.float32))
    (folder / "a.zarr" / "zarr.json").write_text("{")
    return folder / "a.zarr"


case("HDF5 of several", "a.h5: datasets", lambda f: hdf5(f, a=STACK, b=STACK), voxel_size_A=9.0)
case("HDF5 of complex numbers", "a.h5.*real", lambda f: hdf5(f, v=STACK[0] * 1j), box=4, n=1, voxel_size_A=9.0)
case("HDF5, voxels elsewhere", "its voxels lie in other files", hdf5_whose_voxels_lie_elsewhere, voxel_size_A=9.0)
case("HDF5 of five dimensions", "a.h5:v: .*5-D", lambda f: hdf5(f, v=STACK[None]), voxel_size_A=9.0)
case("zarr, empty", "a.zarr: .*zarr", lambda f: (f / "a.zarr").mkdir() or f / "a.zarr", voxel_size_A=9.0)
case("zarr, a missing chunk", "a.zarr: .*chunks are missing", zarr_with_a_missing_chunk, voxel_size_A=9.0)
case("zarr, larger than memory", "1 of 1 chunks are missing", zarr_larger_than_memory, voxel_size_A=9.0)
case("zarr, lying metadata", "a.zarr: .*not there", zarr_whose_metadata_lie, voxel_size_A=9.0)
case("zarr, broken metadata", "a.zarr: .*cannot be read as zarr", zarr_with_broken_metadata, voxel_size_A=9.0)

# pickles
for message, raw in {
    r".*builtins\.eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "not read": pickle.dumps({"a": [cube()]})[:-40],
    "holds a list": pickle.dumps([cube()]),
    "class 'b'": pickle.dumps({"a": [cube()], "b": []}),
    "volumes of shapes": pickle.dumps({"a": [cube(), cube(edge=8)]}),
}.items():
    make = lambda f, raw=raw: (f / "a.pickle").write_bytes(raw) and f / "a.pickle"  # noqa: E731
    case(f"pickle, {message}", f"a.pickle: {message}", make, voxel_size_A=9.0)


# STAR files of subtomograms
def star(folder, **changes):
    map_file(folder / "v.mrc")
    optics = {"rlnOpticsGroup": [1], "rlnImagePixelSize": [9.0], "rlnImageSize": [EDGE], "rlnImageDimensionality": [3]}
    rows = {"rlnImageName": ["v.mrc"], "rlnOpticsGroup": [1]} | {f"rlnAngle{a}": [0.0] for a in ("Rot", "Tilt", "Psi")}
    particles = {k: v for k, v in (rows | changes).items() if v is not None}
    starfile.write({"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}, folder / "p.star")
    return folder / "p.star"


for name, message, changes in (
    ("path traversal", ".*leads out of", {"rlnImageName": ["../../etc/passwd"]}),
    ("an absolute path", ".*leads out of", {"rlnImageName": ["/etc/hostname"]}),
    ("a name of nothing", ".*does not exist", {"rlnImageName": ["w.mrc"]}),
    ("no names", ".*lacks rlnImageName", {"rlnImageName": None}),
    ("text for angles", "rlnAngleRot holds", {"rlnAngleRot": ["east"]}),
    ("a wrong number", ".*NUMBER@FILE", {"rlnImageName": ["zero@v.mrc"]}),
    ("beyond the stack", "names volume 9", {"rlnImageName": ["9@v.mrc"]}),
):
    case(f"STAR, {name}", f"p.star: {message}", lambda f, c=changes: star(f, **c))
for message, rows in {
    "line 7 has 3 words, expected 4": "1 2 3\n",
    "data_particles a second time": "1 2 3 4\n\ndata_particles\n\nloop_\n_rlnCoordinateX\n1\n",
}.items():
    text = f"data_particles\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n{rows}"
    case(f"STAR, {message}", f"p.star: .*{message}", lambda f, text=text: written(f / "p.star", text))
other_box = lambda f: (star(f), map_file(f / "v.mrc", cube(edge=8)))[0]  # noqa: E731
case("STAR of another box", "v.mrc: .*expected 6 on every side", other_box)


# tomograms, coordinates and labels
def tomogram(folder, text, name="p.csv", **options):
    map_file(folder / "t.mrc", cube(edge=20))
    (folder / name).write_text(text)
    return folder / "t.mrc", {"box": 6, "coordinates": folder / name} | options


for name, message, file, text in (
    ("without a column", "p.csv: .*expected x, y, z", "p.csv", "x,y\n1,2\n"),
    ("that are text", "p.csv: y holds", "p.csv", "x,y,z\n10,here,10\n"),
    ("of nothing", "p.csv: .*0 rows", "p.csv", "x,y,z\n"),
    ("all outside", "1 of 1 positions lie outside the tomogram .*another binning", "p.csv", "x,y,z\n300,10,10\n"),
    ("with a name twice", "particle 'a' is listed twice", "p.csv", "x,y,z,particle\n10,10,10,a\n11,10,10,a\n"),
    ("of another one", "p.csv: .*none of these is the tomogram", "p.csv", "x,y,z,tomogram\n10,10,10,other\n"),
    ("of a narrow table", "p.tbl: .*columns", "p.tbl", "1 2 3\n"),
    ("of a table of text", "p.tbl: cannot be read", "p.tbl", "one two three\n"),
    ("of unknown kind", "p.xyz: not a kind of coordinates", "p.xyz", "1 2 3\n"),
):
    case(f"coordinates {name}", message, lambda f, file=file, text=text: tomogram(f, text, file))
case("tomogram without a box", "t.mrc is a tomogram of .*give box=", lambda f: map_file(f / "t.mrc", cube(edge=20)))
LABELS = {"shape": cube(1, edge=12).astype(np.int8), "no connected label": cube(0, edge=20).astype(np.int8)}
for message, labels in (LABELS | {".*are no labels; expected whole numbers": cube(edge=20)}).items():

    def labelled(folder, labels=labels):
        path = map_file(folder / "labels.mrc", labels)
        return map_file(folder / "t.mrc", cube(edge=20)), {"labels_path": path, "box": 6, "voxel_size_A": 9.0}

    case(f"labels, {message}", f"labels.mrc: {message}", labelled)

# copick
PICKS = {"pickable_object_name": "a", "user_id": "me", "session_id": "1"}
PICKS |= {"points": [{"location": {"x": 1, "y": 2, "z": 3}}]}
for name, message, picks in (
    ("that are no JSON", "me_1_a.json: cannot be read as JSON", "{"),
    ("without a location", "me_1_a.json: not picks", json.dumps(PICKS | {"points": [{}]})),
    ("that are NaN", "not picks .*not finite", json.dumps(PICKS).replace('"x": 1', '"x": NaN')),
    ("without a tomogram", "no such tomogram", json.dumps(PICKS)),
    ("of none", "no picks", json.dumps(PICKS | {"points": []})),
):

    def project(folder, picks=picks):
        path = folder / "ExperimentRuns" / "r" / "Picks" / "me_1_a.json"
        path.parent.mkdir(parents=True)
        path.write_text(picks)
        return folder

    case(f"picks {name}", message, project, box=6)
elsewhere = json.dumps({"pickable_objects": [], "overlay_root": "s3://bucket/x"})
case("a project elsewhere", "expected a folder on this machine", lambda f: written(f / "c.json", elsewhere), box=6)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_one_clear_sentence(name: str, tmp_path: Path) -> None:
    message, make, options = CASES[name]
    path = make(tmp_path)
    path, options = (path[0], options | path[1]) if isinstance(path, tuple) else (path, options)
    with pytest.raises(ValueError, match=message) as raised:
        np.asarray(load_particles(path, **options).volumes)
    assert len(str(raised.value)) < 700 and "Traceback" not in str(raised.value)


def test_what_a_library_says_becomes_one_line_and_a_sentence_without_a_file_gets_one() -> None:
    sentence = r"^a.npz: cannot be read \(x x .*damaged or cut off\?$"
    with pytest.raises(ValueError, match=sentence) as found, reading("a.npz"):
        raise RuntimeError("x\n" * 1000)
    assert len(str(found.value)) < 400
    with pytest.raises(ValueError, match=r"^p.star: 1 of 2 volumes hold NaN"), reading("p.star"):
        volumes = np.zeros((2, 8, 8, 8), np.float32)
        volumes[1, 0, 0, 0] = np.nan
        ParticleSet(volumes, particle_table(2), 10.0)
