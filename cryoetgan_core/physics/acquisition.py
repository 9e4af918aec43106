"""What is known of how subtomograms were recorded, from the table that came with them."""

import dataclasses
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from ..simulator.microscope.simulate import Microscope
from ..volumes.table import ParticleSet

TRANSFERS = ("table", "uncorrected", "corrected", "ctf")  # what is known of the particles' CTF: `PhysicsGenerator`


@dataclass(frozen=True)
class Acquisition:
    """What is known of how the training subtomograms were recorded; all but the voxel size may be unknown."""

    voxel_size_A: float
    # lowest and highest tilt of all particles; None: of each (below), or estimated from the subtomograms
    tilt_range_deg: tuple[float, float] | None = None
    microscope: Microscope | None = None  # optics and doses, for a generator with the CTF formula
    defocus_um: torch.Tensor | None = None  # (N,) of the particles at zero tilt
    off_axis_A: torch.Tensor | None = None  # (N,) distance from the tilt axis, 0 where unknown
    tilt_ranges_deg: torch.Tensor | None = None  # (N, 2) lowest and highest tilt of each particle, where they differ

    @property
    def record(self) -> dict:
        """All but the particles' own values, as JSON types."""
        return {
            "voxel_size_A": self.voxel_size_A,
            "tilt_range_deg": self.tilt_range_deg and list(self.tilt_range_deg),
            "microscope": self.microscope and asdict(self.microscope),
        }

    @classmethod
    def from_record(cls, record: dict) -> "Acquisition":
        """What `record` told."""
        tilts, microscope = record["tilt_range_deg"], record["microscope"]
        return cls(record["voxel_size_A"], tilts and tuple(tilts), microscope and Microscope(**microscope))


def acquisition(particles: ParticleSet, *, tilt_range: str = "known", transfer: str = "table") -> Acquisition:
    """Voxel size, and what the table tells where it is asked for.

    Parameters
    ----------
    tilt_range
        "known": by the columns tilt_min_deg and tilt_max_deg where they are there, else left to the generator, as with
        "estimated".
    transfer
        "ctf": optics, dose and each particle's defocus from the columns named as the fields of `Microscope`, defocus_um
        and dose_e_A2; else they are left out.

    Raises ValueError when a column that is needed is missing or has gaps.
    """
    table = particles.table

    def shared(name: str) -> object:
        """The value of a column, the mean where numbers differ."""
        if name not in table or table[name].isna().any():
            raise ValueError(
                f"The particles' table has no column {name!r} with a value for each, which transfer 'ctf' needs; "
                "transfer 'table' does not."
            )
        first = table[name].iloc[0]
        mean = pd.api.types.is_numeric_dtype(table[name]) and table[name].nunique() > 1
        return float(table[name].mean()) if mean else first.item() if isinstance(first, np.generic) else first

    tilts, ranges = None, None
    ends = ["tilt_min_deg", "tilt_max_deg"]
    if tilt_range == "known" and set(ends) <= set(table.columns) and not table[ends].isna().to_numpy().any():
        ranges = torch.tensor(table[ends].to_numpy(float)).float()
        if len(ranges.unique(dim=0)) == 1:
            tilts, ranges = tuple(ranges[0].tolist()), None
    if transfer != "ctf":
        return Acquisition(particles.voxel_size_A, tilts, tilt_ranges_deg=ranges)
    fields = {f.name for f in dataclasses.fields(Microscope)} & set(table.columns) - {"defocus_um"}
    scope = Microscope(**{name: shared(name) for name in fields}, total_dose_e_A2=float(shared("dose_e_A2")))
    x = table["x_A"].to_numpy(float)
    off_axis = x - (x.min() + x.max()) / 2 if np.isfinite(x).all() else np.zeros(len(table))
    scope = dataclasses.replace(scope, defocus_um=float(shared("defocus_um")))
    return Acquisition(
        particles.voxel_size_A,
        tilts,
        scope,
        torch.tensor(table["defocus_um"].to_numpy(float)).float(),
        torch.tensor(off_axis).float(),
        ranges,
    )
