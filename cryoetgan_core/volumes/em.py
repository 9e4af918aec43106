"""EM volumes (tom toolbox, Dynamo, PEET), of either byte order: 512 bytes of header, then the voxels, x fastest."""

from pathlib import Path

import numpy as np

EM_SUFFIXES = (".em",)
_HEADER = 512
_TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}  # of the types that hold real numbers
_LITTLE_ENDIAN, _MACHINES = 6, (0, 2, 3, 4, 5, 6)  # 1, a VAX, has floats of its own


def em_header(path: Path) -> tuple[tuple[int, int, int], np.dtype]:
    """Shape (Z, Y, X) and type of the voxels of an EM file whose header and length fit.

    Raises ValueError when the file is missing, cut off, too long or no EM file.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected an EM volume")
    size = path.stat().st_size
    if size < _HEADER:
        raise ValueError(f"{path}: {size} bytes, expected at least the {_HEADER} of an EM header; the file is cut off")
    with path.open("rb") as handle:
        raw = handle.read(_HEADER)
    machine, kind = raw[0], raw[3]
    endian = "<" if machine == _LITTLE_ENDIAN else ">"
    shape = tuple(int(n) for n in np.frombuffer(raw, endian + "i4", 3, 4)[::-1])
    if machine not in _MACHINES or kind not in _TYPES or min(shape) < 1:
        raise ValueError(
            f"{path}: machine code {machine}, type {kind} and {shape} voxels are no EM volume that can be read here; "
            f"expected a machine code of {', '.join(map(str, _MACHINES))} and a type of {', '.join(map(str, _TYPES))}"
        )
    dtype = np.dtype(endian + _TYPES[kind])
    expected = _HEADER + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != expected:
        raise ValueError(
            f"{path}: {size} bytes, expected {expected} for {shape} voxels; the file is cut off or its header is wrong"
        )
    return shape, dtype


def read_em(path: Path) -> np.ndarray:
    """The volume (Z, Y, X) of an EM file, in the byte order of this machine; errors as `em_header`."""
    shape, dtype = em_header(path)
    return np.fromfile(path, dtype, offset=_HEADER).reshape(shape).astype(dtype.newbyteorder("="))
