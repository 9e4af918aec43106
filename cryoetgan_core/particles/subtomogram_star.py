"""3-D subtomograms and RELION's pseudo-subtomograms, read from their STAR file."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..volumes.maps import read_header, read_map_header
from ..volumes.poses import rotate_volume
from ..volumes.table import (
    ANGLE_COLUMNS,
    CENTRED_COLUMNS,
    POSITION_COLUMNS,
    SHIFT_COLUMNS,
    ParticleSet,
    particle_table,
    protein_sign,
)
from .pseudo_subtomogram import check_weights, divided
from .relion_series import tilt_ranges
from .relion_tables import (
    ANGLES,
    ORIGINS,
    box_poses,
    inside,
    numeric,
    particle_files,
    series_pixels,
    table_of,
    without_turned_boxes,
)
from .relion_writer import CENTRED, CLASS, COORDINATES, NAME, RECORDED, UNKNOWN
from .stored import stored_volumes
from .tilt_stack import check_wiener
from .volume_files import suffix_of

LOG = logging.getLogger(__name__)
SAME = 0.02  # relative difference of voxel sizes that are taken for the same
UPSAMPLE = 3  # before a box is turned back into the tomogram's frame: about 1 % relative error


def read_subtomogram_star(
    path: str | Path, *, protein: str = "bright", voxel_size_A: float | None = None, wiener: float = 0.1
) -> ParticleSet:
    """Read a STAR file of 3-D subtomograms (RELION 3.1, `relion_writer.write_star`) or of pseudo-subtomograms.

    Where the optics table says that data are CTF-premultiplied and rlnCtfImage names their weights, the volumes are the
    quotient (`pseudo_subtomogram`); the weights of other subtomograms are left alone.

    Boxes that were extracted turned (rlnTomoSubtomogramRot, Tilt and Psi are not 0) are turned back as they are read:
    volume, pose and shift are those in the tomogram's frame, the missing wedge along z. What lay outside the turned box
    is 0, so its corners are.

    A class is cryoetganClassName, or the number that RELION gave it. Positions from a tomogram's centre
    (rlnCenteredCoordinateXAngst of RELION 5) are the columns centred_x_A, centred_y_A, centred_z_A: the file does not
    tell the tomogram's size.

    The tilt range of each particle is read from tomograms.star, beside the file or named by its optimisation set, or,
    with the dose, from the columns of `relion_writer.RECORDED` in a file of this package.

    Parameters
    ----------
    path
        particles.star, with or without an optics table (RELION 3.0), or an optimisation set.
    protein
        how the files show it, "bright" or "dark"; the result is bright.
    voxel_size_A
        overrides rlnImagePixelSize.
    wiener
        added to the weights of pseudo-subtomograms, in units of one slice of CTF 1.

    Raises ValueError when a block, column or volume is missing, a name leads out of the folder, or boxes differ.
    """
    sign = protein_sign(protein, path)
    path, tomograms, blocks = particle_files(Path(path))
    table = table_of(blocks, "particles", path, ("rlnImageName",)).reset_index(drop=True)
    if "optics" not in blocks:
        blocks["optics"] = _optics_of_relion_3_0(table, path, voxel_size_A)
    optics = table_of(blocks, "optics", path, ("rlnImagePixelSize", "rlnImageSize"))
    numeric(optics, ("rlnImagePixelSize", "rlnImageSize"), path)
    if len(optics[["rlnImageSize", "rlnImagePixelSize"]].drop_duplicates()) != 1:
        raise ValueError(f"{path}: optics groups differ in box or voxel size; read them one by one")
    box, voxel = int(optics["rlnImageSize"].iloc[0]), voxel_size_A or float(optics["rlnImagePixelSize"].iloc[0])
    weights = _weights(table, optics, path, box)
    check_wiener(wiener)
    boxes = box_poses(table, path)
    turned = ((boxes - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2)) > 1e-6).numpy()
    table = without_turned_boxes(table, path)

    def in_tomogram(i: int, volume: np.ndarray) -> np.ndarray:
        if weights:
            volume = divided(volume, weights[i], wiener)
        if turned[i]:
            one, still = torch.from_numpy(volume), torch.zeros(1, 3)
            volume = rotate_volume(one, boxes[i : i + 1], still, voxel, upsample=UPSAMPLE)[0].numpy()
        return sign * volume

    images = table["rlnImageName"].astype(str)
    volumes, names = stored_volumes(path, images, box, voxel, in_tomogram)
    _compare_header(inside(path.parent, images.iloc[0].rpartition("@")[2], path), voxel, path)
    columns: dict[str, object] = {"particle": names}
    series = series_pixels(table, blocks, path)
    unit = voxel if series is None else series
    for ours, theirs, scale in (
        (ANGLE_COLUMNS, ANGLES, 1.0),
        (POSITION_COLUMNS, COORDINATES, unit),
        (SHIFT_COLUMNS, ORIGINS, -1.0),
        (CENTRED_COLUMNS, CENTRED, 1.0),
        *(((ours,), (theirs,), 1.0) for ours, theirs in RECORDED.items()),
    ):
        if set(theirs) <= set(table):
            numeric(table, theirs, path)
            columns |= {a: table[b].astype(float) * scale for a, b in zip(ours, theirs, strict=True)}
    for ours, choices in {
        "class_name": (CLASS, "rlnClassNumber"),
        "tomogram": ("rlnTomoName", "rlnMicrographName"),
        "particle": (NAME, "rlnTomoParticleName"),
    }.items():
        found = [c for c in choices if c in table]
        if found:
            columns[ours] = table[found[0]].astype(str).replace({"unknown": "", UNKNOWN: ""})
    if tomograms and "rlnTomoName" in table:
        columns |= tilt_ranges(tomograms, table["rlnTomoName"])
    return ParticleSet(volumes, particle_table(len(table), source=str(path), **columns), voxel)


def _compare_header(first: Path, voxel_size_A: float, path: Path) -> None:
    """Say where the first volume's header tells another voxel size than the one that is used; 0 and 1 tell nothing."""
    if suffix_of(first) not in (".mrc", ".mrcs"):
        return
    told = float(read_header(first).voxel_A[0])
    if told not in (0.0, 1.0) and abs(told / voxel_size_A - 1) > SAME:
        LOG.warning(
            "%s: voxels are taken to measure %g A; the header of %s says %g A. If that is right, give voxel_size_A.",
            path,
            voxel_size_A,
            first,
            told,
        )


