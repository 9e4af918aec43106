"""The two unpaired domains of a training, each in a train and a test half, on disk as safetensors and CSV."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..reproducibility.files import load_tensors, save_tensors
from ..reproducibility.provenance import array_hash
from .table import ParticleSet

HALVES = ("X_train", "X_test", "Y_train", "Y_test")


@dataclass(frozen=True)
class Domains:
    """X: density maps; Y: subtomograms. The test halves are never used by training or model choice.

    `background` are boxes of the tomograms of Y_train that hold no particle, where there are any: as large as those
    that do, or smaller.
    """

    X_train: ParticleSet
    X_test: ParticleSet
    Y_train: ParticleSet
    Y_test: ParticleSet
    background: ParticleSet | None = None

    def __repr__(self) -> str:
        return "\n".join(f"{half} {getattr(self, half)!r}" for half in HALVES)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order: the order in which they first appear in X."""
        return tuple(dict.fromkeys(self.X_train.table["class_name"]))

    @property
    def hash(self) -> str:
        """Name of these data: twelve hexadecimal digits of all volumes and class names."""
        halves = [getattr(self, half) for half in HALVES]
        return array_hash(
            *(np.asarray(h.volumes) for h in halves), *(h.table["class_name"].to_numpy(str) for h in halves)
        )

    def labels(self, half: str) -> torch.Tensor:
        """Class index (N,) of every volume of a half, e.g. "Y_test"."""
        index = {name: i for i, name in enumerate(self.classes)}
        names = getattr(self, half).table["class_name"]
        unknown = sorted(set(names) - set(index))
        if unknown:
            raise ValueError(f"{half} holds classes {unknown} for which X has no density; X has {', '.join(index)}.")
        return torch.tensor([index[name] for name in names])

    def volumes(self, half: str, most: int | None = None) -> torch.Tensor:
        """Volumes (N, D, H, W) of a half, or `most` of them, evenly chosen."""
        volumes = getattr(self, half).volumes
        if most is not None and most < len(volumes):
            volumes = volumes[np.linspace(0, len(volumes) - 1, most).round().astype(int)]
        return torch.from_numpy(np.asarray(volumes))


def save_domains(domains: Domains, folder: Path) -> None:
    """Write each half as NAME.safetensors and NAME.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for half in HALVES:
        particles = getattr(domains, half)
        particles.table.to_csv(folder / f"{half}.csv", index=False)
        save_tensors(
            {
                "volumes": torch.from_numpy(np.asarray(particles.volumes)),
                "voxel_size_A": torch.tensor(particles.voxel_size_A, dtype=torch.float64),
            },
            folder / f"{half}.safetensors",
        )


def load_domains(folder: Path) -> Domains:
    """Read what `save_domains` wrote.

    Raises
    ------
    FileNotFoundError
        When a half is missing; the message says how to make it.
    """
    halves: dict[str, ParticleSet] = {}
    for half in HALVES:
        path = folder / f"{half}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run notebooks/simulate_data.ipynb (or `make figures`) first.")
        tensors, _ = load_tensors(path, "run notebooks/simulate_data.ipynb again")
        table = pd.read_csv(folder / f"{half}.csv", dtype={"particle": str, "class_name": str}, keep_default_na=True)
        text = ["class_name", "particle", "tomogram", "source"]
        table[text] = table[text].astype(object).fillna("").astype(str)  # a column may be empty
        halves[half] = ParticleSet(tensors["volumes"].numpy(), table, float(tensors["voxel_size_A"]))
    return Domains(**halves)
