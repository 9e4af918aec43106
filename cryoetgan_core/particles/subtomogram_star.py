"""3-D subtomograms as a RELION 3.1 STAR file (optics and particles) beside one MRC file a particle."""

import re
from functools import lru_cache, partial
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import starfile

from ..specimen.maps import read_map, read_map_header
from .arrays import open_mrcs
from .backproject import check_wiener
from .lazy import LazyVolumes
from .pseudo_subtomogram import check_weights, divided
from .relion_files import inside, numeric, read_star, table_of
from .table import ANGLE_COLUMNS, POSITION_COLUMNS, SHIFT_COLUMNS, ParticleSet, particle_table, protein_sign
from .volume_files import HDF5_SUFFIXES, ZARR_SUFFIXES, ChunkedStack, open_hdf5, open_zarr, suffix_of

_RELION_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_BOX_ANGLES = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
_RELION_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
_RELION_ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
_NUMBERS = (
    (ANGLE_COLUMNS, _RELION_ANGLES),
    (POSITION_COLUMNS, _RELION_COORDINATES),
    (SHIFT_COLUMNS, _RELION_ORIGINS),
)
OPEN_STACKS = 8  # files at a time: a million particles lie in thousands, and what is mapped counts as memory
_CLASS = "cryoetganClassName"  # RELION knows numbers only and keeps columns that it does not know


def write_star(particles: ParticleSet, path: str | Path, volumes_mrc_dir: str | Path) -> None:
    """Write particles as MRC volumes and a STAR file that names them relative to itself.

    Coordinates are in voxels of the particles (rlnCoordinateX...), shifts become rlnOriginXAngst... with
    RELION's sign (minus). A group of columns in which nothing is known is left out.

    Raises
    ------
    ValueError
        when the volumes' folder is not inside the STAR file's, or poses are known for some particles only.
    """
    path, folder = Path(path), Path(volumes_mrc_dir)
    if not folder.resolve().is_relative_to(path.parent.resolve()):
        raise ValueError(f"{path}: the volumes' folder {folder} must lie inside {path.parent}")
    table, voxel = particles.table.reset_index(drop=True), particles.voxel_size_A
    columns: dict[str, object] = {}
    for (ours, theirs), scale in zip(_NUMBERS, (1.0, 1 / voxel, -1.0), strict=True):
        values = table[list(ours)].to_numpy(float)
        if np.isnan(values).all():
            continue
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {', '.join(ours)} are known for some particles only; write them apart")
        columns |= dict(zip(theirs, (values * scale).T, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    names = [folder / f"{i + 1:06d}_{re.sub(r'[^A-Za-z0-9_-]+', '_', n)[:60]}.mrc" for i, n in enumerate(table["particle"])]
    for name, volume in zip(names, particles.volumes, strict=True):
        mrcfile.write(name, volume, voxel_size=voxel, overwrite=True)
    classes = table["class_name"].astype(str)
    known = sorted(set(classes))
    columns |= {
        "rlnImageName": [n.resolve().relative_to(path.parent.resolve()).as_posix() for n in names],
        # an empty word would shift the columns that follow it
        "rlnMicrographName": table["tomogram"].replace("", "unknown"),
        "rlnTomoParticleName": table["particle"].replace("", "unknown"),
        "rlnClassNumber": [known.index(c) + 1 for c in classes],
        _CLASS: classes.replace("", "unknown"),
        "rlnOpticsGroup": 1,
    }
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnImagePixelSize": [voxel],
            "rlnImageSize": [particles.volumes.shape[-1]],
            "rlnImageDimensionality": [3],
        }
    )
    blocks = {"optics": optics, "particles": pd.DataFrame(columns, index=table.index)}
    starfile.write(blocks, path, overwrite=True, float_format="%.6f")


