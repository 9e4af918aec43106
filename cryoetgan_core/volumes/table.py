"""What every reader of particles returns: a checked set of volumes and the table that describes them.

Columns of the table, one row a particle (NaN or an empty string where a source does not say):

=============================== ==================================================================
``class_name``                  label, empty where unknown
``particle``                    name, unique within its source
``tomogram``                    tomogram or tilt series it comes from
``source``                      file it was read from
``rot_deg, tilt_deg, psi_deg``  RELION's angles of the pose, from the reference to the box (`volumes.poses`)
``x_A, y_A, z_A``               centre of the box in the tomogram, from the tomogram's first voxel
``shift_x_A, ..y_A, ..z_A``     where the particle's centre lies, seen from the centre of its box
``voxel_size_A``                edge of a voxel of its volume
``centred_x_A, ..y_A, ..z_A``   only where a RELION 5 file says it: the position from the tomogram's centre
``tilt_min_deg, tilt_max_deg``  only where files tell: the tilts, counted as `physics.fourier_grid.coordinates` does
``defocus_um``, ``dose_e_A2``   only where files tell, with ``voltage_kV``, ``cs_mm``, ``amplitude_contrast``
=============================== ==================================================================

``table.attrs["read_with"]`` holds the options of the reader, which `particles.folder.load_particles` keeps, and
``table.attrs["left_out"]`` source and place (z, y, x in angstrom) of picks in a tomogram whose boxes leave it.
"""

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .lazy import LazyVolumes, filled

LEFT_OUT = "left_out"
TEXT_COLUMNS = ("class_name", "particle", "tomogram", "source")
ANGLE_COLUMNS = ("rot_deg", "tilt_deg", "psi_deg")
POSITION_COLUMNS = ("x_A", "y_A", "z_A")
SHIFT_COLUMNS = ("shift_x_A", "shift_y_A", "shift_z_A")
CENTRED_COLUMNS = ("centred_x_A", "centred_y_A", "centred_z_A")
NUMBER_COLUMNS = ANGLE_COLUMNS + POSITION_COLUMNS + SHIFT_COLUMNS
MAX_VALUES = 1 << 31  # 8 GiB of float32; more does not fit beside a training in memory


