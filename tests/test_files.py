"""Files that are written whole and checked when read: many writers at once, failing writes, cuts, flipped bytes."""

import multiprocessing
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file

from cryoetgan_core.particles.writers import _zarr_store
from cryoetgan_core.reproducibility.files import (
    load_tensors,
    read_json,
    remove_temporaries,
    save_tensors,
    temporary,
    write_atomically,
)
from cryoetgan_core.streaming import Order

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(3, dtype=torch.int64),
    "c": torch.ones(5).bool(),
    "d": torch.zeros(0),
    "e": torch.ones(3).bfloat16(),
}


def write_beside_others(folder: Path, me: int) -> None:
    """Wait for all four, then write what they write."""
    os.getpid = lambda: 7  # they take each other for themselves, as processes of two pods do

    def slowly(path: Path) -> None:
        with path.open("w") as file:
            for _ in range(20):
                file.write(str(me) * 1000)
                file.flush()
                time.sleep(0.002)

    (folder / f"ready{me}").touch()
    while len([*folder.glob("ready*")]) < 4:
        time.sleep(0.001)
    for k in range(20):
        store = _zarr_store(folder / f"{k}.zarr", Order(4, {"a": 1.0}, part=1, volumes="zarr"), (2, 2, 2), 10.0)
        store[me] = np.full((2, 2, 2), me + 1.0)
    for _ in range(5):
        write_atomically(folder / "one", slowly)


@pytest.mark.slow
def test_writers_that_begin_together_do_not_meet(tmp_path: Path) -> None:
    forked = multiprocessing.get_context("fork")
    writers = [forked.Process(target=write_beside_others, args=(tmp_path, k)) for k in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(300)
    assert [w.exitcode for w in writers] == [0] * 4
    text = (tmp_path / "one").read_text()
    assert len(text) == 20_000 and len(set(text)) == 1
    for k in range(20):
        values = zarr.open_array(tmp_path / f"{k}.zarr", mode="r")
        assert values[:, 0, 0, 0].tolist() == [1, 2, 3, 4] and values.attrs["voxel_size_A"] == 10.0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["one", *(f"ready{k}" for k in range(4)), *(f"{k}.zarr" for k in range(20))]
    )


def test_a_store_that_is_there_is_kept(tmp_path: Path) -> None:
    order = Order(4, {"a": 1.0}, part=2, volumes="zarr")
    _zarr_store(tmp_path / "s.zarr", order, (2, 2, 2), 10.0)[:] = 5.0
    assert (_zarr_store(tmp_path / "s.zarr", order, (2, 2, 2), 10.0)[:] == 5).all()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, lambda p: p.write_text("old"))

    def fails(unfinished: Path) -> None:
        unfinished.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_killed_writers_left_is_removed_and_a_young_file_is_kept(tmp_path: Path) -> None:
    names = [
        temporary(tmp_path / "a.csv").name,
        f"in/{temporary(tmp_path / 'b.mrc').name}",
        f"in/s.zarr/c/0/0.{uuid.uuid4().hex}.partial",
        ".tmpRiqUeF",  # of safetensors
    ]
    kept = ["a.csv", "in/b.tmp", ".hidden", ".not.ours.tmp", ".tmp", ".tmp_of_mine", "in/a.partial"]
    for name in (*names, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    store = temporary(tmp_path / "s.zarr")
    (store / "c").mkdir(parents=True)
    remove_temporaries(tmp_path, below=True, older_than_s=3600)
    assert store.exists() and all((tmp_path / name).exists() for name in names)
    remove_temporaries(tmp_path)
    assert [(tmp_path / name).exists() for name in names] == [False, True, True, False]
    remove_temporaries(tmp_path, below=True)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == set(kept)
    assert not store.exists()


def test_tensors_come_back_and_every_flipped_byte_and_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_tensors(TENSORS, path, {"steps_done": "12"})
    found, metadata = load_tensors(path, "do this")
    assert metadata == {"steps_done": "12"} and found.keys() == TENSORS.keys()
    assert all(found[k].dtype == v.dtype and torch.equal(found[k], v) for k, v in TENSORS.items())
    whole = path.read_bytes()
    padding = whole.rindex(b"}", 0, 8 + int.from_bytes(whole[:8], "little")) + 1
    for at in range(len(whole)):
        if padding <= at < 8 + int.from_bytes(whole[:8], "little"):
            continue  # spaces
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=r"checkpoint.safetensors is damaged.*: do this\.$"):
            load_tensors(path, "do this")
    for length in (0, 7, 8, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"checkpoint.safetensors is damaged or cut off.*: do this\.$"):
            load_tensors(path, "do this")


def test_tensors_without_a_checksum_are_not_taken(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a")
    with pytest.raises(ValueError, match="do not fit their checksum"):
        load_tensors(tmp_path / "a", "do this")


def test_the_package_loads_where_only_posix_has_a_module() -> None:
    """As on Windows."""
    missing = "import sys; sys.modules.update(fcntl=None, resource=None)"
    subprocess.run([sys.executable, "-c", f"{missing}; import cryoetgan_core.paper, cryoetgan_core.scenes"], check=True)


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]", "\x00\x00", "{'a': 1}"])
def test_json_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json is damaged.*: do this\.$"):
        read_json(tmp_path / "config.json", "do this")
