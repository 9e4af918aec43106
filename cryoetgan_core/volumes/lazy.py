"""Volumes that stay on disk until they are asked for: a hundred thousand particles need not fit in memory."""

import contextlib
import os
import tempfile
import tokenize
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

LIBRARY_ERRORS = (
    ValueError, TypeError, LookupError, OSError, EOFError, RuntimeError, ArithmeticError, SyntaxError,
    zlib.error, tokenize.TokenError, MemoryError,
)  # fmt: skip
MOST_IN_MEMORY = 1 << 29  # values: 2 GiB of float32
BLOCK = 1 << 24  # bytes written at a time


@contextlib.contextmanager
def reading(source: object) -> Iterator[None]:
    """Turn what a library raises while it reads `source` into one sentence that names it; this package's own sentences
    stay as they are.

    Raises ValueError for any of LIBRARY_ERRORS.
    """
    try:
        yield
    except ConnectionError:  # no fault of a file
        raise
    except LIBRARY_ERRORS as error:
        if isinstance(error, ValueError) and _is_ours(error):
            if str(error).startswith("ParticleSet: "):  # which knows no file
                raise ValueError(f"{source}: {str(error).removeprefix('ParticleSet: ')}") from error
            raise
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{source}: cannot be read ({told[:300]}); is it damaged or cut off?") from error


def _is_ours(error: ValueError) -> bool:
    """Whether a `raise` of this package made an error, rather than a library or a conversion of text to a number."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    ours = str(trace.tb_frame.f_globals.get("__name__", "")).startswith(__name__.partition(".")[0])
    return ours and not str(error).startswith(("could not convert", "invalid literal"))


def empty_volumes(shape: tuple[int, ...]) -> np.ndarray:
    """An array of float32 to be filled: in memory, or beyond MOST_IN_MEMORY values in a file without a name in the
    system's temporary folder ($TMPDIR), which goes when it is no longer used.
    """
    if np.prod(shape, dtype=np.int64) <= MOST_IN_MEMORY:
        return np.empty(shape, np.float32)
    size = 4 * int(np.prod(shape, dtype=np.int64))
    with tempfile.TemporaryFile() as file:
        try:
            _allocate(file, size)  # else a full disk ends the program when a page is written
        except OSError as error:
            raise ValueError(
                f"{tempfile.gettempdir()}: no room for {size / 2**30:.0f} GiB of volumes ({error.strerror}); set "
                "TMPDIR to a folder on a larger disk"
            ) from error
        return np.memmap(file, np.float32, "r+", shape=shape)


def _allocate(file: BinaryIO, size: int) -> None:
    """Take the room of `size` bytes on the disk, or raise OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, BLOCK):  # Windows and macOS have no such call
        file.write(bytes(min(BLOCK, size - start)))
    file.flush()


def filled(volumes: Iterable[np.ndarray], n: int) -> np.ndarray:
    """The array of `n` volumes (D, D, D) that come one after another, held as by `empty_volumes`."""
    out = np.empty((0, 0, 0, 0), np.float32)
    for i, volume in enumerate(volumes):
        out = empty_volumes((n, *volume.shape)) if i == 0 else out
        out[i] = volume
    return out


class LazyVolumes:
    """What looks like an array (N, D, D, D) float32 and reads each volume when it is indexed.

    An index gives a volume; a slice, a mask or a list of indices an array of them; `np.asarray` all of them, as
    `empty_volumes` holds them. `take` stays lazy.

    Parameters
    ----------
    read
        the volume (D, D, D) of an index of the source.
    box
        D.
    names
        of the source's particles, for messages.
    index
        which of the source's particles these are; by default all of them.
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(
        self, read: Callable[[int], np.ndarray], box: int, names: Sequence[str], index: np.ndarray | None = None
    ):
        self._read, self._names, self._index = read, names, np.arange(len(names)) if index is None else index
        self.shape = (len(self._index), box, box, box)
        self._scratch: np.memmap | None = None

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, key: object) -> np.ndarray:
        chosen = self._index[key]
        if np.ndim(chosen) == 0:
            return self._one(int(chosen))
        return (
            np.stack([self._one(int(i)) for i in chosen]) if len(chosen) else np.empty((0, *self.shape[1:]), np.float32)
        )

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("LazyVolumes: reading volumes makes an array of its own")
        everything = self._all()
        return everything if dtype in (None, self.dtype) else everything.astype(dtype)

    def _all(self) -> np.ndarray:
        """All volumes; what goes to a scratch file is written there once."""
        if self._scratch is not None:
            return self._scratch
        everything = empty_volumes(self.shape)
        for k, i in enumerate(self._index):
            everything[k] = self._one(int(i))
        if isinstance(everything, np.memmap):
            self._scratch = everything
        return everything

    def take(self, key: object) -> "LazyVolumes":
        """The chosen particles, still unread."""
        return LazyVolumes(self._read, self.shape[1], self._names, np.atleast_1d(self._index[key]))

    def map(self, change: Callable[[np.ndarray], np.ndarray], box: int | None = None) -> "LazyVolumes":
        """The same particles with `change` applied to each volume as it is read; `box` is that of the result."""
        read = self._read
        return LazyVolumes(
            lambda i: change(np.asarray(read(i), np.float32)), box or self.shape[1], self._names, self._index
        )

    def _one(self, i: int) -> np.ndarray:
        with reading(self._names[i]):
            volume = np.ascontiguousarray(self._read(i), dtype=np.float32)
        if volume.shape != self.shape[1:]:
            raise ValueError(
                f"{self._names[i]}: {volume.shape} voxels, expected {self.shape[1:]} as the first particle has"
            )
        if not np.isfinite(volume).all():
            raise ValueError(
                f"{self._names[i]}: {int((~np.isfinite(volume)).sum())} voxels are NaN or infinite; leave it out or "
                "mend it"
            )
        return volume
