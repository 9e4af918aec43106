"""Labelled particles as the next tool wants them: volumes as MRC, HDF5 or zarr, tables as STAR (RELION 3.1 and 5), Dynamo table and CSV, written bit by bit."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import h5py
import mrcfile
import numpy as np
import pandas as pd
import zarr

from ..run_folder import write_atomically
from .coordinates import relion_to_dynamo
from .table import ANGLE_COLUMNS, SHIFT_COLUMNS

FORMATS = ("mrcs", "mrc", "hdf5", "zarr")
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

    "mrcs": a stack of volumes a part, ``3@volumes/000000.mrcs`` the third; "mrc": a file each; "hdf5": a file a part, "zarr": one store, of which a part is a chunk.
    """
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
    """The store of all particles; machines that begin together write the same metadata."""
    if not path.exists():
        wanted = dict(shape=(order.n, *shape), chunks=(order.part, *shape), dtype="float32", config={"write_empty_chunks": True})
        zarr.create_array(path, **wanted, attributes={"voxel_size_A": voxel_size_A}, overwrite=False)
    return zarr.open_array(path, mode="r+", config={"write_empty_chunks": True})


def write_tables(folder: Path, parts: list[Path], box: int, voxel_size_A: float) -> None:
    """Join the tables of all parts, one at a time, into particles.csv, particles.star, particles_relion5.star and particles.tbl."""
    classes: dict[str, int] = {}
    for path in parts:
        for name in pd.read_csv(path, usecols=["class_name"], dtype=str)["class_name"]:
            classes.setdefault(name, 0)
    classes = {name: k + 1 for k, name in enumerate(sorted(classes))}
    for target, header, lines in (
        ("particles.csv", lambda t: ",".join(t.columns) + "\n", lambda t: t.to_csv(index=False, header=False, float_format="%.9f")),
        ("particles.star", lambda t: _star_header(t, box, voxel_size_A, 3), lambda t: _star_lines(t, classes, 3)),
        ("particles_relion5.star", lambda t: _star_header(t, box, voxel_size_A, 5), lambda t: _star_lines(t, classes, 5)),
        ("particles.tbl", lambda t: "", lambda t: _dynamo_lines(t, classes, voxel_size_A)),
    ):

        def write(path: Path, header: object = header, lines: object = lines) -> None:
            with path.open("w") as handle:
                for k, part in enumerate(parts):
                    table = pd.read_csv(
                        part, dtype={"particle": str, "class_name": str, "tomogram": str}, keep_default_na=False, na_values=[""]
                    )
                    if k == 0:
                        handle.write(header(table))
                    handle.write(lines(table))

        write_atomically(folder / target, write)


_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")


def _star_columns(version: int) -> list[str]:
    names = [
        "rlnImageName",
        "rlnTomoName" if version == 5 else "rlnMicrographName",
        "rlnTomoParticleName",
        "rlnClassNumber",
        "cryoetganClassName",
    ]
    return [*names, "rlnOpticsGroup", *_ANGLES, *_ORIGINS]


def _star_header(table: pd.DataFrame, box: int, voxel_size_A: float, version: int) -> str:
    optics = {
        "rlnOpticsGroup": 1, "rlnOpticsGroupName": "generated", "rlnImagePixelSize": f"{voxel_size_A:.6f}", "rlnImageSize": box, "rlnImageDimensionality": 3,
    }  # fmt: skip
    general = "data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n\n\n" if version == 5 else ""
    loop = "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(optics))
    rows = "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(_star_columns(version)))
    return f"{general}data_optics\n\nloop_\n{loop}{' '.join(map(str, optics.values()))}\n\n\ndata_particles\n\nloop_\n{rows}"


def _star_lines(table: pd.DataFrame, classes: dict[str, int], version: int) -> str:
    out = pd.DataFrame({"file": table["file"], "tomogram": table["tomogram"], "name": table["particle"]})
    out["number"], out["class"], out["group"] = table["class_name"].map(classes), table["class_name"], 1
    for name, column in zip(_ANGLES, ANGLE_COLUMNS, strict=True):
        out[name] = table[column].map("{:.6f}".format)
    for name, column in zip(_ORIGINS, SHIFT_COLUMNS, strict=True):  # moves the particle's centre by minus its value
        out[name] = (-table[column]).map("{:.6f}".format)
    return out.to_csv(index=False, header=False, sep=" ")


def _dynamo_lines(table: pd.DataFrame, classes: dict[str, int], voxel_size_A: float) -> str:
    rows = np.zeros((len(table), _DYNAMO_WIDTH))
    rows[:, 0] = table["particle"].astype(int) + 1  # tag
    rows[:, 1] = 1  # aligned
    rows[:, 3:6] = table[list(SHIFT_COLUMNS)].to_numpy(float) / voxel_size_A
    rows[:, 6:9] = relion_to_dynamo(table[list(ANGLE_COLUMNS)].to_numpy(float))
    rows[:, 21] = table["class_name"].map(classes)
    return "".join(" ".join(f"{v:.6f}".rstrip("0").rstrip(".") for v in row) + "\n" for row in rows)
