"""Stacks of volumes in one file: NumPy arrays and archives, and .mrcs. Nothing is ever unpickled."""

import math
import zipfile
from pathlib import Path

import numpy as np
import scipy
import torch

from ..volumes.maps import PACKED_SUFFIXES, read_header, read_map_header
from ..volumes.poses import pose_to_relion_angles
from ..volumes.table import check_array

BYTES_A_PARTICLE = 4096  # of labels and poses in an archive


def open_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, memory-mapped, its shape and type checked first."""
    with open(path, "rb") as handle:
        shape, dtype = _npy_header(handle, path)
        check_array(path, shape, dtype, (3, 4), on_disk=True)
        expected = handle.tell() + math.prod(shape) * dtype.itemsize
    size = Path(path).stat().st_size
    if size != expected:
        wrong = "cut off" if size < expected else "longer than its header says"
        raise ValueError(f"{path}: {size} bytes, expected {expected} for {shape} values; it is {wrong}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); is it cut off?") from error


def open_mrcs(path: Path, voxel_size_A: float | None) -> tuple[np.ndarray, float]:
    """Volumes (N, D, D, D), memory-mapped, one after another along the sections, whether or not the header calls them a
    volume stack.
    """
    header = read_header(path)
    (sections, rows, columns), (_, voxel) = header.dimensions, read_map_header(path, voxel_size_A)
    if rows != columns or sections % columns:
        raise ValueError(
            f"{path}: {(sections, rows, columns)} voxels are no stack of cubes; expected N x D sections of D x D"
        )
    if header.order != [3, 2, 1]:
        raise ValueError(f"{path}: axis order {header.order[::-1]}; expected 1, 2, 3, the only one a stack can have")
    if path.suffix.lower() in PACKED_SUFFIXES:
        raise ValueError(f"{path}: a packed stack cannot be read in part; unpack it first")
    data = np.memmap(path, header.dtype, mode="r", offset=header.offset, shape=header.dimensions)
    return data.reshape(-1, columns, columns, columns), voxel


def read_npz(path: Path, voxel_size_A: float | None) -> tuple[np.ndarray, float | None, dict]:
    """Volumes, voxel size or None, and table columns of an archive as `folder.read_volumes` describes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "volumes.npy" not in names:
                raise ValueError(
                    f"{path}: arrays {[n.removesuffix('.npy') for n in names]}, expected one named volumes"
                )
            with archive.open("volumes.npy") as handle:
                shape, dtype = _npy_header(handle, path)
            for item in archive.infolist():  # a few bytes can unpack to gigabytes
                if item.filename != "volumes.npy" and item.file_size > BYTES_A_PARTICLE * max(
                    shape[0] if shape else 0, 100
                ):
                    raise ValueError(
                        f"{path}: {item.filename} unpacks to {item.file_size} bytes; expected at most "
                        f"{BYTES_A_PARTICLE} a particle"
                    )
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an .npz archive ({' '.join(str(error).split())[:300]})") from error
    check_array(f"{path}:volumes", shape, dtype, (4,))
    try:
        with np.load(path, allow_pickle=False) as archive:
            data = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        told = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: cannot be read ({told}); store numbers and fixed-length text only") from error
    count = len(data["volumes"])
    for key, wanted in {"label": (count,), "quaternion_xyzw": (count, 4), "shift_zyx_voxels": (count, 3)}.items():
        if key in data and data[key].shape != wanted:
            raise ValueError(f"{path}: {key} has shape {data[key].shape}, expected {wanted}")
    voxel = voxel_size_A or (float(data["voxel_size_A"]) if "voxel_size_A" in data else None)
    columns: dict[str, object] = {}
    if "label" in data:
        columns["class_name"] = data["label"].astype(str)
    if "quaternion_xyzw" in data:
        angles = _angles_of_quaternions(data["quaternion_xyzw"], path)
        columns |= dict(zip(("rot_deg", "tilt_deg", "psi_deg"), angles, strict=True))
    if "shift_zyx_voxels" in data and voxel is not None:
        # the file counts from the middle of the box, the table from the voxel n // 2
        shifts = data["shift_zyx_voxels"] - 0.5 * (data["volumes"].shape[-1] % 2 == 0)
        columns |= dict(zip(("shift_z_A", "shift_y_A", "shift_x_A"), shifts.T * voxel, strict=True))
    return data["volumes"].astype(np.float32) * float(data.get("scale", 1.0)), voxel, columns


def _angles_of_quaternions(quaternions: np.ndarray, path: Path) -> list[np.ndarray]:
    """RELION angles of quaternions (N, 4) whose R takes zyx offsets in the particle to the reference."""
    norm = np.linalg.norm(quaternions, axis=1, keepdims=True)
    if not (np.abs(norm - 1) < 0.01).all():
        raise ValueError(f"{path}: quaternion_xyzw are not of length 1 (from {norm.min():g} to {norm.max():g})")
    zyx = torch.from_numpy(scipy.spatial.transform.Rotation.from_quat(quaternions).as_matrix())
    # the pose acts on xyz, and the other way: from the reference to the particle
    return [a.numpy() for a in pose_to_relion_angles(zyx.flip((-2, -1)).mT)]


def _npy_header(handle, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that an .npy stream announces."""
    try:
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(handle)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a NumPy array ({error})") from error
    return shape, dtype
