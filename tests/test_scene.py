"""Slabs, their tilt series and tomograms: against positions read back, an independent back-projection, and files."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from common import rng

import cryoetgan_core as cg
from cryoetgan_core.paper import command
from cryoetgan_core.particles.relion_series import tilt_series
from cryoetgan_core.particles.relion_tables import read_star
from cryoetgan_core.particles.tilt_files import read_tilts
from cryoetgan_core.particles.tilt_series_writer import write_project, write_series, write_volume
from cryoetgan_core.simulator import scene
from cryoetgan_core.simulator.microscope.back_projection import back_project
from cryoetgan_core.simulator.microscope.simulate import MICROSCOPES, Microscope
from cryoetgan_core.simulator.sets import class_references

VOXEL, SHAPE = 20.0, (32, 64, 80)
SCOPE = Microscope(-48, 60, 6.0, defocus_spread_um=0.0)


@pytest.fixture(scope="module")
def references() -> dict[str, torch.Tensor]:
    return class_references(("ribosome", "tric"), 24, VOXEL)


@pytest.fixture(scope="module")
def table(references: dict) -> object:
    return scene.place(references, {"ribosome": 3, "tric": 4}, SHAPE, VOXEL, rng())


def blurred(images: np.ndarray) -> np.ndarray:
    """What a weak optics leaves: the images' bright side, for centres of mass."""
    return np.clip(images, 0, None)


def test_molecules_lie_apart_and_inside(references: dict) -> None:
    found = scene.place(references, {"ribosome": 12, "tric": 20}, (40, 120, 120), VOXEL, rng(1))
    places = found[["z_A", "y_A", "x_A"]].to_numpy()
    radius = {name: scene.radius_A(r, VOXEL) for name, r in references.items()}
    radii = found["class_name"].map(radius).to_numpy()
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + 1e9 * np.eye(len(places))
    assert (apart >= 0.9 * (radii[:, None] + radii) - 1e-6).all()
    assert (places >= radii[:, None]).all() and (places <= np.array([40, 120, 120]) * VOXEL - radii[:, None]).all()
    assert found["class_name"].value_counts().to_dict() == {"tric": 20, "ribosome": 12}


