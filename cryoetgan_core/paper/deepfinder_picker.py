"""Pickers on DeepFinder's simulated tomograms, of nine classes: another program's, with labels.

As in `picker`; the generator is estimated from the molecules of one tomogram, whose shapes are the densities given, and
pickers are tested on the other.
"""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import torch

from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation.baselines import WHITE
from ..evaluation.downstream import PHYSICS, REAL
from ..generation import TrainedRun
from ..particles.picking import label_centres
from ..particles.volume_files import read_hdf5
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..reproducibility.seeds import stream
from ..scenes import Scenes, make_scene
from ..simulator.sets import RESOLUTION_VOXELS
from ..simulator.specimen.crowding import radius_A
from ..volumes.maps import resample
from ..volumes.table import particle_table
from .case import Case
from .foreign import DEEPFINDER, DEEPFINDER_VOXEL_A, LEAST_SHAPE
from .picker import LONG_OWN, LONG_STEPS, LONG_TRAINED_ON
from .picking import (
    NARROW,
    STEPS,
    THRESHOLDS,
    WIDE,
    estimated,
    heights_apart,
    noisy,
    picked_right,
    probabilities,
    scores,
    seen_by_tilts,
    train_picker,
)
from .record import described

MAP = 32  # voxels of a density from DeepFinder's labels; three molecules of each class lie in 100^3 voxels
LARGER, EACH, MORE_SCENES = (100, 160, 160), 5, 8  # so its scenes are larger: ours places balls
WEDGE = "(density + noise) x wedge"
FIXED = np.array([0.5])  # threshold of the real labels' picker, which has no second tomogram to set one on
SOURCES = (PHYSICS, WEDGE, WHITE, REAL)
LONG = {PHYSICS: "long", REAL: "long_real"}  # wider pickers, as those of `picker`, and names of files


def make_deepfinder(
    folder: Path,
    config: RunConfig,
    repeats: int = 2,
    steps: int = STEPS,
    sources: tuple[str, ...] = SOURCES,
    scenes: int = MORE_SCENES,
    own: int = 1,
    apart: bool = False,
) -> dict:
    """Scores of pickers on each of DeepFinder's two tomograms, with what the other one tells.

    Sources: tomograms of the generator that was estimated from the other one; the same specimens with white noise at
    the generator's ratio of signal to noise, with the missing wedge and without; and the other one itself with its
    labels. The wedge is that of the generator's tilts; `scenes` are made on each tomogram, none for real labels alone.
    `repeats` pickers of each source differ in their seed; thresholds are set on the last `own` of its tomograms.
    `apart`: pickers are WIDE, and pick by `heights_apart`.
    """
    both = [labelled(folder / name) for name in DEEPFINDER]
    rows, ranges, voxel, kept = [], [], DEEPFINDER_VOXEL_A, paths.runs(config.profile) / "pickers"
    for fold, (known, other) in enumerate((both, both[::-1])):
        volume, table, references = known
        radii = {name: radius_A(r, voxel) for name, r in references.items()}
        in_voxels = [radii[name] / voxel for name in sorted(radii)]
        heights_of, size = (partial(heights_apart, radii=in_voxels), WIDE) if apart else (probabilities, NARROW)
        trained = paths.runs(config.profile) / "foreign" / f"deepfinder_picker_{fold}"
        run, noise_power = estimated(config, [(volume, table)], references, voxel, trained)
        ranges.append(list(run.G.tilt_range_deg))
        made = {source: [(volume, table)] * (own + 1) if source == REAL else [] for source in sources}
        made_ones = scenes_of(run, references, scenes, config.seed, noise_power)
        for number, (placed, volumes) in enumerate(made_ones):
            snr = float(np.var(volumes[""]) / (np.var(volumes["even"] - volumes["odd"]) / 4) - 1)
            made[PHYSICS].append((volumes[""], placed))
            for source, seen in ((WEDGE, seen_by_tilts(LARGER, *ranges[-1])), (WHITE, None)):
                if source in made:
                    rng = stream(config.seed, "deepfinder", source, fold, number)
                    made[source].append((noisy(volumes["density"], None, snr, rng, seen), placed))
        for source, tomograms in made.items():
            levels = FIXED if source == REAL else THRESHOLDS
            for repeat in range(repeats):
                start = time.process_time()
                network = train_picker(tomograms[:-own], voxel, radii, 1000 * config.seed + repeat, steps, size, kept)
                heights = partial(heights_of, network)
                found = picked_right(heights, tomograms[-own:], [other[:2]], voxel, radii, levels)
                rows += [{"source": source, "fold": fold, "repeat": repeat} | row for row in found]
                rows[-1]["seconds"] = round(time.process_time() - start, 1)
    by_source = pd.DataFrame(rows).groupby("source")
    return {
        "scores": {s: [scores(part) for _, part in own.groupby(["fold", "repeat"])] for s, own in by_source},
        "rows": rows,
        "molecules": [len(b[1]) for b in both],
        "noise_of_empty_boxes": noise_power is not None,
        "tilt_range_deg": ranges,
        "steps": steps,
        "scenes": scenes,
        "data_hash": array_hash(*(b[0] for b in both)),
    } | described(config, "paper.deepfinder_picker")


