"""Where particles lie in a tomogram, as picking programs write it: STAR (RELION 3.1, 4 and 5, Warp, M), Dynamo tables
and CSV.

Whatever the source says (voxels or angstrom, from the corner or from the centre, counted from 0 or 1), the result is
the table of `volumes.table`: positions in angstrom from the tomogram's first voxel, and RELION's angles.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..volumes.table import ANGLE_COLUMNS, POSITION_COLUMNS, SHIFT_COLUMNS, check_voxel_size, particle_table
from .relion_tables import ANGLES, ORIGINS, numeric, read_star, table_of, without_turned_boxes

SUFFIXES = (".star", ".tbl", ".csv")
_CENTRED = tuple(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")  # RELION 5
_VOXELS = tuple(f"rlnCoordinate{a}" for a in "XYZ")
_M = tuple(f"wrpCoordinate{a}1" for a in "XYZ")  # M: angstrom, at the first frame
_M_ANGLES = tuple(f"wrpAngle{a}1" for a in ("Rot", "Tilt", "Psi"))
_CSV_NAMES = {
    "class_name": ("class_name", "class", "label"),
    "tomogram": ("tomogram", "run", "rlnTomoName"),
    "particle": ("particle", "id"),
}
DYNAMO_COLUMNS = 26  # of a table at least: the position is in its columns 24 to 26


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
        (M); .tbl of Dynamo, counted from 1; .csv with columns x, y, z (voxels, counted from 0) or x_A, y_A, z_A, and
        class_name, tomogram, particle, rot_deg, tilt_deg, psi_deg where known (shift_x_A, ..., as
        `streaming.generate_to` writes them, are added).
    voxel_size_A
        of the tomogram.
    shape_zyx
        of the tomogram; needed by RELION 5, whose positions are measured from its centre ``size / 2``.
    coordinate_voxel_size_A
        what a voxel of the positions measures, where they were picked on another binning. By default the file's own
        statement (rlnTomoTiltSeriesPixelSize), else that of the tomogram.

    Raises
    ------
    ValueError
        when the file is none of these, lacks a column, holds what is no number, or names a particle twice.
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
        table = _from_dynamo(path, coordinate_voxel_size_A or voxel_size_A)
    elif kind == ".csv":
        table = _from_csv(path, coordinate_voxel_size_A or voxel_size_A)
    else:
        raise ValueError(f"{path}: not a kind of coordinates known here; expected {', '.join(SUFFIXES)}")
    twice = table[["tomogram", "particle"]][table["particle"] != ""].duplicated()
    if twice.any():
        raise ValueError(
            f"{path}: particle {table['particle'][twice[twice].index[0]]!r} is there twice; give each its own name"
        )
    return table


def in_tomogram(table: pd.DataFrame, name: str, path: str | Path) -> pd.DataFrame:
    """The rows of a table that belong to the tomogram `name`; all of them where the table names none.

    Programs name a tomogram by its file, with or without folder, ending and a size such as ``_10.00Apx``: names fit
    when they are equal, or one goes on with ``_``, ``-`` or ``.`` where the other ends. Dynamo has numbers in place of
    names: a table with one number belongs to the tomogram that it is given with.

    Raises
    ------
    ValueError
        when the table names tomograms and none of them fits.
    """
    named = table["tomogram"].map(_stem)
    if (named == "").all():
        return table
    wanted = _stem(name)
    if named.nunique() == 1 and named[0].isdigit():
        return table
    goes_on = tuple("_-.")
    fits = {
        t
        for t in named.unique()
        if t
        and (
            t == wanted
            or wanted.startswith(tuple(t + c for c in goes_on))
            or t.startswith(tuple(wanted + c for c in goes_on))
        )
    }
    chosen = max(fits, key=len, default="")
    if not chosen:
        raise ValueError(
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


def _stem(name: object) -> str:
    """Name of a tomogram without folder, ending and voxel size."""
    base = re.split(r"[\\/]", str(name))[-1]
    base = re.sub(
        r"\.(mrc|rec|tomostar|star|map|tif|tiff|h5|hdf5|zarr|em|gz|bz2)$", "", re.sub(r"\.(gz|bz2)$", "", base)
    )
    return re.sub(r"_\d+\.\d+Apx$", "", base)


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
    elif set(_CENTRED) <= set(table):
        if shape_zyx is None:
            raise ValueError(
                f"{path}: positions are measured from the tomogram's centre (RELION 5); give the tomogram's shape"
            )
        numeric(table, _CENTRED, path)
        position = table[list(_CENTRED)].to_numpy(float) + np.array(shape_zyx[::-1]) / 2 * voxel_size_A
        angles = ANGLES
    elif set(_VOXELS) <= set(table):
        numeric(table, _VOXELS, path)
        optics = blocks.get("optics")
        own = None
        if optics is not None and "rlnTomoTiltSeriesPixelSize" in optics:
            own = float(np.ravel(optics["rlnTomoTiltSeriesPixelSize"])[0])
        position = table[list(_VOXELS)].to_numpy(float) * (coordinate_voxel_size_A or own or voxel_size_A)
        angles = ANGLES
    else:
        raise ValueError(
            f"{path}: data_{name} has no {_VOXELS[0]}, {_CENTRED[0]} or {_M[0]} (and Y, Z); it holds "
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


def _from_dynamo(path: Path, voxel_size_A: float) -> pd.DataFrame:
    try:
        values = np.loadtxt(path, dtype=float, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a Dynamo table ({error})") from error
    if values.shape[0] == 0 or values.shape[1] < DYNAMO_COLUMNS:
        raise ValueError(
            f"{path}: {values.shape[0]} rows of {values.shape[1]} columns, expected one or more of at least "
            f"{DYNAMO_COLUMNS}"
        )
    if not np.isfinite(values[:, [3, 4, 5, 6, 7, 8, 23, 24, 25]]).all():
        raise ValueError(f"{path}: a position, shift or angle is not a finite number; mend columns 4 to 9 and 24 to 26")
    position = (values[:, 23:26] + values[:, 3:6] - 1) * voxel_size_A  # Dynamo counts voxels from 1
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


def _from_csv(path: Path, voxel_size_A: float) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from error
    names = next((c for c in (POSITION_COLUMNS, ("x", "y", "z")) if set(c) <= set(table)), None)
    if names is None or table.empty:
        raise ValueError(
            f"{path}: {len(table)} rows with columns {', '.join(map(str, table))[:200]}; expected x, y, z (voxels) or "
            "x_A, y_A, z_A"
        )
    numeric(table, names, path)
    position = table[list(names)].to_numpy(float) * (1.0 if names == POSITION_COLUMNS else voxel_size_A)
    if set(SHIFT_COLUMNS) <= set(table) and table[list(SHIFT_COLUMNS)].notna().all(axis=None):
        numeric(table, SHIFT_COLUMNS, path)
        position = position + table[list(SHIFT_COLUMNS)].to_numpy(float)
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
