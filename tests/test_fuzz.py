"""A few damaged files of every kind, and a few kills; `tests/fuzz` does thousands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("files.py", ("--mutants", "120", "--seed", "5"), "of 120 mutants"),
        pytest.param(
            "kills.py",
            ("--kills", "2", "--seed", "3", "--steps", "4", "--presets", "released", "--kinds", "mrc"),
            "no fault",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_nothing_breaks(script: str, arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, FUZZ / script, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(FUZZ.parents[1])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout
