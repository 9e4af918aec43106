"""The physics generator: Fourier coordinates and the wedge by known answers, every ingredient with effect, training that can be stopped, and what a user may ask of it."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cryoetgan_core.acquisition import Acquisition
from cryoetgan_core.baselines import FORMULAS, RELEASED, WRONG_MICROSCOPE
from cryoetgan_core.config import make_config
from cryoetgan_core.convolution import HalvingConv, ThinConv
from cryoetgan_core.downstream import PHYSICS, REAL, START, TRUE
from cryoetgan_core.fourier_grid import RADII, TILTS, coordinates, estimate_tilt_range, lookup, wedge, windowed_power
from cryoetgan_core.generation import generate, generate_repeats, load_run
from cryoetgan_core.metrics import angular_log_ratio, angular_power_spectra
from cryoetgan_core.microscope.back_projection import back_project, transform_size
from cryoetgan_core.microscope.simulate import MICROSCOPES
from cryoetgan_core.microscope.transfer import ctf
from cryoetgan_core.particles.acquisition import acquisition
from cryoetgan_core.particles.domains import Domains
from cryoetgan_core.particles.simulated import class_references, density_maps, subtomograms
from cryoetgan_core.physics import INGREDIENTS, SOURCES, PhysicsGenerator, log_normal
from cryoetgan_core.physics_start import _compact, start_from
from cryoetgan_core.plotting import comparison_table
from cryoetgan_core.run_folder import save_checkpoint, train
from cryoetgan_core.seeds import stream
from cryoetgan_core.selection import distance
from cryoetgan_core.training import Trainer
from cryoetgan_core.workflow import proof, real
from cryoetgan_core.workflow.runs import train_on

BOX, VOXEL_A = 24, 15.0


def white_volumes(tilts: torch.Tensor, n: int = 12) -> torch.Tensor:
    """Reconstructions (n, BOX, BOX, BOX) of white images at these tilts."""
    size = 2 * BOX
    return back_project(torch.randn(len(tilts), n, size, size, generator=stream(3, "white")), tilts, BOX)


@pytest.fixture(scope="module")
def particles():
    references = class_references(("tric",), BOX, VOXEL_A)
    y = subtomograms(references, 16, BOX, VOXEL_A, MICROSCOPES["S1"], stream(0, "y"), snr=0.3)
    x = density_maps(references, 16, BOX, VOXEL_A, stream(0, "x"))
    return x, y


def started(particles, **changes) -> Trainer:
    x, y = particles
    config = make_config("smoke", "own", "physics", **({"steps": 4, "checkpoint_every": 1, "validate_every": 2} | changes))
    told = acquisition(y, tilt_range=config.tilt_range, transfer=config.transfer)
    return Trainer(config, torch.from_numpy(x.volumes), torch.from_numpy(y.volumes), "cpu", told)


@pytest.mark.parametrize(("low", "high"), [(-50, 70), (-60, 60), (-40, 40), (-66, 30)])
def test_the_tilt_range_is_found_in_the_data(low: int, high: int) -> None:
    found = estimate_tilt_range(white_volumes(torch.arange(low, high + 1.0, 2), 48))
    assert found == pytest.approx((low, high), abs=0.9)  # less the width of a slice, which adds 1 to 2 degrees


def test_no_wedge_is_found_where_there_is_none() -> None:
    assert estimate_tilt_range(torch.randn(8, BOX, BOX, BOX, generator=stream(0, "noise"))) == (-90.0, 90.0)


def test_wedge_is_where_no_slice_passes() -> None:
    tilts = torch.arange(-50.0, 71, 1)
    mask = wedge(BOX, -50.0, 70.0, transform_size(BOX, BOX))
    radius, tilt, axis = coordinates(BOX)
    far = (radius > 0.2) & (axis > 40) & (radius * torch.sin(torch.deg2rad(axis)) < 0.46)  # slices end at Nyquist
    assert (mask[far & (tilt > -47) & (tilt < 67)] == 1).all()
    assert (mask[far & ((tilt < -62) | (tilt > 82))] < 1e-6).all()
    power = windowed_power(white_volumes(tilts))
    ring = far & (radius < 0.5)
    assert float(power[ring & (mask == 0)].mean() / power[ring & (mask == 1)].mean()) < 0.1


def test_overlapping_slices_leave_the_noise_that_a_reconstruction_has() -> None:
    """White images at 3 degrees: less power near the origin, where slices overlap; the same in reconstructions and in a generator that is told nothing but the tilts."""
    real = windowed_power(white_volumes(torch.arange(-60.0, 61, 3), 96))
    G = PhysicsGenerator(BOX, Acquisition(VOXEL_A, (-60.0, 60.0)), without=("noise_amplitude", "voxel_amplitude"))
    x = torch.zeros(96, 1, BOX, BOX, BOX)
    with torch.no_grad():
        made = windowed_power(G(x, G.sample_noise(x, stream(0, "n")))[:, 0])
    radius, tilt, axis = coordinates(BOX)
    curves = []
    for power in (real, made):
        rings = [
            power[(radius > low) & (radius < low + 0.1) & (axis > 40) & (tilt.abs() > at) & (tilt.abs() < at + 15)].mean()
            for low in (0.1, 0.2, 0.3, 0.4)
            for at in (5, 30, 45)
        ]
        curves.append(torch.stack(rings) / torch.stack(rings).mean())
    assert (curves[1] / curves[0]).log().abs().max() < 0.25
    assert float(curves[0][0] / curves[0][6]) < 0.7  # near the origin against farther out: it is no white noise behind a mask


@pytest.mark.parametrize("place", [(0, 0, 0), (4, -3, 5)])
def test_a_point_spreads_as_in_a_back_projection(place: tuple[int, int, int]) -> None:
    """At the centre to rounding, the edge of the wedge and what gaps between slices leave included; elsewhere but for the ghosts of slices that stand apart."""
    tilts = torch.arange(-50.0, 71, 3)
    G = silent()
    G.tilt_range_deg.copy_(torch.tensor([-50.0, 70.0]))
    x = torch.zeros(1, 1, BOX, BOX, BOX)
    z, y, x_place = (BOX // 2 + p for p in place)
    x[0, 0, z, y, x_place] = 1
    size = 2 * BOX
    frequency = torch.fft.fftfreq(size)
    kx, ky = (
        frequency * (torch.arange(size) != size // 2),
        frequency[:, None] * torch.ones(size),
    )  # the Nyquist sample of a line has no sign
    angle = torch.deg2rad(tilts)[:, None]
    along = place[2] * angle.cos() - place[0] * angle.sin()  # (T, 1) of the projected point
    lines = torch.exp(-2j * torch.pi * along[..., None] * kx) * torch.exp(-2j * torch.pi * (ky * place[1]))
    images = torch.fft.fftshift(torch.fft.ifft2(lines).real, dim=(-2, -1))[:, None]
    expected = back_project(images, tilts, BOX)[0]
    made = G(x, G.sample_noise(x, stream(0, "n")))[0, 0]
    assert float((made - expected).abs().max() / expected.abs().max()) < (1e-4 if place == (0, 0, 0) else 0.05)


@pytest.mark.parametrize("kind", ["radius", "tilt", "axis"])
def test_lookup_gives_back_what_is_linear_in_its_coordinates(kind: str) -> None:
    radius, tilt, axis = coordinates(16)
    at = lookup(16, kind)
    assert at.weight.sum(-1) == pytest.approx(1.0)
    nodes = torch.linspace(0, 0.5, RADII)
    second = {"radius": 0, "tilt": TILTS, "axis": 7}[kind]
    table = nodes if not second else nodes[:, None].repeat(1, second).flatten()
    inside = (radius <= 0.5).flatten()
    torch.testing.assert_close(at(table)[inside], radius.flatten()[inside], atol=1e-5, rtol=0)
    if kind == "axis":
        table = torch.linspace(0, 90, 7).repeat(RADII)
        torch.testing.assert_close(at(table), axis.flatten(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("layer", [ThinConv(1, 4, 3), ThinConv(4, 1, 3), ThinConv(4, 4, 3), HalvingConv(1, 4), HalvingConv(3, 4)])
def test_quick_convolutions_equal_the_plain_ones_with_their_gradients(layer: torch.nn.Conv3d) -> None:
    layer = layer.double()
    x = torch.randn(2, layer.in_channels, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    plain = torch.nn.functional.conv3d(x, layer.weight, layer.bias, layer.stride, 1)
    torch.testing.assert_close(layer(x), plain)

    def gradients(y: torch.Tensor) -> list[torch.Tensor]:
        first = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        return [first, *torch.autograd.grad(first.square().sum(), [x, layer.weight])]

    for ours, theirs in zip(gradients(layer(x)), gradients(plain), strict=True):
        torch.testing.assert_close(ours, theirs)


def silent(**changes) -> PhysicsGenerator:
    """A generator that is nothing but T = 1: no noise, no variation."""
    G = PhysicsGenerator(BOX, Acquisition(VOXEL_A, (-90.0, 90.0)), **changes)
    with torch.no_grad():
        G.T.fill_(1.0), G.level.fill_(1.0), G.N.fill_(-30.0), G.spread.fill_(-30.0), G.deformation.fill_(-30.0), G.gate.fill_(-30.0)
    return G.requires_grad_(False)


def test_with_nothing_but_a_flat_transfer_the_density_comes_back(particles) -> None:
    x = torch.from_numpy(particles[0].volumes)[:2, None]
    G = silent(without=("wedge",))
    torch.testing.assert_close(G(x, G.sample_noise(x, stream(0, "n"))), x, atol=2e-5, rtol=0)


def test_an_odd_box_comes_back_too() -> None:
    x = torch.nn.functional.avg_pool3d(torch.rand((1, 1, 27, 27, 27), generator=stream(0, "x")), 3, stride=1)
    G = PhysicsGenerator(25, Acquisition(VOXEL_A, (-90.0, 90.0)), without=("wedge", "neighbours"))
    with torch.no_grad():
        G.level.fill_(1.0), G.N.fill_(-30.0), G.spread.fill_(-30.0), G.deformation.fill_(-30.0)
        torch.testing.assert_close(G(x, G.sample_noise(x, stream(0, "n"))), x, atol=2e-5, rtol=0)


def test_deformation_displaces_what_varies_slowly() -> None:
    G, (z, y, x) = silent(), torch.meshgrid(*[torch.arange(BOX, dtype=torch.float32)] * 3, indexing="ij")
    G.deformation.fill_(math.log(0.5))
    drawn = torch.zeros(1, 3, 4, 4, 4)
    drawn[:, 0], drawn[:, 2] = 1.0, -2.0  # half a voxel along z, one against x
    wave = torch.sin(0.2 * z) + torch.cos(0.15 * x) + y / BOX
    moved = torch.sin(0.2 * (z + 0.5)) + torch.cos(0.15 * (x - 1)) + y / BOX
    inner = slice(2, -2)
    found = G.deform(wave[None, None], drawn)[0, 0]
    assert float((found - moved)[inner, inner, inner].abs().max()) < 0.03 < float((wave - moved).abs().max())


def test_validation_takes_the_mean_off(particles) -> None:
    trainer = started(particles)
    G = trainer.networks["G"]
    G.offset += 0.3
    trainer.ema["offset"] += 0.2
    trainer.validate()
    with torch.no_grad():
        assert abs(float(trainer._to_validate().mean())) < 1e-5
        G.load_state_dict(trainer.ema)
        assert abs(float(trainer._to_validate().mean())) < 1e-5


def test_the_wedge_takes_away_what_it_should(particles) -> None:
    x = torch.from_numpy(particles[0].volumes)[:4, None]
    G = silent()
    G.tilt_range_deg.copy_(torch.tensor([-50.0, 70.0]))
    y = G(x, G.sample_noise(x, stream(0, "n")))
    radius, tilt, _ = coordinates(BOX)
    gone = (wedge(BOX, -50.0, 70.0, BOX) == 0) & (radius > 0.1) & (radius < 0.3) & (tilt.abs() > 80)
    assert float(windowed_power(y[:, 0])[gone].mean() / windowed_power(x[:, 0])[gone].mean()) < 0.05


def test_a_periodic_generator_wraps_round_and_another_does_not() -> None:
    """Low frequencies only: what lies on two opposite faces is alike where the box wraps round."""
    alike = []
    for periodic in (True, False):
        G = silent(without=("wedge",), periodic=periodic)
        with torch.no_grad():
            G.N.copy_(torch.linspace(0, -6, RADII)[:, None].expand(RADII, TILTS))
        x = torch.zeros(16, 1, BOX, BOX, BOX)
        y = G(x, G.sample_noise(x, stream(0, "n")))[:, 0]
        y = y - y.mean((1, 2, 3), keepdim=True)
        alike.append(float((y[:, :, 0] * y[:, :, -1]).mean() / y.square().mean()))
    assert alike[0] > 0.7 and abs(alike[1]) < 0.3


def test_noise_follows_the_signal_where_all_particles_have_one_snr(particles) -> None:
    x = torch.from_numpy(particles[0].volumes)[:1, None]
    x = torch.cat([x, 3 * x])
    ratios = []
    for one_snr in (True, False):
        G = silent(without=("wedge", "noise_amplitude"), one_snr=one_snr)
        with torch.no_grad():
            G.N.zero_()
        drawn = G.sample_noise(x, stream(0, "n"))
        drawn |= {k: v[:1].expand_as(v) for k, v in drawn.items()}
        noise = G(x, drawn) - G(x, drawn | {"noise": torch.zeros_like(drawn["noise"])})
        ratios.append(float(noise[1].std() / noise[0].std()))
    assert ratios == pytest.approx([3.0, 1.0], rel=1e-3)


def test_noise_has_the_power_that_N_says() -> None:
    G = silent()
    with torch.no_grad():
        G.T.zero_(), G.N.copy_(torch.linspace(0, -2, RADII)[:, None].expand(RADII, TILTS))
        G.leak.fill_(30.0)
    x = torch.zeros(24, 1, BOX, BOX, BOX)
    power = windowed_power(G(x, G.sample_noise(x, stream(0, "n")))[:, 0])
    radius, _, _ = coordinates(BOX)
    for low, high in ((0.1, 0.15), (0.25, 0.3), (0.4, 0.45)):
        ring = (radius > low) & (radius < high)
        expected = torch.exp(-2 * 2 * radius[ring] / 0.5).mean()
        assert float(power[ring].mean() / expected) == pytest.approx(1, abs=0.06)


def test_noise_table_has_all_parts_of_the_colour() -> None:
    G = PhysicsGenerator(BOX, Acquisition(VOXEL_A)).requires_grad_(False)
    G.N += 0.3
    G.N_axis -= 0.1
    G.N_plane += 0.5
    table = G.noise_table()
    assert table.shape == (RADII, TILTS)
    assert not table[5:].isnan().any()  # every node from a third of Nyquist on has voxels
    torch.testing.assert_close(table[~table.isnan()].log(), torch.full_like(table[~table.isnan()], 0.7))


def test_wedge_power_is_over_that_of_the_real_ones(monkeypatch) -> None:
    monkeypatch.setattr(proof, "told_apart", lambda real, fake: {})
    volumes = torch.randn(40, BOX, BOX, BOX, generator=stream(0, "wedge"))
    found = proof._told_apart({"the same": volumes, "twice": 2 * volumes}, volumes, "S1")
    assert found["the same"]["wedge_power"] == pytest.approx(1) and found["twice"]["wedge_power"] == pytest.approx(4)


def test_ctf_of_a_particle_is_torch_ctfs_at_every_tilt_and_turns_with_what_is_asked() -> None:
    scope = dataclasses.replace(MICROSCOPES["S2"], total_dose_e_A2=0.0)
    defoci = torch.full((64,), 4.0)
    G = PhysicsGenerator(BOX, Acquisition(10.0, (-60.0, 60.0), scope, defoci, torch.full((64,), 3000.0)), transfer="ctf")
    with torch.no_grad():
        G.envelope.zero_()
    start_from(G, torch.randn(8, BOX, BOX, BOX), torch.randn(8, BOX, BOX, BOX))
    with torch.no_grad():
        G.envelope.zero_()
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


NEUTRAL = {  # what an ingredient's parameters are where it does nothing
    "structure": lambda G: G.structure[-1].weight.zero_() + G.structure[-1].bias.zero_(),
    "deformation": lambda G: G.deformation.fill_(-30),
    "neighbours": lambda G: G.gate.fill_(-30),
    "wedge": lambda G: G.tilt_range_deg.copy_(torch.tensor([-90.0, 90.0])) + G.leak.fill_(30),
    "transfer_spread": lambda G: G.T_spread.zero_(),
    "contrast": lambda G: G.spread[0].fill_(-30),
    "noise_colour": lambda G: G.N.fill_(float(G.N.mean())) + G.N_axis.zero_().sum() + G.N_plane.zero_().sum(),
    "noise_amplitude": lambda G: G.spread[1].fill_(-30),
    "voxel_amplitude": lambda G: G.A.zero_(),
}


@pytest.fixture(scope="module")
def varied(particles) -> PhysicsGenerator:
    """A generator that has started and of which every ingredient does much."""
    G = started(particles).networks["G"].requires_grad_(False)
    rng = stream(0, "varied")
    for parameter, amount in ((G.T_spread, 0.3), (G.A, 0.3), (G.N, 0.3), (G.structure[-1].weight, 0.3)):
        parameter += amount * torch.randn(parameter.shape, generator=rng)
    G.spread.fill_(math.log(0.3)), G.deformation.fill_(0.0), G.gate.fill_(2.0)
    return G


@pytest.mark.parametrize("name", INGREDIENTS)
def test_an_ingredient_switched_off_does_nothing_and_else_much(varied, particles, name: str) -> None:
    """With the same parameters and draws: a draw that is left out shifts all later ones, which alone changes volumes."""
    off = PhysicsGenerator(BOX, varied.acquisition, without=(name,)).requires_grad_(False)
    off.load_state_dict(varied.state_dict())
    neutral = copy.deepcopy(varied)
    NEUTRAL[name](neutral)
    x = torch.from_numpy(particles[0].volumes)[:4, None]
    x = (x - x.mean()) / x.std()
    drawn = varied.sample_noise(x, stream(1, "n"))
    on, without, expected = (G(x, drawn) for G in (varied, off, neutral))
    effect = float((on - without).std())
    assert effect > 0.03 * float(on.std())
    # the wedge of -90 to 90 degrees leaves only corners of a reconstruction's transform out
    assert float((without - expected).std()) < (0.1 if name == "wedge" else 1e-4) * effect


@pytest.mark.parametrize("name", INGREDIENTS)
def test_a_start_without_an_ingredient_leaves_it_alone(particles, name: str) -> None:
    trainer = started(particles, without=name)
    G = trainer.networks["G"]
    assert G.parts == set(INGREDIENTS) - {name}
    untouched = {"voxel_amplitude": [G.A], "noise_colour": [G.N - G.N.mean(), G.N_axis, G.N_plane], "transfer_spread": [G.T_spread]}
    assert all(float(t.detach().abs().max()) < 1e-5 for t in untouched.get(name, []))
    before = {k: v.clone() for k, v in G.state_dict().items()}
    assert all(math.isfinite(v) for v in trainer.step().values())
    own = {
        "structure": "structure.0.weight", "deformation": "deformation", "neighbours": "gate", "transfer_spread": "T_spread", "noise_colour": "N_axis", "voxel_amplitude": "A",
    }.get(name)  # fmt: skip
    assert own is None or torch.equal(G.state_dict()[own], before[own])


@pytest.mark.parametrize(
    ("n", "share", "held_out"), [(1, 0.15, None), (7, 0.15, None), (8, 0.15, 0), (9, 0.5, 0), (9, 0.15, 0), (10, 0.5, 2), (16, 0.15, 2)]
)
def test_any_number_of_particles_trains_or_is_refused_before_it_starts(
    particles, tmp_path: Path, n: int, share: float, held_out: int | None
) -> None:
    x, y = (torch.from_numpy(p.volumes) for p in particles)
    config = make_config("smoke", "own", "physics", batch=8, steps=2, validate_every=1, validation_share=share)

    def trainer() -> Trainer:
        return Trainer(config, x, y[:n], "cpu", Acquisition(VOXEL_A, (-50.0, 70.0)), start=False)

    if held_out is None:
        with pytest.raises(ValueError, match=rf"subtomograms have shape \({n}, .*at least 8 .the batch."):
            trainer()
        return
    made = trainer()
    assert len(made.validation) == held_out and len(made.rows["y"]) == n - held_out
    train(made, tmp_path, progress=False)
    assert made.steps_done == 2 and [math.isfinite(value) for _, value in made.validations] == [True] * (2 if held_out else 0)
    assert torch.isfinite(generate(load_run(tmp_path), x[:1])).all()


def test_tomograms_with_too_few_particles_are_refused_before_anything_is_trained(particles, monkeypatch) -> None:
    def none(*arguments: object, **options: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(real, "train_on", none)
    y = particles[1]
    for sizes, found in (
        ([1, 15], "'a' has 1 particles, all others 15"),
        ([14, 2], "'a' has 14 particles, all others 2"),
        ([16], "'a' has 16 particles, all others 0"),
    ):
        names = [name for name, size in zip("ab", sizes, strict=False) for _ in range(size)]
        mixed = dataclasses.replace(y, table=y.table.assign(tomogram=names))
        with pytest.raises(ValueError, match=found):
            real.make_real(mixed, "tric", make_config("smoke", "own", "physics", batch=4), "few")


def test_a_resumed_training_does_not_start_again_and_makes_the_same_bits(particles, tmp_path: Path, monkeypatch) -> None:
    x, y = particles
    config = make_config("smoke", "own", "physics", steps=4, checkpoint_every=3, validate_every=2)
    told = acquisition(y)
    starts = []

    def counted(*arguments: object) -> None:
        starts.append(1)
        start_from(*arguments)

    monkeypatch.setattr("cryoetgan_core.training.start_from", counted)

    def trainer(**options: bool) -> Trainer:
        return Trainer(config, torch.from_numpy(x.volumes), torch.from_numpy(y.volumes), "cpu", told, **options)

    def train_until(step: int) -> None:
        made = trainer(start=False)
        made.step, one = lambda: one() if made.steps_done < step else stop(), made.step
        with pytest.raises(KeyboardInterrupt):
            train(made, tmp_path / "broken", progress=False)

    def stop() -> None:
        raise KeyboardInterrupt

    whole = load_file(train(trainer(), tmp_path / "whole", progress=False))
    assert len(starts) == 1
    train_until(0)  # stopped right after the start, before any step
    train_until(3)
    broken = load_file(train(trainer(start=False), tmp_path / "broken", progress=False))
    assert len(starts) == 2
    assert whole.keys() == broken.keys() and all(torch.equal(whole[k], broken[k]) for k in whole)
    domains = Domains(x, x, y, y)
    train_on(config, domains, tmp_path / "workflow")
    train_on(config, domains, tmp_path / "workflow")
    assert len(starts) == 3


def test_start_finds_signal_noise_and_wedge(particles) -> None:
    trainer = started(particles)
    G = trainer.networks["G"]
    assert G.tilt_range_deg.tolist() == pytest.approx([-50, 70], abs=4)
    x = trainer.scaling.x(trainer.x)
    with torch.no_grad():
        made = G(x, G.sample_noise(x, stream(1, "n")))[:, 0]
    ratio = windowed_power(made) / windowed_power(trainer.scaling.y(trainer.y[:, 0]))
    radius, tilt, _ = coordinates(BOX)
    for low, high in ((0.05, 0.15), (0.2, 0.3), (0.35, 0.45)):
        ring = (radius > low) & (radius < high) & (tilt > -40) & (tilt < 60)
        assert 0.6 < float(ratio[ring].mean()) < 1.7


def test_start_finds_the_transfer_and_the_neighbours_of_a_known_generator(particles) -> None:
    x = torch.from_numpy(particles[0].volumes)
    x = ((x - x.mean()) / x.std()).repeat(-(-480 // len(x)), 1, 1, 1)[:480, None]
    acquisition = Acquisition(VOXEL_A, tilt_range_deg=(-50.0, 60.0))
    truth, found = (PhysicsGenerator(BOX, acquisition) for _ in range(2))
    level = 0.2 + 0.4 * torch.sin(torch.linspace(0, 2.5, RADII)).square()
    with torch.no_grad():
        truth.level.copy_(level), truth.N.fill_(0.3), truth.gate.fill_(math.log(0.1 / 0.9))
        truth.library.copy_(x[: len(truth.library), 0] - x.min())
        y = torch.cat([truth(part, truth.sample_noise(part, stream(3, "truth", i)))[:, 0] for i, part in enumerate(x.split(16))])
    start_from(found, x[:, 0], y)
    assert (found.level[2:11] / level[2:11]).numpy() == pytest.approx(1, abs=0.2)

    def noise(G: PhysicsGenerator) -> torch.Tensor:
        drawn = G.sample_noise(x[:64], stream(4, "n"))
        return windowed_power((G(x[:64], drawn) - G(x[:64], drawn | {"noise": torch.zeros_like(drawn["noise"])}))[:, 0])

    radius, tilt, _ = coordinates(BOX)
    seen = (radius > 0.05) & (radius < 0.45) & (tilt > -40) & (tilt < 50)
    with torch.no_grad():
        ratio = noise(found)[seen] / noise(truth)[seen]
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05) and float(ratio.std()) < 0.2
    assert 0.04 < float(torch.sigmoid(found.gate.detach())) < 0.25


@pytest.mark.parametrize("flipped", [True, False])
def test_start_finds_the_sign_of_the_transfer_beyond_a_zero(particles, flipped: bool) -> None:
    """Power shows the zero; whether the sign changes there (a CTF) or not (one whose phases were flipped), third moments."""
    x = torch.from_numpy(particles[0].volumes)
    x = ((x - x.mean()) / x.std()).repeat(-(-160 // len(x)), 1, 1, 1)[:160, None]
    truth, found = (PhysicsGenerator(BOX, Acquisition(VOXEL_A, tilt_range_deg=(-50.0, 60.0)), without=("neighbours",)) for _ in range(2))
    level = torch.cos(torch.linspace(0, 3.1, RADII)) * torch.linspace(0.2, 0.8, RADII)
    with torch.no_grad():
        truth.level.copy_(level if flipped else level.abs())
        y = torch.cat([truth(part, truth.sample_noise(part, stream(3, "truth", i)))[:, 0] for i, part in enumerate(x.split(16))])
    start_from(found, x[:, 0], y)
    for node in (2, 4, 8, 9, 10, 11):  # the zero is at 7.1; beyond 11 the particle has no power
        assert (float(found.level[node]) < 0) == (flipped and node > 7.1)


@pytest.mark.parametrize("few", [1, 2, 5])
def test_a_handful_of_subtomograms_is_enough_to_start(particles, few: int) -> None:
    x, y = particles
    G = PhysicsGenerator(BOX, Acquisition(VOXEL_A))
    start_from(G, torch.from_numpy(x.volumes), torch.from_numpy(y.volumes[:few]))
    assert all(torch.isfinite(p).all() for p in G.state_dict().values())


def test_a_generator_for_a_simulators_particles_starts_at_their_level(particles) -> None:
    trainer = started(particles, one_snr=True, periodic=True)
    G, x = trainer.networks["G"], trainer.scaling.x(trainer.x)
    with torch.no_grad():
        y = G(x, G.sample_noise(x, stream(0, "n")))
    assert G.padded == BOX and float(G.signal_power) != 1
    assert float(y.std() / trainer.scaling.y(trainer.y).std()) == pytest.approx(1, abs=0.3)  # told by fourteen volumes


def test_the_start_stays_sober_on_periodic_low_passed_volumes(particles) -> None:
    x, y = particles
    f = torch.fft.fftfreq(BOX)
    radius = (f[:, None, None] ** 2 + f[:, None] ** 2 + torch.fft.rfftfreq(BOX) ** 2).sqrt()
    white = torch.fft.rfftn(torch.randn(len(y.volumes), BOX, BOX, BOX, generator=stream(0, "w")), dim=(-3, -2, -1))
    mask = wedge(BOX, -60.0, 60.0, BOX)
    blurred = torch.fft.irfftn(white * mask * torch.exp(-((radius / 0.12) ** 2)), s=(BOX,) * 3, dim=(-3, -2, -1))
    G = PhysicsGenerator(BOX, Acquisition(VOXEL_A, tilt_range_deg=(-60.0, 60.0)), periodic=True, one_snr=True)
    start_from(G, torch.from_numpy(x.volumes), blurred / blurred.std())
    with torch.no_grad():
        made = G(torch.from_numpy(x.volumes)[:, None], G.sample_noise(torch.from_numpy(x.volumes)[:, None], stream(0, "n")))
    assert 0.5 < float(made.std()) < 2


def test_stopped_training_goes_on_to_the_same_weights_and_the_best_one_is_kept(tmp_path: Path, particles) -> None:
    whole = train(started(particles), tmp_path / "whole", progress=False)
    trainer = started(particles)
    (tmp_path / "broken").mkdir()
    for _ in range(3):
        trainer.step()
        if trainer.steps_done == 2:
            trainer.validate()
    save_checkpoint(trainer, tmp_path / "broken")
    (tmp_path / "broken" / "log.jsonl").write_text("".join(json.dumps({"step": i + 1, "seconds": 0.1}) + "\n" for i in range(3)))
    again = started(particles)
    broken = train(again, tmp_path / "broken", progress=False)
    ours, theirs = load_file(whole), load_file(broken)
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    best = min(again.validations, key=lambda v: v[1])
    assert len(again.validations) == 2
    assert {k: v for k, v in again.best.items() if k == "T"}["T"].equal(theirs["G.T"])
    assert best[0] in (2, 4)


def test_the_mean_of_what_is_made_is_zero_at_the_start_and_after_a_validation(particles) -> None:
    trainer = started(particles)
    G, x = trainer.networks["G"], trainer.scaling.x(trainer.x)

    def mean() -> float:
        with torch.no_grad():
            return float(torch.cat([G(x, G.sample_noise(x, stream(5, "mean", i))) for i in range(8)]).mean())

    assert abs(mean()) < 0.02
    with torch.no_grad():
        G.offset += 0.5
    trainer.ema["offset"] += 0.3
    trainer.validate()
    assert abs(mean()) < 0.02
    G.load_state_dict(trainer.ema)
    assert abs(mean()) < 0.02


def test_a_start_takes_off_the_mean_that_densities_bring(particles) -> None:
    x, y = (torch.from_numpy(p.volumes) for p in particles)
    x, y = (x - x.mean()) / x.std() + 3.0, (y - y.mean()) / y.std()
    G = PhysicsGenerator(BOX, Acquisition(VOXEL_A, (-50.0, 70.0)))
    start_from(G, x, y)
    with torch.no_grad():
        made = torch.cat([G(x[:, None], G.sample_noise(x[:, None], stream(5, "mean", i))) for i in range(4)])
    assert abs(float(made.mean())) < 0.03  # 0.09 else


def test_training_stops_when_nothing_better_is_found(particles) -> None:
    trainer = started(particles, steps=100, patience=2)
    trainer.validations = [(2, 1.0), (4, 2.0)]
    assert not trainer.finished
    trainer.validations.append((6, 3.0))
    assert trainer.finished


def test_the_rule_prefers_the_closer_set() -> None:
    real = torch.randn(40, 16, 16, 16, generator=stream(0, "a"))
    same, louder = torch.randn(40, 16, 16, 16, generator=stream(0, "b")), 1.2 * torch.randn(40, 16, 16, 16, generator=stream(0, "c"))
    assert distance(real, same) < 0.5 < distance(real, louder)
    skewed = same + 0.3 * (same.square() - 1)  # white as before: power alone does not tell
    skewed = (skewed - skewed.mean((1, 2, 3), keepdim=True)) / skewed.std((1, 2, 3), keepdim=True)
    assert angular_log_ratio(*(angular_power_spectra(v).mean(0) for v in (real, skewed))) < 0.1
    assert distance(real, skewed) > 5


def test_generations_do_not_depend_on_the_batch_and_sources_split_the_variance(tmp_path: Path, particles) -> None:
    trainer = started(particles)
    train(trainer, tmp_path, progress=False)
    run = load_run(tmp_path)
    x = torch.from_numpy(particles[0].volumes)
    together = generate(run, x[:5], seed=1)
    apart = torch.cat([generate(run, x[i : i + 1], seed=1, first=i) for i in range(5)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.testing.assert_close(generate(run, x[:5], seed=1), together, atol=1e-5, rtol=0)
            with pytest.raises(RuntimeError):
                generate(run, x[:5, :-3])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    variance = {s: generate_repeats(run, x[:1], repeats=24, source=s).var(1).mean() for s in ("", *SOURCES)}
    parts = sum(v for k, v in variance.items() if k)
    assert float(parts / variance[""]) == pytest.approx(1, abs=0.25)
    assert all(v > 0 for v in variance.values())
    with pytest.raises(ValueError, match="source 'dust'"):
        generate_repeats(run, x[:1], repeats=2, source="dust")


def test_a_generator_with_the_ctf_does_what_it_is_asked(tmp_path: Path, particles) -> None:
    trainer = started(particles, transfer="ctf", tilt_range="told")
    train(trainer, tmp_path, progress=False)
    run, x = load_run(tmp_path), torch.from_numpy(particles[0].volumes)[:4]
    plain = generate(run, x)
    scope = run.G.acquisition.microscope
    assert not torch.allclose(plain, generate(run, x, defocus_um=torch.full((4,), 1.0)), atol=1e-3)
    narrow = generate(run, x, microscope=dataclasses.replace(scope, tilt_min_deg=-30.0, tilt_max_deg=30.0))
    assert narrow.var() < 0.8 * plain.var()
    half = generate(run, x, microscope=dataclasses.replace(scope, total_dose_e_A2=scope.total_dose_e_A2 / 4))
    assert float(half.var() / plain.var()) == pytest.approx(4, rel=0.35)


def test_what_cannot_be_asked_is_refused(tmp_path: Path, particles) -> None:
    x, y = particles
    with pytest.raises(ValueError, match="unknown ingredient sugar"):
        PhysicsGenerator(BOX, Acquisition(VOXEL_A), without=("sugar",))
    with pytest.raises(ValueError, match="needs the optics"):
        PhysicsGenerator(BOX, Acquisition(VOXEL_A), transfer="ctf")
    with pytest.raises(ValueError, match="'without' names sugar"):
        make_config("smoke", "S1", "physics", without="sugar")
    with pytest.raises(ValueError, match="no column 'voltage_kV'|defocus_um"):
        acquisition(dataclasses.replace(y, table=y.table.drop(columns=["defocus_um"])), transfer="ctf")
    with pytest.raises(ValueError, match="needs an acquisition"):
        Trainer(make_config("smoke", "own", "physics"), torch.from_numpy(x.volumes), torch.from_numpy(y.volumes))
    trainer = started(particles, steps=1, validate_every=1)
    train(trainer, tmp_path, progress=False)
    with pytest.raises(ValueError, match="as a table"):
        generate(load_run(tmp_path), torch.from_numpy(x.volumes)[:1], defocus_um=torch.ones(1))


def test_neighbours_stand_beside_the_particle_as_often_as_the_gate_says(particles) -> None:
    x = torch.from_numpy(particles[0].volumes)
    G = silent()
    G.library.copy_(_compact(G, x))
    assert float(G.library[:, 0].abs().amax()) < 0.3 * float(x.amax())
    drawn = G.sample_noise(x[:8, None].repeat(25, 1, 1, 1, 1), stream(0, "n"))["neighbours"]
    many = x[:8, None].repeat(25, 1, 1, 1, 1)
    for logit, wanted in ((-30.0, 0.0), (30.0, 3.0)):
        G.gate.fill_(logit)
        around = G.crowd(many, drawn)
        mass = around.sum((1, 2, 3)) / G.library.sum((1, 2, 3)).mean()
        assert (mass == 0).all() if wanted == 0 else 0.2 < float(mass.mean()) < wanted  # part of them lies outside
    margin = (G.padded - BOX) // 2
    inner = around[:, margin : margin + BOX, margin : margin + BOX, margin : margin + BOX]
    overlap = (inner * (x[:8] > 0.5 * x.amax()).repeat(25, 1, 1, 1)).sum() / inner.sum()
    assert float(overlap) < 0.02
    G.gate.requires_grad_(True).data.fill_(0.0)
    there = G.crowd(many, drawn)
    share = float((there.flatten(1).amax(1) > 0).float().mean())
    assert 0.5 < share < 0.95
    there.sum().backward()
    assert float(G.gate.grad) > 0


def test_densities_that_reach_the_faces_are_no_neighbours() -> None:
    sheet = torch.zeros(4, BOX, BOX, BOX)
    sheet[:, 10:13] = 1.0
    assert float(_compact(silent(), sheet).abs().sum()) == 0


def test_log_normal_numbers_have_mean_one() -> None:
    assert float(log_normal(torch.randn(200_000, generator=stream(0, "z")), torch.tensor(0.3).log()).mean()) == pytest.approx(1, abs=0.005)


def test_comparison_table_survives_a_classifier_that_learned_nothing() -> None:
    sources = (*FORMULAS, RELEASED, WRONG_MICROSCOPE, TRUE, START, PHYSICS, REAL)
    rows = [{"source": s, "synthetic": 8, "real": 0, "repeat": 0, "accuracy": 0.0} for s in sources]
    table = comparison_table([{"rows": rows, "config": {"dataset": "S1", "snr": 0.1, "seed": 0}}]).set_index("trained on")
    assert table.loc["share of real", "S1, SNR 0.1"] == "nan" and table.loc["gap closed", "S1, SNR 0.1"] == "nan"
