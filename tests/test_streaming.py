"""Generation by the million: the same files whichever machine makes which part, after a kill too; what is written is
read again with its poses; a card says what made it.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import xml.etree.ElementTree
from pathlib import Path

import h5py
import mrcfile
import nbformat
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
import zarr
from common import ROOT
from scipy.spatial.transform import Rotation

from cryoetgan_core.config import make_config
from cryoetgan_core.generation import generate, load_run
from cryoetgan_core.paper import api, own_data
from cryoetgan_core.paper.stand_ins import labelled_stand_in
from cryoetgan_core.particles.coordinates import read_coordinates
from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.particles.writers import FORMATS, tomogram_name
from cryoetgan_core.reproducibility.files import temporary
from cryoetgan_core.reproducibility.seeds import stream
from cryoetgan_core.run_folder import train
from cryoetgan_core.simulator.microscope.simulate import MICROSCOPES
from cryoetgan_core.simulator.sets import MAX_SHIFT, class_references, densities_of, density_maps, subtomograms
from cryoetgan_core.streaming import Order, generate_to, missing_parts, particles_of
from cryoetgan_core.training import Trainer
from cryoetgan_core.volumes.table import particle_centres

VOXEL_A, BOX = 15.0, 24
MARGIN = 3  # voxels round a box in a mosaic: as far as a particle may be shifted, and one
SHARES = {"tric": 2.0, "ribosome": 1.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    references = class_references(tuple(SHARES), BOX, VOXEL_A)
    config = make_config("smoke", "own", "adapted", steps=2, box=BOX)
    y = subtomograms(references, 4, BOX, VOXEL_A, MICROSCOPES["S1"], stream(0, "y"), snr=0.3)
    x = density_maps(references, 4, BOX, VOXEL_A, stream(0, "x"))
    train(Trainer(config, torch.from_numpy(x.volumes), torch.from_numpy(y.volumes)), folder, progress=False)
    return folder, load_run(folder), references


def make(folder, trained, order, **kind):
    return list(generate_to(folder, trained[0], trained[1], trained[2], order, VOXEL_A, **kind))


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.parametrize("kind", ["mrc", "hdf5", "zarr"])
def test_what_is_written_is_read_again(tmp_path, trained, kind):
    order = Order(7, SHARES, seed=3, part=3, channels=("mask", "density"), volumes=kind)
    assert make(tmp_path, trained, order) == [0, 1, 2]
    table = pd.concat([particles_of(order, k, BOX, VOXEL_A) for k in range(3)], ignore_index=True)
    density = densities_of(table, trained[2], BOX, VOXEL_A)
    run = trained[1]
    wanted = (generate(run, density, seed=3) * run.scaling.y_std + run.scaling.y_mean).numpy()
    angles = ["rot_deg", "tilt_deg", "psi_deg"]
    stars = ("particles.star", "particles_relion5.star")
    if kind != "mrc":  # RELION takes NUMBER@FILE for a section
        assert not any((tmp_path / name).exists() for name in stars)
    for name in ("particles.csv", *(stars if kind == "mrc" else ())):
        found = load_particles(tmp_path / name)
        np.testing.assert_array_equal(found.volumes, wanted)
        np.testing.assert_allclose(found.table[angles], table[angles], atol=1e-4)
        np.testing.assert_allclose(
            found.table[["shift_x_A", "shift_z_A"]], table[["shift_x_A", "shift_z_A"]], atol=1e-4
        )
        assert found.table["class_name"].tolist() == table[
            "class_name"
        ].tolist() and found.voxel_size_A == pytest.approx(VOXEL_A)
        assert found.table["particle"].tolist() == table["particle"].tolist() and set(found.table["tomogram"]) == {
            "generated-1"
        }
    np.testing.assert_allclose(read_coordinates(tmp_path / "particles.tbl", VOXEL_A)[angles], table[angles], atol=1e-4)
    csv = pd.read_csv(tmp_path / "particles.csv")
    np.testing.assert_allclose(csv[angles], table[angles], atol=1e-8)
    if kind == "mrc":
        block = starfile.read(tmp_path / "particles.star")["particles"]
        assert len(block) == 7 and block["rlnAngleRot"].to_numpy() == pytest.approx(
            table["rot_deg"].to_numpy(), abs=1e-4
        )
        for name, label in zip(csv["file"].str.rpartition("/")[2], table["class_name"], strict=True):
            number = {"ribosome": 1, "tric": 2}[label]
            assert re.search(r"id(\d[a-zA-Z0-9]{3})", name)[1] == f"{number:04d}" and label in name  # TomoTwin's rule
        for channel, values in {"density": density, "mask": density > 0.3}.items():
            files = [tmp_path / f for f in csv[f"{channel}_file"][3:6]]
            np.testing.assert_array_equal([mrcfile.read(f) for f in files], values[3:6])
    if kind == "zarr":
        np.testing.assert_array_equal(zarr.open_array(tmp_path / "volumes" / "particles.zarr", mode="r")[:], wanted)


@pytest.mark.parametrize("kind", ["mrc", "hdf5", "zarr", "copick", "deepfinder"])
def test_shards_make_the_same_files(tmp_path, trained, kind):
    order = Order(7, SHARES, seed=1, part=2, volumes=kind, channels=("mask",) if kind == "deepfinder" else ())
    make(tmp_path / "one", trained, order)
    for shard in (2, 0, 1):
        make(tmp_path / "three", trained, order, shard=shard, shards=3)
    for folder in ("one", "three"):
        (tmp_path / folder / "copick.json").unlink(missing_ok=(kind != "copick"))  # says where the project lies
    assert hashes(tmp_path / "one") == hashes(tmp_path / "three")
    assert "particles.csv" in hashes(tmp_path / "one")


def test_a_copick_project_comes_out_and_goes_in(tmp_path, trained):
    order = Order(7, SHARES, seed=3, part=5, channels=("mask",), volumes="copick")
    for shard in (1, 0):
        make(tmp_path, trained, order, shard=shard, shards=2)
    make(tmp_path / "x", trained, dataclasses.replace(order, volumes="mrc"))
    wanted = load_particles(tmp_path / "x" / "particles.star")
    table = pd.read_csv(tmp_path / "particles.csv")
    mosaic = zarr.open_array(
        tmp_path / "ExperimentRuns/generated-000001/VoxelSpacing15.000/generated.zarr/0", mode="r"
    )[:]
    wide = BOX + 2 * MARGIN
    assert mosaic.shape == (2 * wide, 2 * wide, 2 * wide)  # five particles in cells of 2 x 2 x 2
    mask = zarr.open_array(
        tmp_path / "ExperimentRuns/generated-000001/Segmentations/15.000_cryoetgan_1_mask-multilabel.zarr/0", mode="r"
    )[:]
    corner = np.full((5, 3), MARGIN)
    corner[[1, 3], 2] = corner[[2, 3], 1] = corner[4, 0] = wide + MARGIN
    for (z, y, x), volume, name in zip(corner, wanted.volumes[:5], table["class_name"][:5], strict=True):
        np.testing.assert_array_equal(-mosaic[z : z + BOX, y : y + BOX, x : x + BOX], volume)  # dark, as tomograms are
        assert np.unique(mask[z : z + BOX, y : y + BOX, x : x + BOX]).tolist() == [0, {"ribosome": 1, "tric": 2}[name]]
    assert (mask[wide:, wide:] == 0).all() and (mask[:MARGIN] == 0).all()  # where no particle is
    for store in (tmp_path / "ExperimentRuns/generated-000001").glob("*/*.zarr"):
        assert (store / "0/0/0/0").is_file()  # OME-Zarr 0.4: copick finds no other chunk, and sees zeros
    block = starfile.read(tmp_path / "particles.star")["particles"]
    assert (
        block["rlnTomoName"].tolist()
        == table["run_name"].tolist()
        == ["generated-000001"] * 5 + ["generated-000002"] * 2
    )
    matrices = table[[f"transform_{i}{j}" for i in range(3) for j in range(3)]].to_numpy().reshape(-1, 3, 3)
    star_angles = block[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
    relion = Rotation.from_euler("ZYZ", star_angles, degrees=True).inv().as_matrix()
    np.testing.assert_allclose(matrices, relion, atol=1e-6)  # copick's matrices are RELION's rotation
    angles, places = ["rot_deg", "tilt_deg", "psi_deg"], ["x_A", "y_A", "z_A"]
    shifts = ["shift_x_A", "shift_y_A", "shift_z_A"]
    np.testing.assert_allclose(table[places][:5], (corner[:, ::-1] + BOX // 2) * VOXEL_A)
    np.testing.assert_allclose(table[angles + shifts], wanted.table[angles + shifts], atol=1e-4)
    centres = table[places].to_numpy() + table[shifts].to_numpy()
    order_of = np.lexsort((centres[:, 0], table["tomogram"]))
    for path in (tmp_path, tmp_path / "copick.json"):
        found = load_particles(path, box=BOX, edge="refuse")
        assert found.table.attrs["read_with"]["protein"] == "dark"
        at = particle_centres(found.table)
        ours = np.lexsort((at[:, 0], found.table["tomogram"]))
        np.testing.assert_allclose(at[ours], centres[order_of], atol=1e-4)
        np.testing.assert_allclose(found.table[angles].iloc[ours], table[angles].iloc[order_of], atol=1e-4)
        assert found.table["class_name"].iloc[ours].tolist() == table["class_name"].iloc[order_of].tolist()
    for name in ("particles.star", "particles.tbl", "particles.csv"):
        coordinates = read_coordinates(tmp_path / name, VOXEL_A)
        np.testing.assert_allclose(coordinates[places], centres, atol=1e-3)
        np.testing.assert_allclose(coordinates[angles], table[angles], atol=1e-4)


def test_a_particle_far_off_its_centre_is_whole_in_a_mosaic(tmp_path, trained):
    """A run's folder notes that its particles lie off; a box round each pick is read from the copick project."""
    folder = shutil.copytree(trained[0], tmp_path / "run")
    (folder / "source.json").write_text('{"voxel_size_A": 10.0}')
    with pytest.raises(ValueError, match=f"voxels of {VOXEL_A:g} A; the run was trained on 10 A"):
        make(tmp_path / "x", (folder, *trained[1:]), Order(2, SHARES))
    (folder / "source.json").write_text('{"picks": {"scatter_A": 30.0, "offset_zyx_A": [75.0, 0.0, -60.0]}}')
    order = Order(6, SHARES, seed=2, part=4, volumes="copick")
    list(generate_to(tmp_path / "out", folder, trained[1], trained[2], order, VOXEL_A))
    table = pd.read_csv(tmp_path / "out" / "particles.csv")
    assert table["shift_z_A"].mean() == pytest.approx(75, abs=40) and table["shift_x_A"].mean() < -20
    assert len(load_particles(tmp_path / "out", box=BOX, edge="refuse")) == 6


