"""Does the half of a ribosome that was not put in come out of a real cell?

Particles that are aligned to a map resemble it, whatever they hold. So the picks of `cell` are aligned to a map that
lacks the shape of one half: the ribosome, cut across its long axis, with one half smeared out by turns about this axis.
Then the picks are compared with the true half, and with the same half turned by 90, 180 and 270 degrees. A ribosome
prefers the first. Noise can too, a little, where the half continues what it was aligned to. So what lies near the cut
is not compared, and all is done with the mirror image too, which noise prefers as much.

Two controls. Density maxima that no picker chose: as dense, and mostly something else. And ribosomes that are put into
the boxes of those, as the generator renders them, whole or with halves that do not belong together.
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import torch

from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation.downstream import PHYSICS
from ..generation import TrainedRun
from ..particles.tomogram import read_tomogram
from ..physics.fourier_grid import coordinates
from ..reproducibility.provenance import array_hash
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references
from ..volumes.pose_search import Found, average
from ..volumes.poses import mirrored_z, random_rotations, rotate_volume
from .case import Case
from .cell import (
    BOX,
    CELL,
    CELL_MAP,
    FINEST_A,
    MAXIMA,
    aligned,
    boxes,
    estimated,
    over_tiles,
    seen_frequencies,
    soft_mask,
)
from .picking import CTF_WEDGE
from .record import described
from .results import read_results

OFF = "density maxima off picks"
SOURCES = (PHYSICS, CTF_WEDGE, MAXIMA)
SIDES = ("left", "right")
TURNED_DEG = (90.0, 180.0, 270.0)  # about the long axis
BETWEEN_DEG = (45.0, 135.0, 225.0, 315.0)
SMEARED = 24  # turns over which a half is smeared out
CUT_VOXELS = 1.0  # over which one half fades into the other
# mean correlation of what is put into boxes with them, in its own pose; poses in each box
PUT_IN, POSES = (0.3, 0.4), 3
BEYOND_A = 160.0  # from this spatial frequency on a fit is told: below it any dense blob fits
WHOLE, WRONG = "ribosomes put in", "wrong halves put in"
INSIDE = 0.1  # of a half's largest density: where an average is compared with it


def make_left_out(folder: Path, config: RunConfig, rotations: int = 4000) -> dict:
    """Correlation of picks with the half of the map whose shape they were not aligned to.

    Returns
    -------
    dict
        "rows": of each half left out, hand and source of picks, `over_tiles` of the correlation with the half against
        the mean of those with the half turned; "average" and "average_turned": the same of the picks' average, in the
        half's place; "fit": the mean correlation with the map that they were aligned to, beyond 1 / BEYOND_A. Of hand
        "difference", `over_tiles` of what the map's hand has more than the mirror image. Sources are SOURCES, OFF and,
        for each of PUT_IN, WHOLE and WRONG with that number behind. "slices": averages, the maps aligned to, and the
        map, its long axis along x.
    """
    volume, voxel = read_tomogram(folder / CELL, protein="dark")
    (picked,) = read_results(config.profile, {f"cell_seed{config.seed}": config}).values()
    picks = {source: picked["slices"][f"judged, {source}"][:, :3] for source in SOURCES}
    picks[OFF] = off_picks(picks[MAXIMA], [picks[PHYSICS], picks[CTF_WEDGE]], picked["radius_A"] / voxel)
    upright = along_x(class_references(("ribosome",), config.box, voxel, {"ribosome": folder / CELL_MAP})["ribosome"])
    particles = {source: boxes(volume, places, voxel) for source, places in picks.items()}
    run, _ = estimated(folder, config)
    for kind, objects in ((WHOLE, [upright]), (WRONG, wrong_halves(upright))):
        for level in PUT_IN:
            rng = stream(config.seed, "cell", kind, str(level))
            picks[f"{kind}, {level:g}"] = np.repeat(picks[OFF], POSES, axis=0)
            hosts = particles[OFF].repeat_interleave(POSES, 0)
            particles[f"{kind}, {level:g}"] = put_in(hosts, objects, level, run, voxel, rng)
    rows, shown = [], {"map": upright[None, BOX // 2].numpy()}
    for side in SIDES:
        better = {source: [places] for source, places in picks.items()}
        for hand, whole in (("map", upright), ("mirror", mirrored_z(upright))):
            halves = dict(zip(SIDES, in_halves(whole), strict=True))
            left_out = halves.pop(side)
            given = smeared(left_out) + sum(halves.values())
            away = off_the_cut(left_out, voxel)
            alternatives = [away, *(turned_about_x(away, angle) for angle in TURNED_DEG)]
            judged, averages, fit = {}, {}, {}
            for source, places in picks.items():
                found, averages[source], fit[source] = compared(
                    particles[source], given, alternatives, voxel, rotations
                )
                judged[source] = np.column_stack([places, found[0], found[1:].mean(0)])
                better[source].append(found[0] - found[1:].mean(0))
            around = smeared(away)
            inside = around > INSIDE * around.max()
            for row in over_tiles(judged, voxel, config.seed):
                mean = averages[row["source"]]
                own, *turned = (float(np.corrcoef(mean[inside], part[inside])[0, 1]) for part in alternatives)
                row |= {"average": own, "average_turned": turned, "fit": fit[row["source"]]}
                rows.append({"left_out": side, "hand": hand} | row)
            if hand == "map":
                shown[f"{side}, given"] = given[None, BOX // 2].numpy()
                shown |= {f"{side}, {s}": averages[s][None, BOX // 2].numpy() for s in (PHYSICS, OFF)}
        both = {source: np.column_stack(parts) for source, parts in better.items()}
        rows += [{"left_out": side, "hand": "difference"} | row for row in over_tiles(both, voxel, config.seed)]
    return {
        "rows": rows,
        "put_in": list(PUT_IN),
        "voxel_size_A": voxel,
        "box": BOX,
        "data_hash": array_hash(volume),
        "slices": {k: v.astype(np.float32) for k, v in shown.items()},
    } | described(config, "paper.cell_left_out")


def compared(
    particles: torch.Tensor, given: torch.Tensor, alternatives: list[torch.Tensor], voxel_size_A: float, rotations: int
) -> tuple[np.ndarray, torch.Tensor, float]:
    """Particles (N, BOX, BOX, BOX) aligned to a map: their correlations (len(alternatives), N) with other maps in the
    poses that were found, their average, and their mean correlation with the map beyond 1 / BEYOND_A.
    """
    observed = seen_frequencies(voxel_size_A)
    found = aligned(particles, given, observed, voxel_size_A, rotations)
    values = [correlation(particles, part, given, found, observed, voxel_size_A) for part in alternatives]
    beyond = torch.where(coordinates(BOX)[0] >= voxel_size_A / BEYOND_A, observed, 0.0)
    fit = correlation(particles, given, None, found, beyond, voxel_size_A).mean()
    return np.array(values), average(particles, found, voxel_size_A), float(fit)


def off_picks(places: np.ndarray, picks: list[np.ndarray], radius: float) -> np.ndarray:
    """Those rows of `places`, which begin with z, y and x, that lie further than a radius from picks (M, 3) of any
    kind, all in voxels.
    """
    return places[scipy.spatial.KDTree(np.concatenate(picks)).query(places[:, :3])[0] > radius]


def put_in(
    particles: torch.Tensor,
    objects: list[torch.Tensor],
    level: float,
    run: TrainedRun,
    voxel_size_A: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Particles (N, BOX, BOX, BOX) with objects (BOX, BOX, BOX) added, one after the other, in random poses up to a
    voxel off the centre, as a generator renders them without noise: all so strong that the mean correlation of particle
    and object is `level`.
    """
    n, observed = len(particles), seen_frequencies(voxel_size_A)
    rotations, shifts = random_rotations(n, generator), (2 * torch.rand(n, 3, generator=generator) - 1) * voxel_size_A
    added, products = [], []
    for k, particle in enumerate(particles):
        turned = rotate_volume(objects[k % len(objects)], rotations[k : k + 1], shifts[k : k + 1], voxel_size_A)[0]
        added.append(rendered(run, turned) * soft_mask(voxel_size_A))
        b, s, t = (_spectrum(v, observed) for v in (particle, added[-1], turned))
        products.append([b @ t, s @ t, b @ b, b @ s, s @ s, t @ t])
    bt, st, bb, bs, ss, tt = np.array(products, float).T

    def excess(strength: float) -> float:
        norm = np.sqrt(tt * (bb + 2 * strength * bs + strength**2 * ss))
        return float(((bt + strength * st) / norm).mean() - level)

    return particles + scipy.optimize.brentq(excess, 0.0, 10 * np.sqrt(bb.mean() / ss.mean())) * torch.stack(added)


