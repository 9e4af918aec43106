"""Other particles beside the one in a box: which, whether and where, drawn; and the density that they add."""

from collections.abc import Sequence

import numpy as np
import torch

NEIGHBOURS, TRIES, LIBRARY = 3, 4, 32  # most neighbours of a particle; places tried for each; densities kept to draw them from
GATE_TEMPERATURE = 0.3  # of the relaxed choice whether a neighbour is there (Maddison et al. 2017)


def draw_neighbours(x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """What `crowd` takes for `x` (B, ...): uniform numbers for which and whether, and for each try one for the distance and three normal ones for the direction."""
    size = (len(x), NEIGHBOURS)
    kind = dict(generator=generator, device=x.device, dtype=x.dtype)
    uniform = torch.rand((*size, 2 + TRIES), **kind)
    places = torch.cat([uniform[..., 2:, None], torch.randn((*size, TRIES, 3), **kind)], -1)
    return torch.cat([uniform[..., :2], places.flatten(2)], -1)


def crowd(x: torch.Tensor, drawn: torch.Tensor, library: torch.Tensor, gate: torch.Tensor, padded: int) -> torch.Tensor:
    """Densities of neighbours (B, P, P, P) around `x` (B, 1, D, D, D) in a box padded to P voxels, from `drawn` (B, NEIGHBOURS, 2 + 4 TRIES).

    Each is one of `library` (LIBRARY, D, D, D), there with the probability whose logit is `gate`, at the first of TRIES random places in the ball round the box where it does not overlap the particle; left
    out where there is none. The gradient of whether it is there is that of the choice's relaxation.
    """
    u = drawn[..., 1].clamp(1e-6, 1 - 1e-6)
    relaxed = torch.sigmoid((gate + u.log() - (1 - u).log()) / GATE_TEMPERATURE)
    there = (relaxed > 0.5).to(x) + relaxed - relaxed.detach()
    out = x.new_zeros(len(x), padded, padded, padded)
    if torch.is_grad_enabled():  # those that are not there have a gradient too
        canvas = x.new_zeros(NEIGHBOURS, *out.shape)
        _place(canvas.unbind(), x, drawn, library, torch.ones_like(relaxed))
        return (there.T[..., None, None, None] * canvas).sum(0)
    _place([out] * NEIGHBOURS, x, drawn, library, relaxed > 0.5)
    return out


def _place(canvases: Sequence[torch.Tensor], x: torch.Tensor, drawn: torch.Tensor, library: torch.Tensor, wanted: torch.Tensor) -> None:
    """Add the neighbour of each number, where it is `wanted` (B, NEIGHBOURS), to its canvas (B, P, P, P); arguments as in `crowd`."""
    n, p = x.shape[-1], canvases[0].shape[-1]
    before = p // 2 - n // 2
    body = x[:, 0] - median(x)[:, None, None, None]
    body = (body > 0.3 * body.flatten(1).amax(1)[:, None, None, None]).to(x)
    which = (drawn[..., 0] * LIBRARY).long().clamp(max=LIBRARY - 1).tolist()
    tries = drawn[..., 2:].unflatten(-1, (TRIES, 4))
    far = 3**0.5 / 2 * n * tries[..., 0] ** (1 / 3)
    direction = tries[..., 1:] / tries[..., 1:].norm(dim=-1, keepdim=True)
    starts = (far[..., None] * direction).round().long() + before  # of its box in the padded one
    mass = library.sum((1, 2, 3)).tolist()
    for i, (places, kept) in enumerate(zip(starts.tolist(), wanted.tolist(), strict=True)):
        for k in (k for k in range(NEIGHBOURS) if kept[k]):
            density = library[which[i][k]]
            for start in places[k]:
                offset = [s - before for s in start]  # from the particle's box
                shared = tuple(slice(max(s, 0), min(s + n, n)) for s in offset)
                overlap = 0.0
                if all(t.stop > t.start for t in shared):
                    overlap = float((density[_of_box(shared, offset)] * body[(i, *shared)]).sum())
                if overlap <= 0.02 * mass[which[i][k]]:
                    seen = tuple(slice(max(s, 0), min(s + n, p)) for s in start)
                    if all(t.stop > t.start for t in seen):
                        canvases[k][(i, *seen)] += density[_of_box(seen, start)]
                    break


def median(x: torch.Tensor) -> torch.Tensor:
    """Median (B,) of the voxels of each of `x` (B, ...), the lower of two; on a CPU by NumPy, ten times as quick as torch there."""
    flat = x.detach().flatten(1)
    if x.device.type != "cpu":
        return flat.median(1).values
    middle = (flat.shape[1] - 1) // 2
    return torch.from_numpy(np.partition(flat.numpy(), middle, axis=1)[:, middle])


def _of_box(slices: tuple[slice, ...], start: Sequence[int]) -> tuple[slice, ...]:
    """Slices of a canvas as slices of a box that begins at `start` there."""
    return tuple(slice(t.start - s, t.stop - s) for t, s in zip(slices, start, strict=True))
