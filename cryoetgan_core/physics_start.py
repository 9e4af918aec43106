"""How the physics generator starts: wedge, transfer, noise and voxel amplitude told by the means and the power of both domains, before anything is trained."""

import math

import torch
import torch.nn.functional as F

from .fourier_grid import AXIS_ANGLES, RADII, TILTS, between, coordinates, estimate_tilt_range, lookup, wedge, window
from .microscope.back_projection import transform_size
from .neighbours import LIBRARY
from .physics import AMPLITUDE_NODES, REMEMBERED, PhysicsGenerator, mean_square
from .seeds import stream
from .signal_moments import hats, level_by_power, parts_in_space, power_in_space, signs, slopes

EDGE = 0.2  # least share of a slice in a voxel whose noise is fitted
SECTORS, RINGS = 6, 4  # of tilt and spatial frequency, by which T starts
TILT_PRIOR = 0.3  # how far the power at one tilt is taken to differ from that at all, where the data do not say
STARTING = 320  # generations of each step by which the tables are started
LEVEL_STEPS, NOISE_STEPS = 3, 3
GATE_DRAWS = 4  # of neighbours, which are rare, beside each density
STEP = 3.0  # most that a step changes the log amplitude of the noise
BESIDE = 0.1  # of the most power: voxels that a particle hardly reaches
LEAST_LIKELY, MOST_LIKELY = 0.003, 0.6  # that one of a particle's NEIGHBOURS is there, at the start


@torch.no_grad()
def start_from(G: PhysicsGenerator, densities: torch.Tensor, subtomograms: torch.Tensor) -> None:
    """Set the wedge (where it is not known), N, the level of T, A and the spread of the noise from densities and subtomograms (N, D, D, D) in network units.

    Defoci of the particles are remembered.
    """
    device, acquisition, y, n = G.T.device, G.acquisition, subtomograms.cpu(), G.box
    G.cpu()  # statistics of a whole set: once, and the same on every machine
    if acquisition.tilt_range_deg is None:
        G.tilt_range_deg.copy_(torch.tensor(estimate_tilt_range(y)))
    if G.transfer == "ctf":
        if acquisition.defocus_um is None or not torch.isfinite(acquisition.defocus_um).all():
            raise ValueError("PhysicsGenerator: transfer 'ctf' needs the defocus of each particle; some have none. Use transfer 'table'.")
        chosen = torch.linspace(0, len(acquisition.defocus_um) - 1, REMEMBERED).round().long()
        off_axis = torch.zeros_like(acquisition.defocus_um) if acquisition.off_axis_A is None else acquisition.off_axis_A
        G.remembered.copy_(torch.stack([acquisition.defocus_um[chosen], off_axis[chosen]], 1))
    radius, power, x = coordinates(n)[0].flatten(), _power(y).clamp(min=1e-10), densities.cpu()
    reached = _reached(G, n)
    keep = reached & (radius <= 0.5)
    G.library.copy_(_compact(G, x))
    few = x[torch.linspace(0, len(x) - 1, min(STARTING, len(x))).round().long(), None]
    shells = hats(lookup(n, "radius"), len(keep)) * keep
    parts = parts_in_space(y, shells)
    lowest = _lowest_level(x, y, reached)
    level = torch.full((RADII,), lowest)
    _set_level(G, level)
    for step in range(LEVEL_STEPS):
        level = level_by_power(parts, power_in_space(_signals(G, few, step), shells), level)
        level[0] = lowest
        _set_level(G, level)
        if "neighbours" in G.parts and step:  # by then the signal has about its level
            _set_gate(G, y, few)
    if G.transfer == "table":
        sign = signs(level, y, _signals(G, few, LEVEL_STEPS), shells)
        _set_level(G, level * sign)
        _set_tilts(G, y, _signals(G, few, LEVEL_STEPS), keep)
        _set_level(G, level_by_power(parts, power_in_space(_signals(G, few, LEVEL_STEPS), shells), level) * sign)
    noisy = torch.fft.rfftn(y, dim=(-3, -2, -1), norm="ortho").abs().square().flatten(1)[:, reached & (radius > 0.3) & (radius <= 0.5)]
    level_of_each = (noisy / noisy.mean(0).clamp(min=1e-12)).mean(1)  # all frequencies count alike
    excess = float(level_of_each.var(correction=min(1, len(y) - 1))) - 1 / noisy.shape[1]  # beyond that of finite numbers
    if not G.one_snr:  # else the signals make the difference
        G.spread[1] = 0.5 * math.log(max(excess / 4, 1e-5))
    if "voxel_amplitude" in G.parts:
        G.A.copy_(_corner_amplitude(G, y).log())
    G.N.fill_(0.5 * float(power[keep].mean().log()))
    seen = _reached(G, n, EDGE)  # what the outermost slices leave at the edge of the wedge is noise too
    for step in range(NOISE_STEPS):
        both, signal = _generations(G, few, step)
        signal_power, noise_power = (_power(v) for v in (signal, both - signal))
        total = (signal_power + noise_power).clamp(min=1e-12)
        missing = 0.5 * (power / total).log() / (noise_power / total).clamp(min=0.5)  # log amplitude of the noise: a damped Newton step
        missing = missing.clamp(-STEP, STEP)
        if "noise_colour" in G.parts:
            _add_to_noise(G, missing, seen, seen & (radius <= 0.5))
        else:
            G.N += float(missing[keep].mean())
        G.offset.sub_(both.mean())
    G.to(device)


