"""One file (or zarr store), one array: every kind of file that holds volumes, checked before its voxels are read.

Nothing is ever unpickled.
"""

import json
import math
import re
import warnings
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import tifffile
import zarr

from ..volumes.em import EM_SUFFIXES, em_header, read_em
from ..volumes.maps import MAP_SUFFIXES, PACKED_SUFFIXES, read_map, read_map_header
from ..volumes.table import check_array
from .arrays import open_npy

TIFF_SUFFIXES = (".tif", ".tiff")
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
ZARR_SUFFIXES = (".zarr",)
VOLUME_SUFFIXES = MAP_SUFFIXES + EM_SUFFIXES + TIFF_SUFFIXES  # of one volume
# kinds whose headers do not say it, or not reliably
NO_VOXEL_SIZE = EM_SUFFIXES + TIFF_SUFFIXES + HDF5_SUFFIXES + (".npy",)
_EMAN = re.compile(r"MDF/images/[0-9]+/image")
_ANGSTROM = {"angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4}


def suffix_of(path: Path) -> str:
    """The ending of a file in lower case, without that of its packing: ``.mrc`` of ``a.mrc.gz``."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_volume(path: Path, voxel_size_A: float | None = None) -> tuple[np.ndarray, float | None]:
    """The volume (Z, Y, X) of an MRC (packed or not), EM, TIFF, HDF5, NumPy file or zarr store, as stored, and its
    voxel size: the one given, else the header's, None where it has none.

    Raises ValueError when the file is missing, cut off, of another kind or not 3-D.
    """
    suffix = suffix_of(path)
    if suffix in MAP_SUFFIXES:
        volume, voxel = read_map(path, voxel_size_A=voxel_size_A)
        return volume.numpy(), voxel
    if suffix in EM_SUFFIXES:
        return read_em(path), voxel_size_A
    if suffix in TIFF_SUFFIXES:
        return read_tiff(path), voxel_size_A
    if suffix in HDF5_SUFFIXES:
        return read_hdf5(path, (3,)), voxel_size_A
    if suffix in ZARR_SUFFIXES:
        array, voxel = open_zarr(path, (3,))
        return np.asarray(array[:]), voxel_size_A or voxel
    if suffix == ".npy":
        volume = open_npy(path)
        check_array(path, volume.shape, volume.dtype, (3,))
        return volume, voxel_size_A
    known = VOLUME_SUFFIXES + HDF5_SUFFIXES + ZARR_SUFFIXES + (".npy",)
    raise ValueError(f"{path}: not a kind of volume known here; expected one of {', '.join(known)}")


def volume_shape(path: Path, voxel_size_A: float | None = None) -> tuple[tuple[int, ...], float | None]:
    """Shape and voxel size of a file of VOLUME_SUFFIXES, its voxels unread."""
    suffix = suffix_of(path)
    if suffix in MAP_SUFFIXES:
        return read_map_header(path, voxel_size_A)
    if suffix in EM_SUFFIXES:
        return em_header(path)[0], voxel_size_A
    return read_tiff(path).shape, voxel_size_A


def read_tiff(path: Path) -> np.ndarray:
    """The stack of images of a TIFF file."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a TIFF stack")
    try:
        with tifffile.TiffFile(path) as handle:
            series = handle.series[0]
            check_array(path, series.shape, series.dtype, (3,))
            return series.asarray()
    except (tifffile.TiffFileError, OSError, IndexError, AssertionError) as error:
        raise ValueError(f"{path}: cannot be read as TIFF ({error or 'damaged'})") from error


