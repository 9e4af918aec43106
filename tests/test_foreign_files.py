"""Files as other programs write them: the right value, or what was taken is said. Each was once read wrongly in
silence, or refused wrongly.
"""

import logging
from pathlib import Path

import emfile
import h5py
import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy.spatial.transform import Rotation

from cryoetgan_core.particles.coordinates import in_tomogram, read_coordinates
from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.particles.picked import background
from cryoetgan_core.particles.relion_series import tilt_ranges, tilt_series
from cryoetgan_core.particles.relion_tables import read_star
from cryoetgan_core.particles.relion_writer import write_star
from cryoetgan_core.particles.tilt_files import read_tilts
from cryoetgan_core.physics.fourier_grid import wedge
from cryoetgan_core.simulator.sets import class_references, density_maps, poses_of
from cryoetgan_core.simulator.specimen import rotate_volume
from cryoetgan_core.simulator.specimen.atoms import read_atoms
from cryoetgan_core.volumes.maps import read_map

IMOD = 1146047817
SHAPE, SPOT = (12, 14, 16), (5, 8, 9)  # zyx


def tomogram(value: float = 40.0, kind: type = np.float32) -> np.ndarray:
    data = np.random.default_rng(0).normal(size=SHAPE)
    data[SPOT] = value
    return data.astype(kind)


def write(path: Path, data: np.ndarray, voxel: float = 10.0, **words: float) -> Path:
    """An MRC file, with header words (i20: the integer at byte 20) changed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mrcfile.write(path, data, voxel_size=voxel, overwrite=True)
    raw = bytearray(path.read_bytes())
    for name, value in words.items():
        kind = {"i": "<i4", "f": "<f4"}[name[0]]
        raw[int(name[1:]) : int(name[1:]) + 4] = np.array(value, kind).tobytes()
    path.write_bytes(raw)
    return path


def star(path: Path, *blocks: tuple) -> Path:
    """Blocks (name, columns, rows) as loops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ""
    for name, columns, rows in blocks:
        text += f"\ndata_{name}\n\nloop_\n" + "".join(f"_{c}\n" for c in columns)
        text += "".join(" ".join(str(v) for v in row) + "\n" for row in rows)
    path.write_text(text)
    return path


def centre(particles) -> np.ndarray:
    middle = particles.volumes.shape[-1] // 2
    return np.asarray(particles.volumes)[:, middle, middle, middle]


# bytes of MRC
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ({"i152": IMOD, "i156": 0}, 200.0),  # IMOD's stamp, its flag says unsigned
        ({"i152": IMOD, "i156": 1}, -56.0),
        ({"f76": 90.0, "f80": 200.0, "i152": 0}, 200.0),  # no stamp, the header's maximum
        ({"f76": -56.0, "f80": 110.0, "i152": 0}, -56.0),
    ],
)
def test_whether_bytes_are_signed(tmp_path: Path, words: dict, found: float) -> None:
    data = np.full(SHAPE, 100, np.uint8)
    data[SPOT] = 200
    volume, _ = read_map(write(tmp_path / "a.mrc", data.view(np.int8), **words))
    assert volume[SPOT] == found


def test_labels_that_imod_stored_as_signed_bytes(tmp_path: Path) -> None:
    labels = np.full(SHAPE, -128, np.int8)
    labels[4:7, 7:10, 8:11] = -125  # label 3
    write(tmp_path / "labels.mrc", labels, i152=IMOD, i156=1)
    path = write(tmp_path / "t.mrc", tomogram())
    particles = load_particles(path, labels_path=tmp_path / "labels.mrc", box=4, protein="bright")
    assert list(particles.table["class_name"]) == ["3"] and centre(particles)[0] == 40


def test_an_extended_header_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrc", tomogram(), i92=1536)
    with pytest.warns(UserWarning, match="1536 bytes is not there"):
        volume, _ = read_map(path)
    assert volume[SPOT] == 40


def test_a_map_without_its_sampling(tmp_path: Path) -> None:
    assert read_map(write(tmp_path / "a.mrc", tomogram(), i28=0, i32=0, i36=0))[1] == pytest.approx(10)


