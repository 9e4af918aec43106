"""Files that are whole or not there, and that are checked when read: a damaged one is named, with what to do."""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

TEMPORARY = ".tmp"  # how the names of unfinished files end; they begin with a dot
UNIQUE = 32 * "[0-9a-f]"  # what stands in such a name and in no other
LOCK = ".lock"  # of `claimed`
CHECKSUM = "sha256"  # the entry of a safetensors file's metadata
SETTINGS_CHECKSUM = "config_json_sha256"  # and of weights, of the config.json that they belong to


def temporary(path: Path) -> Path:
    """A name beside `path` that nobody else takes: process numbers repeat between the machines that share a folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, then put the file in place at once: a reader never meets half a file.

    Raises OSError where the disk is full; the message says so, and what to do.
    """
    unfinished = temporary(path)
    try:
        with room_for(path):
            write(unfinished)
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Say in one sentence where writing `path` fails because the disk is full; other errors pass."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # HDF5 raises RuntimeError
        if not _no_room(error):
            raise
        raise OSError(
            f"{path}: no room to write it. What was written before is whole: make room and start the same again, and "
            "it goes on from there."
        ) from error


def _no_room(error: Exception) -> bool:
    """Whether an error of writing says that the disk, a quota or the largest size of a file is reached."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    said = str(error)
    named = any(f"(os error {number})" in said or f"errno = {number}," in said for number in full)
    return getattr(error, "errno", None) in full or named


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether `path` is this process's to write until the block ends: not where another one is at it. A process that
    dies gives up what it claimed; one that fails leaves neither lock nor empty folders. On a disk without locks
    everybody may write.
    """
    lock = path.with_name(f".{path.name}{LOCK}")
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # the latter of filelock before version 4
        pass
    try:
        yield True
    except BaseException:
        held.release()  # an open file cannot be removed on Windows
        lock.unlink(missing_ok=True)
        with suppress(OSError):  # where they hold something
            lock.parent.rmdir()
            lock.parent.parent.rmdir()
        raise
    finally:
        held.release()


def remove_temporaries(folder: Path, *, below: bool = False, older_than_s: float = 0.0) -> None:
    """Remove what killed writers left in a folder, and `below` it; younger files may belong to a writer at work."""
    latest, find = time.time() - older_than_s, folder.rglob if below else folder.glob
    # ours, zarr's, and those of safetensors
    patterns = (f".*.{UNIQUE}{TEMPORARY}", f"*.{UNIQUE}.partial", ".tmp" + 6 * "[0-9A-Za-z]")
    for left in [path for pattern in patterns for path in find(pattern)]:
        try:
            if left.stat().st_mtime <= latest:
                remove = shutil.rmtree if left.is_dir() else Path.unlink
                remove(left)
        except FileNotFoundError:  # somebody else removed it, or finished it
            continue


def read_json(path: Path, remedy: str) -> dict:
    """The JSON object of a file that the package wrote.

    Raises ValueError when the file is damaged or cut off; the message names it and ends in the `remedy`.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged or cut off ({error}): {remedy}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(found).__name__}, expected names and values: {remedy}.")
    return found


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, at once, with a checksum of them and of the metadata."""
    metadata = dict(metadata or {})
    metadata[CHECKSUM] = _checksum(tensors, metadata)
    write_atomically(path, lambda p: save_file(tensors, p, metadata=metadata))


def load_tensors(path: Path, remedy: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata that `save_tensors` wrote.

    Raises ValueError when the file is damaged or cut off; the message names it and ends in the `remedy`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut off ({error}): {remedy}.") from None
    wanted = metadata.pop(CHECKSUM, None)
    if _checksum(tensors, metadata) != wanted:
        raise ValueError(f"{path} is damaged: its contents do not fit their checksum: {remedy}.")
    return tensors, metadata


def _checksum(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of names, types, shapes and values of tensors, and of the metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
