"""Training by several processes, as torchrun starts them: each takes its part of every batch, and gradients are
averaged over all.

The critics' penalties need second derivatives, and a step passes a network several times, which DistributedDataParallel
does not support; its one task here, averaging gradients, is done once a descent.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=6)  # for the first process, which may have a set to simulate
Draws = torch.Tensor | list[torch.Tensor] | dict[str, torch.Tensor]


class _Sum(torch.autograd.Function):
    """Sum over the processes; the gradient of each one's part is the sum of what all send back."""

    @staticmethod
    def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, gradient)


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is; alone, every method gives back what it is given."""

    rank: int = 0
    count: int = 1

    def part(self, drawn: Draws) -> Draws:
        """This process's share of tensors (B, ...), B a multiple of `count`, single or in a list or dict."""
        if isinstance(drawn, dict):
            return {k: self.part(v) for k, v in drawn.items()}
        if isinstance(drawn, list):
            return [self.part(v) for v in drawn]
        return drawn.tensor_split(self.count)[self.rank]

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        """The whole batch (B, ...) of every process's share, without gradient."""
        if self.count == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.count)]
        dist.all_gather(parts, part.detach().contiguous())
        return torch.cat(parts)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean of a tensor over the processes, which gradients pass."""
        return value if self.count == 1 else _Sum.apply(value) / self.count

    def average_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Put the mean over the processes in place of each parameter's gradient."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for gradient, mean in zip(gradients, (flat / self.count).split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    """Those that torchrun started, each with a GPU of its own where there are any (nccl; else gloo); one where it
    did not.
    """
    if "RANK" not in os.environ:
        yield Processes()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
