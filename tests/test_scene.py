"""Slabs, their tilt series and tomograms: against positions read back, an independent back-projection, and files."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import torch

import cryoetgan_core as cg
from cryoetgan_core.paper import command
from cryoetgan_core.particles.relion_series import tilt_series
from cryoetgan_core.particles.relion_tables import read_star
from cryoetgan_core.particles.tilt_files import read_tilts
from cryoetgan_core.particles.tilt_series_writer import write_project
from cryoetgan_core.simulator import scene
from cryoetgan_core.simulator.microscope.back_projection import back_project
from cryoetgan_core.simulator.microscope.simulate import MICROSCOPES, Microscope
from cryoetgan_core.simulator.sets import class_references

VOXEL, SHAPE = 20.0, (32, 64, 80)
SCOPE = Microscope(-48, 60, 6.0, defocus_spread_um=0.0)


@pytest.fixture(scope="module")
def references() -> dict[str, torch.Tensor]:
    return class_references(("ribosome", "tric"), 24, VOXEL)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_images_show_molecules_where_relion_projects_them(references: dict, tmp_path: Path) -> None:
    """The matrices are read back from the files, and composed as RELION 5 does."""
    one = scene.place({"tric": references["tric"]}, {"tric": 1}, SHAPE, VOXEL, rng(3))
    one[["z_A", "y_A", "x_A"]] = [22 * VOXEL, 40 * VOXEL, 55 * VOXEL]
    one[["centred_z_A", "centred_y_A", "centred_x_A"]] = [6 * VOXEL, 8 * VOXEL, 15 * VOXEL]
    plain = Microscope(-48, 60, 6.0, defocus_um=0.5, defocus_spread_um=0.0, amplitude_contrast=1.0, b_factor_A2=0.0)
    series = scene.tilt_series(references, one, SHAPE, VOXEL, plain, rng(), snr=1e6)
    write_project(tmp_path, "TS_1", series, one, SHAPE[0])
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
    density, classes, molecules = scene.specimen(references, table, SHAPE, VOXEL)
    write_project(tmp_path, "TS_1", series, table, SHAPE[0], {"classes": classes, "molecules": molecules})
    stack = tmp_path / "tilt_series" / "TS_1.mrc"
    assert mrcfile.validate(stack)
    with mrcfile.open(stack) as opened:
        assert opened.is_image_stack() and opened.voxel_size.x == pytest.approx(VOXEL)
        images = opened.data.copy()
    tilts = np.loadtxt(stack.with_suffix(".tlt"))
    theirs = -independent(images, tilts, SHAPE[0])  # protein is dark in the images
    mine = -mrcfile.read(tmp_path / "tomograms" / "TS_1.mrc")
    assert np.corrcoef(theirs.ravel(), mine.ravel())[0, 1] > 0.95
    for volume in (theirs, mine):
        inside = volume[molecules > 0].mean() - volume[molecules == 0].mean()
        mirrored = volume[molecules[::-1] > 0].mean() - volume[molecules[::-1] == 0].mean()
        assert inside > 3 * abs(mirrored)
    labels = mrcfile.read(tmp_path / "tomograms" / "TS_1_molecules.mrc")
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
    write_project(tmp_path, "TS_1", series, table, SHAPE[0])
    rows = starfile.read(tmp_path / "tilt_series" / "TS_1.star")
    assert rows["rlnDefocusU"].to_numpy() == pytest.approx(1e4 * series.defocus_um, rel=1e-6)
    first = rows.loc[rows["rlnMicrographPreExposure"].idxmin(), "rlnTomoYTilt"]
    assert abs(first) == rows["rlnTomoYTilt"].abs().min()  # dose-symmetric: the least tilted one first
    glob = starfile.read(tmp_path / "tomograms.star")
    assert (glob["rlnTomoSizeX"], glob["rlnTomoSizeY"], glob["rlnTomoSizeZ"]) != () and glob["rlnVoltage"] is not None
    particles = starfile.read(tmp_path / "particles.star")["particles"]
    back = particles[[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy(float)
    centre = np.array(SHAPE[::-1]) / 2 * VOXEL
    assert back + centre == pytest.approx(table[["x_A", "y_A", "z_A"]].to_numpy(), abs=1e-3)
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_project(tmp_path, "TS_1", series, table, SHAPE[0])


def test_one_command_writes_a_tomogram_that_this_package_reads(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = str(tmp_path / "slab")
    order = ["tomogram", folder, "--counts", "tric=4", "--shape", "32 96 96", "--voxel-size-A", "15", "--snr", "2"]
    assert command.main(order) == 0 and "4 molecules" in capsys.readouterr().out
    assert command.main(order) == 2 and "choose another folder" in capsys.readouterr().err
    tomogram = f"{folder}/tomograms/TS_1.mrc"
    read = cg.load_particles(tomogram, 20, coordinates=f"{folder}/particles.star")
    assert list(read.table["class_name"]) == ["tric"] * len(read) and read.table["tilt_min_deg"].min() == -50
    reference = class_references(("tric",), 20, 15.0)
    mean = read.volumes.mean(0)
    ball = np.linalg.norm(np.indices(mean.shape) - 10, axis=0)
    radius = scene.radius_A(reference["tric"], 15.0) / 15.0
    assert mean[ball < radius].mean() > mean[ball > radius + 2].mean()  # bright, in the middle of the box


@pytest.mark.parametrize("counts", ["tric", "tric=0", "tric=x", ""])
def test_counts_that_are_none_are_refused(counts: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert command.main(["tomogram", str(tmp_path / "t"), "--counts", counts]) == 2
    assert "Parameter 'counts'" in capsys.readouterr().err and not (tmp_path / "t").exists()


def test_a_membrane_is_not_placed() -> None:
    with pytest.raises(ValueError, match="membrane is no molecule to count"):
        cg.simulate_tomogram("unused", {"membrane": 1}, (32, 64, 64), 15.0)
