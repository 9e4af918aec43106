"""Metrics against independent implementations and known answers."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy import linalg, stats
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from cryoetgan_core.evaluation.metrics import (
    angular_log_ratio,
    angular_power_spectra,
    autocorrelation,
    calibration,
    fourier_shell_correlation,
    frechet_distance,
    inception_score,
    kernel_distance,
    log_spectrum_distance,
    manifold_scores,
    nearest_real,
    radial_power_spectra,
    resolution_A,
    student_interval,
    voxel_moments,
)


@pytest.mark.parametrize("scale", [0.01, 0.5, 0.98, 1.0, 1.5])
def test_manifold_scores_equal_prdc(scale: float) -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((70, 20)), scale * rng.standard_normal((55, 20)) + 0.1
    theirs = compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    ours = manifold_scores(torch.tensor(real), torch.tensor(fake), k=5)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


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


def test_spectrum_of_white_noise_is_flat_and_a_plane_wave_is_one_shell() -> None:
    white = torch.randn(64, 16, 16, 16)
    assert (radial_power_spectra(white).mean(0) - 1).abs().max() < 0.1
    assert log_spectrum_distance(white, 2 * white) == pytest.approx(np.log(4), rel=1e-6)
    z = torch.arange(16.0)
    wave = torch.cos(2 * torch.pi * 3 * z / 16)[None, :, None, None].expand(1, 16, 16, 16)
    power = radial_power_spectra(wave).mean(0)
    assert int(power.argmax()) == 2  # shell 3, DC left out
    assert float(power[[i for i in range(8) if i != 2]].max()) < 1e-9


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="over 5 each"):
        manifold_scores(torch.zeros(5, 3), torch.zeros(9, 3))


def test_kernel_distance_equals_scikit_learns_kernel() -> None:
    rng = np.random.default_rng(2)
    real, fake = rng.standard_normal((60, 8)), rng.standard_normal((45, 8)) + 0.4

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return polynomial_kernel(a, b, degree=3, gamma=1 / 8, coef0=1)

    def off_diagonal_mean(k: np.ndarray) -> float:
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    expected = (
        off_diagonal_mean(kernel(real, real)) + off_diagonal_mean(kernel(fake, fake)) - 2 * kernel(real, fake).mean()
    )
    assert kernel_distance(torch.tensor(real), torch.tensor(fake)) == pytest.approx(expected, rel=1e-9)
    same = [kernel_distance(*torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(i))) for i in range(60)]
    # unbiased: 0 on average where the distributions are equal
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(60)
    with pytest.raises(ValueError, match="kernel_distance"):
        kernel_distance(torch.zeros(1, 3), torch.zeros(5, 3))


def test_angular_spectrum_sees_a_wedge_that_the_radial_one_does_not_tell_apart() -> None:
    white = torch.randn(64, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    f = torch.fft.fftfreq(16, 1 / 16)
    kz, _, kx = torch.meshgrid(f, f, f, indexing="ij")
    spectra = torch.fft.fftn(white, dim=(1, 2, 3))
    along_z, along_x = (
        torch.fft.ifftn(spectra * (a.abs() >= b.abs()), dim=(1, 2, 3)).real for a, b in ((kx, kz), (kz, kx))
    )
    assert log_spectrum_distance(along_z, along_x) < 0.15  # the same power in every shell, in other places
    first, second = angular_power_spectra(along_z).mean(0), angular_power_spectra(along_x).mean(0)
    assert angular_log_ratio(first, second) > 2
    flat = angular_power_spectra(white).mean(0)
    assert (flat[~flat.isnan()] - 1).abs().max() < 0.35 and float(first[2:, 6].nanmean()) == pytest.approx(1, abs=0.1)
    assert float(first[2:, 0].nanmean()) < 1e-6  # along the beam: inside the wedge


def test_moments_and_autocorrelation_equal_scipy_and_numpy() -> None:
    volumes = torch.randn(3, 9, 10, 11).exp()
    flat = volumes.flatten(1).double().numpy()
    expected = np.stack([flat.mean(1), flat.std(1), stats.skew(flat, axis=1), stats.kurtosis(flat, axis=1)], 1)
    np.testing.assert_allclose(voxel_moments(volumes).numpy(), expected, rtol=1e-9)
    v = volumes[0].double().numpy()
    v = v - v.mean()
    found = autocorrelation(volumes)[0].numpy()
    assert found[0, 1] == pytest.approx((v[:-2] * v[2:]).mean() / v.var())
    assert found[2, 0] == pytest.approx((v[..., :-1] * v[..., 1:]).mean() / v.var())


def test_memorised_volumes_are_found_as_scikit_learn_finds_them() -> None:
    rng = torch.Generator().manual_seed(0)
    train, held, fresh = torch.randn(3, 40, 30, generator=rng)
    copies = train[:20] + 0.05 * torch.randn(20, 30, generator=rng)
    assert nearest_real(copies, train, held).mean() == 1 and 0.2 < nearest_real(fresh, train, held).mean() < 0.8
    distances = [
        NearestNeighbors(n_neighbors=1).fit(s.numpy()).kneighbors(fresh.numpy())[0][:, 0] for s in (train, held)
    ]
    np.testing.assert_array_equal(nearest_real(fresh, train, held).numpy(), distances[0] < distances[1])
    with pytest.raises(ValueError, match="as many of each"):
        nearest_real(fresh, train, held[:5])


def test_calibration_of_a_true_and_of_a_false_map() -> None:
    rng = torch.Generator().manual_seed(0)
    deviation = 0.5 + torch.rand(20000, generator=rng)
    error = deviation * torch.randn(20000, generator=rng)
    ratio, rank = calibration(deviation, error)
    assert ratio == pytest.approx(1, abs=0.03)
    assert rank == pytest.approx(stats.spearmanr(deviation, error.abs())[0], abs=1e-6) and rank > 0.2
    assert calibration(deviation / 2, error)[0] == pytest.approx(2, abs=0.06)
    assert abs(calibration(deviation[torch.randperm(20000, generator=rng)], error)[1]) < 0.03
    assert np.isnan(calibration(torch.ones(100), error[:100])[1])  # a constant map ranks nothing


def test_student_interval_is_that_of_scipy() -> None:
    values = [3.0, 5.0, 4.5, 7.0]
    mean, *ends = student_interval(values)
    assert mean == np.mean(values)
    np.testing.assert_allclose(ends, stats.t.interval(0.95, 3, mean, stats.sem(values)))
    assert np.isnan(student_interval([2.0])[1])
    assert student_interval([90.0, 99.0, 99.9], bounds=(0, 100))[2] == 100


def test_prediction_interval_holds_the_next_value_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((4000, 6))
    ends = np.array([student_interval(five, of_next=True)[1:] for five in draws[:, :5]])
    held = (ends[:, 0] <= draws[:, 5]) & (draws[:, 5] <= ends[:, 1])
    assert 0.94 < held.mean() < 0.96


def test_fourier_shell_correlation_of_known_pairs() -> None:
    rng = torch.Generator().manual_seed(0)
    a, noise = torch.randn(2, 24, 24, 24, generator=rng)
    assert (fourier_shell_correlation(a, a) - 1).abs().max() < 1e-9
    assert (fourier_shell_correlation(a, -a) + 1).abs().max() < 1e-9
    curve = fourier_shell_correlation(a, a + noise)  # equal powers: 1 / sqrt(2)
    assert (curve[4:] - 2**-0.5).abs().max() < 0.1
    assert resolution_A(curve, 10.0, threshold=0.9) == float("inf") or resolution_A(curve, 10.0, threshold=0.9) > 100
    assert resolution_A(curve[:5].clone().clamp(min=0.6), 10.0) == pytest.approx(20.0)  # never falls: Nyquist
    with pytest.raises(ValueError, match="two equal cubes"):
        fourier_shell_correlation(a, a[:5])
