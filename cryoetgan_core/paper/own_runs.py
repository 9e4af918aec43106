"""Runs on a user's particles: what they were trained with, and the stand-in that a notebook makes where there are
none.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..config import OWN_DATA, make_config
from ..generation import TrainedRun
from ..physics.any_size import mean_power
from ..reproducibility.files import read_json, write_atomically
from ..streaming import OPTICS
from ..volumes.table import LEFT_OUT, ParticleSet
from . import own_data
from .runs import train_on
from .stand_ins import labelled_stand_in

NOISE = "noise_of_empty_boxes.npy"


def keep_source(
    folder: Path, densities: str, particles: ParticleSet, picks: Mapping[str, object] | None = None
) -> None:
    """Note beside a run on a user's particles what it was trained with: what `source_of` tells `generate.ipynb`, the
    optics that `streaming.generate_to` writes into STAR files, how far off centre it draws particles (`picks` of
    `streaming.places`), and how the tomograms were read, if there were any.
    """
    table = particles.table
    optics = {c: float(table[c].iloc[0]) for c in OPTICS if c in table and table[c].nunique(dropna=False) == 1}
    card = {"densities": own_data.absolute(densities), "voxel_size_A": particles.voxel_size_A, "optics": optics}
    card["picks"] = picks or {}
    if LEFT_OUT in table.attrs:  # cut out of tomograms
        card["tomograms"] = {k: v for k, v in table.attrs.get("read_with", {}).items() if k in ("protein", "beam_axis")}
    write_atomically(folder / "source.json", lambda p: p.write_text(json.dumps(card, indent=1)))


def keep_noise(folder: Path, run: TrainedRun, background: ParticleSet | None) -> None:
    """Note beside a run the power of empty boxes of its tomograms, where there are any, for `noise_of`."""
    path = folder / NOISE
    path.unlink(missing_ok=True)
    if background is not None:
        power = mean_power(run.scaling.y(torch.from_numpy(np.asarray(background.volumes)))).numpy()

        def write(target: Path) -> None:
            with target.open("wb") as file:
                np.save(file, power)

        write_atomically(path, write)


def noise_of(folder: Path) -> torch.Tensor | None:
    """The power of empty boxes that `keep_noise` noted, in network units; None where there were none."""
    path = folder / NOISE
    return torch.from_numpy(np.load(path, allow_pickle=False)) if path.exists() else None


def source_of(folder: Path) -> tuple[str, float]:
    """Densities and voxel size that `keep_source` noted.

    Raises FileNotFoundError when the folder is no run of your_data.ipynb.
    """
    source = noted(folder)
    return source["densities"], float(source["voxel_size_A"])


def noted(folder: Path) -> dict:
    """What `keep_source` noted beside a run on particles: "densities", "voxel_size_A", "optics" and, where there are
    any, "picks" and "tomograms".

    Raises FileNotFoundError when the folder is no run on particles.
    """
    path = folder / "source.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: give the folder of a run of `cryoetgan train` or your_data.ipynb, or densities and "
            "voxel_size_A."
        )
    return read_json(path, "train the run again, or give densities and voxel_size_A")


def stand_in_run(folder: Path, seed: int) -> Path:
    """Estimate a physics generator from simulated particles, in place of a user's run; returns its folder."""
    particles = labelled_stand_in(24, seed)
    config = make_config("smoke", OWN_DATA, "physics", seed=seed)
    densities = ", ".join(sorted(set(particles.table["class_name"])))
    train_on(config, own_data.domains(particles, densities, config), folder, replace=True)
    keep_source(folder, densities, particles)
    return folder
