"""Our networks against arrays that TensorFlow computed: the released networks (read from ../shared/parity where
present), and narrow ones of our own.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from released_weights import load_released_weights

from cryoetgan_core.models import Discriminator, Generator

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "parity"
OWN = sorted((Path(__file__).parent / "parity").glob("*.npz"))  # made by parity/make.py
FILES = [*OWN, *sorted(FOLDER.glob("*.npz"))]


def draw(names: list[str], shapes: list[list[int]], seed: int) -> dict[str, np.ndarray]:
    rng, arrays = np.random.default_rng(seed), {}
    for name, shape in zip(names, shapes, strict=True):
        a = rng.standard_normal(shape)
        arrays[name] = (1 + 0.02 * a if name.endswith("/scale") else a if name.endswith("/u") else 0.02 * a).astype(
            np.float32
        )
    return arrays


def test_our_own_arrays_are_there() -> None:
    assert {p.stem.split("_")[0] for p in OWN} == {"generator", "discriminator"} and any("_sn_" in p.stem for p in OWN)


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    theirs = torch.tensor(theirs)[:, None]
    return float((ours.detach() - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_equals_the_released_network(path: Path) -> None:
    data = np.load(path, allow_pickle=False)
    meta = json.loads(str(data["meta"]))
    arrays = draw(meta["names"], meta["shapes"], meta["seed"])
    rng = np.random.default_rng(meta["seed"] + 1)
    box, is_generator = meta["box"], "generator" in path.stem
    volumes = torch.tensor(rng.standard_normal((2, box, box, box, 1)), dtype=torch.float32).permute(0, 4, 1, 2, 3)
    if is_generator:
        network, b = Generator(meta["ngf"]), -(-box // 4)
        z = torch.tensor(rng.standard_normal((2, b, b, b, 2 * meta["ngf"])), dtype=torch.float32).permute(0, 4, 1, 2, 3)
    else:
        network = Discriminator(meta.get("ndf", 64), spectral_norm=meta["sn"])
    load_released_weights(network, arrays)
    # One ReLU input that float32 rounds to the other side of zero changes a generator's input gradient by up to 1.5 %
    # (box 20: float64 and TensorFlow
    # differ so in one of the two volumes, by 1e-5 in the other). Rounding-sized changes of the input find the side
    # TensorFlow was on.
    output_errors, gradient_errors = [], []
    for attempt in range(6 if is_generator else 1):
        wiggle = torch.randn(volumes.shape, generator=torch.Generator().manual_seed(attempt))
        x = (volumes * (1 + 2e-6 * min(attempt, 1) * wiggle)).requires_grad_()
        y = network(x, [z]) if is_generator else network(x)
        (y.square() if is_generator else y).mean().backward()
        output_errors.append(relative_error(y, data["y"]))
        gradient_errors.append(relative_error(x.grad, data["dx"]))
        if gradient_errors[-1] < 5e-3:
            break
    print(f"{path.stem}: relative L2 error, output {output_errors[0]:.1e}, input gradient {gradient_errors}")
    assert output_errors[0] < 1e-4
    assert min(gradient_errors) < (1e-2 if is_generator else 1e-4)
