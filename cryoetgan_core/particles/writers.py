"""Labelled particles as the next tool wants them, written bit by bit.

Volumes: MRC, HDF5, zarr, or side by side in the tomograms of a copick project or of DeepFinder. Tables: STAR (RELION
3.1 and 5), Dynamo table, CSV.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import pandas as pd
import zarr

from ..reproducibility.files import room_for, temporary, write_atomically
from ..simulator.sets import MAX_SHIFT
from ..volumes.poses import rotations_of
from ..volumes.table import ANGLE_COLUMNS, POSITION_COLUMNS, SHIFT_COLUMNS, particle_centres
from . import copick
from .coordinates import relion_to_dynamo
from .copick import RUNS
from .relion_writer import (
    CENTRED,
    optics_of,
    particle_columns,
    star_head,
    star_rows,
    volume_name,
    write_mrc,
    write_wedge,
)

FORMATS = ("mrc", "hdf5", "zarr", "copick", "deepfinder")
IN_TOMOGRAMS = ("copick", "deepfinder")  # kinds whose particles lie side by side in one tomogram a part
PICKER = {"user": "cryoetgan", "session": "1"}  # whose picks and segmentations those of a copick project are
_DYNAMO_WIDTH = 35  # columns of a table
_GENERAL = "data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n\n\n"  # of RELION 5


class Parts(Protocol):
    """What the writers must know of an order."""

    n: int
    part: int
    volumes: str
    shares: Mapping[str, float]
    channels: tuple[str, ...]


def class_numbers(order: Parts) -> dict[str, int]:
    """Number of each class in every table and label map of an order: from 1, in the order of their names."""
    return {name: k + 1 for k, name in enumerate(sorted(order.shares))}


def tomogram_name(part: int) -> str:
    """Name of the tomogram that holds a part; its number, from 1, is that of the Dynamo table and cryoCAT's."""
    return f"generated-{part + 1:06d}"


def write_volumes(
    folder: Path,
    part: int,
    order: Parts,
    table: pd.DataFrame,
    volumes: np.ndarray,
    voxel_size_A: float,
    channel: str = "",
) -> list[str]:
    """Write the volumes (N, D, D, D) of a part, each file at once; returns where each is, relative to `folder`.

    "mrc": a file each; "hdf5": a stack a part, ``3@volumes/000000.h5`` the third; "zarr": one store, of which a part is
    a chunk; "copick" and "deepfinder": a tomogram a part, in which the particles lie side by side (`place_in_mosaic`
    says where); beside it the channels: "mask" as a label map (0, or the class's number), "density".
    """
    if order.volumes in IN_TOMOGRAMS:
        labels = channel == "mask"
        if labels:
            volumes = volumes * table["class_name"].map(class_numbers(order)).to_numpy(np.float32)[:, None, None, None]
        margin = _margin(table, volumes.shape[-1], voxel_size_A)
        mosaic = _mosaic(volumes, order.part, margin, 0.0 if channel else float(volumes.mean()))
        if order.volumes == "copick":
            mosaic = mosaic.astype(np.uint8) if labels else mosaic
            run = tomogram_name(part)
            try:
                with room_for(folder / RUNS / run):
                    file = copick.write_volume(
                        folder, run, channel or "generated", mosaic, voxel_size_A, PICKER if channel else None
                    )
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{folder}: files of {run} vanished while they were written: another process writes the same part. "
                    "Give each its own shard; what is missing is made when the same is started again."
                ) from None
        else:
            (folder / "tomograms").mkdir(exist_ok=True)
            file = folder / "tomograms" / f"{tomogram_name(part)}{f'_{channel}' if channel else ''}.h5"
            mosaic = mosaic.astype(np.int8) if labels else mosaic
            write_atomically(file, lambda p: _write_hdf5(p, "dataset", mosaic, voxel_size_A))
        return [file.relative_to(folder).as_posix()] * len(volumes)
    tail = f"_{channel}" if channel else ""
    (folder / "volumes").mkdir(exist_ok=True)
    if order.volumes == "mrc":
        (folder / "volumes" / f"{part:06d}").mkdir(exist_ok=True)
        numbers = class_numbers(order)
        names = [volume_name(c, numbers[c], p) for c, p in zip(table["class_name"], table["particle"], strict=True)]
        files = [f"volumes/{part:06d}/{name}{tail}.mrc" for name in names]
        for file, volume in zip(files, volumes, strict=True):
            write_atomically(folder / file, lambda p, v=volume: write_mrc(p, v, voxel_size_A))
        return files
    if order.volumes == "hdf5":
        file = f"volumes/{part:06d}{tail}.h5"
        write_atomically(folder / file, lambda p: _write_hdf5(p, "volumes", volumes, voxel_size_A))
        return [f"{i + 1}@{file}" for i in range(len(volumes))]
    file = f"volumes/particles{tail}.zarr"
    store = _zarr_store(folder / file, order, volumes.shape[1:], voxel_size_A)
    with room_for(folder / file):
        store[part * order.part : part * order.part + len(volumes)] = volumes
    return [f"{part * order.part + i + 1}@{file}" for i in range(len(volumes))]


