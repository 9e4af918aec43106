"""How long a training step and a generation take, how that grows, and what each fast path is worth: one machine, one run, to be compared with each other."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .. import convolution, models
from ..acquisition import Acquisition
from ..config import RunConfig, make_config
from ..generation import TrainedRun, generate
from ..networks import Scaling, build_networks
from ..timing import hardware, seconds_per_call
from ..training import Trainer

BOXES, BATCHES = (24, 32, 40, 48, 64), (1, 4, 16, 64)
FAST_PATHS = {  # name to what takes its place in a module
    "small volumes padded": (convolution, "FEW_PLANES", 0),
    "few voxels as a matrix product": (convolution, "FEW_VOXELS", 0),
    "7^3 layers as 2-D convolutions": (models, "conv_valid", F.conv3d),
    "torch's reflection": (models, "reflect_pad", convolution.reflect_by_flips),
}


class _Arithmetic(TorchDispatchMode):
    """Counts floating-point operations; torch's own counter follows modules, which gradient penalties do not allow."""

    operations = 0

    def __torch_dispatch__(self, function: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        out = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.operations += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


@contextmanager
def without(name: str) -> Iterator[None]:
    """Leave one of FAST_PATHS out."""
    module, attribute, plain = FAST_PATHS[name]
    kept = getattr(module, attribute)
    setattr(module, attribute, plain)
    try:
        yield
    finally:
        setattr(module, attribute, kept)


def _data(box: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, box, box, box, generator=rng), torch.randn(n, box, box, box, generator=rng)


def _trainer(config: RunConfig) -> Trainer:
    told = Acquisition(voxel_size_A=13.68, tilt_range_deg=(-60.0, 60.0)) if config.generator == "physics" else None
    return Trainer(config, *_data(config.box, max(config.batch, 4)), acquisition=told)


def _run(config: RunConfig) -> TrainedRun:
    """A run whose weights are those of the beginning: as quick as a trained one."""
    networks = build_networks(config, "cpu", Acquisition(voxel_size_A=13.68, tilt_range_deg=(-60.0, 60.0))).eval().requires_grad_(False)
    return TrainedRun(config, Scaling(0.0, 1.0, 0.0, 1.0), networks["G"], networks["F"])


def _exponent(x: list[int], seconds: list[float]) -> list[float]:
    """Local exponents between neighbours: seconds go as x to this power."""
    return [round(float(e), 2) for e in np.diff(np.log(seconds)) / np.diff(np.log(x))]


def make_speed(profile: str, make_plain: Callable[[nn.ModuleDict], None], repeats: int = 5) -> dict:
    """Measure the speed of training and generation; `make_plain` lets a trainer's networks compute with PyTorch's own layers.

    The paper's networks at 40^3, width 64, batch 1 (least squares with gradient penalty, as released) by plain and fast paths in alternation; without each fast path; the arithmetic, and its share of the
    peak of a matrix product; growth with box and batch; both generators' volumes a second; one and two threads.
    """
    smoke = profile == "smoke"
    torch.set_num_threads(1 if smoke else torch.get_num_threads())  # tests share the cores
    box, width, boxes, batches, repeats = (24, 4, (20, 24), (1, 2), 1) if smoke else (40, 64, BOXES, BATCHES, repeats)
    config = make_config("paper", "own", "released", box=box, width=width, critic_width=width, batch=1)
    fast, plain = _trainer(config), _trainer(config)
    make_plain(plain.networks)
    pairs = [(seconds_per_call(fast.step, 1), seconds_per_call(plain.step, 1)) for _ in range(repeats)]
    seconds = {"fast": float(np.median([f for f, _ in pairs])), "plain": float(np.median([p for _, p in pairs]))}
    steps = {}
    for name in FAST_PATHS:
        with without(name):
            steps[f"without {name}"] = seconds_per_call(fast.step, repeats)
    with _Arithmetic() as arithmetic:
        plain.step()
    side = 512 if smoke else 4096
    a = torch.randn(side, side)
    peak = 2 * side**3 / seconds_per_call(lambda: a @ a, 3)
    memory_MiB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    small = dict(width=width if smoke else 16, critic_width=width if smoke else 16)
    by_box = [seconds_per_call(_trainer(config.replace(box=b, **small)).step, repeats) for b in boxes]
    by_batch = [seconds_per_call(_trainer(config.replace(box=24, batch=b, **small)).step, 2) for b in batches]

    rates, x = {}, _data(box, 16)[0]
    run = _run(config)
    physics = {b: _run(make_config("quick", "own", "physics", box=b)) for b in (24, box)}
    many = {b: _data(b, 32)[0] for b in physics}

    def paper(batch: int) -> float:
        return batch / seconds_per_call(lambda: run.G(x[:batch, None], run.G.sample_noise(x[:batch, None])), repeats)

    with torch.no_grad():
        for batch in (1, 16):
            rates[f"paper's generator, batch {batch}"] = paper(batch)
        make_plain(nn.ModuleDict({"G": run.G}))
        for batch in (1, 16):
            rates[f"paper's generator, plain, batch {batch}"] = paper(batch)
    for b, r in physics.items():
        rates[f"physics generator, box {b}"] = 32 / seconds_per_call(lambda b=b, r=r: generate(r, many[b]), repeats)
    threads = {}
    for count in (1,) if smoke else (1, 2):
        torch.set_num_threads(count)
        threads[str(count)] = seconds_per_call(fast.step, 1 if smoke else 2)
    return {
        "hardware": hardware(), "box": box, "width": width, "step_s": seconds, "pairs_s": pairs, "without_s": steps, "GFLOP_step": arithmetic.operations / 1e9,
        "peak_GFLOP_s": peak / 1e9, "memory_MiB": memory_MiB, "boxes": boxes, "by_box_s": by_box, "box_exponents": _exponent(boxes, by_box),
        "batches": batches, "by_batch_s": by_batch, "batch_exponents": _exponent(batches, by_batch), "rates": rates, "threads_s": threads,
    }  # fmt: skip
