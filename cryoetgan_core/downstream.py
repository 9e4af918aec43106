"""The question users ask: is it good training data? A probe trained on synthetic subtomograms, tested on real ones of other tomograms."""

import numpy as np
import torch

from .baselines import BASELINES, baseline
from .classification import probe_logits, train_probe
from .config import RunConfig
from .generation import TrainedRun, generate
from .particles.domains import Domains
from .seeds import stream

GENERATED, REAL = "CryoETGAN", "real"
SIZES = (0.1, 0.3, 1.0)  # labelled volumes of each class, as a share of the training half
REAL_SHARES = (0.01, 0.05, 0.2)  # real labels added to all the synthetic ones
REPEATS = 5  # probes, each with its own initial weights, batches and subsets


def training_sets(run: TrainedRun, domains: Domains, config: RunConfig) -> dict[str, torch.Tensor]:
    """Volumes (N, D, H, W), each set z-scored as a whole, of every source, from the training half; synthetic ones from its densities."""
    x, y = domains.volumes("X_train"), domains.volumes("Y_train")
    voxel_size_A = domains.X_train.voxel_size_A
    sets = {kind: baseline(kind, x, voxel_size_A, config, stream(config.seed, "downstream", kind)) for kind in BASELINES}
    sets[GENERATED] = generate(run, x, seed=config.seed + 1)
    sets[REAL] = (y - y.mean()) / y.std()
    return sets


def benchmark(run: TrainedRun, domains: Domains, config: RunConfig, repeats: int = REPEATS, steps: int = 200) -> list[dict]:
    """Accuracy of probes on the real test half, a row a training: source, volumes a class, real labels a class, repeat, accuracy (%).

    Every probe takes the same number of steps with classes drawn alike, and none is chosen: the test half is looked at once.
    """
    sets = training_sets(run, domains, config)
    y = domains.volumes("Y_train")
    test, wanted = (domains.volumes("Y_test") - y.mean()) / y.std(), domains.labels("Y_test")
    labels = {name: domains.labels("Y_train" if name == REAL else "X_train") for name in sets}
    classes, per_class = len(domains.classes), len(labels[REAL]) // len(domains.classes)
    rows = []

    def measure(source: str, parts: list[tuple[torch.Tensor, torch.Tensor]], synthetic: int, real: int, repeat: int) -> None:
        volumes, targets = (torch.cat(column) for column in zip(*parts, strict=True))
        network = train_probe(volumes, targets, classes, seed=1000 * config.seed + repeat, steps=steps)
        right = (probe_logits(network, test).argmax(1) == wanted).double()
        rows.append({"source": source, "synthetic": synthetic, "real": real, "repeat": repeat, "accuracy": 100 * float(right.mean())})

    def subset(name: str, count: int, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` volumes of each class of a set."""
        rng = np.random.default_rng([config.seed, repeat, count])
        index = np.concatenate([rng.choice(np.flatnonzero(labels[name].numpy() == k), count, replace=False) for k in range(classes)])
        return sets[name][index], labels[name][index]

    counts = [max(1, round(share * per_class)) for share in SIZES]
    real_counts = [max(1, round(share * per_class)) for share in REAL_SHARES]
    for repeat in range(repeats):
        for name in sets:
            for count in counts:
                real = count if name == REAL else 0
                measure(name, [subset(name, count, repeat)], 0 if real else count, real, repeat)
        for count in real_counts:
            few = subset(REAL, count, repeat)
            measure(REAL, [few], 0, count, repeat)
            for name in (*BASELINES, GENERATED):
                # the few real ones are shown as often as the many synthetic ones
                many = subset(name, per_class, repeat)
                times = max(1, per_class // count)
                measure(name, [many, *[few] * times], per_class, count, repeat)
    return rows


def gap_closed(accuracy: dict[str, float]) -> dict[str, float]:
    """Part of the gap between "density + Gaussian noise" and real that each source closes: 0 for the one, 1 for the other."""
    low, high = accuracy[BASELINES[0]], accuracy[REAL]
    return {name: (value - low) / (high - low) if high != low else float("nan") for name, value in accuracy.items()}
