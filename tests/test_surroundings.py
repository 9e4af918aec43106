"""Membranes, molecules in them, gold and ice of a scene: where they are said to be, in every volume."""

import dataclasses
import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from common import rng
from scipy.spatial.transform import Rotation

import cryoetgan_core as cg
from cryoetgan_core.paper import command
from cryoetgan_core.particles.tilt_series_writer import write_volume
from cryoetgan_core.physics.any_size import recorded
from cryoetgan_core.scenes import Scenes, generate_scenes, make_scene
from cryoetgan_core.simulator import scene
from cryoetgan_core.simulator.microscope.projection import project
from cryoetgan_core.simulator.microscope.simulate import MICROSCOPES
from cryoetgan_core.simulator.microscope.tilt_scheme import tilt_matrices
from cryoetgan_core.simulator.sets import class_references
from cryoetgan_core.simulator.specimen.builders import bilayer_profile
from cryoetgan_core.simulator.surroundings import Membrane, Placed, Surroundings, add_to, draw, surroundings
from cryoetgan_core.volumes.poses import relion_angles_to_pose

VOXEL, SHAPE = 15.0, (64, 96, 96)
EXTENT = np.array(SHAPE) * VOXEL
ALL = dict(planes=1, vesicles=2, tubes=1, vesicle_radius_A=(200, 250), gold=3)


@pytest.fixture(scope="module")
def references():
    return class_references(("ribosome", "hemagglutinin"), 32, VOXEL)


def test_distances_of_each_kind_of_membrane() -> None:
    centre, axis, points = np.array([10.0, 20, 30]), np.array([0.0, 0, 1]), np.array([[10.0, 20, 130], [10, 70, 30]])
    for kind, wanted in (("planes", (100, 0)), ("vesicles", (60, 10)), ("tubes", (-40, 10))):
        distance, normal = Membrane(kind, centre, axis, 40.0).distance_and_normal(points)
        np.testing.assert_allclose(distance, wanted, atol=1e-9)
        if kind != "planes":
            np.testing.assert_allclose(normal[1], (0, 1, 0), atol=1e-9)


def test_a_bilayer_has_its_profile_and_its_label() -> None:
    placed = Placed(Surroundings(), EXTENT, (Membrane("planes", EXTENT / 2, np.array([0.0, 0, 1])),))
    density, classes = np.zeros((4, 4, 400), np.float32), np.zeros((4, 4, 400), np.uint8)
    placed.membranes[0].centre[2] = 200.0
    add_to(density, classes, placed, 1.0, 2.2, 7)
    depth = torch.arange(400.0) - 200
    found, wanted = density[1, 1], bilayer_profile(depth.double()).numpy()
    assert np.abs(found - wanted).max() < 0.05 * wanted.max() and found.argmax() in (181, 219)
    assert set(np.flatnonzero(classes[2, 3] == 7)) == set(range(175, 226))


def test_what_is_drawn_does_not_touch_and_molecules_keep_off_it(references) -> None:
    placed = draw(surroundings(ALL), SHAPE, VOXEL, rng())
    assert [m.kind for m in placed.membranes] == ["planes", "vesicles", "vesicles", "tubes"] and len(placed.gold) == 3
    table = scene.place(references, {"hemagglutinin": 30}, SHAPE, VOXEL, rng(1), placed=placed)
    density, classes, molecules = scene.specimen(references, table, SHAPE, VOXEL, placed)
    assert set(np.unique(classes)) == {0, 1, 2, 3}
    alone, labels = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    add_to(alone, labels, placed, VOXEL, 2.2 * VOXEL, 2)
    assert ((labels > 0) & (molecules > 0)).mean() < 1e-4 and np.array_equal(
        labels[molecules == 0], classes[molecules == 0]
    )
    grid = np.stack(np.meshgrid(*(np.arange(n) * VOXEL for n in SHAPE), indexing="ij"), -1)
    near = sum(np.abs(m.distance_and_normal(grid)[0]) < 50 for m in placed.membranes)
    assert near.max() == 1
    for centre in placed.gold:  # a ball of density 10 is where it is said to be
        z, y, x = np.round(centre / VOXEL).astype(int).clip(0, np.array(SHAPE) - 1)
        assert density[z, y, x] > 5 and classes[z, y, x] == 3


