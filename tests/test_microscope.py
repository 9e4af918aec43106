"""The microscope on known answers."""

import math

import pytest
import torch
from torch_fourier_slice import backproject_2d_to_3d, project_3d_to_2d

from cryoetgan_core.config import DATASETS
from cryoetgan_core.microscope.released import released_simulator, wedge_mask
from cryoetgan_core.microscope.simulate import (
    Microscope,
    dose_filter,
    noise_scale,
    pre_exposure,
    reconstruct_noise,
    reconstruct_signal,
    transfer_function,
)
from cryoetgan_core.microscope.tilt_series import back_project, project, tilt_angles

N = 32


def blobs(n: int = N) -> torch.Tensor:
    """A smooth asymmetric volume (1, n, n, n) well inside the box."""
    axis = torch.arange(n) - n // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.zeros(n, n, n)
    for dz, dy, dx, s, a in ((3, -2, 4, 2.0, 1.0), (-5, 3, -1, 1.6, 0.7), (0, -6, -3, 2.2, 0.5)):
        volume += a * torch.exp(-((z - dz) ** 2 + (y - dy) ** 2 + (x - dx) ** 2) / (2 * s**2))
    return volume[None]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_projection_at_zero_is_the_sum_along_the_beam() -> None:
    image, exact = project(blobs(), torch.tensor([0.0]))[0], blobs().sum(1)
    # bilinear slices of a transform padded twice: 2.4 % (torch-fourier-slice, trilinear: 3.7 %)
    assert float((image - exact).norm() / exact.norm()) < 0.03


def test_projection_equals_a_real_space_sum_at_a_tilt() -> None:
    angle = math.radians(30)
    axis = torch.arange(N) - N // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    exact = torch.zeros(N, N)
    for dz, dy, dx, s, a in ((3, -2, 4, 2.0, 1.0), (-5, 3, -1, 1.6, 0.7), (0, -6, -3, 2.2, 0.5)):
        u = dx * math.cos(angle) - dz * math.sin(angle)  # where the blob's centre lands on the tilted detector
        exact += a * math.sqrt(2 * math.pi) * s * torch.exp(-((y[0] - dy) ** 2 + (x[0] - u) ** 2) / (2 * s**2))
    image = project(blobs(), torch.tensor([30.0]))[0, 0]
    assert float((image - exact).norm() / exact.norm()) < 0.03


