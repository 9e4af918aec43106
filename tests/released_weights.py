"""Weights of a released TensorFlow checkpoint, given as named arrays, into our networks.

TensorFlow's kernels are ``(kz, ky, kx, in, out)`` (transposed convolutions ``(kz, ky, kx, out, in)``); ours have the
channels first.
"""

from collections.abc import Mapping

import numpy as np
import torch

from cryoetgan_core.models import Discriminator, Generator

_GENERATOR = {
    "c7s1_32": ("first", "first_norm"),
    "d64": ("down1", "down1_norm"),
    "d128": ("down2", "down2_norm"),
    "u64": ("up1", "up1_norm"),
    "u32": ("up2", "up2_norm"),
    "output": ("last", ""),
}
_DISCRIMINATOR = {
    "C64": ("convs.0", ""),
    "C128": ("convs.1", "norms.0"),
    "C256": ("convs.2", "norms.1"),
    "C512": ("convs.3", "norms.2"),
    "output": ("score", ""),
}


def _our_name(name: str, layers: Mapping[str, tuple[str, str]]) -> str | None:
    """Our parameter's name for a TensorFlow variable such as ``G/d64/instance_norm/scale``; None if it is not one."""
    _, layer, *rest = name.split("/")
    if layer.startswith("R128_") and len(rest) == 2:
        return f"blocks.{int(layer.removeprefix('R128_')) - 1}.conv{rest[0].removeprefix('layer')}.weight"
    if layer not in layers:
        return None
    conv, norm = layers[layer]
    if rest[0] == "instance_norm":
        return f"{norm}.{rest[1]}"
    kind = {"weights": "weight", "biases": "bias", "u": "u"}.get(rest[0])
    return kind and f"{conv}.{kind}"


@torch.no_grad()
def load_released_weights(network: Generator | Discriminator, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy named TensorFlow arrays into a network of the released architecture, in place."""
    layers = _GENERATOR if isinstance(network, Generator) else _DISCRIMINATOR
    ours = dict(network.named_parameters()) | {k: v for k, v in network.named_buffers() if k.endswith(".u")}
    for name, array in arrays.items():
        key = _our_name(name, layers)
        assert key in ours, name
        tensor = torch.as_tensor(np.asarray(array, dtype=np.float32))
        if tensor.ndim == 5:
            tensor = tensor.permute(4, 3, 0, 1, 2)  # (.., in, out) to (out, in, ..); transposed ones to (in, out, ..)
        target = ours.pop(key)
        tensor = tensor.reshape(-1) if key.endswith(".u") else tensor
        assert tensor.shape == target.shape, name
        target.copy_(tensor)
    assert not ours, sorted(ours)
    if isinstance(network, Discriminator):
        network.power_iteration()
