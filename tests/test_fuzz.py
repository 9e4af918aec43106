"""A few damaged files of every kind; `python tests/fuzz/files.py --mutants 2000` loads many."""

import os
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parent / "fuzz" / "files.py"


def test_damaged_files_are_refused_by_name_or_read() -> None:
    done = subprocess.run(
        [sys.executable, FUZZ, "--mutants", "120", "--seed", "5"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(FUZZ.parents[2])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 120 mutants" in done.stdout
