"""Noise on the densities (Figures 5 and 6, Table 3) and switches of the loss (Table 4), ten trainings of each on two
data draws.

One training of each on a draw does not tell a difference from chance. Trainings of one draw share their data, so their
spread is that of the training alone.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import scipy

from ..config import RunConfig, make_config
from ..evaluation.classification import load_classifier
from ..evaluation.compare import evaluate
from ..evaluation.downstream import benchmark, generated_set
from ..reproducibility import paths
from ..training import TrainingDiverged
from .case import Case
from .plan import ABLATION, ADAPTED_NOISE, noise_variant
from .proof import small_probes
from .record import described
from .runs import train_on
from .simulated_sets import data_folder, default_device, load_data, recorded_repeats

DRAWS = (0, 1)
TRAININGS = 10  # of each switch on each draw
NOISE_LEVELS = (0.0, ADAPTED_NOISE)
KEPT = ("accuracy", "fid", "inception_score", "spectrum", "angular", "moments", "auc", "molecule", "psnr")
FAILED_BELOW = 10.0  # points over chance: a training whose volumes teach a classifier no more than that has failed


def variants() -> dict[str, dict]:
    """Changed fields of `adapted` by name; "" and "wasserstein_sn" are the recipe as it is. One machine makes all that
    is compared; noise levels and losses may be made by two.
    """
    noise = {noise_variant(level): dict(noise_level=level) for level in NOISE_LEVELS if level != ADAPTED_NOISE}
    return {"": {}} | noise | ABLATION


def make_switch(config: RunConfig, name: str, seeds: Sequence[int] = range(TRAININGS)) -> dict:
    """Train a configuration with each seed on its data draw and measure it: "rows", one a training.

    A row holds the accuracy on real test particles of classifiers trained on its volumes ("on_real", %), the metrics
    KEPT, and how many classes the reference classifier names at all ("named"). A training that diverges has none of
    them.
    """
    domains, rows = load_data(config), []
    classifier = load_classifier(data_folder(config) / "classifier.safetensors", config, len(domains.classes))
    recorded = recorded_repeats(config, domains)
    for seed in seeds:
        one = config.replace(seed=seed)
        try:
            run = train_on(one, domains, paths.runs(config.profile) / name / f"training{seed}", replace=True)
        except TrainingDiverged:
            rows.append({"seed": seed})
            continue
        numbers, _ = evaluate(run, domains, classifier.to(default_device()), recorded=recorded)
        probes = benchmark(generated_set(run, domains), domains, seed=seed, **small_probes(config))
        row = {"seed": seed, "on_real": float(np.mean([p["accuracy"] for p in probes]))}
        row |= {k: numbers["metrics"][k] for k in KEPT}
        rows.append(row | {"named": int((np.array(numbers["confusion"]).sum(0) > 0).sum())})
    return {"rows": rows, "classes": list(domains.classes)} | described(config, "paper.switches", domains, classifier)


def switch_name(variant: str, draw: int) -> str:
    """Name of a result: of a variant on a draw."""
    return "_".join(part for part in ("switch", variant, f"draw{draw}") if part)


def switch_names(variants: Iterable[str]) -> list[str]:
    """Names of the results of some variants, on both draws."""
    return [switch_name(variant, draw) for variant in variants for draw in DRAWS]


def planned(profile: str) -> dict[str, Case]:
    """The results by name."""
    plan = {}
    for draw in DRAWS:
        for variant, fields in variants().items():
            name = switch_name(variant, draw)
            config = make_config(profile, "S1", seed=0, data_seed=draw, **fields)
            seeds = range(2 if profile == "smoke" else TRAININGS)
            plan[name] = Case(config, partial(make_switch, name=name, seeds=seeds))
    return plan


def failures(values: list[float], classes: int) -> int:
    """How many trainings failed, of accuracies on real (%, NaN where diverged)."""
    return sum(not value > 100 / classes + FAILED_BELOW for value in values)


def resolved(values: list[list[float]], reference: list[list[float]]) -> tuple[bool, list[float]]:
    """Whether a switch moves a number: each data draw tells its trainings from the reference's (Mann and Whitney,
    two-sided, p < 0.05), and in the same direction; and each draw's p. Lists hold one list a draw.
    """
    found = [
        scipy.stats.mannwhitneyu(a, b, alternative="two-sided").pvalue for a, b in zip(values, reference, strict=True)
    ]
    signs = {float(np.sign(np.median(a) - np.median(b))) for a, b in zip(values, reference, strict=True)}
    return max(found) < 0.05 and len(signs) == 1, [float(p) for p in found]
