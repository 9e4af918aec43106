"""Density maps: reading MRC/CCP4 files safely, and resampling them (`shape` looks at what they hold).

Volumes are (D, H, W) float32 tensors indexed zyx; the centre of a box is the voxel at ``size // 2``.
"""

from __future__ import annotations

import bz2
import gzip
import math
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MAP_SUFFIXES = (".mrc", ".map", ".ccp4", ".rec", ".st")
PACKED_SUFFIXES = (".gz", ".bz2")
# how each packing is opened, and how much smaller it makes a file at most: enough to tell an absurd header without
# unpacking
_PACKINGS = {".gz": (gzip.open, 1032), ".bz2": (bz2.open, 50_000)}
# NumPy types of the MRC2014 modes that hold real numbers; mode 0 may be unsigned, see `_signed`
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_IMOD_STAMP, _IMOD_SIGNED = 1146047817, 1
_MAX_VOXELS = 1024**3


@dataclass(frozen=True)
class Header:
    """What a sound MRC header says of its data.

    Attributes
    ----------
    order : axis order (section, row, column); 1 = x, 3 = z.
    voxel_A : (3,) voxel size xyz; 0 where it is missing.
    dimensions : sections, rows, columns.
    dtype : of a voxel, with its byte order.
    offset : bytes before the first voxel.
    """

    order: list[int]
    voxel_A: np.ndarray
    dimensions: tuple[int, int, int]
    dtype: np.dtype
    offset: int


def read_map(path: str | Path, *, voxel_size_A: float | None = None) -> tuple[Tensor, float]:
    """A density map as (D, H, W) float32, zyx whatever the file's axis order, and its voxel size in angstrom.

    Parameters
    ----------
    path
        .mrc, .map or .ccp4, also packed (.gz, .bz2).
    voxel_size_A
        overrides the header. Without it a header of exactly 1.0 A, or outside 0.1 to 100 A, is used with a
        warning, and a missing one is an error.

    Raises ValueError when the file is not a real-valued 3-D map of finite numbers, when it is shorter than its header
    says (checked before the data are read), or when the voxel size is missing, negative or differs between the axes.
    """
    path = Path(path)
    if voxel_size_A is not None and not (voxel_size_A > 0 and math.isfinite(voxel_size_A)):
        raise ValueError(f"{path}: voxel_size_A is {voxel_size_A}; expected a positive number of angstrom")
    header = read_header(path)
    opened, _ = _PACKINGS.get(path.suffix.lower(), (open, 1))
    size = math.prod(header.dimensions) * header.dtype.itemsize
    try:
        with opened(path, "rb") as handle:
            handle.read(header.offset)
            raw = handle.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read as an MRC map ({error}); download or export it again") from error
    if len(raw) < size:
        raise ValueError(f"{path}: {header.offset + len(raw)} bytes, expected {header.offset + size}; it is cut off")
    data = np.frombuffer(raw, header.dtype).reshape(header.dimensions).astype(np.float32)
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).sum())
        raise ValueError(f"{path}: {bad} of {data.size} voxels are NaN or infinite; replace them before use")
    data = np.transpose(data, [header.order.index(axis) for axis in (3, 2, 1)])
    volume = torch.from_numpy(np.ascontiguousarray(data))
    return volume, _judged_voxel_size(path, header.voxel_A) if voxel_size_A is None else float(voxel_size_A)


def read_map_header(path: Path, voxel_size_A: float | None = None) -> tuple[tuple[int, int, int], float]:
    """Shape (D, H, W), zyx, and voxel size of a map whose data stay unread; errors are those of `read_map` that need no
    data.
    """
    header = read_header(path)
    shape = tuple(header.dimensions[header.order.index(axis)] for axis in (3, 2, 1))
    return shape, _judged_voxel_size(path, header.voxel_A) if voxel_size_A is None else float(voxel_size_A)


