"""Whole tomograms: reading them into one frame (zyx, beam z, protein bright) and cutting particles out."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..volumes.lazy import empty_volumes
from ..volumes.maps import resample
from ..volumes.table import (
    LEFT_OUT,
    ParticleSet,
    check_array,
    check_beam_axis,
    check_voxel_size,
    particle_table,
    protein_sign,
)
from .picking import find_candidates, label_centres
from .volume_files import NO_VOXEL_SIZE, read_volume, suffix_of

MOST_LABELS = 1000
MERGED = 1.7  # of the median size of its label: a component that is larger may be two particles that touch
IMOD_BACKGROUND = -128  # label 0 where IMOD stored labels as signed bytes
LOG = logging.getLogger(__name__)
MARGIN = 4  # voxels beyond a cube that take part in its resampling, so that its faces do not ring


def read_tomogram(
    path: str | Path,
    voxel_size_A: float | None = None,
    beam_axis: Literal["x", "y", "z"] = "z",
    protein: Literal["bright", "dark"] = "dark",
) -> tuple[np.ndarray, float]:
    """A tomogram (Z, Y, X) float32 with the beam along z and protein bright, and its voxel size in angstrom.

    Parameters
    ----------
    path
        MRC (.mrc, .map, .ccp4, .rec; also .gz, .bz2), EM, TIFF, HDF5 (one 3-D dataset), .npy, or zarr (also OME-Zarr:
        its finest level); integers or floats.
    voxel_size_A
        overrides what an MRC header or OME-Zarr metadata say; needed for the others, whose headers are not reliable.
    beam_axis
        the axis of the file along which the electrons went. It is turned into z by a rotation, so that the
        hand is kept: y by a quarter turn about x (new y = old -z), x by one about y (new x = old -z).
    protein
        how the file shows it. Tomograms are "dark" unless somebody inverted them.

    Raises ValueError when the file is missing, cut off, of another kind, not 3-D or not finite, or lacks a voxel size.
    """
    path = Path(path)
    sign = protein_sign(protein, path)
    check_beam_axis(beam_axis, path)
    if voxel_size_A is not None:
        check_voxel_size(voxel_size_A, path)
    if voxel_size_A is None and suffix_of(path) in NO_VOXEL_SIZE:
        raise ValueError(f"{path}: no reliable voxel size in this kind of file; give voxel_size_A")
    volume, voxel_size_A = read_volume(path, voxel_size_A)
    if voxel_size_A is None:
        raise ValueError(f"{path}: its metadata tell no voxel size; give voxel_size_A")
    if not np.isfinite(volume).all():
        raise ValueError(f"{path}: {(~np.isfinite(volume)).sum()} voxels are NaN or infinite; replace them first")
    if beam_axis != "z":
        volume = np.rot90(volume, axes=(0, 1 if beam_axis == "y" else 2))
    return np.ascontiguousarray(sign * volume, dtype=np.float32), float(voxel_size_A)


def cut_cubes(
    volume: np.ndarray,
    voxel_size_A: float,
    box: int,
    target_voxel_size_A: float | None = None,
    *,
    coordinates: np.ndarray | None = None,
    n: int | None = None,
    generator: torch.Generator | None = None,
    min_distance_A: float | None = None,
    edge: Literal["refuse", "skip"] = "refuse",
    class_names: list[str] | None = None,
    tomogram: str = "",
    source: str = "",
    particle_rows: bool = False,
) -> ParticleSet:
    """Cut cubes of `box` voxels of `target_voxel_size_A` (default: unchanged) around points of a tomogram.

    Parameters
    ----------
    volume
        (Z, Y, X), protein bright.
    coordinates
        (N, 3) zyx in (fractional) voxels of `volume`; each comes to the voxel ``box // 2``. Without them `n`
        candidates are taken by `find_candidates`, which come no nearer to each other than `min_distance_A`
        (default: half the box).
    generator
        with `n`: draws among the 4 n strongest candidates instead of taking the strongest.
    edge
        a cube that leaves the tomogram is an error ("refuse") or left out ("skip").
    class_names
        one a coordinate.
    particle_rows
        add a column ``row``: which of the coordinates a cube was cut around.

    Raises ValueError when an argument has the wrong form, a cube leaves the tomogram, or none or too few can be cut.
    """
    name = source or "cut_cubes"
    check_array(name, volume.shape, volume.dtype, (3,))
    check_voxel_size(voxel_size_A, name)
    target = voxel_size_A if target_voxel_size_A is None else target_voxel_size_A
    check_voxel_size(target, name)
    if box < 1 or edge not in ("refuse", "skip") or (coordinates is None) == (n is None):
        raise ValueError(
            f"{name}: box {box}, edge {edge!r}, n {n}, coordinates "
            f"{'not ' if coordinates is None else ''}given; expected a positive box, "
            'edge "refuse" or "skip", and either coordinates or n'
        )
    scale = target / voxel_size_A
    before, after = box // 2 * scale, (box - 1 - box // 2) * scale  # voxels of the tomogram
    if coordinates is None:
        spacing = 0.5 * box * target if min_distance_A is None else min_distance_A
        border = math.ceil(max(before, after))
        coordinates = find_candidates(volume, voxel_size_A, n, spacing, border=border, generator=generator)
    points = np.asarray(coordinates, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0 or not np.isfinite(points).all():
        raise ValueError(f"{name}: coordinates of shape {points.shape}, expected (N, 3) finite zyx voxels, N > 0")
    if class_names is not None and len(class_names) != len(points):
        raise ValueError(f"{name}: {len(class_names)} class names for {len(points)} coordinates")
    fits = ((points - before > -0.5) & (points + after < np.array(volume.shape) - 0.5)).all(axis=1)
    if not fits.any() or (edge == "refuse" and not fits.all()):
        first = points[~fits][0].round(1).tolist()
        raise ValueError(
            f"{name}: {(~fits).sum()} of {len(points)} cubes of {box * scale:.1f} voxels leave the "
            f'tomogram of {volume.shape}, first at {first}; use a smaller box or edge="skip"'
        )
    labels = np.array([""] * len(points) if class_names is None else class_names, dtype=object)
    if not fits.all():
        out = labels[~fits]
        kinds = ", ".join(f"{(out == kind).sum()} {kind or 'unnamed'}" for kind in sorted(set(out)))
        of = f" ({kinds})" if class_names is not None else ""
        LOG.warning("%s: %d of %d cubes leave the tomogram and are left out%s", name, len(out), len(points), of)
    lost = [(source, *place) for place in (points[~fits] * voxel_size_A).tolist()]
    labels, points = labels[fits], points[fits]
    cubes = empty_volumes((len(points), box, box, box))
    for i, point in enumerate(points):
        cubes[i] = _cube(volume, point, voxel_size_A, target, box, before, after)
    position = dict(zip(("z_A", "y_A", "x_A"), (points * voxel_size_A).T, strict=True))
    names = [f"{tomogram or 'particle'}_{i + 1:05d}" for i in range(len(points))]
    table = particle_table(len(points), class_name=labels, particle=names, tomogram=tomogram, source=source, **position)
    table.attrs[LEFT_OUT] = lost
    if particle_rows:
        table["row"] = np.flatnonzero(fits)
    return ParticleSet(cubes, table, float(target))


def _cube(volume, point, voxel_size_A, target, box, before, after) -> np.ndarray:
    start = np.floor(point - before).astype(int) - MARGIN
    stop = np.ceil(point + after).astype(int) + MARGIN + 1
    inner = tuple(slice(max(a, 0), min(b, s)) for a, b, s in zip(start, stop, volume.shape, strict=True))
    if target == voxel_size_A and np.array_equal(point, np.round(point)):  # voxels as they are
        corner = np.round(point).astype(int) - box // 2
        return np.array(volume[tuple(slice(c, c + box) for c in corner)], dtype=np.float32)
    outer = [(max(-a, 0), max(b - s, 0)) for a, b, s in zip(start, stop, volume.shape, strict=True)]
    patch = torch.from_numpy(np.pad(volume[inner], outer, mode="reflect" if min(volume.shape) > MARGIN else "edge"))
    mean = patch.float().mean()  # resampling takes what lies outside for zero
    cube = resample(
        patch.float() - mean, voxel_size_A, new_voxel_size_A=target, box=box, centre_zyx=torch.tensor(point - start)
    )
    return (cube + mean).numpy().astype(np.float32)


def read_labelled_tomogram(
    path: str | Path,
    labels_path: str | Path,
    box: int,
    voxel_size_A: float | None = None,
    *,
    target_voxel_size_A: float | None = None,
    beam_axis: Literal["x", "y", "z"] = "z",
    protein: Literal["bright", "dark"] = "dark",
    class_names: Mapping[int | str, str] | None = None,
    min_voxels: int = 20,
    edge: Literal["refuse", "skip"] = "skip",
) -> ParticleSet:
    """Particles of a tomogram with a label volume: each connected component is one, cut at its centre.

    Parameters
    ----------
    voxel_size_A
        overrides that of the tomogram's header; that of the label volume is not read.
    class_names
        name of each label, by number or, as JSON has it, by the number as text; labels without a name are left out.
        None: all labels, by their numbers.

    Raises ValueError as `read_tomogram` and `cut_cubes`, and when the two volumes differ in shape or no component has
    `min_voxels` voxels (fewer are crumbs of a label).
    """
    volume, voxel = read_tomogram(path, voxel_size_A, beam_axis, protein)
    labels, _ = read_tomogram(labels_path, voxel, beam_axis, "bright")
    if not np.array_equal(labels, np.round(labels)) or np.ptp(labels) > MOST_LABELS:
        raise ValueError(
            f"{labels_path}: values from {labels.min():g} to {labels.max():g} are no labels; expected whole numbers, 0 "
            f"for the background and at most {MOST_LABELS} classes"
        )
    if labels.shape != volume.shape:
        raise ValueError(f"{labels_path}: shape {labels.shape}, expected that of {path}, {volume.shape}")
    if labels.min() == IMOD_BACKGROUND:
        labels = labels - IMOD_BACKGROUND
    found = label_centres(labels, min_voxels)
    if found.empty:
        raise ValueError(f"{labels_path}: no connected label of {min_voxels} voxels or more; is it a label volume?")
    large = found["voxels"] > MERGED * found.groupby("label")["voxels"].transform("median")
    if large.any():
        LOG.warning(
            "%s: %d of %d components are over %g times as large as the median of their label. They may be particles "
            "that touch; each is cut as one particle. Separate them, or give the particles' positions (coordinates=).",
            labels_path,
            large.sum(),
            len(found),
            MERGED,
        )
    named = {str(label): name for label, name in (class_names or {}).items()}
    if named:
        found = found[found["label"].astype(str).isin(list(named))]
        if found.empty:
            raise ValueError(f"{labels_path}: none of the labels {', '.join(named)} is there; class_names names others")
    return cut_cubes(
        volume,
        voxel,
        box,
        target_voxel_size_A,
        coordinates=found[["z", "y", "x"]].to_numpy(),
        edge=edge,
        class_names=[named.get(str(c), str(c)) for c in found["label"]],
        tomogram=Path(path).stem,
        source=str(path),
    )