def _optics_of_relion_3_0(table: pd.DataFrame, path: Path, voxel_size_A: float | None) -> pd.DataFrame:
    """The optics table that a file of RELION 3.0, or WarpTools' 3-D export, leaves out: voxel size as given, else from
    rlnDetectorPixelSize (micrometers) and rlnMagnification, else from the first volume's header, and that one's box.
    """
    first = inside(path.parent, str(table["rlnImageName"].iloc[0]).rpartition("@")[2], path)
    pair = ("rlnDetectorPixelSize", "rlnMagnification")
    shape, header = read_map_header(first, voxel_size_A or (1.0 if set(pair) <= set(table) else None))
    voxel, source = voxel_size_A or header, "as given" if voxel_size_A else f"the header of {first.name}"
    if not voxel_size_A and set(pair) <= set(table):
        numeric(table, pair, path)
        voxels = table[pair[0]].astype(float) * 1e4 / table[pair[1]].astype(float)
        if voxels.nunique() > 1:
            raise ValueError(f"{path}: voxel sizes from {voxels.min():g} to {voxels.max():g} A; read them one by one")
        voxel, source = float(voxels.iloc[0]), f"{pair[0]} and {pair[1]}"
    LOG.warning("%s: no optics table; voxels of %g A (%s), not CTF-premultiplied", path, voxel, source)
    return pd.DataFrame({"rlnImagePixelSize": [voxel], "rlnImageSize": [shape[-1]]})


def _weights(table: pd.DataFrame, optics: pd.DataFrame, path: Path, box: int) -> list[Path]:
    """The weights of each pseudo-subtomogram, checked; none where the volumes are not premultiplied by their CTF."""
    if "rlnCtfImage" not in table or "rlnCtfDataAreCtfPremultiplied" not in optics:
        return []
    numeric(optics, ("rlnCtfDataAreCtfPremultiplied",), path)
    multiplied = optics["rlnCtfDataAreCtfPremultiplied"].astype(float) == 1
    if multiplied.nunique() > 1:
        raise ValueError(f"{path}: some optics groups are CTF-premultiplied and others not; read them one by one")
    if not multiplied.iloc[0]:
        return []
    files = [inside(path.parent, name, path) for name in table["rlnCtfImage"].astype(str)]
    for file in set(files):
        check_weights(file, box)
    return files
