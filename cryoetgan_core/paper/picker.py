"""The proof of scenes: a picker that has seen nothing but generated tomograms, on tomograms of another kind.

A small 3-D U-Net (MONAI) is trained on tomograms of one source and picks in held-out tomograms of the microscope
simulator. Sources: scenes of the physics generator, which was estimated from unlabelled particles; the same specimens
with white noise, with the CTF formula, or with the CTF formula and the missing wedge, told the true signal-to-noise
ratio; and tomograms of the same simulator with their real labels. Template matching with the same densities is in
`template_matching`. Needs `pip install monai`.
"""

import time
from collections.abc import Mapping
from functools import partial

import pandas as pd
import torch

from ..config import DATASETS, RunConfig
from ..evaluation.baselines import CTF, WHITE
from ..evaluation.downstream import PHYSICS, REAL
from ..generation import TrainedRun
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..reproducibility.seeds import stream
from ..scenes import Scenes, make_scene
from ..simulator import scene
from ..simulator.sets import class_references
from ..simulator.specimen.crowding import radius_A
from .case import Case
from .picking import (
    CTF_WEDGE,
    NARROW,
    STEPS,
    WIDE,
    Tomogram,
    estimated,
    formula,
    heights_apart,
    noisy,
    normalised,
    picked_right,
    probabilities,
    scores,
    seen_by_tilts,
    train_picker,
)
from .proof import proof_config
from .record import described

SOURCES = (PHYSICS, CTF_WEDGE, CTF, WHITE, REAL)
TRAINED_ON, TESTED_ON = 4, 3  # tomograms; the last of those trained on sets the threshold
# Sources and numbers of tomograms, more than one for the learning curves. The generator's are a result of their own:
# when the generator changes, the others need not be made again.
ORDERS = ((PHYSICS, TRAINED_ON), (PHYSICS, 2), (PHYSICS, 12))
OTHERS = (*((source, TRAINED_ON) for source in SOURCES[1:]), (CTF_WEDGE, 12), (REAL, 12))
# Wider pickers, one of a source, in about an hour of a core; their picks are kept apart as those of templates are.
LONG = {PHYSICS: "long", CTF_WEDGE: "long_formula", REAL: "long_real"}  # and names of files
LONG_STEPS, LONG_TRAINED_ON, LONG_OWN = 2500, 48, 4
SHAPE = (64, 160, 160)
MOLECULES = 140  # in each tomogram, classes alike
SNR = 0.05


def _recorded(
    config: RunConfig,
    references: Mapping[str, torch.Tensor],
    counts: Mapping[str, int],
    number: int,
    voxel_size_A: float,
) -> Tomogram:
    """A tomogram of the microscope simulator, protein bright, with its molecules."""
    rng, scope = stream(config.data_seed, "picker, real", number), DATASETS[config.dataset].microscope
    table = scene.place(references, counts, SHAPE, voxel_size_A, rng, tomogram=f"real_{number}")
    series = scene.tilt_series(references, table, SHAPE, voxel_size_A, scope, rng, snr=config.snr)
    return -scene.tomogram(series.images, series.angles_deg, SHAPE[0]), table


def what_is_picked(config: RunConfig) -> tuple[dict[str, torch.Tensor], dict[str, int], float]:
    """Densities of the classes, how many of each are in a tomogram, and the voxel size."""
    names = [name for name in DATASETS[config.dataset].classes if name != "membrane"]
    voxel_size_A = DATASETS[config.dataset].field_of_view_A / config.box
    references = class_references(names, config.box, voxel_size_A)
    return references, dict.fromkeys(names, round(MOLECULES / len(names))), voxel_size_A


def recorded_tomograms(
    config: RunConfig, trained_on: int = TRAINED_ON, tested: int = TESTED_ON
) -> tuple[list[Tomogram], list[Tomogram]]:
    """Tomograms of the simulator to train on, and those that are held out: the same whatever their numbers."""
    references, counts, voxel_size_A = what_is_picked(config)
    real = [_recorded(config, references, counts, k, voxel_size_A) for k in range(trained_on + tested)]
    return real[:TRAINED_ON] + real[TRAINED_ON + tested :], real[TRAINED_ON : TRAINED_ON + tested]


