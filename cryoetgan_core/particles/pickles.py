"""AITom's pickles: a dict of class to a list of volumes. Read by a machine that can build NumPy arrays and nothing
else.
"""

import io
import pickle
from pathlib import Path

import numpy as np

from ..volumes.table import MAX_VALUES

PICKLE_SUFFIXES = (".pickle", ".pkl")


def _latin1(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` does in pickles of Python 2 and of protocol 2: bytes written as text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}; expected latin1")
    return text.encode("latin1")


def _dtype(name: str, *rest: object) -> np.dtype:
    """A plain numeric type: no objects, whose elements would be unpickled too, and no structures."""
    made = np.dtype(str(name))
    if made.kind not in "biuf":
        raise pickle.UnpicklingError(f"an array of type {made}; expected real numbers")
    return made


def _reconstruct(kind: type, shape: tuple, code: bytes) -> np.ndarray:
    """The empty array that pickles begin with; its own state, whose length NumPy checks, fills it."""
    if kind is not np.ndarray or tuple(shape) != (0,):
        raise pickle.UnpicklingError(f"it begins with a {kind} of shape {shape}; expected an empty array")
    return np._core.multiarray._reconstruct(kind, shape, code)


# What a pickle of arrays names, by the modules of NumPy 1 and 2, and what stands for it here
_ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): np._core.multiarray.scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): np._core.numeric._frombuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows the names above and refuses every other by name."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it calls {module}.{name}, which could be any program; expected NumPy arrays only"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def read_pickle(path: Path) -> dict[str, list[np.ndarray]]:
    """Volumes by class of a pickled dict of lists of 3-D arrays.

    Raises ValueError when the pickle names anything but arrays (it is not run), is cut off, or holds something else.
    """
    try:
        found = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a hostile stream can make the machine raise anything
        raise ValueError(f"{path}: not read: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: holds a {type(found).__name__}, expected a dict of class to a list of volumes")
    volumes: dict[str, list[np.ndarray]] = {}
    for label, values in found.items():
        if not isinstance(values, list | tuple | np.ndarray) or len(values) == 0:
            raise ValueError(
                f"{path}: class {label!r} holds {type(values).__name__} of no volumes, expected a list of them"
            )
        for i, value in enumerate(values):
            if (
                not isinstance(value, np.ndarray)
                or value.ndim != 3
                or value.dtype.kind not in "biuf"
                or value.size > MAX_VALUES
            ):
                shape = value.shape if isinstance(value, np.ndarray) else type(value).__name__
                raise ValueError(
                    f"{path}: item {i} of class {label!r} is {shape}, expected a 3-D array of real numbers"
                )
        volumes[str(label)] = [np.asarray(v) for v in values]
    return volumes
