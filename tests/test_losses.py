"""Losses on known answers."""

import math

import pytest
import torch

from cryoetgan_core import losses


def test_adversarial_losses_by_hand() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -2.0])
    assert losses.critic_loss(real, fake, "wasserstein") == -3
    assert losses.generator_loss(fake, "wasserstein") == 1
    assert losses.critic_loss(real, fake, "least_squares", 0.8) == pytest.approx(0.5 * ((0.04 + 4.84) / 2 + 2))
    assert losses.generator_loss(fake, "least_squares", 0.8) == pytest.approx((0.64 + 7.84) / 2)


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_critic(slope: float) -> None:
    direction = torch.randn(1, 1, 6, 6, 6)
    direction = slope * direction / direction.norm()
    critic = lambda v: (v * direction).sum(dim=(1, 2, 3, 4)).view(-1, 1, 1, 1, 1)  # noqa: E731
    real, fake, mix = torch.randn(3, 1, 6, 6, 6), torch.randn(3, 1, 6, 6, 6), torch.rand(3, 1, 1, 1, 1)
    assert float(losses.gradient_penalty(critic, real, fake, mix)) == pytest.approx((slope - 1) ** 2, abs=1e-5)
    depth = (direction.square().sum(dim=2).sqrt() - 1).square().mean()
    assert float(losses.gradient_penalty(critic, real, fake, mix, "depth")) == pytest.approx(float(depth), rel=1e-4)
    assert float(losses.zero_centred_penalty(critic, real)) == pytest.approx(slope**2, rel=1e-4)


def test_log_power_loss_sees_amplitude_colour_and_the_wedge() -> None:
    torch.manual_seed(0)
    white = torch.randn(8, 1, 16, 16, 16)
    again = torch.randn(8, 1, 16, 16, 16)
    floor = float(losses.log_power_loss(white, again))
    assert floor < 0.1
    assert float(losses.log_power_loss(white, 2 * again)) == pytest.approx(math.log(4) ** 2, rel=0.1)
    spectrum = torch.fft.fftn(again, dim=(-3, -2, -1))
    kz, kx = torch.fft.fftfreq(16)[:, None, None].abs(), torch.fft.fftfreq(16)[None, None, :].abs()
    wedged = torch.fft.ifftn(spectrum * ~((kx < 0.5 * kz).expand(16, 16, 16)), dim=(-3, -2, -1)).real
    turned = wedged.transpose(-3, -1)  # the same radial power, the wedge elsewhere
    assert float(losses.log_power_loss(wedged, turned)) > 20 * floor
