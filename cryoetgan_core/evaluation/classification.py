"""Classifiers.

The reference one, C3D trained on REAL subtomograms, labels generated ones (accuracy column) and spans the feature
space; the probe is a small one trained afresh for every question: is this good training data, and can a network tell
these two sets apart?
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import trange

from ..config import RunConfig
from ..models import C3D
from ..reproducibility.files import load_tensors, save_tensors
from ..reproducibility.seeds import stream

STARTS = 3  # times the reference classifier is begun at most
DEAD = 0.1  # share of a class's training volumes below which it does not read that class


def build_classifier(config: RunConfig, classes: int, start: int = 0) -> C3D:
    """Untrained C3D of the run's sizes, with other weights for each `start`; the paper's has no batch norm, small
    widths need it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.data_seed + start)
        return C3D(
            classes,
            config.box,
            config.classifier_width,
            config.classifier_dense,
            batch_norm=config.classifier_width < 64,
        )


def train_classifier(
    config: RunConfig, volumes: torch.Tensor, labels: torch.Tensor, *, classes: int, device: str = "cpu"
) -> C3D:
    """Train on volumes (N, 1, D, H, W) in network units with Adam, cross entropy and a one-cycle learning rate for a
    fixed number of epochs.

    Augmented by flips along y and 180-degree turns about y (the tilt axis), which leave the missing wedge in place.
    Begun anew, at most STARTS times, while it does not read one of the classes of its own training volumes: units of
    the dense layers can die for a class, which then is never named, on one processor and not on another. Where no start
    reads them all, the one whose mean share over classes is largest is kept. No other choice.
    """
    best, most = None, -1.0
    for start in range(STARTS):
        network = _train_classifier(config, volumes, labels, classes, start, device)
        right = predict(network, volumes)[0].argmax(1) == labels
        read = [float(right[labels == k].float().mean()) for k in labels.unique()]
        if sum(read) > most:
            best, most = network, sum(read)
        if min(read) >= DEAD:
            break
    return best


def _train_classifier(
    config: RunConfig, volumes: torch.Tensor, labels: torch.Tensor, classes: int, start: int, device: str
) -> C3D:
    """`train_classifier` from one start."""
    network = build_classifier(config, classes, start).to(device)
    # the paper's 1e-4 for its width, as the mean level of the cycle
    rate = 1e-4 if config.classifier_width >= 64 else 1e-3
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    generator = stream(0, "classifier")
    size, epochs = 16, config.classifier_epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3 * rate, total_steps=epochs * -(-len(volumes) // size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dropout
        for _ in trange(epochs, desc="classifier"):
            for index in torch.randperm(len(volumes), generator=generator).split(size):
                batch = volumes[index]
                if torch.rand((), generator=generator) < 0.5:
                    batch = batch.flip(-2)
                if torch.rand((), generator=generator) < 0.5:
                    batch = batch.flip(-1, -3)
                loss = F.cross_entropy(network(batch.to(device)), labels[index].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                # without it one class in some runs is never predicted
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
    return network.eval()


@torch.no_grad()
def predict(network: C3D, volumes: torch.Tensor, chunk: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Class probabilities (N, classes) and features (N, dense) of volumes (N, 1, D, H, W), in evaluation mode."""
    device = next(network.parameters()).device
    network.eval()
    features = torch.cat([network.features(v.to(device)).cpu() for v in volumes.split(chunk)])
    return network.logits(features.to(device)).softmax(1).cpu(), features


def save_classifier(network: C3D, path: Path) -> None:
    """Write the weights as safetensors."""
    tensors = {k: v.cpu().contiguous() for k, v in network.state_dict().items()}
    save_tensors(tensors, path)


def load_classifier(path: Path, config: RunConfig, classes: int) -> C3D:
    """Read what `save_classifier` wrote for the same configuration."""
    network = build_classifier(config, classes)
    network.load_state_dict(load_tensors(path, "simulate its set again (notebooks/simulate_data.ipynb)")[0])
    return network.eval()


class Probe(nn.Module):
    """Small 3-D classifier: four conv 3^3 (16, 32, 64, 64), the first three of stride 2, batch norm and ReLU after
    each, mean over voxels, one dense layer.
    """

    def __init__(self, classes: int):
        super().__init__()
        layers, c = [], 1
        for channels, stride in ((16, 2), (32, 2), (64, 2), (64, 1)):
            layers += [nn.Conv3d(c, channels, 3, stride, 1, bias=False), nn.BatchNorm3d(channels), nn.ReLU()]
            c = channels
        self.convolutions, self.logits = nn.Sequential(*layers), nn.Linear(c, classes)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Class logits (B, classes) of volumes (B, 1, D, H, W)."""
        return self.logits(self.convolutions(y).mean((2, 3, 4)))


def train_probe(
    volumes: torch.Tensor, labels: torch.Tensor, classes: int, *, seed: int = 0, steps: int = 200, batch: int = 32
) -> Probe:
    """Train a probe on volumes (N, D, H, W) for a fixed number of steps, whatever N; no validation, no model choice.

    Adam, one-cycle learning rate to 4e-3, classes drawn alike often, augmented as in `train_classifier`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Probe(classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator = stream(seed, "probe")
    weight = (1 / labels.bincount(minlength=classes).clamp(min=1).double())[labels]
    for _ in range(steps):
        index = torch.multinomial(weight, batch, replacement=True, generator=generator)
        part = volumes[index][:, None]
        if torch.rand((), generator=generator) < 0.5:
            part = part.flip(-2)
        if torch.rand((), generator=generator) < 0.5:
            part = part.flip(-1, -3)
        loss = F.cross_entropy(network(part), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def probe_logits(network: Probe, volumes: torch.Tensor, chunk: int = 128) -> torch.Tensor:
    """Logits (N, classes) of volumes (N, D, H, W)."""
    return torch.cat([network(v[:, None]) for v in volumes.split(chunk)])


def two_sample_scores(
    real: torch.Tensor, fake: torch.Tensor, *, seed: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """How generated each volume looks to a probe that did not see it: for each of two folds the scores of real and of
    generated volumes.

    Classifier two-sample test (Lopez-Paz and Oquab 2017): a probe trained on one half of both sets scores the other
    half, and the other way round. The mean `auc` of the folds is 0.5 where the sets cannot be told apart. A probe takes
    200 steps, fewer where there are fewer than 800 volumes.
    """
    steps = min(200, max(20, (len(real) + len(fake)) // 4))
    order = [torch.randperm(len(s), generator=stream(seed, "two-sample", i)) for i, s in enumerate((real, fake))]
    folds = []
    for fold in (0, 1):
        seen, left = ([o[f::2] for o in order] for f in (fold, 1 - fold))
        volumes = torch.cat([real[seen[0]], fake[seen[1]]])
        labels = torch.cat([torch.zeros(len(seen[0]), dtype=torch.long), torch.ones(len(seen[1]), dtype=torch.long)])
        network = train_probe(volumes, labels, 2, seed=seed + fold, steps=steps)
        logits = [probe_logits(network, source[index]) for source, index in zip((real, fake), left, strict=True)]
        folds.append((logits[0][:, 1] - logits[0][:, 0], logits[1][:, 1] - logits[1][:, 0]))
    return folds


def auc(negative: torch.Tensor, positive: torch.Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative (Mann and Whitney), ties counted
    half.
    """
    above, equal = (int(compared.sum()) for compared in (positive[:, None] > negative, positive[:, None] == negative))
    return (2 * above + equal) / (2 * len(negative) * len(positive))
