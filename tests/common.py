"""What several test modules use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]  # of the project
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the files of ../shared are not here")


def snakemake(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Snakemake on a checkout of its own (the fixture `checkout`), on one core."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | (environment or {}))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
