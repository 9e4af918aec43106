"""How the physics generator is estimated from the means and power spectra of densities and subtomograms."""

import torch
import torch.nn.functional as F

from ..reproducibility.seeds import stream
from .fourier_grid import RADII, Lookup, coordinates, estimate_tilt_range, lookup, wedge, window
from .generator import REMEMBERED, PhysicsGenerator, mean_square
from .signal_moments import hats, level_by_power, parts_in_space, power_in_space, signs

PARTS = (  # of the estimate
    "wedge",  # the missing wedge as a mask
    "cap",  # signal no stronger than the measured power allows
    "noise colour",  # without it white noise of the right variance
    "amplitude",  # A
    "sign",  # of T beyond a zero of the CTF
    "transfer",  # T over spatial frequency; without it one value for all frequencies
    "one SNR",  # noise in proportion to the signal, where the particles show it
)
STARTING = 320  # densities that stand for all
LEVEL_STEPS = 3
FACES = 0.2  # margin at each face, as a share of the box, that is left out when |T| is measured
MOST_SIGNAL = 0.95  # of the measured power, at most
LEAST_NOISE = 0.05  # of the measured power, at least
WRAPPED = 0.5  # volumes are periodic if opposite faces correlate more than this share of neighbouring voxels
UNEQUAL = 0.1  # if log noise levels differ more than this from those of equal noise, one SNR for all is tried
FITS = 0.6  # and taken if the difference falls below this share
SAME_SPREAD = 0.14  # volumes were normalised if their variances differ less than this share of what noise causes


@torch.no_grad()
def estimate(
    G: PhysicsGenerator,
    densities: torch.Tensor,
    subtomograms: torch.Tensor,
    without: str = "",
    background: torch.Tensor | None = None,
) -> None:
    """Estimate wedge, T, N and A, and how the files were made, from densities and subtomograms (N, D, D, D) in network
    units.

    Parameters
    ----------
    without : str
        One of PARTS to leave out, to measure what it is worth.
    background : Tensor (K, D, D, D)
        Empty boxes of the same tomograms, which G then takes for its noise.

    Raises
    ------
    ValueError
        For an unknown part; when T is the CTF formula and a particle has no defocus.
    """
    if without and without not in PARTS:
        raise ValueError(f"estimate: without {without!r}; expected one of {', '.join(PARTS)}.")
    device, y, x = G.T.device, subtomograms.cpu(), densities.cpu()
    G.cpu()  # statistics of a whole set: once, and the same on every machine
    _remember(G, y)
    if without == "wedge":
        G.recordings[:, 2:] = torch.tensor([-90.0, 90.0])
    G.wraps.fill_(wraps_round(y))
    few = x[torch.linspace(0, len(x) - 1, min(STARTING, len(x))).round().long(), None]
    _estimate_transfer(G, x, y, few, without)
    power = mean_power(y)
    if without != "cap":
        G.support.copy_(_support(power, mean_power(signals(G, few))))
    signal = signals(G, few)
    G.offset.copy_(y.mean() - signal.mean())
    signal = signal - signal.mean()
    G.noise_power.copy_(torch.maximum(power - mean_power(signal), LEAST_NOISE * power).clamp(min=1e-14))
    if without == "noise colour":
        G.noise_power.fill_(float(y.var() - signal.var()))
    if not G.wraps and without != "amplitude":
        G.A.copy_(_amplitude(y, signal))
    if background is not None:
        G.background = (background - background.mean()).to(torch.float16)
    G.standardised.fill_(is_standardised(y))
    if without != "one SNR":
        G.one_snr.fill_(_one_snr(G, few, y))
    G.to(device)


def _remember(G: PhysicsGenerator, y: torch.Tensor) -> None:
    """Keep REMEMBERED recordings: each particle's defocus, distance from the tilt axis and tilt range, or the range
    that `y` shows.
    """
    acquisition = G.acquisition
    if G.transfer == "ctf":
        if acquisition.defocus_um is None or not torch.isfinite(acquisition.defocus_um).all():
            raise ValueError(
                "PhysicsGenerator: transfer 'ctf' needs the defocus of each particle; some have none. Use transfer "
                "'table'."
            )
        G.recordings[:, 0] = _spread_over(acquisition.defocus_um)
        if acquisition.off_axis_A is not None:
            G.recordings[:, 1] = _spread_over(acquisition.off_axis_A)
    if acquisition.tilt_ranges_deg is not None:
        G.recordings[:, 2:] = _spread_over(acquisition.tilt_ranges_deg)
    elif acquisition.tilt_range_deg is None:
        G.recordings[:, 2:] = torch.tensor(estimate_tilt_range(y))