def _reached(G: PhysicsGenerator, size: int, share: float = 0.99) -> torch.Tensor:
    """Whether the tilt series reaches at least a `share` of each voxel (V,) of an rfft of `size`^3; all of them where the wedge is no ingredient."""
    samples = G.samples if size == G.box else transform_size(size, size)
    mask = wedge(size, *G.tilt_range_deg.tolist(), samples).flatten() > share
    return mask if "wedge" in G.parts else torch.ones_like(mask)


def _compact(G: PhysicsGenerator, densities: torch.Tensor) -> torch.Tensor:
    """LIBRARY of the densities (N, D, D, D) that do not reach the faces of their box, less their background; zeros where none does."""
    faces = torch.stack([densities.select(axis, end) for axis in (1, 2, 3) for end in (0, -1)], 1).flatten(1)
    background = faces.median(1).values
    height = densities.flatten(1).amax(1) - background
    compact = torch.where(faces.amax(1) - background < 0.3 * height)[0]
    if len(compact) == 0:
        return torch.zeros_like(G.library)
    chosen = compact[torch.linspace(0, len(compact) - 1, LIBRARY).round().long()]
    return densities[chosen] - background[chosen, None, None, None]


def _power(volumes: torch.Tensor) -> torch.Tensor:
    """Mean power (V,) of volumes (N, D, D, D), all of their voxels alike: most of these hold noise only, which is what the power is asked for."""
    return torch.fft.rfftn(volumes, dim=(-3, -2, -1), norm="ortho").abs().square().mean(0).flatten()


def _set_level(G: PhysicsGenerator, level: torch.Tensor) -> None:
    """Take the level (RADII,) of T, or of the envelope where T is the formula."""
    G.level.copy_(level), G.envelope.copy_(level.abs().clamp(min=1e-6).log())


def _signals(G: PhysicsGenerator, x: torch.Tensor, step: int | str, *, alone: bool = False) -> torch.Tensor:
    """Noise-free volumes (N, D, D, D) generated from `x` (N, 1, D, D, D); `alone`: the same without neighbours."""
    signal = []
    for i, part in enumerate(x.split(16)):
        drawn = G.sample_noise(part, stream(0, "start", "level", step, i))
        drawn["noise"] = torch.zeros_like(drawn["noise"])
        if alone:
            drawn["neighbours"][..., 1] = 0  # the number that says whether there is one
        signal.append(G(part, drawn)[:, 0])
    return torch.cat(signal)


