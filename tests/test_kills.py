"""A few kills; `python tests/fuzz/kills.py --kills 50` does many."""

import os
import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).parent / "fuzz" / "kills.py"


def test_killed_and_started_again_everything_is_the_same() -> None:
    done = subprocess.run(
        [sys.executable, KILLS, "--kills", "2", "--seed", "3"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(KILLS.parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("no fault") and "differ" not in done.stdout
