"""Wall time of a call, for the benchmark notebooks: times of one machine in one run, to be compared with each other."""

import time
from collections.abc import Callable

import torch

from .provenance import provenance


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


def hardware() -> str:
    """One line: processor, threads that torch uses, GPU."""
    found = provenance()
    return f"{found['processor']}, {torch.get_num_threads()} threads, {found['gpu'] or 'no GPU'}, torch {torch.__version__}"