def _generations(G: PhysicsGenerator, x: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Volumes (N, D, D, D) generated from `x` (N, 1, D, D, D), with and without noise; sets the typical power of the signal."""
    both, signal, strength = [], [], []
    for i, part in enumerate(x.split(16)):
        drawn = G.sample_noise(part, stream(0, "start", "noise", step, i))
        if G.one_snr:
            strength.append(mean_square(G.signal_spectrum(part, drawn)).log())
        both.append(G(part, drawn)[:, 0])
        signal.append(G(part, drawn | {"noise": torch.zeros_like(drawn["noise"])})[:, 0])
    if G.one_snr:
        G.signal_power.fill_(float(torch.cat(strength).mean().exp()))
    return torch.cat(both), torch.cat(signal)


def _lowest_level(x: torch.Tensor, y: torch.Tensor, reached: torch.Tensor) -> float:
    """Level of T, with its sign, at the lowest spatial frequencies: the mean of all subtomograms `y` against the mean of all densities `x`, both centred and of uniform poses."""
    radial, mask = lookup(x.shape[-1], "radius"), window(x.shape[-1])
    mean_x, mean_y = (torch.fft.rfftn(v.mean(0) * mask, dim=(-3, -2, -1), norm="ortho").flatten() for v in (x, y))
    weight = (radial.weight * (radial.index == 0)).sum(1) * reached
    level = float(((mean_y * mean_x.conj()).real * weight).sum() / (mean_x.abs().square() * weight).sum().clamp(min=1e-12))
    return level if abs(level) > 1e-4 else 1e-4


def _set_tilts(G: PhysicsGenerator, y: torch.Tensor, signal: torch.Tensor, keep: torch.Tensor) -> None:
    """How T changes with the tilt (dose, thickness), from subtomograms `y` and signals made with the same T at all of them, (N, D, D, D): a coarse course over SECTORS of the tilt range and RINGS of the spatial frequency."""
    radius, tilt, _ = (c.flatten() for c in coordinates(G.box))
    low, high = G.tilt_range_deg.tolist()
    ring = between((radius * 2 * RINGS).clamp(min=0.5) - 0.5, RINGS, periodic=False)
    sector = between(((tilt - low) / (high - low) * SECTORS - 0.5).clamp(0, SECTORS - 1), SECTORS, periodic=False)
    bands = torch.zeros(RINGS * SECTORS, len(radius))
    for (i, wi), (j, wj) in ((a, b) for a in zip(*(v.T for v in ring), strict=True) for b in zip(*(v.T for v in sector), strict=True)):
        bands.scatter_add_(0, (i * SECTORS + j)[None], (wi * wj)[None])
    bands = bands * keep
    slope, error = slopes(parts_in_space(y, bands), power_in_space(signal, bands))
    trust = 1 / (1 + (error / TILT_PRIOR).square())
    course = (trust * slope + 1 - trust).clamp(min=0.05).sqrt().view(1, 1, RINGS, SECTORS)
    # nodes of T: every one between the centres of rings and sectors
    nodes_r = (torch.arange(RADII) / (RADII - 1) * RINGS - 0.5).clamp(0, RINGS - 1) / (RINGS - 1) * 2 - 1
    nodes_t = ((torch.arange(TILTS) * 180 / TILTS - 90 - low) / (high - low) * SECTORS - 0.5).clamp(0, SECTORS - 1) / (SECTORS - 1) * 2 - 1
    grid = torch.stack(torch.meshgrid(nodes_r, nodes_t, indexing="ij")[::-1], -1)[None]
    G.T.copy_(F.grid_sample(course, grid, align_corners=True)[0, 0])


def _set_gate(G: PhysicsGenerator, y: torch.Tensor, x: torch.Tensor) -> None:
    """How likely a neighbour is: so that the power in the corners of the box differs between volumes as much as between subtomograms `y` (N, D, D, D).

    Noise alone has a known spread of its power. What is beyond comes from the particles: of what G makes of `x` (M, 1, D, D, D), without noise, that with neighbours and that without differ by these. Only voxels
    beside the particles count: where these fill the box, the gate stays.
    """
    made, without = ([_signals(G, x, f"gate {k}", alone=alone) for k in range(GATE_DRAWS)] for alone in (False, True))
    half, power = G.box // 2, without[0].square().mean(0)
    ends, mask, reached = (slice(0, half), slice(G.box - half, G.box)), window(half), _reached(G, half)
    beside = power < BESIDE * power.max()
    if not beside.any():
        return

    def corners(volumes: torch.Tensor) -> torch.Tensor:
        volumes = volumes * beside
        cubes = torch.stack([volumes[:, i, j, k] for i in ends for j in ends for k in ends], 1) * mask
        return torch.fft.rfftn(cubes, dim=(-3, -2, -1), norm="ortho").abs().square().flatten(2)[..., reached].flatten(0, 1)

    real = corners(y)
    white = corners(torch.randn((64, *y.shape[1:]), generator=stream(0, "white")))
    mean = real.mean(0)
    weight = corners(made[0]).mean(0) / mean.square()  # frequencies count by how much of their power is signal
    noise = (white / white.mean(0) * mean * weight).sum(1)
    share = float(noise.var() / noise.mean().square())
    real = (real * weight).sum(1)
    made, without = (torch.stack([(corners(v) * weight).sum(1).var() for v in volumes]).mean() for volumes in (made, without))
    beyond_noise = float(real.square().mean() / (1 + share) - real.mean().square())
    of_neighbours = max(float(made - without), 1e-12 * float(real.mean().square()))
    likely = float(torch.sigmoid(G.gate)) * (beyond_noise - float(without)) / of_neighbours
    G.gate.fill_(float(torch.logit(torch.tensor(min(max(likely, LEAST_LIKELY), MOST_LIKELY)))))


def _add_to_noise(G: PhysicsGenerator, log_amplitude: torch.Tensor, reached: torch.Tensor, keep: torch.Tensor) -> None:
    """Add the log amplitude (V,) to the noise: its mean over ky, where `reached` (V,), to the plane, and by least squares the rest, of the voxels that `keep` (V,) chooses, to N."""
    n = G.box
    half = (log_amplitude * reached).view(n, n, -1).mean(1)
    opposite = half[-torch.arange(n) % n][:, n - torch.arange(n // 2 + 1, n)]  # a real volume has the same power at -k
    G.N_plane += torch.cat([half, opposite], 1)
    log_amplitude = log_amplitude - half[:, None].expand(-1, n, -1).flatten()
    nodes = RADII * TILTS
    design = torch.zeros(int(keep.sum()), nodes + RADII * AXIS_ANGLES, dtype=torch.float64)
    for offset, kind in ((0, "tilt"), (nodes, "axis")):
        at = lookup(G.box, kind)
        design.scatter_add_(1, at.index[keep] + offset, at.weight[keep].double())
    target = log_amplitude[keep].double()
    mean = target.mean()
    ridge = 0.3 * torch.eye(design.shape[1], dtype=torch.float64)  # what no voxel determines changes as the mean does
    fitted = torch.linalg.solve(design.T @ design + ridge, design.T @ (target - mean)).float()
    G.N += fitted[:nodes].view_as(G.N) + mean.float()
    G.N_axis += fitted[nodes:].view_as(G.N_axis)


def _corner_amplitude(G: PhysicsGenerator, y: torch.Tensor) -> torch.Tensor:
    """Amplitude (AMPLITUDE_NODES, AMPLITUDE_NODES) of `y` over (z, x) outside the cylinder that every tilt sees, over that at its rim; 1 inside."""
    line = torch.arange(G.box, dtype=torch.float32) - (G.box - 1) / 2
    distance = (line[:, None] ** 2 + line**2).sqrt() / (G.box / 2)
    amplitude = y.square().mean((0, 2)).sqrt()
    amplitude = amplitude / amplitude[(distance > 0.8) & (distance < 1)].mean()
    amplitude = torch.where(distance > 1, (amplitude + amplitude.flip(0, 1)) / 2, torch.ones_like(amplitude))
    return F.adaptive_avg_pool2d(amplitude[None], AMPLITUDE_NODES)[0]
