"""Tests and notebooks write runs, results and figures to a temporary folder; results of the quick profile are read from figures/quick."""

import os
import tempfile
from pathlib import Path

# Set before nbval starts its kernels, which inherit them.
if "CRYOETGAN_RUNS" not in os.environ:
    _folder = Path(tempfile.mkdtemp(prefix="cryoetgan-tests-"))
    os.environ["CRYOETGAN_RUNS"] = str(_folder / "runs")
    os.environ["CRYOETGAN_FIGURES"] = str(_folder / "figures")
    os.environ["CRYOETGAN_RESULTS"] = str(_folder / "results")
    (_folder / "results").mkdir()
    (_folder / "results" / "quick").symlink_to(Path(__file__).parent / "figures" / "quick")