def test_a_molecule_in_a_membrane_stands_upright_on_it(references) -> None:
    order = Surroundings(vesicles=1, vesicle_radius_A=(300, 300), in_membranes={"hemagglutinin": 6}, offset_A=80.0)
    placed = draw(order, SHAPE, VOXEL, rng(3))
    table = scene.place(references, {}, SHAPE, VOXEL, rng(4), placed=placed)
    assert list(table["class_name"]) == ["hemagglutinin"] * 6
    away = table[["x_A", "y_A", "z_A"]].to_numpy() - placed.membranes[0].centre[::-1]
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), 380, atol=1e-6)
    angles = table[["rot_deg", "tilt_deg", "psi_deg"]].to_numpy()
    up = Rotation.from_euler("ZYZ", angles, degrees=True).inv().apply([0, 0, 1])  # RELION's matrix, by scipy
    np.testing.assert_allclose(up, away / 380, atol=1e-6)


def test_lipid_is_where_no_molecule_is() -> None:
    placed = Placed(Surroundings(), EXTENT, (Membrane("planes", EXTENT / 2, np.array([1.0, 0, 0])),))
    density, classes = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    density[:, :48] = 1  # protein in one half of the membrane
    add_to(density, classes, placed, VOXEL, 2.2 * VOXEL, 1)
    assert np.allclose(density[:, :48], 1) and density[:, 48:].max() > 0.3


def test_thinner_ice_loses_fewer_electrons(references) -> None:
    scope = dataclasses.replace(MICROSCOPES["S1"], inelastic_mean_free_path_A=500.0)
    noise = []
    for ice in (0.0, 200.0):
        placed = draw(Surroundings(ice_A=ice), SHAPE, VOXEL, rng(8))
        table = scene.place(references, {}, SHAPE, VOXEL, rng(9))
        series = scene.tilt_series(references, table, SHAPE, VOXEL, scope, rng(10), placed=placed, snr=None)
        noise.append(series.images.std())
    assert noise[0] > 1.5 * noise[1]


def test_molecules_lie_in_the_ice(references) -> None:
    placed = draw(Surroundings(ice_A=500, ice_tilt_deg=10, gold=5), SHAPE, VOXEL, rng(5))
    table = scene.place(references, {"hemagglutinin": 30}, SHAPE, VOXEL, rng(6), placed=placed)
    away = table[["z_A", "y_A", "x_A"]].to_numpy() - EXTENT / 2
    tilt = np.deg2rad(10)
    depth = away[:, 0] * np.cos(tilt) - away[:, 2] * np.sin(tilt)
    assert np.abs(depth).max() < 250 and np.abs(away[:, 0]).max() > 200  # thinner than the slab, and inclined


