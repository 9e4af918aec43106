"""Optimisers of a training: what they are, their learning rate at a step, and their state as named tensors."""

import torch
from torch import nn

from ..config import RunConfig
from .acceleration import Acceleration


def make_optimizer(config: RunConfig, networks: list[nn.Module], acceleration: Acceleration) -> torch.optim.Optimizer:
    """Adam(beta1, beta2) or RMSProp(0.9), as the configuration says; every step sets the learning rate."""
    parameters = [p for n in networks for p in n.parameters()]
    options = {}
    if acceleration.graphs:  # which read the learning rate where it lies
        device = parameters[0].device
        options = {"capturable": device.type == "cuda", "lr": torch.tensor(config.learning_rate, device=device)}
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, alpha=0.9, **options)
    return torch.optim.Adam(parameters, betas=(config.beta1, config.beta2), fused=acceleration.fused or None, **options)


def decay(config: RunConfig, step: int) -> float:
    """Factor on the learning rates: 1, then linear to zero over the part of the run after `decay_from`."""
    left = (config.steps - step) / max(config.steps * (1 - config.decay_from), 1)
    return min(1.0, left)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; a recorded step reads it where it lies."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """State of an optimiser by "parameter.slot"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{slot}": torch.as_tensor(v) for i, slots in state.items() for slot, v in slots.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Continue from `optimizer_tensors` of an optimiser of the same parameters."""
    slots: dict[int, dict] = {}
    for key, value in tensors.items():
        index, slot = key.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
    # in the parameter's memory order, which a fused optimiser takes for granted
    for parameter, kept in optimizer.state.items():
        kept |= {
            k: torch.empty_like(parameter).copy_(v) for k, v in kept.items() if v.shape == parameter.shape and v.dim()
        }