def tomograms_of(
    source: str,
    config: RunConfig,
    run: TrainedRun,
    noise_power: torch.Tensor | None,
    references: Mapping[str, torch.Tensor],
    counts: Mapping[str, int],
    voxel_size_A: float,
    many: int = TRAINED_ON,
) -> list[Tomogram]:
    """Tomograms of one of SOURCES but REAL: the same specimens whatever the source."""
    made, order = [], Scenes(counts, SHAPE, many, config.data_seed, protein="bright")
    scope = DATASETS[config.dataset].microscope
    factor = formula(SHAPE, voxel_size_A, scope) if source in (CTF, CTF_WEDGE) else None
    seen = seen_by_tilts(SHAPE, scope.tilt_min_deg, scope.tilt_max_deg) if source == CTF_WEDGE else None
    for number in range(many):
        table, volumes = make_scene(run, references, order, number, voxel_size_A, noise_power)
        if source != PHYSICS:
            rng = stream(config.data_seed, "picker", source, number)
            volumes[""] = noisy(volumes["density"], factor, config.snr, rng, seen)
        made.append((volumes[""], table))
    return made


def make_picker(
    config: RunConfig,
    repeats: int = 2,
    steps: int = STEPS,
    tested: int = TESTED_ON,
    orders: tuple[tuple[str, int], ...] = ORDERS,
    own: int = 1,
    apart: bool = False,
) -> dict:
    """Scores, on held-out tomograms of the simulator, of pickers trained on tomograms of a source, so many: `orders`.

    Each picker is trained on all tomograms of its source but the last, `own` of them, on which its thresholds are set,
    one a class, at the largest F1. `repeats` pickers of each order differ in their seed. `apart`: they are WIDE, and
    pick by `heights_apart`.
    """
    references, counts, voxel_size_A = what_is_picked(config)
    names, radii = list(references), {name: radius_A(r, voxel_size_A) for name, r in references.items()}
    in_voxels = [radii[name] / voxel_size_A for name in sorted(radii)]
    heights_of, size = (partial(heights_apart, radii=in_voxels), WIDE) if apart else (probabilities, NARROW)
    most = max([TRAINED_ON, *(many for source, many in orders if source == REAL)])
    more, tested_on = recorded_tomograms(config, most, tested)
    trained_on = more[:TRAINED_ON]
    folder = paths.runs(config.profile) / "picker" / f"{config.dataset}_seed{config.seed}"
    run, noise_power = estimated(config, trained_on, references, voxel_size_A, folder)
    rows, shown, kept = [], {}, paths.runs(config.profile) / "pickers"
    for source, many in orders:
        made = more[:many]
        if source != REAL:
            made = tomograms_of(source, config, run, noise_power, references, counts, voxel_size_A, many)
        shown.setdefault(source, normalised(made[0][0])[None, SHAPE[0] // 2])
        for repeat in range(repeats):
            start = time.process_time()
            network = train_picker(made[:-own], voxel_size_A, radii, 1000 * config.seed + repeat, steps, size, kept)
            found = picked_right(partial(heights_of, network), made[-own:], tested_on, voxel_size_A, radii)
            rows += [{"source": source, "trained_on": many, "repeat": repeat} | row for row in found]
            rows[-1]["seconds"] = round(time.process_time() - start, 1)
    table = pd.DataFrame(rows)
    as_many = table[table["trained_on"] == TRAINED_ON]
    shown["test"] = normalised(tested_on[0][0])[None, SHAPE[0] // 2]
    return {
        "scores": {source: _scores_of_repeats(own) for source, own in as_many.groupby("source")},
        "learning_curves": {
            source: {str(many): _scores_of_repeats(part) for many, part in own.groupby("trained_on")}
            for source, own in table.groupby("source")
        },
        "rows": rows,
        "classes": names,
        "counts": counts,
        "steps": steps,
        "voxel_size_A": voxel_size_A,
        "slices": shown,
        "data_hash": array_hash(*(volume for volume, _ in (*trained_on, *tested_on, *more[TRAINED_ON:]))),
        **({"noise_of_empty_boxes": noise_power is not None} if PHYSICS in shown else {}),
    } | described(config, "paper.picker")


def _scores_of_repeats(rows: pd.DataFrame) -> list[dict[str, float]]:
    """Scores of each picker."""
    return [scores(own) for _, own in rows.groupby("repeat")]


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name."""
    small = dict(repeats=1, steps=3, tested=1) if profile == "smoke" else {}
    few = ORDERS[:2], (*OTHERS[: len(SOURCES) - 1], (REAL, 5))
    plan = {}
    for dataset in DATASETS:
        config = proof_config(profile, dataset, SNR, seed)
        for kind, orders in zip(("", "_others"), few if small else (ORDERS, OTHERS), strict=True):
            plan[f"picker_{dataset}{kind}_seed{seed}"] = Case(config, partial(make_picker, orders=orders, **small))
        for source, name in LONG.items():
            orders = ((source, LONG_OWN + 1 if small else LONG_TRAINED_ON),)
            long = dict(orders=orders, repeats=1, steps=LONG_STEPS, own=LONG_OWN, apart=True) | small
            plan[f"picker_{dataset}_{name}_seed{seed}"] = Case(config, partial(make_picker, **long))
    return plan