def test_a_big_endian_map(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrc", tomogram())
    raw = path.read_bytes()
    head = bytearray(np.frombuffer(raw[:1024], "<i4").astype(">i4").tobytes())
    head[212:214] = b"\x11\x11"
    path.write_bytes(bytes(head) + np.frombuffer(raw[1024:], "<f4").astype(">f4").tobytes())
    assert read_map(path)[0][SPOT] == 40


# STAR files
COORDINATES = ("rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")


def test_positions_of_another_binning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "TS_1.mrc", tomogram())
    x, y, z = SPOT[::-1]
    binned = star(
        tmp_path / "p.star", ("", (*COORDINATES, "rlnDetectorPixelSize"), [("TS_1", 2 * x, 2 * y, 2 * z, 5.0)])
    )
    assert centre(load_particles(path, box=4, coordinates=binned, protein="bright")) == [40]
    old = star(  # RELION 3.0: micrometers at the detector
        tmp_path / "old.star",
        ("", (*COORDINATES, "rlnDetectorPixelSize", "rlnMagnification"), [("TS_1", 2 * x, 2 * y, 2 * z, 5.0, 10000)]),
    )
    assert centre(load_particles(path, box=4, coordinates=old, protein="bright")) == [40]
    assert not caplog.records
    unsaid = star(tmp_path / "unsaid.star", ("", COORDINATES, [("TS_1", x, y, z)]))
    assert centre(load_particles(path, box=4, coordinates=unsaid, protein="bright")) == [40]
    assert "positions read as voxels of 10 A" in caplog.text


def test_positions_of_two_optics_groups(tmp_path: Path) -> None:
    optics = ("optics", ("rlnOpticsGroup", "rlnTomoTiltSeriesPixelSize"), [(1, 5.0), (2, 2.5)])
    rows = [("TS_1", 10, 10, 10, 1), ("TS_1", 10, 10, 10, 2)]
    path = star(tmp_path / "p.star", optics, ("particles", (*COORDINATES, "rlnOpticsGroup"), rows))
    assert list(read_coordinates(path, 10.0)["x_A"]) == [50, 25]


def test_picks_that_miss_the_tomogram(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "TS_1.mrc", tomogram())
    (tmp_path / "p.csv").write_text("x,y,z\n9,8,5\n9,8,0\n")
    assert len(load_particles(path, box=4, coordinates=tmp_path / "p.csv")) == 1
    assert "1 of 2 cubes leave the tomogram and are left out" in caplog.text
    (tmp_path / "p.csv").write_text("x,y,z\n9,8,5\n90,80,50\n95,80,50\n")
    with pytest.raises(ValueError, match="2 of 3 positions lie outside the tomogram"):
        load_particles(path, box=4, coordinates=tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("tomograms", "wanted", "chosen"),
    [
        (("002",), "001.mrc", "none of these is the tomogram"),
        (("TS_1",), "TS_10.mrc", "none of these is the tomogram"),
        (("TS_1_2", "TS_1_3"), "TS_1.mrc", "could all be the tomogram"),
        (("Position_1", "Position_1_2", "Position_1_3"), "Position_1.mrc", "Position_1"),
        (("TS_1", "TS_1_2"), "TS_1_2_10.00Apx.mrc", "TS_1_2"),
        (("TS_1.mrc.tomostar",), "TS_1_10.00Apx.mrc", "TS_1.mrc.tomostar"),
        (("001", "002"), "001.mrc", "001"),
    ],
)
def test_picks_of_the_right_tomogram(tmp_path: Path, tomograms: tuple, wanted: str, chosen: str) -> None:
    (tmp_path / "p.csv").write_text("tomogram,x_A,y_A,z_A\n" + "".join(f"{t},1,2,3\n" for t in tomograms))
    picks = read_coordinates(tmp_path / "p.csv", 10.0)
    if chosen in tomograms:
        assert list(in_tomogram(picks, wanted, tmp_path / "p.csv")["tomogram"]) == [chosen]
    else:
        with pytest.raises(ValueError, match=chosen):
            in_tomogram(picks, wanted, tmp_path / "p.csv")


