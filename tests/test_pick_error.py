"""How far picks lie off centre, found from noisy subtomograms, and densities that are moved as far."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass, gaussian_filter

import cryoetgan_core as cg
from cryoetgan_core.config import OWN_DATA, make_config
from cryoetgan_core.paper import api
from cryoetgan_core.physics.acquisition import Acquisition
from cryoetgan_core.physics.estimate import signals
from cryoetgan_core.physics.generator import PhysicsGenerator
from cryoetgan_core.physics.pick_error import _symmetric, as_picked, certain_offset, mean_offset, off_centre, spread
from cryoetgan_core.reproducibility.seeds import stream
from cryoetgan_core.simulator.sets import class_references, density_maps
from cryoetgan_core.volumes.domains import Domains
from cryoetgan_core.volumes.table import ParticleSet

BOX, VOXEL = 24, 20.0
ALL = (-90.0, 90.0)  # tilts: no missing wedge
SHIFTS = ["shift_z_A", "shift_y_A", "shift_x_A"]
ADVICE = "add this vector to the positions of the picks"


@pytest.fixture(scope="module")
def densities() -> ParticleSet:
    return density_maps(class_references(("ribosome",), BOX, VOXEL), 120, BOX, VOXEL, stream(0, "X"))


def recorded(
    densities: ParticleSet, error: float, noise: float = 2.0, offset: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> ParticleSet:
    """Densities moved by so many voxels, at random about an offset, in white noise."""
    moved = off_centre(densities, error, stream(1, "Y"), offset) if error or any(offset) else densities
    clean = np.asarray(moved.volumes)
    rng = np.random.default_rng(2)
    volumes = clean / clean.std() + noise * rng.standard_normal(clean.shape)
    return ParticleSet(volumes.astype(np.float32), moved.table, moved.voxel_size_A)


@pytest.mark.parametrize("error", [1.5, 3.0])
def test_densities_are_moved_as_far_as_the_picks_lie_off_centre(densities: ParticleSet, error: float) -> None:
    y = recorded(densities, error)
    both, found, offset = as_picked(Domains(densities, densities, y, y), 0, ALL)
    assert not offset.any() and found == pytest.approx(spread(y), rel=0.2)
    assert spread(both.X_train) == pytest.approx(spread(y), rel=0.2) and both.Y_train is y
    assert not np.array_equal(both.X_train.volumes, both.X_test.volumes)


@pytest.mark.parametrize("error", [0.0, 2.0])
def test_picks_that_are_all_off_in_one_direction_are_told_from_scattered_ones(
    densities: ParticleSet, error: float
) -> None:
    wanted = (3.0, -2.0, 1.0)
    y = recorded(densities, error, 1.0, wanted)
    both, found, offset = as_picked(Domains(densities, densities, y, y), 0, ALL)
    place = y.table[SHIFTS].to_numpy().mean(0) / VOXEL
    assert np.abs(offset - place).max() < 0.3 and np.abs(place - wanted).max() < 0.6
    moved = (both.X_train.table[SHIFTS] - densities.table[SHIFTS]).to_numpy()
    assert np.abs(moved.mean(0) / VOXEL - wanted).max() < 0.6
    assert found == (pytest.approx(spread(y), rel=0.25) if error else 0)


@pytest.mark.parametrize("box", [24, 25])
def test_where_particles_lie_is_told_through_a_ctf_that_changes_its_sign(box: int) -> None:
    f = np.fft.fftfreq(box)
    radius = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + f**2)
    densities = density_maps(class_references(("ribosome",), box, VOXEL), 60, box, VOXEL, stream(0, "X"))
    moved = off_centre(densities, 0.0, stream(0, "moved"), (0.0, 2.0, -1.0)).volumes
    seen = np.fft.ifftn(np.fft.fftn(moved, axes=(1, 2, 3)) * np.cos(40 * radius**2), axes=(1, 2, 3)).real
    seen += 2 * seen.std() * np.random.default_rng(0).standard_normal(seen.shape)
    place, standard_error = mean_offset(torch.from_numpy(seen))
    assert np.abs(place - (0, 2, -1)).max() < 0.3 and standard_error.max() < 0.3


@pytest.mark.parametrize("blur", [0, 2])
def test_noise_lies_nowhere(blur: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = gaussian_filter(rng.standard_normal((8, 16, 16, 16)), (0, blur, blur, blur), mode="wrap")
        assert not certain_offset(*mean_offset(torch.from_numpy(noise))).any()


def test_the_user_is_told_which_way_picks_are_off(
    densities: ParticleSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    y = recorded(densities, 0.0, 1.0, (3.0, -2.0, 0.0))
    y.table["tomogram"] = ["first"] * 110 + ["second"] * 10
    y.table[["shift_x_A", "shift_y_A", "shift_z_A"]] = np.nan  # a file of picks does not know it
    config = make_config("smoke", OWN_DATA, "physics", box=BOX, train_per_class=40)
    with caplog.at_level(logging.WARNING, "cryoetgan_core"):
        both = api.domains(y, "ribosome", config)
    told = re.search(r"= \((.*), (.*), (.*)\) voxels on average", caplog.text)
    assert ADVICE in caplog.text
    assert np.abs(np.array(told.groups(), float) - (0, -2, 3)).max() < 0.3  # x, y, z
    assert both.X_train.table["shift_z_A"].mean() / VOXEL == pytest.approx(3, abs=0.5)
    api.train_domains(config, both, tmp_path, "ribosome")
    x = cg.densities_for("ribosome", 50, BOX, VOXEL, run=tmp_path).table
    assert x["shift_z_A"].mean() / VOXEL == pytest.approx(3, abs=0.5)
    with pytest.raises(FileNotFoundError, match="nope/source.json is missing"):
        cg.densities_for("ribosome", 5, BOX, VOXEL, run=tmp_path / "nope")


def other_densities(densities: ParticleSet) -> tuple[ParticleSet, ParticleSet]:
    """Few, so that their mean power is noisy, and a blur would smooth it."""
    references = class_references(("proteasome",), 32, 10.0)
    y = recorded(density_maps(references, 120, 32, 10.0, stream(0, "X")), 0)
    return density_maps(references, 40, 32, 10.0, stream(2, "X")), y


def membranes(densities: ParticleSet) -> tuple[ParticleSet, ParticleSet]:
    x = density_maps(class_references(("membrane",), BOX, VOXEL), 40, BOX, VOXEL, stream(0, "X"))
    return x, recorded(x, 3.0, 0.1)


@pytest.mark.parametrize(
    "case",
    {
        "centred picks": lambda x: (x, recorded(x, 0, 2.0)),
        "noise alone": lambda x: (x, recorded(x, 0, 50.0)),
        "few particles": lambda x: (x, recorded(x, 3.0, 0.1).select(np.arange(120) < 7)),
        "others, spread alike": other_densities,
        "membranes": membranes,
    }.items(),
    ids=lambda item: item[0],
)
def test_densities_that_are_left_as_they_are(densities: ParticleSet, case: tuple) -> None:
    x, y = case[1](densities)
    both = Domains(x, x, y, y)
    assert as_picked(both, 0, ALL).domains is both


@pytest.mark.parametrize("box", [24, 25])
def test_mean_power_seen_by_uneven_tilts_has_the_symmetry_that_is_assumed(box: int) -> None:
    low, high = -30.0, 65.0
    x = density_maps(class_references(("proteasome",), box, VOXEL), 3, box, VOXEL, stream(0, "X")).volumes
    G = PhysicsGenerator(box, Acquisition(VOXEL, (low, high)))
    index = (2 * (box // 2) - np.arange(box)) % box  # of the voxel on the other side of the centre
    copies = (x, x[:, index][..., index], x[:, :, index], x[:, index][:, :, index][..., index])
    power = [signals(G, torch.from_numpy(copy)[:, None]).square().mean(0) for copy in copies]
    wanted = torch.stack(power).mean(0)
    assert (_symmetric(power[0][None])[0] - wanted).abs().max() < 0.01 * wanted.max()
    assert (power[0] - wanted).abs().max() > 0.1 * wanted.max()


def test_what_the_table_tells_is_not_blamed_on_the_picks(
    densities: ParticleSet, caplog: pytest.LogCaptureFixture
) -> None:
    """Boxes that were turned lie a voxel off, and their table says so; here two voxels, which are certain."""
    y = recorded(densities, 0.0, 1.0, (-2.0, 0.0, 0.0))
    y.table["tomogram"] = ["first"] * 110 + ["second"] * 10
    y.table[["shift_x_A", "shift_y_A", "shift_z_A"]] = (0.0, 0.0, -2 * VOXEL)
    config = make_config("smoke", OWN_DATA, "physics", box=BOX, train_per_class=40)
    with caplog.at_level(logging.WARNING, "cryoetgan_core"):
        both = api.domains(y, "ribosome", config)
    assert both.X_train.table["shift_z_A"].mean() / VOXEL == pytest.approx(-2, abs=0.5)  # densities lie so, too
    assert ADVICE not in caplog.text


def test_the_table_of_moved_densities_tells_where_they_lie(densities: ParticleSet) -> None:
    moved = off_centre(densities, 1.5, stream(0, "moved"))
    places = [
        np.array([center_of_mass(np.clip(v - 0.3 * v.max(), 0, None)) for v in half.volumes])
        for half in (moved, densities)
    ]
    told = (moved.table[SHIFTS] - densities.table[SHIFTS]).to_numpy() / VOXEL
    assert np.abs(places[0] - places[1] - told).mean() < 0.1 and told.std() == pytest.approx(1.5, rel=0.1)


@pytest.mark.filterwarnings("ignore:No missing wedge")
def test_training_says_that_picks_lie_off_centre(
    densities: ParticleSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    levels = {}
    for error in (0, 3.0):
        with caplog.at_level(logging.WARNING, "cryoetgan_core"):
            y = recorded(densities, error, 1.0)
            y.table["tomogram"] = ["first"] * 110 + ["second"] * 10
            run = cg.train(y, "ribosome", tmp_path / str(error), profile="smoke", train_per_class=120)
        levels[error] = float(run.G.T[:5].abs().mean())
    assert caplog.text.count("picks scatter about") == 1
    assert 0.7 < levels[3.0] / levels[0] < 1.3
    lie = {}
    for error in (0, 3.0):
        folder = tmp_path / str(error)
        x = cg.densities_for("ribosome", 100, BOX, VOXEL, run=folder)
        maps, order = class_references(("ribosome",), BOX, VOXEL), cg.Order(100, {"ribosome": 1.0})
        list(cg.generate_to(folder / "made", folder, cg.load_run(folder), maps, order, VOXEL))
        for table in (x.table, cg.load_particles(folder / "made" / "particles.csv").table):
            lie.setdefault(error, []).append(table[SHIFTS].to_numpy() / VOXEL)
    told = float(re.search(r"centres by (.*?) voxels", caplog.text).group(1))
    assert 2.4 < told < 3.6 and all(off.std() == pytest.approx(told, rel=0.15) for off in lie[3.0])
    assert all(np.abs(off).max() <= 0.06 * BOX for off in lie[0])