@pytest.mark.parametrize("angle", [-60.0, -17.0, 0.0, 33.0, 70.0])
def test_projection_and_back_projection_equal_torch_fourier_slice(angle: float) -> None:
    a = math.radians(angle)
    matrix = torch.tensor([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
    angles = torch.tensor([angle])
    theirs = project_3d_to_2d(blobs()[0], matrix[None], zyx_matrices=True)[0]
    ours = project(blobs(), angles)[0, 0]
    assert float((ours - theirs).norm() / theirs.norm()) < 0.025
    theirs_back = backproject_2d_to_3d(ours[None], matrix[None], zyx_matrices=True)
    ours_back = back_project(ours[None, None], angles)[0]
    assert correlation(ours_back, theirs_back) > 0.995


def test_full_range_without_ctf_gives_the_volume_back() -> None:
    angles = tilt_angles(-90, 89, 1)
    assert correlation(back_project(project(blobs(), angles), angles), blobs()) > 0.99


def test_the_missing_wedge_is_empty() -> None:
    n, angles = 24, tilt_angles(-50, 70, 3)
    images = torch.randn(len(angles), 1, n, n, generator=torch.Generator().manual_seed(0))
    # In the padded transform, values farther than a voxel from every slice are zero to rounding.
    volume = back_project(images, angles, box=n)[0]
    power = torch.fft.fftn(volume).abs().square().sum(1)  # (kz, kx), summed over the tilt axis
    f = torch.fft.fftfreq(n, 1 / n)
    kz, kx = f[:, None].expand(n, n), f[None, :].expand(n, n)
    slope = torch.rad2deg(torch.atan2(-kz, kx))  # tilt whose slice passes here, modulo 180
    slope = (slope + 90) % 180 - 90
    radius = (kz**2 + kx**2).sqrt()
    shell = (radius > 6) & (radius < 11)
    seen, missing = shell & (slope > -44) & (slope < 64), shell & ((slope < -65) | (slope > 85))
    assert missing.any() and float(power[missing].mean() / power[seen].mean()) < 0.02


def test_back_projection_of_one_tilt_fills_one_plane_exactly() -> None:
    from cryoetgan_core.microscope.tilt_series import _insert_operator

    operator = _insert_operator(16, (0.0,), torch.device("cpu")).to_dense()
    filled = operator.abs().sum(1).view(16, 16) > 0  # (kz, kx)
    assert filled[0].sum() >= 15 and not filled[1:].any()


def test_ctf_has_its_zeros_where_the_formula_puts_them() -> None:
    microscope = Microscope(cs_mm=0.0, amplitude_contrast=0.0, b_factor_A2=0.0, total_dose_e_A2=0.0)
    n, voxel, defocus = 512, 10.0, 2.0
    curve = transfer_function(microscope, torch.tensor([defocus]), n, voxel)[0, 0, 0]  # along x
    q = torch.fft.rfftfreq(n, voxel)
    wavelength = 0.0196875  # angstrom at 300 kV
    expected = torch.sin(math.pi * wavelength * defocus * 1e4 * q**2)
    torch.testing.assert_close(curve, expected, atol=2e-3, rtol=0)
    assert transfer_function(Microscope(), torch.tensor([3.0]), 32, voxel)[:, 0, 0, 1].min() > 0  # protein is bright


def test_a_point_source_comes_back_as_the_ctf() -> None:
    microscope = Microscope(-90.0, 89.0, 1.0, b_factor_A2=0.0, total_dose_e_A2=0.0, amplitude_contrast=0.1)
    n, voxel = 32, 15.0
    point = torch.zeros(1, n, n, n)
    point[0, n // 2, n // 2, n // 2] = 1
    volume = reconstruct_signal(point, microscope, torch.tensor([3.0]), voxel, n)[0]
    spectrum = torch.fft.fftn(torch.fft.ifftshift(volume)).real
    along_y = spectrum[0, : n // 2, 0]
    expected = transfer_function(microscope, torch.tensor([3.0]), n, voxel)[0, 0, : n // 2, 0]
    assert correlation(along_y, expected) > 0.99


@pytest.mark.parametrize("snr", [0.05, 0.5])
def test_the_snr_is_the_one_asked_for(snr: float) -> None:
    microscope, rng = DATASETS["S1"].microscope, torch.Generator().manual_seed(0)
    signal = reconstruct_signal(blobs(), microscope, torch.tensor([6.0]), 20.0, 24)
    noise = reconstruct_noise(8, microscope, 24, 4, rng)
    scale = noise_scale(signal, noise, snr)
    assert float(signal.var() / (scale * noise).var()) == pytest.approx(snr, rel=1e-4)


def test_dose_follows_grant_and_grigorieff() -> None:
    q = torch.tensor([0.05, 0.1])
    critical = 0.24499 * q**-1.6649 + 2.8141
    torch.testing.assert_close(dose_filter(torch.tensor(30.0), q), torch.exp(-30.0 / (2 * critical)))
    symmetric = pre_exposure(Microscope(-6, 6, 3, "dose_symmetric", total_dose_e_A2=5.0))
    assert symmetric.tolist() == [3.0, 1.0, 0.0, 2.0, 4.0]
    assert pre_exposure(Microscope(-6, 6, 3, "bidirectional", total_dose_e_A2=5.0)).tolist() == [4.0, 3.0, 0.0, 1.0, 2.0]


def test_the_released_simulator_leaves_its_wedge_empty_and_keeps_its_snr() -> None:
    rng = torch.Generator().manual_seed(0)
    volume = released_simulator(blobs(), 13.68, 1e6, rng)[0]
    spectrum = torch.fft.rfftn(volume)
    mask = wedge_mask(N)
    assert float(spectrum[mask == 0].abs().max() / spectrum.abs().max()) < 1e-5
    assert abs(float((mask == 0).float().mean()) - 1 / 4) < 0.1  # tan(30) / 2 of the plane is 29 %, less at the corners
    noisy = released_simulator(blobs(), 13.68, 0.1, rng)[0]
    assert 5 < float(noisy.var() / volume.var()) < 12


@pytest.mark.parametrize("scheme", [(10, -10, 1), (-60, 60, 0), (-100, 60, 3)])
def test_impossible_tilt_schemes_are_refused(scheme: tuple) -> None:
    with pytest.raises(ValueError, match="Tilt scheme"):
        tilt_angles(*scheme)
