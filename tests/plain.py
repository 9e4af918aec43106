"""The networks written out plainly, with PyTorch's own layers and the package's weights: what the fast paths must
equal, and the yardstick of `benchmarks.ipynb`.
"""

import types

import torch
import torch.nn.functional as F

from cryoetgan_core.layers.convolution import Conv, InstanceNorm, pad_same
from cryoetgan_core.models import Discriminator, Generator


def reflect(x: torch.Tensor, width: int) -> torch.Tensor:
    return F.pad(x, [width] * 6, mode="reflect")


def norm(layer: InstanceNorm, x: torch.Tensor) -> torch.Tensor:
    return F.instance_norm(x, weight=layer.scale, bias=layer.offset, eps=1e-5)


def conv(layer: Conv, x: torch.Tensor, stride: int) -> torch.Tensor:
    weight = layer.weight
    if layer.spectral:
        weight = weight / (layer.u @ weight.flatten(1) @ layer.v)
    return F.conv3d(pad_same(x, layer.kernel, stride), weight, layer.bias, stride=stride)


def generator(G: Generator, x: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
    """What `Generator.forward` computes."""
    d, h, w = x.shape[-3:]
    y = F.relu(norm(G.first_norm, F.conv3d(reflect(x, 3), G.first.weight)))
    y = F.relu(norm(G.down1_norm, conv(G.down1, y, 2)))
    y = F.relu(norm(G.down2_norm, conv(G.down2, y, 2)))
    for block in G.blocks:
        y = y + F.conv3d(reflect(F.relu(F.conv3d(reflect(y, 1), block.conv1.weight)), 1), block.conv2.weight)
    if G.noise != "none":
        y = torch.cat([y, noise[0]], 1)
    y = F.conv_transpose3d(y, G.up1.weight, stride=2)[..., : 2 * y.shape[-3], : 2 * y.shape[-2], : 2 * y.shape[-1]]
    y = norm(G.up1_norm, y)[..., : -(-d // 2), : -(-h // 2), : -(-w // 2)]
    if G.noise == "all":
        y = y + G.half_amplitude.view(1, -1, 1, 1, 1) * noise[1]
    y = F.relu(y)
    y = F.conv_transpose3d(y, G.up2.weight, stride=2)[..., : 2 * y.shape[-3], : 2 * y.shape[-2], : 2 * y.shape[-1]]
    y = norm(G.up2_norm, y)[..., :d, :h, :w]
    if G.noise == "all":
        y = y + G.full_amplitude.view(1, -1, 1, 1, 1) * noise[2]
    y = F.conv3d(reflect(F.relu(y), 3), G.last.weight)
    if G.skip is not None:
        y = y + F.conv3d(reflect(torch.cat([x, noise[3]], 1) if G.noise == "all" else x, 3), G.skip.weight)
    return torch.tanh(y) if G.output == "tanh" else y


def discriminator(D: Discriminator, y: torch.Tensor) -> torch.Tensor:
    """What `Discriminator.forward` computes."""
    h = F.leaky_relu(conv(D.convs[0], y, 2), 0.2)
    for layer, normal in zip(D.convs[1:], D.norms, strict=True):
        h = conv(layer, h, 2)
        h = F.leaky_relu(norm(normal, h) if isinstance(normal, InstanceNorm) else h, 0.2)
    return conv(D.score, h, 1)


def make_plain(networks: torch.nn.ModuleDict) -> None:
    """Let the paper's networks of a trainer compute plainly from now on."""
    for network in networks.values():
        network.forward = types.MethodType(generator if isinstance(network, Generator) else discriminator, network)