def test_deepfinder_finds_its_label_map(tmp_path, trained):
    """Read as DeepFinder's own code does: dataset "dataset", axes zyx, positions of the object list as indices."""
    make(tmp_path, trained, Order(5, SHARES, seed=3, part=3, channels=("mask",), volumes="deepfinder"))
    data, target = (
        [h5py.File(f)["dataset"][:] for f in sorted((tmp_path / "tomograms").glob(p))]
        for p in ("*[0-9].h5", "*_mask.h5")
    )
    assert len(data) == len(target) == 2 and target[0].dtype == np.int8 and data[0].shape == target[0].shape
    objects = list(xml.etree.ElementTree.parse(tmp_path / "particles.xml").getroot())
    assert len(objects) == 5
    for found in objects:
        volume = target[int(found.get("tomo_idx"))]
        z, y, x = (round(float(found.get(a))) for a in "zyx")
        near = volume[tuple(slice(c - 8, c + 8) for c in (z, y, x))]
        assert np.unique(near).tolist() == [0, int(found.get("class_label"))] and (near > 0).mean() > 0.1


def test_a_project_of_another_origin_is_left_alone(tmp_path, trained):
    (tmp_path / "ExperimentRuns" / "TS_1").mkdir(parents=True)
    with pytest.raises(ValueError, match="is not empty, and holds no particles"):
        make(tmp_path, trained, Order(2, SHARES, volumes="copick"))
    order = Order(2, SHARES, volumes="copick")
    make(tmp_path / "ours", trained, order)
    (tmp_path / "ours" / "ExperimentRuns" / "TS_1").mkdir()
    make(tmp_path / "ours", trained, dataclasses.replace(order, seed=1), replace=True)
    assert (tmp_path / "ours" / "ExperimentRuns" / "TS_1").exists()


