"""Two processes do what one does: the same losses and weights to rounding, the same particles to the byte."""

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cryoetgan_core import paper
from cryoetgan_core.config import make_config
from cryoetgan_core.engine.processes import Processes, processes
from cryoetgan_core.paper import command, launch
from cryoetgan_core.run_folder import load_checkpoint, save_checkpoint
from cryoetgan_core.training import Trainer

CHANGES = dict(gradient_penalty=10.0, spectral_norm=True, pool=5)


def train_on(folder: Path, steps: int) -> None:
    """Some steps of a training that goes on from what is in the folder, in as many processes as there are."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # so that what differs by more than rounding is seen
    folder.mkdir(exist_ok=True)
    config = make_config("smoke", preset="adapted", batch=4, steps=20, **CHANGES)
    data = torch.Generator().manual_seed(7)
    x, y = (torch.randn(12, 18, 18, 18, generator=data) for _ in "xy")
    with processes() as these:
        trainer = Trainer(config, x, y, processes=these)
        load_checkpoint(trainer, folder)
        these.wait()
        losses = [{k: float(v) for k, v in trainer.step().items()} for _ in range(steps)]
        if these.rank == 0:
            torch.save({"losses": losses, "state": trainer.tensors()}, folder / f"{these.count}.pt")
            save_checkpoint(trainer, folder)


def started(*program: str, count: int = 2) -> subprocess.CompletedProcess:
    """Run a program by torchrun, or alone, in a fresh process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        torchrun = f"-m torch.distributed.run --nproc-per-node={count} --master-port={free.getsockname()[1]}"
    command = [sys.executable, *(torchrun.split() if count > 1 else ()), *program]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_two_processes_train_as_one_and_one_goes_on(tmp_path: Path) -> None:
    """With gradient penalty, spectral normalisation, image pool and log-power loss."""
    one, other = (str(tmp_path / name) for name in ("one", "two, then one"))
    for count, parts in ((2, [other, "2"]), (1, [other, "1", one, "3"])):
        # in fresh processes, since a used one keeps tables in single precision
        made = started(__file__, *parts, count=count)
        assert made.returncode == 0, made.stderr[-2000:]
    one, two, resumed = (torch.load(f, weights_only=True) for f in (f"{one}/1.pt", f"{other}/2.pt", f"{other}/1.pt"))
    for ours, theirs in zip(two["losses"] + resumed["losses"], one["losses"], strict=True):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    for name, tensor in one["state"].items():
        torch.testing.assert_close(
            resumed["state"][name], tensor, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_two_processes_make_the_same_particles(tmp_path: Path) -> None:
    trained = paper.stand_in_run(tmp_path / "run", 0)

    def made_by(count: int) -> dict[str, str]:
        output = tmp_path / f"by {count}"
        words = ["generate", str(trained), str(output), "7", "--part", "2"]
        if count == 1:
            assert command.main(words) == 0
        else:
            done = started("-m", "cryoetgan_core.paper.command", *words)
            assert done.returncode == 0, done.stderr[-2000:]
        return {
            str(p.relative_to(output)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in output.rglob("*")
            if p.is_file()
        }

    one = made_by(1)
    assert one == made_by(2) and "particles.star" in one


def test_a_planned_run_is_trained_under_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYOETGAN_RUNS", str(tmp_path))
    done = started("-m", "cryoetgan_core.paper.launch", "smoke", "S1_adapted_seed0")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained by 2 process(es)" in done.stdout and list(tmp_path.rglob("S1_adapted_seed0/weights.safetensors"))
    with pytest.raises(ValueError, match="S1_nonsense_seed0"):
        launch.main(["smoke", "S1_nonsense_seed0"])


def test_parts_of_a_batch() -> None:
    batch = torch.arange(8).view(4, 2)
    halves = [Processes(rank, 2).part({"a": [batch]})["a"][0] for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), batch)
    config = make_config("smoke", batch=4)
    with pytest.raises(ValueError, match="batch of 4 cannot be shared by 3"):
        Trainer(config, torch.randn(8, 18, 18, 18), torch.randn(8, 18, 18, 18), processes=Processes(0, 3))


if __name__ == "__main__":
    for where, number in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        train_on(Path(where), int(number))
