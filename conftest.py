"""Tests and notebooks write runs and figures to a temporary folder, never into the repository."""

import os
import tempfile

# Kernels that nbval starts inherit these. Results of the quick profile are still read from figures/quick.
_folder = tempfile.mkdtemp(prefix="cryoetgan-tests-")
os.environ.setdefault("CRYOETGAN_RUNS", f"{_folder}/runs")
os.environ.setdefault("CRYOETGAN_FIGURES", f"{_folder}/figures")
