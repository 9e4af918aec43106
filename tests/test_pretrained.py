"""The runs that come with the repository can be read, and generate."""

import re
from pathlib import Path

import pytest
import torch

import cryoetgan_core as cg
from cryoetgan_core.paper.pretrained import FOLDER

NAMES = sorted(path.parent.name for path in FOLDER.glob("*/weights.safetensors"))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_the_repository_generates(name: str) -> None:
    run = cg.load_run(cg.pretrained(name))
    box, dataset = run.config.box, run.config.dataset
    classes = ("ribosome", "tric") if dataset == "S1" else ("aldolase", "t20s")
    maps = cg.class_references(classes, box, cg.DATASETS[dataset].field_of_view_A / box)
    x = cg.density_maps(maps, 4, box, cg.DATASETS[dataset].field_of_view_A / box, torch.Generator().manual_seed(0))
    made = cg.generate(run, torch.from_numpy(x.volumes))
    assert made.shape == x.volumes.shape and 0.3 < float(made.std()) < 3


def test_the_card_describes_every_run() -> None:
    assert set(re.findall(r"`(S\d_\w+)`", (FOLDER / "README.md").read_text())) == set(NAMES)


def test_the_numbers_of_the_card_are_those_of_the_runs() -> None:
    card = (FOLDER / "README.md").read_text()
    for name in NAMES:
        config = cg.load_run(cg.pretrained(name)).config
        (row,) = [line for line in card.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert f"{config.snr:g}" in row and f"{config.box} x {config.box} x {config.box}" in card
        assert f"{cg.DATASETS[config.dataset].field_of_view_A / config.box:.4g}" in card
        if config.preset == "adapted":
            assert f"width {config.width}" in row and f"{config.steps:,} steps of {config.batch}" in row


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of S1_adapted"):
        cg.pretrained("S3_adapted")
    assert isinstance(cg.pretrained(NAMES[0]), Path)
