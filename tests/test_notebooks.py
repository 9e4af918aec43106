"""Every notebook runs by itself from another folder, has outputs to compare, and tells its parameters and their
mistakes.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
PAPERMILL = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-level", "ERROR"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("notebooks")
    names = {"RUNS": "runs", "FIGURES": "figures"}
    return os.environ | {f"CRYOETGAN_{k}": str(folder / v) for k, v in names.items()}


def run(arguments: list[str], environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PAPERMILL, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=600
    )


# those stored in the smoke profile run as they are stored, by nbval
AS_STORED = ("generate", "measure", "simulate_data", "your_benchmark", "your_data")


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem not in AS_STORED], ids=lambda p: p.stem)
def test_runs_from_another_folder(path: Path, environment: dict[str, str], tmp_path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    parameters = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
    small = ["-p", "profile", "smoke"] if "profile" in parameters else ["-p", "per_class", "8"]
    small += ["-r", "seeds", "0"] if "seeds" in parameters else []
    done = run([str(path), str(tmp_path / "out.ipynb"), *small], environment, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_committed_with_outputs_and_typed_parameters(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert all(c.execution_count is not None for c in code)
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    assert any(c.outputs and "nbval-ignore-output" not in c.metadata.get("tags", []) for c in code)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    parameters = next(c.source for c in code if "parameters" in c.metadata.get("tags", []))
    told = papermill.inspect_notebook(str(path))  # what `papermill --help-notebook` shows
    for line in parameters.splitlines():
        name, rest = line.split(":", 1)
        assert told[name]["inferred_type_name"] == rest.split("=")[0].strip()
        assert told[name]["help"] == line.split("#", 1)[1].strip()


@pytest.mark.parametrize(
    ("argument", "message"),
    [(["-p", "profil", "smoke"], "Unknown parameter 'profil'"), (["-r", "seed", "x"], "'seed' is 'x'")],
)
def test_a_wrong_parameter_is_named(
    argument: list[str], message: str, environment: dict[str, str], tmp_path: Path
) -> None:
    path = next(p for p in NOTEBOOKS if p.stem == "train")
    done = run([str(path), str(tmp_path / "out.ipynb"), *argument], environment, tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
