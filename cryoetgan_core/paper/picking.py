"""Pickers of molecules in tomograms, and what they are scored by: a small 3-D U-Net (MONAI), peaks, precision and
recall; and the tomograms they are trained on. Needs `pip install monai`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import torch

from ..config import RunConfig
from ..evaluation.baselines import ctf_at
from ..generation import TrainedRun, load_run
from ..particles.picked import cut_at, cut_empty, enough_empty
from ..physics.any_size import mean_power
from ..physics.pick_error import as_picked
from ..reproducibility.files import write_atomically
from ..reproducibility.provenance import array_hash, code_hash
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import Microscope
from ..simulator.sets import density_maps
from ..volumes.domains import Domains
from ..volumes.table import POSITION_COLUMNS, ParticleSet, particle_table
from .runs import train_on
from .simulated_sets import default_device

STEPS, BATCH, PATCH = 2000, 4, 48
NARROW, WIDE = ((16, 32, 64), 1), ((32, 64, 128, 192), 2)  # channels of a U-Net's levels, convolutions of a unit
FLIPS = ((1,), (0, 2), (0, 1, 2), ())  # these leave the missing wedge in place
TARGET = 0.5  # of a molecule's radius: the ball round its centre that the network is to find
BETA = 4  # of the F score that weighs recall more, as the CZII challenge does
THRESHOLDS = np.linspace(0.1, 0.9, 17)
CTF_WEDGE = "(density x CTF formula + noise) x wedge"
CHUNKS = 16  # in which maxima are looked at
EMPTY = 64  # boxes without a molecule that are cut from a tomogram
KEPT = 100  # steps after which the state of a training is kept

Size = tuple[tuple[int, ...], int]
Tomogram = tuple[np.ndarray, pd.DataFrame]  # protein bright; a row a molecule


def estimated(
    config: RunConfig,
    tomograms: list[Tomogram],
    references: Mapping[str, torch.Tensor],
    voxel_size_A: float,
    folder: Path,
    mend: bool = False,
) -> tuple[TrainedRun, torch.Tensor | None]:
    """A physics run, in `folder`, from particles cut out of tomograms where molecules are (their classes and poses are
    not used), and the power of boxes where none are, if there are enough. `mend` moves the densities as far off centre
    as the particles are found to be.
    """
    y = particles_in(tomograms, voxel_size_A, config.box)

    def cut(side: int) -> np.ndarray:
        rng, empty = stream(config.data_seed, "picker", "empty"), []
        for volume, table in tomograms:
            picks = table[list(POSITION_COLUMNS[::-1])].to_numpy() / voxel_size_A
            empty.append(cut_empty(volume, voxel_size_A, picks, side, voxel_size_A, EMPTY, rng))
        return np.concatenate(empty)

    e = enough_empty(cut, config.box)
    beside = None if e is None else ParticleSet(e, particle_table(len(e)), voxel_size_A)
    x = density_maps(references, 50, config.box, voxel_size_A, stream(config.data_seed, "picker", "X"))
    both = Domains(x, x, y, y, beside)
    if mend:
        both = as_picked(both, config.data_seed).domains
    train_on(config, both, folder, replace=True)
    run = load_run(folder)  # scenes are made on the CPU
    return run, None if e is None else mean_power(run.scaling.y(torch.from_numpy(e)))


def particles_in(tomograms: list[Tomogram], voxel_size_A: float, box: int) -> ParticleSet:
    """Particles cut out of tomograms where their tables say that molecules are."""
    cut = [cut_at(v, voxel_size_A, t.assign(source=""), box) for v, t in tomograms]
    table = pd.concat([c.table for c in cut], ignore_index=True)
    return ParticleSet(np.concatenate([c.volumes for c in cut]), table, voxel_size_A)


def _unet(classes: int, size: Size) -> torch.nn.Module:
    try:
        from monai.networks.nets import UNet
    except ImportError as missing:
        raise ImportError("The picker needs MONAI: pip install monai") from missing
    channels, units = size
    return UNet(3, 1, classes + 1, channels, (2,) * (len(channels) - 1), num_res_units=units, norm="INSTANCE")


def targets(
    table: pd.DataFrame, shape: tuple[int, ...], voxel_size_A: float, radii_A: Mapping[str, float]
) -> np.ndarray:
    """Label volume (Z, Y, X): the number of its class, from 1 in the order of names, in a ball round each molecule."""
    labels = np.zeros(shape, np.uint8)
    for number, name in enumerate(sorted(radii_A), start=1):
        r = max(TARGET * radii_A[name] / voxel_size_A, 1.5)
        reach = int(np.ceil(r)) + 1
        offsets = np.mgrid[(slice(-reach, reach + 1),) * 3].reshape(3, -1).T
        for place in table.loc[table["class_name"] == name, list(POSITION_COLUMNS[::-1])].to_numpy() / voxel_size_A:
            voxels = np.round(place).astype(int) + offsets
            voxels = voxels[
                (np.linalg.norm(voxels - place, axis=1) <= r) & (voxels >= 0).all(1) & (voxels < shape).all(1)
            ]
            labels[tuple(voxels.T)] = number
    return labels


def train_picker(
    tomograms: list[Tomogram],
    voxel_size_A: float,
    radii_A: Mapping[str, float],
    seed: int,
    steps: int = STEPS,
    size: Size = NARROW,
    folder: Path | None = None,
) -> torch.nn.Module:
    """A U-Net trained on patches of tomograms, half of them round a molecule. Tomograms get mean 0 and variance 1.

    In a `folder` the state is kept every KEPT steps: a stopped training goes on from there, if tomograms, settings and
    code are the same, and ends in the same weights.
    """
    from monai.losses import DiceCELoss

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _unet(len(radii_A), size).to(default_device()).train()
    rng, loss_of = np.random.default_rng(seed), DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    volumes = [torch.from_numpy(normalised(v)).to(default_device()) for v, _ in tomograms]
    labels = [torch.from_numpy(targets(t, v.shape, voxel_size_A, radii_A)).to(default_device()) for v, t in tomograms]
    places = [t[list(POSITION_COLUMNS[::-1])].to_numpy() / voxel_size_A for _, t in tomograms]
    done, parts = 0, {"network": network, "optimizer": optimizer, "rates": rates}
    kept = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        inputs = np.array([seed, steps, *size[0], size[1]]), *(v.cpu().numpy() for v in (*volumes, *labels))
        kept = folder / f"{array_hash(*inputs)}_{code_hash('paper.picking')}.pt"
    if kept and kept.exists():
        found = torch.load(kept, map_location=default_device(), weights_only=True)
        done, rng.bit_generator.state = found["done"], found["rng"]
        for name, part in parts.items():
            part.load_state_dict(found[name])
    for step in range(done, steps):
        x, y = [], []
        for k in range(BATCH):
            i = int(rng.integers(len(volumes)))
            most = np.array(volumes[i].shape) - PATCH
            low = rng.integers(most + 1)
            if k % 2 == 0:
                centre = places[i][rng.integers(len(places[i]))] + rng.uniform(-PATCH / 4, PATCH / 4, 3)
                low = np.clip(np.round(centre - PATCH / 2), 0, most).astype(int)
            cut = tuple(slice(a, a + PATCH) for a in low.tolist())
            flips = FLIPS[rng.integers(len(FLIPS))]
            x.append(volumes[i][cut].flip(flips))
            y.append(labels[i][cut].flip(flips))
        loss = loss_of(network(torch.stack(x)[:, None]), torch.stack(y)[:, None].long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rates.step()
        if kept and (step + 1) % KEPT == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"done": step + 1, "rng": rng.bit_generator.state}
            write_atomically(kept, lambda path, state=state: torch.save(state, path))
    return network.eval()


def normalised(volume: np.ndarray) -> np.ndarray:
    """A tomogram of mean 0 and variance 1."""
    return ((volume - volume.mean()) / volume.std()).astype(np.float32)


@torch.no_grad()
def probabilities(network: torch.nn.Module, volume: np.ndarray) -> np.ndarray:
    """Probability (classes, Z, Y, X) of each class, smoothed, from patches that overlap by a half."""
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer((PATCH,) * 3, sw_batch_size=4, overlap=0.5, mode="gaussian")
    seen = torch.from_numpy(normalised(volume))[None, None].to(next(network.parameters()).device)
    found = inferer(seen, network).softmax(1)[0, 1:].cpu().numpy()
    return np.stack([scipy.ndimage.gaussian_filter(one, 1.0) for one in found])


def mean_probabilities(network: torch.nn.Module, volume: np.ndarray) -> np.ndarray:
    """Mean of `probabilities` over a tomogram and its mirror images."""
    each = (np.flip(probabilities(network, np.flip(volume, f).copy()), [a + 1 for a in f]) for f in FLIPS)
    return sum(each) / len(FLIPS)


def heights_apart(network: torch.nn.Module, volume: np.ndarray, radii: list[float]) -> np.ndarray:
    """`mean_probabilities` at the maxima that `kept_apart` leaves; radii (voxels) in the order of sorted classes."""
    return kept_apart(mean_probabilities(network, volume), radii, THRESHOLDS[0])


def peaks(height: np.ndarray, radius: float, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Maxima (N, 3), zyx, above `least`, none within `radius` voxels of a higher one, and their heights."""
    reach = int(np.ceil(radius))
    ball = np.argwhere(np.linalg.norm(np.mgrid[(slice(-reach, reach + 1),) * 3], axis=0) <= radius)
    padded = np.pad(height, reach, constant_values=-np.inf)
    found = np.argwhere((height == scipy.ndimage.maximum_filter(height, size=3)) & (height > least))
    highest = [padded[tuple(np.moveaxis(part[:, None] + ball, -1, 0))].max(1) for part in np.array_split(found, CHUNKS)]
    found = found[np.concatenate(highest) == height[tuple(found.T)]]
    return found, height[tuple(found.T)]


