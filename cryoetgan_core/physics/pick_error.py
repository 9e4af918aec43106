"""How far picks lie from the centres of their particles, and densities that lie as far from theirs.

The estimate compares how power is spread in the boxes of densities and of subtomograms. Where picks lie farther off
centre than the densities do, it takes the blur for a weaker signal.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy
import torch

from ..reproducibility.seeds import stream
from ..volumes.domains import Domains
from ..volumes.poses import rotate_volume
from ..volumes.table import SHIFT_COLUMNS, ParticleSet
from .acquisition import Acquisition
from .estimate import FACES, STARTING, parts_in_space, power_in_space, signals, wraps_round
from .fourier_grid import coordinates, estimate_tilt_range, lookup, wedge
from .generator import PhysicsGenerator
from .signal_moments import ENOUGH, PARTS, hats

TRIED = np.arange(0, 5.01, 0.25)  # voxels
CERTAIN = 3.0  # standard errors by which an error must fit better than none
CERTAIN_OFFSET = 5.0  # standard errors, which few parts tell badly
AT_FACES = 0.1  # mean square of a density's voxels there, over that of all
LEAST = 0.75  # voxels: less is not told from what else blurs particles
FINE = 2  # samples of a voxel where a peak is looked for


@torch.no_grad()
def pick_error(
    densities: torch.Tensor,
    subtomograms: torch.Tensor,
    voxel_size_A: float,
    tilt_range_deg: tuple | None = None,
    offset: np.ndarray | None = None,
) -> tuple[float, float]:
    """How much farther particles lie off centre in subtomograms (M, D, D, D) than in densities (N, D, D, D).

    The mean power of particles at random places is that of centred ones, blurred; noise has the same power everywhere.
    So the blur shows in how the mean power of the subtomograms is spread in the box, in each band of frequencies.

    Parameters
    ----------
    tilt_range_deg
        Lowest and highest tilt; None: estimated from the subtomograms.
    offset
        where the particles lie on average, (3,) zyx in voxels: they are moved back by whole voxels first.

    Returns
    -------
    error, certainty
        Standard deviation along each axis, in voxels, of a normal distribution; and by how many standard errors
        (jackknife over parts of the subtomograms) it explains their power better than no error does.
    """
    n, x, y = densities.shape[-1], densities.cpu().float(), subtomograms.cpu().float()
    G = PhysicsGenerator(n, Acquisition(voxel_size_A, tilt_range_deg or estimate_tilt_range(y - y.mean())))
    G.wraps.fill_(wraps_round(y))
    if offset is not None:
        y = y.roll([-round(v) for v in offset.tolist()], (1, 2, 3))
    seen = (wedge(n, *G.tilt_range_deg).flatten() > 0.99) & (coordinates(n)[0].flatten() <= 0.5)
    bands = (hats(lookup(n, "radius"), len(seen)) * seen)[1:]  # the lowest one is the mean of a box
    few = x[torch.linspace(0, len(x) - 1, min(STARTING, len(x))).round().long(), None] - x.mean()
    margin = round(FACES * n)
    inner = (slice(None), *[slice(margin, n - margin)] * 3)
    parts = parts_in_space(y - y.mean(), bands, margin)
    variance = parts.var(0).mean(1)
    halves = [_symmetric(power_in_space(signals(G, half), bands).view(-1, n, n, n)) for half in (few[::2], few[1::2])]
    alone = ~torch.eye(len(parts), dtype=torch.bool)
    explained = []  # at each error: of the power of all parts, and of all but one
    for error in TRIED:
        smoothed = (scipy.ndimage.gaussian_filter(half.numpy(), (0, *[error] * 3), mode="nearest") for half in halves)
        first, second = (torch.from_numpy(half)[inner].flatten(1) for half in smoothed)
        first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
        # products of what was drawn independently: else a blur would fit better, as it smooths the noise of few
        # densities
        made = (first * second).sum(1)
        each = (parts * (first + second) / 2).sum(2)  # (P, K)
        taken = torch.cat([torch.ones(1, len(parts), dtype=torch.bool), alone]).float()  # parts in each sum
        total, many = taken @ each, taken.sum(1, keepdim=True)
        square = (total.square() - taken @ each.square()) / (many * (many - 1))
        explained.append((torch.where((total > 0) & (made > 0), square / made, 0.0) / variance).sum(1))
    best = int(torch.stack(explained)[:, 0].argmax())
    gain = explained[best] - explained[0]
    standard_error = ((len(parts) - 1) * gain[1:].var(correction=0)).sqrt()  # jackknife
    return float(TRIED[best]), float(gain[0] / standard_error.clamp(min=1e-12))


def _symmetric(power: torch.Tensor) -> torch.Tensor:
    """Mean power (K, D, D, D) of molecules in uniform poses: turned by half about the tilt axis it is the same, and so
    is its mirror image along the axis.
    """
    turned = power.flip(1, 3)
    if power.shape[-1] % 2 == 0:  # the centre of the box is a voxel: the first one has no counterpart
        turned = turned.roll((1, 1), (1, 3))
    both = (power + turned) / 2
    mirrored = both.flip(2)
    return (both + (mirrored if power.shape[-1] % 2 else mirrored.roll(1, 2))) / 2


@torch.no_grad()
def mean_offset(subtomograms: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where particles lie on average in subtomograms (M, D, D, D), from the centre of their boxes.

    The mean of particles in random poses is symmetric about the place where they lie on average, whatever the CTF and
    the missing wedge: with that place at the origin its Fourier transform F is real. At a place d it is
    exp(-2 pi i f d) F(f). So the square of the transform is that of a volume with a peak at 2 d. Noise is no part of
    it, as only products of independent parts of the subtomograms are taken.

    Parameters
    ----------
    subtomograms
        at least PARTS.

    Returns
    -------
    offset, standard_error
        Each (3,), zyx, in voxels; offsets up to a quarter of the box are told. The errors are of a jackknife over
        parts, and at least half of what two halves of the parts differ by: a peak of noise lies elsewhere in each.
    """
    n, y = subtomograms.shape[-1], subtomograms.cpu().float()
    y = y - y.mean((1, 2, 3), keepdim=True)
    means = torch.stack([y[k::PARTS].mean(0) for k in range(PARTS)])
    spectra = torch.fft.fftn(torch.fft.ifftshift(means, (1, 2, 3)), dim=(1, 2, 3))
    f = torch.fft.fftfreq(n)
    spectra = spectra * (f[:, None, None] ** 2 + f[:, None] ** 2 + f**2 < 0.25)
    alone = ~torch.eye(PARTS, dtype=torch.bool)
    places = np.stack([_peak(spectra[others]) for others in alone]) / 2
    halves = [_peak(spectra[half::2]) / 2 for half in (0, 1)]
    standard_error = np.maximum(np.sqrt((PARTS - 1) * places.var(0)), np.abs(halves[0] - halves[1]) / 2)
    return _peak(spectra) / 2, standard_error


