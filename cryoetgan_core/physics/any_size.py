"""The physics generator on a volume of any size: its signal and its noise as two convolutions, block by block.

A generator is estimated from boxes. Its operator is a multiplication in Fourier space, which is a convolution with a
kernel. The kernel is evaluated once in a cube and convolved with blocks of the scene that overlap by half of it
(overlap and save). So a block has no seam, and memory is bounded by the block.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch

from ..reproducibility.seeds import stream
from .fourier_grid import coloured, coordinates, finer, lookup, wedge
from .generator import LEAST_WEDGE, PhysicsGenerator, scaled

KERNEL = 96  # voxels a side: farther than this half away nothing is spread by T or the edges of the wedge
BLOCK = (256, 256, 256)  # voxels written at a time: about 1.5 GiB of memory
TILE = 64  # voxels a side of the white noise that has a seed of its own


def mean_power(volumes: torch.Tensor) -> torch.Tensor:
    """Mean power (D, D, D // 2 + 1) of volumes (N, D, D, D), each less its mean; 1 for white noise of variance 1."""
    volumes = volumes - volumes.mean((1, 2, 3), keepdim=True)
    return torch.fft.rfftn(volumes, dim=(1, 2, 3), norm="ortho").abs().square().mean(0)


def share_in_wedge(power: torch.Tensor, low: float, high: float) -> float:
    """Mean power (D, D, D // 2 + 1) in the wedge that tilts from `low` to `high` degrees miss, over that outside of it;
    between a tenth and a half of the sampling frequency. 1 where nothing is missed.
    """
    n = len(power)
    reached, (radius, _, _) = wedge(n, low, high), coordinates(n)
    told = (radius > 0.1) & (radius < 0.5)
    missed = told & (reached < 0.01)
    return float(power[missed].mean() / power[told & (reached > 0.99)].mean()) if missed.any() else 1.0


def kernels(
    G: PhysicsGenerator, recording: int, size: int = KERNEL, noise_power: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernels (size, size, size) of signal and noise, their centres at index 0, for one of the remembered recordings.

    Parameters
    ----------
    G
        whose curves are interpolated to the spatial frequencies of the kernel; the wedge is that of the recording.
    size
        even, and at least a third larger than the box that G was estimated from.
    noise_power
        `mean_power` of empty boxes of any size, in place of the noise that was estimated from boxes with a molecule.
        At zero frequency it is taken from the frequencies beside it, since the mean of each box was subtracted.
    """
    low, high = G.recordings[recording, 2:].tolist()
    samples = 2 * G.padded  # which set how wide the edge of a wedge is
    seen = wedge(size, low, high, samples)
    table = G.transfer_table(torch.tensor([recording])).flatten(1).cpu()
    T = lookup(size, "radius" if G.transfer == "table" else "fine tilt")(table).view(seen.shape)
    signal = T * seen * finer(G.support.cpu(), size)
    power = G.noise_power.cpu()
    if noise_power is None and len(G.background):  # empty boxes have no seam only as a power
        noise_power = mean_power(G.background.cpu().float())
    if noise_power is not None:
        power = noise_power.clone()
        power[0, 0, 0] = torch.minimum(power[0, 1, 0], power[0, 0, 1])  # tilts reach both
    kinds, count = G.recordings[:, 2:].cpu().unique(dim=0, return_counts=True)
    squares = torch.stack([wedge(size, *ends, samples).square() for ends in kinds.tolist()]) + LEAST_WEDGE**2
    mean = (squares * (count / count.sum())[:, None, None, None]).sum(0).sqrt()
    start = (mean.square() + share_in_wedge(power, low, high) ** 2).sqrt()
    noise = finer(power.clamp(min=0).sqrt(), size) if G.wraps else coloured(power, size, seen=start)
    if len(kinds) > 1:  # the power was measured over all of them
        noise = noise * (seen.square() + LEAST_WEDGE**2).sqrt() / mean
    both = (torch.fft.irfftn(spectrum, s=(size,) * 3) for spectrum in (signal, noise))
    return tuple(both)


def white(low: np.ndarray, high: np.ndarray, seed: int, *words: object) -> torch.Tensor:
    """White noise of the voxels from `low` to below `high` (zyx) of an endless volume: the same voxel has the same
    value whatever is asked for.
    """
    out = torch.empty(*(high - low).tolist())
    first, last = low // TILE, (high - 1) // TILE
    for tile in product(*(range(a, b + 1) for a, b in zip(first, last, strict=True))):
        corner = np.array(tile) * TILE
        made = torch.randn(TILE, TILE, TILE, generator=stream(seed, "white", *words, *tile))
        a, b = np.maximum(corner, low), np.minimum(corner + TILE, high)
        there = tuple(slice(*ends) for ends in zip((a - low).tolist(), (b - low).tolist(), strict=True))
        here = tuple(slice(*ends) for ends in zip((a - corner).tolist(), (b - corner).tolist(), strict=True))
        out[there] = made[here]
    return out


def blocks(shape: tuple[int, int, int], block: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First and end voxel (zyx) of each block of a volume."""
    for low in product(*(range(0, n, b) for n, b in zip(shape, block, strict=True))):
        yield np.array(low), np.minimum(np.array(low) + block, shape)


def recorded(
    G: PhysicsGenerator,
    density: np.ndarray,
    empty: float,
    seed: int,
    *,
    name: str = "",
    recording: int = 0,
    noise_power: torch.Tensor | None = None,
    halves: bool = False,
    noisy: bool = True,
    block: tuple[int, int, int] = BLOCK,
    size: int = KERNEL,
) -> np.ndarray:
    """What the generator makes of a density (Z, Y, X) of any size, in network units: (1, Z, Y, X), or with `halves`
    (2, Z, Y, X), two recordings of half of the dose each, whose mean is the recording.

    Parameters
    ----------
    density
        in the units that G takes; outside of it, everything is `empty`.
    seed, name
        of the noise. The result does not depend on the blocks.
    noise_power
        as in `kernels`.
    noisy
        False: the signal alone.

    Raises ValueError for a kernel that is odd or smaller than the generator's own padded box.
    """
    if size % 2 or size < G.padded:
        raise ValueError(f"recorded: a kernel of {size} voxels; expected an even number from {G.padded} on.")
    out = np.empty((1 + halves, *density.shape), np.float32)
    half, side = size // 2, tuple(min(b, n + n % 2) + size for b, n in zip(block, density.shape, strict=True))
    factors = []
    for kernel in kernels(G, recording, size, noise_power):
        placed = torch.zeros(side)
        placed[:size, :size, :size] = torch.fft.fftshift(kernel)
        factors.append(torch.fft.rfftn(placed.roll((-half,) * 3, (0, 1, 2))).real.flatten())  # even: no phase
    inner = G.A[(slice(G.box // 4, -(G.box // 4)),) * 3]
    amplitude, offset = float(inner.square().mean().sqrt()), float(G.offset)
    for low, high in blocks(density.shape, block):
        first = low - half
        end = first + side
        seen = torch.full(side, float(empty))
        a, b = np.maximum(first, 0), np.minimum(end, density.shape)
        inside = tuple(slice(*ends) for ends in zip((a - first).tolist(), (b - first).tolist(), strict=True))
        seen[inside] = torch.from_numpy(density[tuple(slice(*ends) for ends in zip(a, b, strict=True))])
        kept = tuple(slice(half, half + n) for n in (high - low).tolist())
        there = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        signal = _filtered(seen, factors[0])[kept]
        for k in range(1 + halves):
            noise = _filtered(white(first, end, seed, name, k), factors[1])[kept] if noisy else 0.0
            noise = noise * 2**0.5 if halves else noise
            out[(k, *there)] = ((signal + noise) * amplitude + offset).numpy()
    return out


def _filtered(volume: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """A volume whose rfft is multiplied by a real factor."""
    return torch.fft.irfftn(scaled(torch.fft.rfftn(volume)[None], factor)[0], s=volume.shape)