@pytest.mark.parametrize(
    ("counts", "shape", "message"),
    [
        ({"ribosome": 500}, (40, 64, 64), r"room for \d+ of 500 ribosome"),
        ({"ribosome": 1}, (8, 64, 64), "ribosome is .* A wide"),
        ({"p97": 1}, (40, 64, 64), "no density of p97"),
        ({"tric": 1}, (41, 64, 64), "three even sizes"),
    ],
)
def test_what_cannot_be_placed_is_said(references: dict, counts: dict, shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scene.place(references, counts, shape, VOXEL, rng())


def test_labels_and_density_agree_with_the_picks(references: dict, table: object) -> None:
    density, classes, molecules = scene.specimen(references, table, SHAPE, VOXEL)
    assert set(np.unique(molecules)) == set(range(len(table) + 1)) and set(np.unique(classes)) == {0, 1, 2}
    for i, row in enumerate(table.itertuples()):
        voxels = np.argwhere(molecules == i + 1)
        weights = density[tuple(voxels.T)]
        centre = (voxels * weights[:, None]).sum(0) / weights.sum() * VOXEL
        assert np.linalg.norm(centre - [row.z_A, row.y_A, row.x_A]) < 1.0 * VOXEL
        assert set(classes[molecules == i + 1]) == {sorted(references).index(row.class_name) + 1}


def written(folder: Path, series: scene.TiltSeries, table: object) -> None:
    write_series(folder, "TS_1", series)
    write_project(folder, ["TS_1"], series.microscope, SHAPE, table.assign(tomogram="TS_1"), VOXEL)


def test_images_show_molecules_where_relion_projects_them(references: dict, tmp_path: Path) -> None:
    """The matrices are read back from the files, and composed as RELION 5 does."""
    one = scene.place({"tric": references["tric"]}, {"tric": 1}, SHAPE, VOXEL, rng(3))
    one[["z_A", "y_A", "x_A"]] = [22 * VOXEL, 40 * VOXEL, 55 * VOXEL]
    one[["centred_z_A", "centred_y_A", "centred_x_A"]] = [6 * VOXEL, 8 * VOXEL, 15 * VOXEL]
    plain = Microscope(-48, 60, 6.0, defocus_um=0.5, defocus_spread_um=0.0, amplitude_contrast=1.0, b_factor_A2=0.0)
    series = scene.tilt_series(references, one, SHAPE, VOXEL, plain, rng(), snr=1e6)
    written(tmp_path, series, one)
    _, matrices = tilt_series(read_star(tmp_path / "tomograms.star"), "TS_1", tmp_path / "tomograms.star")
    particles = starfile.read(tmp_path / "particles.star")["particles"]
    centred = particles[[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy(float)[0]
    grid = np.indices(SHAPE[1:])
    for image, matrix in zip(mrcfile.read(tmp_path / "tilt_series" / "TS_1.mrc"), matrices, strict=True):
        bright = blurred(-image - 0.3 * (-image).max())
        found = (grid * bright).sum((1, 2)) / bright.sum()
        x, y, _ = matrix @ centred / VOXEL
        assert found == pytest.approx([y + SHAPE[1] / 2, x + SHAPE[2] / 2], abs=0.6)


def test_the_tomogram_equals_the_fourier_reconstruction(references: dict) -> None:
    """On a cube, where both can be had; the Fourier one saturates its ramp, hence not exactly."""
    table = scene.place(references, {"ribosome": 2}, (48, 48, 48), VOXEL, rng(4))
    series = scene.tilt_series(references, table, (48, 48, 48), VOXEL, SCOPE, rng(), snr=1e6)
    mine = scene.tomogram(series.images, series.angles_deg, 48)
    theirs = back_project(torch.from_numpy(series.images)[:, None], SCOPE.angles_deg, 48)[0].numpy()
    inner = (slice(8, 40),) * 3
    assert np.corrcoef(mine[inner].ravel(), theirs[inner].ravel())[0, 1] > 0.9
    assert np.corrcoef(mine[::-1][inner].ravel(), theirs[inner].ravel())[0, 1] < 0.2  # the other hand
    parts = scene.tomogram(series.images, series.angles_deg, 48, rows=7)
    assert np.allclose(parts, mine, atol=1e-6)


def independent(images: np.ndarray, tilts_deg: np.ndarray, depth: int) -> np.ndarray:
    """Filtered back-projection by numpy, written from the files' convention alone: x cos + z sin."""
    t, height, width = images.shape
    lines = np.fft.ifft(np.fft.fft(images, axis=2) * np.abs(np.fft.fftfreq(width)), axis=2).real
    z, x = np.mgrid[:depth, :width] - np.array([depth // 2, width // 2])[:, None, None]
    out = np.zeros((depth, height, width))
    for line, tilt in zip(lines, np.radians(tilts_deg), strict=True):
        u = x * np.cos(tilt) + z * np.sin(tilt) + width // 2
        for row in range(height):
            out[:, row] += np.interp(u, np.arange(width), line[row], left=0, right=0)
    return out * np.pi / t


def test_a_user_reconstructs_the_files_and_finds_the_molecules(references: dict, table: object, tmp_path: Path) -> None:
    series = scene.tilt_series(references, table, SHAPE, VOXEL, SCOPE, rng(), snr=5.0)
    _, _, molecules = scene.specimen(references, table, SHAPE, VOXEL)
    written(tmp_path, series, table)
    stack = tmp_path / "tilt_series" / "TS_1.mrc"
    assert mrcfile.validate(stack)
    with mrcfile.open(stack) as opened:
        assert opened.is_image_stack() and opened.voxel_size.x == pytest.approx(VOXEL)
        images = opened.data.copy()
    tilts = np.loadtxt(stack.with_suffix(".tlt"))
    theirs = -independent(images, tilts, SHAPE[0])  # protein is dark in the images
    mine = -scene.tomogram(series.images, series.angles_deg, SHAPE[0])
    assert np.corrcoef(theirs.ravel(), mine.ravel())[0, 1] > 0.95
    for volume in (theirs, mine):
        inside = volume[molecules > 0].mean() - volume[molecules == 0].mean()
        mirrored = volume[molecules[::-1] > 0].mean() - volume[molecules[::-1] == 0].mean()
        assert inside > 3 * abs(mirrored)
    write_volume(tmp_path / "molecules.mrc", molecules, VOXEL)
    labels = mrcfile.read(tmp_path / "molecules.mrc")
    assert np.array_equal(labels, molecules) and labels.dtype == np.int16
    for suffix in (".rawtlt", ".mdoc"):
        assert sorted(read_tilts(stack.with_suffix(suffix))) == pytest.approx(sorted(tilts), abs=0.01)


def test_halves_share_the_signal_and_not_the_noise(references: dict, table: object) -> None:
    _, _, molecules = scene.specimen(references, table, SHAPE, VOXEL)
    agree = {}
    for snr in (0.05, 1.0):
        series = scene.tilt_series(references, table, SHAPE, VOXEL, SCOPE, rng(), snr=snr)
        even, odd = scene.halves(series, SHAPE[0])
        for where, voxels in (("inside", molecules > 0), ("outside", molecules == 0)):
            agree[snr, where] = np.corrcoef(even[voxels], odd[voxels])[0, 1]
    assert agree[1.0, "inside"] > 0.7 and abs(agree[0.05, "outside"]) < 0.05
    with pytest.raises(ValueError, match="snr is 0"):
        scene.tilt_series(references, table.iloc[:0], SHAPE, VOXEL, SCOPE, rng(), snr=0)


def test_the_star_files_hold_what_was_recorded(references: dict, table: object, tmp_path: Path) -> None:
    series = scene.tilt_series(references, table, SHAPE, VOXEL, MICROSCOPES["modern"], rng(), snr=None)
    written(tmp_path, series, table)
    rows = starfile.read(tmp_path / "tilt_series" / "TS_1.star")
    assert rows["rlnDefocusU"].to_numpy() == pytest.approx(1e4 * series.defocus_um, rel=1e-6)
    first = rows.loc[rows["rlnMicrographPreExposure"].idxmin(), "rlnTomoYTilt"]
    assert abs(first) == rows["rlnTomoYTilt"].abs().min()  # dose-symmetric: the least tilted one first
    glob = starfile.read(tmp_path / "tomograms.star")
    assert [int(np.squeeze(glob[f"rlnTomoSize{a}"])) for a in "ZYX"] == list(SHAPE)
    with pytest.raises(ValueError, match="places in tomograms, and no extracted particles"):
        cg.load_particles(tmp_path / "particles.star")
    particles = starfile.read(tmp_path / "particles.star")["particles"]
    back = particles[[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy(float)
    centre = np.array(SHAPE[::-1]) / 2 * VOXEL
    assert back + centre == pytest.approx(table[["x_A", "y_A", "z_A"]].to_numpy(), abs=1e-3)


def test_one_command_writes_simulated_tomograms_that_this_package_reads(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "slabs"
    order = ["scenes", "S1", str(folder), "--counts", "tric=4", "--crowders", "ribosome=1", "--shape", "32 96 96"]
    order += ["--voxel-size-A", "15", "--snr", "2", "--n", "2", "--halves"]
    assert command.main(order) == 0 and "2 tomograms with labels and picks" in capsys.readouterr().out
    before = (folder / "tomograms" / "scene_0002.mrc").read_bytes()
    (folder / "tables" / "scene_0002.csv").unlink()  # as if it had been stopped there
    assert command.main(order) == 0 and "1 of them made now" in capsys.readouterr().out
    assert (folder / "tomograms" / "scene_0002.mrc").read_bytes() == before
    assert command.main([*order, "--seed", "1"]) == 2 and "another order (seed)" in capsys.readouterr().err
    tomograms = [str(folder / "tomograms" / f"scene_000{k}.mrc") for k in (1, 2)]
    read = cg.load_particles(tomograms, 20, coordinates=folder / "particles.star")
    assert set(read.table["class_name"]) == {"tric"} and set(read.table["tomogram"]) == {"scene_0001", "scene_0002"}
    assert read.table["tilt_min_deg"].min() == -50
    reference = class_references(("tric",), 20, 15.0)
    mean = read.volumes.mean(0)
    ball = np.linalg.norm(np.indices(mean.shape) - 10, axis=0)
    radius = scene.radius_A(reference["tric"], 15.0) / 15.0
    assert mean[ball < radius].mean() > mean[ball > radius + 2].mean()  # bright, in the middle of the box
    glob = starfile.read(folder / "tomograms.star")
    for name, file, series in zip(
        glob["rlnTomoName"], glob["rlnTomoReconstructedTomogram"], glob["rlnTomoTiltSeriesStarFile"], strict=True
    ):
        even, odd = (mrcfile.read(folder / "tomograms" / f"{name}_{half}.mrc") for half in ("even", "odd"))
        assert mrcfile.read(folder / file).shape == even.shape == odd.shape == (32, 96, 96)
        assert len(starfile.read(folder / series)) == len(mrcfile.read(folder / "tilt_series" / f"{name}.mrc"))
    copick = ["scenes", "modern", str(tmp_path / "copick"), "--counts", "tric=1", "--shape", "32 64 64"]
    assert command.main([*copick, "--voxel-size-A", "15", "--volumes", "copick"]) == 0
    assert "rlnTomoReconstructedTomogram" not in (tmp_path / "copick" / "tomograms.star").read_text()
    assert cg.load_particles(tmp_path / "copick", 8).table["class_name"].tolist() == ["tric"]


@pytest.mark.parametrize(
    ("source", "told", "message"),
    [
        (str(cg.pretrained("S1_physics")), ["--voxel-size-A", "15"], "leave out --voxel-size-A and snr"),
        ("S1", [], "give --voxel-size-A"),
        ("S1", ["--voxel-size-A", "15", "--background", "empty.mrc"], "it is for runs"),
        ("S1", ["--voxel-size-A", "15", "--snr", "-1"], "snr is -1.0; expected a positive ratio"),
    ],
)
def test_what_a_source_of_scenes_lacks_or_has_is_said(source, told, message, capsys, tmp_path: Path) -> None:
    order = ["scenes", source, str(tmp_path / "t"), "--counts", "tric=1", "--shape", "32 64 64", *told]
    assert command.main(order) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.rglob("*.mrc"))


def test_a_membrane_is_not_placed() -> None:
    with pytest.raises(ValueError, match="no molecules to count"):
        cg.generate_tomograms("unused", "S1", {"membrane": 1}, (32, 64, 64), voxel_size_A=15.0)
