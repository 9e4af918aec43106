"""Results name their configuration, code, data and machine; what does not belong together is refused, and older code is
said.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from common import ROOT, snakemake

from cryoetgan_core import paper
from cryoetgan_core.config import DATASETS, make_config
from cryoetgan_core.paper import plotting
from cryoetgan_core.paper.record import code_of
from cryoetgan_core.paper.results import check_same_data
from cryoetgan_core.reproducibility import paths, provenance
from cryoetgan_core.reproducibility.provenance import PACKAGE, PHYSICS, _read, array_hash, code_files, code_hash
from cryoetgan_core.reproducibility.seeds import stream
from cryoetgan_core.simulator.sets import class_references, density_maps
from cryoetgan_core.volumes.domains import Domains

RESULTS = ROOT / "figures" / "quick" / "results"
# tables of times of one machine
TIMES = {f"benchmark_{of}" for of in "gpu scenes figures speed microscope files".split()} | {"training_time"}
CLIENTS = {"clients", "clients_first_version"}
EARLIER = {"physics_training_earlier_code"}  # of code that is gone; says so itself


def committed() -> list[tuple[str, Path]]:
    """Profile and file of every committed result."""
    found = [(p.parent.parent.name, p) for p in sorted((ROOT / "figures").glob("*/results/*.json"))]
    return [(profile, p) for profile, p in found if p.stem not in TIMES | CLIENTS | EARLIER]


def result_of(name: str, **changes: object) -> dict:
    config = paper.find_case("quick", name).config.replace(**changes)
    machine = {"commit": "abc", "clean": True, "processor": "some processor", "gpu": None}
    described = paper.described(config, "paper.runs") | {"provenance": machine, "data_hash": "d" * 12, "metrics": {}}
    return described


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    own, reference = tmp_path / "own", tmp_path / "committed"
    for folder in (own, reference):
        folder.mkdir()
    monkeypatch.setattr(paths, "results", lambda profile: own)
    monkeypatch.setattr(paths, "reference", lambda profile: reference)
    return own, reference


def put(folder: Path, name: str, **changes: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(result_of(name, **changes)))


NAMES = ["S1_adapted_seed0", "S1_adapted_noise0.5_seed0"]


def test_own_and_committed_results_are_never_mixed_and_whose_they_are_is_said(
    folders: tuple[Path, Path], capsys
) -> None:
    own, reference = folders
    for name in NAMES:
        put(reference, name)
    put(own, NAMES[0])
    results = paper.results_of("quick", NAMES)
    assert {r["read_from"] for r in results.values()} == {"committed"}
    paper.show_source(results)
    assert "Results (2) from figures/quick/results, committed; commit abc; some processor" in capsys.readouterr().out
    assert {r["read_from"] for r in paper.results_of("quick", NAMES[:1]).values()} == {"own"}
    with pytest.raises(FileNotFoundError, match="S1_adapted_seed2.*make figures PROFILE=quick"):
        paper.results_of("quick", ["S1_adapted_seed2"])


def test_a_result_of_another_configuration_is_refused_by_name(folders: tuple[Path, Path]) -> None:
    put(folders[0], NAMES[0], batch=7)
    with pytest.raises(
        ValueError, match=r"S1_adapted_seed0\.json was made with another configuration \(batch 7, not 4\)"
    ):
        paper.results_of("quick", NAMES[:1])


def test_results_of_other_data_or_another_classifier_are_not_joined(folders: tuple[Path, Path]) -> None:
    results = {name: result_of(name) for name in NAMES}
    check_same_data(results)
    results[NAMES[1]]["data_hash"] = "e" * 12
    with pytest.raises(ValueError, match="S1_adapted_noise0.5_seed0 and S1_adapted_seed0 were measured on other data"):
        check_same_data(results)
    results[NAMES[1]] |= {"data_hash": "d" * 12, "classifier_hash": "1"}
    results[NAMES[0]]["classifier_hash"] = "2"
    with pytest.raises(ValueError, match="another reference classifier"):
        check_same_data(results)
    for result in results.values():
        result["config"]["dataset"] = "own"  # files of others: no draw names them
    check_same_data(results)
    other_draw = {
        "S1_adapted_seed0": result_of("S1_adapted_seed0"),
        "S1_adapted_seed1": result_of("S1_adapted_seed1") | {"data_hash": "f"},
    }
    check_same_data(other_draw)


def test_older_code_is_said(folders: tuple[Path, Path], capsys) -> None:
    put(folders[0], NAMES[0])
    path = folders[0] / f"{NAMES[0]}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code_hash": "0" * 12}))
    paper.show_source(paper.results_of("quick", NAMES[:1]))
    assert "The code has changed since for 1 of them (S1_adapted_seed0)" in capsys.readouterr().out


def test_a_damaged_result_is_named(folders: tuple[Path, Path]) -> None:
    put(folders[0], NAMES[0])
    np.savez(folders[0] / f"{NAMES[0]}.npz", density=np.zeros(50))
    whole = (folders[0] / f"{NAMES[0]}.npz").read_bytes()
    (folders[0] / f"{NAMES[0]}.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"S1_adapted_seed0\.npz is damaged or cut off.*make it again"):
        paper.results_of("quick", NAMES[:1])


def test_code_hash_follows_what_a_module_runs_and_not_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "cryoetgan_core"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)

    def hashes() -> dict[str, str]:
        """Anew, since a process keeps those that it made."""
        return {
            name: code_hash.__wrapped__(module)
            for name, module in {"runs": "paper.runs", "render": "simulator.specimen.render"}.items()
        }

    before = hashes()
    losses = copy / "losses.py"
    text = losses.read_text()
    losses.write_text(text + "\n\n# a comment\n")
    assert hashes() == before
    losses.write_text(text.replace('"""', '"""Other words. ', 1))
    assert hashes() == before
    losses.write_text(text + "\nANYTHING = 1\n")
    after = hashes()
    assert after["runs"] != before["runs"] and after["render"] == before["render"]


def test_code_hashes_are_those_of_every_python() -> None:
    text = "\n".join(_read((PACKAGE / "losses.py").read_text())[1])
    assert "FunctionDef(name='cycle_loss'" in text and "Constant(value=" in text
    assert "=[]" not in text and "=None" not in text  # fields of one version of Python and not of another


def test_code_files_follow_imports() -> None:
    names = {p.relative_to(PACKAGE).as_posix() for p in code_files("paper.runs")}
    simulated, spectrum = "simulator/microscope/simulate.py", "evaluation/metrics.py"
    assert {"training.py", "physics/generator.py", "evaluation/compare.py", spectrum, simulated} <= names
    assert not names & {"particles/copick.py", "paper/plotting/panels.py", "config.py", "streaming.py"}
    assert all((PACKAGE / name).is_file() for name in names)
    with pytest.raises(ValueError, match="no module trainig"):
        code_hash("trainig")


def test_data_have_a_hash_of_their_values() -> None:
    assert array_hash(np.zeros(4)) != array_hash(np.zeros((2, 2))) != array_hash(np.zeros((2, 2), np.float32))
    references = class_references(("ribosome",), 17, DATASETS["S1"].field_of_view_A / 24)
    a, b = (density_maps(references, 2, 17, 20.0, stream(seed, "x")) for seed in (0, 1))
    assert Domains(a, a, a, a).hash == Domains(a, a, a, a).hash != Domains(a, a, a, b).hash


def test_a_seed_draws_data_and_training() -> None:
    first, second = (paper.find_case("quick", f"S1_adapted_seed{s}").config for s in (0, 1))
    assert (first.data_seed, second.data_seed) == (0, 1) and paper.data_folder(first) != paper.data_folder(second)
    assert make_config("quick", seed=3, data_seed=1).data_seed == 1


def test_every_committed_result_says_where_it_comes_from() -> None:
    assert len(committed()) > 40
    for profile, path in committed():
        result = json.loads(path.read_text())
        made = result["provenance"]
        assert re.fullmatch("[0-9a-f]{12}", made["commit"]) and made["clean"] is True, path.name
        assert made["processor"] and made["packages"]["torch"], path.name
        assert all(re.fullmatch("[0-9a-f]{12}", result[k]) for k in ("config_hash", "code_hash")), path.name
        # folds are data of their own
        assert "data_hash" in result or path.name.startswith(("foreign_ribosomes", "foreign_deepfinder", "parts")), (
            path.name
        )
        assert paper.find_case(profile, path.stem).config.hash == result["config_hash"], path.name


def test_every_artefact_names_its_results_or_its_code() -> None:
    """Results that are committed or, after `make figures`, one's own."""
    sidecars = sorted((ROOT / "figures").glob("*/*.json"))
    assert len(sidecars) > 20
    for path in sidecars:
        record = json.loads(path.read_text())
        assert record.get("results") or record.get("made_by"), path.name
        own = ROOT / "runs" / path.parent.name / "results"
        for name, made in record.get("results", {}).items():
            files = [*(ROOT / "figures").glob(f"*/results/{name}.json"), *own.glob(f"{name}.json")]
            stored = [json.loads(file.read_text()) for file in files]
            same = [all(made[k] == s[k] for k in ("config_hash", "provenance")) for s in stored]
            assert any(same), (path.name, name)


