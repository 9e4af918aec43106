"""Every notebook runs by itself from another folder, has outputs to compare, and tells its parameters and their
mistakes.
"""

from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a notebook from another folder; runs and figures of all of them are in one."""
    for name in ("RUNS", "FIGURES"):
        monkeypatch.setenv(f"CRYOETGAN_{name}", str(folder / name.lower()))  # which the kernel inherits
    out = str(tmp_path / "out.ipynb")
    return lambda path, **parameters: papermill.execute_notebook(
        path, out, parameters, cwd=tmp_path, progress_bar=False
    )


# nbval runs these as they are stored: in the smoke profile, or from committed results alone
AS_STORED = "atoms_to_subtomogram evening foreign_data generate measure quick_start simulate_data train".split()
AS_STORED += ["your_benchmark", "your_data", "your_tomograms"]


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem not in AS_STORED], ids=lambda p: p.stem)
def test_runs_from_another_folder(path: Path, run: Callable[..., None]) -> None:
    cells = nbformat.read(path, as_version=4).cells
    parameters = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    run(path, profile="smoke", **({"seeds": "0"} if "seeds" in parameters else {}))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_committed_with_outputs_and_typed_parameters(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.execution_count is not None for c in code)
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    assert any(c.outputs and "nbval-ignore-output" not in c.metadata.get("tags", []) for c in code)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    parameters = next(c.source for c in code if "parameters" in c.metadata.get("tags", []))
    assert "check_parameters(globals())" in code[1].source  # which names a wrong one
    told = papermill.inspect_notebook(str(path))  # what `papermill --help-notebook` shows
    for line in parameters.splitlines():
        name, rest = line.split(":", 1)
        assert told[name]["inferred_type_name"] == rest.split("=")[0].strip()
        assert told[name]["help"] == line.split("#", 1)[1].strip()
