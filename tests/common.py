"""What several test modules use."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the files of ../shared are not here")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