def certain_offset(place: np.ndarray, standard_error: np.ndarray) -> np.ndarray:
    """What counts of a `mean_offset`: nothing unless its length is LEAST and CERTAIN_OFFSET; then what is two standard
    errors along each axis.
    """
    told = np.linalg.norm(place) >= max(LEAST, CERTAIN_OFFSET * np.linalg.norm(standard_error))
    return np.where(told & (np.abs(place) >= 2 * standard_error), place, 0.0)


def _peak(spectra: torch.Tensor) -> np.ndarray:
    """Where (3,), in voxels from the first one, the mean product of two different spectra (P, D, D, D) has its peak."""
    n = spectra.shape[-1]
    product = torch.fft.fftshift(spectra.sum(0).square() - spectra.square().sum(0))
    fine = torch.zeros((FINE * n,) * 3, dtype=product.dtype)
    low = FINE * n // 2 - n // 2  # the zero of both is at the middle
    fine[(slice(low, low + n),) * 3] = product
    height = torch.fft.ifftn(torch.fft.ifftshift(fine)).real.numpy()
    top = np.array(np.unravel_index(height.argmax(), height.shape))
    found = []
    for axis, step in enumerate(np.eye(3, dtype=int)):
        before, at, after = (height[tuple((top + k * step) % (FINE * n))] for k in (-1, 0, 1))
        place = top[axis] + (before - after) / (2 * (before - 2 * at + after))  # of the parabola through them
        found.append((place + FINE * n / 2) % (FINE * n) - FINE * n / 2)
    return np.array(found) / FINE


