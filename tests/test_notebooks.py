"""Every notebook runs by itself from another folder, has outputs to compare, and tells its parameters and their
mistakes. Some results of the smoke profile are looked into.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import papermill
import pytest
from common import ROOT
from matplotlib.figure import Figure

from cryoetgan_core.config import make_config
from cryoetgan_core.evaluation import compare
from cryoetgan_core.evaluation.classification import load_classifier
from cryoetgan_core.paper import catalogue, long_runs, runs
from cryoetgan_core.paper.simulated_sets import data_folder, has_data, load_data, simulate_data
from cryoetgan_core.reproducibility import paths
from cryoetgan_core.run_folder import train
from cryoetgan_core.training import Trainer

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
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: print_coarse(figure, path))
    cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    space: dict[str, object] = {"__name__": "__main__"}
    exec(cells[0], space)  # the parameters
    space |= {k: v for k, v in {"profile": "smoke", "seeds": "0", "threads": 1}.items() if k in space}
    with plt.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("default")
        for cell in cells[1:]:
            exec(cell, space)
    plt.close("all")


def test_the_molecule_adds_less_to_recordings_than_noise_does(elsewhere: None) -> None:
    found = catalogue.results_of("smoke", ["spread_S1_seed0"])["spread_S1_seed0"]
    added = found["variance"]["added by the molecule within it, recorded"]
    assert found["variance"]["all, recorded"] > 0.3 > 10 * max(added) and min(added) > 0
    shapes = {v.shape for v in found["slices"].values()}
    assert shapes == {(4, 18, 18)} and len(found["rank"]) == 4
    assert np.isfinite(found["reliability"]["ence"])


def test_labels_are_read_of_every_change(elsewhere: None) -> None:
    found = catalogue.results_of("smoke", ["labels_S1_seed0"])["labels_S1_seed0"]
    assert [row["volumes"] for row in found["rows"]][:2] == ["real", "as generated"] and len(found["rows"]) == 8
    for row in found["rows"]:
        assert row["label read"] == pytest.approx(np.mean([row[c] for c in found["classes"]]))


def test_a_stopped_run_is_measured_as_far_as_its_checkpoint_came(elsewhere: None, tmp_path: Path) -> None:
    """Its generator is the one that a run of so many steps ends with."""
    config = make_config("smoke", "S1", "described", batch=1, steps=9, checkpoint_every=4)
    domains = load_data(config) if has_data(config) else simulate_data(config)

    def stop() -> None:
        raise KeyboardInterrupt

    trainer = Trainer(config, domains.volumes("X_train"), domains.volumes("Y_train"))
    trainer.step, step = lambda: step() if trainer.steps_done < 6 else stop(), trainer.step
    with pytest.raises(KeyboardInterrupt):
        train(trainer, paths.runs("smoke") / "long", progress=False)
    found = long_runs.make_stopped(config, "long")
    assert found["steps_done"] == 4 and [line["step"] for line in found["log"]] == [1, 2, 3, 4]
    ended = runs.train_on(config.replace(steps=4), domains, tmp_path / "ended")
    classifier = load_classifier(data_folder(config) / "classifier.safetensors", config, len(domains.classes))
    assert found["metrics"] == compare.evaluate(ended, domains, classifier)[0]["metrics"]
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        long_runs.make_stopped(config, "nowhere")
    planned = {f"stopped_S1_{recipe}_batch1_seed0" for recipe in ("described", "released")}
    assert set(long_runs.measured("quick", 0)) == planned


def print_coarse(figure: Figure, path: Path) -> None:
    """Draw every artist once; nobody looks at it."""
    figure.canvas.print_figure(path, format="png", dpi=20) if path.suffix == ".png" else path.touch()


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
