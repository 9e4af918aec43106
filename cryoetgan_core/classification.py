"""The reference classifier: C3D trained on REAL subtomograms. It labels generated ones (accuracy column) and spans the feature space."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tqdm.auto import trange

from .config import RunConfig
from .models import C3D
from .seeds import stream
from .training import write_atomically


def build_classifier(config: RunConfig, classes: int) -> C3D:
    """Untrained C3D of the run's sizes; the paper's has no batch norm, small widths need it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.data_seed)
        return C3D(classes, config.box, config.classifier_width, config.classifier_dense, batch_norm=config.classifier_width < 64)


def train_classifier(
    config: RunConfig,
    volumes: torch.Tensor,
    labels: torch.Tensor,
    *,
    classes: int,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> C3D:
    """Train on volumes (N, 1, D, H, W) in network units with Adam, cross entropy and a one-cycle learning rate for a fixed number of epochs.

    Augmented by flips along y and 180-degree turns about y (the tilt axis), which leave the missing wedge in place. No model choice.
    """
    network = build_classifier(config, classes).to(device)
    rate = 1e-4 if config.classifier_width >= 64 else 1e-3  # the paper's 1e-4 for its width, as the mean level of the cycle
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    generator = stream(seed, "classifier")
    size, epochs = 16, config.classifier_epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3 * rate, total_steps=epochs * -(-len(volumes) // size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        for _ in trange(epochs, desc="classifier", disable=not progress):
            for index in torch.randperm(len(volumes), generator=generator).split(size):
                batch = volumes[index]
                if torch.rand((), generator=generator) < 0.5:
                    batch = batch.flip(-2)
                if torch.rand((), generator=generator) < 0.5:
                    batch = batch.flip(-1, -3)
                loss = F.cross_entropy(network(batch.to(device)), labels[index].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # without it one class in some runs is never predicted
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
    write_atomically(path, lambda p: save_file(tensors, p))


def load_classifier(path: Path, config: RunConfig, classes: int) -> C3D:
    """Read what `save_classifier` wrote for the same configuration."""
    network = build_classifier(config, classes)
    network.load_state_dict(load_file(path))
    return network.eval()
