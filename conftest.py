"""Tests and notebooks write runs and figures to a temporary folder, one a worker; the figures' results are read from
figures/quick.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a worker: sums are then always in the same order
# Set before nbval starts its kernels, which inherit them.
if "PYTEST_XDIST_WORKER" in os.environ or "CRYOETGAN_RUNS" not in os.environ:
    _folder = tempfile.mkdtemp(prefix="cryoetgan-tests-")
    os.environ["CRYOETGAN_RUNS"] = f"{_folder}/runs"
    os.environ["CRYOETGAN_FIGURES"] = f"{_folder}/figures"

# Whole programs, trainings and notebooks: left out of `make test-fast`.
SLOW = (
    "test_acceleration", "test_article", "test_cell", "test_clients", "test_evidence", "test_notebooks", "test_parity",
    "test_particles_kinds", "test_physics", "test_pick_error", "test_processes", "test_profiles",
    "test_shell_parameters", "test_specimen_databases", "test_spread", "test_streaming", "test_training", "test_viewer",
)  # fmt: skip


def pytest_collection_modifyitems(items: list) -> None:
    """Mark what `make test-fast` leaves out."""
    for item in items:
        if item.path.stem in SLOW or item.path.suffix == ".ipynb":
            item.add_marker("slow")
    # what takes longest begins first, so that no core waits for it at the end
    items.sort(key=lambda item: item.path.stem != "test_notebooks")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the workflow in a folder of its own, since Snakemake locks the one that it runs in."""
    folder, root = tmp_path / "checkout", Path(__file__).parent
    folder.mkdir()
    for name in ("Snakefile", "Makefile", "notebooks", "cryoetgan_core", "pyproject.toml"):
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, folder / name)
    return folder