def test_files_of_the_user_are_not_written_over(tmp_path, trained):
    (tmp_path / "particles.star").write_text("mine")
    for replace in (False, True):
        with pytest.raises(ValueError, match="is not empty, and holds no particles"):
            make(tmp_path, trained, Order(2, SHARES), replace=replace)
    assert [p.name for p in tmp_path.iterdir()] == ["particles.star"]
    assert (tmp_path / "particles.star").read_text() == "mine"


def test_a_particle_does_not_depend_on_how_many_are_made(tmp_path, trained):
    few, many = (Order(n, SHARES, seed=1, part=4) for n in (4, 8))
    make(tmp_path / "few", trained, few)
    make(tmp_path / "many", trained, many)
    assert hashes(tmp_path / "few/volumes/000000") == hashes(tmp_path / "many/volumes/000000")
    other = particles_of(dataclasses.replace(many, part=3), 1, BOX, VOXEL_A)
    assert other["particle"].tolist() == ["000000003", "000000004", "000000005"]
    assert other["rot_deg"][0] == particles_of(many, 0, BOX, VOXEL_A)["rot_deg"][3]


@pytest.mark.parametrize(("kind", "shown"), [("mrc", "dark"), ("copick", "bright")])
def test_protein_is_dark_or_bright_as_asked(tmp_path: Path, trained: tuple, kind: str, shown: str) -> None:
    """The other way round than by default; the channels stay."""
    both, other = [], {"dark": "bright", "bright": "dark"}[shown]
    for protein in ("", shown):
        folder = tmp_path / f"protein {protein}"
        make(folder, trained, Order(4, SHARES, part=4, channels=("density",), volumes=kind, protein=protein))
        source, box = (folder / "particles.csv", None) if kind == "mrc" else (folder, BOX)
        both.append(load_particles(source, box, protein=protein or other))
    np.testing.assert_array_equal(*(particles.volumes for particles in both))
    if kind == "mrc":
        name = pd.read_csv(source)["density_file"][0]
        np.testing.assert_array_equal(*(mrcfile.read(tmp_path / f"protein {p}" / name) for p in ("", shown)))


