"""Every notebook runs by itself from another folder, has outputs to compare, and tells its parameters and their
mistakes.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import papermill
import pytest
from common import ROOT

from cryoetgan_core.evaluation import compare

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# nbval runs these as they are stored: in the smoke profile, or from committed results alone
AS_STORED = "atoms_to_subtomogram evening foreign_data generate measure quick_start simulate_data train".split()
AS_STORED += ["your_benchmark", "your_data", "your_tomograms"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture
def elsewhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder to run notebooks from; runs and figures of all of them are in one."""
    for name in ("RUNS", "FIGURES"):
        monkeypatch.setenv(f"CRYOETGAN_{name}", str(folder / name.lower()))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem not in AS_STORED], ids=lambda p: p.stem)
def test_makes_its_results_in_the_smoke_profile(path: Path, elsewhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: a kernel takes ten seconds to start. nbval runs the notebook in one, from committed results."""
    monkeypatch.setattr(compare, "network_auc", lambda *_: 0.5)  # trains networks
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    space: dict[str, object] = {"__name__": "__main__"}
    exec(cells[0], space)  # the parameters
    space |= {k: v for k, v in {"profile": "smoke", "seeds": "0", "threads": 1}.items() if k in space}
    with plt.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("default")
        for cell in cells[1:]:
            exec(cell, space)
    plt.close("all")


def test_papermill_sets_parameters(elsewhere: None, folder: Path, tmp_path: Path) -> None:
    table = folder / "figures" / "smoke" / "table2_metrics.csv"
    table.unlink(missing_ok=True)
    (path,) = [p for p in NOTEBOOKS if p.stem == "table2_metrics"]
    papermill.execute_notebook(path, tmp_path / "out.ipynb", {"profile": "smoke", "seeds": "0"}, progress_bar=False)
    assert table.exists()


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
