"""The built-in assemblies: mass, centre, size, symmetry, hollowness, agreement with real structures."""

import warnings

import pytest
import torch
from common import SHARED, needs_shared

from cryoetgan_core.evaluation.metrics import fourier_shell_correlation, resolution_A
from cryoetgan_core.simulator.specimen import (
    ASSEMBLIES,
    S1_CLASSES,
    S2_CLASSES,
    pseudo_atoms,
    radius_of_gyration,
    reference_map,
    render_points,
    rotate_volume,
)
from cryoetgan_core.simulator.specimen.builders import proteasome
from cryoetgan_core.simulator.specimen.geometry import PROTEIN_DENSITY_DA_A3, ball, fill, point_group, rod
from cryoetgan_core.simulator.specimen.shape import centre_of_mass
from cryoetgan_core.volumes.alignment import align
from cryoetgan_core.volumes.poses import relion_angles_to_pose

MOLECULES = [name for name in ASSEMBLIES if name != "membrane"]
ODD = relion_angles_to_pose(*torch.tensor([35.0, 65.0, 0.0], dtype=torch.float64))[None]  # in no point group here
SYMMETRIC = [name for name in MOLECULES if ASSEMBLIES[name].point_group != "C1"]


def correlation(a, b):
    return torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1].item()


def test_registry_names_the_eleven_classes():
    assert set(S1_CLASSES + S2_CLASSES) == set(ASSEMBLIES) and len(ASSEMBLIES) == 11
    assert all(a.source and a.dimensions_A and a.name == name for name, a in ASSEMBLIES.items())
    with pytest.raises(ValueError, match="no built-in assembly 'ribosom'.*ribosome"):
        pseudo_atoms("ribosom")


@pytest.mark.parametrize("name", MOLECULES)
def test_mass_and_centre(name):
    points, weights = pseudo_atoms(name)
    assert points.dtype == weights.dtype == torch.float32 and points.shape == (len(weights), 3)
    assert weights.sum().item() == pytest.approx(ASSEMBLIES[name].mass_kDa, rel=1e-4)
    centre = (points.double() * weights[:, None]).sum(0) / weights.sum()
    assert centre.abs().max() < 0.05
    points += 1  # a copy: the next caller must not see this
    assert pseudo_atoms(name)[0].mean(0).abs().max() < points.mean(0).abs().max()


# overall extents zyx in angstrom, from the descriptions in the registry
EXTENT = {
    "proteasome": (330, 200, 170),
    "ribosome": (290, 240, 230),
    "tric": (160, 155, 155),
    "aldolase": (65, 95, 95),
    "glutamate_dehydrogenase": (145, 100, 100),
    "dnab": (120, 125, 125),
    "t20s": (150, 113, 113),
    "apoferritin": (122, 122, 122),
    "hemagglutinin": (132, 75, 75),
    "insulin_receptor": (140, 65, 145),
}


