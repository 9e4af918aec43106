"""The rooms of the package: which imports which, and what `import cryoetgan_core` offers."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import cryoetgan_core
from cryoetgan_core import paper

ROOT = Path(cryoetgan_core.__file__).parents[1]


def test_no_room_imports_from_a_room_above_it() -> None:
    """The contract stands in pyproject.toml."""
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Contracts: 1 kept, 0 broken." in done.stdout


def test_what_a_user_needs_is_at_the_top_and_documented() -> None:
    for name in cryoetgan_core.__all__:
        assert inspect.getdoc(getattr(cryoetgan_core, name)), name
    for package in (cryoetgan_core, paper):
        assert set(package.__all__) <= set(dir(package))  # what a notebook completes
        assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="no 'generat'; it has load"):
        cryoetgan_core.generat  # noqa: B018


def test_what_takes_seconds_to_load_is_loaded_when_it_is_needed() -> None:
    """Nothing for the top; for the command nothing that draws or tests statistics, and no measurement."""
    late = "torch", "cryoetgan_core.config", "seaborn", "scipy.stats", "cryoetgan_core.paper.catalogue"
    told = f"print(*[name in sys.modules for name in {late}])"
    command = f"import sys, cryoetgan_core; {told}; import cryoetgan_core.paper.command; {told}"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False False False False", "True True False False False"]
