"""The physics generator: wedge, transfer, noise and how the files were made, each found in data made so; and what a
user may ask of it.
"""

import dataclasses
import json
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoetgan_core.build import Scaling
from cryoetgan_core.config import DATASETS, OWN_DATA, make_config
from cryoetgan_core.evaluation.baselines import BACKGROUND, FORMULAS, RELEASED, WRONG_MICROSCOPE, on_background
from cryoetgan_core.evaluation.downstream import PHYSICS, REAL, TRUE
from cryoetgan_core.evaluation.metrics import (
    angular_log_ratio,
    angular_power_spectra,
    distance,
    fourier_shell_correlation,
)
from cryoetgan_core.generation import generate, generate_repeats, load_run, restore
from cryoetgan_core.paper import mismatch, proof, real
from cryoetgan_core.paper.densities import snr_in_same_noise
from cryoetgan_core.paper.plotting import comparison_table, real_table
from cryoetgan_core.paper.runs import train_on
from cryoetgan_core.particles.relion_series import tilts_deg
from cryoetgan_core.physics import generator, signal_moments
from cryoetgan_core.physics.acquisition import Acquisition, acquisition
from cryoetgan_core.physics.any_size import kernels, share_in_wedge
from cryoetgan_core.physics.estimate import (
    MOST_SIGNAL,
    PARTS,
    estimate,
    is_standardised,
    mean_power,
    node_means,
    signals,
)
from cryoetgan_core.physics.fourier_grid import (
    CORNER,
    FINE_RADII,
    RADII,
    TILTS,
    coloured,
    coordinates,
    estimate_tilt_range,
    lookup,
    wedge,
    windowed_power,
)
from cryoetgan_core.physics.generator import REMEMBERED, PhysicsGenerator, mean_square
from cryoetgan_core.reproducibility.seeds import stream
from cryoetgan_core.run_folder import estimate as estimate_in
from cryoetgan_core.simulator.microscope.back_projection import back_project, transform_size
from cryoetgan_core.simulator.microscope.simulate import MICROSCOPES, draw_recordings, reconstruct
from cryoetgan_core.simulator.microscope.transfer import ctf
from cryoetgan_core.simulator.sets import class_references, density_maps, image_size, poses_of, subtomograms
from cryoetgan_core.training import Trainer
from cryoetgan_core.volumes.domains import Domains

BOX, VOXEL_A, SMALL = 24, 15.0, 16
S2 = dataclasses.replace(MICROSCOPES["S2"], defocus_um=8.0, defocus_spread_um=0.2, ice_thickness_A=300.0)


@lru_cache
def white_volumes(low: int, high: int, falling: bool = False, n: int = 24) -> torch.Tensor:
    """Reconstructions (n, BOX, BOX, BOX) of white images, 2 degrees apart; their power falls fivefold to the highest
    tilt, if asked.
    """
    tilts, size = torch.arange(low, high + 1.0, 2), 2 * BOX
    images = torch.randn(len(tilts), n, size, size, generator=stream(3, "white"))
    if falling:
        images *= (1 - 0.8 * tilts.abs() / tilts.abs().max()).sqrt()[:, None, None, None]
    return back_project(images, tilts, BOX)