def test_an_empty_shift_is_none_and_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x_A,y_A,z_A,shift_x_A,shift_y_A,shift_z_A\n1,2,3,4,0,0\n1,2,3,,0,0\n")
    assert list(read_coordinates(tmp_path / "p.csv", 10.0)["x_A"]) == [5, 1]


def test_a_dynamo_table_with_complex_scores(tmp_path: Path) -> None:
    words = ["1"] * 35
    words[9], words[23:26] = "0.5+0.001i", ["10", "9", "6"]
    (tmp_path / "t.tbl").write_text(" ".join(words) + "\n")
    assert read_coordinates(tmp_path / "t.tbl", 10.0)[["x_A", "y_A", "z_A"]].to_numpy().tolist() == [[100, 90, 60]]


@pytest.mark.parametrize("endian", "<>")
def test_a_motive_list_of_either_byte_order(tmp_path: Path, endian: str) -> None:
    """Poses against cryoCAT's conversion: ZXZ of (phi, theta, psi), as ZYZ, its outer angles with the other sign."""
    row = np.zeros(20)
    row[3], row[7:10], row[16:19] = 7, (10, 9, 6), (25, 40, 70)  # phi, psi, theta
    head = bytearray(512)
    head[0], head[3], head[4:16] = 6 if endian == "<" else 5, 5, np.array([20, 1, 1], endian + "i4").tobytes()
    (tmp_path / "m.em").write_bytes(bytes(head) + row.astype(endian + "f4").tobytes())
    table = read_coordinates(tmp_path / "m.em", 10.0)
    assert table[["x_A", "y_A", "z_A"]].to_numpy().tolist() == [[90, 80, 50]]
    turn = Rotation.from_euler("ZXZ", [25, 70, 40], degrees=True).as_euler("ZYZ", degrees=True)
    ours = Rotation.from_euler("ZYZ", table[["rot_deg", "tilt_deg", "psi_deg"]].to_numpy()[0], degrees=True)
    theirs = Rotation.from_euler("ZYZ", [-turn[0], turn[1], -turn[2]], degrees=True)
    assert (ours.inv() * theirs).magnitude() < 1e-6


