"""How a device carries out a training step: memory order, CUDA graphs, fused optimisers.

What is computed stays the same to rounding; `RunConfig.compute_dtype`, which changes it, is not here.
"""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

import torch

Tree = torch.Tensor | list | tuple | dict  # of tensors
WARM_UP = 3  # steps as usual before one is recorded: libraries choose their kernels, optimisers make their state


@dataclass(frozen=True)
class Acceleration:
    """What to use.

    Parameters
    ----------
    channels_last
        keep the channels of a voxel together in memory, as tensor cores take them.
    graphs
        record the step once as CUDA graphs and replay it, so that its thousands of launches cost no time. In one
        process only.
    fused
        the optimiser as one kernel for all parameters.
    """

    channels_last: bool = False
    graphs: bool = False
    fused: bool = False

    @classmethod
    def automatic(cls, device: torch.device, processes: int = 1) -> "Acceleration":
        """All of it on a GPU; nothing on a CPU, where none of it is quicker in float32."""
        gpu = device.type == "cuda"
        return cls(channels_last=gpu, graphs=gpu and processes == 1, fused=gpu)

    def check(self, device: torch.device, processes: int) -> None:
        """Raise ValueError where the device or several processes do not allow what is asked for."""
        for asked, allowed, why in (
            (self.graphs, device.type == "cuda", "CUDA graphs need a GPU"),
            (self.graphs, processes == 1, "CUDA graphs record one process"),
        ):
            if asked and not allowed:
                raise ValueError(f"Acceleration: {why}; leave it out of {self}.")

    def __str__(self) -> str:
        return ", ".join(f.name for f in fields(self) if getattr(self, f.name)) or "none"


def autocast(dtype: str, device: torch.device) -> AbstractContextManager:
    """Convolutions and matrix products in `dtype` where that is not "float32"; weights stay in float32, and so do
    norms, transforms and spectral normalisation, which turn it off.
    """
    return torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32")


def copy_into(kept: Tree, new: Tree) -> None:
    """Copy every tensor of a nest of lists and dictionaries into its place in another of the same form."""
    if isinstance(kept, torch.Tensor):
        kept.copy_(new)
        return
    for key in kept if isinstance(kept, dict) else range(len(kept)):
        copy_into(kept[key], new[key])


def clone(tree: Tree) -> Tree:
    """A nest of tensors with memory of its own."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    return {k: clone(v) for k, v in tree.items()} if isinstance(tree, dict) else [clone(v) for v in tree]


class CudaGraph:
    """The work of a function on the GPU, recorded and played again."""

    def __init__(self) -> None:
        self.graph, self.side = torch.cuda.CUDAGraph(), torch.cuda.Stream()

    def warm_up(self, function: Callable[[Tree], Tree], inputs: Tree) -> Tree:
        """Call the function on a stream of its own, as recording needs it."""
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            out = function(inputs)
        torch.cuda.current_stream().wait_stream(self.side)
        return out

    def record(self, function: Callable[[Tree], Tree], inputs: Tree) -> Tree:
        """Record the function without carrying it out; returns where it will leave its results."""
        gc.collect()  # what is freed while recording would be freed in the recording
        with torch.cuda.graph(self.graph):
            return function(inputs)

    def replay(self) -> None:
        """Carry out what was recorded, on what its inputs hold now."""
        self.graph.replay()


class Recorded:
    """A function of a nest of tensors that, after WARM_UP calls, is a recording: it reads and writes the same memory
    every time.

    Its results hold until the next call. What else the function reads (weights, optimiser state) must stay where it is.
    """

    def __init__(self, function: Callable[[Tree], Tree], recorder: Callable[[], CudaGraph] = CudaGraph):
        self.function, self.recorder, self.calls = function, recorder(), 0
        self.inputs, self.outputs = None, None

    def __call__(self, inputs: Tree) -> Tree:
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.recorder.warm_up(self.function, inputs)
        if self.inputs is None:
            kept = clone(inputs)
            self.outputs = self.recorder.record(self.function, kept)
            self.inputs = kept
        copy_into(self.inputs, inputs)
        self.recorder.replay()
        return self.outputs
