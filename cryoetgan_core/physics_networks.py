"""The networks beside the physics generator: the way back to a density, and the critic. Volumes are ``(B, 1, D, H, W)``."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .convolution import HalvingConv, ThinConv
from .fourier_grid import RADII, TILTS, lookup


class Restorer(nn.Module):
    """The way back, subtomogram to density: a learned filter over (radius, tilt), then a small residual network. A denoiser."""

    def __init__(self, box: int, width: int = 8):
        super().__init__()
        self.box, self.padded = box, 2 * math.ceil(2 * box / 3)
        start = 0.5 * torch.exp(-((torch.arange(RADII) / RADII * 3) ** 2) / 2)  # a low-pass
        self.filter = nn.Parameter(start[:, None].repeat(1, TILTS))
        self.network = nn.Sequential(
            ThinConv(2, width, 3), nn.LeakyReLU(0.2), ThinConv(width, width, 3), nn.LeakyReLU(0.2), ThinConv(width, 1, 3),
        )  # fmt: skip
        nn.init.zeros_(self.network[-1].weight), nn.init.zeros_(self.network[-1].bias)

    def tables(self) -> list[nn.Parameter]:
        """Parameters that learn at the rate of the tables."""
        return [self.filter]

    def sample_noise(self, y: torch.Tensor, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Nothing: the way back is deterministic."""
        return {}

    def forward(self, y: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """Density (B, 1, D, D, D) in network units from subtomograms `y` (B, 1, D, D, D)."""
        n, p = self.box, self.padded
        spectrum = torch.fft.rfftn(F.pad(y[:, 0], [0, p - n] * 3), dim=(-3, -2, -1))
        spectrum = spectrum * lookup(p, "tilt", y.device)(self.filter.flatten()).view(spectrum.shape[1:])
        smooth = torch.fft.irfftn(spectrum, s=(p, p, p), dim=(-3, -2, -1))[:, None, :n, :n, :n]
        return smooth + self.network(torch.cat([smooth, y], 1))


class PatchCritic(nn.Module):
    """Score patches of a volume: three conv 4^3 of stride 2 (w, 2w, 4w) and one of 3^3, leaky ReLU 0.2, no norm."""

    def __init__(self, width: int = 16):
        super().__init__()
        channels = [1, width, 2 * width, 4 * width]
        layers = [m for a, b in zip(channels, channels[1:], strict=False) for m in (HalvingConv(a, b), nn.LeakyReLU(0.2))]
        self.layers = nn.Sequential(*layers, nn.Conv3d(channels[-1], 1, 3, padding=1))

    def power_iteration(self) -> None:
        """Nothing: no layer is spectrally normalised."""

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Scores (B, 1, d, h, w) of the patches of `y` (B, 1, D, H, W), d = D/8."""
        return self.layers(y)
