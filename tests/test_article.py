"""The article builds, and every number in it comes from a committed result."""

import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from common import ROOT

from cryoetgan_core.evaluation.baselines import CTF, FORMULAS
from cryoetgan_core.evaluation.downstream import PHYSICS, REAL
from cryoetgan_core.evaluation.metrics import student_interval
from cryoetgan_core.paper import article
from cryoetgan_core.paper.findings import Results
from cryoetgan_core.paper.picker_and_templates import BEST, BOTH
from cryoetgan_core.paper.record import code_of, is_older
from cryoetgan_core.paper.template_matching import TEMPLATES

SOURCE = ROOT / "article"
TEXT = (SOURCE / "article.md").read_text()
GLUED = re.findall(r"\{glue:md\}`(\w+)`", TEXT)


def prose(text: str) -> str:
    """A page without its head, code, formulas, roles and list of references."""
    text = text.split("## References")[0]
    text = re.sub(r"(RELION|Python) \d\.\d+|Student's 95 %", "", text)  # versions, and the level of the intervals
    for pattern in (r"\A---.*?---", r"```.*?```", r"\$\$.*?\$\$", r"\$.*?\$", r"\{[\w:]+\}`.*?`", r"`.*?`"):
        text = re.sub(pattern, "", text, flags=re.S)
    return text


@pytest.mark.parametrize("page", ["article", "index", "install", "files", "scale", "api"])
def test_a_number_has_a_source(page: str) -> None:
    found = re.search(
        r"\d+(\.\d+)? ?%|(?<![\d.])\d+\.\d+|\d+ (points|degrees|times)", prose((SOURCE / f"{page}.md").read_text())
    )
    assert not found, found


def test_a_number_written_by_hand_would_be_found() -> None:
    assert re.search(r"\d+(\.\d+)? ?%", prose(TEXT.replace("## Limits", "It reaches 91.2 % there.\n\n## Limits")))


def test_comparisons_that_are_said_in_words_hold() -> None:
    r = Results("quick", (0, 1, 2))
    small = all(level(np.subtract(r.pickers(name, PHYSICS), r.pickers(name, REAL))) for name in ("S1", "S2"))
    behind = np.subtract(r.pickers("S2", TEMPLATES), r.pickers("S2", PHYSICS))
    gan = np.subtract(r.on_real("S1"), r.downstream(CTF))
    (ribosomes,) = r(["foreign_ribosomes_seed0"])
    shells = np.subtract(ribosomes["fsc"], ribosomes["fsc_ceiling"])
    said = {
        "Small pickers trained on generated tomograms are level with those trained on real labels": small,
        "but on the second set behind template matching": above_zero(behind),
        "larger ones do not differ clearly from it there": level(r.wide_less_templates()),
        "which make no error on the held-out tomograms, remain ahead": set(r.wide_picker(PHYSICS, "S1")) == {1.0}
        and above_zero(r.wide_less_templates("S1", "_fine")),
        "A larger picker with real labels makes no error on S1 either (measured on the first data set alone)": (
            Results("quick", (0,)).wide_picker(REAL, "S1") == [1.0]
        ),
        "In each of the three data sets both together are ahead of it": min(r.joint_less_templates()) > 0,
        "is not resolved. With four times as many rotations": level(r.joint_less_templates()),
        "is ahead of the larger pickers there in each data set, but not clearly": max(r.wide_less_best()) < 0
        and level(r.wide_less_best()),
        "which was measured on the first data set, they are ahead": min(r.joint_less_fine()) > 0,
        "On S1 this does not differ clearly from what the CTF formula reaches": level(gan),
        "Over the two tomograms these ways do not differ clearly": all(
            level(np.subtract(r.deepfinder_joint(one), r.deepfinder_joint(other)))
            for one, other in combinations((PHYSICS, TEMPLATES, BOTH, BEST), 2)
        ),
        "about as well as an average of other experimental ones would; in the third it agrees less well": (
            min(shells[1:3]) > -0.05 and shells[3] < -0.1
        ),
        "all formulas stay near chance": max(r.authors(source) for source in FORMULAS) < 30,  # chance: 25
    }
    text = " ".join(TEXT.split())
    for sentence, holds in said.items():
        assert sentence in text and holds, sentence


def level(differences: Sequence[float]) -> bool:
    _, low, high = student_interval(differences)
    return low < 0 < high


def above_zero(differences: Sequence[float]) -> bool:
    return student_interval(differences)[1] > 0


def test_every_glued_name_is_made_and_every_one_made_is_used() -> None:
    origins = {f"from_{name}" for name in article.artefacts()}
    made = set(article.numbers()) | origins
    assert set(GLUED) <= made, set(GLUED) - made
    assert set(article.numbers()) <= set(GLUED)


def test_every_figure_and_table_is_shown_with_its_origin() -> None:
    elsewhere = {"fig9_physics_S2", "microscope_walk", "specimen_models"}
    assert {f"from_{name}" for name in set(article.artefacts()) - elsewhere} <= set(GLUED)


def test_what_older_code_made_is_marked() -> None:
    record = {"preset": "physics", "module": "paper.proof", "code_hash": "0" * 12}
    assert is_older(record) and is_older(record | {"module": "gone.long_ago"})
    assert not is_older(record | {"code_hash": code_of("paper.proof", "physics")})


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*command, str(SOURCE), str(tmp_path / "html")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "html" / "article.html").read_text()
    for number in article.numbers().values():
        assert number in page
    assert "<math" in page and "Claims" in page
