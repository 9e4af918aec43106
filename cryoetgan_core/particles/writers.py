"""Labelled particles as the next tool wants them: volumes as MRC, HDF5, zarr or mosaics of a copick project; tables as STAR (RELION 3.1 and 5), Dynamo table and CSV, written bit by bit."""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import h5py
import mrcfile
import numpy as np
import pandas as pd
import zarr

from ..files import temporary, write_atomically
from . import copick
from .coordinates import relion_to_dynamo
from .simulated import MAX_SHIFT
from .table import ANGLE_COLUMNS, SHIFT_COLUMNS, particle_centres

FORMATS = ("mrcs", "mrc", "hdf5", "zarr", "copick")
PICKER = {"user": "cryoetgan", "session": "1"}  # whose picks those of a copick project are
_DYNAMO_WIDTH = 35  # columns of a table


class Parts(Protocol):
    """What `write_volumes` must know of an order."""

    n: int
    part: int
    volumes: str


def write_volumes(
    folder: Path, part: int, order: Parts, names: Iterable[str], volumes: np.ndarray, voxel_size_A: float, channel: str = ""
) -> list[str]:
    """Write the volumes (N, D, D, D) of a part, each file at once; returns where each is, relative to `folder`, as the STAR file names it.

    "mrcs": a stack of volumes a part, ``3@volumes/000000.mrcs`` the third; "mrc": a file each; "hdf5": a file a part, "zarr": one store, of which a part is a chunk;
    "copick": a tomogram a part, in which the particles lie side by side (`place_in_mosaic` says where).
    """
    if order.volumes == "copick":
        mosaic = _mosaic(volumes, order.part, 0.0 if channel else float(volumes.mean()))
        store = copick.write_tomogram(folder, f"generated-{part:06d}", channel or "generated", mosaic, voxel_size_A)
        return [store.relative_to(folder).as_posix()] * len(volumes)
    tail = f"_{channel}" if channel else ""
    (folder / "volumes").mkdir(exist_ok=True)
    if order.volumes == "mrc":
        (folder / "volumes" / f"{part:06d}").mkdir(exist_ok=True)
        files = [f"volumes/{part:06d}/{name}{tail}.mrc" for name in names]
        for file, volume in zip(files, volumes, strict=True):
            write_atomically(folder / file, lambda p, v=volume: _write_mrc(p, v, voxel_size_A))
        return files
    if order.volumes == "mrcs":
        file = f"volumes/{part:06d}{tail}.mrcs"
        write_atomically(folder / file, lambda p: _write_mrc(p, volumes, voxel_size_A))
    elif order.volumes == "hdf5":
        file = f"volumes/{part:06d}{tail}.h5"
        write_atomically(folder / file, lambda p: _write_hdf5(p, volumes, voxel_size_A))
    else:
        file = f"volumes/particles{tail}.zarr"
        _zarr_store(folder / file, order, volumes.shape[1:], voxel_size_A)[part * order.part : part * order.part + len(volumes)] = volumes
        return [f"{part * order.part + i + 1}@{file}" for i in range(len(volumes))]
    return [f"{i + 1}@{file}" for i in range(len(volumes))]