def _spread_over(values: torch.Tensor) -> torch.Tensor:
    """REMEMBERED of the particles' values, evenly spaced."""
    return values[torch.linspace(0, len(values) - 1, REMEMBERED).round().long()]


def wraps_round(y: torch.Tensor) -> bool:
    """Whether volumes (N, D, D, D) are periodic, as those of some simulators are: what leaves the box at one face comes
    in at the opposite one.

    Voxels on opposite faces then correlate as neighbours do. Tested on each axis along which neighbours correlate.
    """
    y = y - y.mean()
    across, beside = torch.zeros(3), torch.zeros(3)
    for axis in (1, 2, 3):
        first, last = y.select(axis, 0), y.select(axis, -1)
        across[axis - 1] = (first * last).mean()
        beside[axis - 1] = ((first * y.select(axis, 1)).mean() + (last * y.select(axis, -2)).mean()) / 2
    told = beside > 0.1 * y.square().mean()
    return bool(told.any()) and float((across[told] / beside[told]).mean()) > WRAPPED


def is_standardised(y: torch.Tensor) -> bool:
    """Whether each of volumes (N, D, D, D) was normalised to the same variance: their variances then differ less than
    the noise in a box of finite size would make them.
    """
    variance = y.flatten(1).var(1)
    power = mean_power(y).flatten()  # of half of Fourier space; of all of it both sums are twice as large
    # relative standard deviation of the variance of Gaussian noise with this power
    expected = power.square().sum().sqrt() / power.sum() if len(y) > 1 else torch.tensor(0.0)
    return len(y) > 1 and float(variance.std() / variance.mean()) < SAME_SPREAD * float(expected)


def mean_power(volumes: torch.Tensor, chunk: int = 64) -> torch.Tensor:
    """Mean power (D, D, D // 2 + 1) of volumes (N, D, D, D): of their rfft, norm "ortho"."""
    parts = [torch.fft.rfftn(v, dim=(-3, -2, -1), norm="ortho").abs().square().sum(0) for v in volumes.split(chunk)]
    return torch.stack(parts).sum(0) / len(volumes)


