"""Generation: weights of a run and densities in, labelled subtomograms out."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from .config import RunConfig
from .models import Generator
from .seeds import stream
from .training import Scaling, build_networks


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """Both generators of a finished run, its configuration and its z-scoring."""

    config: RunConfig
    scaling: Scaling
    G: Generator
    F: Generator


def load_run(folder: Path, device: torch.device | str = "cpu") -> TrainedRun:
    """Read a finished run.

    Raises
    ------
    FileNotFoundError
        When the folder holds no weights; the message says how to make them.
    """
    if not (folder / "weights.safetensors").exists():
        raise FileNotFoundError(f"{folder} holds no weights.safetensors: train it with notebooks/train.ipynb (or `make figures`) first.")
    settings = json.loads((folder / "config.json").read_text())
    fields = {f.name for f in dataclasses.fields(RunConfig)}
    config = RunConfig(**{k: v for k, v in settings.items() if k in fields})
    networks = build_networks(config, device)
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        if file.metadata().get("config_hash") != config.hash:
            raise ValueError(f"{folder}: the weights are not those of config.json; train the run again.")
    weights = load_file(folder / "weights.safetensors", device=str(device))
    for name in ("G", "F"):
        networks[name].load_state_dict({k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")})
    networks.eval().requires_grad_(False)
    return TrainedRun(config, Scaling(**settings["scaling"]), networks["G"], networks["F"])


@torch.no_grad()
def generate(run: TrainedRun, densities: torch.Tensor, *, seed: int = 0, first: int = 0) -> torch.Tensor:
    """Translate densities (N, D, H, W), protein interior about 1, into subtomograms (N, D, H, W) in network units.

    Volume i draws its noise from a stream named by `seed` and ``first + i`` alone: the same particle comes out whatever the batch.
    Multiply by `scaling.y_std` and add `scaling.y_mean` for the grey values of the training subtomograms.
    """
    device = next(run.G.parameters()).device
    out = torch.empty(densities.shape)
    for i, density in enumerate(densities):
        rng = stream(seed, "generate", first + i, device=device)
        x = density.to(device)[None, None]
        x = run.scaling.x(x + run.config.noise_level * torch.randn(x.shape, generator=rng, device=device))
        out[i] = run.G(x, run.G.sample_noise(x, rng))[0, 0].cpu()
    return out


@torch.no_grad()
def restore(run: TrainedRun, subtomograms: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    """The inverse generator F: subtomograms (N, D, H, W) in network units to z-scored densities."""
    device = next(run.F.parameters()).device
    volumes = subtomograms.to(device)[:, None]
    return run.F(volumes, run.F.sample_noise(volumes, stream(seed, "restore", device=device)))[:, 0].cpu()


def generate_repeats(run: TrainedRun, densities: torch.Tensor, *, repeats: int = 5, seed: int = 0) -> torch.Tensor:
    """Repeated generations (N, repeats, D, H, W) from each density; their voxelwise standard deviation is the uncertainty map (released code: 5).

    Both sources of randomness vary: the noise added to the density, and the generator's own.
    """
    n = len(densities)
    return torch.stack([generate(run, densities, seed=seed, first=(r + 1) * n) for r in range(repeats)], 1)