def place_in_mosaic(table: pd.DataFrame, part: int, order: Parts, box: int, voxel_size_A: float) -> None:
    """Set tomogram and position of the boxes of a part to where `write_volumes` puts them in a copick project's mosaic."""
    corners = _cells(len(table), order.part) * _cell_width(box) + _margin(box)
    table["tomogram"] = f"generated-{part:06d}"
    for axis, corner in zip("zyx", corners.T, strict=True):
        table[f"{axis}_A"] = (corner + box // 2) * voxel_size_A


def _cells(n: int, part: int) -> np.ndarray:
    """Cells (n, 3), zyx, of the particles of a part in its mosaic, as wide as a whole part asks."""
    width = math.ceil(part ** (1 / 3))
    height = math.ceil(math.sqrt(part / width))
    k = np.arange(n)
    return np.stack([k // (width * height), k // width % height, k % width], 1)


def _margin(box: int) -> int:
    """Voxels round each box in a mosaic: as far as a particle may be shifted, so that a box of its own size round it is there."""
    return math.ceil(MAX_SHIFT * box) + 1


def _cell_width(box: int) -> int:
    return box + 2 * _margin(box)


def _mosaic(volumes: np.ndarray, part: int, fill: float) -> np.ndarray:
    """Volumes (N, D, D, D) side by side, `fill` between and after them."""
    box = volumes.shape[-1]
    cells, width, margin = _cells(len(volumes), part), _cell_width(box), _margin(box)
    out = np.full((cells.max(0) + 1) * width, fill, np.float32)
    for (z, y, x), volume in zip(cells * width + margin, volumes, strict=True):
        out[z : z + box, y : y + box, x : x + box] = volume
    return out


def _write_mrc(path: Path, data: np.ndarray, voxel_size_A: float) -> None:
    with mrcfile.new(path, overwrite=True) as handle:
        handle.set_data(np.ascontiguousarray(data, np.float32))
        handle.voxel_size = voxel_size_A
        handle.header.nlabl = 0  # mrcfile's label carries the time of writing
        handle.header.label = b""


def _write_hdf5(path: Path, volumes: np.ndarray, voxel_size_A: float) -> None:
    with h5py.File(path, "w", track_order=False) as handle:
        dataset = handle.create_dataset("volumes", data=volumes, chunks=(1, *volumes.shape[1:]))
        dataset.attrs["voxel_size_A"] = voxel_size_A


def _zarr_store(path: Path, order: Parts, shape: tuple[int, ...], voxel_size_A: float) -> zarr.Array:
    """The store of all particles. Machines that begin together each make one; the first puts its own in place."""
    if not path.exists():
        wanted = dict(shape=(order.n, *shape), chunks=(order.part, *shape), dtype="float32", config={"write_empty_chunks": True})
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


def write_tables(folder: Path, parts: list[Path], box: int, voxel_size_A: float) -> None:
    """Join the tables of all parts, one at a time, into particles.csv, particles.star, particles_relion5.star and particles.tbl.

    Particles that lie in mosaics are named by their coordinates there, in particles.star and particles.tbl, and copick.json is written beside these.
    """
    classes: dict[str, int] = {}
    for path in parts:
        for name in pd.read_csv(path, usecols=["class_name"], dtype=str)["class_name"]:
            classes.setdefault(name, 0)
    classes = {name: k + 1 for k, name in enumerate(sorted(classes))}
    placed = _in_tomograms(_read_part(parts[0]))
    for target, header, lines in (
        ("particles.csv", lambda t: ",".join(t.columns) + "\n", lambda t: t.to_csv(index=False, header=False, float_format="%.9f")),
        ("particles.star", lambda t: _star_header(box, voxel_size_A, 3, placed), lambda t: _star_lines(t, classes, voxel_size_A)),
        ("particles_relion5.star", lambda t: _star_header(box, voxel_size_A, 5, placed), lambda t: _star_lines(t, classes, voxel_size_A)),
        ("particles.tbl", lambda t: "", lambda t: _dynamo_lines(t, classes, voxel_size_A)),
    ):
        if placed and target == "particles_relion5.star":  # its coordinates are measured from the centre of each tomogram
            continue

        def write(path: Path, header: object = header, lines: object = lines) -> None:
            with path.open("w") as handle:
                for k, part in enumerate(parts):
                    table = _read_part(part)
                    if k == 0:
                        handle.write(header(table))
                    handle.write(lines(table))

        write_atomically(folder / target, write)
    if placed:
        copick.write_config(folder, list(classes))


def _read_part(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"particle": str, "class_name": str, "tomogram": str}, keep_default_na=False, na_values=[""])


_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")


def _in_tomograms(table: pd.DataFrame) -> bool:
    """Whether the particles lie in tomograms, rather than in files of their own."""
    return bool(table["x_A"].notna().all())


def _star_columns(version: int, placed: bool) -> list[str]:
    names = ["rlnTomoName" if version == 5 else "rlnMicrographName", "rlnTomoParticleName", "rlnClassNumber", "cryoetganClassName"]
    if placed:
        return [*_COORDINATES, *names, "rlnOpticsGroup", *_ANGLES]
    return ["rlnImageName", *names, "rlnOpticsGroup", *_ANGLES, *_ORIGINS]


def _star_header(box: int, voxel_size_A: float, version: int, placed: bool) -> str:
    optics = {
        "rlnOpticsGroup": 1, "rlnOpticsGroupName": "generated", "rlnImagePixelSize": f"{voxel_size_A:.6f}", "rlnImageSize": box, "rlnImageDimensionality": 3,
    }  # fmt: skip
    general = "data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n\n\n" if version == 5 else ""
    loop = "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(optics))
    rows = "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(_star_columns(version, placed)))
    return f"{general}data_optics\n\nloop_\n{loop}{' '.join(map(str, optics.values()))}\n\n\ndata_particles\n\nloop_\n{rows}"


def _star_lines(table: pd.DataFrame, classes: dict[str, int], voxel_size_A: float) -> str:
    placed = _in_tomograms(table)
    first = dict(zip(_COORDINATES, particle_centres(table).T / voxel_size_A, strict=True)) if placed else {"file": table["file"]}
    out = pd.DataFrame(first | {"tomogram": table["tomogram"], "name": table["particle"]})
    out["number"], out["class"], out["group"] = table["class_name"].map(classes), table["class_name"], 1
    numbers = {name: table[column] for name, column in zip(_ANGLES, ANGLE_COLUMNS, strict=True)}
    if not placed:  # an origin moves the particle's centre by minus its value
        numbers |= {name: -table[column] for name, column in zip(_ORIGINS, SHIFT_COLUMNS, strict=True)}
    out = out.assign(**{name: values.map("{:.6f}".format) for name, values in numbers.items()})
    return out.to_csv(index=False, header=False, sep=" ", float_format="%.6f")


def _dynamo_lines(table: pd.DataFrame, classes: dict[str, int], voxel_size_A: float) -> str:
    rows = np.zeros((len(table), _DYNAMO_WIDTH))
    rows[:, 0] = table["particle"].astype(int) + 1  # tag
    rows[:, 1] = 1  # aligned
    if _in_tomograms(table):
        rows[:, 19] = table["tomogram"].str.rpartition("-")[2].astype(int) + 1
        rows[:, 23:26] = particle_centres(table) / voxel_size_A + 1  # Dynamo counts voxels from 1
    else:
        rows[:, 3:6] = table[list(SHIFT_COLUMNS)].to_numpy(float) / voxel_size_A
    rows[:, 6:9] = relion_to_dynamo(table[list(ANGLE_COLUMNS)].to_numpy(float))
    rows[:, 21] = table["class_name"].map(classes)
    return "".join(" ".join(f"{v:.6f}".rstrip("0").rstrip(".") for v in row) + "\n" for row in rows)
