"""How the physics generator starts: wedge, transfer, noise and voxel amplitude told by the means and the power of both domains, before anything is trained."""

import math

import torch
import torch.nn.functional as F

from .fourier_grid import AXIS_ANGLES, RADII, TILTS, coordinates, estimate_tilt_range, lookup, wedge, window, windowed_power
from .microscope.back_projection import transform_size
from .physics import AMPLITUDE_NODES, LIBRARY, REMEMBERED, PhysicsGenerator, mean_square
from .seeds import stream

PARTS = 8  # of the subtomograms, whose differences tell an error
STARTING = 160  # generations by which the tables are started


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
    radius, power, x = coordinates(n)[0].flatten(), windowed_power(y).flatten().clamp(min=1e-10), densities.cpu()
    reached = _reached(G, n)
    keep = reached & (radius <= 0.5)
    G.library.copy_(_compact(G, x))
    level, sure = _first_level(G, x, y, power, reached)
    G.N.fill_(0.5 * float(power[keep].mean().log()))
    few = x[torch.linspace(0, len(x) - 1, min(STARTING, len(x))).round().long(), None]
    wanted = _centre_over_corners(G, y)
    for last in (False, False, False, False, True):
        # what the generator makes now, signal and noise apart, seen as the subtomograms are
        G.level.copy_(level), G.envelope.copy_(level.abs().clamp(min=1e-6).log())
        both, signal, strength = [], [], []
        for i, part in enumerate(few.split(16)):
            drawn = G.sample_noise(part, stream(0, "start", i))
            if G.one_snr:
                strength.append(mean_square(G.signal_spectrum(part, drawn)).log())
            both.append(G(part, drawn)[:, 0])
            signal.append(G(part, drawn | {"noise": torch.zeros_like(drawn["noise"])})[:, 0])
        if G.one_snr:
            G.signal_power.fill_(float(torch.cat(strength).mean().exp()))
        signal_power, noise_power = (windowed_power(v).flatten() for v in (torch.cat(signal), torch.cat(both) - torch.cat(signal)))
        total = (signal_power + noise_power).clamp(min=1e-12)
        missing = 0.5 * (power / total).log() / (noise_power / total).clamp(min=0.5)  # log amplitude of the noise: a damped Newton step
        if "noise_colour" in G.parts:
            _add_to_noise(G, missing, reached, keep)
        else:
            G.N += float(missing[keep].mean())
        G.offset.sub_(torch.cat(both).mean())
        if not last:
            made = _centre_over_corners(G, torch.cat(signal))
            level = level * ((wanted / made.clamp(min=1e-12)).clamp(0.1, 10).sqrt() ** sure)
    noisy = torch.fft.rfftn(y, dim=(-3, -2, -1), norm="ortho").abs().square().flatten(1)[:, reached & (radius > 0.3) & (radius <= 0.5)]
    level_of_each = (noisy / noisy.mean(0).clamp(min=1e-12)).mean(1)  # all frequencies count alike
    excess = float(level_of_each.var(correction=min(1, len(y) - 1))) - 1 / noisy.shape[1]  # beyond that of finite numbers
    if not G.one_snr:  # else the signals make the difference
        G.spread[1] = 0.5 * math.log(max(excess / 4, 1e-5))
    if "voxel_amplitude" in G.parts:
        G.A.copy_(_corner_amplitude(G, y).log())
    G.to(device)


def _reached(G: PhysicsGenerator, size: int) -> torch.Tensor:
    """Whether the tilt series reaches each voxel (V,) of an rfft of `size`^3; all of them where the wedge is no ingredient."""
    mask = wedge(size, *G.tilt_range_deg.tolist(), transform_size(size, size)).flatten() > 0.99
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


def _first_level(
    G: PhysicsGenerator, x: torch.Tensor, y: torch.Tensor, power: torch.Tensor, reached: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Level (RADII,) of T that densities `x` and subtomograms `y` of a `power` (V,) tell, where `reached` (V,), and the weight (RADII,) in it of the second of two estimates.

    First: the mean of all subtomograms against the mean of all densities, both centred and of uniform poses; it has the sign, and serves at low spatial frequencies. Second: the power that half a box
    has in the centre beyond that in the corners, subtomograms against densities; noise is the same in both places. The two are weighed by their errors.
    """
    radial, mask, power_x = lookup(G.box, "radius"), window(G.box), windowed_power(x).flatten()
    mean_x, mean_y = (torch.fft.rfftn(v.mean(0) * mask, dim=(-3, -2, -1), norm="ortho").flatten() for v in (x, y))

    def shells(values: torch.Tensor) -> torch.Tensor:
        weighed = (values[:, None] * radial.weight)[reached]
        return torch.zeros(RADII).index_add_(0, radial.index[reached].flatten(), weighed.flatten())

    below = shells(mean_x.abs().square()).clamp(min=1e-12)
    by_mean = shells((mean_y * mean_x.conj()).real) / below
    noise_error = shells(mean_x.abs().square() * power / len(y)) / below.square()
    few_poses = by_mean.square() * shells(power_x / len(x)) / below  # the mean density is itself a finite sample
    beyond_x = _centre_over_corners(G, x).clamp(min=1e-12)
    several = min(PARTS, len(y))
    parts = torch.stack([_centre_over_corners(G, y[i::several]) for i in range(several)])
    by_power = (parts.mean(0) / beyond_x).clamp(1e-6, 1e2).sqrt()
    error = parts.std(0) / several**0.5 if several > 1 else parts[0].abs()
    unsure = error / beyond_x  # of by_power squared
    by_power_error = (0.1 * by_power).square() + (unsure / 2 / torch.maximum(by_power, unsure.sqrt())).square()
    resolved = torch.arange(RADII) > 2  # by half a box
    first, second = 1 / (noise_error + few_poses + 1e-8), resolved / (by_power_error + 1e-8)
    sign = 1.0 if float((by_mean * first).sum()) >= 0 else -1.0
    sure = second / (first + second)
    return (1 - sure) * by_mean + sure * sign * by_power, sure


def _centre_over_corners(G: PhysicsGenerator, volumes: torch.Tensor) -> torch.Tensor:
    """Power (RADII,) over spatial frequency of half a box in the centre, less the mean of those in the eight corners, seen through a window."""
    half = G.box // 2
    start, at = (G.box - half) // 2, lookup(half, "radius")
    weight = at.weight * _reached(G, half)[:, None]
    count = torch.zeros(RADII).index_add_(0, at.index.flatten(), weight.flatten())
    inner = slice(start, start + half)
    ends = (slice(0, half), slice(G.box - half, G.box))
    corners = torch.stack([windowed_power(volumes[:, i, j, k]) for i in ends for j in ends for k in ends]).mean(0)
    beyond = (windowed_power(volumes[:, inner, inner, inner]) - corners).flatten()
    return torch.zeros(RADII).index_add_(0, at.index.flatten(), (beyond[:, None] * weight).flatten()) / count.clamp(min=1e-6)


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