def test_an_em_map_as_density_needs_its_voxel_size(tmp_path: Path) -> None:
    blob = np.exp(-((np.indices((16, 16, 16)) - 8) ** 2).sum(0) / 8).astype(np.float32)
    emfile.write(tmp_path / "m.em", blob)
    with pytest.raises(ValueError, match="holds no voxel size; write it behind the name"):
        class_references(("blob",), 16, 10.0, {"blob": str(tmp_path / "m.em")})
    found = class_references(("blob",), 16, 10.0, {"blob": f"{tmp_path / 'm.em'}@10"})["blob"]
    middle = tuple(s // 2 for s in found.shape)
    assert found[middle] == found.max() > 0


# RELION's projects
def volumes(folder: Path, n: int = 2) -> list[str]:
    names = [f"sub/{i}.mrc" for i in range(n)]
    for i, name in enumerate(names):
        write(folder / name, np.random.default_rng(i).normal(size=(8,) * 3).astype(np.float32))
    return names


def test_subtomograms_of_relion_3_0(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = (*COORDINATES[1:], "rlnMicrographName", "rlnImageName", "rlnMagnification", "rlnDetectorPixelSize")
    rows = [(10, 20, 30, "TS_1.tomostar", name, 10000.0, 12.0) for name in volumes(tmp_path)]
    particles = load_particles(star(tmp_path / "p.star", ("", columns, rows)))
    assert particles.voxel_size_A == 12 and list(particles.table["x_A"]) == [120, 120]
    assert "no optics table; voxels of 12 A" in caplog.text
    assert "voxels are taken to measure 12 A; the header of" in caplog.text


def test_a_pixel_size_that_contradicts_the_binning(tmp_path: Path) -> None:
    columns = ("rlnOpticsGroup", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality")
    columns += ("rlnTomoTiltSeriesPixelSize", "rlnTomoSubtomogramBinning")
    rows = [("TS_1", 1, 2, 3, name, 1) for name in volumes(tmp_path)]
    particles = ("particles", (*COORDINATES, "rlnImageName", "rlnOpticsGroup"), rows)
    path = star(tmp_path / "p.star", ("optics", columns, [(1, 10.0, 8, 3, 10.0, 4.0)]), particles)
    with pytest.warns(UserWarning, match="is not rlnTomoTiltSeriesPixelSize 10 times"):
        load_particles(path)


def test_matrices_of_relion_5_are_those_that_it_composes(tmp_path: Path) -> None:
    """Rz Ry Rx, written out; and the same tilts given to WarpTools' form give the same tilt range."""
    turns = ("rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst")
    rows = [(2.0, t, 85.0, 10, -5) for t in (-41.0, 0.0, 63.0)]
    star(tmp_path / "tilt_series" / "TS_1.star", ("TS_1", turns, rows))
    names = ("rlnTomoName", "rlnTomoTiltSeriesStarFile")
    path = star(tmp_path / "tomograms.star", ("global", names, [("TS_1", "tilt_series/TS_1.star")]))
    _, matrices = tilt_series(read_star(path), "TS_1", path)
    for matrix, (x, y, z, *_) in zip(matrices, rows, strict=True):
        one = [Rotation.from_rotvec(np.radians(a) * np.eye(3)[k]).as_matrix() for k, a in enumerate((x, y, z))]
        np.testing.assert_allclose(matrix, one[2] @ one[1] @ one[0], atol=1e-12)


def test_subtomograms_take_the_tilts_of_their_tomogram(tmp_path: Path) -> None:
    optics = (
        "optics",
        ("rlnOpticsGroup", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"),
        [(1, 10, 8, 3)],
    )
    rows = [(t, name, 1) for t, name in zip(("TS_1", "TS_2"), volumes(tmp_path), strict=True)]
    particles = ("particles", ("rlnTomoName", "rlnImageName", "rlnOpticsGroup"), rows)
    path = star(tmp_path / "particles.star", optics, particles)
    series = []
    for name, tilts in {"TS_1": (-46.0, 76.0), "TS_2": (-54.0, 60.0)}.items():
        columns = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ")
        turned = [Rotation.from_euler("y", t, degrees=True).as_matrix() for t in tilts]
        series.append((name, columns, [[f"[{','.join(map(str, row))},0]" for row in m] for m in turned]))
    star(tmp_path / "tomograms.star", *series)
    table = load_particles(path).table
    # the slice of tilt t runs along x cos t + z sin t: its angle as `fourier_grid` counts it is -t
    np.testing.assert_allclose(table["tilt_min_deg"], [-76, -60], atol=1e-6)
    np.testing.assert_allclose(table["tilt_max_deg"], [46, 54], atol=1e-6)


# hand
@pytest.mark.parametrize("box", [24, 25])
def test_tomograms_of_the_other_hand_are_mirrored_with_their_poses_and_tilts(tmp_path: Path, box: int) -> None:
    """A mirrored particle is the mirrored molecule in the mirrored pose."""
    reference = class_references(("ribosome",), box, 15.0)["ribosome"]
    made = density_maps({"ribosome": reference}, 3, box, 15.0, torch.Generator().manual_seed(1))
    made.table["tilt_min_deg"], made.table["tilt_max_deg"] = -50.0, 70.0
    write_star(made, tmp_path / "p.star", tmp_path / "volumes")
    found = load_particles(tmp_path / "p.star", mirror_z=True)
    assert (found.table[["tilt_min_deg", "tilt_max_deg"]] == [-70, 50]).all(axis=None)
    n = len(reference)
    other = torch.roll(reference.flip(0), 1 - n % 2, 0)  # about the centre n // 2
    for molecule, alike in ((other, True), (reference, False)):
        wanted = rotate_volume(molecule, *poses_of(found.table), 15.0, box=box).numpy()
        for volume, expected in zip(found.volumes, wanted, strict=True):
            assert (np.corrcoef(volume.ravel(), expected.ravel())[0, 1] > 0.999) == alike
    assert found.table.attrs["read_with"]["mirror_z"]
    assert background(found, found.table.attrs["read_with"], ["a"]) is None


def test_the_hand_of_a_project_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    star(tmp_path / "TS_1.star", ("TS_1", ("rlnTomoYTilt", "rlnTomoZRot"), [(-40.0, 85.0), (60.0, 85.0)]))
    names = ("rlnTomoName", "rlnTomoTiltSeriesStarFile", "rlnTomoHand")
    path = star(tmp_path / "tomograms.star", ("global", names, [("TS_1", "TS_1.star", -1)]))
    tilt_ranges(path, pd.Series(["TS_1"]))
    assert "rlnTomoHand -1 tells how the defocus changes" in caplog.text


def test_a_project_of_subtomograms_is_told_as_bright(tmp_path: Path) -> None:
    """Its volumes are no tomogram's, though a box may be asked for."""
    made = density_maps(class_references(("tric",), 24, 15.0), 2, 24, 15.0, torch.Generator().manual_seed(1))
    write_star(made, tmp_path / "particles.star", tmp_path / "volumes")
    assert load_particles(tmp_path, 24).table.attrs["read_with"]["protein"] == "bright"


# names that go up a folder
def test_names_go_up_a_folder_within_the_project_and_never_out_of_it(tmp_path: Path) -> None:
    made = density_maps(class_references(("tric",), 24, 15.0), 2, 24, 15.0, torch.Generator().manual_seed(1))
    write_star(made, tmp_path / "project" / "particles.star", tmp_path / "project" / "volumes")
    path = tmp_path / "project" / "tables" / "particles.star"
    path.parent.mkdir()
    text = (tmp_path / "project" / "particles.star").read_text()
    path.write_text(text.replace("volumes/", "../volumes/"))
    with pytest.raises(ValueError, match=r"leads out of the file's folder; .*\(project_root\)"):
        load_particles(path)
    found = load_particles(path, project_root=tmp_path / "project")
    np.testing.assert_array_equal(found.volumes[0], made.volumes[0])
    assert len(load_particles(path, 24, project_root=tmp_path / "project")) == 2
    path.write_text(text)  # named from the root
    assert len(load_particles(path, project_root=tmp_path / "project")) == 2
    (tmp_path / "project" / "default_pipeline.star").touch()  # RELION's own project needs no word
    path.write_text(text.replace("volumes/", "../volumes/"))
    assert len(load_particles(path)) == 2
    write_star(made, tmp_path / "elsewhere.star", tmp_path / "volumes")
    path.write_text(text.replace("volumes/", "../../volumes/"))
    with pytest.raises(ValueError, match="leads out"):
        load_particles(path, project_root=tmp_path / "project")
    with pytest.raises(ValueError, match="lies outside of"):
        load_particles(path, project_root=tmp_path / "volumes")


# tilts beside tomograms
MDOC = "PixelSpacing = 2.1\n[T = TiltAxisAngle = -175.8\n\n" + "".join(
    f"[ZValue = {k}]\nTiltAngle = {t} \nChannelName = \nXedgeDxyVS = 0.1 0.2 9\nExposureTime = 4.6\n\n"
    for k, t in enumerate((0.0, 3.0, -3.0))
)


WARP = """<?xml version="1.0" encoding="utf-16"?>
<TiltSeries AreAnglesInverted="True" PlaneNormal="">
  <Angles>0
3
-3
57</Angles>
  <Dose>0
3
6
9</Dose>
  <UseTilt>True
True
True
False</UseTilt>
</TiltSeries>
""".replace(' encoding="utf-16"', "")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("TS_1.tlt", "-3.0\n0.0\n3.0\n"),
        ("TS_1.rawtlt", " -3\n 0\n 3\n\n"),
        ("TS_1.mrc.mdoc", MDOC),
        ("TS_1.mdoc", MDOC),
        ("TS_1.xml", WARP),
    ],
)
def test_tilts_beside_a_tomogram(tmp_path: Path, file: str, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "TS_10.tlt").write_text("-60\n60\n")  # of another tomogram
    table = load_particles(write(tmp_path / "TS_1_10.00Apx.mrc", tomogram()), box=4, n=1).table
    assert (table["tilt_min_deg"][0], table["tilt_max_deg"][0]) == (-3, 3)
    assert f"from {file}" in caplog.text


def test_an_xml_file_that_is_no_tilt_series(tmp_path: Path) -> None:
    """Beside a tomogram it is left alone; asked for, it is refused."""
    (tmp_path / "TS_1.xml").write_text("<objlist></objlist>")
    assert "tilt_min_deg" not in load_particles(write(tmp_path / "TS_1.mrc", tomogram()), box=4, n=1).table
    with pytest.raises(ValueError, match="TS_1.xml: a <objlist>, expected Warp's <TiltSeries>"):
        read_tilts(tmp_path / "TS_1.xml")
    (tmp_path / "TS_1.xml").write_text("<TiltSeries><Angles>1")
    with pytest.raises(ValueError, match="TS_1.xml: cannot be read as XML"):
        read_tilts(tmp_path / "TS_1.xml")


def test_tilts_told_by_hand_and_tilts_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mrc", tomogram())
    assert load_particles(path, box=4, n=1, tilt_range_deg=[-50, 70]).table["tilt_max_deg"][0] in (70, 50)
    assert "tilt_min_deg" not in load_particles(path, box=4, n=1).table
    with pytest.raises(ValueError, match="expected two angles"):
        load_particles(path, box=4, n=1, tilt_range_deg=[70, -50])
    (tmp_path / "b.tlt").write_text("-60\nsixty\n")
    with pytest.raises(ValueError, match=r"b.tlt: a tilt angle is no number"):
        read_tilts(tmp_path / "b.tlt")


@pytest.mark.parametrize("tilts", [(-50.0, 70.0), (-70.0, 50.0)])
def test_the_particles_show_which_way_the_tilts_go(tmp_path: Path, tilts: tuple[float, float]) -> None:
    """The same tilt file, beside particles whose wedge lies one way or the other."""
    white = torch.randn(100, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    seen = torch.fft.irfftn(torch.fft.rfftn(white, dim=(1, 2, 3)) * wedge(24, *tilts), s=(24,) * 3, dim=(1, 2, 3))
    np.save(tmp_path / "a.npy", seen.numpy())
    (tmp_path / "t.tlt").write_text("-50\n0\n70\n")
    table = load_particles(tmp_path / "a.npy", voxel_size_A=10.0, tilt_file=tmp_path / "t.tlt").table
    assert (table["tilt_min_deg"][0], table["tilt_max_deg"][0]) == tilts


# HDF5 and zarr
def test_particles_of_eman2(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(12, 6, 6, 6)).astype(np.float32)
    with h5py.File(tmp_path / "p.hdf", "w") as handle:
        for i, volume in enumerate(data):
            group = handle.create_group(f"MDF/images/{i}")
            group["image"] = volume
            group.attrs["EMAN.apix_x"] = np.float32(4)
    particles = load_particles(tmp_path / "p.hdf")
    assert particles.voxel_size_A == 4
    np.testing.assert_array_equal(np.asarray(particles.volumes[:]), data)


def image(path: Path, data: np.ndarray, scale: list, axes: str = "zyx", unit: str = "angstrom", **more: object) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=data)
    named = [{"name": a, "type": "space" if a in "zyx" else "other", "unit": unit} for a in axes]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    group.attrs["multiscales"] = [{"axes": named, "datasets": [level]} | more]
    return path


def test_scales_units_and_axes_of_ome_zarr(tmp_path: Path) -> None:
    whole = {"coordinateTransformations": [{"type": "scale", "scale": [2.0, 2.0, 2.0]}]}
    path = image(tmp_path / "a.zarr", tomogram(), [1.0] * 3, unit="nanometer", **whole)
    assert load_particles(path, box=4, coordinates=[SPOT]).voxel_size_A == 20
    path = image(tmp_path / "b.zarr", tomogram()[None, None], [1.0] * 2 + [10.0] * 3, axes="tczyx")
    assert centre(load_particles(path, box=4, coordinates=[SPOT], protein="bright")) == [40]
    with pytest.raises(ValueError, match="axes x, y, z; expected z, y, x"):
        load_particles(image(tmp_path / "c.zarr", tomogram(), [10.0] * 3, axes="xyz"), box=4, n=1)


def test_labels_whose_background_was_never_written(tmp_path: Path) -> None:
    labels = np.zeros((24, 24, 24), np.uint16)
    labels[10:13, 10:13, 10:13] = 1
    array = zarr.create_array(tmp_path / "labels.zarr", shape=labels.shape, chunks=(8, 8, 8), dtype="u2", fill_value=0)
    array[8:16, 8:16, 8:16] = labels[8:16, 8:16, 8:16]
    zarr.create_array(tmp_path / "t.zarr", data=np.random.default_rng(0).normal(size=labels.shape).astype("f4"))
    options = {"labels_path": tmp_path / "labels.zarr", "box": 4, "voxel_size_A": 10.0}
    table = load_particles(tmp_path / "t.zarr", **options).table
    assert table[["x_A", "y_A", "z_A"]].to_numpy().tolist() == [[110, 110, 110]]


def test_tables_of_a_spreadsheet_with_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("\ufeffx_A; y_A;z_A;particle\r\n1,5;2;3,25;001\r\n", "utf-8")
    table = read_coordinates(tmp_path / "p.csv", 10.0)
    assert table[["x_A", "y_A", "z_A"]].to_numpy().tolist() == [[1.5, 2, 3.25]] and table["particle"][0] == "001"
    (tmp_path / "p.csv").write_text("x_A;y_A;z_A\n1.5;2;3\n")
    assert read_coordinates(tmp_path / "p.csv", 10.0)["x_A"][0] == 1.5
    for k in "ab":
        write(tmp_path / f"{k}.mrc", np.random.default_rng(0).normal(size=(6,) * 3).astype(np.float32))
    (tmp_path / "labels.csv").write_text("particle;label\na.mrc;x\nb.mrc;y\n")
    assert list(load_particles(tmp_path, labels=tmp_path / "labels.csv").table["class_name"]) == ["x", "y"]


# folders and models
def test_two_tables_in_a_folder_of_volumes(tmp_path: Path) -> None:
    for k in "ab":
        write(tmp_path / f"{k}.mrc", np.random.default_rng(0).normal(size=(6,) * 3).astype(np.float32))
    (tmp_path / "labels.csv").write_text("particle,label\r\nb.mrc,y\r\na.mrc,x\r\n")
    (tmp_path / "scores.csv").write_text("particle,score\na.mrc,1\nb.mrc,2\n")
    assert list(load_particles(tmp_path).table["class_name"]) == ["x", "y"]
    (tmp_path / "more.csv").write_text("particle,label\na.mrc,x\nb.mrc,y\n")
    with pytest.raises(ValueError, match=r"labels.csv, more.csv all have the columns"):
        load_particles(tmp_path)


def test_a_model_whose_occupancies_are_all_zero(tmp_path: Path) -> None:
    atom = "ATOM  {:5d}  CA  ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  0.00  0.00           C  \n"
    (tmp_path / "m.pdb").write_text("".join(atom.format(i, i, 4.0 * i, 0, 0) for i in range(1, 4)) + "END\n")
    with pytest.warns(UserWarning, match="occupancy of every atom is 0"):
        _, masses = read_atoms(tmp_path / "m.pdb")
    assert (masses > 0).all()


@pytest.fixture(autouse=True)
def _notes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cryoetgan_core")
