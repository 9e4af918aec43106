"""Ribosomes of a real cell without labels, picked by networks that have seen only generated tomograms.

As in `picker`, a network is trained on tomograms of a generator, which was estimated from the tomogram itself. Nobody
knows where ribosomes are. So picks are judged by what lies there: particles cut out at them are aligned to a ribosome's
map and to its mirror image. A ribosome correlates better with its own hand; others have no preference on average.
The pickers are not taught a hand: half of the patches they are trained on are mirrored.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import torch

from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation.downstream import PHYSICS
from ..evaluation.metrics import fourier_shell_correlation
from ..generation import TrainedRun, load_run
from ..particles.folder import load_particles
from ..particles.picking import find_candidates
from ..particles.tomogram import read_tomogram
from ..physics.fourier_grid import coordinates, wedge
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..reproducibility.seeds import stream
from ..scenes import Scenes, make_scene
from ..simulator.microscope.simulate import Microscope
from ..simulator.sets import class_references
from ..simulator.specimen import ASSEMBLIES
from ..simulator.specimen.crowding import radius_A
from ..volumes.pose_search import Found, average, search_poses
from ..volumes.poses import mirrored_z, rotate_volume
from . import own_data
from .case import Case
from .foreign import MAPS
from .picking import (
    CTF_WEDGE,
    STEPS,
    Tomogram,
    best_thresholds,
    counted,
    formula,
    noisy,
    peaks,
    probabilities,
    scores,
    seen_by_tilts,
    train_picker,
)
from .record import described
from .runs import train_on
from .simulated_sets import default_device

CELL, CELL_MAP = "experimental/empiar10499_TS254/recon_wbp_20A_int8.mrc", f"{MAPS}/4v4r.mrc"
CELL_MICROSCOPE = Microscope(  # of the tilt series' own file
    voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.1, defocus_um=1.7, tilt_max_deg=60.0, tilt_step_deg=3.0
)
CUBES = 300  # drawn from four times as many density maxima; the generator is estimated from a part of them
SCENES, SHAPE = 4, (64, 160, 160)
RIBOSOMES, CROWDERS = 100, 60  # in each; of each other class
BAND_A = (400.0, 60.0)  # in which the formula gets the generator's ratio of signal to noise
BOX, MASK_A, EDGE_A = 24, 160.0, 40.0  # voxels of a particle that is aligned; radius and edge of its mask
FINEST_A, START_A = 45.0, 80.0  # what an alignment sees; what the first reference of a refinement holds
ROUNDS, SHIFT = 2, 2  # of a refinement; voxels that an alignment may move a particle
MOST = 1000  # picks that are looked at, the surest first
MOVED_A, APART_A = 400.0, 300.0  # picks are moved so far, where no pick of theirs is so near
TILE_A, DRAWS = 1000.0, 2000  # of the bootstrap: edge of a tile in the plane; draws
LOCAL_A = 160.0  # s.d. of the Gaussian that tells the cell from what is round it
MAXIMA, SHUFFLED = "strongest density maxima", "picks, moved"


def make_cell(folder: Path, config: RunConfig, steps: int = STEPS, rotations: int = 4000) -> dict:
    """Ribosomes of a real cell, picked by networks that have seen only generated tomograms.

    Returns
    -------
    dict
        "rows": of each source of picks, how many there are, the share of them outside of the cell, and how much better
        as many of each fit the map than its mirror image (`over_tiles`). "refined": of the generator's picks and of
        picks moved, half-set FSC of two averages that were refined apart, each of its own tiles, from a start of
        START_A, and FSC of their mean with the map. "slices" hold, of each source, the picks judged ("judged, SOURCE",
        (N, 5): z, y, x in voxels, and correlations with both hands).
    """
    volume, voxel = read_tomogram(folder / CELL, protein="dark")
    run, cubes = estimated(folder, config)
    crowders = [name for name in ASSEMBLIES if name not in ("ribosome", "membrane")]
    references = class_references(("ribosome", *crowders), config.box, voxel, {"ribosome": folder / CELL_MAP})
    ribosome = references["ribosome"]
    radii = {"ribosome": radius_A(ribosome, voxel)}
    picks, own, shown = {}, {}, {}
    for source, tomograms in _cell_scenes(run, references, voxel, config.seed).items():
        network = train_picker(tomograms[:-1], voxel, radii, config.seed, steps)
        table = counted(probabilities(network, tomograms[-1][0]), tomograms[-1][1], voxel, radii)
        threshold = best_thresholds(table)["ribosome"]
        own[source] = scores(table[table["threshold"] == threshold])
        found, height = peaks(probabilities(network, volume)[0], radii["ribosome"] / voxel, threshold)
        picks[source] = found[np.argsort(-height)][:MOST]
        shown[source] = tomograms[0][0][None, SHAPE[0] // 2]
    picks[MAXIMA] = find_candidates(volume, voxel, len(picks[PHYSICS]), 2 * radii["ribosome"], border=BOX // 2)
    others = np.concatenate([picks[CTF_WEDGE], picks[MAXIMA]])
    picks[SHUFFLED] = moved(picks[PHYSICS], others, voxel, volume.shape, config.seed)
    inside = scipy.ndimage.gaussian_filter(volume, LOCAL_A / voxel) > 0
    held = {source: places[fits(places, volume.shape)] for source, places in picks.items()}
    n = min(len(places) for source, places in held.items() if source != SHUFFLED)
    held = {source: places[:n] for source, places in held.items()}
    observed, judged = seen_frequencies(voxel), {}
    for source, places in held.items():
        particles = boxes(volume, places, voxel)
        both = [
            aligned(particles, hand, observed, voxel, rotations).correlation.numpy()
            for hand in (ribosome, mirrored_z(ribosome))
        ]
        judged[source] = np.column_stack([places, *both])
    rows = over_tiles(judged, voxel, config.seed)
    for row in rows:
        places = picks[row["source"]]
        row |= {"picks": len(places), "outside": float((~inside[tuple(places.astype(int).T)]).mean())}
    refined, boxed = {}, rotate_volume(ribosome, torch.eye(3)[None], torch.zeros(1, 3), voxel, box=BOX)[0]
    for source in (PHYSICS, SHUFFLED):
        side = tiles(held[source], voxel).sum(1) % 2  # halves of a chessboard
        halves = [
            refine(boxes(volume, held[source][side == k], voxel), boxed, observed, voxel, rotations) for k in (0, 1)
        ]
        mean = sum(halves) / 2
        refined[source] = {"halves": fourier_shell_correlation(*halves).tolist()}
        refined[source]["map"] = fourier_shell_correlation(mean, boxed).tolist()
        shown[f"average, {source}"] = mean[None, BOX // 2].numpy()
    shown |= {"map": boxed[None, BOX // 2].numpy(), "cell": volume[None, volume.shape[0] // 2]}
    near = np.abs(picks[PHYSICS][:, 0] - volume.shape[0] // 2) <= radii["ribosome"] / voxel / 2
    return {
        "rows": rows,
        "refined": refined,
        "own_scores": own,
        "cubes": cubes,
        "molecules": {"ribosomes": RIBOSOMES, "others": CROWDERS * len(crowders)},
        "maxima_near_picks": float(
            (scipy.spatial.KDTree(held[PHYSICS]).query(held[MAXIMA])[0] * voxel <= radii["ribosome"]).mean()
        ),
        "picks_in_slice": picks[PHYSICS][near].tolist(),
        "radius_A": radii["ribosome"],
        "voxel_size_A": voxel,
        "box": BOX,
        "steps": steps,
        "tilt_range_deg": list(run.G.tilt_range_deg),
        "data_hash": array_hash(volume),
        "slices": {k: np.asarray(v, np.float32) for k, v in shown.items()}
        | {f"judged, {k}": v.astype(np.float32) for k, v in judged.items()},
    } | described(config, "paper.cell")


def estimated(folder: Path, config: RunConfig) -> tuple[TrainedRun, int]:
    """The generator, on the CPU, from cubes round density maxima of the cell; and how many there were."""
    cubes = load_particles(folder / CELL, config.box, n=CUBES, protein="dark")
    domains = own_data.domains(cubes, f"ribosome={folder / CELL_MAP}", config)
    trained = paths.runs(config.profile) / "foreign" / "cell"
    train_on(config, domains, trained, replace=True)
    return load_run(trained), len(domains.Y_train)


def _cell_scenes(
    run: TrainedRun, references: Mapping[str, torch.Tensor], voxel_size_A: float, seed: int
) -> dict[str, list[Tomogram]]:
    """SCENES of the same specimens: by the generator, and by the CTF formula with the wedge and white noise, at the
    ratio of signal to noise that the generator has within BAND_A.
    """
    crowders = {name: CROWDERS for name in references if name != "ribosome"}
    order = Scenes({"ribosome": RIBOSOMES}, SHAPE, SCENES, seed, crowders, protein="bright", halves=True)
    factor = formula(SHAPE, voxel_size_A, CELL_MICROSCOPE)
    seen = seen_by_tilts(SHAPE, CELL_MICROSCOPE.tilt_min_deg, CELL_MICROSCOPE.tilt_max_deg)
    found = {PHYSICS: [], CTF_WEDGE: []}
    for number in range(SCENES):
        table, volumes = make_scene(run, references, order, number, voxel_size_A)
        noise = _band_power((volumes["even"] - volumes["odd"]) / 2, voxel_size_A)
        ratio = _band_power(volumes[""], voxel_size_A) / noise - 1
        rng = stream(seed, "cell", CTF_WEDGE, number)
        signal, white = (
            torch.fft.irfftn(torch.fft.rfftn(v) * f, s=SHAPE).numpy()
            for v, f in (
                (torch.from_numpy(volumes["density"]), factor * seen),
                (torch.randn(SHAPE, generator=rng), seen),
            )
        )
        powers = _band_power(signal, voxel_size_A) / _band_power(white, voxel_size_A)
        snr = ratio / powers * float(signal.var() / white.var())
        found[PHYSICS].append((volumes[""], table))
        found[CTF_WEDGE].append((noisy(volumes["density"], factor, snr, rng, seen), table))
    return found


def _band_power(volume: np.ndarray, voxel_size_A: float) -> float:
    """Mean power of a volume (Z, Y, X) within BAND_A; 1 for white noise of variance 1."""
    f = [torch.fft.fftfreq(n) for n in volume.shape[:2]] + [torch.fft.rfftfreq(volume.shape[2])]
    radius = sum(g**2 for g in torch.meshgrid(*f, indexing="ij")).sqrt()
    low, high = (voxel_size_A / a for a in BAND_A)
    power = torch.fft.rfftn(torch.from_numpy(volume), norm="ortho").abs().square()
    return float(power[(radius > low) & (radius < high)].mean())


def moved(places: np.ndarray, others: np.ndarray, voxel_size_A: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Places (M, 3) that lie MOVED_A beside picks (N, 3) of a tomogram, in the plane, APART_A from each of them, and
    whose mask holds no centre of other picks (K, 3); picks that have no such place beside them are left out.
    """
    rng, found = np.random.default_rng(seed), []
    own, other_tree = scipy.spatial.KDTree(places * voxel_size_A), scipy.spatial.KDTree(others * voxel_size_A)
    for place in places:
        for angle in rng.uniform(0, 2 * np.pi, 50):
            other = np.round(place + MOVED_A / voxel_size_A * np.array([0, np.sin(angle), np.cos(angle)]))
            at = other * voxel_size_A
            if fits(other[None], shape)[0] and own.query(at)[0] > APART_A and other_tree.query(at)[0] > MASK_A:
                found.append(other)
                break
    return np.array(found).reshape(-1, 3)


