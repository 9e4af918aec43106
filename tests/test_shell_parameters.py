"""What a user gives reaches a notebook as it was given: no shell runs a part of it, no apostrophe or space breaks
it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from common import ROOT, snakemake

from cryoetgan_core.config import DATASETS
from cryoetgan_core.paper import parse_seeds
from cryoetgan_core.simulator.specimen.databases import is_identifier

HOSTILE = (
    "a'$(touch owned)'a",
    "a; touch owned; a",
    "a`touch owned`a",
    "a\" && touch owned && echo \"a",
    "a | touch owned",
    "a > owned",
    "a\ntouch owned\na",
    "a ${HOME} $HOME {wildcards.dataset} a",
    "O'Brien's ribosome & 'co'",
    "*? [a-z] ~ \\ ! -r x y",
)  # fmt: skip
# in place of papermill: keeps its words, and makes what the rule of the simulated sets promises
PAPERMILL = """#!{python}
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
with open(os.environ["WORDS"], "a") as file:
    file.write(json.dumps(words) + "\\n")
folder = Path(os.environ["CRYOETGAN_RUNS"]) / "smoke" / "data" / (words[words.index("dataset") + 1] + "_draw0")
folder.mkdir(parents=True, exist_ok=True)
(folder / "data.json").touch()
"""


def put_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(python=sys.executable))
    path.chmod(0o755)


def kept(words: Path) -> list[list[str]]:
    return [json.loads(line) for line in words.read_text().splitlines()]


def test_files_of_any_name_reach_the_notebook_and_nothing_in_them_runs(tmp_path: Path, checkout: Path) -> None:
    put_program(tmp_path / "bin" / "papermill", PAPERMILL)
    runs, words = tmp_path / "my runs' $(touch owned)", tmp_path / "words"
    files = [checkout / f"{text}.mrc" for text in HOSTILE]
    for file in files:
        file.touch()
    classes = [*DATASETS["S1"].classes, *(c for c in DATASETS["S2"].classes if c not in DATASETS["S1"].classes)][
        : len(files)
    ]
    given = dict(zip(classes, files, strict=True))
    targets = [os.path.relpath(runs / "smoke" / "data" / f"{name}_draw0" / "data.json", checkout) for name in DATASETS]
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    config = tmp_path / "config.json"  # since --config folds lines
    maps = ",".join(f"{k}={v.name}" for k, v in given.items())
    config.write_text(json.dumps({"profile": "smoke", "seeds": "0", "maps": maps}))
    environment = {"PATH": path, "CRYOETGAN_RUNS": str(runs), "WORDS": str(words)}
    made = snakemake(checkout, *targets, "--configfile", str(config), environment=environment)
    assert made.returncode == 0, made.stderr[-3000:]
    calls = {call[call.index("dataset") + 1]: call for call in kept(words)}
    assert calls.keys() == DATASETS.keys()
    for name, call in calls.items():
        wanted = ", ".join(f"{k}={v}" for k, v in given.items() if k in DATASETS[name].classes)
        assert call[-3:] == ["-r", "maps", wanted]
        assert call[3:5] == [
            "notebooks/simulate_data.ipynb",
            os.path.relpath(runs / "smoke" / "notebooks", checkout) + f"/simulate_data_{name}_0.ipynb",
        ]
    assert not [*tmp_path.rglob("owned")]


def test_what_is_no_entry_is_refused_before_anything_runs(tmp_path: Path, checkout: Path) -> None:
    told = ["--config", "profile=smoke", "seeds=0", "maps=ribosome=pdb:3j9i'$(touch owned)'a"]
    made = snakemake(checkout, "all", *told, environment={"CRYOETGAN_RUNS": str(tmp_path / "runs")})
    assert made.returncode != 0 and "'maps' holds" in made.stderr, made.stderr[-2000:]
    assert not [*tmp_path.rglob("owned")] and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["seeds", "profile"])
def test_what_is_no_seed_or_profile_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The Snakefile up to its first rule is Python."""
    monkeypatch.chdir(tmp_path)
    head = (ROOT / "Snakefile").read_text().split("\nrule ")[0]
    with pytest.raises(ValueError, match=f"'{name}' is"):
        exec(head, {"config": {"profile": "smoke", "seeds": "0", name: "0'; touch owned; '"}})
    assert not [*tmp_path.rglob("*")]


def test_make_hands_on_what_it_was_given(tmp_path: Path, checkout: Path) -> None:
    text = " ".join(HOSTILE)
    words = tmp_path / "words"
    for name in ("python", "snakemake"):
        put_program(checkout / ".venv" / "bin" / name, PAPERMILL.split("folder =")[0])
    (checkout / "requirements.lock").touch()
    (checkout / ".venv" / ".complete").touch()
    given = [f"{name}={text} $(shell touch owned) $$" for name in ("PROFILE", "SEEDS", "MAPS")]
    subprocess.run(
        ["make", "-C", str(checkout), "figures", "CORES=1", *given],
        capture_output=True,
        env=os.environ | {"WORDS": str(words)},
    )
    (call,) = kept(words)
    wanted = [f"{name.lower()}={text} $(shell touch owned) $$" for name in ("PROFILE", "SEEDS", "MAPS")]
    assert call[call.index("--config") + 1 :][:3] == wanted
    assert not [*tmp_path.rglob("owned")]


def test_identifiers_and_seeds_are_checked_whole() -> None:
    assert all(
        map(is_identifier, ("pdb:3j9i", "PDB:3J9I", "pdb:pdb_00003j9i", "emdb:3883", "emdb:EMD-3883", "emdb:emd_12345"))
    )
    for text in HOSTILE:
        assert (
            not is_identifier(f"pdb:3j9i{text}")
            and not is_identifier(f"emdb:3883{text}")
            and not is_identifier(f"{text}pdb:3j9i")
        )
        with pytest.raises(ValueError, match="'seeds' is"):
            parse_seeds(f"0 1 {text}")
    assert not is_identifier("pdb:3j9i\n") and not is_identifier("pdb:../etc") and not is_identifier("emdb:3883/../1")
    assert parse_seeds("0, 1 2") == [0, 1, 2]
    for wrong in ("", "-1", "1.0", "0x1", "1e3", "٣"):
        with pytest.raises(ValueError, match="'seeds' is"):
            parse_seeds(wrong)
