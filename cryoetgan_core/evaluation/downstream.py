"""The question users ask: is it good training data? A probe trained on synthetic subtomograms, tested on real ones of
other tomograms.
"""

from collections.abc import Mapping

import numpy as np
import torch
from tqdm.auto import tqdm

from ..generation import TrainedRun, generate
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import Microscope
from ..volumes.domains import Domains
from .baselines import CTF, FORMULAS, RELEASED, WHITE, baseline
from .classification import probe_logits, train_probe

GENERATED, PHYSICS, REAL = "CryoETGAN", "physics generator", "real"
TRUE = "our microscope, true settings"
SHARES = (0.1, 0.3, 1.0)  # labelled volumes of each class, as a share of the training half
REAL_SHARES = (0.01, 0.05, 0.2)  # real labels added to all the synthetic ones
# sources that get learning curves and mixtures; the others are measured whole
CURVES = (WHITE, CTF, GENERATED, PHYSICS, REAL)
# classifiers for an entry, each with its own initial weights, batches and subsets: they are nested in one data draw
PROBES = 2


def reference_sets(domains: Domains, microscope: Microscope, snr: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Sets (N, D, H, W), each z-scored as a whole: every formula and the released simulator from the training
    densities, and real.
    """
    x, y = domains.volumes("X_train"), domains.volumes("Y_train")
    voxel_size_A = domains.X_train.voxel_size_A
    sets = {
        k: baseline(k, x, voxel_size_A, microscope, snr, stream(seed, "downstream", k)) for k in (*FORMULAS, RELEASED)
    }
    return sets | {REAL: (y - y.mean()) / y.std()}


def generated_set(run: TrainedRun, domains: Domains) -> dict[str, torch.Tensor]:
    """A generation of each training density, in network units."""
    name = PHYSICS if run.config.generator == "physics" else GENERATED
    return {name: generate(run, domains.volumes("X_train"), seed=run.config.seed + 1)}


def benchmark(
    sets: Mapping[str, torch.Tensor],
    domains: Domains,
    *,
    seed: int = 0,
    repeats: int = PROBES,
    steps: int = 200,
    shares: tuple[float, ...] = SHARES,
    real_shares: tuple[float, ...] = REAL_SHARES,
    progress: bool = False,
) -> list[dict]:
    """Accuracy of probes on the real test half, a row a training: source, synthetic and real volumes a class, repeat,
    accuracy (%).

    Each source whole; those of CURVES also at `shares` of their volumes (real ones at `real_shares` too), and the
    synthetic ones whole with `real_shares` of the real labels, which are shown as often as the synthetic ones. Every
    probe takes the same number of steps, and none is chosen: the test half is looked at once.

    Parameters
    ----------
    sets
        source to volumes (N, D, H, W) class after class, with the labels of X_train, or of Y_train for "real".
    progress
        count the classifiers as they are trained.
    """
    y = domains.volumes("Y_train")
    mean, std = y.mean(), y.std()
    test, wanted = (domains.volumes("Y_test") - mean) / std, domains.labels("Y_test")
    real = ((y - mean) / std, domains.labels("Y_train"))
    classes = len(domains.classes)
    available = torch.cat([domains.labels(half).bincount(minlength=classes) for half in ("X_train", "Y_train")])
    per_class = int(available.min())
    if per_class == 0 or wanted.bincount(minlength=classes).min() == 0:
        raise ValueError(
            f"A class of {', '.join(domains.classes)} is missing from the training or the test particles; expected "
            "some of each."
        )
    rows, bar = [], tqdm(desc="classifiers", disable=not progress)

    def subset(
        volumes: torch.Tensor, labels: torch.Tensor, count: int, repeat: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` volumes of each class."""
        rng = np.random.default_rng([repeat, count])
        index = np.concatenate(
            [rng.choice(np.flatnonzero(labels.numpy() == k), count, replace=False) for k in range(classes)]
        )
        return volumes[index], labels[index]

    def measure(
        source: str, parts: list[tuple[torch.Tensor, torch.Tensor]], synthetic: int, labelled: int, repeat: int
    ) -> None:
        volumes, targets = (torch.cat(column) for column in zip(*parts, strict=True))
        network = train_probe(volumes, targets, classes, seed=1000 * seed + repeat, steps=steps)
        right = 100 * float((probe_logits(network, test).argmax(1) == wanted).double().mean())
        bar.update()
        rows.append({"source": source, "synthetic": synthetic, "real": labelled, "repeat": repeat, "accuracy": right})

    def counts(shares: tuple[float, ...]) -> list[int]:
        return sorted({max(1, round(share * per_class)) for share in shares})

    for repeat in range(repeats):
        for source, volumes in sets.items():
            labels = domains.labels("Y_train" if source == REAL else "X_train")
            own = (shares + real_shares if source == REAL else shares) if source in CURVES else (1.0,)
            for count in counts(own):
                measure(
                    source,
                    [subset(volumes, labels, count, repeat)],
                    *((0, count) if source == REAL else (count, 0)),
                    repeat,
                )
            for count in counts(real_shares) if source != REAL and source in CURVES else ():
                times = max(1, per_class // count)
                measure(source, [(volumes, labels), *[subset(*real, count, repeat)] * times], per_class, count, repeat)
    bar.close()
    return rows


def gap_closed(accuracy: Mapping[str, float]) -> dict[str, float]:
    """Part of the gap between the best of FORMULAS and real that each source closes: 0 for that formula, 1 for real."""
    low, high = max(accuracy[name] for name in FORMULAS if name in accuracy), accuracy[REAL]
    return {name: (value - low) / (high - low) if high > low else float("nan") for name, value in accuracy.items()}
