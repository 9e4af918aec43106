"""How long a training step and a generation take, how that grows, and what each fast path is worth: one machine, one
run, to be compared with each other.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .. import models
from ..config import RunConfig, make_config
from ..evaluation.metrics import angular_power_spectra, kernel_distance, manifold_scores
from ..generation import generate
from ..layers import convolution, winograd
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import MICROSCOPES
from ..simulator.sets import class_references, subtomograms
from ..simulator.specimen.assemblies import S2_CLASSES
from ..training import Trainer
from .benchmark import TRICKS, untrained, volumes
from .benchmark import rows as benchmark_rows
from .timing import hardware, peak_memory_MiB, seconds_per_call

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


class _Arithmetic(TorchDispatchMode):
    """Counts floating-point operations; torch's own counter follows modules, which gradient penalties do not allow."""

    operations = 0

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
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


def _trainer(config: RunConfig, particles: int = 0) -> Trainer:
    return Trainer(config, *volumes(config.box, particles or max(config.batch, 4)))


def _exponent(x: list[int], seconds: list[float]) -> list[float]:
    """Local exponents between neighbours: seconds go as x to this power."""
    return [round(float(e), 2) for e in np.diff(np.log(seconds)) / np.diff(np.log(x))]


def make_speed(profile: str, make_plain: Callable[[nn.ModuleDict], None], repeats: int = 5) -> dict:
    """Measure the speed of training and generation; `make_plain` lets a trainer's networks compute with PyTorch's own
    layers.

    The paper's networks at 40^3, width 64, batch 1 (least squares with gradient penalty, as released) by plain and fast
    paths in alternation; without each fast path; the arithmetic, and its share of the peak of a matrix product; growth
    with box, batch, particles and classes; volumes a second of both generators, the microscope and the metrics; what
    `benchmark` measures; one and two threads.
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
    memory_MiB = peak_memory_MiB()

    small = dict(width=width if smoke else 16, critic_width=width if smoke else 16)
    by_box = [seconds_per_call(_trainer(config.replace(box=b, **small)).step, repeats) for b in boxes]
    by_batch = [seconds_per_call(_trainer(config.replace(box=24, batch=b, **small)).step, 2) for b in batches]
    found = {
        "hardware": hardware(), "box": box, "width": width, "step_s": seconds, "pairs_s": pairs, "without_s": steps,
        "GFLOP_step": arithmetic.operations / 1e9,
        "peak_GFLOP_s": peak / 1e9, "memory_MiB": memory_MiB, "boxes": boxes, "by_box_s": by_box,
        "box_exponents": _exponent(boxes, by_box),
        "batches": batches, "by_batch_s": by_batch, "batch_exponents": _exponent(batches, by_batch),
        # to compile takes longer than to train
        "rates": _rates(config, make_plain, repeats),
        "tricks": list(benchmark_rows(smoke, torch.device("cpu"), TRICKS[:-1], repeats=max(1, repeats // 2))),
    }  # fmt: skip
    found |= _sizes(smoke, config.replace(box=boxes[0], **small), repeats)
    found["threads_s"] = {}
    for count in (1,) if smoke else (1, 2):
        torch.set_num_threads(count)
        found["threads_s"][str(count)] = seconds_per_call(fast.step, 1 if smoke else 2)
    return found


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


def _sizes(smoke: bool, config: RunConfig, repeats: int) -> dict:
    """Seconds by the size of a set: of a training step, of the microscope at 41 tilts, and of metrics that compare as
    many generated volumes; and by its classes.
    """
    sizes, classes = ((8, 16), (1, 2)) if smoke else ((100, 200, 400, 800, 1600), (1, 2, 4, 7))
    scope, voxel_A = MICROSCOPES["S1"], 13.68 * 40 / config.box
    references = class_references(S2_CLASSES, config.box, voxel_A)  # particles of about one size

    def microscope(count: int, names: tuple[str, ...]) -> float:
        chosen = {name: references[name] for name in names}
        make = partial(subtomograms, chosen, count // len(names), config.box, voxel_A, scope, snr=0.1)
        return seconds_per_call(lambda: make(stream(0, "speed")), 1)

    def metrics(count: int) -> float:
        real, fake = volumes(config.box, count)
        return seconds_per_call(
            lambda: (
                manifold_scores(real, fake),
                kernel_distance(real.flatten(1), fake.flatten(1)),
                angular_power_spectra(fake),
            ),
            1,
        )

    return {
        "sizes": sizes, "size_box": config.box,
        "by_size_s": {
            "training step": [seconds_per_call(_trainer(config, n).step, repeats) for n in sizes],
            "microscope, 41 tilts": [microscope(n, S2_CLASSES[:1]) for n in sizes],
            "metrics": [metrics(n) for n in sizes],
        },
        "classes": classes,
        "by_classes_s": [microscope(sizes[2 if len(sizes) > 2 else 0], S2_CLASSES[:c]) for c in classes],
    }  # fmt: skip