@pytest.mark.parametrize("name", MOLECULES)
def test_dimensions(name):
    points, _ = pseudo_atoms(name)
    extent = points.max(0).values - points.min(0).values
    torch.testing.assert_close(extent, torch.tensor(EXTENT[name]).float(), rtol=0.12, atol=0)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_point_group_holds_and_other_turns_do_not(name):
    volume = reference_map(name, voxel_size_A=5.0, resolution_A=15.0)
    ops = point_group(ASSEMBLIES[name].point_group)[1:]
    ops = ops[:: max(1, len(ops) // 6)]
    turned = rotate_volume(volume, ops, torch.zeros(len(ops), 3), 5.0)
    assert min(correlation(volume, t) for t in turned) > 0.97
    odd = rotate_volume(volume, ODD, torch.zeros(1, 3), 5.0)[0]
    assert correlation(volume, odd) < 0.96


@pytest.mark.parametrize(("name", "radius_A"), [("apoferritin", 50), ("t20s", 35), ("tric", 50), ("dnab", 38)])
def test_hollow_in_the_middle(name, radius_A):
    volume = reference_map(name, voxel_size_A=5.0, resolution_A=20.0, box=48)
    shell = max(volume[24, 24, 24 + round(radius_A / 5) + d].item() for d in (-2, -1, 0, 1, 2))
    assert volume[24, 24, 24] < 0.15 and shell > 0.6


@pytest.mark.parametrize("name", MOLECULES)
def test_interior_is_one_on_the_common_scale(name):
    volume = reference_map(name, voxel_size_A=8.0, resolution_A=20.0)
    assert 0.6 < volume[volume > 0.5].mean() < 1.05 and volume.max() < 1.6
    expected = ASSEMBLIES[name].mass_kDa * 1000 / PROTEIN_DENSITY_DA_A3
    assert volume.sum().item() * 8.0**3 == pytest.approx(expected, rel=0.01)


def test_all_eleven_can_be_told_apart():
    volumes = [reference_map(n, voxel_size_A=13.68, resolution_A=30.0, box=40) for n in ASSEMBLIES]
    pairs = [correlation(a, b) for i, a in enumerate(volumes) for b in volumes[:i]]
    assert max(pairs) < 0.9


def test_membrane_is_a_bilayer_across_the_whole_box():
    volume = reference_map("membrane", voxel_size_A=5.0, resolution_A=12.0, box=60)
    profile = volume.mean((1, 2))
    torch.testing.assert_close(profile[30 - 4], profile[30 + 4], rtol=0.05, atol=0.0)
    assert profile[30 - 4] > 0.7 and profile[30] < -0.15 and profile[:20].abs().max() < 0.02
    assert volume[26].std() < 0.03 * volume[26].mean()  # no rim, no lattice
    coarse = reference_map("membrane", voxel_size_A=22.8, resolution_A=45.6, box=24)[13]
    assert coarse.std() < 0.02 * coarse.mean()


@pytest.mark.parametrize(("group", "order"), [("C3", 3), ("D2", 4), ("D7", 14), ("O", 24)])
def test_point_groups_are_closed(group, order):
    ops = point_group(group)
    assert len(ops) == order
    torch.testing.assert_close(torch.linalg.det(ops), torch.ones(order, dtype=torch.float64))
    products = (ops[:, None] @ ops[None]).reshape(-1, 9)
    distance = (products[:, None] - ops.reshape(1, -1, 9)).abs().amax(2)
    assert distance.min(1).values.max() < 1e-9
    assert torch.pdist(ops.reshape(-1, 9)).min() > 0.1


def test_unknown_point_group():
    with pytest.raises(ValueError, match="expected O, or C or D"):
        point_group("I")


def test_fill_gives_a_ball_its_volume():
    points, weights = fill([ball((10.0, 0.0, 0.0), 30.0)], 100.0)
    radius = (3 * 100e3 / PROTEIN_DENSITY_DA_A3 / (4 * torch.pi)) ** (1 / 3)
    assert (points - torch.tensor([10.0, 0, 0])).norm(dim=1).max() == pytest.approx(radius, abs=3.0)
    assert weights.sum().item() == pytest.approx(100.0, rel=1e-5)
    ends = [b.centre_A for b in rod((0, 0, 0), (0, 0, 20), 5.0)]
    assert ends[0] == (0, 0, 0) and ends[-1] == pytest.approx((0, 0, 20))


@needs_shared
@pytest.mark.parametrize(
    ("name", "real", "options"),
    [
        ("tric", "density_maps/4v94.mrc", {"molecule": 0}),
        ("t20s", "atomic_models/3j9i.pdb", {}),
        ("ribosome", "density_maps/6qzp.mrc", {}),
        ("ribosome", "density_maps/emd_3883_8.66A_64.mrc", {}),
        ("apoferritin", "atomic_models/4v1w.cif", {}),
    ],
)
def test_radius_of_gyration_of_the_real_molecule(name, real, options):
    grid = {"voxel_size_A": 10.0, "resolution_A": 25.0, "box": 48}
    ours = radius_of_gyration(reference_map(name, **grid), 10.0, level=0.15)
    theirs = radius_of_gyration(reference_map(SHARED / real, **grid, **options), 10.0, level=0.15)
    assert ours == pytest.approx(theirs, rel=0.10)


@needs_shared
@pytest.mark.parametrize(
    ("name", "real", "options", "limit_A"),
    [
        ("tric", "density_maps/4v94.mrc", {"molecule": 0}, 30.0),
        ("t20s", "atomic_models/3j9i.pdb", {}, 26.0),
        ("ribosome", "density_maps/6qzp.mrc", {}, 55.0),
        ("apoferritin", "atomic_models/4v1w.cif", {}, 26.0),
    ],
)
def test_embedded_models_agree_with_the_real_molecule_to_a_resolution(name, real, options, limit_A):
    grid = {"voxel_size_A": 12.0, "resolution_A": 26.0, "box": 32}
    ours, theirs = reference_map(name, **grid), reference_map(SHARED / real, **grid, **options)
    rotation, _ = align(ours, theirs, grid=1500)
    turned = rotate_volume(ours, rotation[None], torch.zeros(1, 3), 12.0)[0]
    assert resolution_A(fourier_shell_correlation(turned, theirs), 12.0) < limit_A
    # the control: another pose
    assert resolution_A(fourier_shell_correlation(turned.flip(0).mT, theirs), 12.0) > 1.1 * limit_A


def test_align_finds_a_known_pose():
    volume = reference_map("ribosome", voxel_size_A=14.0, resolution_A=30.0, box=28)
    turned = rotate_volume(volume, ODD, torch.zeros(1, 3), 14.0)[0]
    rotation, score = align(volume, turned, grid=1500)
    angle = torch.rad2deg(torch.acos(((rotation @ ODD[0].T).trace() - 1) / 2))
    assert angle < 4 and score > 0.98
    with pytest.raises(ValueError, match="expected the same"):
        align(volume, volume[:5])


@needs_shared
def test_every_density_and_model_goes_in_by_one_call_and_comes_out_centred():
    files = [p for folder in ("density_maps", "atomic_models") for p in sorted((SHARED / folder).iterdir())]
    assert len(files) > 15
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # placeholders of voxel sizes, several molecules: tested elsewhere
            size = {"map_voxel_size_A": 13.68} if "emd_5225" in path.name else {}
            volume = reference_map(path, voxel_size_A=13.68, resolution_A=30.0, box=40, **size)
        assert volume.shape == (40, 40, 40) and torch.isfinite(volume).all(), path.name
        assert (centre_of_mass(volume, level=0.3 * volume.max().item()) - 20).abs().max() < 1.0, path.name
        assert 0.6 < volume.max() < 1.6 and 30 < radius_of_gyration(volume, 13.68, 0.15) < 130, path.name


@needs_shared
def test_radius_of_gyration_of_the_26s_without_half_of_its_core():
    # PDB 4CR2 holds the 19S and the half of the 20S next to it
    points, weights = fill([b for b in proteasome() if b.part != "20S distal"], 1600.0 - 340.0)
    points = (points - (points * weights[:, None]).sum(0) / weights.sum()).flip(1)
    ours = render_points(points, weights * (1000 / PROTEIN_DENSITY_DA_A3), 40, 10.0, 25.0)
    real = reference_map(SHARED / "density_maps/4cr2.mrc", voxel_size_A=10.0, resolution_A=25.0, box=40)
    assert radius_of_gyration(ours, 10.0, 0.15) == pytest.approx(radius_of_gyration(real, 10.0, 0.15), rel=0.10)