def place_in_mosaic(table: pd.DataFrame, part: int, order: Parts, box: int, voxel_size_A: float) -> None:
    """Set tomogram and position of the boxes of a part to where `write_volumes` puts them."""
    margin = _margin(table, box, voxel_size_A)
    corners = _cells(len(table), order.part) * (box + 2 * margin) + margin
    table["tomogram"] = tomogram_name(part)
    for axis, corner in zip("zyx", corners.T, strict=True):
        table[f"{axis}_A"] = (corner + box // 2) * voxel_size_A


def _cells(n: int, part: int) -> np.ndarray:
    """Cells (n, 3), zyx, of the particles of a part in its mosaic, as wide as a whole part asks."""
    width = math.ceil(part ** (1 / 3))
    height = math.ceil(math.sqrt(part / width))
    k = np.arange(n)
    return np.stack([k // (width * height), k // width % height, k % width], 1)


def _margin(table: pd.DataFrame, box: int, voxel_size_A: float) -> int:
    """Voxels round each box in a mosaic: as far as a particle is shifted, so that a box of its own size round it is
    there.
    """
    farthest = float(table[list(SHIFT_COLUMNS)].abs().max(axis=None)) / voxel_size_A
    return math.ceil(max(MAX_SHIFT * box, farthest)) + 1


def _mosaic(volumes: np.ndarray, part: int, margin: int, fill: float) -> np.ndarray:
    """Volumes (N, D, D, D) side by side, `fill` between and after them."""
    box = volumes.shape[-1]
    cells, width = _cells(len(volumes), part), box + 2 * margin
    out = np.full((cells.max(0) + 1) * width, fill, np.float32)
    for (z, y, x), volume in zip(cells * width + margin, volumes, strict=True):
        out[z : z + box, y : y + box, x : x + box] = volume
    return out


def _write_hdf5(path: Path, name: str, data: np.ndarray, voxel_size_A: float) -> None:
    # made in memory and written in one go: HDF5 ends the program where a disk is full
    with h5py.File("part.h5", "w", driver="core", backing_store=False, track_order=False) as handle:
        dataset = handle.create_dataset(name, data=data, chunks=(1, *data.shape[1:]))
        dataset.attrs["voxel_size_A"] = voxel_size_A
        handle.flush()
        image = handle.id.get_file_image()
    path.write_bytes(image)


def _zarr_store(path: Path, order: Parts, shape: tuple[int, ...], voxel_size_A: float) -> zarr.Array:
    """The store of all particles. Machines that begin together each make one; the first puts its own in place."""
    if not path.exists():
        wanted = dict(
            shape=(order.n, *shape), chunks=(order.part, *shape), dtype="float32", config={"write_empty_chunks": True}
        )
        made = temporary(path)
        try:
            zarr.create_array(made, **wanted, attributes={"voxel_size_A": voxel_size_A}, overwrite=False)
            made.rename(path)
        except OSError:
            if not path.exists():  # else another one was first
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return zarr.open_array(path, mode="r+", config={"write_empty_chunks": True})


def write_tables(folder: Path, parts: list[Path], order: Parts, box: int, voxel_size_A: float) -> None:
    """Join the tables of all parts, one at a time: particles.csv, particles.tbl (Dynamo), and by kind of volumes

    "mrc": particles.star (RELION 3.1) and particles_relion5.star, with the weight of each particle's missing wedge
    where the table tells its tilt range (the paper's generator leaves no wedge that a weight could tell); "copick":
    copick.json, and particles.star with the positions; "deepfinder": its object list,
    particles.xml.
    """
    numbers = class_numbers(order)
    weights: dict[tuple[float, float], str] = {}

    def weight_of(low: float, high: float) -> str:
        """The file of a wedge's weight, written when it is first asked for."""
        if (low, high) not in weights:
            weights[low, high] = f"volumes/{write_wedge(folder / 'volumes', (low, high), box, voxel_size_A).name}"
        return weights[low, high]

    def csv(table: pd.DataFrame, first: bool) -> str:
        return _csv_columns(table, order, box, voxel_size_A).to_csv(index=False, header=first, float_format="%.9f")

    def dynamo(table: pd.DataFrame, first: bool) -> str:
        return _dynamo_lines(table, numbers, voxel_size_A)

    def deepfinder(table: pd.DataFrame, first: bool) -> str:
        return ("<objlist>\n" if first else "") + _deepfinder_lines(table, numbers, voxel_size_A)

    def star(table: pd.DataFrame, first: bool, version: int = 3) -> str:
        columns = _star_columns(table, numbers, voxel_size_A, version, weight_of)
        optics = optics_of(table, box, voxel_size_A, version)
        return (star_head(optics, list(columns), _GENERAL if version == 5 else "") if first else "") + star_rows(
            columns
        )

    texts = {"particles.csv": csv, "particles.tbl": dynamo} | {
        "mrc": {"particles.star": star, "particles_relion5.star": partial(star, version=5)},
        "copick": {"particles.star": star},
        "deepfinder": {"particles.xml": deepfinder},
    }.get(order.volumes, {})
    for target, text in texts.items():

        def write(path: Path, text: Callable[[pd.DataFrame, bool], str] = text) -> None:
            first = 0
            with path.open("w") as handle:
                for k, part in enumerate(parts):
                    table = _read_part(part)
                    table.index += first
                    first += len(table)
                    handle.write(text(table, k == 0))
                handle.write("</objlist>\n" if text is deepfinder else "")

        write_atomically(folder / target, write)
    if order.volumes == "copick":
        copick.write_config(folder, list(numbers), [c for c in order.channels if c == "density"])


def _read_part(path: Path) -> pd.DataFrame:
    texts = dict.fromkeys(("particle", "class_name", "tomogram"), str)
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])


def _csv_columns(table: pd.DataFrame, order: Parts, box: int, voxel_size_A: float) -> pd.DataFrame:
    """The table with voxel and box, and in a copick project the columns of copick's own CSV."""
    table = table.assign(voxel_size_A=voxel_size_A, box=box)
    if order.volumes != "copick":
        return table
    matrices = np.tile(np.eye(4), (len(table), 1, 1))
    matrices[:, :3, :3] = rotations_of(table).numpy()
    entries = {f"transform_{i}{j}": matrices[:, i, j] for i in range(4) for j in range(4)}
    places = dict(zip("xyz", particle_centres(table).T, strict=True))
    return table.assign(run_name=table["tomogram"], **places, **entries)


def _star_columns(
    table: pd.DataFrame,
    numbers: Mapping[str, int],
    voxel_size_A: float,
    version: int,
    weight_of: Callable[[float, float], str],
) -> pd.DataFrame:
    if table["x_A"].notna().all():  # the centre of the particle, which needs no origin then
        centres = dict(zip(POSITION_COLUMNS, particle_centres(table).T, strict=True))
        return particle_columns(table.assign(**centres, **dict.fromkeys(SHIFT_COLUMNS, np.nan)), numbers, voxel_size_A)
    columns = particle_columns(table, numbers, voxel_size_A)
    columns.insert(0, "rlnImageName", table["file"])
    if "tilt_min_deg" in table:
        ranges = zip(table["tilt_min_deg"], table["tilt_max_deg"], strict=True)
        columns.insert(1, "rlnCtfImage", [weight_of(*ends) for ends in ranges])
    # RELION 5 asks for a position: particles that lie in no tomogram are at the centre of theirs
    return columns.assign(**dict.fromkeys(CENTRED, 0.0)) if version == 5 else columns


def _dynamo_lines(table: pd.DataFrame, numbers: dict[str, int], voxel_size_A: float) -> str:
    """Rows of a Dynamo table. Dynamo counts voxels from 1; copick and cryoCAT take its positions as they are.

    Where the tilt range is known, columns 13 to 15 tell the missing wedge: ftype 1 (single tilt about y), least and
    greatest tilt, as `physics.fourier_grid.coordinates` counts them.
    """
    rows = np.zeros((len(table), _DYNAMO_WIDTH))
    rows[:, 0] = table["particle"].astype(int) + 1  # tag
    rows[:, 1] = 1  # aligned
    rows[:, 19] = table["tomogram"].str.rpartition("-")[2].astype(int)
    if table["x_A"].notna().all():
        rows[:, 23:26] = particle_centres(table) / voxel_size_A + 1
    else:
        rows[:, 3:6] = table[list(SHIFT_COLUMNS)].to_numpy(float) / voxel_size_A
    rows[:, 6:9] = relion_to_dynamo(table[list(ANGLE_COLUMNS)].to_numpy(float))
    rows[:, 21] = table["class_name"].map(numbers)
    if "tilt_min_deg" in table:
        rows[:, 12] = 1
        rows[:, 13:15] = table[["tilt_min_deg", "tilt_max_deg"]]
    return "".join(" ".join(f"{v:.6f}".rstrip("0").rstrip(".") for v in row) + "\n" for row in rows)


def _deepfinder_lines(table: pd.DataFrame, numbers: dict[str, int], voxel_size_A: float) -> str:
    """Objects of DeepFinder's list: tomograms from 0, positions in voxels from 0."""
    tomograms = table["tomogram"].str.rpartition("-")[2].astype(int) - 1
    centres = particle_centres(table) / voxel_size_A
    labels = table["class_name"].map(numbers)
    return "".join(
        f'  <object tomo_idx="{t}" class_label="{label}" x="{x:.3f}" y="{y:.3f}" z="{z:.3f}"/>\n'
        for t, label, (x, y, z) in zip(tomograms, labels, centres, strict=True)
    )