@torch.no_grad()
def rendered(run: TrainedRun, density: torch.Tensor) -> torch.Tensor:
    """What a generator makes of a density (BOX, BOX, BOX), without noise, less what it makes of none."""
    both = run.scaling.x(torch.stack([density, torch.zeros_like(density)]))[:, None]
    made = run.G(both, {"recording": torch.zeros(2, dtype=torch.long)})[:, 0]
    return made[0] - made[1]


def wrong_halves(upright: torch.Tensor) -> list[torch.Tensor]:
    """Maps (BOX, BOX, BOX) of two halves that do not belong together: one is turned about the long axis, half way
    between the turns that halves are compared in.
    """
    left, right = in_halves(upright)
    return [left + turned_about_x(right, angle) for angle in BETWEEN_DEG]


def along_x(reference: torch.Tensor) -> torch.Tensor:
    """A map in a box of BOX voxels (Z, Y, X), turned so that its longest principal axis is x, its shortest z."""
    axis = torch.arange(len(reference), dtype=torch.float64) - len(reference) // 2
    at = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], -1).reshape(-1, 3)  # xyz
    weight = reference.double().clamp(min=0).flatten()
    centre = (weight[:, None] * at).sum(0) / weight.sum()
    _, axes = torch.linalg.eigh(((at - centre) * weight[:, None]).T @ (at - centre))
    turn = axes.flip(1).T  # rows: what becomes x, y, z
    skew = (weight[:, None] * ((at - centre) @ turn.T) ** 3).sum(0)
    turn = turn * torch.where(skew < 0, -1.0, 1.0)[:, None]  # an axis has two signs: the longer tail is positive
    turn[2] *= torch.linalg.det(turn).sign()
    return rotate_volume(reference, turn[None], -(turn @ centre).flip(0)[None], 1.0, box=BOX)[0].float()


