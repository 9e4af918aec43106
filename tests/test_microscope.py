"""The microscope on known answers: projection, back-projection, transfer, noise, and all of it together."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from common import rng
from torch_fourier_slice import backproject_2d_to_3d, project_3d_to_2d

from cryoetgan_core.evaluation.metrics import fourier_shell_correlation, resolution_A
from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.simulator.microscope import noise, transfer
from cryoetgan_core.simulator.microscope.back_projection import back_project, insert_slices, transform_size
from cryoetgan_core.simulator.microscope.projection import project
from cryoetgan_core.simulator.microscope.released import released_simulator, wedge_mask
from cryoetgan_core.simulator.microscope.simulate import (
    MICROSCOPES,
    Microscope,
    draw_recordings,
    reconstruct,
    record,
    transfer_function,
)
from cryoetgan_core.simulator.microscope.tilt_scheme import recording_order, tilt_angles, tilt_matrices
from cryoetgan_core.simulator.sets import class_references, subtomograms
from cryoetgan_core.simulator.specimen import random_rotations, relion_angles_to_pose, rotate_volume
from cryoetgan_core.simulator.specimen.crowding import Crowding, Neighbours, place_neighbours, radius_A
from cryoetgan_core.volumes.alignment import unposed

N = 32
RELEASED = (
    Path(__file__).resolve().parents[2] / "shared/data/simulated/released_simulator/four_classes_box28_snr0.3.npz"
)
BLOBS = ((3, -2, 4, 2.0, 1.0), (-5, 3, -1, 1.6, 0.7), (0, -6, -3, 2.2, 0.5))  # z, y, x, sigma, height
PERFECT = dict(b_factor_A2=0.0, total_dose_e_A2=0.0, ice_thickness_A=0.0, field_A=0.0, defocus_spread_um=0.0)


def band_power(volumes: torch.Tensor, voxel_size_A: float, coarsest_A: float, finest_A: float) -> torch.Tensor:
    """Power of volumes (B, N, N, N) between two resolutions."""
    f = torch.fft.fftfreq(volumes.shape[-1], voxel_size_A)
    q = (f[:, None, None] ** 2 + f[:, None] ** 2 + f**2).sqrt()
    inside = (q >= 1 / coarsest_A) & (q <= 1 / finest_A)
    return (torch.fft.fftn(volumes, dim=(-3, -2, -1)).abs() ** 2 * inside).sum((-3, -2, -1))


def blobs(n: int = N) -> torch.Tensor:
    """A smooth asymmetric volume (n, n, n) well inside the box."""
    axis = torch.arange(n) - n // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.zeros(n, n, n)
    for dz, dy, dx, s, a in BLOBS:
        volume += a * torch.exp(-((z - dz) ** 2 + (y - dy) ** 2 + (x - dx) ** 2) / (2 * s**2))
    return volume


def exact_projection(matrix: torch.Tensor, shift_yx: tuple[float, float] = (0.0, 0.0), n: int = N) -> torch.Tensor:
    """Sum along z of the turned blobs: each Gaussian lands where its centre does."""
    axis = torch.arange(n) - n // 2
    image = torch.zeros(n, n)
    for dz, dy, dx, s, a in BLOBS:
        u, v, _ = (matrix @ torch.tensor([dx, dy, dz], dtype=matrix.dtype)).tolist()
        y, x = axis[:, None] - v - shift_yx[0], axis - u - shift_yx[1]
        image += a * math.sqrt(2 * math.pi) * s * torch.exp(-(y**2 + x**2) / (2 * s**2))
    return image


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


# ---- projection


@pytest.mark.parametrize(("pad", "limit"), [(2, 0.035), (3, 0.012)])
def test_projection_equals_a_real_space_sum_in_any_pose(pad: int, limit: float) -> None:
    tilts, poses = tilt_matrices(torch.tensor([-50.0, 0.0, 33.0])), random_rotations(4, rng())
    matrices = tilts[:, None] @ poses
    images = project(blobs(), matrices, pad=pad)
    for t in range(3):
        for b in range(4):
            assert error(images[t, b], exact_projection(matrices[t, b])) < limit


def test_shifts_move_the_image_by_fractions_and_by_whole_pixels() -> None:
    matrices = random_rotations(3, rng())[None]
    shifts = torch.tensor([[[0.3, -0.4], [5.0, -7.25], [40.0, 40.0]]])
    images = project(blobs(), matrices, shifts, size=44)
    for b in range(2):
        assert error(images[0, b], exact_projection(matrices[0, b], tuple(shifts[0, b].tolist()), 44)) < 0.012
    assert images[0, 2].abs().max() < 0.02 * images[0, 0].max()  # outside: nothing wraps round
    one_each = project(torch.stack([blobs(), 2 * blobs(), blobs()]), matrices, shifts, size=44)
    torch.testing.assert_close(one_each[0, 1], 2 * images[0, 1])


@pytest.mark.parametrize("angle", [-60.0, 0.0, 33.0, 70.0])
def test_projection_and_back_projection_equal_torch_fourier_slice(angle: float) -> None:
    matrix = tilt_matrices(torch.tensor([angle]))
    theirs = project_3d_to_2d(blobs(), matrix.mT.float())[0]
    ours = project(blobs(), matrix[:, None], pad=2)[0, 0]
    assert error(ours, theirs) < 0.04  # each is that far from the exact one
    theirs_back = backproject_2d_to_3d(ours[None], matrix.mT.float())
    ours_back = back_project(ours[None, None], torch.tensor([angle]))[0]
    assert correlation(ours_back, theirs_back) > 0.995


def test_the_tilt_axis_is_y() -> None:
    angles = tilt_angles(-60, 60, 3)
    volume = back_project(project(blobs(), tilt_matrices(angles)[:, None]), angles)[0]
    spectrum = torch.fft.fftn(volume).abs() ** 2
    f = torch.fft.fftfreq(N, 1 / N)
    kz, ky, kx = torch.meshgrid(f, f, f, indexing="ij")
    radius = (kz**2 + kx**2).sqrt()
    shell = (radius > 4) & (radius < 9)
    missing = shell & (kx.abs() < 0.25 * kz.abs())
    full = torch.fft.fftn(blobs()).abs() ** 2
    assert float(spectrum[missing].sum() / full[missing].sum()) < 0.05
    seen = shell & (kx.abs() > kz.abs())
    assert float(spectrum[seen].sum() / full[seen].sum()) == pytest.approx(1, abs=0.1)
    assert correlation(volume, blobs()) > 0.85  # the wrong hand gives 0.3


# ---- back-projection


def test_full_range_without_ctf_gives_the_volume_back() -> None:
    noisy = torch.randn(N, N, N, generator=rng())
    axis = torch.arange(N) - N // 2
    r = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    band = torch.fft.fftfreq(N, 1 / N)
    q = (band[:, None, None] ** 2 + band[:, None] ** 2 + band**2).sqrt()
    low = q < 0.8 * N / 2
    volume = torch.fft.ifftn(torch.fft.fftn(noisy * (r < 11)) * low).real  # white up to 0.8 Nyquist, inside the box
    angles = tilt_angles(-90, 89, 1)
    back = back_project(project(volume, tilt_matrices(angles)[:, None]), angles)[0]
    back = torch.fft.ifftn(torch.fft.fftn(back) * low).real
    assert correlation(back, volume) > 0.99
    assert fourier_shell_correlation(back, volume)[1 : int(0.8 * N / 2)].min() > 0.98


@pytest.mark.parametrize(("low", "high"), [(-50.0, 70.0), (-60.0, 60.0)])
def test_fourier_values_inside_the_missing_wedge_are_zero(low: float, high: float) -> None:
    angles, size = tilt_angles(low, high, 3), transform_size(36, 24)
    images = torch.randn(len(angles), 2, 36, 36, generator=rng())
    spectra = insert_slices(images, angles, size).abs().amax((2, 3))  # (kz, kx)
    f = torch.fft.fftfreq(size, 1 / size)
    kz, kx = f[:, None].expand(size, size), f.expand(size, size)
    tilt = torch.rad2deg(torch.atan2(-kz, kx))  # of the slice that passes here, modulo 180
    tilt = (tilt + 90) % 180 - 90
    radius = (kz**2 + kx**2).sqrt()
    # degrees to the nearest recorded tilt
    beyond = torch.minimum((tilt - high).remainder(180), (low - tilt).remainder(180))
    missing = (tilt > high) | (tilt < low)
    # farther than one interpolation cell from every slice
    missing &= radius * torch.sin(torch.deg2rad(beyond)) > math.sqrt(2)
    missing &= radius < size // 2 - 1
    assert missing.sum() > 100 and spectra[missing].max() == 0
    seen = (tilt < high - 3) & (tilt > low + 3) & (radius < 15) & (radius > 0)
    assert spectra[seen].min() > 0


def test_back_projection_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 angles"):
        back_project(torch.zeros(3, 1, 8, 8), torch.zeros(2))
    with pytest.raises(ValueError, match="project: volumes"):
        project(torch.zeros(2, 8, 8, 8), torch.eye(3).expand(1, 3, 3, 3))


# ---- transfer


def test_ctf_equals_the_formula() -> None:
    n, voxel, defocus, cs, amplitude, phase = 256, 5.0, 2.0, 2.7, 0.07, 0.5
    q2 = transfer.frequencies((n, n), voxel, torch.device("cpu")).double() ** 2
    wavelength = 12.398420 / math.sqrt(300 * (2 * 510.99895 + 300))  # angstrom
    assert wavelength == pytest.approx(0.0196875, rel=1e-5)
    for plate in (0.0, math.degrees(phase)):
        chi = math.pi * wavelength * q2 * (defocus * 1e4 - 0.5 * wavelength**2 * q2 * cs * 1e7)
        expected = torch.sin(chi + math.asin(amplitude) + math.radians(plate))
        found = transfer.ctf(
            torch.tensor(defocus),
            (n, n),
            voxel,
            voltage_kV=300.0,
            cs_mm=cs,
            amplitude_contrast=amplitude,
            phase_shift_deg=plate,
        )
        torch.testing.assert_close(found.double(), expected, atol=5e-3, rtol=0)


def test_astigmatism_gives_each_axis_its_defocus() -> None:
    optics = dict(voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.07)
    both = transfer.ctf(torch.tensor(3.0), (128, 128), 8.0, astigmatism_um=0.5, astigmatism_angle_deg=0.0, **optics)
    long, short = (transfer.ctf(torch.tensor(d), (128, 128), 8.0, **optics) for d in (3.5, 2.5))
    torch.testing.assert_close(both[0, :60], long[0, :60], atol=1e-3, rtol=0)  # angle 0: the larger defocus along x
    torch.testing.assert_close(both[:60, 0], short[:60, 0], atol=1e-3, rtol=0)


def test_interaction_constant_of_the_tables() -> None:
    for voltage, expected in ((100.0, 9.244e-4), (200.0, 7.288e-4), (300.0, 6.526e-4)):  # Kirkland 2010, table C.1
        assert transfer.interaction_constant(voltage) == pytest.approx(expected, rel=1e-3)


def test_detector_passes_low_frequencies_and_halves_its_nyquist() -> None:
    q = torch.tensor([0.0, 0.05, 0.25])
    mtf = transfer.detector_mtf(q, camera_pixel_A=2.0, spread_px=0.3)
    assert mtf[0] == 1 and float(mtf[2]) == pytest.approx(2 / math.pi * math.exp(-2 * (math.pi * 0.15) ** 2))
    assert mtf[1] > 0.95


def test_dose_follows_grant_and_grigorieff() -> None:
    q = torch.tensor([0.05, 0.1])
    critical = 0.24499 * q**-1.6649 + 2.8141
    torch.testing.assert_close(transfer.dose_filter(torch.tensor(30.0), q), torch.exp(-30.0 / (2 * critical)))
    symmetric = Microscope(-6, 6, 3, "dose_symmetric", total_dose_e_A2=5.0)
    assert symmetric.pre_exposure_e_A2.tolist() == [3.0, 1.0, 0.0, 2.0, 4.0]
    one_way = Microscope(-6, 6, 3, "bidirectional", total_dose_e_A2=5.0)
    assert one_way.pre_exposure_e_A2.tolist() == [4.0, 3.0, 0.0, 1.0, 2.0]
    # each image of a series decays by its own dose, and only by it
    microscope = Microscope(-6, 6, 3, b_factor_A2=0.0, total_dose_e_A2=50.0)
    defocus = torch.full((5, 1), 3.0)
    with_dose = transfer_function(microscope, defocus, (32, 32), 8.0)
    without = transfer_function(dataclasses.replace(microscope, total_dose_e_A2=0.0), defocus, (32, 32), 8.0)
    frequency = transfer.frequencies((32, 32), 8.0, torch.device("cpu"))
    for i, dose in enumerate([30.0, 10.0, 0.0, 20.0, 40.0]):
        torch.testing.assert_close(with_dose[i, 0], without[i, 0] * transfer.dose_filter(torch.tensor(dose), frequency))


@pytest.mark.parametrize(
    ("angles", "order"),
    [([-2.0, 0.5, 3.0], [1, 0, 2]), ([0.0, 3.0, 6.0], [0, 1, 2]), ([-60.0, -30.0, 0.0, 30.0], [3, 1, 0, 2])],
)
def test_dose_symmetric_order_starts_at_the_smallest_tilt(angles: list[float], order: list[int]) -> None:
    assert recording_order(torch.tensor(angles), "dose_symmetric").tolist() == order
    with pytest.raises(ValueError, match="expected one of"):
        recording_order(torch.tensor(angles), "random")


# ---- specimen to reconstruction


def simulated(
    volume: torch.Tensor, microscope: Microscope, defocus: float, voxel: float, pose: torch.Tensor | None = None
) -> torch.Tensor:
    """Noise-free reconstruction (n, n, n) of one volume in the middle of a tomogram."""
    recordings = draw_recordings(dataclasses.replace(microscope, defocus_um=defocus), 1, 1, rng())
    images = project(volume, recordings.tilts @ (torch.eye(3).double() if pose is None else pose))
    return reconstruct(
        record(images, microscope, recordings.defocus_um, voxel), microscope, recordings.defocus_um, voxel, len(volume)
    )[0]


def test_a_point_source_comes_back_as_the_analytic_ctf() -> None:
    microscope = Microscope(-90.0, 89.0, 1.0, amplitude_contrast=0.1, **PERFECT)
    n, voxel, defocus = 32, 15.0, 3.0
    point = torch.zeros(n, n, n)
    point[n // 2, n // 2, n // 2] = 1
    spectrum = torch.fft.fftn(torch.fft.ifftshift(simulated(point, microscope, defocus, voxel))).real
    f = torch.fft.fftfreq(n, voxel)
    q2 = f[:, None, None] ** 2 + f[:, None] ** 2 + f**2
    wavelength = 0.0196875
    expected = torch.sin(
        math.pi * wavelength * q2 * (defocus * 1e4 - 0.5 * wavelength**2 * q2 * 2.7e7) + math.asin(0.1)
    )
    inside = (q2.sqrt() < 0.7 * 0.5 / voxel) & (q2 > 0)  # in every direction: the CTF on shells
    assert correlation(spectrum[inside], expected[inside]) > 0.97
    assert float((spectrum - expected)[inside].square().mean().sqrt()) < 0.1


def test_turning_the_specimen_turns_the_result_away_from_the_wedge() -> None:
    microscope = Microscope(-60.0, 60.0, 2.0, **PERFECT)
    turn = tilt_matrices(torch.tensor([25.0]))[0]  # about the tilt axis
    straight = simulated(blobs(), microscope, 3.0, 12.0)
    turned = simulated(blobs(), microscope, 3.0, 12.0, pose=turn)
    expected = rotate_volume(straight, turn[None], torch.zeros(1, 3), 12.0)[0]
    f, h = torch.fft.fftfreq(N, 1 / N), torch.fft.rfftfreq(N, 1 / N)
    tilt = torch.rad2deg(torch.atan2(-f[:, None, None], h)).expand(N, N, -1)
    # recorded for both: the slice at this angle now, and where the rotation brought it from
    seen = (tilt.abs() < 55) & ((tilt + 25 + 90) % 180 - 90).abs().lt(55) & ((tilt - 25 + 90) % 180 - 90).abs().lt(55)
    outside = [torch.fft.irfftn(torch.fft.rfftn(v) * seen, s=v.shape) for v in (turned, expected)]
    away, whole = (fourier_shell_correlation(*both)[2:9] for both in (outside, (turned, expected)))
    assert away.min() > 0.97 and whole.mean() < away.mean() - 0.02


def test_mean_of_particles_aligned_by_their_poses_converges_to_the_density() -> None:
    references = class_references(("ribosome",), 40, 13.68)
    microscope = dataclasses.replace(MICROSCOPES["S1"], correction="phase_flip", dose_weighting=True)
    particles = subtomograms(references, 96, 40, 13.68, microscope, rng(), snr=0.1, crowding=Crowding(0.003))
    table = particles.table
    rotations = relion_angles_to_pose(*(torch.tensor(table[c].to_numpy()) for c in ("rot_deg", "tilt_deg", "psi_deg")))
    shifts = torch.tensor(table[["shift_z_A", "shift_y_A", "shift_x_A"]].to_numpy().copy())
    back = unposed(torch.from_numpy(particles.volumes), rotations, shifts, 13.68)
    truth = torch.zeros(40, 40, 40)
    truth[5:35, 5:35, 5:35] = references["ribosome"]
    resolution = [resolution_A(fourier_shell_correlation(back[:n].mean(0), truth), 13.68) for n in (6, 96)]
    assert resolution[1] < 40 and resolution[1] < resolution[0]
    # the inverse poses: the control
    wrong = unposed(torch.from_numpy(particles.volumes), rotations.mT, shifts, 13.68).mean(0)
    assert resolution_A(fourier_shell_correlation(wrong, truth), 13.68) > 100


@pytest.mark.parametrize("correction", ["phase_flip", "wiener"])
def test_correction_gives_the_density_its_sign_back(correction: str) -> None:
    plain = Microscope(-90.0, 89.0, 1.0, **PERFECT)
    corrected = dataclasses.replace(plain, correction=correction)
    truth = blobs()
    shells = slice(9, 13)  # beyond the first zero of the CTF, at 40 A
    before, after = (
        fourier_shell_correlation(simulated(truth, m, 8.0, 10.0), truth)[shells] for m in (plain, corrected)
    )
    assert before.min() < -0.3 and after.min() > 0.2 and after.mean() > before.mean() + 0.3


def test_wiener_filter_of_sparse_tilts_is_regularised_as_stated() -> None:
    # Flat transfer: CTF of a phase plate at focus. One slice a Fourier value: V = g F / (1 + c), whatever its
    # interpolation weight g.
    base = Microscope(-60, 60, 3, phase_shift_deg=90.0, cs_mm=0.0, amplitude_contrast=0.0, defocus_um=0.0, **PERFECT)
    defocus, images = torch.zeros(41, 1), torch.randn(41, 1, 36, 36, generator=rng())
    plain = reconstruct(images, base, defocus, 10.0, 24)
    for c in (0.1, 1.0):
        filtered = reconstruct(
            images, dataclasses.replace(base, correction="wiener", wiener_regularisation=c), defocus, 10.0, 24
        )
        high = [band_power(v, 10.0, 25.0, 20.0) for v in (plain, filtered)]
        # a few values there have more than one slice
        assert float((high[1] / high[0]).sqrt()) == pytest.approx(1 / (1 + c), rel=0.06)


def test_dose_weighting_keeps_the_level_of_white_noise() -> None:
    base = dataclasses.replace(MICROSCOPES["modern"], correction="none")
    defocus, images = torch.full((41, 1), 3.0), torch.randn(41, 1, 36, 36, generator=rng())
    levels = [
        reconstruct(images, dataclasses.replace(base, dose_weighting=w), defocus, 8.0, 24).std() for w in (False, True)
    ]
    assert float(levels[1] / levels[0]) == pytest.approx(1, abs=0.1)


def test_dose_weighting_reaches_higher_resolution_at_the_same_noise() -> None:
    base = dataclasses.replace(MICROSCOPES["modern"], correction="none", tilt_error_deg=0.0, shift_error_A=0.0)
    defocus, truth = torch.zeros(len(base.angles_deg), 1), blobs()
    defocus += 1.0
    high = {}
    for weighting in (False, True):
        microscope = dataclasses.replace(base, dose_weighting=weighting)
        images = record(project(truth, tilt_matrices(base.angles_deg)[:, None]), microscope, defocus, 5.0)
        signal = reconstruct(images, microscope, defocus, 5.0, N)
        white = reconstruct(torch.randn(images.shape, generator=rng()), microscope, defocus, 5.0, N)
        high[weighting] = float(band_power(signal, 5.0, 20.0, 12.0) / band_power(white, 5.0, 20.0, 12.0))
    assert high[True] > 1.2 * high[False]


def test_contrast_sign_and_bad_settings() -> None:
    bright = simulated(blobs(), Microscope(**PERFECT), 3.0, 15.0)
    torch.testing.assert_close(simulated(blobs(), Microscope(protein="dark", **PERFECT), 3.0, 15.0), -bright)
    assert correlation(bright, blobs()) > 0.3
    bad = [
        {"correction": "flip"}, {"protein": "white"}, {"scheme": "zigzag"}, {"detected": 0.0}, {"field_A": -1.0},
        {"astigmatism_um": -0.2},
        {"amplitude_contrast": 1.2}, {"b_factor_A2": -1.0}, {"defocus_um": float("inf")}, {"voltage_kV": float("nan")},
    ]  # fmt: skip
    for fields in bad:
        with pytest.raises(ValueError, match=f"{next(iter(fields)) if 'scheme' not in fields else 'scheme'}.*expected"):
            Microscope(**fields)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"snr": -0.1}, "snr is -0.1"),
        ({"snr": 0.0}, "snr is 0.0"),
        ({"snr": 0.1, "noise_std": -1.0}, "noise_std is -1"),
        ({"snr": None, "microscope": Microscope(total_dose_e_A2=0.0)}, "total_dose_e_A2 is 0"),
    ],
)
def test_impossible_noise_is_refused_before_anything_is_simulated(changes: dict, match: str) -> None:
    kind = (
        dict(references={}, per_class=1, box=24, voxel_size_A=20.0, microscope=MICROSCOPES["S1"], generator=rng())
        | changes
    )
    with pytest.raises(ValueError, match=match):
        subtomograms(**kind)


def test_a_ctf_that_reaches_beyond_the_margin_is_warned_of() -> None:
    references = class_references(("t20s",), 24, 4.0)
    with pytest.warns(UserWarning, match="carries signal .* choose a larger box"):
        subtomograms(references, 1, 24, 4.0, MICROSCOPES["S1"], rng(), snr=0.1)


def test_the_recordings_of_a_tomogram_share_its_errors_and_depth_adds_to_defocus() -> None:
    microscope = Microscope(tilt_error_deg=0.5, shift_error_A=4.0, defocus_spread_um=1.0)
    r = draw_recordings(microscope, 200, 4, rng())
    same = r.tomogram == 2
    assert r.tilts[:, same].std(1).max() < 1e-12 and r.shift_error_A[:, same].std(1).max() < 1e-5
    true = torch.rad2deg(torch.atan2(r.tilts[:, :, 2, 0], r.tilts[:, :, 0, 0]))
    assert float((true - microscope.angles_deg[:, None]).std()) == pytest.approx(0.5, rel=0.3)
    z, _, x = r.position_A.T
    a = torch.deg2rad(true)
    depth_um = (x * a.sin() + z * a.cos()) / 1e4
    own = (r.defocus_um - depth_um)[:, same]
    assert float(own.std()) < 1e-5 and abs(float(own.mean()) - 6) < 1


# ---- noise


@pytest.mark.parametrize("snr", [0.05, 0.5])
def test_the_snr_is_the_one_asked_for(snr: float) -> None:
    references = class_references(("t20s",), 24, 20.0)
    kind = dict(per_class=32, box=24, voxel_size_A=20.0, microscope=MICROSCOPES["S1"])
    noisy = subtomograms(references, **kind, generator=rng(), snr=snr)
    clean = subtomograms(references, **kind, generator=rng(), snr=1e8)  # the same draws of everything but noise
    difference = torch.from_numpy(noisy.volumes - clean.volumes)
    powers = [v.var((1, 2, 3)).mean() for v in (torch.from_numpy(clean.volumes), difference)]
    assert float(powers[0] / powers[1]) == pytest.approx(snr, rel=0.15)  # set on a pilot of 8, measured on all 32
    assert noisy.table["snr"].iloc[0] == pytest.approx(snr, rel=1e-3)


def test_counted_electrons_have_poisson_variance_and_keep_the_mean() -> None:
    angles = tilt_angles(-60, 60, 60)
    electrons = noise.electrons_per_pixel(30.0, angles, 8.0, detected=0.8)
    assert electrons.tolist() == pytest.approx([30 / 3 * 64 * 0.8] * 3)
    lossy = noise.electrons_per_pixel(30.0, angles, 8.0, ice_thickness_A=1500, inelastic_mean_free_path_A=3000)
    assert lossy.tolist() == pytest.approx([640 * math.exp(-1.0), 640 * math.exp(-0.5), 640 * math.exp(-1.0)])
    contrast = noise.contrast_per_unit(300.0, 8.0)
    assert contrast == pytest.approx(2 * 6.526e-4 * noise.PROTEIN_CONTRAST_V * 8, rel=1e-3)
    images = torch.full((3, 4, 64, 64), 2.0)
    counted = noise.count_electrons(images, electrons, contrast, rng())
    assert float(counted.mean()) == pytest.approx(2.0, abs=0.05)
    # protein is dark on the detector: fewer electrons
    expected = math.sqrt(1 - 2 * contrast) / (contrast * math.sqrt(512))
    assert float(counted.std()) == pytest.approx(expected, rel=0.02)


def test_more_dose_means_less_noise_in_the_subtomograms() -> None:
    references = class_references(("t20s",), 24, 13.68)
    levels = []
    for dose in (30.0, 120.0):
        microscope = dataclasses.replace(
            MICROSCOPES["modern"], total_dose_e_A2=dose, dose_weighting=False, correction="none"
        )
        levels.append(float(subtomograms(references, 8, 24, 13.68, microscope, rng(), snr=None).volumes.std()))
    assert levels[1] == pytest.approx(levels[0] / 2, rel=0.1)  # noise dominates and falls with the root of the dose


def test_a_subtomogram_does_not_depend_on_the_tomogram_it_is_cut_from_being_full() -> None:
    references = class_references(("t20s",), 24, 13.68)

    def near_each(n: int, crowding: Crowding) -> Neighbours:
        turned, centred = random_rotations(n, rng()), torch.zeros(n, 3).double()
        return place_neighbours(references, ["t20s"] * n, turned, centred, 13.68, 400.0, crowding, rng())

    empty = near_each(50, Crowding())
    assert len(empty.owner) == 0
    near = near_each(50, Crowding(0.05)).shifts_A.norm(dim=1)
    assert len(near) > 50 and near.min() > 1.8 * 0.99 * radius_A(references["t20s"], 13.68) and near.max() <= 400
    with pytest.raises(ValueError, match="volume fraction 0.6"):
        Crowding(0.6)


def test_crowding_reaches_its_volume_fraction_where_there_is_room() -> None:
    references = class_references(("apoferritin",), 24, 13.68)
    n, reach = 25, 900.0
    near = place_neighbours(
        references,
        ["apoferritin"] * n,
        random_rotations(n, rng()),
        torch.zeros(n, 3).double(),
        13.68,
        reach,
        Crowding(0.02),
        rng(),
    )
    volume = float(references["apoferritin"].sum()) * 13.68**3
    assert len(near.owner) * volume / n / (4 / 3 * math.pi * reach**3) == pytest.approx(0.02, rel=0.08)


# ---- the released simulator, and schemes


def test_the_released_simulator_leaves_its_wedge_empty_and_keeps_its_snr() -> None:
    volume = released_simulator(blobs()[None], 13.68, 1e6, rng())[0]
    spectrum = torch.fft.rfftn(volume)
    mask = wedge_mask(N)
    assert float(spectrum[mask == 0].abs().max() / spectrum.abs().max()) < 1e-5
    assert abs(float((mask == 0).float().mean()) - 1 / 4) < 0.1  # tan(30) / 2 of the plane is 29 %, less at the corners
    little, much = (released_simulator(blobs()[None], 13.68, snr, rng())[0] - volume for snr in (0.4, 0.1))
    assert float(much.var() / little.var()) == pytest.approx(4, rel=0.02)


@pytest.mark.skipif(not RELEASED.exists(), reason="the simulated files of ../shared are not here")
def test_the_released_simulator_makes_what_its_authors_program_made() -> None:
    """Noise alone at each radius: the power of theirs beyond that of the density is that of ours, on one scale from the
    first to the last tenth of Nyquist.
    """
    theirs = load_particles(RELEASED, protein="dark", beam_axis="x")
    kept = theirs.table["class_name"] == "proteasome_t20s"  # the smallest: nearly all of its power is noise
    line = torch.linspace(-13.5, 13.5, 28).square()
    sphere = (line[:, None, None] + line[:, None] + line).sqrt() < 4.0
    ours = released_simulator(sphere.float().expand(100, -1, -1, -1), theirs.voxel_size_A, 0.3, rng())
    radius = torch.fft.fftfreq(28).square()
    radius = (radius[:, None, None] + radius[:, None] + torch.fft.rfftfreq(28).square()).sqrt()
    measured = wedge_mask(28, 35.0) > 0
    curves = []
    for volumes in (torch.from_numpy(theirs.volumes[kept.to_numpy()]), ours):
        power = torch.fft.rfftn((volumes - volumes.mean()) / volumes.std(), dim=(1, 2, 3)).abs().square().mean(0)
        curves.append(
            torch.stack(
                [
                    power[measured & (radius >= low) & (radius < low + 0.05)].mean()
                    for low in (0.15, 0.2, 0.25, 0.3, 0.35)
                ]
            )
        )
    assert (curves[0] / curves[1]).log().abs().max() < 0.25
    assert float(curves[0][0] / curves[0][-1]) > 300  # white noise behind no CTF would be flat


@pytest.mark.parametrize("scheme", [(10, -10, 1), (-60, 60, 0), (-100, 60, 3)])
def test_impossible_tilt_schemes_are_refused(scheme: tuple) -> None:
    with pytest.raises(ValueError, match="Tilt scheme"):
        tilt_angles(*scheme)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_same_code_runs_on_cuda() -> None:
    angles, matrices = tilt_angles(-60, 60, 3), tilt_matrices(tilt_angles(-60, 60, 3))[:, None]
    images = project(blobs(), matrices)
    on_gpu = project(blobs().cuda(), matrices.cuda())
    torch.testing.assert_close(on_gpu.cpu(), images, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(back_project(on_gpu, angles).cpu(), back_project(images, angles), atol=1e-4, rtol=1e-4)
    references = class_references(("t20s",), 24, 13.68)
    kind = dict(
        per_class=4, box=24, voxel_size_A=13.68, microscope=MICROSCOPES["modern"], snr=0.1, crowding=Crowding(0.01)
    )
    there = subtomograms({k: v.cuda() for k, v in references.items()}, **kind, generator=rng())
    here = subtomograms(references, **kind, generator=rng())
    assert correlation(torch.from_numpy(there.volumes), torch.from_numpy(here.volumes)) > 0.9999
