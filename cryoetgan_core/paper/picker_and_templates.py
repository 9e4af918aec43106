"""A picker and template matching together: the network says where molecules are, both say of which class.

Both come from the physics generator alone: the larger picker of `picker` is trained on its tomograms, and templates are
the densities seen through its transfer function, over the power of its noise. At each place where the network sees a
molecule, a logistic regression turns the probabilities of the network and the scores of the templates into the
probability of each class. It is fitted on tomograms of the generator too. Needs `pip install monai scikit-learn`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import torch

from ..config import DATASETS, RunConfig
from ..evaluation.downstream import PHYSICS
from ..generation import TrainedRun
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..simulator.specimen.crowding import radius_A
from ..volumes.table import POSITION_COLUMNS
from . import deepfinder_picker, picker
from .case import Case
from .deepfinder_picker import labelled, scenes_of
from .foreign import DEEPFINDER, DEEPFINDER_VOXEL_A
from .picker import recorded_tomograms, tomograms_of, what_is_picked
from .picking import (
    THRESHOLDS,
    WIDE,
    Tomogram,
    estimated,
    kept_apart,
    mean_probabilities,
    picked_right,
    scores,
    train_picker,
)
from .proof import proof_config
from .record import described
from .template_matching import LEVELS, ROTATIONS, TEMPLATES, template_scores
from .wrong_input import matched_filter

BOTH = "picker and templates"
BEST = "picker, class of the best template"
LEAST = 0.02  # probability of a place that is looked at
REACH = 5  # voxels a side of the cube in which the largest probability and score are taken
CERTAIN = 1e-4  # a probability that is nearer to 0 or 1 counts as this far from it


def candidates(maps: np.ndarray, radii: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3), zyx, where a network sees a molecule, and features (N, 2 C) of each: the log odds of each class,
    and the score of its templates, the largest nearby.

    Parameters
    ----------
    maps
        (2 C, Z, Y, X): probabilities of the classes, and scores of their templates.
    radii
        of the classes, voxels.
    """
    seen = kept_apart(maps[: len(radii)], radii, LEAST)
    places = np.argwhere(np.isfinite(seen.max(0)))
    near = np.stack([scipy.ndimage.maximum_filter(one, REACH)[tuple(places.T)] for one in maps], axis=1)
    odds = near[:, : len(radii)].clip(CERTAIN, 1 - CERTAIN)
    return places, np.concatenate([np.log(odds / (1 - odds)), near[:, len(radii) :]], axis=1)


def true_class(
    places: np.ndarray, table: pd.DataFrame, voxel_size_A: float, radii_A: Mapping[str, float]
) -> np.ndarray:
    """For each place (N, 3), voxels, the number of the class, in the order of names, of the nearest molecule within
    whose radius it lies; for others the number of classes.
    """
    names, nearest = sorted(radii_A), np.full(len(places), np.inf)
    found = np.full(len(places), len(names))
    for number, name in enumerate(names):
        centres = table.loc[table["class_name"] == name, list(POSITION_COLUMNS[::-1])].to_numpy() / voxel_size_A
        off = np.linalg.norm(places[:, None] - centres, axis=2).min(1)
        nearer = (off <= radii_A[name] / voxel_size_A) & (off < nearest)
        found[nearer], nearest[nearer] = number, off[nearer]
    return found


