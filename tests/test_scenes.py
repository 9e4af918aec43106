"""Whole tomograms by a physics generator: no seams, the same look as its boxes, and labels that agree in every file."""

import json
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
import zarr

import cryoetgan_core as cg
from cryoetgan_core.evaluation.metrics import angular_log_ratio, angular_power_spectra
from cryoetgan_core.paper import clients, command
from cryoetgan_core.paper.own_runs import noise_of
from cryoetgan_core.particles.relion_writer import write_star
from cryoetgan_core.physics.any_size import mean_power, recorded, white
from cryoetgan_core.physics.fourier_grid import coordinates
from cryoetgan_core.reproducibility.files import claimed
from cryoetgan_core.scenes import Scenes, generate_scenes, make_scene
from cryoetgan_core.simulator.sets import class_references
from cryoetgan_core.volumes.poses import relion_angles_to_pose, rotate_volume

VOXEL = 22.8  # of the run
SHAPE = (48, 64, 80)


@pytest.fixture(scope="module")
def run():
    return cg.load_run(cg.pretrained("S1_physics"))


@pytest.fixture(scope="module")
def references():
    return class_references(("ribosome", "tric"), 24, VOXEL)


def empty(run, shape) -> tuple[np.ndarray, float]:
    value = float(run.scaling.x(torch.zeros(())))
    return np.full(shape, value, np.float32), value


def test_white_noise_of_a_voxel_is_the_same_whatever_is_asked_for() -> None:
    whole = white(np.array([-70, 0, 0]), np.array([70, 10, 10]), 3, "a")
    part = white(np.array([-3, 2, 4]), np.array([66, 9, 10]), 3, "a")
    assert torch.equal(part, whole[67:136, 2:9, 4:10])
    assert abs(float(whole.std()) - 1) < 0.02
    assert not torch.equal(whole, white(np.array([-70, 0, 0]), np.array([70, 10, 10]), 3, "b"))


def test_blocks_leave_no_seam(run) -> None:
    x, value = empty(run, SHAPE)
    x[20:28, 30:38, 36:44] += 5
    whole, parts = (recorded(run.G, x, value, 1, block=b) for b in ((192, 192, 192), (16, 24, 40)))
    assert np.abs(whole - parts).max() < 1e-4


def test_an_empty_scene_has_the_noise_of_the_boxes(run) -> None:
    x, value = empty(run, (72, 96, 96))
    made = recorded(run.G, x, value, 1)[0]
    cut = [made[z : z + 24, y : y + 24, k : k + 24] for z in (0, 24, 48) for y in range(0, 96, 24) for k in (0, 24, 48)]
    scene = angular_power_spectra(torch.from_numpy(np.stack(cut))).mean(0)
    one, other = (angular_power_spectra(cg.generate(run, torch.zeros(36, 24, 24, 24), seed=s)).mean(0) for s in (1, 2))
    assert angular_log_ratio(one, scene) < 1.3 * angular_log_ratio(one, other)


