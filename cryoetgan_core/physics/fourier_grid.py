"""Fourier space as a microscopist divides it: spatial frequency, tilt of the slice that passes there, and angle to the
tilt axis.

Volumes are ``(B, D, D, D)`` indexed zyx; the beam runs along z, the tilt axis along y. Spatial frequencies are in
cycles per voxel, tilts in degrees.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from ..simulator.microscope.back_projection import insertion_weights

CPU = torch.device("cpu")
RADII, TILTS = 15, 36  # nodes of the tables: 14 steps to Nyquist, 5 degrees
FINE_RADII = 65  # nodes of curves that are formulas
BEYOND_DEG = 100.0  # no range of tilts ends there
LEAST_POWER = 1e-3  # of the most that a spatial frequency has, to tell a tilt range by
DIVISIONS = 100  # after ten, white noise with a missing wedge has 1.7 times its power there; then within a tenth
FEWER_DIVISIONS = 20  # begun with the wedge
CORNER = math.sqrt(3) / 2  # spatial frequency of the corner of Fourier space


@dataclass(frozen=True)
class Lookup:
    """Linear interpolation from the nodes of a table to Fourier voxels: the sum of ``table[..., index] * weight`` over
    the last axis.
    """

    index: torch.Tensor  # (V, 2 or 4) flat index of the node
    weight: torch.Tensor  # (V, 2 or 4)

    def __call__(self, table: torch.Tensor) -> torch.Tensor:
        """Values (..., V) of a table (..., nodes), its node axes flattened."""
        return (table[..., self.index] * self.weight).sum(-1)


@lru_cache(maxsize=16)
def coordinates(size: int, device: torch.device = CPU) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spatial frequency, tilt (-90 to 90) and angle to the tilt axis (0 to 90) of the voxels of an rfft of `size`^3,
    each (size, size, size // 2 + 1).
    """
    f, half = torch.fft.fftfreq(size, device=device), torch.fft.rfftfreq(size, device=device)
    kz, ky, kx = torch.meshgrid(f, f, half, indexing="ij")
    radius = (kz**2 + ky**2 + kx**2).sqrt()
    tilt = (torch.rad2deg(torch.atan2(-kz, kx)) + 90).remainder(180) - 90
    axis = torch.rad2deg(torch.acos((ky.abs() / radius.clamp(min=1e-9)).clamp(max=1)))
    return radius, tilt, axis


