"""Metrics against independent implementations and known answers."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy import linalg
from torchmetrics.image import PeakSignalNoiseRatio

from cryoetgan_core.metrics import (
    bootstrap_interval,
    frechet_distance,
    inception_score,
    log_spectrum_distance,
    manifold_scores,
    psnr,
    radial_power_spectrum,
)


@pytest.mark.parametrize("scale", [0.5, 0.98, 1.0, 1.5])
def test_manifold_scores_equal_prdc(scale: float) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((70, 20)), scale * rng.standard_normal((55, 20)) + 0.1
    theirs = compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    ours = manifold_scores(torch.tensor(real), torch.tensor(fake), k=5)
    for name, value in theirs.items():
        assert getattr(ours, name) == pytest.approx(value, abs=1e-9), name
    assert ours.density_ceiling == 14


def test_density_saturates_for_volumes_at_the_mean() -> None:
    real = torch.randn(40, 400)
    scores = manifold_scores(real, 0.01 * torch.randn(30, 400))
    assert (scores.precision, scores.recall, scores.density, scores.coverage) == (1, 0, scores.density_ceiling, 1)


def test_frechet_distance_equals_the_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal((200, 6)), rng.standard_normal((150, 6)) @ rng.standard_normal((6, 6)) + 1
    a, b = np.cov(real.T), np.cov(fake.T)
    expected = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet_distance(torch.tensor(real), torch.tensor(fake)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(torch.tensor(real), torch.tensor(real)) == pytest.approx(0, abs=1e-6)


def test_inception_score_spans_one_to_the_number_of_classes() -> None:
    assert inception_score(torch.full((10, 4), 0.25)) == pytest.approx(1)
    assert inception_score(torch.eye(4).repeat(5, 1)) == pytest.approx(4)


def test_psnr_equals_torchmetrics_and_its_anchors() -> None:
    a, b = torch.randn(4, 8, 8, 8), torch.randn(4, 8, 8, 8)
    assert psnr(a, b) == pytest.approx(float(PeakSignalNoiseRatio(data_range=1.0)(b, a)), abs=1e-4)
    big = torch.randn(20, 16, 16, 16)
    assert psnr(big, torch.zeros_like(big)) == pytest.approx(0, abs=0.1)
    assert psnr(big, torch.randn_like(big)) == pytest.approx(-3.01, abs=0.1)


def test_spectrum_of_white_noise_is_flat_and_a_plane_wave_is_one_shell() -> None:
    white = torch.randn(64, 16, 16, 16)
    assert (radial_power_spectrum(white) - 1).abs().max() < 0.1
    assert log_spectrum_distance(white, 2 * white) == pytest.approx(np.log(4), rel=1e-6)
    z = torch.arange(16.0)
    wave = torch.cos(2 * torch.pi * 3 * z / 16)[None, :, None, None].expand(1, 16, 16, 16)
    power = radial_power_spectrum(wave)
    assert int(power.argmax()) == 2  # shell 3, DC left out
    assert float(power[[i for i in range(8) if i != 2]].max()) < 1e-9


def test_bootstrap_interval_covers_the_mean() -> None:
    rng, hits = np.random.default_rng(0), 0
    for trial in range(40):
        data = rng.standard_normal(60)
        low, high = bootstrap_interval(lambda i, d=data: d[i].mean(), 60, seed=trial)
        hits += low <= 0 <= high
    assert 33 <= hits <= 40


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="over 5 each"):
        manifold_scores(torch.zeros(5, 3), torch.zeros(9, 3))
    with pytest.raises(ValueError, match="differ"):
        psnr(torch.zeros(2, 3), torch.zeros(3, 3))
