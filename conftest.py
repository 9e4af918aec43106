"""Tests and notebooks write runs and figures to a temporary folder, one a worker; the figures' results are read from
figures/quick.
"""

import os
import tempfile

# Set before nbval starts its kernels, which inherit them.
if "PYTEST_XDIST_WORKER" in os.environ or "CRYOETGAN_RUNS" not in os.environ:
    _folder = tempfile.mkdtemp(prefix="cryoetgan-tests-")
    os.environ["CRYOETGAN_RUNS"] = f"{_folder}/runs"
    os.environ["CRYOETGAN_FIGURES"] = f"{_folder}/figures"
