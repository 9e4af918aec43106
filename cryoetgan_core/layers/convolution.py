"""Convolutions that the networks share: TensorFlow padding, fast 7^3 layers, spectral normalisation.

Volumes are ``(B, C, D, H, W)``, kernels ``(out, in, kz, ky, kx)``; the released code's layout differs and is
converted in tests/released_weights.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

FEW_PLANES = 20480  # of a batch: at most as many and ATen takes its slow kernel
EPSILON = 1e-5  # of instance norms
FEW_VOXELS = 64  # of the result: at most as many, and at least as many channels, and a matrix product is quicker


def channels_last(x: torch.Tensor) -> bool:
    """Whether the channels of each voxel lie together in memory; also of a slice of such volumes."""
    return x.shape[1] > 1 and x.stride(1) == 1 and not x.is_contiguous()


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Voxels that TensorFlow's 'SAME' puts (before, after) one axis; an odd total puts the extra one after."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Zero-pad the three last axes of `x` as TensorFlow's 'SAME' does."""
    pads = [same_padding(n, kernel, stride) for n in reversed(x.shape[-3:])]
    return F.pad(x, [p for pair in pads for p in pair])


def reflect_pad(x: torch.Tensor, width: int) -> torch.Tensor:
    """Reflect-pad the three last axes."""
    return F.pad(x, [width] * 6, mode="reflect") if x.device.type == "cpu" else reflect_by_flips(x, width)


def reflect_by_flips(x: torch.Tensor, width: int) -> torch.Tensor:
    """`reflect_pad` from flipped slices, which stays deterministic on CUDA (ReflectionPad3d does not) and keeps
    channels last in memory.
    """
    for axis in (-3, -2, -1):
        n = x.shape[axis]
        x = torch.cat([x.narrow(axis, 1, width).flip(axis), x, x.narrow(axis, n - 1 - width, width).flip(axis)], axis)
    return x


