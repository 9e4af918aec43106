"""Simulated tilt series on disk, as a microscope and RELION 5 leave them: to be reconstructed like one's own.

Tilts are written as RELION counts them (rlnTomoYTilt, and the same in .tlt, .rawtlt and .mdoc): the tomogram's point
(x, y, z), from its centre, is seen at x cos(tilt) + z sin(tilt). The simulator counts the other way round.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..reproducibility.files import write_atomically
from ..simulator.microscope.simulate import Microscope
from ..simulator.scene import TiltSeries
from ..volumes.table import ANGLE_COLUMNS, CENTRED_COLUMNS
from .relion_tables import ANGLES
from .relion_writer import CENTRED, CLASS, RECORDED, optics_of, star_head, star_rows, write_mrc

HAND = 1.0  # RELION's: the defocus grows with the depth x sin + z cos of the simulator
_GENERAL = "data_general\n\n_rlnTomoSubTomosAre2DStacks 1\n\n\n"


def write_series(folder: Path, name: str, series: TiltSeries) -> None:
    """Write tilt_series/NAME.mrc with .tlt, .rawtlt and .mdoc, and NAME.star of RELION 5, into a folder; and
    tomograms/NAME.tlt, where readers look for it, beside a tomogram.
    """
    tilts, stem = -series.angles_deg.astype(float), folder / "tilt_series" / name
    stem.parent.mkdir(parents=True, exist_ok=True)
    stack = stem.with_suffix(".mrc")
    write_atomically(stack, lambda p: write_mrc(p, series.images, series.voxel_size_A, images=True))
    beside = folder / "tomograms" / name
    for path in (stem.with_suffix(".tlt"), stem.with_suffix(".rawtlt"), beside.with_suffix(".tlt")):
        if path.parent.is_dir():
            _text(path, "".join(f"{t:.2f}\n" for t in tilts))
    _text(stem.with_suffix(".mdoc"), _mdoc(f"{name}.mrc", series, tilts))
    _text(stem.with_suffix(".star"), _series_star(name, series, tilts))


def write_project(
    folder: Path, names: Sequence[str], microscope: Microscope, shape: Sequence[int], table: pd.DataFrame, voxel: float
) -> None:
    """Make a RELION 5 project of tilt series that `write_series` wrote: tomograms.star, particles.star and
    optimisation_set.star.

    Parameters
    ----------
    names
        of the series; their tomograms are tomograms/NAME.mrc, where there are any.
    shape
        of the tomograms (Z, Y, X).
    table
        the molecules of all of them.
    voxel
        voxel size of the tomograms and pixel size of the images, angstrom.
    """
    told = {field: getattr(microscope, field) for field in ("voltage_kV", "cs_mm", "amplitude_contrast")}
    rows = _tomograms(names, microscope, shape, voxel)
    if (folder / "tomograms").is_dir():  # they may be in another kind of file
        rows["rlnTomoReconstructedTomogram"] = [f"tomograms/{name}.mrc" for name in names]
    _text(folder / "tomograms.star", _loop("global", rows))
    _text(folder / "particles.star", particles_star(table.assign(**told), voxel))
    _text(
        folder / "optimisation_set.star",
        "data_\n\n_rlnTomoTomogramsFile tomograms.star\n_rlnTomoParticlesFile particles.star\n",
    )


def write_volume(path: Path, volume: np.ndarray, voxel_size_A: float) -> None:
    """Write a volume: labels as 16-bit whole numbers where they fit, all else as float32."""
    whole = volume.dtype.kind in "iu" and volume.max() <= np.iinfo(np.int16).max
    write_mrc(path, volume, voxel_size_A, np.int16 if whole else np.float32)


def _text(path: Path, text: str) -> None:
    write_atomically(path, lambda p: p.write_text(text))


def _mdoc(stack: str, series: TiltSeries, tilts: np.ndarray) -> str:
    """A SerialEM .mdoc of the stack: what each image was recorded with."""
    scope, (t, height, width) = series.microscope, series.images.shape
    exposure = scope.total_dose_e_A2 / t
    head = f"PixelSpacing = {series.voxel_size_A:.4f}\nVoltage = {scope.voltage_kV:g}\nImageFile = {stack}\n"
    head += f"ImageSize = {width} {height}\nDataMode = 2\n\n[T = simulated by CryoETGAN]\n\n"
    return head + "".join(
        f"[ZValue = {k}]\nTiltAngle = {tilts[k]:.4f}\nPixelSpacing = {series.voxel_size_A:.4f}\n"
        f"ExposureDose = {exposure:.4f}\nPriorRecordDose = {series.pre_exposure_e_A2[k]:.4f}\n"
        f"TargetDefocus = {-series.defocus_um:.4f}\n\n"
        for k in range(t)
    )


def _series_star(name: str, series: TiltSeries, tilts: np.ndarray) -> str:
    """The tilt series of RELION 5: an image a row, in the stack's order."""
    defocus = np.full(len(tilts), series.defocus_um * 1e4)
    columns = pd.DataFrame(
        {
            "rlnMicrographName": [f"{k + 1}@tilt_series/{name}.mrc" for k in range(len(tilts))],
            "rlnTomoNominalStageTiltAngle": tilts,
            "rlnTomoNominalTiltAxisAngle": np.zeros(len(tilts)),
            "rlnMicrographPreExposure": series.pre_exposure_e_A2.astype(float),
            "rlnDefocusU": defocus,
            "rlnDefocusV": defocus,
            "rlnDefocusAngle": np.zeros(len(tilts)),
            "rlnCtfScalefactor": np.cos(np.radians(tilts)),
            "rlnTomoXTilt": np.zeros(len(tilts)),
            "rlnTomoYTilt": tilts,
            "rlnTomoZRot": np.zeros(len(tilts)),
            "rlnTomoXShiftAngst": np.zeros(len(tilts)),
            "rlnTomoYShiftAngst": np.zeros(len(tilts)),
        }
    )
    return _loop(name, columns)