def test_shares_and_preferred_orientation_are_kept():
    order = Order(600, {"a": 3, "b": 1}, seed=0, part=600, tilt_deg=(60, 90))
    table = particles_of(order, 0, BOX, VOXEL_A)
    assert table["class_name"].value_counts()["a"] == pytest.approx(450, abs=40)
    assert table["tilt_deg"].between(60, 90).all()
    shifts = table[["shift_z_A", "shift_y_A", "shift_x_A"]].abs().max()
    assert shifts.between(0.9 * MAX_SHIFT * BOX * VOXEL_A, MAX_SHIFT * BOX * VOXEL_A).all()
    uniform = particles_of(dataclasses.replace(order, tilt_deg=(0, 180)), 0, BOX, VOXEL_A)
    assert np.cos(np.deg2rad(uniform["tilt_deg"])).mean() == pytest.approx(0, abs=0.08)
    assert uniform["tilt_deg"].max() > 150


def test_another_order_does_not_mix_in(tmp_path, trained):
    order = Order(4, SHARES, part=2)
    make(tmp_path, trained, order, shard=0, shards=2)
    assert missing_parts(tmp_path, order) == [1] and not (tmp_path / "particles.star").exists()
    before = hashes(tmp_path)
    with pytest.raises(ValueError, match="another order.*other seed, part; prov"):
        make(tmp_path, trained, dataclasses.replace(order, seed=1, part=1))
    with pytest.raises(ValueError, match="no density for dust"):
        make(tmp_path / "x", trained, Order(4, {"dust": 1}))
    with pytest.raises(ValueError, match="shard 2 of 2"):
        make(tmp_path / "x", trained, order, shard=2, shards=2)
    assert hashes(tmp_path) == before
    anew, mine = dataclasses.replace(order, seed=1), tmp_path / "particles_of_mine.txt"
    mine.touch()
    make(tmp_path, trained, anew, replace=True)
    mine.unlink()  # was not taken for one of ours
    make(tmp_path / "y", trained, anew)
    assert {k: v for k, v in hashes(tmp_path).items() if not k.startswith("y/")} == hashes(tmp_path / "y")
    card = json.loads((tmp_path / "provenance.json").read_text())
    assert card["weights_sha256"] == hashlib.sha256((trained[0] / "weights.safetensors").read_bytes()).hexdigest()
    assert card["order"]["shares"] == SHARES and set(card["references_sha256"]) == set(SHARES)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(n=0),
        dict(shares={}),
        dict(shares={"a": 0.0}),
        dict(shares={"../a": 1.0}),
        dict(shares={"a  b": 1.0}),
        dict(shares={"a\nb": 1.0}),
        dict(shares={'a "b"': 1.0}),
        dict(shares={" a": 1.0}),
        dict(shares={"a_b": 1.0, "a b": 1.0}, volumes="copick"),
        dict(tilt_deg=(90, 60)),
        dict(volumes="xyz"),
        dict(volumes="deepfinder"),
        dict(channels=("fog",)),
        dict(protein="grey"),
        dict(part=0),
    ],
    ids=str,
)
def test_an_order_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="Order: |Class names "):
        Order(**({"n": 4, "shares": {"a": 1.0}} | wrong))


