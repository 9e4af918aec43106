"""Density maps from files, and rendering: known answers, real files, and files that are broken."""

import warnings

import mrcfile
import numpy as np
import pytest
import torch
from common import SHARED, needs_shared

from cryoetgan_core.paper import choose, parse_files, parse_maps
from cryoetgan_core.simulator.sets import class_references
from cryoetgan_core.simulator.specimen import radius_of_gyration, read_map, reference_map, render_points
from cryoetgan_core.simulator.specimen.render import parse_source
from cryoetgan_core.simulator.specimen.shape import centre_of_mass, outline_level, split_molecules
from cryoetgan_core.volumes.maps import resample


def gaussian(size, centre, sigma):
    axis = torch.arange(size).float()
    terms = [torch.exp(-((axis - c) ** 2) / (2 * sigma**2)) for c in centre]
    return terms[0][:, None, None] * terms[1][:, None] * terms[2]


def write(path, data, voxel=10.0, **header):
    with mrcfile.new(path, overwrite=True) as handle:
        handle.set_data(np.asarray(data))
        handle.voxel_size = voxel
        for key, value in header.items():
            setattr(handle.header, key, value)
    return path


def test_axis_order(tmp_path):
    data = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    plain, voxel = read_map(write(tmp_path / "a.mrc", data))
    assert voxel == pytest.approx(10.0) and torch.equal(plain, torch.from_numpy(data))
    # columns are z, rows x, sections y: the stored (section, row, column) is (y, x, z)
    turned, _ = read_map(write(tmp_path / "b.mrc", data, mapc=3, mapr=1, maps=2), voxel_size_A=3.0)
    assert torch.equal(turned, torch.from_numpy(data).permute(2, 0, 1))


def test_voxel_size_of_the_header(tmp_path):
    data = np.ones((4, 4, 4), np.float32)
    with pytest.warns(UserWarning, match="often a placeholder"):
        assert read_map(write(tmp_path / "a.mrc", data, voxel=1.0))[1] == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_map(tmp_path / "a.mrc", voxel_size_A=13.68)[1] == 13.68
    with pytest.raises(ValueError, match="expected positive"):
        read_map(write(tmp_path / "b.mrc", data, voxel=-2.0))
    with pytest.raises(ValueError, match="voxel_size_A is -1"):
        read_map(tmp_path / "a.mrc", voxel_size_A=-1.0)


def test_an_empty_map_has_no_outline(tmp_path):
    path = write(tmp_path / "zero.mrc", np.zeros((8, 8, 8), np.float32))
    with pytest.raises(ValueError, match="zero.mrc.*no contrast"):
        reference_map(path, voxel_size_A=10.0, resolution_A=20.0)


def test_resample_keeps_a_gaussian():
    fine = gaussian(48, (24.0, 22.3, 25.1), 4.0)
    centre = torch.tensor([24.0, 22.3, 25.1])
    out = resample(fine, 5.0, new_voxel_size_A=8.0, box=29, centre_zyx=centre)
    torch.testing.assert_close(out, gaussian(29, (14, 14, 14), 4.0 * 5 / 8), atol=2e-3, rtol=0)
    # a low-pass adds variances: sigma^2 + (0.225 resolution)^2
    low = resample(fine, 5.0, new_voxel_size_A=5.0, box=48, resolution_A=60.0)
    wide = (16 + (0.225 * 60 / 5) ** 2) ** 0.5
    assert low.max().item() == pytest.approx((4 / wide) ** 3, rel=0.02)


def test_resample_does_not_alias():
    checker = torch.ones(32, 32, 32)
    checker[::2] = -1
    assert resample(checker, 5.0, new_voxel_size_A=10.0, box=8).abs().max() < 0.1
    with pytest.raises(ValueError, match="resample"):
        resample(checker[0], 5.0, new_voxel_size_A=10.0, box=8)