def node_means(at: Lookup, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean (nodes,) of values (V,) about each node of a table, with weights (V,); NaN-free: nodes without voxels take
    the mean of all.
    """
    size = int(at.index.max()) + 1
    total, share = torch.zeros(size), torch.zeros(size)
    share.index_add_(0, at.index.flatten(), (at.weight * weight[:, None]).flatten())
    total.index_add_(0, at.index.flatten(), (at.weight * (weight * values)[:, None]).flatten())
    mean = (weight * values).sum() / weight.sum()
    return torch.where(share > 1e-6, total / share.clamp(min=1e-6), mean)


def signals(G: PhysicsGenerator, x: torch.Tensor) -> torch.Tensor:
    """Noise-free volumes (N, D, D, D) that G makes of `x` (N, 1, D, D, D), before A."""
    made, n, p = [], G.box, G.padded
    inner = slice(p // 2 - n // 2, p // 2 - n // 2 + n)
    for i, part in enumerate(x.split(16)):
        recording = torch.randint(REMEMBERED, (len(part),), generator=stream(0, "estimate", i))
        spectrum = G.signal_spectrum(part, {"recording": recording})
        made.append(torch.fft.irfftn(spectrum, s=(p, p, p), dim=(-3, -2, -1))[:, inner, inner, inner])
    return torch.cat(made)


def _estimate_transfer(G: PhysicsGenerator, x: torch.Tensor, y: torch.Tensor, few: torch.Tensor, without: str) -> None:
    """Estimate T, its amplitude and sign, at each spatial frequency."""
    n = G.box
    radius = coordinates(n)[0].flatten()
    reached = wedge(n, *G.tilt_range_deg).flatten() > 0.99
    keep = reached & (radius <= 0.5)
    shells = hats(lookup(n, "radius"), len(keep)) * keep
    margin = 0 if G.wraps else round(FACES * n)
    parts = parts_in_space(y, shells, margin)
    level = torch.full((RADII,), _lowest_level(x, y, reached))
    G.T.copy_(level)
    if without == "transfer":
        return
    for _ in range(LEVEL_STEPS):
        level, error = level_by_power(parts, power_in_space(signals(G, few), shells, margin), level)
        G.T.copy_(level)
    G.trust.copy_(level.square() / (level.square() + error.square()))
    if G.transfer == "table" and without != "sign" and not G.corrected:
        level = level * signs(level, y, signals(G, few), shells, G.corrected is False)
    G.T.copy_(level * G.trust)


def _support(power: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """Factor (D, D, D // 2 + 1), at most 1, on the amplitude of the signal, so that its power is at most MOST_SIGNAL of
    the measured `power` at each voxel of Fourier space.
    """
    return (MOST_SIGNAL * power / signal.clamp(min=1e-12)).clamp(max=1).sqrt()


def _lowest_level(x: torch.Tensor, y: torch.Tensor, reached: torch.Tensor) -> float:
    """T, with its sign, at the lowest spatial frequencies: the mean of all subtomograms `y` against the mean of all
    densities `x`, both centred and of uniform poses.
    """
    radial, mask = lookup(x.shape[-1], "radius"), window(x.shape[-1])
    mean_x, mean_y = (torch.fft.rfftn(v.mean(0) * mask, dim=(-3, -2, -1), norm="ortho").flatten() for v in (x, y))
    weight = (radial.weight * (radial.index == 0)).sum(1) * reached
    level = float(
        ((mean_y * mean_x.conj()).real * weight).sum() / (mean_x.abs().square() * weight).sum().clamp(min=1e-12)
    )
    return level if abs(level) > 1e-4 else 1e-4


def _amplitude(y: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """Amplitude (D, D, D) of the noise at each voxel, of mean square 1: what reconstruction and resampling leave at the
    faces of a box.

    The variance of `y` less that of the signals: a profile along each axis, times what is left over (z, x), the mean of
    neighbours and of half a turn about the tilt axis.
    """
    variance = (y.square().mean(0) - signal.square().mean(0)).clamp(min=0.1 * float(y.square().mean()))
    found = torch.ones_like(variance)
    for axis in range(3):
        profile = (variance / found).mean([a for a in range(3) if a != axis], keepdim=True)
        found = found * profile / profile.mean()
    left = (variance / found).mean(1)
    left = (left + left.flip(0, 1)) / 2
    smooth = F.avg_pool2d(F.pad(left[None, None], [1] * 4, mode="replicate"), 3, stride=1)[0, 0]
    found = found * smooth[:, None]
    return (found / found.mean()).sqrt()


def _noise_levels(G: PhysicsGenerator, volumes: torch.Tensor) -> torch.Tensor:
    """Log of each volume's (N, D, D, D) power over the mean, at the outer spatial frequencies, sorted to 101
    quantiles.
    """
    n = G.box
    radius = coordinates(n)[0]
    keep = (wedge(n, *G.tilt_range_deg) > 0.5) & (radius > 0.25) & (radius <= 0.5)
    power = torch.fft.rfftn(volumes, dim=(-3, -2, -1), norm="ortho").abs().square()[:, keep]
    level = (power / power.mean(0).clamp(min=1e-12)).mean(1).log()
    return torch.quantile(level - level.mean(), torch.linspace(0, 1, 101))


def _one_snr(G: PhysicsGenerator, few: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether the noise of each particle is in proportion to its signal: the noise levels of `y` are then spread as
    those of such generations are, and not as those of equal noise.
    """
    found, distance = _noise_levels(G, y), []
    parts = [
        G.signal_spectrum(part, G.sample_noise(part, stream(0, "one SNR", i))) for i, part in enumerate(few.split(16))
    ]
    G.signal_power.fill_(float(torch.cat([mean_square(part) for part in parts]).mean()))
    for one_snr in (False, True):
        G.one_snr.fill_(one_snr)
        made = torch.cat(
            [G(part, G.sample_noise(part, stream(0, "one SNR", i)))[:, 0] for i, part in enumerate(few.split(16))]
        )
        distance.append(float((_noise_levels(G, made) - found).abs().mean()))
    return distance[0] > UNEQUAL and distance[1] < FITS * distance[0]