@pytest.mark.parametrize("kind", ["mrc", "copick"])
def test_a_class_may_have_spaces_in_its_name(tmp_path, trained, kind):
    names = {"tric": "CCT TRiC", "ribosome": "80S ribosome"}
    references = {names[k]: v for k, v in trained[2].items()}
    order = Order(4, {names[k]: v for k, v in SHARES.items()}, seed=3, volumes=kind)
    list(generate_to(tmp_path, trained[0], trained[1], references, order, VOXEL_A))
    wanted = particles_of(order, 0, BOX, VOXEL_A)["class_name"].tolist()
    assert set(wanted) == set(names.values())
    for path in tmp_path.glob("particles*.star"):
        assert starfile.read(path)["particles"]["cryoetganClassName"].tolist() == wanted
        rows = [line for line in path.read_text().splitlines() if "ribosome" in line]
        assert len(rows) == wanted.count("80S ribosome") and all(line.count('"80S ribosome"') == 1 for line in rows)
    assert pd.read_csv(tmp_path / "particles.csv")["class_name"].tolist() == wanted
    project = dict(box=BOX, protein="bright", tomogram_kind="generated") if kind == "copick" else {}
    found = load_particles(tmp_path if kind == "copick" else tmp_path / "particles.star", **project).table["class_name"]
    assert sorted(found) == sorted(w.replace(" ", "-") if kind == "copick" else w for w in wanted)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(densities="a/b=pdb:3j9i"), "Class names"),
        (dict(n_generate=0), "Order: 0 particles"),
        (dict(densities="dust"), "'dust'"),
    ],
    ids=str,
)
def test_what_cannot_be_generated_is_refused_before_training(tmp_path, wrong, message):
    """The notebook stops in its first cell, before it makes a folder, reads particles or trains."""
    cells = nbformat.read(ROOT / "notebooks" / "your_data.ipynb", as_version=4).cells
    parameters, first = [c.source for c in cells if c.cell_type == "code"][:2]
    namespace = {}
    exec(parameters, namespace)
    namespace |= {"output": str(tmp_path / "out")} | wrong
    with pytest.raises(ValueError, match=message):
        exec(first, namespace)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_part_that_lost_a_file_or_a_piece_of_one_is_made_again(tmp_path, trained, kind):
    order = Order(5, SHARES, seed=1, part=2, channels=("mask",), volumes=kind)
    make(tmp_path, trained, order)
    whole = hashes(tmp_path)
    of_second = [n for n in whole if "/000001" in n or tomogram_name(1) in n or "/c/1/" in n]
    # its table, the list of its files, and volumes and masks
    assert len(of_second) >= (3 if kind == "deepfinder" else 4)
    for name in of_second:
        path = tmp_path / name
        path.unlink()
        assert missing_parts(tmp_path, order) == [1], name
        assert make(tmp_path, trained, order) == [1] and hashes(tmp_path) == whole
        if name == of_second[0] or name == of_second[-1]:
            path.write_bytes(path.read_bytes()[:-1])
            assert missing_parts(tmp_path, order) == [1], name
            assert make(tmp_path, trained, order) == [1] and hashes(tmp_path) == whole
    assert make(tmp_path, trained, order) == []