def conv3d(x: torch.Tensor, weight: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """'VALID' 3-D convolution, quick on the CPU also for a single small volume.

    ATen leaves its fast kernels where a batch has few planes (batch times channels times depth times height at most
    20,480) for one that takes ten times as long; there zeros are put below the volume until it has enough, and what
    they give is cut off. Few voxels of many channels are one matrix product. The same sums.
    """
    b, c, d, h, _ = x.shape
    k = weight.shape[2]
    if x.device.type == "cpu" and b * math.prod((n - k) // stride + 1 for n in x.shape[2:]) <= FEW_VOXELS <= c:
        blocks = x.unfold(2, k, stride).unfold(3, k, stride).unfold(4, k, stride)  # (B, C, d, h, w, k, k, k)
        columns = blocks.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(b, -1, c * k**3)
        return (columns @ weight.flatten(1).T).mT.reshape(b, -1, *blocks.shape[2:5])
    if x.device.type == "cuda" and c == 1 and (k, stride) == (4, 2) and not any(n % 2 for n in x.shape[2:]):
        return halve(x, weight)
    if x.device.type != "cpu" or b * c * d * h > FEW_PLANES or min(c, weight.shape[0]) < 16:
        return F.conv3d(x, weight, stride=stride)
    depth = (d - k) // stride + 1
    below = FEW_PLANES // (b * c * h) + 1 - d
    return F.conv3d(F.pad(x, [0, 0, 0, 0, 0, below]), weight, stride=stride)[:, :, :depth]


def halve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """'VALID' 4^3 convolution of stride 2 of volumes (B, C, D, H, W) of even sides, as one of stride 1.

    Blocks of 2^3 voxels become channels and the kernel 2^3: the same sum, and quicker where there are few channels.
    """
    b, c, d, h, w = x.shape
    blocks = (
        x.reshape(b, c, d // 2, 2, h // 2, 2, w // 2, 2)
        .permute(0, 1, 3, 5, 7, 2, 4, 6)
        .reshape(b, 8 * c, d // 2, h // 2, w // 2)
    )
    kernel = weight.view(-1, c, 2, 2, 2, 2, 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(-1, 8 * c, 2, 2, 2)
    return F.conv3d(blocks, kernel)


def conv_valid(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """'VALID' stride-1 convolution with an odd cubic kernel that has one channel at one of its two ends.

    On the CPU, ATen's 3-D convolution is slow for a single input or output channel. The same sum is then taken as a 2-D
    convolution with the channels last in memory: the kernel's depth becomes the channels of the thin end, and a thin
    result's channels are those of two neighbours along x, which fill the processor's vectors.

    Parameters
    ----------
    x : Tensor (B, C_in, D, H, W)
    weight : Tensor (C_out, C_in, k, k, k)

    Returns
    -------
    Tensor (B, C_out, D - k + 1, H - k + 1, W - k + 1)
    """
    c_out, c_in, k = weight.shape[:3]
    if min(c_out, c_in) > 2:
        return F.conv3d(x, weight)
    b, _, d, h, w = x.shape
    depth = d - k + 1
    if c_in <= c_out:
        # its k planes as channels
        planes = x.unfold(2, k, 1).permute(0, 2, 3, 4, 1, 5).reshape(b * depth, h, w, c_in * k).contiguous()
        y = F.conv2d(planes.permute(0, 3, 1, 2), weight.reshape(c_out, c_in * k, k, k))
        return y.permute(0, 2, 3, 1).reshape(b, depth, h - k + 1, w - k + 1, c_out).permute(0, 4, 1, 2, 3)
    x = F.pad(x, [0, w % 2])
    pairs = x.permute(0, 2, 3, 4, 1).reshape(b * d, h, -1, 2 * c_in)
    kernel = weight.permute(0, 2, 3, 4, 1)  # (C_out, kz, ky, kx, C_in)
    both = torch.stack([F.pad(kernel, [0, 0, 0, 1]), F.pad(kernel, [0, 0, 1, 0])], 2).reshape(
        c_out * k * 2, k, -1, 2 * c_in
    )
    y = (
        F.conv2d(pairs.permute(0, 3, 1, 2), both.permute(0, 3, 1, 2))
        .contiguous()
        .view(b, d, c_out, k, 2, h - k + 1, -1)
    )
    y = sum(y[:, i : i + depth, :, i] for i in range(k))  # (B, depth, C_out, 2, H - k + 1, W' / 2)
    return y.permute(0, 2, 1, 4, 5, 3).flatten(4)[..., : w - k + 1]


class InstanceNorm(nn.Module):
    """Instance norm with a learned scale, initially N(1, 0.02), and offset 0; eps 1e-5 (released code).

    Computed as a group norm with one channel a group: the same function, three times faster on a CPU. With channels
    last in memory, which a group norm on a GPU would undo, it is one multiplication and sum. Float32 also where the
    layers around it are not.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            h = x.to(self.scale.dtype)
            if channels_last(x) and x.device.type == "cpu":
                volumes = [self._normed(volume) for volume in h.split(1)]
                return (torch.cat(volumes) if len(volumes) > 1 else volumes[0]).to(x.dtype)
            if channels_last(x):
                variance, mean = torch.var_mean(h, (2, 3, 4), correction=0, keepdim=True)
                factor = self.scale.view(1, -1, 1, 1, 1) * (variance + EPSILON).rsqrt()
                return torch.addcmul(self.offset.view(1, -1, 1, 1, 1) - mean * factor, h, factor).to(x.dtype)
            return F.group_norm(h, x.shape[1], self.scale, self.offset, eps=EPSILON).to(x.dtype)

    def _normed(self, volume: torch.Tensor) -> torch.Tensor:
        """One volume's instance norm as a batch norm of one, which on a CPU is quick also with channels last."""
        return torch.batch_norm(volume, self.scale, self.offset, None, None, True, 0.0, EPSILON, False)


class Conv(nn.Module):
    """A convolution's weight, initially N(0, 0.02), with optional bias and spectral normalisation.

    With ``spectral=True`` the weight, as a matrix ``(out, in k^3)``, is divided by its largest singular value,
    estimated by one power iteration a training step (Miyato et al. 2018, doi 10.48550/arXiv.1802.05957). The iteration
    runs only in `power_iteration`, so that every pass within one step sees the same function.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, *, bias: bool = False, spectral: bool = False):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(0.02 * torch.randn(c_out, c_in, kernel, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.spectral = spectral
        if spectral:
            self.register_buffer("u", torch.randn(c_out))
            self.register_buffer("v", torch.randn(c_in * kernel**3))
            self.power_iteration()

    @torch.no_grad()
    def power_iteration(self) -> None:
        """Advance the estimate of the leading singular vectors (out: u, in: v) by one step."""
        matrix = self.weight.flatten(1)  # called outside of autocast
        self.v.copy_(F.normalize(self.u @ matrix, dim=0, eps=1e-12))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=1e-12))

    def spectral_norm(self) -> torch.Tensor:
        """Largest singular value of the weight as `power_iteration` knows it."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.u @ self.weight.flatten(1) @ self.v

    def forward(self, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """'SAME' convolution with the given stride."""
        y = conv3d(pad_same(x, self.kernel, stride), self.weight, stride)
        if self.spectral:  # the result is divided rather than the weight, which is the larger
            y = y / self.spectral_norm()
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1, 1)