def test_a_molecule_in_a_scene_is_seen_as_in_a_box(run, references) -> None:
    """The scene with it less the scene without, against the noise-free subtomogram of its density."""
    (x, value), half = empty(run, SHAPE), 12
    box = rotate_volume(references["ribosome"], torch.eye(3)[None], torch.zeros(1, 3), VOXEL, box=24)
    there = tuple(slice(n // 2 - half, n // 2 + half) for n in SHAPE)
    with_it = x.copy()
    with_it[there] = run.scaling.x(box[0]).numpy()
    found = recorded(run.G, with_it, value, 1)[0] - recorded(run.G, x, value, 1)[0]
    drawn = run.G.sample_noise(run.scaling.x(box)[None])
    p, n = run.G.padded, run.G.box
    spectrum = run.G.signal_spectrum(run.scaling.x(box)[None], drawn)
    inner = slice(p // 2 - n // 2, p // 2 - n // 2 + n)
    wanted = torch.fft.irfftn(spectrum, s=(p,) * 3, dim=(-3, -2, -1))[0, inner, inner, inner].numpy()
    assert np.corrcoef(found[there].ravel(), wanted.ravel())[0, 1] > 0.99
    assert found[there].std() == pytest.approx(wanted.std(), rel=0.02)


def test_halves_are_two_recordings_of_half_of_the_dose(run, references) -> None:
    order = Scenes({"tric": 2}, SHAPE, halves=True, protein="bright")
    _, volumes = make_scene(run, references, order, 0, VOXEL)
    np.testing.assert_allclose((volumes["even"] + volumes["odd"]) / 2, volumes[""], atol=1e-5)
    assert np.corrcoef(volumes["even"].ravel(), volumes["odd"].ravel())[0, 1] < 0.2
    assert volumes["even"].std() / volumes[""].std() == pytest.approx(2**0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["mrc", "copick"])
def test_one_molecule_is_found_in_every_file(tmp_path: Path, run, references, kind: str) -> None:
    order = Scenes({"ribosome": 1}, SHAPE, crowders={"tric": 2}, volumes=kind, seed=4, halves=kind == "copick")
    assert list(generate_scenes(tmp_path, run, references, order, VOXEL)) == ["scene_0001"]
    (pick,) = pd.read_csv(tmp_path / "picks.csv").to_dict("records")
    place = np.array([pick[f"{a}_A"] for a in "zyx"]) / VOXEL
    if kind == "mrc":
        stem = tmp_path / "tomograms" / "scene_0001"
        classes, density, tomogram = (mrcfile.read(f"{stem}{tail}.mrc") for tail in ("_classes", "_density", ""))
        molecules = mrcfile.read(f"{stem}_molecules.mrc")
        assert set(np.unique(molecules)) == {0, 1} and ((molecules > 0) == (classes > 0)).all()
    else:
        folder = tmp_path / "ExperimentRuns" / "scene_0001"
        stores = {p.stem.rpartition("_")[2]: zarr.open(p)["0"][:] for p in folder.glob("Segmentations/*.zarr")}
        classes, density = stores["classes-multilabel"], stores["density"]
        tomogram = zarr.open(next(folder.glob("VoxelSpacing*/generated.zarr")))["0"][:]
        (point,) = json.loads(next(folder.glob("Picks/*ribosome.json")).read_text())["points"]
        np.testing.assert_allclose([point["location"][a] for a in "zyx"], place * VOXEL, atol=1e-3)
        assert point["instance_id"] == pick["molecule"] == 1
        found = cg.load_particles(tmp_path, box=24, protein="dark")  # of the tomogram, not of its halves
        assert list(found.table["class_name"]) == ["ribosome"]
    assert classes.shape == tomogram.shape == SHAPE and set(np.unique(classes)) == {0, 1}
    weight = np.where(classes, density, 0)
    others = ((1, 2), (0, 2), (0, 1))
    centre = [np.average(np.arange(n), weights=weight.sum(o)) for n, o in zip(SHAPE, others, strict=True)]
    np.testing.assert_allclose(centre, place, atol=1)
    (row,) = starfile.read(tmp_path / "picks.star", always_dict=True)["particles"].to_dict("records")
    centred = [row[f"rlnCenteredCoordinate{a}Angst"] for a in "ZYX"]
    np.testing.assert_allclose(np.array(centred) / VOXEL + np.array(SHAPE) / 2, place, atol=1e-3)
    assert (row["cryoetganTiltMin"], row["cryoetganTiltMax"]) == pytest.approx(run.G.tilt_range_deg, abs=1e-3)
    pose = relion_angles_to_pose(*torch.tensor([row[f"rlnAngle{a}"] for a in ("Rot", "Tilt", "Psi")]).double())[None]
    whole = np.round(place).astype(int)
    shift = torch.tensor((place - whole) * VOXEL)[None]
    turned = rotate_volume(references["ribosome"], pose, shift, VOXEL)[0].numpy()
    d = len(turned)
    there = tuple(slice(max(w - d // 2, 0), w - d // 2 + d) for w in whole)
    here = tuple(
        slice(max(d // 2 - w, 0), max(d // 2 - w, 0) + density[t].shape[k])
        for k, (w, t) in enumerate(zip(whole, [there] * 3, strict=True))
    )
    assert np.corrcoef(density[there].ravel(), turned[here].ravel())[0, 1] > 0.99


def test_a_stopped_job_goes_on_with_the_same_bytes(tmp_path: Path, run, references) -> None:
    order = Scenes({"ribosome": 2}, SHAPE, n=2)
    assert len(list(generate_scenes(tmp_path / "a", run, references, order, VOXEL))) == 2
    begun = generate_scenes(tmp_path / "b", run, references, order, VOXEL)
    next(begun)
    begun.close()
    assert not (tmp_path / "b" / "picks.csv").exists()
    assert list(generate_scenes(tmp_path / "b", run, references, order, VOXEL)) == ["scene_0002"]
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 13 and all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )
    with pytest.raises(ValueError, match=r"another order \(counts, seed\): choose"):
        list(generate_scenes(tmp_path / "b", run, references, Scenes({"ribosome": 3}, SHAPE, n=2, seed=1), VOXEL))


def test_processes_share_the_tomograms_of_an_order(tmp_path: Path, run, references) -> None:
    """One that is at work keeps others off its tomogram; whoever makes the last one writes the tables."""
    order = Scenes({"ribosome": 2, "tric": 1}, SHAPE, n=2, volumes="copick")
    (tmp_path / "tables").mkdir()
    with (
        claimed(tmp_path / "tables" / "scene_0001.csv") as ours,
        claimed(tmp_path / "tables" / "scene_0001.csv") as too,
    ):
        assert ours and not too
        assert list(generate_scenes(tmp_path, run, references, order, VOXEL)) == ["scene_0002"]
    assert not (tmp_path / "picks.csv").exists()
    assert list(generate_scenes(tmp_path, run, references, order, VOXEL)) == ["scene_0001"]
    assert len(pd.read_csv(tmp_path / "picks.csv")) == 6 and not list(tmp_path.rglob("*.lock"))


def test_the_number_of_a_molecule_is_that_of_its_pick(tmp_path: Path, run, references) -> None:
    """With crowders between them, which have no labels."""
    order = Scenes({"tric": 4}, SHAPE, crowders={"ribosome": 2}, seed=3)
    list(generate_scenes(tmp_path, run, references, order, VOXEL))
    molecules = mrcfile.read(tmp_path / "tomograms" / "scene_0001_molecules.mrc")
    for pick in pd.read_csv(tmp_path / "picks.csv").to_dict("records"):
        centre = np.argwhere(molecules == pick["molecule"]).mean(0) * VOXEL
        assert np.linalg.norm(centre - [pick[f"{a}_A"] for a in "zyx"]) < 2 * VOXEL
    table = pd.read_csv(tmp_path / "tables" / "scene_0001.csv")
    assert table["particle"].astype(int).tolist() == table["molecule"].tolist() == [1, 2, 3, 4]


def test_a_density_that_is_nothing_at_these_voxels_is_said(tmp_path: Path) -> None:
    """As where a header says 1 A in place of 13.68."""
    density = class_references(("tric",), 24, VOXEL)["tric"].numpy()
    mrcfile.write(tmp_path / "t.mrc", density, voxel_size=1.0)
    with pytest.raises(ValueError, match="too small for voxels of 22.8 A"), pytest.warns(UserWarning):
        class_references(("t",), 24, VOXEL, {"t": str(tmp_path / "t.mrc")})


def test_a_folder_of_something_else_is_left_alone_and_a_failed_order_leaves_nothing(
    tmp_path: Path, run, references
) -> None:
    order = Scenes({"ribosome": 1}, SHAPE)
    (tmp_path / "picks.csv").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        list(generate_scenes(tmp_path, run, references, order, VOXEL))
    assert (tmp_path / "picks.csv").read_text() == "mine"
    with pytest.raises(ValueError, match="picks.csv is a file"):
        list(generate_scenes(tmp_path / "picks.csv", run, references, order, VOXEL))
    with pytest.raises(ValueError, match="room for"):
        list(generate_scenes(tmp_path / "out", run, references, Scenes({"ribosome": 900}, SHAPE), VOXEL))
    assert list(generate_scenes(tmp_path / "out", run, references, order, VOXEL)) == ["scene_0001"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(shape=(7, 8, 8)), "three even sizes"),
        (dict(volumes="tiff"), "volumes is 'tiff'"),
        (dict(protein="grey"), "protein is 'grey'"),
        (dict(counts={"a_b": 1, "a-b": 1}, volumes="copick"), "'a-b' and 'a_b' both 'a-b'"),
        (dict(crowders={"tric": 1}), "tric is counted and a crowder too"),
        (dict(n=0), "n is 0; expected one tomogram"),
        (dict(counts={}), "counts is empty"),
    ],
)
def test_an_order_that_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(**dict(counts={"tric": 1}, shape=SHAPE) | changes)


def test_the_papers_generator_is_refused(references) -> None:
    with pytest.raises(ValueError, match="scenes need a physics run"):
        make_scene(cg.load_run(cg.pretrained("S1_adapted")), references, Scenes({"tric": 1}, SHAPE), 0, VOXEL)


@pytest.mark.filterwarnings("ignore::UserWarning")  # few particles, of one tomogram
def test_scenes_are_as_bright_as_the_tomograms_of_the_run(tmp_path: Path, run, references) -> None:
    order = Scenes({"tric": 60}, (72, 160, 160), protein="bright")
    list(generate_scenes(tmp_path / "own", run, references, order, VOXEL))
    told = dict(coordinates=tmp_path / "own" / "picks.csv", protein="bright")
    particles = cg.load_particles(tmp_path / "own" / "tomograms" / "scene_0001.mrc", 24, **told)
    cg.train(particles, "tric", tmp_path / "run", profile="smoke")
    for protein, sign in (("", 1), ("dark", -1)):
        out = tmp_path / f"out{protein}"
        cg.generate_tomograms(out, tmp_path / "run", {"tric": 12}, (48, 96, 96), protein=protein)
        volume, density = (mrcfile.read(out / "tomograms" / f"scene_0001{kind}.mrc") for kind in ("", "_density"))
        assert sign * np.corrcoef(volume.ravel(), density.ravel())[0, 1] > 0.03  # of noise: 0.002
    source = tmp_path / "run" / "source.json"
    source.write_text(json.dumps(json.loads(source.read_text()) | {"tomograms": {"beam_axis": "y"}}))
    with pytest.raises(ValueError, match="turn the background"):
        cg.generate_tomograms(tmp_path / "z", tmp_path / "run", {"tric": 1}, (48, 96, 96), background="a.mrc")


def test_the_command_and_the_call_write_the_same(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    particles = cg.simulate("ribosome, tric", 24, 24, VOXEL)
    cg.train(particles, "ribosome, tric", tmp_path / "run", profile="smoke")
    told = ["--counts", "tric=2", "--crowders", "ribosome=1", "--shape", "48 48 48", "--volumes", "mrc", "--seed", "5"]
    assert command.main(["scenes", str(tmp_path / "run"), str(tmp_path / "out"), *told]) == 0
    made = cg.generate_tomograms(
        tmp_path / "again", tmp_path / "run", {"tric": 2}, (48, 48, 48), crowders={"ribosome": 1}, seed=5
    )
    assert made.read_bytes() == (tmp_path / "out" / "picks.csv").read_bytes()
    volume = "tomograms/scene_0001.mrc"
    assert (tmp_path / "out" / volume).read_bytes() == (tmp_path / "again" / volume).read_bytes()
    found = cg.load_particles(tmp_path / "out" / volume, box=8, coordinates=tmp_path / "out" / "picks.csv")
    assert list(found.table["class_name"]) == ["tric"] * 2
    again = cg.load_particles(tmp_path / "out" / volume, box=8, coordinates=tmp_path / "out" / "picks.star")
    np.testing.assert_allclose(again.volumes, found.volumes)
    capsys.readouterr()
    assert command.main(["scenes", str(tmp_path / "run"), str(tmp_path / "out"), *told]) == 0
    assert "1 tomograms with labels and picks, 0 of them made now" in capsys.readouterr().out
    too_many = ["--counts", "tric=9999", "--shape", "48 48 48"]
    assert command.main(["scenes", str(tmp_path / "run"), str(tmp_path / "x"), *too_many]) == 2
    assert "room for" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "side"), [({"ribosome": 40, "tric": 60}, 24), ({"ribosome": 90, "tric": 130}, 16)])
def test_the_noise_of_a_scene_is_that_of_empty_boxes_where_there_are_any(tmp_path, counts, side) -> None:
    """In a crowded tomogram: the power of empty places, at the lowest frequencies too, where boxes with a molecule tell
    too much. Where no box is empty, smaller ones are.
    """
    shape = (64, 192, 192)
    cg.generate_tomograms(tmp_path / "mine", "S1", counts, shape, voxel_size_A=VOXEL, snr=0.05, halves=True, seed=1)
    mine = tmp_path / "mine" / "tomograms" / "scene_0001.mrc"
    particles = cg.load_particles(mine, box=24, coordinates=tmp_path / "mine" / "picks.csv")
    with pytest.warns(UserWarning):
        run = cg.train(particles, "ribosome, tric", tmp_path / "run")
    noise = noise_of(tmp_path / "run")
    assert len(noise) == side
    even, odd = (mrcfile.read(mine.with_name(f"scene_0001_{half}.mrc")) for half in ("even", "odd"))
    true = (even - odd) / 2 / run.scaling.y_std
    places = [(z, y, x) for z in (0, 40) for y in range(0, 168, 24) for x in range(0, 168, 24)]

    def low(power: torch.Tensor) -> torch.Tensor:
        return power[coordinates(len(power))[0] <= 0.146].mean()

    def at_places(volume: np.ndarray, n: int, places: list) -> torch.Tensor:
        cut = [volume[z : z + n, y : y + n, x : x + n] for z, y, x in places]
        return low(mean_power(torch.from_numpy(np.stack(cut))))

    told = float(low(noise) / at_places(true, side, places))
    estimated = float(low(run.G.noise_power) / at_places(true, 24, places))
    assert 0.6 < told < 1.5 < estimated
    made = cg.generate_tomograms(tmp_path / "out", tmp_path / "run", {"tric": 1}, (48, 96, 96), protein="bright")
    scene = mrcfile.read(made.parent / "tomograms" / "scene_0001.mrc") / run.scaling.y_std
    places = [(z, y, x) for z in (0, 24) for y in (0, 24, 48) for x in (0, 24, 48)]
    assert float(at_places(scene, side, places) / low(noise)) == pytest.approx(1, abs=0.3)


@pytest.mark.skipif(not shutil.which("relion_reconstruct"), reason="no RELION on this machine")
def test_relion_averages_what_lies_at_the_picks_to_the_molecule(tmp_path: Path, run, references) -> None:
    """Cut out of the specimen at the picks of two scenes, with the poses of picks.star."""
    order = Scenes({"ribosome": 40}, (64, 160, 160), n=2)
    list(generate_scenes(tmp_path, run, references, order, VOXEL))
    densities = f"{tmp_path}/tomograms/*_density.mrc"
    particles = cg.load_particles(densities, 24, coordinates=tmp_path / "picks.star", protein="bright")
    write_star(particles, tmp_path / "cut" / "particles.star", tmp_path / "cut" / "volumes")
    average = clients.reconstructed(tmp_path / "cut", "particles.star")
    wanted = rotate_volume(references["ribosome"], torch.eye(3)[None], torch.zeros(1, 3), VOXEL, box=24)[0].numpy()
    mirrored = np.roll(wanted[::-1], 1, axis=0)
    assert clients.correlation(average, wanted) > 0.99 and clients.correlation(average, mirrored) < 0.9


def test_a_part_of_a_runs_classes_and_more_tomograms_of_one_order(tmp_path: Path, references, capsys) -> None:
    """Of a run's files those that are not asked for may be gone."""
    for name in ("ribosome", "tric"):
        mrcfile.write(tmp_path / f"{name}.mrc", references[name].numpy(), voxel_size=VOXEL)
    densities = ", ".join(f"{name}={tmp_path / name}.mrc" for name in ("ribosome", "tric"))
    run = tmp_path / "run"
    cg.train(cg.simulate(densities, 24, 24, VOXEL, snr=0.3), densities, run, profile="smoke")
    (tmp_path / "ribosome.mrc").unlink()
    order = ["scenes", str(run), str(tmp_path / "out"), "--counts", "tric=1", "--shape", "48 48 48"]
    assert command.main(order) == 0
    first = (tmp_path / "out" / "tomograms" / "scene_0001.mrc").read_bytes()
    capsys.readouterr()
    assert command.main([*order, "--n", "2"]) == 0 and "1 of them made now" in capsys.readouterr().out
    assert (tmp_path / "out" / "tomograms" / "scene_0001.mrc").read_bytes() == first
    assert command.main(order) == 2 and "another order (n; it holds 2)" in capsys.readouterr().err
    card = tmp_path / "out" / "scenes.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"background": "0"}))
    assert command.main([*order, "--n", "2"]) == 2 and "another order (background)" in capsys.readouterr().err
    assert command.main(["scenes", "s1", *order[2:]]) == 2 and "one of S1, S2, modern" in capsys.readouterr().err
    told = ["scenes", "S1", str(tmp_path / "t"), "--counts", "tric=1 uM"]
    assert command.main(told) == 2 and "give --voxel-size-A" in capsys.readouterr().err
