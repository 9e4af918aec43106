"""The networks of a run of the paper's generator, and the units in which generators see both domains."""

import dataclasses
import math

import torch
from torch import nn

from .config import RunConfig
from .models import Discriminator, Generator


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation by which each domain is z-scored as a whole (paper; one pair a set), from the train
    halves.
    """

    x_mean: float
    x_std: float
    y_mean: float
    y_std: float

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor, noise_level: float) -> "Scaling":
        """Statistics of train densities `x` with noise of std `noise_level` added, and of train subtomograms `y`."""
        x_std = math.sqrt(float(x.var()) + noise_level**2)
        scaling = cls(float(x.mean()), x_std, float(y.mean()), float(y.std()))
        if not all(map(math.isfinite, dataclasses.astuple(scaling))) or scaling.y_std == 0 or x_std == 0:
            raise ValueError(f"Cannot z-score the training data: {scaling}; expected finite values that vary.")
        return scaling

    def x(self, density: torch.Tensor) -> torch.Tensor:
        """Density in physical contrast to network units."""
        return (density - self.x_mean) / self.x_std

    def y(self, subtomogram: torch.Tensor) -> torch.Tensor:
        """Subtomogram to network units."""
        return (subtomogram - self.y_mean) / self.y_std


def build_networks(config: RunConfig, device: torch.device | str = "cpu") -> nn.ModuleDict:
    """The paper's networks: G (X to Y), F (Y to X) and their critics D_Y and D_X, with weights drawn from the run's
    seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator = dict(output=config.output, skip=config.skip)
        critic = dict(spectral_norm=config.spectral_norm, norm=config.critic_norm)
        networks = nn.ModuleDict(
            {
                "G": Generator(config.width, noise=config.noise, **generator),
                "F": Generator(
                    config.width, noise="bottleneck" if config.noise == "bottleneck" else "none", **generator
                ),
                "D_Y": Discriminator(config.critic_width, **critic),
                "D_X": Discriminator(config.critic_width, **critic),
            }
        )
    return networks.to(device)
