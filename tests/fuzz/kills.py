"""Training and generation killed at random moments, started again, and compared with what was never stopped.

    python tests/fuzz/kills.py --kills 50 --seed 0

A child process is forked, trains or generates in a folder, and is killed (SIGKILL) at a random moment, again and
again until it comes to its end; then the folder's files must be those of an unbroken run, bit for bit. The same with
a limit on the size of files in place of the kill, which stands for a full disk; with two processes that generate in one
folder at the same time; and with a checkpoint that is cut. Prints one line for each, and fails where bytes differ or an
error is none of ours. Unfinished files that a killed writer left are not compared: they are removed once they are old.
"""

import argparse
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save

from cryoetgan_core.config import make_config
from cryoetgan_core.generation import load_run
from cryoetgan_core.reproducibility.files import load_tensors
from cryoetgan_core.run_folder import train
from cryoetgan_core.simulator.sets import class_references
from cryoetgan_core.streaming import Order, generate_to
from cryoetgan_core.training import Trainer

SHARES, BOX, VOXEL_A = {"tric": 2.0, "ribosome": 1.0}, 18, 20.0
OURS = (ValueError, OSError)  # what an error may be
NOT_COMPARED = (".tmp", ".partial", "copick.json")  # unfinished; unfinished; holds the folder's path


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder by its path, but for NOT_COMPARED."""

    def content(path: Path) -> str:
        if path.name == "log.jsonl":  # without the seconds
            rows = [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]
            return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        if path.suffix != ".safetensors":
            return hashlib.sha256(path.read_bytes()).hexdigest()
        tensors, _ = load_tensors(path, "")  # their names may stand in any order, and so may those of the metadata
        return hashlib.sha256(save({name: tensors[name] for name in sorted(tensors)})).hexdigest()

    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(NOT_COMPARED)]
    return {str(p.relative_to(folder)): content(p) for p in paths}


def forked(work: Callable[[], None]) -> int:
    """Start `work` in a child process; its number. It ends with 0, with 3 after an error of ours, or with 4."""
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        work()
    except OURS as error:
        print(f"  said: {str(error)[:160]}", flush=True)
        code = 3
    except BaseException:
        code = 4
    os._exit(code)


def ended(child: int) -> int:
    """Exit code of a child; negative for the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_until_done(work: Callable[[], None], longest_s: float, most: int, rng: random.Random) -> int:
    """Start `work` and kill it at a random moment until it comes to its end, `most` times at most; how often it was
    killed.
    """
    kills = 0
    while True:
        child = forked(work)
        deadline = time.monotonic() + (rng.uniform(0, longest_s) if kills < most else math.inf)
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0]:
                return kills
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        if code == 0:
            return kills
        if code != -signal.SIGKILL:
            raise SystemExit(f"a child ended with {code}")
        kills += 1


def make_training(seed: int, steps: int, preset: str) -> Callable[[Path], None]:
    """A training of seconds, as a function of its folder."""
    rng = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(12, BOX, BOX, BOX, generator=rng) for _ in "xy")
    config = make_config("smoke", "own", preset, box=BOX, steps=steps, checkpoint_every=2, seed=seed)
    return lambda folder: train(Trainer(config, x, y), folder, progress=False)


def make_generation(run: Path, kind: str) -> Callable[[Path], None]:
    """A generation of parts, as a function of its folder."""
    references, trained = class_references(tuple(SHARES), BOX, VOXEL_A), load_run(run)
    order = Order(12, SHARES, part=2, volumes=kind)
    return lambda folder: list(generate_to(folder, run, trained, references, order, VOXEL_A)) and None


def limited(work: Callable[[], None], most_bytes: int) -> None:
    """Do `work` with no file allowed to grow beyond a size."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    work()


def compare(name: str, found: dict[str, str], wanted: dict[str, str], said: str) -> bool:
    """Print one line; whether the files are the same."""
    different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    print(f"{name}: {said}; {len(wanted)} files {'equal' if not different else f'differ: {different[:3]}'}", flush=True)
    return not different


def killed_trainings(folder: Path, training: Callable[[Path], None], most: int, rng: random.Random) -> bool:
    """Whether trainings in a folder that are killed, find no room, or find a checkpoint cut, end as they should."""
    start = time.monotonic()
    assert ended(forked(lambda: training(folder / "run"))) == 0
    took = time.monotonic() - start
    wanted, kills, rounds = hashes(folder / "run"), 0, 0
    while kills < most:
        shutil.rmtree(folder / "killed", ignore_errors=True)
        kills += killed_until_done(lambda: training(folder / "killed"), took, most - kills, rng)
        rounds += 1
        if hashes(folder / "killed") != wanted:
            break
    fine = compare(folder.name, hashes(folder / "killed"), wanted, f"killed {kills} times in {rounds} trainings")
    code = ended(forked(lambda: limited(lambda: training(folder / "full"), 20_000)))
    assert ended(forked(lambda: training(folder / "full"))) == 0
    fine &= code == 3
    fine &= compare(f"{folder.name}, disk full", hashes(folder / "full"), wanted, f"ended with {code}, resumed")
    shutil.copytree(folder / "run", folder / "cut")
    checkpoint = folder / "cut" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    code = ended(forked(lambda: training(folder / "cut")))
    print(f"{folder.name}, checkpoint cut: ended with {code} (3: one clear sentence)", flush=True)
    return fine and code == 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of training, and of generation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--presets", nargs="+", default=["released", "adapted"], help="that are trained")
    parser.add_argument("--steps", type=int, default=24, help="of each training")
    parser.add_argument("--kinds", nargs="+", default=["mrc", "hdf5", "zarr", "copick"], help="of generated volumes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rng, fine = random.Random(chosen.seed), True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for preset in chosen.presets:
            fine &= killed_trainings(
                folder / preset, make_training(chosen.seed, chosen.steps, preset), chosen.kills, rng
            )
        for kind in chosen.kinds:
            generation = make_generation(folder / preset / "run", kind)
            start = time.monotonic()
            assert ended(forked(lambda: generation(folder / f"whole_{kind}"))) == 0  # noqa: B023
            took = time.monotonic() - start
            wanted, kills, rounds, wished = hashes(folder / f"whole_{kind}"), 0, 0, chosen.kills // 4 + 1
            while kills < wished:
                shutil.rmtree(folder / "killed", ignore_errors=True)
                work = partial(generation, folder / "killed")
                kills += killed_until_done(work, took, wished - kills, rng)
                rounds += 1
                if hashes(folder / "killed") != wanted:
                    break
            said = f"killed {kills} times in {rounds} generations"
            fine &= compare(f"generation, {kind}", hashes(folder / "killed"), wanted, said)
            both = [forked(lambda: generation(folder / f"two_{kind}")) for _ in range(2)]  # noqa: B023
            codes = [ended(child) for child in both]
            if any(codes):
                assert ended(forked(lambda: generation(folder / f"two_{kind}"))) == 0  # noqa: B023
            said = f"two processes at once ended with {codes}"
            fine &= set(codes) <= {0, 3} and compare(
                f"generation, {kind}", hashes(folder / f"two_{kind}"), wanted, said
            )
            code = ended(forked(lambda: limited(lambda: generation(folder / "full"), 20_000)))  # noqa: B023
            assert ended(forked(lambda: generation(folder / "full"))) == 0  # noqa: B023
            said = f"disk full, ended with {code}, resumed"
            fine &= code == 3 and compare(f"generation, {kind}", hashes(folder / "full"), wanted, said)
            for left in ("killed", "full"):
                shutil.rmtree(folder / left, ignore_errors=True)
    print("no fault" if fine else "FAULT")
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