def scenes_of(
    run: TrainedRun, references: Mapping[str, torch.Tensor], number: int, seed: int, noise_power: torch.Tensor | None
) -> Iterator[tuple[pd.DataFrame, dict[str, np.ndarray]]]:
    """What `make_scene` gives of as many scenes with EACH molecules of every class."""
    order = Scenes(dict.fromkeys(references, EACH), LARGER, max(number, 1), seed, protein="bright", halves=True)
    for k in range(number):
        yield make_scene(run, references, order, k, DEEPFINDER_VOXEL_A, noise_power)


def labelled(path: Path) -> tuple[np.ndarray, pd.DataFrame, dict[str, torch.Tensor]]:
    """A tomogram of DeepFinder, protein bright; its molecules; and a density of each class: the shape of one molecule
    that is whole.
    """
    volume = -read_hdf5(path, (3,)).astype(np.float32)
    labels = read_hdf5(path.with_name(path.name.replace("data", "target")), (3,))
    found, references = label_centres(labels, LEAST_SHAPE), {}
    for label, part in found.groupby("label"):
        centres = np.round(part[["z", "y", "x"]].to_numpy()).astype(int)
        inside = ((centres >= MAP // 2) & (centres + MAP // 2 <= labels.shape)).all(1)
        row = int(np.argmax(inside * part["voxels"].to_numpy()))
        cut = tuple(slice(c - MAP // 2, c + MAP // 2) for c in centres[row].tolist())
        shape, _ = scipy.ndimage.label(labels[cut] == label)
        own = torch.from_numpy((shape == np.bincount(shape[shape > 0]).argmax()).astype(np.float32))
        grid = dict(new_voxel_size_A=DEEPFINDER_VOXEL_A, box=MAP, resolution_A=RESOLUTION_VOXELS * DEEPFINDER_VOXEL_A)
        references[f"class {label}"] = resample(own, DEEPFINDER_VOXEL_A, **grid)
    table = particle_table(
        len(found),
        class_name=[f"class {label}" for label in found["label"]],
        particle=[str(k) for k in range(len(found))],
        tomogram=path.stem,
        source=str(path),
        **{f"{axis}_A": found[axis].to_numpy() * DEEPFINDER_VOXEL_A for axis in "xyz"},
    )
    return volume, table, references


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name."""
    few = dict(repeats=1, steps=3) if profile == "smoke" else {}
    own = partial(make_config, profile, OWN_DATA, "physics", seed=seed)
    labels = tuple(f.replace("data", "target") for f in DEEPFINDER)
    files, config = (*DEEPFINDER, *labels), own(box=20)
    plan = {f"deepfinder_picker_seed{seed}": Case(config, partial(make_deepfinder, **few), files)}
    for source, name in LONG.items():
        scenes = 0 if source == REAL else LONG_OWN + 1 if few else LONG_TRAINED_ON
        long = dict(repeats=1, steps=LONG_STEPS, sources=(source,), scenes=scenes, own=LONG_OWN, apart=True) | few
        plan[f"deepfinder_picker_{name}_seed{seed}"] = Case(config, partial(make_deepfinder, **long), files)
    return plan
