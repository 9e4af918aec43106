"""Random streams."""

import torch

from cryoetgan_core.reproducibility.seeds import stream


def test_streams_differ_by_seed_and_by_every_part_of_the_name() -> None:
    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 2)]
    drawn = [torch.randn(4, generator=stream(*name)) for name in names]
    assert torch.equal(drawn[0], torch.randn(4, generator=stream(0, "a")))
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[i + 1 :])
