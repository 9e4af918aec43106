"""Particles cut from tomograms where they were picked: by a table of positions, or in a copick project."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ..reproducibility.seeds import stream
from ..volumes.lazy import empty_volumes
from ..volumes.table import LEFT_OUT, ParticleSet, particle_table
from . import copick
from .picking import find_empty
from .tomogram import cut_cubes, read_tomogram
from .volume_files import HDF5_SUFFIXES, VOLUME_SUFFIXES, ZARR_SUFFIXES, suffix_of

MOST_OUTSIDE = 0.5  # of the positions: then their unit is wrong, or the tomogram
KINDS = (*VOLUME_SUFFIXES, *HDF5_SUFFIXES, *ZARR_SUFFIXES)  # files that can hold a tomogram
MOST_EMPTY, LEAST_EMPTY = 256, 20  # cubes of background that are kept; and that are needed to draw from


def cut_at(volume: np.ndarray, voxel_size_A: float, table: pd.DataFrame, box: int, **options) -> ParticleSet:
    """Cubes of a tomogram (Z, Y, X) around the positions of a table, whose classes, names and poses they keep; options
    are those of `cut_cubes`.

    A cube's centre is a voxel of the tomogram where its voxels are kept: the rest of a position is the particle's shift
    in its box.

    Raises ValueError as `tomogram.cut_cubes`, and when more than MOST_OUTSIDE of the positions lie outside the
    tomogram.
    """
    points = table[["z_A", "y_A", "x_A"]].to_numpy(float) / voxel_size_A
    source = table["source"].iloc[0] if len(table) else ""
    outside = ((points < -0.5) | (points > np.array(volume.shape) - 0.5)).any(1)
    if outside.mean() > MOST_OUTSIDE:
        raise ValueError(
            f"{source}: {outside.sum()} of {len(points)} positions lie outside the tomogram of {volume.shape} voxels "
            f"of {voxel_size_A:g} A, first at {points[outside][0].round(1).tolist()} (zyx voxels). Were they picked on "
            "another binning (coordinate_voxel_size_A=), or in another tomogram?"
        )
    centres = np.round(points) if options.get("target_voxel_size_A") in (None, voxel_size_A) else points
    options = {"edge": "skip"} | options
    particles = cut_cubes(volume, voxel_size_A, box, coordinates=centres, particle_rows=True, **options)
    rows = particles.table.pop("row").to_numpy()
    kept = table.iloc[rows].reset_index(drop=True)
    shift = (points - centres)[rows] * voxel_size_A
    found = particles.table
    for column in ("class_name", "rot_deg", "tilt_deg", "psi_deg"):
        found[column] = kept[column]
    named = kept["particle"] != ""
    found.loc[named, "particle"] = kept["particle"][named]
    found[["shift_z_A", "shift_y_A", "shift_x_A"]] = shift
    return ParticleSet(particles.volumes, found, particles.voxel_size_A)


def cut_empty(
    volume: np.ndarray,
    voxel_size_A: float,
    picks: np.ndarray,
    box: int,
    target_voxel_size_A: float,
    most: int,
    generator: torch.Generator,
) -> np.ndarray:
    """Background of a tomogram (Z, Y, X): cubes (M, box, box, box), at most `most`, that hold none of `picks` (N, 3),
    zyx voxels.

    See `picking.find_empty`.
    """
    side = math.ceil(box * target_voxel_size_A / voxel_size_A)
    points = find_empty(volume, picks, side, most, border=side // 2 + 1, generator=generator)
    if not len(points):
        return np.empty((0, box, box, box), np.float32)
    return np.asarray(
        cut_cubes(volume, voxel_size_A, box, target_voxel_size_A, coordinates=points, edge="skip").volumes
    )


def enough_empty(cut: Callable[[int], np.ndarray], box: int) -> np.ndarray | None:
    """What `cut` gives for cubes of `box` voxels or, where fewer than LEAST_EMPTY are so large, for cubes of two thirds
    of that; None where these are too few, too.

    In a crowded tomogram no box is free of molecules. Two thirds of it still hold a molecule, if the box is 1.5 times
    as large as one.
    """
    for side in (box, 2 * round(box / 3)):
        cubes = cut(side)
        if len(cubes) >= LEAST_EMPTY:
            return cubes
    return None


def background(particles: ParticleSet, options: Mapping[str, object], sources: Sequence[str]) -> ParticleSet | None:
    """Background cut from the tomograms that `particles` were cut from, MOST_EMPTY cubes at most, or None where that
    cannot be done. The cubes are as large as the particles' boxes, or two thirds of that (`enough_empty`).

    It needs tomograms on disk, beam along z, not mirrored, in which the particles were picked (by coordinates, labels
    or in a copick project): where they were found by their structure alone, the others are not known.

    Parameters
    ----------
    options
        Of the reader that cut the particles: voxel size and sign of the protein are used.
    sources
        Which of the tomograms, as the particles' table names them.

    Raises ValueError as `tomogram.read_tomogram`.
    """
    table = particles.table
    placed = np.isfinite(table[["z_A", "y_A", "x_A"]].to_numpy()).all()
    turned = options.get("beam_axis", "z") != "z" or options.get("mirror_z")
    if "n" in options or turned or not placed or not _are_tomograms(sources):
        return None
    known = {k: options[k] for k in ("voxel_size_A", "protein") if k in options}
    share, counts = -(-MOST_EMPTY // len(sources)), []

    def cut(side: int) -> np.ndarray:
        found = []
        for number, source in enumerate(sources):
            volume, voxel_size_A = read_tomogram(source, **known)
            lost = [place for of, *place in table.attrs.get(LEFT_OUT, []) if of == source]
            kept = table.loc[table["source"] == source, ["z_A", "y_A", "x_A"]].to_numpy()
            picks = np.concatenate([kept, np.reshape(lost, (-1, 3))]) / voxel_size_A
            rng = stream(0, "background", number)
            found.append(cut_empty(volume, voxel_size_A, picks, side, particles.voxel_size_A, share, rng))
        counts[:] = map(len, found)
        return np.concatenate(found)

    volumes = enough_empty(cut, particles.volumes.shape[-1])
    if volumes is None:
        return None
    named = particle_table(len(volumes), source=np.repeat(sources, counts))
    return ParticleSet(volumes, named, particles.voxel_size_A)


def _are_tomograms(sources: Sequence[str]) -> bool:
    """Whether all of the files (or zarr stores) that particles name are there and hold one volume each."""
    return all(source and Path(source).exists() and suffix_of(Path(source)) in KINDS for source in sources)


def read_copick(
    path: str | Path,
    *,
    box: int,
    voxel_size_A: float | None = None,
    target_voxel_size_A: float | None = None,
    tomogram_kind: str | None = None,
    user: str | None = None,
    session: str | None = None,
    classes: Sequence[str] | None = None,
    protein: Literal["bright", "dark"] = "dark",
    edge: Literal["refuse", "skip"] = "skip",
) -> ParticleSet:
    """The picks of a copick project on local disk, cut from its tomograms.

    Parameters
    ----------
    path
        the configuration (JSON), or the folder that holds ExperimentRuns.
    voxel_size_A, tomogram_kind
        which tomogram of a run, where it has several: its voxel spacing and the name of its store (``wbp``,
        ``denoised``).
    user, session, classes
        whose picks of which objects; by default all.

    Raises ValueError when the project, a tomogram or the picks are not there or not as copick writes them.
    """
    path = Path(path)
    roots, picks = copick.project_roots(path), copick.read_picks(path, user=user, session=session, classes=classes)
    stores = {run: copick.tomogram_of(roots, run, voxel_size_A, tomogram_kind) for run in picks}
    if target_voxel_size_A is None and len({voxel for _, voxel in stores.values()}) > 1:
        raise ValueError(f"{path}: tomograms of several voxel sizes; give voxel_size_A or target_voxel_size_A")
    volumes, tables = empty_volumes((sum(map(len, picks.values())), box, box, box)), []
    for run, table in picks.items():  # one tomogram at a time in memory
        store, voxel = stores[run]
        volume, _ = read_tomogram(store, voxel, protein=protein)
        cut = cut_at(
            volume,
            voxel,
            table,
            box,
            target_voxel_size_A=target_voxel_size_A,
            edge=edge,
            tomogram=run,
            source=str(store),
        )
        first = sum(map(len, tables))
        volumes[first : first + len(cut)] = cut.volumes
        tables.append(cut.table)
    table = pd.concat(tables, ignore_index=True)
    table.attrs = {LEFT_OUT: [one for t in tables for one in t.attrs[LEFT_OUT]]}
    return ParticleSet(volumes[: len(table)], table, cut.voxel_size_A)
