"""Where particles lie in a tomogram, as picking programs write it: STAR (RELION 3.1, 4 and 5, Warp, M), Dynamo tables
and CSV.

Whatever the source says (voxels or angstrom, from the corner or from the centre, counted from 0 or 1), the result is
the table of `volumes.table`: positions in angstrom from the tomogram's first voxel, and RELION's angles.
"""

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..volumes.em import read_em
from ..volumes.table import ANGLE_COLUMNS, POSITION_COLUMNS, SHIFT_COLUMNS, check_voxel_size, particle_table, read_csv
from .names import tomogram_name
from .relion_tables import ANGLES, ORIGINS, numeric, read_star, series_pixels, table_of, without_turned_boxes
from .relion_writer import CENTRED, COORDINATES

LOG = logging.getLogger(__name__)
SUFFIXES = (".star", ".tbl", ".csv", ".em")
_M = tuple(f"wrpCoordinate{a}1" for a in "XYZ")  # M: angstrom, at the first frame
_M_ANGLES = tuple(f"wrpAngle{a}1" for a in ("Rot", "Tilt", "Psi"))
_CSV_NAMES = {
    "class_name": ("class_name", "class", "label"),
    "tomogram": ("tomogram", "run", "rlnTomoName"),
    "particle": ("particle", "id"),
}
_COMPLEX = re.compile(r"(?<=[0-9.])[+-][0-9.]+(e[+-]?[0-9]+)?[ij]$")  # Matlab writes scores so that it makes complex
MOTIVE_ROWS = 20
DYNAMO_COLUMNS = 26  # of a table at least: the position is in its columns 24 to 26


class NotInTableError(ValueError):
    """A table of positions holds none of a tomogram."""