def test_a_slab_is_projected_as_its_molecules_are(references) -> None:
    table = scene.place(references, {"ribosome": 1}, SHAPE, VOXEL, rng(7))
    density, _, _ = scene.specimen(references, table, SHAPE, VOXEL)
    angles, shifts = torch.tensor([-40.0, 0, 30]), np.array([[0, 0], [1.5, -2], [0, 3.25]])
    images = scene.project_slab(density, angles.numpy(), shifts).numpy()
    tilts = tilt_matrices(angles)
    place = torch.from_numpy(table[["x_A", "y_A", "z_A"]].to_numpy(float) / VOXEL) - torch.tensor(SHAPE[::-1]) / 2
    pixels = (tilts @ place[0])[:, :2].flip(-1) + torch.from_numpy(shifts)
    pose = relion_angles_to_pose(*(torch.tensor(table[f"{a}_deg"].to_numpy(float)) for a in ("rot", "tilt", "psi")))
    wanted = project(references["ribosome"], tilts[:, None] @ pose, pixels[:, None], SHAPE[1])[:, 0].numpy()
    for one, other in zip(images, wanted, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999
        assert one.sum() == pytest.approx(other.sum(), rel=0.03)


def test_both_recordings_show_gold_where_its_label_lies(tmp_path: Path) -> None:
    around = {"gold": 2, "gold_diameter_A": 120, "vesicles": 1, "vesicle_radius_A": [200, 250]}
    told = dict(voxel_size_A=VOXEL, around=around, snr=1.0, seed=2)
    cg.generate_tomograms(tmp_path / "slab", "S1", {"tric": 2}, SHAPE, **told)
    stem = tmp_path / "slab" / "tomograms" / "scene_0001"
    made, classes = mrcfile.read(f"{stem}.mrc"), mrcfile.read(f"{stem}_classes.mrc")
    assert set(np.unique(classes)) == {0, 1, 2, 3}
    bright = -made  # protein, gold and membranes are dark in it
    assert bright[classes == 3].mean() > 5 * abs(bright[classes == 0].mean()) + bright.std()
    assert bright[classes == 3].mean() > bright[classes == 2].mean()
    run, references = cg.load_run(cg.pretrained("S1_physics")), class_references(("tric",), 24, 22.8)
    order = Scenes({"tric": 1}, (48, 64, 64), protein="bright", around=surroundings(around), seed=1)
    table, volumes = make_scene(run, references, order, 0, 22.8)
    assert set(np.unique(volumes["classes"])) == {0, 1, 2, 3} and set(np.unique(volumes["molecules"])) == {0, 1}
    assert ((volumes["classes"] == 1) == (volumes["molecules"] == 1)).all() and list(table["class_name"]) == ["tric"]
    assert volumes[""][volumes["classes"] == 3].mean() > volumes[""].mean() + volumes[""].std()


def test_copick_has_membranes_and_gold_as_segmented_objects(tmp_path: Path) -> None:
    run, references = cg.load_run(cg.pretrained("S1_physics")), class_references(("tric",), 24, 22.8)
    around = surroundings({"gold": 1, "vesicles": 1, "vesicle_radius_A": [200, 250]})
    order = Scenes({"tric": 1}, (48, 64, 64), volumes="copick", around=around, seed=1)
    list(generate_scenes(tmp_path, run, references, order, 22.8))
    objects = json.loads((tmp_path / "copick.json").read_text())["pickable_objects"]
    found = {o["name"]: (o["label"], o["is_particle"]) for o in objects}
    assert {k: found[k] for k in ("tric", "membrane", "gold")} == {
        "tric": (1, True), "membrane": (2, False), "gold": (3, False)
    }  # fmt: skip
    assert order.labels == {"tric": 1, "membrane": 2, "gold": 3}


def test_molecules_are_added_to_a_measured_background(tmp_path: Path) -> None:
    run, references = cg.load_run(cg.pretrained("S1_physics")), class_references(("ribosome",), 24, 22.8)
    background = 50 + 0.1 * np.random.default_rng(0).standard_normal((56, 70, 66)).astype(np.float32)
    order = Scenes({"ribosome": 1}, (48, 64, 64), protein="bright", seed=1)
    table, volumes = make_scene(run, references, order, 0, 22.8, background=background)
    _, other = make_scene(run, references, order, 0, 22.8, background=2 * background - 50)
    signal = 2 * volumes[""] - other[""] - 50  # both have the same part of the background
    part = volumes[""] - signal
    assert part.mean() == pytest.approx(50, abs=0.05) and part.std() == pytest.approx(0.1, abs=0.002)
    assert np.isin(part.round(3), background.round(3)).mean() > 0.9  # a part of it, as it was measured
    z, y, x = np.round(table[["z_A", "y_A", "x_A"]].to_numpy()[0] / 22.8).astype(int)
    there = (slice(max(z - 4, 0), z + 5), slice(max(y - 4, 0), y + 5), slice(max(x - 4, 0), x + 5))
    assert np.abs(signal[there]).mean() > 5 * np.abs(signal).mean()
    whole, x0 = run.scaling.x(torch.from_numpy(volumes["density"])).numpy(), float(run.scaling.x(torch.zeros(())))
    known = [recorded(run.G, whole, x0, 0, recording=r, noisy=False)[0] for r in range(8)]
    assert max(np.corrcoef(k.ravel(), signal.ravel())[0, 1] for k in known) > 0.99
    with pytest.raises(ValueError, match="expected a background at least as large"):
        make_scene(run, references, order, 0, 22.8, background=background[:40])
    with pytest.raises(ValueError, match="scaled as theirs"):
        make_scene(run, references, order, 0, 22.8, background=3 * background)
    with pytest.raises(ValueError, match="a measured background has one"):
        make_scene(run, references, Scenes({"ribosome": 1}, (48, 64, 64), halves=True), 0, 22.8, background=background)


def test_the_command_takes_surroundings_and_a_background(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cg.train(cg.simulate("ribosome, tric", 24, 24, 22.8), "ribosome, tric", tmp_path / "run", profile="smoke")
    background = 0.1 * np.random.default_rng(0).standard_normal((48, 64, 64)).astype(np.float32)
    for name, voxel in (("empty", 22.8), ("coarse", 30.0)):
        write_volume(tmp_path / f"{name}.mrc", background, voxel)
    told = ["scenes", str(tmp_path / "run"), str(tmp_path / "out"), "--counts", "tric=2", "--shape", "48 64 64"]
    around = ["--around", '{"gold": 1, "vesicles": 1, "vesicle_radius_A": [200, 250]}']
    assert command.main([*told, *around, "--background", str(tmp_path / "coarse.mrc")]) == 2
    assert "voxels of 30 A; expected the 22.8 A" in capsys.readouterr().err
    assert command.main([*told, *around, "--background", str(tmp_path / "empty.mrc")]) == 0
    assert set(np.unique(mrcfile.read(tmp_path / "out/tomograms/scene_0001_classes.mrc"))) == {0, 1, 2, 3}
    capsys.readouterr()
    mrcfile.write(tmp_path / "none.mrc", background, voxel_size=1.0)
    assert command.main([*told, "--background", str(tmp_path / "none.mrc")]) == 2
    assert "give the size behind its name: FILE@22.8" in capsys.readouterr().err
    np.save(tmp_path / "none.npy", background)
    assert command.main([*told, "--background", str(tmp_path / "none.npy")]) == 2
    assert "no reliable voxel size in this kind of file; give FILE@22.8" in capsys.readouterr().err
    elsewhere = [*told[:2], str(tmp_path / "other"), *told[3:]]
    assert command.main([*elsewhere, "--background", f"{tmp_path / 'none.npy'}@22.8"]) == 0
    capsys.readouterr()
    assert command.main([*told, "--around", "{gold}"]) == 2 and '{"gold": 5}' in capsys.readouterr().err
    assert command.main([*told, "--around", '{"vesicle": 1}']) == 2
    assert "vesicle is not known; expected some of planes, vesicles" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (dict(planes=-1), "planes is -1"),
        (dict(gold=1.5), "gold is 1.5; expected a whole number"),
        (dict(gold=5.0), "gold is 5.0; expected a whole number"),
        (dict(gold_diameter_A=float("nan")), "gold_diameter_A is nan"),
        (dict(vesicle_radius_A=[200]), "vesicle_radius_A is .*expected least and greatest"),
        (dict(in_membranes={"tric": 2.0}, tubes=1), "expected whole numbers from 1"),
        (dict(vesicles="three"), "vesicles is three; expected a whole number"),
        (dict(gold_diameter_A="wide"), "a value of a wrong kind"),
        (dict(vesicle_radius_A=[300, 200]), "vesicle_radius_A is 300 to 200"),
        (dict(tube_radius_A=[10, 20]), "expected a range from 50 A on"),
        (dict(gold_diameter_A=0), "gold_diameter_A is 0"),
        (dict(ice_tilt_deg=80), "ice_tilt_deg 80"),
        (dict(in_membranes={"tric": 1}), "tric in membranes, and there are none"),
        (dict(in_membranes={"tric": 0}, tubes=1), "expected whole numbers from 1"),
    ],
)
def test_surroundings_that_cannot_be_are_refused(told: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surroundings(told)


def test_what_finds_no_room_is_said(references) -> None:
    with pytest.raises(ValueError, match=r"room for \d+ of 40 vesicles"):
        draw(Surroundings(vesicles=40), SHAPE, VOXEL, rng())
    placed = draw(Surroundings(vesicles=1, in_membranes={"ribosome": 400}), SHAPE, VOXEL, rng())
    with pytest.raises(ValueError, match=r"room for \d+ of 400 molecules in membranes"):
        scene.place(references, {}, SHAPE, VOXEL, rng(), placed=placed)
    with pytest.raises(ValueError, match="A wide and the ice 50 A: make it thicker"):
        thin = draw(Surroundings(ice_A=50), SHAPE, VOXEL, rng())
        scene.place(references, {"ribosome": 1}, SHAPE, VOXEL, rng(), placed=thin)