def read_header(path: Path) -> Header:
    """The header of an MRC file, packed or not, once it makes sense and the file is as long as it says.

    Bytes (mode 0) are signed, as MRC2014 has it, unless IMOD's stamp or the header's minimum and maximum say otherwise.
    An extended header that is announced but not there is left out, with a warning.

    Raises ValueError as `read_map`, where no data are needed to tell.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a density map")
    opened, packed = _PACKINGS.get(path.suffix.lower(), (open, 1))
    try:
        with opened(path, "rb") as handle:
            raw = handle.read(1024)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if len(raw) < 1024:
        raise ValueError(f"{path}: {len(raw)} bytes, expected at least the 1024 of an MRC header; the file is cut off")
    for endian in "><" if raw[212] == 0x11 else "<>":  # the machine stamp, where it is there
        words = np.frombuffer(raw, endian + "i4")
        if 0 <= words[3] < 1024 and (words[:3] > 0).all():
            break
    else:
        raise ValueError(
            f"{path}: not an MRC map: dimensions {np.frombuffer(raw, '<i4')[:3].tolist()} and mode "
            f"{np.frombuffer(raw, '<i4')[3]} make no sense; expected an .mrc, .map or .ccp4 file"
        )
    columns, rows, sections, mode = (int(v) for v in words[:4])
    if mode not in _MODES:
        raise ValueError(
            f"{path}: mode {mode}, expected real numbers (modes {', '.join(map(str, _MODES))}); "
            "complex and 4-bit maps must be converted first"
        )
    if min(columns, rows, sections) < 2:
        raise ValueError(f"{path}: {sections} x {rows} x {columns} voxels is an image, expected a 3-D map")
    numbers = np.frombuffer(raw, endian + "f4")
    dtype = np.dtype(endian + _MODES[mode])
    if mode == 0 and not _signed(words, numbers):
        dtype = np.dtype("u1")
    voxels = columns * rows * sections
    extended = int(words[23])
    expected = 1024 + extended + voxels * dtype.itemsize
    if voxels > _MAX_VOXELS or extended < 0:
        raise ValueError(
            f"{path}: {sections} x {rows} x {columns} voxels and an extended header of {extended} bytes; "
            "expected at most 1024^3 voxels; crop or bin the map first"
        )
    size = path.stat().st_size
    if packed == 1 and extended and size == expected - extended:
        warnings.warn(f"{path}: its extended header of {extended} bytes is not there; read without it", stacklevel=3)
        extended, expected = 0, size
    if size * packed < expected or (packed == 1 and size > expected):
        wrong = "cut off" if size * packed < expected else "longer than its header says"
        raise ValueError(
            f"{path}: {size} bytes, expected {expected} for {sections} x {rows} x {columns} voxels of mode {mode}; the "
            f"file is {wrong} or its header is wrong; export it again"
        )
    order = [int(v) for v in words[[18, 17, 16]]]
    if order == [0, 0, 0]:  # written by old programs that knew one order only
        order = [3, 2, 1]
    if sorted(order) != [1, 2, 3]:
        raise ValueError(f"{path}: axis order mapc, mapr, maps is {order[::-1]}, expected a permutation of 1, 2, 3")
    cell = numbers[10:13].astype(float)
    sampling = words[7:10].astype(float)
    if not sampling.any():  # left out by some programs, while the cell is there
        sampling = np.array([(sections, rows, columns)[order.index(axis)] for axis in (1, 2, 3)], float)
    voxel = np.where(sampling > 0, cell / np.where(sampling > 0, sampling, 1), 0.0)
    return Header(order, voxel, (sections, rows, columns), dtype, 1024 + extended)


def _signed(words: np.ndarray, numbers: np.ndarray) -> bool:
    """Whether bytes are signed: by IMOD's flag where its stamp is there, else by the header's minimum and maximum, else
    yes (IMOD's rule, imodhelp "mrc format").
    """
    if words[38] == _IMOD_STAMP:
        return bool(words[39] & _IMOD_SIGNED)
    least, most = numbers[19], numbers[20]
    return not (0 <= least <= most <= 255 and most > 127)


def _judged_voxel_size(path: Path, voxel: np.ndarray) -> float:
    """One voxel size from the header's three."""
    advice = "give the true one as voxel_size_A, or behind the name of a density (FILE@13.68)"
    if not np.isfinite(voxel).all() or (voxel <= 0).any():
        raise ValueError(f"{path}: the header's voxel size is {voxel.tolist()} A, expected positive numbers; {advice}")
    if voxel.max() > 1.01 * voxel.min():
        raise ValueError(f"{path}: the header's voxel size is {voxel.tolist()} A, expected a cubic voxel; {advice}")
    size = float(voxel.mean())
    if abs(size - 1.0) < 1e-6 or not 0.1 < size < 100:
        warnings.warn(
            f"{path}: the header says {size:g} A a voxel, which is often a placeholder; {advice}", stacklevel=3
        )
    return size


def low_pass_gain(frequency: Tensor, resolution_A: float, nyquist: float) -> Tensor:
    """The one low-pass of this package, along one axis; ``frequency`` and ``nyquist`` in cycles an angstrom.

    A Gaussian that falls to 1/e at ``1 / resolution_A``, times a raised cosine from 1 at 0.75 ``nyquist`` to
    0 at ``nyquist`` (a sharp cut would ring round every membrane).
    """
    edge = ((frequency.abs() / nyquist - 0.75) / 0.25).clamp(0, 1)
    return torch.exp(-((frequency * resolution_A) ** 2)) * torch.cos(edge * math.pi / 2) ** 2


def resample(
    volume: Tensor,
    voxel_size_A: float,
    *,
    new_voxel_size_A: float,
    box: int,
    resolution_A: float = 0.0,
    centre_zyx: Tensor | None = None,
) -> Tensor:
    """A map low-passed, resampled, shifted and cropped or padded in one exact step: (box, box, box).

    Every axis is a matrix: the Gaussian of ``resolution_A`` (1/e at ``1 / resolution_A``), on a coarser grid
    the soft cut at its Nyquist frequency (`low_pass_gain`), and band-limited interpolation at the new
    positions. Outside the map the density is 0.

    Parameters
    ----------
    centre_zyx
        the point of the map, in (fractional) voxel indices, that comes to the new centre ``box // 2``; by
        default the map's centre ``size // 2``.

    Raises ValueError when a size is not positive or the volume is not 3-D.
    """
    if volume.ndim != 3 or not voxel_size_A > 0 or not new_voxel_size_A > 0 or box < 1 or not resolution_A >= 0:
        raise ValueError(
            f"resample: volume {tuple(volume.shape)}, voxel sizes {voxel_size_A} and {new_voxel_size_A} A, "
            f"box {box}, resolution {resolution_A} A; expected (D, H, W), positive sizes, resolution >= 0"
        )
    out = volume.double()
    for axis in range(3):
        n = volume.shape[axis]
        centre = n // 2 if centre_zyx is None else float(centre_zyx[axis])
        position = (torch.arange(box, dtype=torch.float64) - box // 2) * (new_voxel_size_A / voxel_size_A) + centre
        # the period is longer than the map by what the Gaussian reaches, so that one side does not leak to
        # the other
        period = n + 2 * math.ceil(max(resolution_A, 2 * new_voxel_size_A) / voxel_size_A) + 2
        k = torch.arange(period // 2 + 1, dtype=torch.float64)
        frequency = k / (period * voxel_size_A)  # 1/A
        gain = torch.exp(-((frequency * resolution_A) ** 2))
        if new_voxel_size_A > voxel_size_A:
            gain = low_pass_gain(frequency, resolution_A, 0.5 / new_voxel_size_A)
        gain = gain * torch.where((k == 0) | (2 * k == period), 1.0, 2.0)  # the others stand for both signs
        distance = position[:, None] - torch.arange(n, dtype=torch.float64)
        matrix = (torch.cos(2 * math.pi / period * k * distance[..., None]) * gain).sum(-1) / period
        matrix[(position < -0.5) | (position > n - 0.5)] = 0
        out = torch.tensordot(out, matrix.to(out.device), dims=([0], [1]))  # the axis done goes last
    return out.to(volume.dtype)