def kept_apart(height: np.ndarray, radii: list[float], least: float) -> np.ndarray:
    """Heights (classes, Z, Y, X) at the maxima of each class, above `least`, that do not lie within the radius (voxels)
    of a higher one that is kept, of its own class or of another; elsewhere -inf. So the flank of a molecule is no
    molecule of another class.
    """
    each = [peaks(one, radius, least) for one, radius in zip(height, radii, strict=True)]
    places = np.concatenate([found for found, _ in each])
    values = np.concatenate([value for _, value in each])
    classes = np.repeat(np.arange(len(each)), [len(value) for _, value in each])
    kept, left = np.full(height.shape, -np.inf, np.float32), np.ones(len(places), bool)
    for k in np.argsort(-values):
        if left[k]:
            kept[(classes[k], *places[k])] = values[k]
            left &= np.linalg.norm(places - places[k], axis=1) > radii[classes[k]]
    return kept


def matched(picks: np.ndarray, truth: np.ndarray, within: float) -> int:
    """How many picks (N, 3) can be paired one to one with molecules (M, 3) that are at most `within` away."""
    if not len(picks) or not len(truth):
        return 0
    near = scipy.spatial.distance.cdist(picks, truth) <= within
    rows, columns = scipy.optimize.linear_sum_assignment(~near)
    return int(near[rows, columns].sum())


