"""What a machine is asked about itself, on systems that count differently or lack a call."""

from types import SimpleNamespace

import pytest

from cryoetgan_core.paper import benchmark


@pytest.mark.parametrize(("system", "counted"), [("linux", 2**20), ("darwin", 2**30), ("win32", 2**30)])
def test_peak_memory_of_a_system_that_counts_otherwise(monkeypatch: pytest.MonkeyPatch, system, counted) -> None:
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=counted))
    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=counted))
    monkeypatch.setattr(benchmark, "resource", None if system == "win32" else usage)
    monkeypatch.setattr(benchmark.psutil, "Process", lambda: memory)
    monkeypatch.setattr(benchmark.sys, "platform", system)
    assert benchmark.peak_memory_MiB() == 1024
