"""Wall time of a call, for the benchmark notebooks: times of one machine in one run, to be compared with each other."""

import sys
import time
from collections.abc import Callable

import psutil
import torch

from ..reproducibility.provenance import provenance

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
