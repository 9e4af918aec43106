"""Times of one machine in one run, to be compared with each other: of a call, and of a whole training."""

import sys
import time
from collections.abc import Callable

import psutil
import torch

from ..config import RunConfig
from ..reproducibility.provenance import provenance
from ..training import Trainer

try:
    import resource
except ImportError:  # Windows
    resource = None


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
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4 * config.batch, config.box, config.box, config.box, generator=rng) for _ in "xy")
    trainer, threads = Trainer(config, x, y, "cpu"), torch.get_num_threads()
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