def off_centre(
    densities: ParticleSet, error: float, generator: torch.Generator, offset: np.ndarray | float = 0.0
) -> ParticleSet:
    """Densities moved at random, normally with a standard deviation of `error` voxels along each axis about `offset`
    (zyx, voxels), and their table, which tells where they lie.
    """
    table, voxel = densities.table, densities.voxel_size_A
    moves = error * voxel * torch.randn((len(table), 3), generator=generator, dtype=torch.float64)
    moves += voxel * torch.as_tensor(np.broadcast_to(offset, 3).copy())  # zyx
    still = torch.eye(3, dtype=torch.float64).expand(len(table), 3, 3)
    volumes = rotate_volume(torch.from_numpy(np.asarray(densities.volumes)), still, moves, voxel)
    places = np.nan_to_num(table[list(SHIFT_COLUMNS)].to_numpy(float)) + moves.flip(1).numpy()
    return ParticleSet(
        volumes.numpy(), table.assign(**dict(zip(SHIFT_COLUMNS, places.T, strict=True))), densities.voxel_size_A
    )


def spread(particles: ParticleSet) -> float:
    """Standard deviation, in voxels, of where particles lie along each axis, as their table tells: 0 where it does
    not.
    """
    shifts = np.nan_to_num(particles.table[list(SHIFT_COLUMNS)].to_numpy(float))
    return float(np.sqrt(shifts.var(0).mean()) / particles.voxel_size_A)


def _reaches_faces(densities: ParticleSet) -> bool:
    """Whether densities reach the faces of their boxes, so that they would show an edge when they are moved."""
    volumes = np.asarray(densities.volumes)
    rim = np.ones(volumes.shape[1:], bool)
    rim[1:-1, 1:-1, 1:-1] = False
    power = np.array([(v[rim] ** 2).mean() / max((v**2).mean(), 1e-30) for v in volumes])
    return bool(power.max() > AT_FACES)


class AsPicked(NamedTuple):
    """Domains whose densities lie as the particles do.

    Attributes
    ----------
    error
        standard deviation of where they lie, in voxels along each axis; 0 where they were not spread.
    offset
        where they lie on average, (3,) zyx in voxels; 0 where they were not moved.
    """

    domains: Domains
    error: float
    offset: np.ndarray


def as_picked(domains: Domains, seed: int, tilt_range_deg: tuple | None = None) -> AsPicked:
    """Domains whose densities lie as far off centre as the training subtomograms do.

    An offset or a `pick_error` of less than LEAST, or one that is not certain, counts as none. Both count as none where
    there are fewer subtomograms than PARTS, or a density reaches the faces of its box, as a membrane does.
    """
    x, y = domains.volumes("X_train"), domains.volumes("Y_train", ENOUGH)
    offset, error = np.zeros(3), 0.0
    if len(y) >= PARTS and not _reaches_faces(domains.X_train):
        offset = certain_offset(*mean_offset(y))
        found, certainty = pick_error(x, y, domains.X_train.voxel_size_A, tilt_range_deg, offset)
        error = found if certainty >= CERTAIN and found >= LEAST else 0.0
    if not error and not offset.any():
        return AsPicked(domains, 0.0, offset)
    train, test = (
        off_centre(half, error, stream(seed, "pick error", name), offset)
        for name, half in (("train", domains.X_train), ("test", domains.X_test))
    )
    moved = dataclasses.replace(domains, X_train=train, X_test=test)
    return AsPicked(moved, float(np.hypot(error, spread(domains.X_train))) if error else 0.0, offset)
