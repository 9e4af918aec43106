"""What was read: counts, grey values, power spectrum, and where the missing wedge lies, with what a careful person
would want to be warned of.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from ..physics.fourier_grid import coordinates, estimate_tilt_range, window, windowed_power
from ..volumes.table import ParticleSet

LOOKED_AT = 400  # particles at most, evenly over the set
CONE_DEG = 16.0  # half angle of the cones round the axes in which power is compared
BAND = (0.12, 0.42)  # cycles per voxel
DARK, SEEN, ENOUGH = 6.0, 3.0, 50  # s.d. of the mean's middle; particles
TILT_STEP_DEG, AXIS_DEG = 5.0, 30.0
FAR_DEG = 15.0  # between told and seen tilts
UNLIKE = 2.0  # ratio of the s.d. of two tomograms
LEAST_FOR_AXIS = 8  # particles: in fewer, noise may look like a wedge round any axis
NO_WEDGE = 0.8  # a weakest cone with more of the power of the next one is no missing wedge


@dataclass(frozen=True, repr=False)
class Report:
    """What `describe` found.

    Attributes
    ----------
    classes : particles by class and tomogram.
    histogram : counts and edges of the voxels' grey values.
    mean : (D, D, D) mean volume.
    spectrum : spatial frequency in 1/angstrom, and mean power, of shells.
    cones : power in a cone round each axis (z, y, x), over their mean.
    tilts : tilt in degrees of bins of TILT_STEP_DEG, and mean power there, over the greatest.
    tilts_told, tilts_seen : least and greatest tilt that the files tell (None where they do not), and that the power
        shows.
    warnings : sentences.
    """

    particles: int
    box: int
    voxel_size_A: float
    classes: pd.DataFrame
    histogram: tuple[np.ndarray, np.ndarray]
    mean: np.ndarray
    spectrum: tuple[np.ndarray, np.ndarray]
    cones: tuple[float, float, float]
    tilts: tuple[np.ndarray, np.ndarray]
    tilts_told: tuple[float, float] | None
    tilts_seen: tuple[float, float]
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = self.classes.replace({"class_name": {"": "unnamed"}}).to_string(index=False)
        head = f"{self.particles} particles, boxes of {self.box} voxels of {self.voxel_size_A:.4g} A"
        return "\n".join([head, counts, *(f"- {warning}" for warning in self.warnings)])

    __repr__ = __str__


def beam_axis_of(volumes: torch.Tensor) -> tuple[str | None, tuple[float, float, float]]:
    """The axis ("z", "y" or "x") along which the electrons went, None where none is clear; and the power in a narrow
    cone round each axis of Fourier space over their mean. The missing wedge holds the cone round the beam.

    `volumes` (N, D, D, D): each has weight one.
    """
    f = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(s) for s in volumes.shape[1:]], indexing="ij"))
    radius = f.norm(dim=0)
    near = (f.abs() / radius.clamp(min=1e-9)) > np.cos(np.deg2rad(CONE_DEG))
    near &= (radius > BAND[0]) & (radius < BAND[1])
    total = torch.zeros(3, dtype=torch.float64)
    for v in volumes:
        power = torch.fft.fftn((v - v.mean()) * window(len(v))).abs().square()
        total += torch.stack([power[c].mean() for c in near]).double() / power.mean()
    cones = (total / total.mean()).tolist()
    weakest, second = sorted(cones)[:2]
    return ("zyx"[int(np.argmin(cones))] if weakest < NO_WEDGE * second else None), tuple(cones)


def describe(particles: ParticleSet) -> Report:
    """Look at up to LOOKED_AT particles of a set and report what they are.

    Warned of: grey values that all are the same in a particle, classes of few particles, one tomogram only, a missing
    wedge that is not along z or not where the files say, protein that looks dark, a mean without a particle, voxels
    that take few values, tomograms whose grey values differ too much for one generator.

    Raises
    ------
    ValueError
        Where all are constant.
    """
    n, box = len(particles), particles.volumes.shape[-1]
    chosen = np.unique(np.linspace(0, n - 1, min(n, LOOKED_AT)).round().astype(int))
    values = np.asarray(particles.volumes[chosen], np.float32)
    table, warnings = particles.table, []
    classes = table.groupby(["class_name", "tomogram"], sort=True).size().rename("particles").reset_index()
    flat = (values.reshape(len(values), -1).std(1) == 0).sum()
    if flat:
        warnings.append(f"{flat} of the {len(values)} particles looked at are constant: leave them out.")
    counts = table["class_name"].value_counts()
    few = [f"{name or 'unnamed'} ({count})" for name, count in counts.items() if count < 20]
    if few:
        warnings.append(
            f"Few particles of {', '.join(few)}: curves estimated from fewer than 20 are noisy, and the paper's "
            "generator would memorise them."
        )
    if table["tomogram"].nunique() < 2:
        placed = np.isfinite(table[["x_A", "y_A", "z_A"]].to_numpy(float)).all()
        held_out = "particles at one side of it are" if placed else "every third particle is"
        named = "Only one tomogram" if table["tomogram"].any() else "No tomogram is named"
        warnings.append(f"{named}: {held_out} held out for the tests.")
    unlike = unlike_tomograms(particles)
    if unlike:
        warnings.append(unlike)
    volumes = torch.from_numpy(values[values.reshape(len(values), -1).std(1) > 0])
    volumes = volumes - volumes.mean((1, 2, 3), keepdim=True)
    if not len(volumes):
        raise ValueError(f"describe: all {flat} particles looked at are constant; expected some that are not.")
    axis, cones = beam_axis_of(volumes)
    if axis is None:
        warnings.append("No missing wedge is seen along any axis: are these denoised, averaged or isotropic volumes?")
    elif axis != "z" and len(volumes) >= LEAST_FOR_AXIS:
        told = table.attrs.get("read_with", {}).get("beam_axis")
        other = f"another beam_axis than {told!r}" if told else f'beam_axis="{axis}"'
        warnings.append(f"The missing wedge lies round {axis}: read them again with {other}.")
    mean = values.mean(0)
    inner = slice(box // 2 - max(1, box // 8), box // 2 + max(1, box // 8))
    spread = values.std() / np.sqrt(len(values)) / np.sqrt(mean[inner, inner, inner].size)
    contrast = (mean[inner, inner, inner].mean() - np.median(mean)) / spread if spread else 0.0
    if contrast < -DARK:
        other = "bright" if table.attrs.get("read_with", {}).get("protein") == "dark" else "dark"
        warnings.append(
            f'The mean particle is darker than what surrounds it: read them again with protein="{other}", unless the '
            "middle of the molecule is empty."
        )
    elif n >= ENOUGH and abs(contrast) < SEEN:
        warnings.append(
            "No particle is seen in the middle of the mean of all: do the positions belong to these tomograms, and in "
            "which unit were they picked (coordinate_voxel_size_A=)?"
        )
    told = None
    if "tilt_min_deg" in table and table["tilt_min_deg"].notna().any():
        told = float(table["tilt_min_deg"].min()), float(table["tilt_max_deg"].max())
    seen = estimate_tilt_range(volumes)
    if told and axis == "z" and max(abs(a - b) for a, b in zip(told, seen, strict=True)) > FAR_DEG:
        warnings.append(
            f"The files tell tilts of {told[0]:.0f} to {told[1]:.0f} degrees, the particles show {seen[0]:.0f} to "
            f"{seen[1]:.0f}. The tilts of the files are used."
        )
    distinct = len(np.unique(values[:10]))
    if distinct < 64:
        warnings.append(f"Voxels take {distinct} values only: coarse integers.")
    return Report(
        n,
        box,
        particles.voxel_size_A,
        classes,
        np.histogram(values, bins=80),
        mean,
        _over_shells(volumes, particles.voxel_size_A),
        cones,
        _over_tilts(volumes),
        told,
        seen,
        warnings,
    )


def unlike_tomograms(particles: ParticleSet) -> str:
    """A sentence about the two tomograms whose grey values differ most, where that spoils what is estimated from both:
    their means by more than a standard deviation, or their standard deviations by more than UNLIKE times. Else "".
    """
    chosen = np.unique(np.linspace(0, len(particles) - 1, min(len(particles), LOOKED_AT)).round().astype(int))
    values = np.asarray(particles.volumes[chosen], np.float32).reshape(len(chosen), -1)
    each = pd.DataFrame({"mean": values.mean(1), "variance": values.var(1)})
    of = each.groupby(particles.table["tomogram"].to_numpy()[chosen]).mean()
    of["sd"] = np.sqrt(of["variance"])
    if len(of) < 2 or not of["sd"].min() > 0:
        return ""
    ends = [of["mean"].idxmin(), of["mean"].idxmax()]
    if of["mean"].max() - of["mean"].min() <= of["sd"].min():
        ends = [of["sd"].idxmin(), of["sd"].idxmax()]
        if of["sd"].max() <= UNLIKE * of["sd"].min():
            return ""
    low, high = (f"{name} (mean {of['mean'][name]:.3g}, s.d. {of['sd'][name]:.3g})" for name in ends)
    return (
        f"The grey values of particles of the tomograms {low} and {high} differ too much for one generator: scale each "
        "tomogram to mean 0 and s.d. 1 first, or train a run for each."
    )


def _over_tilts(volumes: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Tilt of each bin and mean power there, over the greatest, away from the tilt axis and in BAND."""
    bins = round(180 / TILT_STEP_DEG)
    centre = -90 + TILT_STEP_DEG * (np.arange(bins) + 0.5)
    radius, tilt, axis = coordinates(volumes.shape[-1])
    keep = (radius > BAND[0]) & (radius < BAND[1]) & (axis > AXIS_DEG)
    index = ((tilt[keep] + 90) / TILT_STEP_DEG).long().clamp(max=bins - 1)
    power = windowed_power(volumes)[keep]
    count = torch.bincount(index, minlength=bins)
    mean = (torch.bincount(index, power, bins) / count).numpy()  # NaN where a bin holds no voxel
    return centre, mean / np.nanmax(mean)


def _over_shells(volumes: torch.Tensor, voxel_size_A: float) -> tuple[np.ndarray, np.ndarray]:
    """Spatial frequency in 1/angstrom and mean power of shells one Fourier voxel wide."""
    box = volumes.shape[-1]
    shell = (coordinates(box)[0] * box).round().long().flatten()
    power = windowed_power(volumes).flatten()
    mean = (torch.bincount(shell, power) / torch.bincount(shell))[1 : box // 2 + 1]
    return np.arange(1, box // 2 + 1) / box / voxel_size_A, mean.numpy()