def read_coordinates(
    path: str | Path,
    voxel_size_A: float,
    shape_zyx: tuple[int, int, int] | None = None,
    *,
    coordinate_voxel_size_A: float | None = None,
) -> pd.DataFrame:
    """Positions, and classes and poses where the file has them: one row a particle with the columns of
    `volumes.table`.

    Parameters
    ----------
    path
        .star with rlnCenteredCoordinateXAngst (RELION 5), rlnCoordinateX (RELION 3.1 and 4, Warp) or wrpCoordinateX1
        (M); .tbl of Dynamo and .em motive lists, counted from 1; .csv with columns x, y, z (voxels, counted from 0) or
        x_A, y_A, z_A, and class_name, tomogram, particle, and rot_deg, tilt_deg, psi_deg or rot, tilt, psi (RELION's),
        where known (shift_x_A, ..., as `streaming.generate_to` writes them, are added).
    voxel_size_A
        of the tomogram.
    shape_zyx
        of the tomogram; needed by RELION 5, whose positions are measured from its centre ``size / 2``.
    coordinate_voxel_size_A
        what a voxel of the positions measures, where they were picked on another binning. By default the file's own
        statement (rlnDetectorPixelSize, or rlnTomoTiltSeriesPixelSize of each optics group), else that of the
        tomogram.

    Raises ValueError when the file is none of these, lacks a column, holds what is no number, or names a particle
    twice.
    """
    path = Path(path)
    for size in (voxel_size_A, coordinate_voxel_size_A):
        if size is not None:
            check_voxel_size(size, path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected coordinates as {', '.join(SUFFIXES)}")
    kind = path.suffix.lower()
    if kind == ".star":
        table = _from_star(path, voxel_size_A, shape_zyx, coordinate_voxel_size_A)
    elif kind == ".tbl":
        table = _from_dynamo(path, coordinate_voxel_size_A, voxel_size_A)
    elif kind == ".em":
        table = _from_motive_list(path, coordinate_voxel_size_A, voxel_size_A)
    elif kind == ".csv":
        table = _from_csv(path, coordinate_voxel_size_A, voxel_size_A)
    else:
        raise ValueError(f"{path}: not a kind of coordinates known here; expected {', '.join(SUFFIXES)}")
    twice = table[["tomogram", "particle"]][table["particle"] != ""].duplicated()
    if twice.any():
        raise ValueError(
            f"{path}: particle {table['particle'][twice[twice].index[0]]!r} is listed twice; give each its own name"
        )
    again = table.duplicated(["tomogram", *POSITION_COLUMNS])
    if again.any():
        LOG.warning(
            "%s: %d of %d positions are those of an earlier row; each row is a particle of its own. Delete rows that "
            "are there by mistake.",
            path,
            again.sum(),
            len(table),
        )
    return table


def in_tomogram(table: pd.DataFrame, name: str, path: str | Path) -> pd.DataFrame:
    """The rows of a table that belong to the tomogram `name`; all of them where the table names none.

    Programs name a tomogram by its file, with or without folder, ending and a size such as ``_10.00Apx``: names fit
    when they are equal, else where one goes on with ``_``, ``-`` or ``.`` at the end of the other. Dynamo and AV3 have
    numbers in place of names: a table (.tbl, .em) with one number belongs to the tomogram that it is given with.

    Raises NotInTableError when the table names tomograms and none of them fits, ValueError when several do.
    """
    named = table["tomogram"].map(tomogram_name)
    if (named == "").all():
        return table
    wanted = tomogram_name(name)
    if Path(path).suffix.lower() in (".tbl", ".em") and named.nunique() == 1:
        return table
    names, goes_on = set(named) - {""}, tuple("_-.")
    longer = {t for t in names if t.startswith(tuple(wanted + c for c in goes_on))}
    shorter = {t for t in names if wanted.startswith(tuple(t + c for c in goes_on))}
    if wanted in names:
        fits = {wanted}
    elif len(longer) > 1 and not shorter:
        raise ValueError(
            f"{path}: {', '.join(sorted(longer)[:5])} could all be the tomogram {name!r}; name it as one of them."
        )
    else:
        fits = shorter or longer
    chosen = max(fits, key=len, default="")
    if not chosen:
        raise NotInTableError(
            f"{path}: its particles lie in {', '.join(sorted(named.unique())[:5])}; none of these is the tomogram "
            f"{name!r}. Give the file that belongs to it."
        )
    return table[named == chosen].reset_index(drop=True)


def dynamo_to_relion(angles_deg: np.ndarray) -> np.ndarray:
    """RELION's (rot, tilt, psi) of Dynamo's (tdrot, tilt, narot), (N, 3), of the same pose.

    Both programs' rotation from the particle to the reference: Rz(narot) Rx(tilt) Rz(tdrot) = Rz(rot) Ry(tilt) Rz(psi).
    """
    tdrot, tilt, narot = np.asarray(angles_deg, float).T
    return np.stack([_wrapped(narot - 90), tilt, _wrapped(tdrot + 90)], 1)


def relion_to_dynamo(angles_deg: np.ndarray) -> np.ndarray:
    """The inverse of `dynamo_to_relion`."""
    rot, tilt, psi = np.asarray(angles_deg, float).T
    return np.stack([_wrapped(psi - 90), tilt, _wrapped(rot + 90)], 1)


def _wrapped(angle_deg: np.ndarray) -> np.ndarray:
    return (angle_deg + 180) % 360 - 180


def _from_star(
    path: Path, voxel_size_A: float, shape_zyx: tuple | None, coordinate_voxel_size_A: float | None
) -> pd.DataFrame:
    blocks = read_star(path)
    name = "particles" if "particles" in blocks else next(iter(blocks))
    table = without_turned_boxes(table_of(blocks, name, path, ()).reset_index(drop=True), path)
    columns: dict[str, object] = {}
    if set(_M) <= set(table):
        numeric(table, _M, path)
        position, angles = table[list(_M)].to_numpy(float), _M_ANGLES
    elif set(CENTRED) <= set(table):
        if shape_zyx is None:
            raise ValueError(
                f"{path}: positions are measured from the tomogram's centre (RELION 5); give the tomogram's shape"
            )
        numeric(table, CENTRED, path)
        position = table[list(CENTRED)].to_numpy(float) + np.array(shape_zyx[::-1]) / 2 * voxel_size_A
        angles = ANGLES
    elif set(COORDINATES) <= set(table):
        numeric(table, COORDINATES, path)
        position = table[list(COORDINATES)].to_numpy(float)
        position = position * _unit(table, blocks, path, coordinate_voxel_size_A, voxel_size_A)[:, None]
        angles = ANGLES
    else:
        raise ValueError(
            f"{path}: data_{name} has no {COORDINATES[0]}, {CENTRED[0]} or {_M[0]} (and Y, Z); it holds "
            f"{', '.join(table)[:200]}"
        )
    if set(ORIGINS) <= set(table):  # moves the particle's centre by minus its value
        numeric(table, ORIGINS, path)
        position = position - table[list(ORIGINS)].to_numpy(float)
    if set(angles) <= set(table):
        numeric(table, angles, path)
        columns |= {ours: table[theirs].to_numpy(float) for ours, theirs in zip(ANGLE_COLUMNS, angles, strict=True)}
    for ours, choices in {
        "class_name": ("cryoetganClassName", "rlnClassNumber"),
        "tomogram": ("rlnTomoName", "rlnMicrographName", "wrpSourceName"),
        "particle": ("rlnTomoParticleName",),
    }.items():
        found = [c for c in choices if c in table]
        if found:
            columns[ours] = table[found[0]].astype(str).replace("unknown", "").to_numpy()
    return particle_table(
        len(table), source=str(path), **dict(zip(POSITION_COLUMNS, position.T, strict=True)), **columns
    )


def _unit(table: pd.DataFrame, blocks: dict, path: Path, given_A: float | None, tomogram_A: float) -> np.ndarray:
    """What a voxel of each row's position measures (N,): as given, else as the file says, else that of the tomogram."""
    if given_A:
        return np.full(len(table), given_A)
    if "rlnDetectorPixelSize" in table:
        columns = ("rlnDetectorPixelSize", "rlnMagnification")[: 1 + ("rlnMagnification" in table)]
        numeric(table, columns, path)
        unit = table["rlnDetectorPixelSize"].to_numpy(float)
        # RELION 3.0: micrometers on the detector; template matching programs: angstrom, no magnification
        return unit * 1e4 / table["rlnMagnification"].to_numpy(float) if len(columns) == 2 else unit
    series = series_pixels(table, blocks, path)
    if series is not None:
        return series
    _say_unit(path, tomogram_A)
    return np.full(len(table), tomogram_A)


def _say_unit(path: Path, voxel_A: float) -> None:
    """Say what was taken for the unit of positions where the file does not tell it."""
    LOG.warning("%s: positions read as voxels of %g A, those of the tomogram (coordinate_voxel_size_A=)", path, voxel_A)


def _from_dynamo(path: Path, given_A: float | None, tomogram_A: float) -> pd.DataFrame:
    try:
        rows = [[_COMPLEX.sub("", word) for word in line.split()] for line in path.read_text().splitlines()]
        values = np.array([row for row in rows if row], float, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a Dynamo table ({error})") from error
    if values.shape[0] == 0 or values.shape[1] < DYNAMO_COLUMNS:
        raise ValueError(
            f"{path}: {values.shape[0]} rows of {values.shape[1]} columns, expected one or more of at least "
            f"{DYNAMO_COLUMNS}"
        )
    if not np.isfinite(values[:, [3, 4, 5, 6, 7, 8, 23, 24, 25]]).all():
        raise ValueError(f"{path}: a position, shift or angle is not a finite number; mend columns 4 to 9 and 24 to 26")
    if not given_A:
        _say_unit(path, tomogram_A)
    position = (values[:, 23:26] + values[:, 3:6] - 1) * (given_A or tomogram_A)  # Dynamo counts voxels from 1
    whole = [[str(int(v)) for v in values[:, c]] for c in (0, 19, 21)]
    return particle_table(
        len(values),
        source=str(path),
        particle=whole[0],
        tomogram=["" if t == "0" else t for t in whole[1]],
        class_name=["" if c == "0" else c for c in whole[2]],
        **dict(zip(ANGLE_COLUMNS, dynamo_to_relion(values[:, 6:9]).T, strict=True)),
        **dict(zip(POSITION_COLUMNS, position.T, strict=True)),
    )


def _from_motive_list(path: Path, given_A: float | None, tomogram_A: float) -> pd.DataFrame:
    """A motive list of the tom toolbox and AV3 (EM, 20 rows a particle): positions in rows 8 to 10, counted from 1,
    shifts in 11 to 13, phi, psi and theta in 17 to 19, class in 20.

    Both programs' rotation: Rz(-phi) Rx(-theta) Rz(-psi), which is Dynamo's of (-psi, -theta, -phi).
    """
    values = read_em(path).astype(float)
    if values.shape[2] != MOTIVE_ROWS or values.shape[0] != 1:
        raise ValueError(f"{path}: {values.shape} values are no motive list; expected (1, particles, {MOTIVE_ROWS})")
    values = values[0]
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: holds values that are not finite numbers")
    if not given_A:
        _say_unit(path, tomogram_A)
    position = (values[:, 7:10] + values[:, 10:13] - 1) * (given_A or tomogram_A)
    angles = dynamo_to_relion(-values[:, [17, 18, 16]])
    return particle_table(
        len(values),
        source=str(path),
        particle=[str(int(v)) for v in values[:, 3]],
        tomogram=["" if v == 0 else str(int(v)) for v in values[:, 4]],
        class_name=["" if v == 0 else str(int(v)) for v in values[:, 19]],
        **dict(zip(ANGLE_COLUMNS, angles.T, strict=True)),
        **dict(zip(POSITION_COLUMNS, position.T, strict=True)),
    )


def _from_csv(path: Path, given_A: float | None, tomogram_A: float) -> pd.DataFrame:
    texts = {c for choices in _CSV_NAMES.values() for c in choices}
    table = read_csv(path, dtype=dict.fromkeys(texts, str))  # 001 keeps its zeros
    table = table.rename(columns={c: c.lower() for c in "XYZ" if c.lower() not in table})
    if {"rot", "tilt", "psi"} <= set(table) and not set(ANGLE_COLUMNS) & set(table):
        table = table.rename(columns=dict(zip(("rot", "tilt", "psi"), ANGLE_COLUMNS, strict=True)))
    names = next((c for c in (POSITION_COLUMNS, ("x", "y", "z")) if set(c) <= set(table)), None)
    if names is None or table.empty:
        raise ValueError(
            f"{path}: {len(table)} rows with columns {', '.join(map(str, table))[:200]}; expected x, y, z (voxels) or "
            "x_A, y_A, z_A"
        )
    numeric(table, names, path)
    if names == POSITION_COLUMNS and (given_A or {"x", "y", "z"} <= set(table)):
        LOG.warning("%s: positions are taken from x_A, y_A, z_A, in angstrom", path)
    if names != POSITION_COLUMNS and not given_A:
        _say_unit(path, tomogram_A)
    position = table[list(names)].to_numpy(float) * (1.0 if names == POSITION_COLUMNS else given_A or tomogram_A)
    if set(SHIFT_COLUMNS) <= set(table):
        shifts = table[list(SHIFT_COLUMNS)].fillna(0)  # an empty one is none
        numeric(shifts, SHIFT_COLUMNS, path)
        position = position + shifts.to_numpy(float)
    columns: dict[str, object] = {}
    if set(ANGLE_COLUMNS) <= set(table):
        numeric(table, ANGLE_COLUMNS, path)
        columns |= {c: table[c].to_numpy(float) for c in ANGLE_COLUMNS}
    for ours, choices in _CSV_NAMES.items():
        found = [c for c in choices if c in table]
        if found:
            columns[ours] = table[found[0]].fillna("").astype(str).to_numpy()
    return particle_table(
        len(table), source=str(path), **dict(zip(POSITION_COLUMNS, position.T, strict=True)), **columns
    )