def _tomograms(names: Sequence[str], microscope: Microscope, shape: Sequence[int], voxel: float) -> pd.DataFrame:
    """A row of tomograms.star for each series."""
    depth, height, width = shape
    return pd.DataFrame(
        {
            "rlnTomoName": list(names),
            "rlnVoltage": microscope.voltage_kV,
            "rlnSphericalAberration": microscope.cs_mm,
            "rlnAmplitudeContrast": microscope.amplitude_contrast,
            "rlnMicrographOriginalPixelSize": voxel,
            "rlnTomoTiltSeriesPixelSize": voxel,
            "rlnTomoHand": HAND,
            "rlnOpticsGroupName": "opticsGroup1",
            "rlnTomoTiltSeriesStarFile": [f"tilt_series/{name}.star" for name in names],
            "rlnTomoTomogramBinning": 1.0,
            "rlnTomoSizeX": width,
            "rlnTomoSizeY": height,
            "rlnTomoSizeZ": depth,
        }
    )


def particles_star(table: pd.DataFrame, voxel_size_A: float) -> str:
    """Where the molecules of tomograms are, for RELION 5 to extract from their tilt series: a STAR file without images.

    The table names the tomogram of each row, with centred positions, and the optics where it tells them.
    """
    optics = optics_of(table, 0, voxel_size_A, version=5)
    for unknown in ("rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality", "rlnCtfDataAreCtfPremultiplied"):
        optics.pop(unknown)  # of extracted images
    columns = _placed(table).assign(rlnOpticsGroup=1)
    return star_head(optics, list(columns), _GENERAL) + star_rows(columns)


def picks_star(table: pd.DataFrame) -> str:
    """Where the molecules of tomograms are, as a list of picks: one table, no optics."""
    return _loop("particles", _placed(table))


def _placed(table: pd.DataFrame) -> pd.DataFrame:
    """Tomogram, centred position, pose and class of molecules, and their tilt range and dose where the table tells."""
    numbers = {c: k + 1 for k, c in enumerate(sorted(set(table["class_name"])))}
    in_tomogram = table.groupby("tomogram").cumcount() + 1
    return pd.DataFrame(
        {
            "rlnTomoName": table["tomogram"].to_numpy(),
            "rlnTomoParticleName": [f"{t}/{k}" for t, k in zip(table["tomogram"], in_tomogram, strict=True)],
            **dict(zip(CENTRED, table[list(CENTRED_COLUMNS)].to_numpy(float).T, strict=True)),
            **dict(zip(ANGLES, table[list(ANGLE_COLUMNS)].to_numpy(float).T, strict=True)),
            "rlnClassNumber": table["class_name"].map(numbers).to_numpy(),
            CLASS: table["class_name"].to_numpy(),
            **{theirs: table[ours].to_numpy(float) for ours, theirs in RECORDED.items() if ours in table},
        }
    )


def _loop(block: str, columns: pd.DataFrame) -> str:
    """A STAR file of one table."""
    head = "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(columns))
    return f"data_{block}\n\nloop_\n{head}{star_rows(columns)}"
