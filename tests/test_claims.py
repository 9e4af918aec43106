"""Every claim holds on the committed results, the README shows what they say, and a claim that does not hold fails."""

import base64
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mrcfile
import pytest
from common import ROOT

from cryoetgan_core.config import PROFILES
from cryoetgan_core.paper import claims, command
from cryoetgan_core.paper.stand_ins import make_stand_in
from cryoetgan_core.physics.signal_moments import PARTS_FOR_SIGNS
from cryoetgan_core.reproducibility import paths
from cryoetgan_core.simulator.sets import class_references

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def table():
    return claims.claims_table("quick", [0, 1, 2])


def test_no_claim_fails_on_the_committed_results(table) -> None:
    failed = table[~table["result"].str.contains("pass|not resolved")]
    assert len(table) == len(claims.CLAIMS) and failed.empty, failed.to_string()


def test_the_readme_shows_what_the_claims_found(table) -> None:
    shown = README.split(claims.MARKS[0])[1].split(claims.MARKS[1])[0].strip()
    assert shown == claims.as_markdown(claims.headlines(table)), "run `make claims README=1`"


def test_the_readme_holds_no_measured_number_outside_the_claims() -> None:
    outside = README.split(claims.MARKS[0])[0] + README.split(claims.MARKS[1])[1]
    prose = re.sub(r"```.*?```", "", outside, flags=re.S)
    found = re.search(r"\d+(\.\d+)? ?%|(?<![\d.])0\.\d+|\[\d", prose)
    assert not found, prose[max(0, found.start() - 80) : found.end() + 40]


def test_settings_that_prose_names_are_those_of_the_code() -> None:
    article = (ROOT / "article" / "article.md").read_text()
    assert f"From fewer than {PARTS_FOR_SIGNS} that sign" in README
    assert f"From fewer than {PARTS_FOR_SIGNS} particles the sign" in article
    quick, evening = (PROFILES[name].sizes["steps"] for name in ("quick", "evening"))
    assert f"stops after {quick} steps" in README and f"training data in {evening:,} steps" in README


def test_a_claim_that_does_not_hold_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    wrong = claims.Claim("Two is less than one", "none", "two", lambda results: 2.0, "<", 1.0, 0)
    right = claims.Claim("One is one", "none", "one", lambda results: 1.0, "=", 1.0, 0)
    monkeypatch.setattr(claims, "CLAIMS", (right, wrong))
    monkeypatch.setattr(sys, "argv", ["claims", "--seeds", "0"])
    assert claims.main() == 1
    out = capsys.readouterr().out
    assert "2 claims: 1 pass, 0 not resolved, 1 fail" in out and re.search("FAIL +2.0 < 1 +Two is less than one", out)


def test_an_interval_that_includes_the_limit_resolves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = claims.Claim(
        "Two is more than one", "none", "two", lambda r: [0.0, 2.0, 4.0], ">", 1.0, 0, beside=lambda r: ("none", 1.5)
    )
    clear = claims.Claim("Two is more than one", "none", "two", lambda r: [1.9, 2.0, 2.1], ">", 1.0, 0.7)
    near = claims.Claim("Two is more than one", "none", "two", lambda r: [2.0, 2.0], ">", 1.0, 1.1)
    end = claims.Claim("Two is more than one", "none", "two", lambda r: [1.9, 2.0, 2.1], ">", 1.7, 0.1)
    monkeypatch.setattr(claims, "CLAIMS", (noisy, clear, near, end))
    table = claims.claims_table("quick", [0])
    assert table["result"].tolist() == ["not resolved", "pass", "pass, near the limit", "pass, near the limit"]
    assert table["found"].tolist() == ["2.0 [-3.0, 7.0]", "2.0 [1.8, 2.2]", "2.0 in each", "2.0 [1.8, 2.2]"]
    assert table["strongest baseline"].tolist() == ["1.5 (none)", "", "", ""]


def test_each_claim_names_a_notebook() -> None:
    assert {claim.artefact for claim in claims.CLAIMS} <= {p.stem for p in (paths.ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.slow
def test_the_snippet_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert (tmp_path / "runs" / "readme" / "weights.safetensors").is_file()


def test_the_picture_of_the_readme_is_that_of_the_quick_start() -> None:
    notebook = json.loads((paths.ROOT / "notebooks" / "quick_start.ipynb").read_text())
    outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    (picture,) = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert "](figures/quick_start.png)" in README
    assert base64.b64decode(picture) == (paths.ROOT / "figures" / "quick_start.png").read_bytes()


def test_the_time_of_a_training_is_what_was_measured() -> None:
    timed = json.loads((paths.reference("evening") / "training_time.json").read_text())
    told = [
        int(m)
        for text in (README, *(c.sentence for c in claims.CLAIMS))
        for m in re.findall(r"(\d+) minutes of a core", text)
    ]
    assert len(told) >= 2 and timed["steps"] == 2000
    assert all(0.75 < timed["minutes"] / minutes < 1.33 for minutes in told)


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """As they stand, on a stand-in in place of /data, and fewer generated."""
    make_stand_in(tmp_path, 0)
    density = class_references(("ribosome",), 32, 15.0)["ribosome"].numpy()
    mrcfile.write(tmp_path / "80S.mrc", density, voxel_size=15.0)
    lines = re.findall(r"^\$ \.venv/bin/cryoetgan (.*?)(?:#.*)?$", README, flags=re.M)
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line.replace("/data", str(tmp_path)).replace(" 10000", " 5"))
        assert command.main(words) == 0, line
    assert len(list((tmp_path / "many").rglob("ribosome*.mrc"))) == 5
    assert (tmp_path / "scenes" / "tomograms" / "scene_0001_classes.mrc").exists()
    assert "volumes of 28^3 voxels" in capsys.readouterr().out


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^\$ make ([a-z-]+)|`make ([a-z-]+)", README, flags=re.M))
    assert len(targets) > 5
    for target in (a or b for a, b in targets):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
