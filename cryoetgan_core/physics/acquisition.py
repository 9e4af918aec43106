"""What is known of how subtomograms were recorded."""

from dataclasses import asdict, dataclass

import torch

from ..simulator.microscope.simulate import Microscope


@dataclass(frozen=True)
class Acquisition:
    """What is known of how the training subtomograms were recorded; all but the voxel size may be unknown.

    Attributes
    ----------
    tilt_range_deg
        lowest and highest tilt of all particles; None: of each (below), or estimated from the subtomograms.
    tilt_ranges_deg
        (N, 2) lowest and highest tilt of each particle, where they differ.
    microscope
        optics and doses, for a generator with the CTF formula.
    defocus_um, off_axis_A
        (N,) of the particles: defocus at zero tilt, and distance from the tilt axis (0 where unknown).
    """

    voxel_size_A: float
    tilt_range_deg: tuple[float, float] | None = None
    microscope: Microscope | None = None
    defocus_um: torch.Tensor | None = None
    off_axis_A: torch.Tensor | None = None
    tilt_ranges_deg: torch.Tensor | None = None

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