def test_split_centre_and_outline():
    two = gaussian(40, (10, 20, 20), 3.0) + 0.9 * gaussian(40, (30, 20, 20), 2.8)
    assert 0.2 < outline_level(two) < 0.7
    first, second = split_molecules(two)
    torch.testing.assert_close(centre_of_mass(first), torch.tensor([10.0, 20, 20]).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(centre_of_mass(second), torch.tensor([30.0, 20, 20]).double(), atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="no density above"):
        centre_of_mass(two, level=5.0)


def test_radius_of_gyration_of_a_gaussian():
    assert radius_of_gyration(gaussian(40, (20, 20, 20), 4.0), 2.5) == pytest.approx(3**0.5 * 10, rel=1e-3)


def test_render_points_is_a_gaussian_of_the_stated_resolution():
    point = torch.tensor([[3.0, -4.0, 10.0]])
    out = render_points(point, torch.tensor([7.0]), 24, 5.0, 30.0)
    sigma = 0.225 * 30 / 5
    expected = 7 * gaussian(24, (12.6, 11.2, 14.0), sigma) / ((2 * torch.pi) ** 1.5 * (sigma * 5) ** 3)
    torch.testing.assert_close(out, expected, atol=0.01 * expected.max().item(), rtol=0)
    far = render_points(torch.tensor([[300.0, 0, 0]]), torch.tensor([7.0]), 24, 5.0, 30.0)
    assert far.abs().max() < 1e-3 * expected.max()  # nothing wraps round
    with pytest.raises(ValueError, match="render_points"):
        render_points(point, torch.ones(2), 24, 5.0, 30.0)


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_a_map_comes_back_on_the_common_scale(tmp_path, scale):
    ours = reference_map("t20s", voxel_size_A=6.0, resolution_A=12.0, box=40)
    path = write(tmp_path / "t20s.mrc", (ours * scale).numpy(), voxel=6.0)
    grid = {"voxel_size_A": 10.0, "resolution_A": 25.0, "box": 28}
    again, direct = reference_map(path, **grid), reference_map("t20s", **grid)
    assert torch.corrcoef(torch.stack((again.flatten(), direct.flatten())))[0, 1] > 0.99
    assert again.max().item() == pytest.approx(direct.max().item(), rel=0.15)


def test_sources_with_a_molecule_or_a_voxel_size(tmp_path):
    assert parse_source("a.mrc") == ("a.mrc", {})
    assert parse_source("a.mrc#1@13.68") == ("a.mrc", {"map_voxel_size_A": 13.68, "molecule": 1})
    assert parse_source("emdb:3883@8.66") == ("emdb:3883", {"map_voxel_size_A": 8.66})
    with pytest.raises(ValueError, match="expected FILE, FILE#0"):
        parse_source("a.mrc#first")
    named = tmp_path / "a#2@b.mrc"
    named.touch()
    assert parse_source(str(named)) == (str(named), {})
    named.unlink()
    two = gaussian(40, (10, 20, 20), 3.0) + 0.9 * gaussian(40, (30, 20, 20), 2.8)
    path = write(tmp_path / "two.mrc", two.numpy(), voxel=10.0)
    assert parse_maps(f"tric={path}#1") == {"tric": f"{path}#1"}
    first, second = (class_references(("tric",), 24, 20.0, {"tric": f"{path}#{i}"})["tric"] for i in (0, 1))
    assert 0.6 < second.sum() / first.sum() < 0.95
    files = parse_files(f"{tmp_path}, {path}@5.0")
    assert files == {"two.mrc": (str(path), {"map_voxel_size_A": 5.0})}
    with pytest.raises(ValueError, match="'files' holds 'nowhere.mrc'"):
        parse_files("nowhere.mrc")
    with pytest.raises(ValueError, match="'microscope' is 'S3'; expected one of S1, S2"):
        choose("microscope", "S3", {"S1": 1, "S2": 2})


def test_arguments_that_do_not_apply():
    grid = {"voxel_size_A": 10.0, "resolution_A": 20.0}
    for kwargs, match in (({"molecule": 0}, "built-in class"), ({"box": 0}, "positive")):
        with pytest.raises(ValueError, match=match):
            reference_map("t20s", **grid, **kwargs)
    with pytest.raises(ValueError, match="neither a built-in class"):
        reference_map("t20s.xyz", **grid)


@needs_shared
def test_4v94_holds_two_molecules():
    path = SHARED / "density_maps/4v94.mrc"
    parts = split_molecules(read_map(path)[0])
    assert len(parts) == 2
    assert radius_of_gyration(parts[0], 10.0) == pytest.approx(radius_of_gyration(parts[1], 10.0), rel=0.02)
    with pytest.warns(UserWarning, match="2 separate molecules"):
        reference_map(path, voxel_size_A=20.0, resolution_A=40.0)
    with pytest.raises(ValueError, match="molecule 2"):
        reference_map(path, voxel_size_A=20.0, resolution_A=40.0, molecule=2)


@needs_shared
def test_odd_headers_of_real_maps():
    assert read_map(SHARED / "density_maps/emd_3197.map")[1] == pytest.approx(11.4)
    tomogram, voxel = read_map(SHARED / "experimental/emd1155_hiv/emd_1155.ccp4")
    assert sorted(tomogram.shape) == [91, 141, 281] and voxel == pytest.approx(16.4, abs=0.05)
