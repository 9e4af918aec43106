"""A run of the CryoET Data Portal: its tomogram and point annotations downloaded once, as a copick project on this
machine.

The portal is reached through its own client, an optional extra (``pip install cryoet-data-portal``). Points come as
lines of JSON, in voxels of the tomogram's voxel spacing, with the matrix that takes the reference to the tomogram where
they are oriented.
"""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..simulator.specimen.databases import cache_folder
from ..volumes.poses import pose_to_relion_angles
from ..volumes.table import ANGLE_COLUMNS, POSITION_COLUMNS, particle_table
from . import copick

PREFIX = "portal:"
POINTS = ("OrientedPoint", "Point")


def is_portal_run(path: str | Path) -> bool:
    """Whether a path is written as a run of the portal, such as "portal:16463"."""
    return str(path).lower().startswith(PREFIX)


def fetch_run(identifier: str | Path, voxel_size_A: float | None = None) -> Path:
    """The copick project (in the cache, see `specimen.databases.cache_folder`) that holds a run's tomogram and points,
    downloaded when it is not there.

    Parameters
    ----------
    identifier
        "portal:" and the number of the run.
    voxel_size_A
        which tomogram, where the run has several: by default the one that the portal shows first.

    Raises ValueError when the identifier is none, the portal's client is not installed, or the run, such a tomogram or
    points are not there, ConnectionError when the portal cannot be reached, or a download breaks off; what came until
    then is not kept.
    """
    number = str(identifier)[len(PREFIX) :]
    if not number.isdigit():
        raise ValueError(f"{identifier}: expected {PREFIX} and the number of a run, such as {PREFIX}16463")
    root = cache_folder() / "portal" / (number if voxel_size_A is None else f"{number}_{voxel_size_A:g}A")
    if root.exists():
        return root
    try:
        import cryoet_data_portal as portal
    except ImportError as error:
        raise ValueError(
            f"{identifier}: the portal's client is not installed; `pip install cryoet-data-portal`, or download it"
        ) from error
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "downloads").mkdir(parents=True)
    try:
        run = portal.Run.get_by_id(portal.Client(), int(number))
        if run is None:
            raise ValueError(f"{identifier}: the portal has no such run")
        _download(run, partial, voxel_size_A, identifier)
    except ValueError:
        raise
    except Exception as error:  # of the client, of GraphQL, of S3: whatever the network leads to
        raise ConnectionError(f"{identifier}: cannot be downloaded ({type(error).__name__}: {error})"[:400]) from error
    finally:
        shutil.rmtree(partial / "downloads", ignore_errors=True)
    partial.rename(root)
    return root


def _download(run: Any, root: Path, voxel_size_A: float | None, identifier: str | Path) -> None:
    """Write a run of the client as a copick project."""
    tomogram, downloads = _tomogram_of(run, voxel_size_A, identifier), root / "downloads"
    place = (tomogram.tomogram_voxel_spacing_id, tomogram.alignment_id)
    files = {}
    for annotation in run.annotations:
        for shape in annotation.annotation_shapes:
            for file in shape.annotation_files if shape.shape_type in POINTS else ():
                if file.format == "ndjson" and (file.tomogram_voxel_spacing_id, file.alignment_id) == place:
                    files.setdefault(annotation.id, {})[shape.shape_type] = (annotation, file)
    if not files:
        raise ValueError(
            f"{identifier}: no points are annotated at {tomogram.voxel_spacing:g} A; expected some (shapes "
            f"{', '.join(POINTS)})"
        )
    for found in files.values():
        oriented = POINTS[0] in found  # the same points may be there with and without orientation
        annotation, file = found[POINTS[0] if oriented else POINTS[1]]
        folder = downloads / str(annotation.id)
        folder.mkdir(exist_ok=True)
        file.download(str(folder))
        points = read_points(folder / file.https_path.rsplit("/", 1)[-1], tomogram.voxel_spacing)
        points["class_name"] = re.sub(r"[^A-Za-z0-9.]+", "-", annotation.object_name).strip("-")
        points["tomogram"] = run.name
        copick.write_picks(root, points, user="portal", session=str(annotation.id), oriented=oriented)
    tomogram.download_omezarr(str(downloads))
    store = root / copick.RUNS / run.name / f"VoxelSpacing{tomogram.voxel_spacing:.3f}" / "portal.zarr"
    store.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(downloads / tomogram.s3_omezarr_dir.rstrip("/").rsplit("/", 1)[-1], store)


def _tomogram_of(run: Any, voxel_size_A: float | None, identifier: str | Path) -> Any:
    """The tomogram at a voxel size, or the one shown first."""
    found = [
        t for t in run.tomograms if voxel_size_A is None or math.isclose(t.voxel_spacing, voxel_size_A, rel_tol=1e-2)
    ]
    shown = [t for t in found if t.is_visualization_default]
    if not found or (len(found) > 1 and len(shown) != 1):
        spacings = ", ".join(sorted({f"{t.voxel_spacing:g} A" for t in run.tomograms})) or "no voxel size"
        raise ValueError(
            f"{identifier}: {len(found)} tomograms fit, with {spacings}; expected one. Give voxel_size_A of one of "
            "these"
        )
    return shown[0] if shown else found[0]


def read_points(path: Path, voxel_size_A: float) -> pd.DataFrame:
    """Points of an annotation file (lines of JSON, positions in voxels) as the table of `volumes.table`.

    Raises ValueError when a line is no point as the portal writes it.
    """
    positions, matrices = [], []
    for k, line in enumerate(filter(str.strip, path.read_text().splitlines())):
        try:
            point = json.loads(line)
            positions.append([float(point["location"][a]) for a in "xyz"])
            matrices.append(np.array(point.get("xyz_rotation_matrix", np.eye(3)), float).reshape(3, 3))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: line {k + 1} is no point as the portal writes it ({error!r})") from error
    if not positions:
        raise ValueError(f"{path}: holds no points, expected at least one")
    angles = pose_to_relion_angles(torch.from_numpy(np.array(matrices)))
    return particle_table(
        len(positions), source=str(path), particle=[f"{path.stem}_{k}" for k in range(len(positions))],
        **dict(zip(POSITION_COLUMNS, np.array(positions).T * voxel_size_A, strict=True)),
        **dict(zip(ANGLE_COLUMNS, (a.numpy() for a in angles), strict=True)),
    )  # fmt: skip