def fitted(
    own: list[Tomogram], voxel_size_A: float, radii_A: Mapping[str, float]
) -> Callable[[np.ndarray], np.ndarray]:
    """What turns maps (`candidates`) into heights (C, Z, Y, X): a logistic regression, fitted on maps whose molecules
    are known; the probability of each class at the places where a network sees a molecule, elsewhere -inf.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    radii = [radii_A[name] / voxel_size_A for name in sorted(radii_A)]
    each = [(*candidates(maps, radii), table) for maps, table in own]
    labels = np.concatenate([true_class(places, table, voxel_size_A, radii_A) for places, _, table in each])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(np.concatenate([features for _, features, _ in each]), labels)

    def heights(maps: np.ndarray) -> np.ndarray:
        places, features = candidates(maps, radii)
        found = np.full((len(radii), *maps.shape[1:]), -np.inf, np.float32)
        if not len(places):
            return found
        for number, probability in zip(model.classes_, model.predict_proba(features).T, strict=True):
            if number < len(radii):
                found[(number, *places.T)] = probability
        return kept_apart(found, radii, 0.0)

    return heights


def by_best_template(maps: np.ndarray, radii: list[float]) -> np.ndarray:
    """Heights (C, Z, Y, X) from maps (`candidates`), nothing fitted: at each place where a network sees a molecule, its
    largest probability, for the class whose templates fit best; elsewhere -inf.
    """
    places, features = candidates(maps, radii)
    probabilities, matched = np.split(features, 2, axis=1)
    found = np.full((len(radii), *maps.shape[1:]), -np.inf, np.float32)
    found[(matched.argmax(1), *places.T)] = scipy.special.expit(probabilities.max(1))
    return kept_apart(found, radii, 0.0)


def compared(
    network: torch.nn.Module,
    run: TrainedRun,
    noise_power: torch.Tensor | None,
    own: list[Tomogram],
    tested_on: list[Tomogram],
    references: Mapping[str, torch.Tensor],
    voxel_size_A: float,
    rotations: int,
) -> list[dict]:
    """Rows of `picked_right`, with "source": a network's picks, those of templates seen through the transfer function
    of `run` over its noise (`matched_filter`), BEST and BOTH. All thresholds are set, and the regression is fitted, on
    `own` tomograms.
    """
    radii = {name: radius_A(r, voxel_size_A) for name, r in references.items()}
    in_voxels, classes = [radii[name] / voxel_size_A for name in sorted(radii)], len(radii)

    def maps(volume: np.ndarray) -> np.ndarray:
        factor = matched_filter(run, volume.shape, noise_power)
        seen, matched = mean_probabilities(network, volume), template_scores(volume, references, factor, rotations)
        return np.concatenate([seen, matched])

    own_maps, tested_maps = ([(maps(v), table) for v, table in some] for some in (own, tested_on))
    ways = {
        PHYSICS: (lambda found: kept_apart(found[:classes], in_voxels, THRESHOLDS[0]), THRESHOLDS),
        TEMPLATES: (lambda found: kept_apart(found[classes:], in_voxels, LEVELS[0]), LEVELS),
        BEST: (partial(by_best_template, radii=in_voxels), THRESHOLDS),
        BOTH: (fitted(own_maps, voxel_size_A, radii), THRESHOLDS),
    }
    return [
        {"source": name} | row
        for name, (heights, levels) in ways.items()
        for row in picked_right(heights, own_maps, tested_maps, voxel_size_A, radii, levels)
    ]


def make_both(
    config: RunConfig,
    trained_on: int = picker.LONG_TRAINED_ON,
    own: int = picker.LONG_OWN,
    steps: int = picker.LONG_STEPS,
    rotations: int = ROTATIONS,
    tested: int = picker.TESTED_ON,
) -> dict:
    """Scores, on held-out tomograms of the simulator, of the ways of `compared`; the network is the generator's larger
    picker. The last `own` of the `trained_on` tomograms of the generator set thresholds, the others train the network.
    """
    references, counts, voxel_size_A = what_is_picked(config)
    radii = {name: radius_A(r, voxel_size_A) for name, r in references.items()}
    recorded, tested_on = recorded_tomograms(config, picker.TRAINED_ON, tested)
    folder = paths.runs(config.profile) / "picker_and_templates" / f"{config.dataset}_seed{config.seed}"
    kept = paths.runs(config.profile) / "pickers"
    run, noise_power = estimated(config, recorded, references, voxel_size_A, folder)
    made = tomograms_of(PHYSICS, config, run, noise_power, references, counts, voxel_size_A, trained_on)
    network = train_picker(made[:-own], voxel_size_A, radii, 1000 * config.seed, steps, WIDE, kept)
    rows = compared(network, run, noise_power, made[-own:], tested_on, references, voxel_size_A, rotations)
    return _result(rows, config, steps, rotations, trained_on, [*recorded, *tested_on])


def make_deepfinder(
    folder: Path,
    config: RunConfig,
    fold: int,
    trained_on: int = picker.LONG_TRAINED_ON,
    own: int = picker.LONG_OWN,
    steps: int = picker.LONG_STEPS,
    rotations: int = ROTATIONS,
) -> dict:
    """The same on one of DeepFinder's two tomograms; the generator is estimated from the other, number `fold`, whose
    molecules are the densities (see `deepfinder_picker`).
    """
    both = [labelled(folder / name) for name in DEEPFINDER]
    (volume, table, references), other = both[fold], both[1 - fold]
    radii = {name: radius_A(r, DEEPFINDER_VOXEL_A) for name, r in references.items()}
    estimate = paths.runs(config.profile) / "picker_and_templates" / f"deepfinder_{fold}"
    kept = paths.runs(config.profile) / "pickers"
    run, noise_power = estimated(config, [(volume, table)], references, DEEPFINDER_VOXEL_A, estimate)
    made = [
        (volumes[""], placed) for placed, volumes in scenes_of(run, references, trained_on, config.seed, noise_power)
    ]
    network = train_picker(made[:-own], DEEPFINDER_VOXEL_A, radii, 1000 * config.seed, steps, WIDE, kept)
    rows = compared(network, run, noise_power, made[-own:], [other[:2]], references, DEEPFINDER_VOXEL_A, rotations)
    return _result(rows, config, steps, rotations, trained_on, both)


def _result(
    rows: list[dict], config: RunConfig, steps: int, rotations: int, trained_on: int, tomograms: list[tuple]
) -> dict:
    return {
        "scores": {source: scores(part) for source, part in pd.DataFrame(rows).groupby("source")},
        "rows": rows,
        "steps": steps,
        "rotations": rotations,
        "trained_on": trained_on,
        "data_hash": array_hash(*(t[0] for t in tomograms)),
    } | described(config, "paper.picker_and_templates")


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name."""
    few = _few(profile) | ({"tested": 1} if profile == "smoke" else {})
    return {
        f"picker_and_templates_{dataset}_seed{seed}": Case(
            proof_config(profile, dataset, picker.SNR, seed), partial(make_both, **few)
        )
        for dataset in DATASETS
    }


def planned_foreign(profile: str, seed: int) -> dict[str, Case]:
    """The results on DeepFinder's tomograms, by name."""
    like = deepfinder_picker.planned(profile, seed)[f"deepfinder_picker_seed{seed}"]
    return {
        f"deepfinder_picker_and_templates_{fold}_seed{seed}": Case(
            like.config, partial(make_deepfinder, fold=fold, **_few(profile)), like.files
        )
        for fold in range(len(DEEPFINDER))
    }


def _few(profile: str) -> dict[str, int]:
    return dict(trained_on=3, own=1, steps=3, rotations=3) if profile == "smoke" else {}
