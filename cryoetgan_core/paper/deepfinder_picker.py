"""Pickers on DeepFinder's simulated tomograms, of nine classes: another program's, with labels.

As in `picker`; the generator is estimated from the molecules of one tomogram, whose shapes are the densities given, and
pickers are tested on the other.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation.baselines import WHITE
from ..evaluation.downstream import PHYSICS, REAL
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
from .foreign import DEEPFINDER, DEEPFINDER_VOXEL_A, LEAST_SHAPE, Foreign
from .picking import (
    STEPS,
    THRESHOLDS,
    estimated,
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


def make_deepfinder(folder: Path, config: RunConfig, repeats: int = 2, steps: int = STEPS) -> dict:
    """Scores of pickers on each of DeepFinder's two tomograms, with what the other one tells.

    Sources: tomograms of the generator that was estimated from the other one; the same specimens with white noise at
    the generator's ratio of signal to noise, with the missing wedge and without; and the other one itself with its
    labels. The wedge is that of the generator's tilts. `repeats` pickers of each source differ in their seed.
    """
    both = [labelled(folder / name) for name in DEEPFINDER]
    rows, ranges, voxel = [], [], DEEPFINDER_VOXEL_A
    for fold, (known, other) in enumerate((both, both[::-1])):
        volume, table, references = known
        radii = {name: radius_A(r, voxel) for name, r in references.items()}
        trained = paths.runs(config.profile) / "foreign" / f"deepfinder_picker_{fold}"
        run, noise_power = estimated(config, [(volume, table)], references, voxel, trained)
        ranges.append(list(run.G.tilt_range_deg))
        order = Scenes(dict.fromkeys(references, EACH), LARGER, MORE_SCENES, config.seed, protein="bright", halves=True)
        made = {PHYSICS: [], WEDGE: [], WHITE: []}
        for number in range(MORE_SCENES):
            placed, volumes = make_scene(run, references, order, number, voxel, noise_power)
            snr = float(np.var(volumes[""]) / (np.var(volumes["even"] - volumes["odd"]) / 4) - 1)
            made[PHYSICS].append((volumes[""], placed))
            for source, seen in ((WEDGE, seen_by_tilts(LARGER, *ranges[-1])), (WHITE, None)):
                rng = stream(config.seed, "deepfinder", source, fold, number)
                made[source].append((noisy(volumes["density"], None, snr, rng, seen), placed))
        made[REAL] = [(volume, table)] * 2
        for source, tomograms in made.items():
            levels = FIXED if source == REAL else THRESHOLDS
            for repeat in range(repeats):
                network = train_picker(tomograms[:-1], voxel, radii, 1000 * config.seed + repeat, steps)
                heights = partial(probabilities, network)
                found = picked_right(heights, tomograms[-1:], [other[:2]], voxel, radii, levels)
                rows += [{"source": source, "fold": fold, "repeat": repeat} | row for row in found]
    by_source = pd.DataFrame(rows).groupby("source")
    return {
        "scores": {s: [scores(part) for _, part in own.groupby(["fold", "repeat"])] for s, own in by_source},
        "rows": rows,
        "molecules": [len(b[1]) for b in both],
        "noise_of_empty_boxes": noise_power is not None,
        "tilt_range_deg": ranges,
        "steps": steps,
        "data_hash": array_hash(*(b[0] for b in both)),
    } | described(config, "paper.deepfinder_picker")


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
        shape, _ = ndimage.label(labels[cut] == label)
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


def planned(profile: str, seed: int) -> dict[str, Foreign]:
    """The result by name."""
    few = dict(repeats=1, steps=3) if profile == "smoke" else {}
    own = partial(make_config, profile, OWN_DATA, "physics", seed=seed)
    labels = tuple(f.replace("data", "target") for f in DEEPFINDER)
    return {
        f"deepfinder_picker_seed{seed}": Foreign((*DEEPFINDER, *labels), own(box=20), partial(make_deepfinder, **few))
    }