def between(position: torch.Tensor, nodes: int, periodic: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The two nodes (V, 2) beside each position, counted in nodes, and their weights."""
    low = position.floor() if periodic else position.floor().clamp(0, nodes - 2)
    share = position - low if periodic else (position - low).clamp(0, 1)
    low = low.long()
    index = torch.stack([low, low + 1], -1)
    return (index % nodes if periodic else index), torch.stack([1 - share, share], -1)


@lru_cache(maxsize=32)
def lookup(size: int, kind: str, device: torch.device = CPU) -> Lookup:
    """From the nodes of a table to the voxels of an rfft of `size`^3, flattened.

    kind: "radius" (RADII nodes from 0 to Nyquist; beyond it the last value), "tilt" (RADII x TILTS, the first node at
    -90 degrees, periodic), "fine" (FINE_RADII from 0 to the corner) or "fine tilt" (FINE_RADII x TILTS).
    """
    radius, tilt, _ = (c.flatten() for c in coordinates(size, device))
    fine = kind.startswith("fine")
    radii = FINE_RADII if fine else RADII
    index, weight = between(radius / (CORNER if fine else 0.5) * (radii - 1), radii, periodic=False)
    if kind.endswith("tilt"):
        second, nodes = between((tilt + 90) / 180 * TILTS, TILTS, periodic=True), TILTS
    else:
        return Lookup(index, weight)
    index = (index[:, :, None] * nodes + second[0][:, None, :]).flatten(1)
    return Lookup(index, (weight[:, :, None] * second[1][:, None, :]).flatten(1))


def at_every_ky(plane: torch.Tensor, size: int) -> torch.Tensor:
    """A (kz, kx) plane (samples, samples) in FFT order, between its samples, at the voxels (size, size, size // 2 + 1)
    of an rfft of `size`^3.
    """
    samples = len(plane)
    shifted = torch.fft.fftshift(plane)  # frequency (i - samples // 2) / samples

    def place(frequency: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return between(frequency * samples + samples // 2, samples, periodic=True)

    (z, wz), (x, wx) = (
        place(torch.fft.fftfreq(size, device=plane.device)),
        place(torch.fft.rfftfreq(size, device=plane.device)),
    )
    values = (shifted[z[:, None, :, None], x[None, :, None, :]] * wz[:, None, :, None] * wx[None, :, None, :]).sum(
        (-2, -1)
    )
    return values[:, None, :].expand(size, size, -1)


@lru_cache(maxsize=64)
def wedge(
    size: int, tilt_min_deg: float, tilt_max_deg: float, samples: int | None = None, device: torch.device = CPU
) -> torch.Tensor:
    """Share (size, size, size // 2 + 1) of each voxel of an rfft of `size`^3 that a tilt series reaches: 1, and 0 in
    the missing wedge.

    Between them lies the edge of the outermost slices, one sample wide in a transform of `samples` samples for the same
    extent (twice `size` by default, as reconstructions pad).
    """
    samples = samples or 2 * size
    count = max(2, round(tilt_max_deg - tilt_min_deg) + 1)  # a degree apart: no gaps
    tilts = torch.linspace(tilt_min_deg, tilt_max_deg, count).tolist()
    reached = insertion_weights(samples, tuple(tilts)).clamp(max=1).view(samples, samples)
    reached[0, 0] = 1.0
    return at_every_ky(reached, size).contiguous().to(device)


def coloured(power: torch.Tensor, padded: int, seen: torch.Tensor | None = None) -> torch.Tensor:
    """Amplitude (P, P, P // 2 + 1) of noise in a box of `padded`^3 voxels that has a given power in the box cut out
    of it.

    What is cut out does not wrap round, so that power leaks between its frequencies, most of all along the axes. The
    leak is known exactly: the autocorrelation is multiplied by the overlap of the box with itself at each lag. The
    amplitude is found by dividing by the ratio of the power expected to the one wanted, again and again.

    Parameters
    ----------
    power : Tensor (D, D, D // 2 + 1)
        Wanted mean power of the cut volumes' rfft (norm "ortho"); 1 for white noise of variance 1.
    seen : Tensor (P, P, P // 2 + 1)
        Amplitude to begin with, such as the missing wedge leaves of white noise: in a box that is several times larger,
        its edge is sharper than the frequencies of `power` can tell. Where the wedge is not empty, near the one wanted.
    """
    n = power.shape[0]
    if padded == n:
        return power.clamp(min=0).sqrt()
    lag = torch.arange(n)
    fold = torch.zeros(n, padded)
    fold[lag, lag] += 1 - lag / n
    fold[lag, (lag - n) % padded] += lag / n

    wanted = power.clamp(min=1e-9)
    log_power = finer(wanted.log(), padded) if seen is None else wanted.mean().log() + 2 * seen.log()
    for _ in range(DIVISIONS if seen is None else FEWER_DIVISIONS):
        correlation = torch.fft.irfftn(log_power.exp(), s=(padded,) * 3)
        expected = torch.fft.rfftn(along_axes(correlation, fold, fold, fold)).real
        log_power = (log_power + finer((wanted / expected.clamp(min=1e-12)).log().clamp(-1, 1), padded)).clamp(min=-25)
    return (log_power / 2).exp()


def finer(values: torch.Tensor, padded: int) -> torch.Tensor:
    """A real, even function (D, D, D // 2 + 1) of the frequencies of a box, interpolated at those of a padded one (P,
    P, P // 2 + 1).
    """
    if padded == len(values):
        return values
    up = _interpolation(len(values), padded)
    return along_axes(_whole(values), up, up, up[: padded // 2 + 1])


def along_axes(volume: torch.Tensor, *matrices: torch.Tensor) -> torch.Tensor:
    """A volume (D, D, D) with each of its axes multiplied by a matrix (new, D)."""
    for axis, matrix in enumerate(matrices):
        volume = torch.tensordot(matrix, volume, dims=([1], [axis])).movedim(0, axis)
    return volume


def _interpolation(size: int, finer: int) -> torch.Tensor:
    """Matrix (finer, size) of linear interpolation between the frequencies of an fft of `size`, periodic, at those of
    an fft of `finer`.
    """
    index, weight = between(torch.fft.fftfreq(finer) * size + size, size, periodic=True)
    return torch.zeros(finer, size).scatter_add_(1, index % size, weight)


def _whole(half: torch.Tensor) -> torch.Tensor:
    """A real, even function (D, D, D) of the frequencies of an fft, from its half (D, D, D // 2 + 1)."""
    n = half.shape[0]
    back = -torch.arange(n) % n
    return torch.cat([half, half[back][:, back][:, :, torch.arange(n - n // 2 - 1, 0, -1)]], 2)


def window(box: int, device: torch.device = CPU) -> torch.Tensor:
    """Product of three Hann windows (box, box, box) with mean square 1: its transform leaks little across the edge of
    the wedge.
    """
    line = torch.hann_window(box + 2, periodic=False, device=device)[1:-1]
    line = line / line.square().mean().sqrt()
    return line[:, None, None] * line[:, None] * line


def windowed_power(volumes: torch.Tensor, chunk: int = 64) -> torch.Tensor:
    """Mean power (D, D, D // 2 + 1) of volumes (N, D, D, D) seen through `window`; white noise of variance 1 has power
    1 everywhere.
    """
    mask, total = window(volumes.shape[-1], volumes.device), 0.0
    for part in volumes.split(chunk):
        total = total + torch.fft.rfftn(part * mask, dim=(-3, -2, -1), norm="ortho").abs().square().sum(0)
    return total / len(volumes)


def estimate_tilt_range(volumes: torch.Tensor) -> tuple[float, float]:
    """Lowest and highest tilt, in degrees, that volumes (N, D, D, D) show; (-90, 90) where no angle stands out: no
    wedge.

    An edge is where their power over the tilt has fallen to `_falls_at`'s level, less what the window and the width of
    the outermost slice add to that: found by the same measurement on white noise with a wedge.
    """
    n = volumes.shape[-1]
    found = _falls_at(windowed_power(volumes.cpu().float()))
    if found == (-90.0, 90.0):
        return found
    low, high = found
    for _ in range(3):
        white = _falls_at(_seen_through_window(wedge(n, low, high)))
        low, high = low + found[0] - white[0], high + found[1] - white[1]
    return (low, high) if -BEYOND_DEG < low < high < BEYOND_DEG else (-90.0, 90.0)  # the wedge lies round another axis


def _seen_through_window(power: torch.Tensor) -> torch.Tensor:
    """What `windowed_power` is expected to give for Gaussian noise of a `power` (D, D, D // 2 + 1) that wraps round."""
    n = power.shape[0]
    mask = torch.fft.rfftn(window(n), s=(2 * n,) * 3)
    overlap = torch.fft.irfftn(mask.abs().square(), s=(2 * n,) * 3) / n**3  # of the window with itself, by lag
    lags = torch.arange(n)
    lags = torch.where(lags < n // 2, lags, lags + n)  # the shorter way round
    correlation = torch.fft.irfftn(power, s=(n,) * 3) * overlap[lags][:, lags][:, :, lags]
    return torch.fft.rfftn(correlation).real


def _falls_at(power: torch.Tensor, step_deg: float = 2.0) -> tuple[float, float]:
    """Tilts at which a `power` (D, D, D // 2 + 1) falls to that of the missing wedge, or (-90, 90).

    The mean log power in bins of `step_deg`, over the outer half of the spatial frequencies that hold power: files may
    be low-passed. The power of a tilt series falls with the tilt, with dose and thickness, by a factor of five or so.
    So an edge is where it crosses a tenth of its level inside, or the middle (in log power) between inside and wedge
    where the wedge is less deep.
    """
    n = len(power)
    radius, tilt, axis = coordinates(n)
    shells = (radius * n).round().long().flatten()
    mean = torch.zeros(n).index_add_(0, shells, power.flatten()) / torch.bincount(shells, minlength=n).clamp(min=1)
    held = torch.where(mean[1 : n // 2] > LEAST_POWER * mean[1 : n // 2].max())[0]
    if len(held) == 0:  # empty volumes, or values beyond what a power can be computed of
        return -90.0, 90.0
    last = int(held.max()) + 1
    # of files that are low-passed the last shell is half empty
    highest = (last + (0.5 if last == n // 2 - 1 else -0.5)) / n
    keep = (radius > highest / 2) & (radius < highest) & (axis > 30)
    bins = round(180 / step_deg)
    index = ((tilt[keep] + 90) / 180 * bins).long().clamp(max=bins - 1)
    log_power = power[keep].clamp(min=1e-12).log()
    count = torch.zeros(bins).index_add_(0, index, torch.ones_like(log_power))
    level = torch.zeros(bins).index_add_(0, index, log_power) / count.clamp(min=1)
    centre = -90 + step_deg * (torch.arange(bins) + 0.5)
    filled = count > 0
    level, centre = level[filled], centre[filled]
    level = (level.roll(1) + level + level.roll(-1)) / 3
    inside, outside = level.sort().values[len(level) // 2 :].median(), level.min()
    if inside - outside < math.log(4):
        return -90.0, 90.0
    edge = max(inside - math.log(10), (inside + outside) / 2)
    missing = level < edge
    start = int(level.argmin())  # grow the wedge from its emptiest angle, both ways, across +-90
    order = torch.arange(len(level))

    def crossing(direction: int) -> float:
        for steps in order.tolist():
            here, there = (start + direction * steps) % len(level), (start + direction * (steps + 1)) % len(level)
            if not missing[there]:
                share = float((edge - level[here]) / (level[there] - level[here]))
                gap = float(
                    (centre[there] - centre[here]) % 180 if direction > 0 else -((centre[here] - centre[there]) % 180)
                )
                return float(centre[here]) + share * gap
        return 90.0

    low, high = crossing(1), crossing(-1)
    low, high = (low - 180 if low > 90 else low), (high + 180 if high < -90 else high)
    return (low, high) if low < high else (low - 180, high)
