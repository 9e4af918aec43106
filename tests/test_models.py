"""Networks: fast layers equal the plain ones, sizes, noise, spectral normalisation."""

from functools import partial

import plain
import pytest
import torch
import torch.nn.functional as F

from cryoetgan_core.layers import winograd
from cryoetgan_core.layers.convolution import (
    Conv,
    InstanceNorm,
    channels_last,
    conv3d,
    conv_valid,
    halve,
    reflect_by_flips,
    reflect_pad,
    same_padding,
)
from cryoetgan_core.losses import gradient_penalty
from cryoetgan_core.models import Discriminator, Generator

LARGE = [(conv_valid, (2, i, 11, 10, 12), (o, i, 7, 7, 7), 1) for i, o in ((1, 5), (2, 1), (5, 1), (2, 6), (4, 4))]
SMALL = [
    (partial(conv3d, stride=stride), (b, i, n, n - 1, n + 1), (o, i, k, k, k), stride)
    for b, i, o, n, k, stride in (
        (1, 64, 16, 10, 3, 1),
        (1, 32, 32, 12, 3, 1),
        (2, 70, 24, 8, 4, 2),
        (1, 64, 1, 6, 4, 1),
        (1, 20, 20, 9, 4, 2),
        (3, 64, 8, 5, 2, 1),
    )  # fmt: skip
]
BLOCKS = [(halve, (2, i, 8, 10, 12), (o, i, 4, 4, 4), 2) for i, o in ((1, 4), (3, 2))]


