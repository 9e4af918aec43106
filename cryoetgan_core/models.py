"""The networks: CryoETGAN's generator and discriminator, and the C3D classifier.

Architecture: Wu et al. 2022 (doi 10.3389/fphys.2022.760404) as its released code builds it; `width` is that code's ngf
= ndf (64). Volumes are ``(B, 1, D, H, W)``. Options that differ from the released networks are marked; the defaults are
the released ones.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .layers.convolution import Conv, InstanceNorm, conv_valid, reflect_pad
from .layers.winograd import conv_reflected

NOISE_PLACES = ("bottleneck", "all", "none")
OUTPUTS = ("tanh", "linear")


class ResidualBlock(nn.Module):
    """Reflect-pad 1, conv 3^3, ReLU, twice (no ReLU after the second), plus the input; no norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = Conv(channels, channels, 3)
        self.conv2 = Conv(channels, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + conv_reflected(F.relu(conv_reflected(x, self.conv1.weight)), self.conv2.weight)


class UpConv(nn.Module):
    """Transposed conv 3^3 stride 2, 'SAME': n voxels become 2n. Kernel ``(in, out, 3, 3, 3)``."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(c_in, c_out, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last_3d)  # the quicker order there
        # cut by one operation rather than three slices
        return F.pad(F.conv_transpose3d(x, self.weight, stride=2), [0, -1] * 3)


class Generator(nn.Module):
    """Translate a volume into the other domain: density map to subtomogram (G), or back (F).

    Parameters
    ----------
    width
        channels of the first layer (64 in the paper).
    output
        "tanh" (released) or "linear": z-scored voxels go beyond +-1, which tanh cannot reach.
    noise
        "bottleneck" (released: normal noise concatenated at a quarter of the resolution), "all" (also added, with a
        learned amplitude a channel, at half and full resolution, so that voxel-scale noise can be drawn), or "none".
    skip
        add a linear path from input (and, where `noise` is "all", a white noise volume) to output, one 7^3 kernel each;
        the network then learns what a linear filter cannot do. It starts as 0.3 x + 0.9 noise, the network's own output
        at 0. Not in the paper.
    """

    def __init__(self, width: int = 64, *, output: str = "tanh", noise: str = "bottleneck", skip: bool = False):
        super().__init__()
        if output not in OUTPUTS or noise not in NOISE_PLACES:
            raise ValueError(
                f"Generator: output {output!r} must be one of {OUTPUTS}, noise {noise!r} one of {NOISE_PLACES}."
            )
        self.width, self.output, self.noise = width, output, noise
        deep = 2 * width
        self.first, self.first_norm = Conv(1, width, 7), InstanceNorm(width)
        self.down1, self.down1_norm = Conv(width, deep, 3), InstanceNorm(deep)
        self.down2, self.down2_norm = Conv(deep, deep, 3), InstanceNorm(deep)
        self.blocks = nn.Sequential(*[ResidualBlock(deep) for _ in range(6)])
        self.up1 = UpConv(deep if noise == "none" else 2 * deep, deep)
        self.up1_norm = InstanceNorm(deep)
        self.up2, self.up2_norm = UpConv(deep, width), InstanceNorm(width)
        self.last = Conv(width, 1, 7)
        self.skip = None
        if skip:
            self.skip = Conv(2 if noise == "all" else 1, 1, 7)
            with torch.no_grad():
                # The linear path starts as the density plus white noise, and the last layer of the network at zero:
                # random 7^3 kernels would add up smooth densities coherently, and dominate the linear path.
                self.skip.weight.zero_()
                self.skip.weight[0, :, 3, 3, 3] = torch.tensor([0.3, 0.9])[: self.skip.weight.shape[1]]
                self.last.weight.zero_()
        if noise == "all":
            self.half_amplitude = nn.Parameter(torch.full((deep,), 0.3))
            self.full_amplitude = nn.Parameter(torch.full((width,), 0.3))

    def sample_noise(self, x: torch.Tensor, generator: torch.Generator | None = None) -> list[torch.Tensor]:
        """Draw the standard normal tensors that one pass on `x` (B, 1, D, H, W) consumes."""

        def normal(channels: int, divisor: int) -> torch.Tensor:
            size = (x.shape[0], channels, *(-(-n // divisor) for n in x.shape[-3:]))
            return torch.randn(size, generator=generator, device=x.device, dtype=x.dtype)

        deep = 2 * self.width
        noise = [] if self.noise == "none" else [normal(deep, 4)]
        if self.noise == "all":
            noise += [normal(deep, 2), normal(self.width, 1)]
            noise += [] if self.skip is None else [normal(1, 1)]
        return noise

    def forward(self, x: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        """Translate `x` (B, 1, D, H, W) with the tensors of `sample_noise`; the same noise gives the same volume."""
        box = x.shape[-3:]
        h = F.relu(self.first_norm(conv_valid(reflect_pad(x, 3), self.first.weight)))  # (B, width, D)
        h = F.relu(self.down1_norm(self.down1(h, stride=2)))  # (B, 2 width, D/2)
        h = F.relu(self.down2_norm(self.down2(h, stride=2)))  # (B, 2 width, D/4)
        h = self.blocks(h)
        if self.noise != "none":
            h = torch.cat([h, noise[0]], dim=1)  # (B, 4 width, D/4)
        h = self.up1_norm(self.up1(h))
        h = h[..., : -(-box[0] // 2), : -(-box[1] // 2), : -(-box[2] // 2)]  # boxes that 4 does not divide
        if self.noise == "all":
            h = h + self.half_amplitude.view(1, -1, 1, 1, 1) * noise[1]
        h = self.up2_norm(self.up2(F.relu(h)))[..., : box[0], : box[1], : box[2]]
        if self.noise == "all":
            h = h + self.full_amplitude.view(1, -1, 1, 1, 1) * noise[2]
        y = conv_valid(reflect_pad(F.relu(h), 3), self.last.weight)
        if self.skip is not None:
            source = torch.cat([x, noise[3]], dim=1) if self.noise == "all" else x
            y = y + conv_valid(reflect_pad(source, 3), self.skip.weight)
        return torch.tanh(y) if self.output == "tanh" else y


class Discriminator(nn.Module):
    """Score patches of a volume: four conv 4^3 stride 2 and one of stride 1, leaky ReLU 0.2.

    Parameters
    ----------
    width
        channels of the first layer (64 in the paper).
    spectral_norm
        divide every weight by its largest singular value.
    norm
        "instance" (released) or "none". Instance norm divides a volume's own spread away, and with it any bound on the
        critic's slope that spectral normalisation gives. Without it that bound is loose: the largest singular value of
        the flattened kernel is 1, the gain of a 4^3 convolution of stride 2 up to sqrt(8).
    """

    def __init__(self, width: int = 64, *, spectral_norm: bool = True, norm: str = "instance"):
        super().__init__()
        if norm not in ("instance", "none"):
            raise ValueError(f"Discriminator: norm {norm!r} must be 'instance' or 'none'.")
        channels = [1, width, 2 * width, 4 * width, 8 * width]
        self.convs = nn.ModuleList(
            Conv(a, b, 4, spectral=spectral_norm) for a, b in zip(channels, channels[1:], strict=False)
        )
        use_norm = norm == "instance"
        self.norms = nn.ModuleList(InstanceNorm(c) if use_norm else nn.Identity() for c in channels[2:])
        self.score = Conv(channels[-1], 1, 4, bias=True, spectral=spectral_norm)

    def power_iteration(self) -> None:
        """One power iteration in every spectrally normalised layer; call once a training step."""
        for layer in (*self.convs, self.score):
            if layer.spectral:
                layer.power_iteration()

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Scores (B, 1, d, h, w) of the patches of `y` (B, 1, D, H, W), d = D/16 rounded up."""
        h = F.leaky_relu(self.convs[0](y, stride=2), 0.2)
        for conv, norm in zip(self.convs[1:], self.norms, strict=True):
            h = F.leaky_relu(norm(conv(h, stride=2)), 0.2)
        return self.score(h)


class C3D(nn.Module):
    """The classifier of the accuracy column (Tran et al. 2015, doi 10.1109/ICCV.2015.510), any box.

    conv (w, 2w, 4w x2, 8w x2, 8w x2) 3^3, five max-pools, two dense layers with dropout 0.5. The paper has w = 64 and
    dense 4096. `batch_norm` adds one after each conv, which small training sets need; the pools round up so that boxes
    of 24 still reach the fifth.
    """

    def __init__(self, classes: int, box: int, width: int = 64, dense: int = 4096, *, batch_norm: bool = False):
        super().__init__()
        layers, c, side = [], 1, box
        for repeats, multiple in ((1, 1), (1, 2), (2, 4), (2, 8), (2, 8)):
            for _ in range(repeats):
                layers.append(nn.Conv3d(c, multiple * width, 3, padding=1, bias=not batch_norm))
                c = multiple * width
                if batch_norm:
                    layers.append(nn.BatchNorm3d(c))
                layers.append(nn.ReLU())
            layers.append(nn.MaxPool3d(2, ceil_mode=True))
            side = -(-side // 2)
        self.convolutions = nn.Sequential(*layers)
        self.dense1, self.dense2 = nn.Linear(c * side**3, dense), nn.Linear(dense, dense)
        self.logits = nn.Linear(dense, classes)
        self.dropout = nn.Dropout(0.5)

    def features(self, y: torch.Tensor) -> torch.Tensor:
        """Penultimate features (B, dense) of `y` (B, 1, D, H, W): the space of the feature metrics."""
        h = self.convolutions(y).flatten(1)
        return F.relu(self.dense2(self.dropout(F.relu(self.dense1(h)))))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Class logits (B, classes)."""
        return self.logits(self.dropout(self.features(y)))