def in_halves(upright: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A map (BOX, BOX, BOX) cut at its centre, across x; both halves sum to it."""
    right = torch.sigmoid((torch.arange(BOX) - BOX // 2) / (CUT_VOXELS / 4))
    return upright * (1 - right), upright * right


def off_the_cut(half: torch.Tensor, voxel_size_A: float) -> torch.Tensor:
    """What of a half (BOX, BOX, BOX) lies further from the cut than an alignment sees: FINEST_A."""
    away = (torch.arange(BOX) - BOX // 2).abs() * voxel_size_A
    return half * torch.sigmoid((away - FINEST_A) / (CUT_VOXELS / 4 * voxel_size_A))


def turned_about_x(volume: torch.Tensor, angle_deg: float) -> torch.Tensor:
    """A volume (D, D, D) turned about x by an angle."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]], dtype=torch.float64)
    return rotate_volume(volume, turn[None], torch.zeros(1, 3), 1.0, box=len(volume))[0].float()


def smeared(volume: torch.Tensor) -> torch.Tensor:
    """The mean of a volume (D, D, D) over turns about x."""
    return sum(turned_about_x(volume, 360.0 * k / SMEARED) for k in range(SMEARED)) / SMEARED


def correlation(
    particles: torch.Tensor,
    part: torch.Tensor,
    given: torch.Tensor | None,
    found: Found,
    observed: torch.Tensor,
    voxel_size_A: float,
) -> np.ndarray:
    """Of each particle (N, D, D, D) with a part (D, D, D) in its found pose, (N,), at the frequencies that the tilts
    saw; of the part, what correlates with `given` in that pose is taken away, if there is such a map.
    """
    values = []
    for k in range(len(particles)):
        pose = found.rotations[k : k + 1], found.shifts_A[k : k + 1]
        there, left = (
            _spectrum(v, observed) for v in (particles[k], rotate_volume(part, *pose, voxel_size_A, box=len(part))[0])
        )
        if given is not None:
            known = _spectrum(rotate_volume(given, *pose, voxel_size_A, box=len(given))[0], observed)
            left = left - (left @ known) / (known @ known) * known
        values.append(float(there @ left / (there.norm() * left.norm())))
    return np.array(values)


def _spectrum(volume: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Coefficients whose products are those of the volume at the frequencies observed, its mean taken away."""
    seen = torch.fft.rfftn(volume.double() - volume.double().mean()) * observed.sqrt()
    twice = torch.full(observed.shape, math.sqrt(2.0))
    twice[..., 0] = 1
    twice[..., len(volume) // 2] = 1
    return torch.view_as_real(seen * twice).flatten()


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The result by name."""
    few = dict(rotations=50) if profile == "smoke" else {}
    config = make_config(profile, OWN_DATA, "physics", seed=seed)
    make = partial(make_left_out, **few)
    return {f"cell_left_out_seed{seed}": Case(config, make, (CELL, CELL_MAP), reads=f"cell_seed{seed}")}