def read_subtomogram_star(
    path: str | Path, *, protein: str = "bright", voxel_size_A: float | None = None, wiener: float = 0.1
) -> ParticleSet:
    """Read a STAR file of 3-D subtomograms, as RELION 3.1 and `write_star` make them, or of RELION's pseudo-subtomograms.

    Where the optics table says that data are CTF-premultiplied and rlnCtfImage names their weights, the volumes are the quotient (`pseudo_subtomogram`); the weights of other subtomograms are left alone.

    Parameters
    ----------
    protein
        how the files show it, "bright" or "dark"; the result is bright.
    voxel_size_A
        overrides rlnImagePixelSize.
    wiener
        added to the weights of pseudo-subtomograms, in units of one slice of CTF 1.

    Raises
    ------
    ValueError
        when a block, column or volume is missing, a name leads out of the folder or boxes differ.
    """
    path = Path(path)
    sign = protein_sign(protein, path)
    blocks = read_star(path)
    optics = table_of(blocks, "optics", path, ("rlnImagePixelSize", "rlnImageSize"))
    table = table_of(blocks, "particles", path, ("rlnImageName",)).reset_index(drop=True)
    numeric(optics, ("rlnImagePixelSize", "rlnImageSize"), path)
    if len(optics[["rlnImageSize", "rlnImagePixelSize"]].drop_duplicates()) != 1:
        raise ValueError(f"{path}: optics groups differ in box or voxel size; read them one by one")
    box, voxel = (
        int(optics["rlnImageSize"].iloc[0]),
        voxel_size_A or float(optics["rlnImagePixelSize"].iloc[0]),
    )
    weights = _weights(table, optics, path, box)
    check_wiener(wiener)
    numbers, files = [], []
    for name in table["rlnImageName"].astype(str):
        number, at, file = name.rpartition("@")
        if at and not (number.isdigit() and int(number) > 0):
            raise ValueError(f"{path}: image name {name!r}; expected NUMBER@FILE, numbers from 1, or FILE")
        numbers.append(int(number) - 1 if at else None)
        files.append(inside(path.parent, file, path))
    columns: dict[str, object] = {}
    # RELION counts coordinates in pixels of the tilt series, whatever the binning of the boxes
    unit = float(optics["rlnTomoTiltSeriesPixelSize"].iloc[0]) if "rlnTomoTiltSeriesPixelSize" in optics else voxel
    for (ours, theirs), scale in zip(_NUMBERS, (1.0, unit, -1.0), strict=True):
        if set(theirs) <= set(table):
            numeric(table, theirs, path)
            columns |= {a: table[b].astype(float) * scale for a, b in zip(ours, theirs, strict=True)}
    opened = lru_cache(maxsize=OPEN_STACKS)(partial(_open_stack, box=box))
    largest: dict[Path, int] = {}
    for file, number in zip(files, numbers, strict=True):
        if number is not None:
            largest[file] = max(number, largest.get(file, 0))
    for file, number in largest.items():
        if number >= opened(file).shape[0]:
            raise ValueError(f"{path}: names volume {number + 1} of {file}, which holds {opened(file).shape[0]}")

    def stored(i: int) -> np.ndarray:
        if numbers[i] is not None:
            return np.asarray(opened(files[i])[numbers[i]], np.float32)
        volume, _ = read_map(files[i], voxel_size_A=voxel)
        if tuple(volume.shape) != (box,) * 3:
            raise ValueError(f"{files[i]}: {tuple(volume.shape)} voxels, expected {box} on every side (rlnImageSize)")
        return volume.numpy()

    def read(i: int) -> np.ndarray:
        return sign * (divided(stored(i), weights[i], wiener) if weights else stored(i))

    for file, number in zip(files, numbers, strict=True):
        if number is None:
            shape, _ = read_map_header(file, voxel)
            if shape != (box,) * 3:
                raise ValueError(f"{file}: {shape} voxels, expected {box} on every side (rlnImageSize)")
    tomogram = "rlnTomoName" if "rlnTomoName" in table else "rlnMicrographName"
    texts = {"class_name": _CLASS, "particle": "rlnTomoParticleName", "tomogram": tomogram}
    columns |= {a: table[b].astype(str).replace("unknown", "") for a, b in texts.items() if b in table}
    columns.setdefault("particle", [f.name if k is None else f"{k + 1}@{f.name}" for f, k in zip(files, numbers, strict=True)])
    names = [str(f) if k is None else f"{f}: volume {k + 1}" for f, k in zip(files, numbers, strict=True)]
    return ParticleSet(LazyVolumes(read, box, names), particle_table(len(files), source=str(path), **columns), voxel)


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
    turned = [c for c in _BOX_ANGLES if c in table]
    numeric(table, tuple(turned), path)
    if (table[turned].astype(float).abs() > 1e-3).any(axis=None):
        raise ValueError(
            f"{path}: boxes are turned ({', '.join(turned)} are not 0), each with its own missing wedge; extract the particles again without orientations applied"
        )
    files = [inside(path.parent, name, path) for name in table["rlnCtfImage"].astype(str)]
    for file in set(files):
        check_weights(file, box)
    return files


def _open_stack(file: Path, box: int) -> object:
    """A stack of volumes (N, D, D, D), unread, that image names of the form NUMBER@FILE refer to."""
    suffix = suffix_of(file)
    if suffix in HDF5_SUFFIXES:
        stack = open_hdf5(file, (4,))
    elif suffix in ZARR_SUFFIXES:
        stack = ChunkedStack(open_zarr(file, (4,))[0])
    else:
        stack = open_mrcs(file, 1.0)[0]
    if tuple(stack.shape[1:]) != (box,) * 3:
        raise ValueError(f"{file}: volumes of {tuple(stack.shape[1:])} voxels, expected {box} on every side (rlnImageSize)")
    return stack