@pytest.mark.parametrize(("ours", "box", "kernel", "stride"), [*LARGE, *SMALL, *BLOCKS])
def test_a_convolution_equals_the_plain_one_to_the_second_derivative(ours, box, kernel, stride) -> None:
    """Of large kernels; of small volumes, where ATen would take its slow kernel; by blocks, as on a GPU."""
    torch.manual_seed(0)
    x, w = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (box, kernel))
    found = []
    for y in (ours(x, w), F.conv3d(x, w, stride=stride)):
        gradient = torch.autograd.grad(y.pow(3).sum(), (x, w), create_graph=True)
        found.append((y, *gradient, *torch.autograd.grad(gradient[0].square().sum(), (x, w))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12 * float(other.detach().abs().max()))


@pytest.mark.parametrize(
    ("batch", "c_in", "c_out", "box"), [(1, 40, 33, (10, 10, 10)), (2, 32, 48, (4, 7, 5)), (1, 3, 2, (2, 2, 3))]
)
def test_winograds_convolution_equals_the_plain_one_with_both_gradients(batch, c_in, c_out, box, monkeypatch) -> None:
    """Of odd and even axes, in either order in memory; by Winograd's products, not by falling back on the plain sum."""
    torch.manual_seed(0)
    monkeypatch.setattr(winograd, "conv3d", None)
    x = torch.randn(batch, c_in, *box, dtype=torch.float64, requires_grad=True)
    w = torch.randn(c_out, c_in, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    plainly = F.conv3d(F.pad(x, [1] * 6, mode="reflect"), w)
    weight = torch.randn_like(plainly)
    expected = (plainly, *torch.autograd.grad((plainly * weight).sum(), (x, w)))
    for order in (torch.contiguous_format, torch.channels_last_3d):
        y = winograd.conv_reflected(x.contiguous(memory_format=order), w)
        for ours, theirs in zip((y, *torch.autograd.grad((y * weight).sum(), (x, w))), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_winograds_convolution_in_float32_rounds_as_the_plain_one() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(1, 64, 10, 10, 10), torch.randn(64, 64, 3, 3, 3)
    exact = F.conv3d(F.pad(x.double(), [1] * 6, mode="reflect"), w.double())
    errors = [
        float((y - exact).square().mean().sqrt()) for y in (winograd.conv_reflected(x, w), conv3d(reflect_pad(x, 1), w))
    ]
    assert errors[0] < 3 * errors[1] and errors[0] < 1e-5 * float(exact.std())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"output": "linear", "noise": "all", "skip": True}, {"noise": "none"}], ids=str
)
def test_generator_equals_the_plain_one(batch: int, options: dict) -> None:
    torch.manual_seed(0)
    G = Generator(16, **options).double()
    x = torch.randn(batch, 1, 14, 14, 14, dtype=torch.float64, requires_grad=True)
    noise = G.sample_noise(x)
    found = []
    for y in (G(x, noise), plain.generator(G, x, noise)):
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *G.parameters()))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("options", [{}, {"spectral_norm": False, "norm": "none"}], ids=str)
def test_discriminator_equals_the_plain_one_with_its_gradient_penalty(batch: int, options: dict) -> None:
    torch.manual_seed(0)
    D = Discriminator(16, **options).double()
    real, fake = torch.randn(2, batch, 1, 24, 24, 24, dtype=torch.float64)
    mix = torch.full((batch, 1, 1, 1, 1), 0.3, dtype=torch.float64)
    found = []
    for critic in (D, lambda y: plain.discriminator(D, y)):
        scores, penalty = critic(real), gradient_penalty(critic, real, fake, mix)
        found.append((scores, *torch.autograd.grad(scores.square().sum() + penalty, list(D.parameters()))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_reflect_pad_and_instance_norm_equal_torch(order: torch.memory_format) -> None:
    """In float64, first and second derivatives included; with channels last in memory they stay last."""
    x = torch.randn(2, 3, 6, 7, 8, dtype=torch.float64).contiguous(memory_format=order).requires_grad_(True)
    padded = reflect_by_flips(x, 3)
    torch.testing.assert_close(padded, F.pad(x, (3,) * 6, mode="reflect"))
    norm = InstanceNorm(3).double()
    results = []
    for y in (norm(x), F.instance_norm(x, weight=norm.scale, bias=norm.offset, eps=1e-5)):
        first = torch.autograd.grad(y.pow(3).sum(), [x, *norm.parameters()], create_graph=True)
        results.append([y, *first, *torch.autograd.grad(first[0].square().sum(), [x, norm.scale])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    last = order == torch.channels_last_3d
    assert all(channels_last(v) == last for v in (padded, results[0][0], norm(x[..., :5])))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(24, 3, 2, (0, 1)), (24, 4, 2, (1, 1)), (7, 4, 2, (1, 2)), (5, 4, 1, (1, 2))],
)
def test_same_padding_follows_tensorflow(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_parameter_counts_are_the_papers() -> None:
    count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
    assert count(Generator(64)) == 7_122_816
    assert count(Discriminator(64)) == 11_048_705


@pytest.mark.parametrize("box", [20, 24, 26, 27])
@pytest.mark.parametrize(
    "options", [{}, {"output": "linear", "noise": "all", "skip": True}, {"noise": "none", "skip": True}]
)
def test_generator_keeps_the_box_and_is_a_function_of_its_noise(box: int, options: dict) -> None:
    torch.manual_seed(0)
    generator, x = Generator(2, **options), torch.randn(2, 1, box, box, box)
    draw = lambda seed: generator.sample_noise(x, torch.Generator().manual_seed(seed))  # noqa: E731
    first, again, other = (generator(x, draw(s)).detach() for s in (1, 1, 2))
    assert first.shape == x.shape
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (options.get("noise") == "none")
    assert (first.abs().max() <= 1) == (options.get("output") != "linear")


def test_spectral_normalisation_divides_by_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    conv = Conv(3, 5, 4, spectral=True)
    for _ in range(200):
        conv.power_iteration()
    largest = torch.linalg.matrix_norm((conv.weight / conv.spectral_norm()).detach().flatten(1), ord=2)
    assert abs(float(largest) - 1) < 1e-4


def test_discriminator_without_instance_norm_sees_amplitude() -> None:
    torch.manual_seed(0)
    y = torch.randn(1, 1, 24, 24, 24)
    spread = {}
    for norm in ("instance", "none"):
        critic = Discriminator(4, norm=norm)
        a, b = critic(y).detach(), critic(2 * y).detach()
        spread[norm] = float((a - b).abs().max() / a.abs().max())
    assert spread["none"] > 0.5
    assert spread["instance"] < 0.05


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match="'sigmoid'"):
        Generator(2, output="sigmoid")
    with pytest.raises(ValueError, match="'batch'"):
        Discriminator(2, norm="batch")