def filtered(volumes: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.fft.irfftn(torch.fft.rfftn(volumes, dim=(-3, -2, -1)) * factor, s=volumes.shape[-3:], dim=(-3, -2, -1))


def noise_of(amplitude: torch.Tensor, n: int, box: int = 0, name: str = "noise") -> torch.Tensor:
    """Gaussian noise (n, box, box, box) of an amplitude (P, P, P // 2 + 1), cut out of its box."""
    box = box or len(amplitude)
    white = torch.randn((n, *(len(amplitude),) * 3), generator=stream(0, name))
    return filtered(white, amplitude)[:, :box, :box, :box].clone()


@lru_cache
def noise_recorded(n: int = 256) -> torch.Tensor:
    """Noise with a wedge and a colour, cut out of a larger box as subtomograms are; (n, SMALL, SMALL, SMALL)."""
    radius = coordinates(2 * SMALL)[0]
    return noise_of(torch.exp(-4 * radius) * (0.05 + wedge(2 * SMALL, -60.0, 60.0)), n, SMALL, "recorded")


def blobs(n: int, box: int = SMALL, seed: int = 0) -> torch.Tensor:
    """Densities (n, box, box, box) of four smooth blobs about the middle, of strengths 1 to 4; none reaches a face."""
    rng, line = stream(seed, "blobs"), torch.arange(box) - box // 2.0
    centres = (torch.rand(n, 4, 3, generator=rng) - 0.5) * box / 3
    squares = (line - centres[..., None]).square()  # (n, 4, 3, box)
    z, y, x = torch.exp(-squares / (2 * 1.3**2)).unbind(2)
    return torch.einsum("nbz,nby,nbx->nzyx", z, y, x) * (1 + 3 * torch.rand(n, 1, 1, 1, generator=rng))


def z_scored(volumes: torch.Tensor) -> torch.Tensor:
    return (volumes - volumes.mean()) / volumes.std()


def silent(G: PhysicsGenerator, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the generator draws, its noise zero."""
    drawn = G.sample_noise(x, stream(0, "n"))
    return drawn | {"noise": torch.zeros_like(drawn["noise"])}


@torch.no_grad()
def made_by(G: PhysicsGenerator, x: torch.Tensor, name: str = "made") -> torch.Tensor:
    """Volumes (N, D, D, D) that G makes of densities (N, D, D, D)."""
    parts = x[:, None].split(16)
    return torch.cat([G(part, G.sample_noise(part, stream(3, name, i)))[:, 0] for i, part in enumerate(parts)])


def known_generator(
    level: float | torch.Tensor = 0.7, *, wraps: bool = False, one_snr: bool = False
) -> PhysicsGenerator:
    """A generator with a wedge of 60 degrees and the noise of `noise_recorded`, of variance 1."""
    G = PhysicsGenerator(SMALL, Acquisition(VOXEL_A, (-60.0, 60.0)))
    power = mean_power(noise_recorded())
    G.noise_power.copy_(power / power.mean())
    G.T.copy_(torch.as_tensor(level))
    G.wraps.fill_(wraps)
    G.one_snr.fill_(one_snr)
    x = z_scored(blobs(64))[:, None]
    G.signal_power.copy_(mean_square(G.signal_spectrum(x, G.sample_noise(x, stream(0, "n")))).mean())
    return G


def estimated_from(
    x: torch.Tensor, y: torch.Tensor, told: Acquisition | None = None, **options: str
) -> PhysicsGenerator:
    G = PhysicsGenerator(x.shape[-1], told or Acquisition(VOXEL_A), transfer=options.pop("transfer", "table"))
    estimate(G, x, y, **options)
    return G


def over_shells(power: torch.Tensor, low: float, high: float, degrees: tuple[float, float] = (-90, 90)) -> float:
    """Mean over the voxels of a ring of spatial frequencies, between two tilts."""
    radius, tilt, _ = coordinates(len(power))
    return float(power[(radius >= low) & (radius < high) & (tilt > degrees[0]) & (tilt < degrees[1])].mean())


@pytest.fixture(scope="module")
def particles():
    references = class_references(("tric",), BOX, VOXEL_A)
    y = subtomograms(references, 16, BOX, VOXEL_A, MICROSCOPES["S1"], stream(0, "y"), snr=0.3)
    x = density_maps(references, 16, BOX, VOXEL_A, stream(0, "x"))
    return x, y


@pytest.fixture(scope="module")
def estimated_run(particles, tmp_path_factory):
    """A run of 16 particles in its folder."""
    x, y = particles
    folder = tmp_path_factory.mktemp("estimated")
    config = make_config("smoke", "own", "physics", box=BOX)
    estimate_in(config, torch.from_numpy(x.volumes), torch.from_numpy(y.volumes), acquisition(y), folder)
    return folder, load_run(folder)


# Fourier space


@pytest.mark.parametrize(
    ("low", "high", "falling", "cut", "off"),
    [(low, high, False, 1, 2) for low, high in ((-50, 70), (-60, 60), (-40, 40), (-66, 30))]
    + [(low, high, *how) for low, high in ((-50, 70), (-60, 60)) for how in ((True, 1, 4), (False, 0.25, 9))],
)
def test_the_tilt_range_is_found_in_the_data(low: int, high: int, falling: bool, cut: float, off: float) -> None:
    """Also where power falls fivefold with the tilt, and in low-passed volumes: six voxels of Fourier space are left,
    of which the window blurs two, so that the range is too wide.
    """
    volumes = filtered(white_volumes(low, high, falling=falling), coordinates(BOX)[0] < cut)
    assert estimate_tilt_range(volumes) == pytest.approx((low, high), abs=off)


def test_no_wedge_is_found_where_there_is_none() -> None:
    noise = torch.randn(8, BOX, BOX, BOX, generator=stream(0, "noise"))
    assert estimate_tilt_range(noise) == (-90.0, 90.0)
    assert estimate_tilt_range(filtered(noise, torch.exp(-6 * coordinates(BOX)[0]))) == (-90.0, 90.0)


@pytest.mark.parametrize("value", [0.0, 1e30], ids=["empty", "beyond float32"])
def test_volumes_without_a_power_tell_no_tilt_range(value: float) -> None:
    assert estimate_tilt_range(torch.full((2, 8, 8, 8), value)) == (-90.0, 90.0)


def test_wedge_is_where_no_slice_passes() -> None:
    mask = wedge(BOX, -50.0, 70.0, transform_size(BOX, BOX))
    radius, tilt, axis = coordinates(BOX)
    far = (radius > 0.2) & (axis > 40) & (radius * torch.sin(torch.deg2rad(axis)) < 0.46)  # slices end at Nyquist
    assert (mask[far & (tilt > -47) & (tilt < 67)] == 1).all()
    assert (mask[far & ((tilt < -62) | (tilt > 82))] < 1e-6).all()
    power = windowed_power(white_volumes(-50, 70))
    ring = far & (radius < 0.5)
    assert float(power[ring & (mask == 0)].mean() / power[ring & (mask == 1)].mean()) < 0.1


@pytest.mark.parametrize("kind", ["radius", "tilt", "fine", "fine tilt"])
def test_lookup_gives_back_what_is_linear_in_its_coordinates(kind: str) -> None:
    radius, tilt, _ = (c.flatten() for c in coordinates(16))
    at, (radii, highest) = lookup(16, kind), (FINE_RADII, CORNER) if kind.startswith("fine") else (RADII, 0.5)
    torch.testing.assert_close(at.weight.sum(-1), torch.ones(len(radius)))
    tilts = TILTS if kind.endswith("tilt") else 1
    inside = radius <= highest
    torch.testing.assert_close(
        at(torch.linspace(0, highest, radii).repeat_interleave(tilts))[inside], radius[inside], atol=1e-5, rtol=0
    )
    if tilts > 1:
        inside = tilt < 85  # from there on between the last node and the first
        torch.testing.assert_close(
            at((-90 + 5.0 * torch.arange(TILTS)).repeat(radii))[inside], tilt[inside], atol=1e-3, rtol=0
        )


def test_noise_that_is_cut_out_has_the_power_wanted() -> None:
    """Where it wraps round nothing leaks, and the amplitude is the root of the power."""
    wanted = mean_power(noise_recorded(600))
    torch.testing.assert_close(coloured(wanted, SMALL).square(), wanted)
    amplitude = coloured(wanted, 22)
    found = mean_power(noise_of(amplitude, 300, SMALL, "cut"))
    plain = mean_power(noise_of(filtered_up(wanted, 22).sqrt(), 300, SMALL, "cut"))
    ratio = [over_shells(found / wanted, low, low + 0.1) for low in (0.05, 0.15, 0.25, 0.35)]
    assert ratio == pytest.approx([1] * 4, abs=0.09)
    assert (found / wanted).log().std() < 0.15 < 0.3 < (plain / wanted).log().std()  # 0.08 is what 300 volumes leave


def test_noise_that_is_cut_out_leaves_the_missing_wedge_as_empty_as_it_was() -> None:
    """Of particles, and in scenes, where the box is several times larger."""
    tilts = (-60.0, 60.0)
    recorded = noise_of(wedge(48, *tilts) + 0.02, 200, SMALL, "recorded")
    power = mean_power(recorded)
    seen = (wedge(64, *tilts).square() + share_in_wedge(power, *tilts) ** 2).sqrt()
    made = noise_of(coloured(power, 22), 200, SMALL, "made")
    scenes = noise_of(coloured(power, 64, seen=seen), 30, 64, "scenes")
    corners = torch.cat([scenes[:, z : z + SMALL, y : y + SMALL, :SMALL] for z in (0, 32) for y in (0, 32)])
    of_real, *of_made = (float(proof.wedge_power(v, tilts).mean()) for v in (recorded, made, corners))
    # 1.6 times as much after ten steps, 1.5 in scenes whose noise does not begin with the wedge
    assert of_made == pytest.approx([of_real] * 2, rel=0.15)


@pytest.mark.parametrize("tilts", [(-60.0, 60.0), (-90.0, 90.0)])
def test_noise_of_scenes_fills_a_wedge_that_is_not_empty(tilts: tuple[float, float]) -> None:
    """As in tomograms that were denoised; it is not dark along the edges of the wedge."""
    G = PhysicsGenerator(SMALL, Acquisition(VOXEL_A, tilts))
    noise = torch.fft.rfftn(kernels(G, 0, 48, torch.ones(SMALL, SMALL, SMALL // 2 + 1))[1]).abs()
    assert noise.numpy() == pytest.approx(1, abs=0.2)


def test_noise_of_scenes_goes_on_below_the_frequencies_of_empty_boxes() -> None:
    """Their means were subtracted, so that their power at zero frequency is none."""
    power = torch.ones(SMALL, SMALL, SMALL // 2 + 1)
    power[0, 0, 0] = 0
    noise = torch.fft.rfftn(kernels(PhysicsGenerator(SMALL, Acquisition(VOXEL_A)), 0, 48, power)[1]).abs()
    assert float(noise[0, 0, 0]) == pytest.approx(1, abs=0.2) and power[0, 0, 0] == 0


def filtered_up(power: torch.Tensor, padded: int) -> torch.Tensor:
    """A power at the frequencies of a larger box, its leak left out of account."""
    correlation = torch.fft.fftshift(torch.fft.irfftn(power, s=power.shape[:1] * 3))
    before = padded // 2 - len(power) // 2
    wide = torch.nn.functional.pad(correlation, [before, padded - len(power) - before] * 3)
    return torch.fft.rfftn(torch.fft.ifftshift(wide)).real.clamp(min=0)


# What the generator makes


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("box", [16, 17])
def test_with_a_flat_transfer_and_no_noise_the_density_comes_back(box: int, wraps: bool) -> None:
    x, G = blobs(4, box)[:, None], PhysicsGenerator(box, Acquisition(VOXEL_A))
    G.wraps.fill_(wraps)
    assert (G.padded > box) != wraps
    torch.testing.assert_close(G(x, silent(G, x)), x, atol=3e-4 * float(x.max()), rtol=0)


def test_a_particles_recording_decides_its_wedge_and_its_noise() -> None:
    """Half of the particles reach 60 degrees, half 30: between, the noise of the first is twice the mean, and the
    second have none.
    """
    ranges = torch.tensor([[-60.0, 60.0], [-30.0, 30.0]]).repeat_interleave(REMEMBERED // 2, 0)
    G = PhysicsGenerator(BOX, Acquisition(VOXEL_A, tilt_ranges_deg=ranges))
    G.recordings[:, 2:] = ranges
    G.noise_power.fill_(1.0)
    assert G.tilt_range_deg == (-45.0, 45.0)
    wide, narrow = torch.zeros(48, dtype=torch.long), torch.full((48,), REMEMBERED - 1)
    empty, point = torch.zeros(48, 1, BOX, BOX, BOX), torch.zeros(48, 1, BOX, BOX, BOX)
    point[:, :, BOX // 2, BOX // 2, BOX // 2] = 1
    drawn = G.sample_noise(empty, stream(0, "n"))
    for x, d, factor in ((empty, drawn, 2), (point, silent(G, point), 1)):
        power = [windowed_power(G(x, d | {"recording": recording})[:, 0]) for recording in (wide, narrow)]
        between = [[over_shells(p, 0.25, 0.5, at) for at in ((40, 50), (-20, 20))] for p in power]
        assert between[0][0] / between[0][1] == pytest.approx(factor, rel=0.15)
        assert between[1][0] / between[1][1] < 0.1
    assert over_shells(
        sum(windowed_power(G(empty, drawn | {"recording": r})[:, 0]) for r in (wide, narrow)) / 2, 0.1, 0.5
    ) == (pytest.approx(1, abs=0.05))


def test_a_generator_of_volumes_that_wrap_round_wraps_round_and_another_does_not() -> None:
    """Low frequencies only: what lies on two opposite faces is alike where the box wraps round."""
    alike, x = [], torch.zeros(16, 1, BOX, BOX, BOX)
    for wraps in (True, False):
        G = PhysicsGenerator(BOX, Acquisition(VOXEL_A))
        G.wraps.fill_(wraps)
        G.noise_power.copy_(torch.exp(-24 * coordinates(BOX)[0]))
        y = G(x, G.sample_noise(x, stream(0, "n")))[:, 0]
        y = y - y.mean((1, 2, 3), keepdim=True)
        alike.append(float((y[:, :, 0] * y[:, :, -1]).mean() / y.square().mean()))
    assert alike[0] > 0.7 and abs(alike[1]) < 0.3


# What is estimated


def test_volumes_that_were_each_standardised_are_told_from_those_that_were_not() -> None:
    for volumes in (noise_recorded()[:64], noise_of(torch.exp(-6 * coordinates(SMALL)[0]), 64)):
        scaled = (volumes - volumes.mean((1, 2, 3), keepdim=True)) / volumes.std((1, 2, 3), keepdim=True)
        assert is_standardised(scaled) and not is_standardised(volumes)
    assert not is_standardised(volumes[:1])


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("one_snr", [False, True])
def test_how_files_were_made_is_found_in_them(wraps: bool, one_snr: bool) -> None:
    """With their tilt range, and the level of T where the densities have power."""
    truth, x = known_generator(wraps=wraps, one_snr=one_snr), z_scored(blobs(96))
    y = made_by(truth, z_scored(blobs(400, seed=1)))
    G = estimated_from(x, z_scored(y))
    assert (bool(G.wraps), bool(G.one_snr), bool(G.standardised)) == (wraps, one_snr, False)
    assert G.tilt_range_deg == pytest.approx((-60, 60), abs=3)
    assert (G.T[1:7] * y.std() / 0.7).numpy() == pytest.approx(1, abs=0.15)
    made, before = (mean_power(v) for v in (made_by(G, x), z_scored(y)))
    for low in (0.05, 0.15, 0.25, 0.35):  # noise and signal have the power measured
        assert over_shells(made, low, low + 0.1, (-50, 50)) == pytest.approx(
            over_shells(before, low, low + 0.1, (-50, 50)), rel=0.15
        )
        assert (
            over_shells(made, low, low + 0.1, (-91, -70)) < 1.3 * over_shells(before, low, low + 0.1, (-91, -70)) + 1e-6
        )
    assert abs(float(made_by(G, x).mean())) < 0.03


def test_volumes_made_for_standardised_ones_are_standardised() -> None:
    y = made_by(known_generator(), z_scored(blobs(64)))
    y = (y - y.mean((1, 2, 3), keepdim=True)) / y.std((1, 2, 3), keepdim=True)
    G = estimated_from(z_scored(blobs(48)), y)
    made = made_by(G, z_scored(blobs(8)))
    assert bool(G.standardised)
    torch.testing.assert_close(made.mean((1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.flatten(1).var(1, correction=0), torch.ones(8))


def test_noise_of_low_passed_files_stays_where_theirs_is() -> None:
    """Filtered in the box, or in the tomogram before the box was cut out, which leaves what leaks."""
    within = noise_of((coordinates(SMALL)[0] < 0.25).float(), 128)
    before = noise_of(((coordinates(2 * SMALL)[0] < 0.2) * wedge(2 * SMALL, -60.0, 60.0)).float(), 128, SMALL)
    x = z_scored(blobs(48))
    for y in (z_scored(within), z_scored(before)):
        power, made = mean_power(y), mean_power(made_by(estimated_from(x, y), x))
        assert over_shells(made, 0.05, 0.2) == pytest.approx(over_shells(power, 0.05, 0.2), rel=0.1)
        assert over_shells(made, 0.35, 0.6) < max(1.5 * over_shells(power, 0.35, 0.6), 1e-6)
        assert over_shells(power, 0.35, 0.6) < 0.02 * over_shells(power, 0.05, 0.2)


def test_the_signal_has_at_most_its_share_of_the_power_measured() -> None:
    """Files that are nearly all signal, from densities striped as no molecule of theirs is: cut back to MOST_SIGNAL of
    what was measured.
    """
    truth, stripes = known_generator(4.0, wraps=True), 1 + torch.cos(2 * torch.pi * 3 / SMALL * torch.arange(SMALL))
    x, y = z_scored(blobs(96) * stripes), z_scored(made_by(truth, z_scored(blobs(128, seed=1))))
    limit, shares = mean_power(y), {}
    for without in ("", "cap"):
        G = estimated_from(x, y, without=without)
        shares[without] = (mean_power(signals(G, x[:, None])) / limit).flatten()
        assert (G.support.min() < 0.9) == (without == "")
        assert (G.support <= 1).all() and (G.noise_power > 0).all()
    assert float(shares[""].max()) <= MOST_SIGNAL * 1.001
    assert float(shares["cap"].max()) > 1.2


def test_the_amplitude_of_dimmed_faces_is_found() -> None:
    line = torch.ones(SMALL)
    line[[0, -1]], line[[1, -2]] = 0.5, 0.8
    dimmed = line[:, None, None] * line[None, None, :]  # along z and x, as resampling leaves them
    y = noise_of(torch.ones(22, 22, 12), 128, SMALL) * dimmed
    x = z_scored(blobs(48))
    wanted = dimmed / dimmed.square().mean().sqrt()
    G = estimated_from(x, z_scored(y))
    assert float((G.A / wanted - 1).abs().max()) < 0.1
    made = made_by(G, x.repeat(2, 1, 1, 1)).square().mean((0, 2)).sqrt()
    assert float((made / made.mean() / (wanted.mean(1) / wanted.mean()) - 1).abs().mean()) < 0.1
    assert torch.equal(estimated_from(x, z_scored(y), without="amplitude").A, torch.ones(SMALL, SMALL, SMALL))


def spotted_background(n: int) -> torch.Tensor:
    """Background (n, SMALL, SMALL, SMALL) that no Gaussian noise looks like: bright grains, far apart, on faint
    noise.
    """
    rng = stream(8, "grains")
    grains = (torch.rand((n, SMALL, SMALL, SMALL), generator=rng) < 0.02).float()
    return 6 * grains + 0.3 * torch.randn(grains.shape, generator=rng)


@pytest.mark.parametrize("true_background", [True, False])
def test_real_background_is_taken_where_the_particles_held_out_are_like_it(
    tmp_path: Path, true_background: bool
) -> None:
    x, grains = blobs(64), spotted_background(96)
    around = grains if true_background else grains.std() * torch.randn(grains.shape, generator=stream(9, "smooth"))
    y = 0.5 * blobs(96, seed=2) + around
    config = make_config("smoke", OWN_DATA, "physics").replace(box=SMALL + 2, noise_level=0.0)
    x, y, empty = (torch.nn.functional.pad(v, [1] * 6, mode="circular") for v in (x, y, spotted_background(160)[96:]))
    estimate_in(config, x, y, Acquisition(VOXEL_A, (-60.0, 60.0)), tmp_path, empty)
    run = load_run(tmp_path)
    distances = run.noise_distances
    assert (
        (distances["real background"] < 0.8 * distances["measured"]) == true_background == (len(run.G.background) > 0)
    )
    made, again = (generate(run, x, seed=1) for _ in range(2))
    assert torch.equal(made, again) and not torch.equal(made, generate(run, x, seed=2))
    kurtosis = ((made - made.mean()) / made.std()).pow(4).mean()
    assert (float(kurtosis) > 6) == true_background
    if true_background:  # every generation holds one of the empty boxes, in one of four orientations
        without = generate(run, torch.zeros_like(x[:1]), seed=1)[0] - run.G.offset
        flips = [run.G.background.float().flip(axes) for axes in ((), (2,), (1, 3), (1, 2, 3))]
        nearest = min(float((stack - without).flatten(1).std(1).min()) for stack in flips)
        assert nearest < 0.1 * float(run.G.background.float().std())


@pytest.fixture(scope="module", params=["none", "phase_flip"])
def recorded(request):
    """Densities and subtomograms of an S2-like microscope whose CTF crosses zero at node 7.8, z-scored; mean power of
    some densities, and of these recorded without noise; whether phases were flipped.
    """
    voxel_size_A, scope = 11.0, dataclasses.replace(S2, correction=request.param)
    references = class_references(("tric", "ribosome"), BOX, voxel_size_A)
    x = density_maps(references, 48, BOX, voxel_size_A, stream(0, "x"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At 11 A the CTF of 8 um carries")  # a little farther than the margin
        y = subtomograms(references, 128, BOX, voxel_size_A, scope, stream(0, "y"), snr=1.0)
        few = x.select(np.r_[:12, 48:60])
        clean = subtomograms(
            references, 12, BOX, voxel_size_A, scope, stream(0, "z"), snr=1e6, poses=poses_of(few.table)
        )
    x, y, few, clean = (torch.from_numpy(v.volumes) for v in (x, y, few, clean))
    power = [mean_power(v) for v in ((few - x.mean()) / x.std(), (clean - y.mean()) / y.std())]
    return z_scored(x), z_scored(y), power, request.param == "phase_flip"


@pytest.mark.parametrize(
    ("dip", "z", "negative"),
    [
        (True, [0.5, 0.5, -1.0, -1.2, -1.0], slice(12, 15)),  # weak evidence is enough where T has a minimum
        (True, [4.0, 3.0, 1.0, 0.5, -0.5], slice(0, 0)),  # phases were flipped; the last band says nothing
        (True, [3.0, 3.0, -3.0, 3.0, -3.0], slice(14, 15)),  # one change, not three
        (False, [1.0, 1.0, 1.0, 1.0, -1.0, -1.2, -1.0, -1.2], slice(0, 0)),
        (False, [1.0, 1.0, 1.0, 1.0, -4.0, -5.0, -4.0, -5.0], slice(11, 15)),
    ],
)
def test_the_sign_of_the_transfer_changes_where_it_has_a_minimum(
    monkeypatch: pytest.MonkeyPatch, dip: bool, z: list[float], negative: slice
) -> None:
    level = torch.ones(RADII)
    level[10] = 0.5 if dip else 1.0
    monkeypatch.setattr(signal_moments, "_third_moment", lambda *_: torch.zeros(1))
    monkeypatch.setattr(signal_moments, "slopes", lambda *_: (torch.tensor(z), torch.ones(len(z))))
    wanted = torch.ones(RADII)
    wanted[negative] = -1
    y = torch.zeros(signal_moments.PARTS_FOR_SIGNS, 4, 4, 4)
    assert torch.equal(signal_moments.signs(level, y, y, torch.zeros(RADII, 4 * 4 * 3)), wanted)


@pytest.mark.parametrize(
    ("dip", "z", "few", "negative"),
    [
        (True, [4.0, 3.0, 1.0, 0.5, -0.5], False, slice(11, 15)),  # though the moments say otherwise
        (True, [-4.0, 3.0, 1.0, 0.5, -0.5], False, slice(10, 15)),
        (True, [5.0] * 5, False, slice(0, 0)),  # noise made the minimum, say strong ones
        (True, [0.0] * 5, True, slice(0, 0)),
        (False, [1.0] * 8, False, slice(0, 0)),
        (False, [1.0] * 8, True, slice(0, 0)),
    ],
)
def test_where_nobody_corrected_the_ctf_the_sign_changes_at_the_minimum(
    monkeypatch: pytest.MonkeyPatch, dip: bool, z: list[float], few: bool, negative: slice
) -> None:
    level, wanted = torch.ones(RADII), torch.ones(RADII)
    level[10] = 0.5 if dip else 1.0
    wanted[negative] = -1
    monkeypatch.setattr(signal_moments, "_third_moment", lambda *_: torch.zeros(1))
    monkeypatch.setattr(signal_moments, "slopes", lambda *_: (torch.tensor(z), torch.ones(len(z))))
    y = torch.zeros(4 if few else signal_moments.PARTS_FOR_SIGNS, 4, 4, 4)
    assert torch.equal(signal_moments.signs(level, y, y, torch.zeros(RADII, 4 * 4 * 3), True), wanted)


def test_level_and_sign_of_the_transfer_are_those_of_the_microscope(recorded) -> None:
    """Power shows the zero of the CTF; whether the sign changes there, or phases were flipped, third moments."""
    x, y, (of_x, of_clean), flipped = recorded
    reached, at = wedge(BOX, -60.0, 60.0).flatten() > 0.99, lookup(BOX, "radius")

    def over_nodes(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(RADII).index_add_(
            0, at.index[reached].flatten(), (values[reached, None] * at.weight[reached]).flatten()
        )

    # root mean square over the tilts and defoci
    wanted = (over_nodes(of_clean.flatten()) / over_nodes(of_x.flatten())).sqrt()
    G = estimated_from(x, y)
    assert G.tilt_range_deg == pytest.approx((-60, 60), abs=3)
    assert (G.T[1:8] / wanted[1:8]).numpy() == pytest.approx(1, abs=0.25) and (G.T[:8] > 0).all()
    assert (G.T[9:11].abs() / wanted[9:11]).numpy() == pytest.approx(1, abs=0.3)
    assert (G.T[8:11].sign() == (1 if flipped else -1)).all()
    assert not (G.wraps or G.one_snr or G.standardised)
    assert flipped or (estimated_from(x, y, without="sign").T > 0).all()
    told = estimated_from(x, y[:40], transfer="corrected" if flipped else "uncorrected")
    assert (told.T[9:11].sign() == (1 if flipped else -1)).all() and (told.T[:8] > 0).all()


@pytest.mark.parametrize("part", PARTS)
def test_an_estimate_without_a_part_leaves_it_alone(part: str) -> None:
    truth = known_generator(one_snr=True)
    G = estimated_from(z_scored(blobs(32)), z_scored(made_by(truth, z_scored(blobs(64, seed=1)))), without=part)
    untouched = {
        "wedge": G.recordings[:, 2:].abs() - 90, "cap": G.support - 1,
        "noise colour": G.noise_power - G.noise_power[0, 0, 0],
        "amplitude": G.A - 1, "transfer": G.T - G.T[0], "one SNR": G.one_snr, "sign": G.T.sign() - G.T[0].sign(),
    }  # fmt: skip
    assert untouched.keys() == set(PARTS)
    assert not untouched.pop(part).any() and all(v.isfinite().all() for v in G.state_dict().values())
    # which are not needed here
    assert all(found.any() for name, found in untouched.items() if name not in ("cap", "sign"))


@pytest.mark.parametrize("few", [1, 2, 5])
def test_a_handful_of_subtomograms_is_enough(particles, few: int) -> None:
    x, y = (torch.from_numpy(p.volumes) for p in particles)
    G = estimated_from(z_scored(x), z_scored(y)[:few])
    assert all(v.isfinite().all() for v in G.state_dict().values())
    assert made_by(G, z_scored(x)[:4]).std() == pytest.approx(1, abs=0.5)


def test_an_estimate_colours_its_noise_once(monkeypatch) -> None:
    """Which is slow for large boxes; the signals that it makes over and over have none."""
    made = []
    monkeypatch.setattr(generator, "coloured", lambda *given: made.append(given) or coloured(*given))
    G = estimated_from(z_scored(blobs(32)), z_scored(blobs(64, seed=1)))
    made_by(G, z_scored(blobs(4)))
    assert len(made) == 1
    G.noise_power *= 2
    made_by(G, z_scored(blobs(4)))
    assert len(made) == 2


def test_the_mean_that_densities_bring_is_taken_off(particles) -> None:
    x, y = (z_scored(torch.from_numpy(p.volumes)) for p in particles)
    G = estimated_from(x + 3, y, Acquisition(VOXEL_A, (-50.0, 70.0)))
    assert abs(float(torch.cat([made_by(G, x + 3, f"mean {i}") for i in range(4)]).mean())) < 0.03


def test_tilt_ranges_of_the_particles_are_kept_as_they_are(particles) -> None:
    x, y = (z_scored(torch.from_numpy(p.volumes)) for p in particles)
    ranges = torch.tensor([[-60.0, 60.0], [-40.0, 50.0]]).repeat_interleave(8, 0)
    G = estimated_from(x, y, Acquisition(VOXEL_A, tilt_ranges_deg=ranges))
    kinds, counts = G.recordings[:, 2:].unique(dim=0, return_counts=True)
    assert kinds.tolist() == [[-60, 60], [-40, 50]] and counts.tolist() == [REMEMBERED // 2] * 2
    assert G.tilt_range_deg == (-50, 55)


# The CTF formula


def test_ctf_of_a_particle_is_torch_ctfs_at_every_tilt_and_turns_with_what_is_asked() -> None:
    scope = dataclasses.replace(MICROSCOPES["S2"], total_dose_e_A2=0.0)
    told = Acquisition(10.0, (-60.0, 60.0), scope, torch.full((64,), 4.0), torch.full((64,), 3000.0))
    G = estimated_from(*torch.randn(2, 8, BOX, BOX, BOX, generator=stream(0, "xy")), told, transfer="ctf")
    G.T.fill_(1.0)  # no envelope
    found = G.transfer_table(torch.zeros(1, dtype=torch.long))[0]  # (FINE_RADII, TILTS)
    asked = G.transfer_table(torch.zeros(1, dtype=torch.long), defocus_um=torch.tensor([2.0]))[0]
    tilt = torch.linspace(-90, 90, TILTS + 1)[:-1]
    q = torch.linspace(0, 3**0.5 / 2, len(found))
    for which, mean in ((found, 4.0), (asked, 2.0)):
        for i in (6, 18, 30):
            defocus = mean + 3000 * torch.sin(torch.deg2rad(tilt[i])) / 1e4
            line = ctf(defocus[None], (512, 512), 10.0, voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.07)[0, 0]
            expected = torch.nn.functional.interpolate(line[None, None], 513, mode="linear", align_corners=True)[0, 0]
            at = (q[q <= 0.5] / 0.5 * (len(expected) - 1)).round().long()
            torch.testing.assert_close(which[q <= 0.5, i], expected[at], atol=0.06, rtol=0)


def test_an_envelope_multiplies_the_ctf() -> None:
    scope = dataclasses.replace(MICROSCOPES["S2"], total_dose_e_A2=0.0)
    G = PhysicsGenerator(BOX, Acquisition(10.0, (-60.0, 60.0), scope), transfer="ctf")
    G.recordings[:, 0] = 4.0
    bare = G.transfer_table(torch.zeros(1, dtype=torch.long))
    G.T.copy_(-torch.exp(-3 * torch.linspace(0, 0.5, RADII)))  # its size counts
    q = torch.linspace(0, CORNER, FINE_RADII)
    wanted = bare * torch.exp(-3 * q.clamp(max=0.5))[:, None]
    torch.testing.assert_close(G.transfer_table(torch.zeros(1, dtype=torch.long)), wanted, atol=1e-4, rtol=1e-3)


def test_a_generator_with_the_ctf_does_what_it_is_asked(tmp_path: Path, particles) -> None:
    x, y = particles
    domains = Domains(x, x, y, y)
    run = train_on(make_config("smoke", "own", "physics", transfer="ctf"), domains, tmp_path)
    x = torch.from_numpy(x.volumes)[:4]
    plain, scope = generate(run, x), run.G.acquisition.microscope
    assert scope.tilt_max_deg == 70 and run.G.recordings[:, 0].std() > 0 and run.G.recordings[:, 1].std() > 0
    assert not torch.allclose(plain, generate(run, x, defocus_um=torch.full((4,), 1.0)), atol=1e-3)
    assert torch.equal(plain, generate(run, x, microscope=scope))
    narrow = generate(run, x, microscope=dataclasses.replace(scope, tilt_min_deg=-30.0, tilt_max_deg=30.0))
    assert narrow.var() < plain.var()
    quarter = generate(run, x, microscope=dataclasses.replace(scope, total_dose_e_A2=scope.total_dose_e_A2 / 4))
    assert float(quarter.var() / plain.var()) == pytest.approx(4, rel=0.35)


# Runs


def test_the_folder_of_an_estimated_run_gives_its_generator_back(estimated_run, particles) -> None:
    folder, run = estimated_run
    x, y = (torch.from_numpy(p.volumes) for p in particles)
    scaling, G = Scaling.of(x, y, run.config.noise_level), PhysicsGenerator(BOX, acquisition(particles[1]))
    estimate(G, scaling.x(x), scaling.y(y))
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "weights.safetensors"]
    assert run.scaling == scaling and run.F is None and run.G.tilt_range_deg == (-50, 70)
    assert all(torch.equal(v, run.G.state_dict()[k]) for k, v in G.state_dict().items())
    assert torch.equal(generate(run, x[:2], seed=3), generate(dataclasses.replace(run, G=G), x[:2], seed=3))


def test_generations_do_not_depend_on_the_batch_or_the_threads(estimated_run, particles) -> None:
    _, run = estimated_run
    x = torch.from_numpy(particles[0].volumes)
    together = generate(run, x[:5], seed=1)
    apart = torch.cat([generate(run, x[i : i + 1], seed=1, first=i) for i in range(5)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    assert not torch.allclose(together, generate(run, x[:5], seed=2), atol=0.1)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.testing.assert_close(generate(run, x[:5], seed=1), together, atol=1e-5, rtol=0)
            with pytest.raises(RuntimeError):
                generate(run, x[:5, :-3])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(1)
    repeats = generate_repeats(run, x[:2], repeats=3)
    assert repeats.shape == (2, 3, BOX, BOX, BOX) and repeats.std(1).min() > 0


def test_what_cannot_be_asked_is_refused(estimated_run, particles) -> None:
    _, run = estimated_run
    x, y = particles
    volumes = torch.from_numpy(x.volumes)
    with pytest.raises(ValueError, match="without 'sugar'; expected one of wedge, cap"):
        estimate(PhysicsGenerator(BOX, Acquisition(VOXEL_A)), volumes, volumes, "sugar")
    with pytest.raises(ValueError, match="transfer 'sugar'"):
        PhysicsGenerator(BOX, Acquisition(VOXEL_A), transfer="sugar")
    with pytest.raises(ValueError, match="needs the optics"):
        PhysicsGenerator(BOX, Acquisition(VOXEL_A), transfer="ctf")
    told = Acquisition(VOXEL_A, (-50.0, 70.0), MICROSCOPES["S1"], torch.tensor([6.0, float("nan")]))
    with pytest.raises(ValueError, match="defocus of each particle; some have none"):
        estimated_from(volumes, volumes, told, transfer="ctf")
    with pytest.raises(ValueError, match="no column 'voltage_kV'|defocus_um"):
        acquisition(dataclasses.replace(y, table=y.table.drop(columns=["defocus_um"])), transfer="ctf")
    for asked in ({"defocus_um": torch.ones(1)}, {"microscope": MICROSCOPES["S1"]}):
        with pytest.raises(ValueError, match="as a table"):
            generate(run, volumes[:1], **asked)
    with pytest.raises(ValueError, match="no inverse"):
        restore(run, volumes[:1])
    with pytest.raises(ValueError, match="'physics' is estimated .*not trained"):
        Trainer(make_config("smoke", "own", "physics"), volumes, volumes)
    for name, value in (("tilt_range", "told"), ("transfer", "learned"), ("generator", "other")):
        with pytest.raises(ValueError, match=f"'{name}' is '{value}'"):
            make_config("smoke", "S1", "physics", **{name: value})


# What is known of a recording


def test_a_table_tells_the_tilt_ranges_where_it_is_asked(particles) -> None:
    y = particles[1]
    assert acquisition(y).tilt_range_deg == (-50, 70) and acquisition(y).tilt_ranges_deg is None
    mixed = dataclasses.replace(y, table=y.table.assign(tilt_max_deg=[60.0] * 6 + [70.0] * 10))
    told = acquisition(mixed)
    assert told.tilt_range_deg is None and told.tilt_ranges_deg.tolist() == [[-50, 60]] * 6 + [[-50, 70]] * 10
    gaps = dataclasses.replace(y, table=y.table.assign(tilt_max_deg=[np.nan] + [70.0] * 15))
    none = dataclasses.replace(y, table=y.table.drop(columns="tilt_max_deg"))
    for found in (acquisition(gaps), acquisition(none), *(acquisition(p, tilt_range="estimated") for p in (y, mixed))):
        assert found.tilt_range_deg is None and found.tilt_ranges_deg is None


@pytest.mark.parametrize("in_plane_deg", [0.0, 85.0])
def test_tilts_of_a_stack_are_those_of_the_slices_of_its_images(in_plane_deg: float) -> None:
    """Whatever way the images are turned. A slice is what the images' axes span."""
    angles = [-30.0, 0.0, 20.0, 45.0]
    turned = Rotation.from_euler("z", in_plane_deg, degrees=True)
    matrices = np.stack([(turned * Rotation.from_euler("y", a, degrees=True)).as_matrix() for a in angles])
    found = tilts_deg(matrices)
    for axes, tilt in zip(matrices[:, :2], found, strict=True):
        # where `coordinates` have that tilt, xyz
        slice_at = np.array([np.cos(np.deg2rad(tilt)), 0.0, -np.sin(np.deg2rad(tilt))])
        inside = axes.T @ (axes @ slice_at)
        np.testing.assert_allclose(inside, slice_at, atol=1e-9)
    assert np.sort(np.abs(found)) == pytest.approx([0, 20, 30, 45], abs=1e-9)


# Measurements


def test_wedge_power_is_over_that_of_the_real_ones(monkeypatch) -> None:
    monkeypatch.setattr(proof, "told_apart", lambda real, fake: {})
    volumes = torch.randn(40, BOX, BOX, BOX, generator=stream(0, "wedge"))
    found = proof._told_apart({"the same": volumes, "twice": 2 * volumes}, volumes, "S1")
    assert found["the same"]["wedge_power"] == pytest.approx(1) and found["twice"]["wedge_power"] == pytest.approx(4)


def test_densities_on_real_backgrounds_have_the_snr_asked_for_and_keep_the_wedge(particles) -> None:
    x, scope = torch.from_numpy(particles[0].volumes), MICROSCOPES["S1"]
    background = 5 + 3 * filtered(torch.randn(8, BOX, BOX, BOX, generator=stream(0, "b")), wedge(BOX, -50.0, 70.0, BOX))
    made = {snr: on_background(x, background, VOXEL_A, scope, snr, stream(0, "on")) for snr in (1e-9, 0.5)}
    for volumes in made.values():
        assert volumes.shape == x.shape and float(volumes.mean()) == pytest.approx(0, abs=1e-4)
        assert float(volumes.var()) == pytest.approx(1, abs=1e-4)
        power, gone = mean_power(volumes), wedge(BOX, -50.0, 70.0, BOX) == 0
        assert float(power[gone].max()) < 1e-6 * float(power.mean())  # turned, but never out of its wedge
    shared = torch.corrcoef(torch.stack([v.flatten() for v in made.values()]))[0, 1]
    assert float(shared**2) == pytest.approx(1 / 1.5, abs=0.05)


def test_a_formula_of_weaker_densities_is_told_that_noise_is_stronger() -> None:
    config = proof.proof_config("smoke", "S1", 0.1, 0)
    own = class_references(DATASETS["S1"].classes, config.box, DATASETS["S1"].field_of_view_A / config.box)
    assert snr_in_same_noise(own, config) == pytest.approx(0.1)
    assert snr_in_same_noise({k: v / 2 for k, v in own.items()}, config) == pytest.approx(0.1 / 4)


def test_a_volume_is_wiener_corrected_as_a_reconstruction_is() -> None:
    """Noise, corrected afterwards or in the reconstruction: the same power in shells beyond the lowest."""
    n, rng, S1 = 24, stream(0, "images"), MICROSCOPES["S1"]
    recordings, size = draw_recordings(S1, 12, 1, rng), image_size(n)
    images = torch.randn(len(S1.angles_deg), 12, size, size, generator=rng)
    voxel_A = DATASETS["S1"].field_of_view_A / n
    plain, wanted = (
        reconstruct(images, scope, recordings.defocus_um, voxel_A, n)
        for scope in (S1, dataclasses.replace(S1, correction="wiener"))
    )
    found = torch.from_numpy(np.stack([mismatch._wiener_corrected(v) for v in plain.numpy()]))
    at = lookup(n, "radius")
    power = [node_means(at, mean_power(v).flatten(), torch.ones(at.index.shape[0])) for v in (found, wanted, plain)]
    np.testing.assert_allclose(power[0][4:] / power[1][4:], 1, atol=0.2)
    assert (power[1] / power[2])[4] > 3 * (power[1] / power[2])[-1]  # it is not flat


@pytest.fixture(scope="module")
def as_recorded() -> Domains:
    return mismatch.mismatched(
        proof.proof_config("smoke", "S1", 0.1, 0, train_per_class=4, test_per_class=2), "as recorded"
    )


@pytest.mark.parametrize(
    "condition", ["astigmatism", "8 bits", "off-centre picks", "a class missing from the particles"]
)
def test_a_condition_changes_what_it_says(condition: str, as_recorded: Domains, monkeypatch) -> None:
    """Of what is recorded or done to the tomograms both halves, of picks only the training half."""
    config = proof.proof_config("smoke", "S1", 0.1, 0, train_per_class=4, test_per_class=2)
    if condition not in mismatch.OPTICS:  # the same set is simulated once
        monkeypatch.setattr(mismatch, "simulated_domains", lambda *_, **__: as_recorded)
    both = mismatch.mismatched(config, condition)
    assert len(both.X_train) == 4 * len(both.classes) and both.Y_test.volumes.shape == (
        2 * len(both.classes),
        *(config.box,) * 3,
    )
    torch.testing.assert_close(both.volumes("X_train"), as_recorded.volumes("X_train"))
    changed = [
        not np.array_equal(getattr(both, h).volumes, getattr(as_recorded, h).volumes) for h in ("Y_train", "Y_test")
    ]
    assert changed == [True, condition not in mismatch.PICKS]
    if condition == "a class missing from the particles":
        assert set(as_recorded.Y_train.table["class_name"]) - set(both.Y_train.table["class_name"]) == {
            both.classes[-1]
        }
    if condition == "8 bits":
        assert set(np.unique(both.Y_test.volumes)) <= set(range(256))
    with pytest.raises(ValueError, match="condition 'fog'"):
        mismatch.mismatched(config, "fog")


def test_tomograms_that_cannot_be_left_out_are_refused_before_anything_is_estimated(
    particles, monkeypatch, tmp_path
) -> None:
    def none(*arguments: object, **options: object) -> None:
        raise AssertionError("estimated")

    monkeypatch.setattr(real, "train_on", none)
    y = particles[1]
    for sizes, found in (
        ([1, 15], "'a' has 1 particles, all others 15"),
        ([14, 2], "'a' has 14 particles, all others 2"),
        ([16], "needs particles of several tomograms"),
    ):
        names = [name for name, size in zip("ab", sizes, strict=False) for _ in range(size)]
        mixed = dataclasses.replace(y, table=y.table.assign(tomogram=names))
        with pytest.raises(ValueError, match=found):
            real.make_real(mixed, "tric", make_config("smoke", "own", "physics", batch=4), tmp_path)
    with pytest.raises(ValueError, match="needs one density"):
        real.make_real(mixed, "tric, ribosome", make_config("smoke", "own", "physics", batch=4), tmp_path)


@pytest.mark.parametrize("preset", ["physics", "adapted"])
def test_tomograms_are_left_out_with_the_settings_asked_for(particles, monkeypatch, tmp_path, preset) -> None:
    """And runs stay in the folder given, also where tomograms are named by paths."""
    monkeypatch.setattr(real, "network_auc", lambda *_: 0.5)  # trains networks
    y = particles[1].select(np.arange(12))
    names = [f"{tmp_path}/data/TS_{i % 2}.mrc" for i in range(12)]
    mixed = dataclasses.replace(y, table=y.table.assign(tomogram=names))
    config = make_config("smoke", "own", preset, box=y.volumes.shape[-1], batch=4, steps=1)
    numbers, volumes = real.make_real(mixed, "tric", config, tmp_path / "runs", mend=True)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_dir()) == ["runs", "without_0", "without_1"]
    made_by = {json.loads(p.read_text())["preset"] for p in tmp_path.rglob("config.json")}
    assert made_by == {preset} and len(volumes["generated"]) == len(volumes["real"]) == 12
    wedges = real_table(numbers)["wedge used (°)"]
    assert all((" to " in w) == (preset == "physics") for w in wedges)


def test_the_rule_prefers_the_closer_set() -> None:
    a, b, c = (torch.randn(40, 16, 16, 16, generator=stream(0, name)) for name in "abc")
    assert distance(a, b) < 0.5 < distance(a, 1.2 * c)
    skewed = b + 0.3 * (b.square() - 1)  # white as before: power alone does not tell
    skewed = (skewed - skewed.mean((1, 2, 3), keepdim=True)) / skewed.std((1, 2, 3), keepdim=True)
    assert angular_log_ratio(*(angular_power_spectra(v).mean(0) for v in (a, skewed))) < 0.1
    assert distance(a, skewed) > 5


def test_comparison_table_survives_a_classifier_that_learned_nothing() -> None:
    sources = (*FORMULAS, RELEASED, WRONG_MICROSCOPE, BACKGROUND, TRUE, PHYSICS, REAL)
    rows = [{"source": s, "synthetic": 8, "real": 0, "repeat": 0, "accuracy": 0.0} for s in sources]
    table: pd.DataFrame = comparison_table(
        [{"rows": rows, "config": {"dataset": "S1", "snr": 0.1, "seed": 0}}]
    ).set_index("trained on")
    assert table.loc["share of real", "S1, SNR 0.1"] == "nan" and table.loc["gap closed", "S1, SNR 0.1"] == "nan"


def test_halves_tell_what_as_many_others_would_reach() -> None:
    signal = blobs(1)[0]

    def set_of(name: str) -> torch.Tensor:
        return signal + 5 * torch.randn((40, SMALL, SMALL, SMALL), generator=stream(0, "halves", name))

    found = [fourier_shell_correlation(set_of(f"a{i}").mean(0), set_of(f"b{i}").mean(0)) for i in range(20)]
    wanted, told = torch.stack(found).mean(0), real.as_many_others(set_of("a0"), stream(0, "split"))
    assert 0.3 < float(wanted[1:4].min()) < float(wanted[1:4].max()) < 0.98  # neither all signal nor none
    assert told[1:4].numpy() == pytest.approx(wanted[1:4].numpy(), abs=0.15)