def open_hdf5(path: Path, dimensions: tuple[int, ...]) -> "h5py.Dataset | EmanStack":
    """The one dataset of an HDF5 file with the given number of dimensions, or EMAN2's particles as a
    stack, unread; the file stays open as long as it is used.

    Raises ValueError when the file is none, holds several datasets, its data lie in other files, or chunks are
    missing.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected HDF5")
    try:
        handle = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({error})") from error
    found: dict[str, h5py.Dataset] = {}
    handle.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    if len(found) > 1 and all(_EMAN.fullmatch(name) for name in found) and 4 in dimensions:
        return EmanStack(path, handle, sorted(found, key=lambda name: int(name.split("/")[2])))
    if len(found) != 1:
        raise ValueError(f"{path}: datasets {sorted(found)[:9]}; expected one")
    ((dataset, data),) = found.items()
    check_array(f"{path}:{dataset}", data.shape, data.dtype, dimensions, on_disk=True)
    if data.is_virtual or data.external:
        raise ValueError(f"{path}:{dataset}: its voxels lie in other files; copy them into one dataset")
    if data.chunks:
        counts = [-(-s // c) for s, c in zip(data.shape, data.chunks, strict=True)]
        _say_unwritten(f"{path}:{dataset}", math.prod(counts), data.id.get_num_chunks(), data)
    return data


class EmanStack:
    """The particles of an EMAN2 file (MDF/images/N/image), as a stack (N, D, D, D) that is indexed one by one."""

    ndim = 4

    def __init__(self, path: Path, handle: h5py.File, names: list[str]):
        self.file, self._names = handle, names
        shapes = {handle[name].shape for name in names}
        if len(shapes) > 1:
            raise ValueError(f"{path}: particles of shapes {sorted(shapes)[:3]}; crop them to one cubic box")
        self.shape, self.dtype = (len(names), *shapes.pop()), handle[names[0]].dtype
        check_array(path, self.shape, self.dtype, (4,), on_disk=True)
        pixel = handle[names[0]].parent.attrs.get("EMAN.apix_x")
        self.voxel_size_A = None if pixel is None else float(pixel)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.file[self._names[i]][()]


def read_hdf5(path: Path, dimensions: tuple[int, ...]) -> np.ndarray:
    """The dataset that `open_hdf5` finds, as stored."""
    found = open_hdf5(path, dimensions)
    try:
        return found[()]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({error})") from error
    finally:
        found.file.close()


def _say_unwritten(name: object, expected: int, written: int, array: object) -> None:
    """Chunks that were never written hold the fill value: usual in labels, so nothing is said; in a volume of grey
    values it is; in a stack of particles they would be particles.
    """
    missing = expected - written
    if missing and len(array.shape) == 4:
        raise ValueError(f"{name}: {missing} of {expected} chunks are missing; copy the store again")
    if not missing or np.dtype(array.dtype).kind in "iu":
        return
    warnings.warn(
        f"{name}: {missing} of {expected} chunks are not there and read as one fill value; was the whole store copied?",
        stacklevel=4,
    )


def open_zarr(path: Path, dimensions: tuple[int, ...]) -> tuple[zarr.Array, float | None]:
    """The array of a zarr store, unread, and its voxel size in angstrom where its metadata say: the store itself, the
    finest level of an OME-Zarr image, or the only array of a group.

    Raises ValueError when there is none, its dimensions or axes are others, or chunks of a stack are missing.
    """
    try:
        store = zarr.open(path, mode="r")
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError, zarr.errors.BaseZarrError) as error:
        raise ValueError(f"{path}: cannot be read as zarr ({error})") from error
    voxel = None
    if isinstance(store, zarr.Group):
        attributes = dict(store.attrs)
        images = attributes.get("ome", attributes).get("multiscales")
        names = list(store.array_keys())
        if images:
            name, voxel = _finest_level(images[0], path)
        elif len(names) == 1:
            name = names[0]
        else:
            raise ValueError(
                f"{path}: arrays {names} and no OME-Zarr image; expected one array, or multiscales metadata that name "
                "the finest"
            )
        if name not in store:
            raise ValueError(f"{path}: its metadata name the array {name!r}, which is not there; found {names}")
        store = store[name]
    if len(store.shape) == 5 and store.shape[:2] == (1, 1):  # time and channel of an OME-Zarr image
        store = SqueezedImage(store)
    check_array(path, store.shape, store.dtype, dimensions, on_disk=True)
    voxel = voxel or store.attrs.get("voxel_size_A")
    _say_unwritten(path, store.nchunks, store.nchunks_initialized, store)
    return store, voxel


class SqueezedImage:
    """A zarr array (1, 1, Z, Y, X) as (Z, Y, X), unread."""

    def __init__(self, array: zarr.Array):
        self._array, self.shape, self.ndim, self.dtype = array, array.shape[2:], 3, array.dtype
        self.chunks, self.attrs, self.fill_value = array.chunks[2:], array.attrs, array.fill_value
        self.nchunks, self.nchunks_initialized = array.nchunks, array.nchunks_initialized

    def __getitem__(self, index: object) -> np.ndarray:
        return self._array[0, 0][index]


class ChunkedStack:
    """A stack of volumes (N, D, D, D) in zarr that is indexed one by one: the chunk that holds a volume is kept for the
    next.
    """

    def __init__(self, array: zarr.Array):
        self.shape, self._depth = array.shape, array.chunks[0]
        self._chunk = lru_cache(maxsize=2)(lambda k: np.asarray(array[k * self._depth : (k + 1) * self._depth]))

    def __getitem__(self, i: int) -> np.ndarray:
        return self._chunk(i // self._depth)[i % self._depth]


def _finest_level(image: dict, path: Path) -> tuple[str, float | None]:
    """Name of the finest level of an OME-Zarr image, and its voxel size in angstrom: the scale of the level times that
    of the image.
    """
    try:
        level = image["datasets"][0]
        name, scale = str(level["path"]), None
        for found in (level, image):
            for one in found.get("coordinateTransformations", []):
                if one["type"] == "scale":
                    scale = np.array(one["scale"][-3:], float) * (1.0 if scale is None else scale)
        axes = [a if isinstance(a, dict) else {"name": a} for a in image.get("axes", [])]
        space = [a for a in axes if a.get("type", "space") == "space"][-3:]
        names, units = [str(a.get("name", "")) for a in space], [a.get("unit") for a in space]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: its multiscales metadata cannot be understood ({error!r})") from error
    if names and names != ["z", "y", "x"]:
        raise ValueError(
            f"{path}: axes {', '.join(names)}; expected z, y, x as the last three; export it in that order"
        )
    if scale is None or len(scale) != 3 or len(units) != 3 or not set(units) <= set(_ANGSTROM):
        return name, None
    sizes = scale * np.array([_ANGSTROM[unit] for unit in units])
    if sizes.max() > 1.01 * sizes.min():
        raise ValueError(f"{path}: voxels of {sizes.tolist()} A; expected cubic ones. Give voxel_size_A")
    return name, float(sizes.mean())