@dataclass(frozen=True)
class ParticleSet:
    """Particles in cubic boxes, protein bright, on one scale of their source (not z-scored).

    Parameters
    ----------
    volumes
        (N, D, D, D) float32, zyx; an array, or volumes that stay on disk until they are indexed (and are checked for
        NaN then).
    table
        N rows with the columns of this module; the set keeps a copy with its own voxel size.
    voxel_size_A
        edge of a voxel in angstrom.

    Raises
    ------
    ValueError
        when shapes, values and table do not fit together.
    """

    volumes: np.ndarray | LazyVolumes
    table: pd.DataFrame
    voxel_size_A: float

    def __post_init__(self):
        shape = self.volumes.shape
        if len(shape) != 4 or len(set(shape[1:])) != 1 or 0 in shape:
            raise ValueError(f"ParticleSet: volumes of shape {shape}, expected (N, D, D, D) with cubic boxes")
        if self.volumes.dtype != np.float32:
            raise ValueError(f"ParticleSet: volumes of type {self.volumes.dtype}, expected float32")
        if len(self.table) != shape[0]:
            raise ValueError(f"ParticleSet: {shape[0]} volumes but {len(self.table)} rows in the table")
        missing = [c for c in TEXT_COLUMNS + NUMBER_COLUMNS if c not in self.table]
        if missing:
            raise ValueError(f"ParticleSet: the table lacks {missing}; build it with particle_table")
        check_voxel_size(self.voxel_size_A, "ParticleSet")
        object.__setattr__(self, "table", self.table.assign(voxel_size_A=self.voxel_size_A))
        if isinstance(self.volumes, LazyVolumes):
            return
        finite = np.array([np.isfinite(v).all() for v in self.volumes])
        if not finite.all():
            names = self.table["particle"][~finite].tolist()[:5]
            raise ValueError(
                f"ParticleSet: {(~finite).sum()} of {shape[0]} volumes hold NaN or infinite voxels, first {names}; "
                "leave them out"
            )

    def __len__(self) -> int:
        return len(self.volumes)

    def __repr__(self) -> str:
        side, counts = self.volumes.shape[-1], self.table["class_name"].value_counts()
        parts = [f"ParticleSet: {len(self)} volumes of {side}^3 voxels of {self.voxel_size_A:.4g} A"]
        parts.append(", ".join(f"{name or 'unnamed'} {count}" for name, count in counts.items()))
        tomograms = self.table["tomogram"].nunique()
        if self.table["tomogram"].any():
            parts.append(f"{tomograms} tomogram{'s' * (tomograms != 1)}")
        if "tilt_min_deg" in self.table and self.table["tilt_min_deg"].notna().any():
            low, high = self.table["tilt_min_deg"].min(), self.table["tilt_max_deg"].max()
            parts.append(f"tilts {low:.0f} to {high:.0f} degrees")
        return "; ".join(parts)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted: the order in which `torch_dataset` counts them."""
        return tuple(sorted(set(self.table["class_name"])))

    def torch_dataset(self) -> torch.utils.data.Dataset:
        """For a DataLoader: pairs of a volume (1, D, D, D), z-scored by itself, and its class, counted in the order of
        the sorted class names. Volumes on disk are read as they are asked for.
        """
        return _TorchDataset(self)

    def select(self, mask: np.ndarray) -> "ParticleSet":
        """The particles that `mask`, (N,) of bool or indices, chooses; what is on disk stays there."""
        rows = np.arange(len(self.table))[mask]
        volumes = (
            self.volumes.take(mask)
            if isinstance(self.volumes, LazyVolumes)
            else filled((self.volumes[i] for i in rows), len(rows))
        )
        return ParticleSet(volumes, self.table.iloc[rows].reset_index(drop=True), self.voxel_size_A)

    def map(
        self, change: Callable[[np.ndarray], np.ndarray], box: int | None = None, voxel_size_A: float | None = None
    ) -> "ParticleSet":
        """The particles with `change` applied to each volume (D, D, D), on disk or in memory; `box` and `voxel_size_A`
        are those of the result.
        """
        if isinstance(self.volumes, LazyVolumes):
            volumes = self.volumes.map(change, box)
        else:
            volumes = filled((change(v) for v in self.volumes), len(self))
        return ParticleSet(volumes, self.table, voxel_size_A or self.voxel_size_A)


class _TorchDataset(torch.utils.data.Dataset):
    def __init__(self, particles: ParticleSet):
        self.particles, self.classes = particles, particles.classes
        self.labels = [self.classes.index(name) for name in particles.table["class_name"]]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        volume = torch.from_numpy(np.array(self.particles.volumes[i], np.float32))
        return (volume - volume.mean())[None] / volume.std().clamp(min=1e-12), self.labels[i]


def read_csv(path: str | Path, **options) -> pd.DataFrame:
    """A CSV file as `pandas.read_csv` gives it with `options`; with tabs between columns, too, or with semicolons and
    decimal commas, as spreadsheets write it in much of Europe.

    Raises
    ------
    ValueError
        Not a file that can be read so; named.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
        own, titles = {}, text.partition("\n")[0]
        if ";" in titles:
            own = {"sep": ";", "decimal": "," if "," in text else "."}
        elif "\t" in titles and "," not in titles:
            own = {"sep": "\t"}
        return pd.read_csv(io.StringIO(text), skipinitialspace=True, **own, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from error


def particle_table(n: int, **columns) -> pd.DataFrame:
    """A table of n rows: the given columns (a value, or one a row), the others empty or NaN."""
    values = {c: "" for c in TEXT_COLUMNS} | {c: np.nan for c in NUMBER_COLUMNS} | columns
    return pd.DataFrame(values, index=range(n))


def particle_centres(table: pd.DataFrame) -> np.ndarray:
    """Positions (N, 3), xyz in angstrom, of particles in their tomograms: those of their boxes and, where they are
    known, their shifts there.
    """
    return table[list(POSITION_COLUMNS)].to_numpy(float) + np.nan_to_num(table[list(SHIFT_COLUMNS)].to_numpy(float))


def check_voxel_size(voxel_size_A: float, name: object) -> None:
    """Raise ValueError unless the voxel size is a positive number."""
    if not (np.isfinite(voxel_size_A) and voxel_size_A > 0):
        raise ValueError(f"{name}: voxel size {voxel_size_A}, expected a positive number of angstrom")


def check_array(
    name: object, shape: tuple[int, ...], dtype: np.dtype, dimensions: tuple[int, ...], *, on_disk: bool = False
) -> None:
    """Raise ValueError unless an array that is about to be read holds real numbers in a sensible shape; of a stack that
    stays `on_disk`, each volume.
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "iuf":
        raise ValueError(f"{name}: values of type {dtype}, expected real numbers")
    if len(shape) not in dimensions:
        wanted = " or ".join(f"{d}-D" for d in dimensions)
        raise ValueError(f"{name}: shape {tuple(shape)} is {len(shape)}-D, expected {wanted}")
    read = shape[1:] if on_disk and len(shape) == 4 else shape
    if 0 in shape or int(np.prod([int(s) for s in read], dtype=object)) > MAX_VALUES:
        raise ValueError(f"{name}: shape {tuple(shape)}, expected at least one and at most {MAX_VALUES} values")


def check_beam_axis(beam_axis: str, name: object) -> None:
    """Raise ValueError unless the beam axis is that of an array."""
    if beam_axis not in ("x", "y", "z"):
        raise ValueError(f'{name}: beam_axis is {beam_axis!r}, expected "x", "y" or "z"')


def protein_sign(protein: str, name: object) -> float:
    """Factor that makes the protein bright: 1 where it is ``"bright"`` already, -1 where it is ``"dark"``."""
    if protein not in ("bright", "dark"):
        raise ValueError(f'{name}: protein is {protein!r}, expected "bright" or "dark"')
    return 1.0 if protein == "bright" else -1.0


def check_class_names(names: Iterable[str]) -> None:
    """Raise ValueError unless files and tables can carry the names of classes that are to be generated."""
    word = r"[A-Za-z0-9_.+-]+"
    unsafe = [name for name in names if not re.fullmatch(rf"(?![_.+-]){word}( {word})*", name)]
    if unsafe:
        raise ValueError(
            f"Class names {unsafe}; expected letters, digits, '_', '.', '+', '-' and single spaces between them, "
            "beginning with a letter or digit, since files and tables carry them. Rename them, in picks and labels too."
        )