def fits(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Whether a box round each place (N, 3) lies in a tomogram of that shape."""
    corners = np.round(places).astype(int) - BOX // 2
    return (corners >= 0).all(1) & (corners + BOX <= np.array(shape)).all(1)


def boxes(volume: np.ndarray, places: np.ndarray, voxel_size_A: float) -> torch.Tensor:
    """Cubes (N, BOX, BOX, BOX) round places of a tomogram, of mean 0 and variance 1, in a soft mask that keeps
    neighbours out.
    """
    mask = soft_mask(voxel_size_A)
    corners = np.round(places).astype(int) - BOX // 2
    cut = [torch.from_numpy(volume[tuple(slice(a, a + BOX) for a in c)].copy()).float() for c in corners.tolist()]
    return torch.stack([(v - v.mean()) / v.std() * mask for v in cut])


def soft_mask(voxel_size_A: float) -> torch.Tensor:
    """1 within MASK_A of the centre of a box (BOX, BOX, BOX), falling to 0 over EDGE_A."""
    axis = (torch.arange(BOX) - BOX // 2) * voxel_size_A
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    return 0.5 + 0.5 * torch.cos(torch.pi * ((radius - MASK_A) / EDGE_A).clamp(0, 1))


def tiles(places: np.ndarray, voxel_size_A: float) -> np.ndarray:
    """Tile (N, 2), along y and x, of each place (N, 3)."""
    return (places[:, 1:3] * voxel_size_A // TILE_A).astype(int)


def over_tiles(judged: Mapping[str, np.ndarray], voxel_size_A: float, seed: int) -> list[dict]:
    """How much better the picks of each source fit the map than the mirror image, on average, with standard errors from
    tiles of the plane drawn with replacement, all sources together: neighbouring picks are not independent.

    Rows hold "correlation" with the map, "better", its "error", and "behind": what it is less than the first source's,
    with its "behind_error".
    """
    where = {source: tiles(found, voxel_size_A) for source, found in judged.items()}
    every = np.unique(np.concatenate(list(where.values())), axis=0)
    sums, counts = (np.zeros((len(judged), len(every))) for _ in range(2))
    for k, (source, found) in enumerate(judged.items()):
        index = (where[source][:, None] == every).all(2).argmax(1)
        np.add.at(sums[k], index, found[:, 3] - found[:, 4])
        np.add.at(counts[k], index, 1)
    drawn = np.random.default_rng(seed).multinomial(len(every), np.full(len(every), 1 / len(every)), DRAWS)
    means = (drawn @ sums.T) / np.maximum(drawn @ counts.T, 1)  # (DRAWS, sources)
    rows = []
    for k, (source, found) in enumerate(judged.items()):
        better = float((found[:, 3] - found[:, 4]).mean())
        row = {"source": source, "aligned": len(found), "correlation": float(found[:, 3].mean()), "better": better}
        row["error"] = float(means[:, k].std())
        behind = means[:, 0] - means[:, k]
        rows.append(row | {"behind": rows[0]["better"] - better if rows else 0.0, "behind_error": float(behind.std())})
    return rows


def seen_frequencies(voxel_size_A: float) -> torch.Tensor:
    """How far the tilts saw each spatial frequency, 0 beyond FINEST_A."""
    seen = wedge(BOX, -CELL_MICROSCOPE.tilt_max_deg, CELL_MICROSCOPE.tilt_max_deg)
    return torch.where((coordinates(BOX)[0] < voxel_size_A / FINEST_A) & (seen > 0.5), seen, 0.0)


def aligned(
    particles: torch.Tensor, reference: torch.Tensor, observed: torch.Tensor, voxel_size_A: float, rotations: int
) -> Found:
    """Poses of particles (N, BOX, BOX, BOX) against a reference, moved by up to SHIFT voxels; on the GPU if there is
    one.
    """
    there = particles.to(default_device())
    return search_poses(there, reference, observed, voxel_size_A, rotations=rotations, most_shift=SHIFT)


def refine(
    particles: torch.Tensor, reference: torch.Tensor, observed: torch.Tensor, voxel_size_A: float, rotations: int
) -> torch.Tensor:
    """The average (BOX, BOX, BOX) of particles after ROUNDS of alignment, each to the average of the one before, the
    first to a reference (BOX, BOX, BOX) that is cut at START_A, its edge one shell wide.
    """
    kept = ((voxel_size_A / START_A - coordinates(BOX)[0]) * BOX).clamp(0, 1)
    start = torch.fft.irfftn(torch.fft.rfftn(reference) * kept, s=(BOX,) * 3)
    for _ in range(ROUNDS):
        found = aligned(particles, start, observed, voxel_size_A, rotations)
        start = average(particles, found, voxel_size_A)
    return start


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The result by name."""
    few = dict(steps=3) if profile == "smoke" else {}
    config = make_config(profile, OWN_DATA, "physics", seed=seed)
    return {f"cell_seed{seed}": Case(config, partial(make_cell, **few), (CELL, CELL_MAP))}