def test_what_died_while_it_wrote_leaves_nothing_behind(tmp_path, trained):
    order = Order(4, SHARES, seed=1, part=2, volumes="zarr")
    make(tmp_path, trained, order, shard=0, shards=2)
    before = [
        temporary(tmp_path / "parts" / "000001.csv"),
        temporary(tmp_path / "volumes" / "particles.zarr") / "zarr.json",
    ]
    table = temporary(tmp_path / "particles.csv")
    for path in (*before, table):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    os.utime(table, (0, 0))
    young = temporary(tmp_path / "particles.star")  # somebody else's, at work
    young.touch()
    make(tmp_path, trained, order)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob(".*")] == [young.name]


def test_a_card_that_is_damaged_is_named(tmp_path, trained):
    order = Order(2, SHARES, part=2)
    make(tmp_path, trained, order)
    (tmp_path / "provenance.json").write_text('{"order": ')
    with pytest.raises(ValueError, match="provenance.json is damaged.*: choose an empty folder"):
        make(tmp_path, trained, order)


def made_like(folder: Path, table: pd.DataFrame, n: int, **options: object) -> None:
    """A folder of n particles of a run that is estimated from labelled ones with this table."""
    particles = dataclasses.replace(labelled_stand_in(len(table), 0), table=table)
    config = make_config("smoke", "own", "physics", box=24, **options)
    run = api.train_domains(
        config, own_data.domains(particles, "ribosome, tric", config), folder / "run", "ribosome, tric"
    )
    references = class_references(("ribosome", "tric"), 24, particles.voxel_size_A)
    order = Order(n, {"ribosome": 1.0, "tric": 1.0}, part=5)
    list(generate_to(folder / "out", folder / "run", run, references, order, particles.voxel_size_A))


def test_each_particle_carries_the_wedge_of_its_recording(tmp_path: Path) -> None:
    """Particles of two tilt ranges: what is generated has one or the other, and its weight is that of its own."""
    table = labelled_stand_in(24, 0).table
    lowest = np.where(np.arange(len(table)) % 2, -40.0, -60.0)
    made_like(tmp_path, table.assign(tilt_min_deg=lowest, tilt_max_deg=50.0), 12)
    blocks = starfile.read(tmp_path / "out" / "particles.star")
    assert float(blocks["optics"]["rlnAmplitudeContrast"].iloc[0]) == 0.07  # as the particles' own files told
    rows = blocks["particles"]
    made = load_particles(tmp_path / "out" / "particles.csv")
    assert set(made.table["tilt_min_deg"]) == {-40, -60}
    for volume, weight, low in zip(made.volumes, rows["rlnCtfImage"], made.table["tilt_min_deg"], strict=True):
        assert weight.endswith(f"wedge_{low:.1f}_50.0.mrc")
        held = mrcfile.read(tmp_path / "out" / weight) > 0.5
        power = np.abs(np.fft.rfftn(volume - volume.mean())) ** 2
        assert power[~held].mean() < 0.2 * power[held].mean()
    dynamo = np.loadtxt(tmp_path / "out" / "particles.tbl")  # ftype 1: one tilt axis, y; least and greatest tilt
    np.testing.assert_allclose(dynamo[:, 12:15], [[1, low, 50] for low in made.table["tilt_min_deg"]])
    again = load_particles(tmp_path / "out" / "particles.star").table
    np.testing.assert_allclose(again["tilt_min_deg"], made.table["tilt_min_deg"])


def test_each_particle_carries_its_defocus_and_dose(tmp_path: Path) -> None:
    """With the CTF formula: that of the training particle whose recording it imitates."""
    table = labelled_stand_in(24, 0).table
    defoci = np.where(np.arange(len(table)) % 2, 2.5, 3.5)
    told = dict(voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.07, dose_e_A2=100.0)
    made_like(
        tmp_path, table.assign(tilt_min_deg=-60.0, tilt_max_deg=60.0, defocus_um=defoci, **told), 8, transfer="ctf"
    )
    rows = starfile.read(tmp_path / "out" / "particles_relion5.star")["particles"]
    assert set(rows["rlnDefocusU"]) == set(rows["rlnDefocusV"]) == {25000, 35000}
    assert set(rows["cryoetganDose"]) == {100} and set(rows["cryoetganTiltMax"]) == {60}