def counted(
    heights: np.ndarray,
    table: pd.DataFrame,
    voxel_size_A: float,
    radii_A: Mapping[str, float],
    thresholds: np.ndarray = THRESHOLDS,
) -> pd.DataFrame:
    """Picks, molecules and right picks (within half a diameter), by class and threshold, of the height (classes, Z, Y,
    X) that a picker gives each voxel of a tomogram with the molecules of `table`.
    """
    rows = []
    for name, height in zip(sorted(radii_A), heights, strict=True):
        radius = radii_A[name] / voxel_size_A
        places, value = peaks(height, radius, thresholds[0])
        truth = table.loc[table["class_name"] == name, list(POSITION_COLUMNS[::-1])].to_numpy() / voxel_size_A
        for threshold in thresholds:
            kept = places[value > threshold]
            right = matched(kept, truth, radius)
            rows.append({"class_name": name, "threshold": threshold, "picks": len(kept), "molecules": len(truth)})
            rows[-1]["right"] = right
    return pd.DataFrame(rows)


def best_thresholds(counts: pd.DataFrame, middle: bool = False) -> dict[str, float]:
    """The threshold of each class at which its F1 is largest, from `counted`; of equally good ones the lowest, or the
    `middle` one.
    """
    chosen = {}
    for name, part in counts.groupby("class_name"):
        f1 = {threshold: scores(same)["f1"] for threshold, same in part.groupby("threshold")}
        best = [threshold for threshold, value in f1.items() if value == max(f1.values())]
        chosen[name] = best[len(best) // 2 if middle else 0]
    return chosen


def picked_right(
    heights_of: Callable[[np.ndarray], np.ndarray],
    own: list[Tomogram],
    tested_on: list[Tomogram],
    voxel_size_A: float,
    radii_A: Mapping[str, float],
    thresholds: np.ndarray = THRESHOLDS,
    middle: bool = False,
) -> list[dict]:
    """Rows of `counted` of each tomogram tested on, at the thresholds that are best on a picker's own ones
    (`best_thresholds`).
    """
    each = [counted(heights_of(volume), table, voxel_size_A, radii_A, thresholds) for volume, table in own]
    chosen = best_thresholds(pd.concat(each), middle)
    rows = []
    for number, (volume, table) in enumerate(tested_on):
        found = counted(heights_of(volume), table, voxel_size_A, radii_A, thresholds)
        found = found[found["threshold"] == found["class_name"].map(chosen)]
        rows += [{"tomogram": number} | row for row in found.to_dict("records")]
    return rows


def scores(counts: pd.DataFrame) -> dict[str, float]:
    """Precision, recall, F1 and F-beta of counts by class, each the mean over classes."""
    sums = counts.groupby("class_name")[["picks", "molecules", "right"]].sum()
    precision = sums["right"] / sums["picks"].clip(lower=1)
    recall = sums["right"] / sums["molecules"].clip(lower=1)

    def f(beta: float) -> float:
        below = (beta**2 * precision + recall).where(lambda v: v > 0, 1)
        return float(((1 + beta**2) * precision * recall / below).mean())

    return {"precision": float(precision.mean()), "recall": float(recall.mean()), "f1": f(1), f"f{BETA}": f(BETA)}


def _frequencies(shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Frequencies z, y and x of an rfft, each (Z, Y, X // 2 + 1), in cycles a voxel."""
    each = *(torch.fft.fftfreq(n) for n in shape[:2]), torch.fft.rfftfreq(shape[2])
    return torch.meshgrid(*each, indexing="ij")


def seen_by_tilts(shape: tuple[int, ...], lowest_deg: float, highest_deg: float) -> torch.Tensor:
    """Factor (Z, Y, X // 2 + 1) of an rfft: 1 where tilts about y between two angles see, 0 in the missing wedge."""
    z, _, x = _frequencies(shape)
    tilt = torch.rad2deg(torch.atan2(-z, x))  # as `physics.fourier_grid.coordinates`
    return (((tilt >= lowest_deg) & (tilt <= highest_deg)) | ((x == 0) & (z == 0))).float()


def formula(shape: tuple[int, ...], voxel_size_A: float, scope: Microscope) -> torch.Tensor:
    """Factor (Z, Y, X // 2 + 1) of an rfft: the CTF formula at the mean defocus."""
    z, y, x = _frequencies(shape)
    return ctf_at((z**2 + y**2 + x**2).sqrt(), voxel_size_A, scope, scope.defocus_um)


def noisy(
    density: np.ndarray,
    factor: torch.Tensor | None,
    snr: float,
    generator: torch.Generator,
    seen: torch.Tensor | None = None,
) -> np.ndarray:
    """A specimen (Z, Y, X) whose rfft is multiplied by a factor, where there is one, with white noise; and both as the
    tilts see them, where `seen` tells. `snr` is the variance of the one over that of the other in what is returned.
    """
    signal = torch.from_numpy(density)
    noise = torch.randn(signal.shape, generator=generator)
    signal, noise = (
        v if f is None else torch.fft.irfftn(torch.fft.rfftn(v) * f, s=density.shape)
        for v, f in ((signal, factor if seen is None else seen * (1 if factor is None else factor)), (noise, seen))
    )
    return (signal + (signal.var() / noise.var() / snr).sqrt() * noise).numpy()
