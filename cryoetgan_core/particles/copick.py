"""A copick project on local disk: tomograms as OME-Zarr and picks as JSON, read (and picks written) without copick
itself.

Layout: ``ROOT/ExperimentRuns/RUN/VoxelSpacing10.000/TYPE.zarr`` and
``ROOT/ExperimentRuns/RUN/Picks/USER_SESSION_OBJECT.json``; the configuration (JSON) names the roots and the objects.
Positions are in angstrom from the tomogram's first voxel; a pick's 4 x 4 matrix takes the reference to the tomogram.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import zarr

from ..reproducibility.files import write_atomically
from ..volumes.poses import pose_to_relion_angles, rotations_of
from ..volumes.table import ANGLE_COLUMNS, POSITION_COLUMNS, particle_centres, particle_table

RUNS = "ExperimentRuns"
CHUNK = 128  # voxels along each axis
HALVES = ("even", "odd")  # tomograms of half of the dose


def is_project(path: Path) -> bool:
    """Whether a path is a copick configuration or the root of its data."""
    if path.is_dir():
        return (path / RUNS).is_dir()
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        return "pickable_objects" in _json(path)
    except ValueError:
        return False


def project_roots(path: Path) -> list[Path]:
    """The folders that hold ExperimentRuns: of a configuration its static and overlay root, else the path itself.

    Raises ValueError when the configuration is no JSON object, or names no root on local disk.
    """
    if path.is_dir():
        return [path]
    config = _json(path)
    roots = []
    for key in ("static_root", "overlay_root"):
        url = config.get(key)
        if isinstance(url, str):
            scheme, _, rest = url.rpartition("://")
            if scheme not in ("", "local", "file"):
                raise ValueError(
                    f"{path}: {key} is {url!r}; expected a folder on this machine. Copy the project here first"
                )
            root = Path(rest)
            roots.append(root if root.is_absolute() else path.parent / root)
    roots = [r for r in roots if (r / RUNS).is_dir()]
    if not roots:
        raise ValueError(
            f"{path}: neither static_root nor overlay_root holds a folder {RUNS}; expected a copick project on local "
            "disk"
        )
    return roots


def tomogram_of(roots: list[Path], run: str, voxel_size_A: float | None, kind: str | None) -> tuple[Path, float]:
    """The zarr store of a run's tomogram, and its voxel size; the only one there beside HALVES, or the one asked for.

    Raises ValueError when none fits, or several do.
    """
    found = {}
    for root in roots:
        for spacing in sorted((root / RUNS / run).glob("VoxelSpacing*")):
            try:
                voxel = float(spacing.name.removeprefix("VoxelSpacing"))
            except ValueError:
                continue
            for store in sorted(spacing.glob("*.zarr")):
                features = "_features" in store.stem
                if (
                    not features
                    and (voxel_size_A is None or math.isclose(voxel, voxel_size_A, rel_tol=1e-3))
                    and kind in (None, store.stem)
                ):
                    found[store] = voxel
    if kind is None:
        found = {s: voxel for s, voxel in found.items() if s.stem not in HALVES} or found
    if len(found) != 1:
        names = [f"{s.stem} at {v:g} A" for s, v in found.items()]
        raise ValueError(
            f"{roots[0]}: run {run!r} has {', '.join(names) or 'no such tomogram'}; expected one. Choose by "
            'voxel_size_A and tomogram_kind, in the shell --options \'{"tomogram_kind": "..."}\''
        )
    return next(iter(found.items()))


def read_picks(
    path: Path, *, user: str | None = None, session: str | None = None, classes: Sequence[str] | None = None
) -> dict[str, pd.DataFrame]:
    """Picks by run of a project; the class is the picked object.

    Parameters
    ----------
    user, session, classes
        whose picks of which objects; by default everybody's of all.

    Raises ValueError when a file is not as copick writes it, there is no pick, or several people or sessions picked
    the same object in a run, whose particles would be there twice.
    """
    classes = [classes] if isinstance(classes, str) else classes
    runs: dict[str, dict[str, pd.DataFrame]] = {}
    for root in project_roots(path):
        for file in sorted((root / RUNS).glob("*/Picks/*.json")):
            table = _picks(file)
            if (
                len(table)
                and (user or table.attrs["user"]) == table.attrs["user"]
                and (session or table.attrs["session"]) == table.attrs["session"]
                and (classes is None or table["class_name"][0] in classes)
            ):
                found = runs.setdefault(file.parent.parent.name, {})
                other = found.setdefault(table["class_name"][0], table)
                if other is not table:
                    pickers = " and ".join(f"{t.attrs['user']} (session {t.attrs['session']})" for t in (other, table))
                    raise ValueError(
                        f"{file}: {table['class_name'][0]} was picked by {pickers}; expected one. Choose by user and "
                        "session, or by classes"
                    )
    if not runs:
        wanted = f" of {', '.join(classes)}" if classes else ""
        by = f" by {user}" if user else ""
        raise ValueError(
            f"{path}: no picks{wanted}{by}; expected {RUNS}/RUN/Picks/USER_SESSION_OBJECT.json with points"
        )
    return {run: pd.concat(tables.values(), ignore_index=True) for run, tables in runs.items()}


def object_name(class_name: str) -> str:
    """A class as copick lets an object be called: it parts file names at underscores, and takes no spaces."""
    return class_name.replace("_", "-").replace(" ", "-")


def check_object_names(class_names: Sequence[str]) -> None:
    """Raise ValueError for two classes that copick would call alike (`object_name`)."""
    called: dict[str, str] = {}
    for name in class_names:
        other = called.setdefault(object_name(name), name)
        if other != name:
            raise ValueError(
                f"copick would call the classes {other!r} and {name!r} both {object_name(name)!r}: rename one."
            )


def write_volume(
    root: Path,
    run: str,
    name: str,
    volume: np.ndarray,
    voxel_size_A: float,
    segmentation_of: Mapping[str, str] | None = None,
) -> Path:
    """Write a volume (Z, Y, X) where a project has it, as OME-Zarr 0.4 of one level, uncompressed, and at once; returns
    the store.

    Parameters
    ----------
    name
        of the tomogram's kind, or of the segmentation.
    segmentation_of
        "user" and "session" of a segmentation; None: a tomogram. Whole numbers are a multilabel segmentation, whose
        values are the objects' labels.
    """
    if segmentation_of is None:
        store = root / RUNS / run / f"VoxelSpacing{voxel_size_A:.3f}" / f"{name}.zarr"
    else:
        kind = "-multilabel" if np.issubdtype(volume.dtype, np.integer) else ""
        picker = f"{segmentation_of['user']}_{segmentation_of['session']}"
        store = root / RUNS / run / "Segmentations" / f"{voxel_size_A:.3f}_{picker}_{name}{kind}.zarr"
    unfinished = store.with_name(f".{store.name}.unfinished")  # of a killed process: written over
    group = zarr.open_group(unfinished, mode="w", zarr_format=2)
    chunks = tuple(min(CHUNK, s) for s in volume.shape)
    group.create_array(
        "0", data=np.ascontiguousarray(volume), chunks=chunks, compressors=None, config={"write_empty_chunks": True},
        # that of OME-Zarr 0.4: with another, readers find no chunk, and see zeros
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )  # fmt: skip
    scale = {"type": "scale", "scale": [voxel_size_A] * 3}
    axes = [{"name": a, "type": "space", "unit": "angstrom"} for a in "zyx"]
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "name": name,
            "axes": axes,
            "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
        }
    ]
    shutil.rmtree(store, ignore_errors=True)
    unfinished.rename(store)
    return store


def write_config(root: Path, class_names: list[str], segmented: Sequence[str] = ()) -> Path:
    """Write copick.json, the configuration with which copick opens the project where it lies now; returns it.

    Classes are its particles, labelled from 1; `segmented` are objects that only segmentations have.
    """
    names = [*class_names, *segmented]
    check_object_names(names)
    objects = [{"name": object_name(n), "is_particle": n not in segmented, "label": k + 1} for k, n in enumerate(names)]
    config = {
        "config_type": "filesystem", "name": "CryoETGAN",
        "description": "generated by CryoETGAN, with labels", "version": "1.0.0",
        "pickable_objects": objects, "overlay_root": f"local://{root.resolve()}",
        "overlay_fs_args": {"auto_mkdir": True},
    }  # fmt: skip
    write_atomically(root / "copick.json", lambda p: p.write_text(json.dumps(config, indent=1)))
    return root / "copick.json"


def write_picks(root: Path, table: pd.DataFrame, *, user: str, session: str, oriented: bool = True) -> list[Path]:
    """Write the particles of a table as picks, where they lie (a shift in their box is added where it is known): a file
    for each tomogram and class; returns the files. The ``instance_id`` of a pick is its row in its tomogram, from 1.
    `oriented` says whether their angles mean anything.
    """
    files, rows = [], table.groupby("tomogram").cumcount() + 1
    for (run, name), part in table.groupby(["tomogram", "class_name"], sort=True):
        matrices = np.tile(np.eye(4), (len(part), 1, 1))
        if part[list(ANGLE_COLUMNS)].notna().all(axis=None):
            matrices[:, :3, :3] = rotations_of(part).numpy()
        points = [
            {
                "location": dict(zip("xyz", map(float, p), strict=True)),
                "transformation_": m.tolist(),
                "instance_id": int(row),
                "score": 1.0,
            }
            for p, m, row in zip(particle_centres(part), matrices, rows[part.index], strict=True)
        ]
        record = {
            "pickable_object_name": object_name(name), "user_id": user, "session_id": session, "run_name": run,
            "voxel_spacing": None,
            "unit": "angstrom", "points": points, "trust_orientation": oriented,
        }  # fmt: skip
        file = root / RUNS / str(run) / "Picks" / f"{user}_{session}_{object_name(name)}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda p, r=record: p.write_text(json.dumps(r, indent=1)))
        files.append(file)
    return files


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds a {type(found).__name__}, expected a JSON object")
    return found


def _picks(file: Path) -> pd.DataFrame:
    record = _json(file)
    points = record.get("points")
    try:
        unit = record.get("unit", "angstrom")
        if unit != "angstrom":
            raise ValueError(f"positions in {unit}; expected angstrom")
        position = np.array([[p["location"][a] for a in "xyz"] for p in points or []], float).reshape(-1, 3)
        matrices = np.array([p.get("transformation_", np.eye(4)) for p in points or []], float).reshape(-1, 4, 4)
        position = position + matrices[:, :3, 3]
        if not (np.isfinite(position).all() and np.isfinite(matrices).all()):
            raise ValueError("a position or matrix is not finite")
        name, user, session = record["pickable_object_name"], str(record["user_id"]), str(record["session_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not picks as copick writes them ({error})") from error
    angles = [a.numpy() for a in pose_to_relion_angles(torch.from_numpy(matrices[:, :3, :3]))]
    if record.get("trust_orientation") is False:
        angles = [np.full(len(position), np.nan)] * 3
    run = file.parent.parent.name
    table = particle_table(
        len(position), class_name=name, tomogram=run, source=str(file),
        particle=[f"{file.stem}_{i}" for i in range(len(position))],
        **dict(zip(POSITION_COLUMNS, position.T, strict=True)), **dict(zip(ANGLE_COLUMNS, angles, strict=True)),
    )  # fmt: skip
    table.attrs = {"user": user, "session": session}
    return table
