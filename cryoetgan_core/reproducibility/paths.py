"""Every path of the project.

Nothing depends on the working directory: papermill and nbval start kernels in different ones.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def runs(profile: str) -> Path:
    """Folder of a profile's data sets, weights, logs and checkpoints (not committed); CRYOETGAN_RUNS moves it."""
    return Path(os.environ.get("CRYOETGAN_RUNS", ROOT / "runs")) / profile


def figures(profile: str) -> Path:
    """Folder that a profile's figures and tables are written to; CRYOETGAN_FIGURES moves it."""
    return Path(os.environ.get("CRYOETGAN_FIGURES", ROOT / "figures")) / profile


def results(profile: str) -> Path:
    """Folder of the numbers and slices behind the figures, a JSON and an NPZ file a run (not committed)."""
    return runs(profile) / "results"


def reference(profile: str) -> Path:
    """Folder of the committed results, which no run writes: what notebooks read where there are no results of one's
    own.
    """
    return ROOT / "figures" / profile / "results"
