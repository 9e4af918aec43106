"""What each acceleration is worth on a machine, in one call, and how long a training of the paper's size would take
there.

python -m cryoetgan_core.paper.benchmark            # the paper's networks: minutes on a GPU, an hour on a CPU
python -m cryoetgan_core.paper.benchmark --small    # a trial of the script, seconds
python -m cryoetgan_core.paper.benchmark --output table.csv
"""

import argparse
import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from ..build import Scaling, build_networks
from ..config import RunConfig, make_config
from ..engine.acceleration import WARM_UP, Acceleration
from ..generation import TrainedRun, generate
from ..physics.acquisition import Acquisition
from ..physics.generator import PhysicsGenerator
from ..training import Trainer
from .timing import hardware, peak_memory_MiB, seconds_per_call

TRICKS = (  # each with the ones above it
    ("float32", "float32", Acceleration()),  # on a GPU cuDNN's convolutions then use TF32
    ("+ bfloat16", "bfloat16", Acceleration()),
    ("+ channels last", "bfloat16", Acceleration(channels_last=True)),
    ("+ fused optimiser", "bfloat16", Acceleration(channels_last=True, fused=True)),
    ("+ CUDA graphs", "bfloat16", Acceleration(channels_last=True, fused=True, graphs=True)),
    (
        "+ compiled generators",
        "bfloat16",
        Acceleration(channels_last=True, fused=True, graphs=True, compile="inductor"),
    ),
)
TOLD = Acquisition(voxel_size_A=13.68, tilt_range_deg=(-60.0, 60.0))  # to physics generators
EPOCHS = 50 * 1600  # subtomograms that the paper's training sees


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
    acceleration.prepare(networks)
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
    try:
        trainer = Trainer(config, *volumes(config.box, max(config.batch, 4)), device, acceleration=acceleration)
        for _ in range(WARM_UP if acceleration.graphs else 0):
            trainer.step()
        seconds = seconds_per_call(trainer.step, repeats)
    except (
        ValueError,
        RuntimeError,
    ) as error:  # refused, too little memory, or no compiler: the other rows are wanted all the same
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
    small: bool, device: torch.device, tricks: tuple = TRICKS, batches: tuple[int, ...] = (), repeats: int = 3
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
    for label, dtype, acceleration in tricks:
        if acceleration.compile and device.type == "cpu":
            acceleration = replace(acceleration, graphs=False)
        yield training(config.replace(compute_dtype=dtype), device, label, acceleration, repeats)
    for batch in batches[1:]:
        yield training(config.replace(batch=batch, compute_dtype=best[1]), device, best[0], best[2], repeats)
    for label, dtype, acceleration in (tricks[0], best):
        yield generation(
            config.replace(compute_dtype=dtype),
            device,
            label,
            acceleration,
            256 if device.type == "cuda" else 4,
            repeats,
        )


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny networks: a trial")
    parser.add_argument("--output", type=Path, help="CSV file for the table")
    parser.add_argument("--no-compile", action="store_true", help="leave compilation out, which takes minutes")
    chosen = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tricks = TRICKS[:-1] if chosen.no_compile else TRICKS
    print(hardware(), flush=True)
    made = []
    for row in rows(chosen.small, device, tricks):
        made.append(row)
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()), flush=True)
        if chosen.output:
            pd.DataFrame(made).to_csv(chosen.output, index=False)
    print(pd.DataFrame(made).to_string(index=False, float_format="{:.4g}".format, na_rep=""))


if __name__ == "__main__":
    main()