def test_an_artefact_without_results_or_module_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "figures", lambda profile: tmp_path)
    with pytest.raises(ValueError, match="give the results"):
        plotting.save_table(pd.DataFrame({"a": [1]}), "a", "quick", {})


def test_notebooks_that_read_results_say_whose() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        source = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
        assert ("results_of(" in source) == ("show_source(" in source), path.name


def test_readings_hold_no_number_by_hand() -> None:
    """A number that was measured is filled in by a code cell; what is left in prose are settings, and the paper's own
    numbers.
    """
    number = re.compile(r"\d+\.\d+|\d+ ?%|\[\d")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown" and ("**Reading.**" in cell.source or "**Limits.**" in cell.source):
                prose = re.sub(r"RELION \d\.\d", "", cell.source)
                assert not number.search(prose), (path.name, number.search(prose).group(), prose[:80])


@pytest.mark.slow
def test_a_change_in_configuration_or_code_makes_a_result_again(checkout: Path) -> None:
    """The data rule is run once, by a stand-in for papermill; then a comment and code change."""
    program = checkout / "bin" / "papermill"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nmkdir -p runs/smoke/data/S1_draw0 && touch runs/smoke/data/S1_draw0/data.json\n")
    program.chmod(0o755)
    target = os.path.relpath(checkout / "runs" / "smoke" / "data" / "S1_draw0" / "data.json", checkout)
    here = {"PYTHONPATH": str(checkout), "CRYOETGAN_RUNS": str(checkout / "runs")}
    here |= {"CRYOETGAN_FIGURES": str(checkout / "figs"), "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}

    def made(*how: str) -> subprocess.CompletedProcess:
        return snakemake(checkout, *how, target, "--config", "profile=smoke", "seeds=0", environment=here)

    done = made()
    assert done.returncode == 0, done.stderr[-2000:]

    def again() -> bool:
        return "simulate_data" in (r := made("-n")).stdout + r.stderr

    noise = checkout / "cryoetgan_core" / "simulator" / "microscope" / "noise.py"
    text = noise.read_text()
    noise.write_text(text + "\n# a comment\n")
    assert not again()
    noise.write_text(text + "\nANYTHING = 1\n")
    assert again()
    config = make_config("smoke", "S1")
    assert paper.data_record(config.replace(classifier_epochs=1)) != paper.data_record(config)  # as code, a parameter


def test_one_number_a_draw_has_no_interval_and_several_are_bounded() -> None:
    assert plotting.over_draws([83.94], 1) == "83.9"
    assert plotting.over_draws([90.0, 99.0, 99.9], 1, (0, 100)) == "96.3 [82.7, 100.0]"


def test_a_run_of_the_papers_generator_does_not_depend_on_the_physics() -> None:
    names = {p.relative_to(PACKAGE).as_posix() for p in code_files("paper.runs", without=PHYSICS)}
    assert {"models.py", "training.py", "evaluation/compare.py"} <= names
    assert not {f"physics/{name}.py" for name in ("generator", "estimate", "signal_moments")} & names
    assert code_of("paper.runs", "paper") != code_of("paper.runs", "physics") == code_hash("paper.runs")
    assert code_of("paper.measurements", "paper") == code_hash("paper.measurements")
