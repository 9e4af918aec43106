"""The rooms of the package: which imports which, and what `import cryoetgan_core` offers."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cryoetgan_core

ROOT = Path(cryoetgan_core.__file__).parents[1]


def test_no_room_imports_from_a_room_above_it() -> None:
    """The contract stands in pyproject.toml."""
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Contracts: 1 kept, 0 broken." in done.stdout


def test_what_a_user_needs_is_at_the_top_and_documented() -> None:
    for name in cryoetgan_core.__all__:
        assert inspect.getdoc(getattr(cryoetgan_core, name)), name
    assert set(cryoetgan_core.__all__) <= set(dir(cryoetgan_core))
    with pytest.raises(AttributeError, match="no 'generat'; it has load"):
        cryoetgan_core.generat  # noqa: B018


def test_the_top_loads_nothing_until_a_name_is_used() -> None:
    command = "import cryoetgan_core, sys; print('torch' in sys.modules, 'cryoetgan_core.config' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
