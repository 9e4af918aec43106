"""How long things take on one machine: a call, a training, and what each acceleration is worth.

python -m cryoetgan_core.paper.benchmark            # the paper's networks: minutes on a GPU, an hour on a CPU
python -m cryoetgan_core.paper.benchmark --small    # a trial of the script, seconds
python -m cryoetgan_core.paper.benchmark --output table.csv

Times of one run are to be compared with each other.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from torch import nn

from .. import models
from ..build import Scaling, build_networks
from ..config import RunConfig, make_config
from ..engine.acceleration import WARM_UP, Acceleration
from ..generation import TrainedRun, generate
from ..layers import convolution, winograd
from ..physics.acquisition import Acquisition
from ..physics.generator import PhysicsGenerator
from ..reproducibility.provenance import provenance
from ..training import Trainer

try:
    import resource
except ImportError:  # Windows
    resource = None

TRICKS = (  # each with the ones above it
    ("float32", "float32", Acceleration()),  # on a GPU cuDNN's convolutions then use TF32
    ("+ bfloat16", "bfloat16", Acceleration()),
    ("+ channels last", "bfloat16", Acceleration(channels_last=True)),
    ("+ fused optimiser", "bfloat16", Acceleration(channels_last=True, fused=True)),
    ("+ CUDA graphs", "bfloat16", Acceleration(channels_last=True, fused=True, graphs=True)),
)
TOLD = Acquisition(voxel_size_A=13.68, tilt_range_deg=(-60.0, 60.0))  # to physics generators
EPOCHS = 50 * 1600  # subtomograms that the paper's training sees
BOXES, BATCHES = (24, 32, 40, 48, 64), (1, 4, 16, 64)
FAST_PATHS = {  # name to what takes its place in a module
    "small volumes padded": (convolution, "FEW_PLANES", 0),
    "few voxels as a matrix product": (convolution, "FEW_VOXELS", 0),
    "7^3 layers as 2-D convolutions": (models, "conv_valid", F.conv3d),
    "channels last in the encoder": (
        models,
        "conv_valid",
        lambda x, weight: convolution.conv_valid(x, weight).contiguous(),
    ),
    "Winograd's products": (winograd, "FEW_VOXELS", 0),
}


def seconds_per_call(call: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time in seconds of `repeats` calls, after one that is not counted; waits for a GPU to finish."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


def training_time(config: RunConfig, steps: int = 5) -> dict[str, float]:
    """Processor minutes of a training on one core, reckoned from a few steps on noise, the first not counted."""
    trainer, threads = Trainer(config, *volumes(config.box, 4 * config.batch), "cpu"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer.step()
        start = time.process_time()
        for _ in range(steps):
            trainer.step()
        step_s = (time.process_time() - start) / steps
    finally:
        torch.set_num_threads(threads)
    return {"steps": config.steps, "processor_s_a_step": step_s, "minutes": step_s * config.steps / 60}


def peak_memory_MiB() -> float:
    """Most memory that this process has taken so far."""
    if resource is None:
        return psutil.Process().memory_info().peak_wset / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB


def hardware() -> str:
    """One line: processor, threads that torch uses, GPU."""
    found = provenance()
    gpu = found["gpu"] or "no GPU"
    return f"{found['processor']}, {torch.get_num_threads()} threads, {gpu}, torch {torch.__version__}"


def volumes(box: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Densities and subtomograms (n, box, box, box) that are white noise: as quick to train on as any."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, box, box, box, generator=rng), torch.randn(n, box, box, box, generator=rng)


def untrained(
    config: RunConfig,
    device: torch.device | str = "cpu",
    acceleration: Acceleration = Acceleration(),  # noqa: B008
) -> TrainedRun:
    """A run whose weights are those of the beginning: as quick as a trained one."""
    scaling = Scaling(0.0, 1.0, 0.0, 1.0)
    if config.generator == "physics":
        return TrainedRun(config, scaling, PhysicsGenerator(config.box, TOLD).to(device), None)
    networks = build_networks(config, device).eval().requires_grad_(False)
    if acceleration.channels_last:
        networks.to(memory_format=torch.channels_last_3d)
    return TrainedRun(config, scaling, networks["G"], networks["F"])


def memory_GiB(device: torch.device) -> float:
    """Most memory taken: of the GPU since `_clear`, or of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    return peak_memory_MiB() / 1024


def _clear(device: torch.device) -> None:
    """Leave nothing of the row before: a trainer and its graphs refer to each other."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def training(
    config: RunConfig, device: torch.device, label: str, acceleration: Acceleration, repeats: int
) -> dict[str, object]:
    """One row: a training step of a configuration. What cannot be had here says why."""
    row = {"what": "training step", "how": label, "batch": config.batch}
    _clear(device)
    # refused, or too little memory: the other rows are wanted all the same
    try:
        trainer = Trainer(config, *volumes(config.box, max(config.batch, 4)), device, acceleration=acceleration)
        for _ in range(WARM_UP if acceleration.graphs else 0):
            trainer.step()
        seconds = seconds_per_call(trainer.step, repeats)
    except (ValueError, RuntimeError) as error:
        return row | {"note": str(error).split(";")[0].splitlines()[0].removeprefix("Acceleration: ")}
    rate = config.batch / seconds
    row |= {"seconds": seconds, "volumes a second": rate, "minutes for 50 epochs of 1,600": EPOCHS / rate / 60}
    return row | {"memory_GiB": memory_GiB(device)}


def generation(
    config: RunConfig, device: torch.device, label: str, acceleration: Acceleration, batch: int, repeats: int
) -> dict[str, object]:
    """One row: labelled volumes from densities, drawing their noise included."""
    _clear(device)
    run, x = untrained(config, device, acceleration), volumes(config.box, batch)[0]
    seconds = seconds_per_call(lambda: generate(run, x), repeats)
    row = {"what": "generation", "how": label, "batch": batch, "seconds": seconds, "volumes a second": batch / seconds}
    return row | {"memory_GiB": memory_GiB(device)}


def rows(
    small: bool, device: torch.device, batches: tuple[int, ...] = (), repeats: int = 3
) -> Iterator[dict[str, object]]:
    """Rows of the table: every trick at the first batch, then all that this device has at the others; generation plain
    and with them.
    """
    box, width = (17, 2) if small else (40, 64)
    batches = batches or ((1, 2) if small else (16, 1, 4, 32, 64) if device.type == "cuda" else (1, 4))
    config = make_config(
        "paper", "own", "described", box=box, width=width, critic_width=width, batch=batches[0], pool=0
    )
    automatic = Acceleration.automatic(device)
    best = (f"bfloat16; {automatic}", "bfloat16", automatic)
    for label, dtype, acceleration in TRICKS:
        yield training(config.replace(compute_dtype=dtype), device, label, acceleration, repeats)
    for batch in batches[1:]:
        yield training(config.replace(batch=batch, compute_dtype=best[1]), device, best[0], best[2], repeats)
    for label, dtype, acceleration in (TRICKS[0], best):
        yield generation(
            config.replace(compute_dtype=dtype),
            device,
            label,
            acceleration,
            256 if device.type == "cuda" else 4,
            repeats,
        )


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


def make_speed(profile: str, make_plain: Callable[[nn.ModuleDict], None], repeats: int = 5) -> dict:
    """Measure the speed of training and generation; `make_plain` lets a trainer's networks compute with PyTorch's own
    layers.

    The paper's networks at 40^3, width 64, batch 1 (least squares with gradient penalty, as released) by plain and fast
    paths in alternation; without each fast path; growth with box and batch; volumes a second of both generators; and
    the table of `rows`.
    """
    smoke = profile == "smoke"
    torch.set_num_threads(1 if smoke else torch.get_num_threads())  # tests share the cores
    box, width, boxes, batches, repeats = (18, 2, (17, 18), (1, 2), 1) if smoke else (40, 64, BOXES, BATCHES, repeats)
    config = make_config("paper", "own", "released", box=box, width=width, critic_width=width, batch=1)
    small = config.replace(width=width if smoke else 16, critic_width=width if smoke else 16)

    def trainer(chosen: RunConfig) -> Trainer:
        return Trainer(chosen, *volumes(chosen.box, max(chosen.batch, 4)))

    fast, plain = trainer(config), trainer(config)
    make_plain(plain.networks)
    pairs = [(seconds_per_call(fast.step, 1), seconds_per_call(plain.step, 1)) for _ in range(repeats)]
    steps = {}
    for name in FAST_PATHS:
        with without(name):
            steps[f"without {name}"] = seconds_per_call(fast.step, repeats)
    return {
        "hardware": hardware(),
        "box": box,
        "width": width,
        "step_s": {name: float(np.median([pair[k] for pair in pairs])) for k, name in enumerate(("fast", "plain"))},
        "without_s": steps,
        "memory_MiB": peak_memory_MiB(),
        "boxes": boxes,
        "by_box_s": [seconds_per_call(trainer(small.replace(box=side)).step, repeats) for side in boxes],
        "batches": batches,
        "by_batch_s": [seconds_per_call(trainer(small.replace(box=24, batch=n)).step, 2) for n in batches],
        "rates": _rates(config, make_plain, repeats),
        "tricks": list(rows(smoke, torch.device("cpu"), repeats=max(1, repeats // 2))),
    }


def _rates(config: RunConfig, make_plain: Callable[[nn.ModuleDict], None], repeats: int) -> dict[str, float]:
    """Volumes a second that the generators make: the paper's by fast and plain paths, and the physics generator."""
    rates, x, run = {}, volumes(config.box, 16)[0], untrained(config)

    def paper(batch: int) -> float:
        return batch / seconds_per_call(lambda: run.G(x[:batch, None], run.G.sample_noise(x[:batch, None])), repeats)

    with torch.no_grad():
        for batch in (1, 16):
            rates[f"paper's generator, batch {batch}"] = paper(batch)
        make_plain(nn.ModuleDict({"G": run.G}))
        for batch in (1, 16):
            rates[f"paper's generator, plain, batch {batch}"] = paper(batch)
    for box in (24, config.box):
        physics, many = untrained(make_config("quick", "own", "physics", box=box)), volumes(box, 32)[0]
        rates[f"physics generator, float32, box {box}"] = 32 / seconds_per_call(
            lambda r=physics, m=many: generate(r, m), repeats
        )
    return rates


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny networks: a trial")
    parser.add_argument("--output", type=Path, help="CSV file for the table")
    chosen = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(hardware(), flush=True)
    made = []
    for row in rows(chosen.small, device):
        made.append(row)
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)
        if chosen.output:
            pd.DataFrame(made).to_csv(chosen.output, index=False)
    print(pd.DataFrame(made).to_string(index=False, float_format="{:.4g}".format, na_rep=""))


if __name__ == "__main__":
    main()
