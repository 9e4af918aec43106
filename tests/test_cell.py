"""How picks in a cell without labels are judged: poses searched, hands told apart, picks moved, halves refined."""

import numpy as np
import pytest
import torch

from cryoetgan_core.evaluation.metrics import fourier_shell_correlation
from cryoetgan_core.paper import cell, cell_left_out, deepfinder_picker
from cryoetgan_core.paper.picking import formula, seen_by_tilts
from cryoetgan_core.physics.fourier_grid import wedge
from cryoetgan_core.simulator.sets import class_references
from cryoetgan_core.volumes.pose_search import search_poses
from cryoetgan_core.volumes.poses import mirrored_z, random_rotations, rotate_volume

VOXEL, BOX = 20.0, cell.BOX


@pytest.fixture(scope="module")
def ribosome() -> torch.Tensor:
    return class_references(("ribosome",), BOX, VOXEL)["ribosome"]


@pytest.fixture(scope="module")
def observed() -> torch.Tensor:
    return cell.seen_frequencies(VOXEL)


def particles(reference: torch.Tensor, n: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Seen by tilts of +-60 degrees, each moved by up to two voxels; and their rotations and shifts."""
    rng = torch.Generator().manual_seed(seed)
    rotations = random_rotations(n, rng)
    shifts = VOXEL * torch.randint(-2, 3, (n, 3), generator=rng).float()
    clean = rotate_volume(reference, rotations, shifts, VOXEL, box=BOX)
    made = clean + noise * clean.std() * torch.randn(clean.shape, generator=rng)
    seen = torch.fft.rfftn(made, dim=(1, 2, 3)) * wedge(BOX, -60.0, 60.0)
    return torch.fft.irfftn(seen, s=(BOX,) * 3, dim=(1, 2, 3)), rotations, shifts


def test_poses_are_found_to_the_distance_of_the_grid(ribosome, observed) -> None:
    volumes, rotations, shifts = particles(ribosome, 6, noise=1.0)
    found = search_poses(volumes, ribosome, observed, VOXEL, rotations=3000, most_shift=2)
    between = (found.rotations.mT @ rotations).diagonal(dim1=1, dim2=2).sum(1)
    angles = torch.rad2deg(((between - 1) / 2).clamp(-1, 1).acos())
    assert angles.max() < 20 and (found.shifts_A - shifts).abs().max() <= VOXEL


def test_ribosomes_fit_their_own_hand_better_and_noise_fits_both_alike(ribosome, observed) -> None:
    mirror = mirrored_z(ribosome)
    volumes, _, _ = particles(ribosome, 16, noise=2.0)
    noise = torch.randn(volumes.shape, generator=torch.Generator().manual_seed(1))

    def better(these: torch.Tensor) -> torch.Tensor:
        own, other = (
            search_poses(these, h, observed, VOXEL, rotations=1000, most_shift=2).correlation
            for h in (ribosome, mirror)
        )
        return own - other

    found, none = better(volumes), better(noise)
    assert found.mean() > 4 * found.std() / len(found) ** 0.5
    assert abs(none.mean()) < 3 * none.std() / len(none) ** 0.5
    mirrored_set, _, _ = particles(mirror, 16, noise=2.0)
    assert better(mirrored_set).mean() < 0


def test_a_mirror_image_keeps_its_centre_and_is_its_own_inverse(ribosome) -> None:
    assert torch.equal(mirrored_z(mirrored_z(ribosome)), ribosome)
    one = torch.zeros(8, 8, 8)
    one[4, 4, 4] = one[6, 4, 4] = 1
    mirrored = mirrored_z(one)
    assert mirrored[4, 4, 4] == 1 and mirrored[2, 4, 4] == 1


def test_a_refinement_starts_from_low_frequencies_and_finds_the_molecule(ribosome, observed) -> None:
    volumes, _, _ = particles(ribosome, 30, noise=1.0)
    still = torch.eye(3)[None], torch.zeros(1, 3)
    boxed = rotate_volume(ribosome, *still, VOXEL, box=BOX)[0]
    mean = cell.refine(volumes, boxed, observed, VOXEL, rotations=1500)
    assert fourier_shell_correlation(mean, boxed)[1:9].mean() > 0.7


def test_moved_picks_lie_beside_picks_and_off_all_of_them() -> None:
    places = np.array([[30, 60, 60], [30, 60, 75], [40, 100, 100], [30, 3, 3]])
    others = np.array([[30, 80, 60]])
    found = cell.moved(places, others, VOXEL, (64, 130, 130), 0)
    assert (np.linalg.norm(found - others, axis=1) * VOXEL > cell.MASK_A).all()
    distances = np.linalg.norm(found[:, None] - places, axis=2) * VOXEL
    assert 2 <= len(found) <= 4 and distances.min() > cell.APART_A
    assert all(np.abs(row - cell.MOVED_A).min() < VOXEL for row in distances)


def test_boxes_at_the_edge_do_not_fit_and_neighbours_are_masked() -> None:
    volume = np.random.default_rng(0).standard_normal((40, 60, 60)).astype(np.float32)
    places = np.array([[20, 30, 30], [2, 30, 30], [28, 48, 48], [29, 48, 48]])
    assert cell.fits(places, volume.shape).tolist() == [True, False, True, False]
    (cut,) = cell.boxes(volume, places[:1], VOXEL)
    assert float(cut[0, 0, 0]) == 0 == float(cut[12, 12, 1]) and abs(float(cut[12, 12, 12])) > 0


def test_errors_are_over_tiles_of_the_plane() -> None:
    """Picks of one tile that all say the same count as one."""
    rng = np.random.default_rng(0)
    tiles = [(0, 50 * a + 20, 50 * b + 20) for a in range(6) for b in range(6)]
    of_tile = rng.normal(1, 1, len(tiles))
    alike = np.array([[*t, 1 + v, 1] for t, v in zip(tiles, of_tile, strict=True) for _ in range(20)])
    apart = np.array([[*t, 1 + v, 1] for t, v in zip(tiles * 20, rng.normal(1, 1, 20 * len(tiles)), strict=True)])
    one, other = cell.over_tiles({"alike": alike, "apart": apart}, VOXEL, 0)
    assert one["better"] == pytest.approx(of_tile.mean()) and one["error"] == pytest.approx(1 / 6, rel=0.3)
    assert other["error"] == pytest.approx(1 / 720**0.5, rel=0.3)
    assert other["behind"] == pytest.approx(one["better"] - other["better"])
    assert other["behind_error"] == pytest.approx(np.hypot(1 / 6, 1 / 720**0.5), rel=0.3)
    same = cell.over_tiles({"a": alike, "b": alike}, VOXEL, 0)[1]
    assert same["behind"] == same["behind_error"] == 0  # drawn together


def test_the_formula_has_the_generators_ratio_within_the_band() -> None:
    white = np.random.default_rng(0).standard_normal((32, 40, 48)).astype(np.float32)
    assert cell._band_power(3 * white, VOXEL) == pytest.approx(9, rel=0.05)


def test_results_are_planned_with_the_files_they_need() -> None:
    plan = cell.planned("quick", 0) | deepfinder_picker.planned("quick", 0)
    pickers = [f"deepfinder_picker{of}_seed0" for of in ("", "_long", "_long_real")]
    assert set(plan) == {"cell_seed0", *pickers} and cell.CELL in plan["cell_seed0"].files


@pytest.fixture(scope="module")
def upright() -> torch.Tensor:
    return cell_left_out.along_x(class_references(("ribosome",), 32, VOXEL)["ribosome"])


def test_halves_of_a_map_are_cut_across_its_long_axis(upright) -> None:
    left, right = cell_left_out.in_halves(upright)
    torch.testing.assert_close(left + right, upright)
    assert float(left.sum()) == pytest.approx(float(right.sum()), rel=0.3)
    axis = torch.arange(BOX) - BOX // 2
    mass = upright.clamp(min=0)
    widths = [float((mass.sum([k for k in range(3) if k != d]) * axis**2).sum() / mass.sum()) ** 0.5 for d in (2, 1, 0)]
    assert widths == sorted(widths, reverse=True)
    half_turn = cell_left_out.turned_about_x(cell_left_out.turned_about_x(right, 90.0), 90.0)
    assert np.corrcoef(half_turn.flatten(), cell_left_out.turned_about_x(right, 180.0).flatten())[0, 1] > 0.98


def test_the_half_that_was_smeared_out_is_found_in_ribosomes_alone(upright) -> None:
    """Without noise, which would hide a bias: seen through the CTF, the wedge and the mask. Of pure noise of that
    power, both hands prefer the half in its place as much.
    """
    seen = formula((BOX,) * 3, VOXEL, cell.CELL_MICROSCOPE) * seen_by_tilts((BOX,) * 3, -60.0, 60.0)
    rng = torch.Generator().manual_seed(3)

    def recorded(volumes: torch.Tensor) -> torch.Tensor:
        filtered = torch.fft.irfftn(torch.fft.rfftn(volumes, dim=(1, 2, 3)) * seen, s=(BOX,) * 3, dim=(1, 2, 3))
        return torch.cat([cell.boxes(v.numpy(), np.full((1, 3), BOX // 2), VOXEL) for v in filtered])

    def better(volumes: torch.Tensor, whole: torch.Tensor) -> np.ndarray:
        left, right = cell_left_out.in_halves(whole)
        away = cell_left_out.off_the_cut(right, VOXEL)
        parts = [away, *(cell_left_out.turned_about_x(away, a) for a in cell_left_out.TURNED_DEG)]
        found, _, _ = cell_left_out.compared(volumes, left + cell_left_out.smeared(right), parts, VOXEL, rotations=1000)
        return found[0] - found[1:].mean(0)

    pairs = cell_left_out.wrong_halves(upright)
    whole, wrong = (
        recorded(torch.cat([particles(o, 16 // len(objects), 0.0, seed)[0] for seed, o in enumerate(objects)]))
        for objects in ([upright], pairs)
    )
    assert (told := better(whole, upright).mean()) > 0.1
    assert abs(better(wrong, upright).mean()) < 0.2 * told
    noise = recorded(torch.randn(48, BOX, BOX, BOX, generator=rng))
    hands = better(noise, upright) - better(noise, mirrored_z(upright))
    assert abs(hands.mean()) < 3 * hands.std() / len(hands) ** 0.5 < 0.1 * told


def test_ribosomes_put_into_boxes_correlate_with_them_as_asked(upright, observed, monkeypatch) -> None:
    """In boxes too that are less than empty where they are put: the strength makes up for it."""
    monkeypatch.setattr(cell_left_out, "rendered", lambda run, density: density)
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(40, BOX, BOX, BOX, generator=rng) * cell.soft_mask(VOXEL)
    for hole in (0.0, 0.5):
        boxed = noise - hole * cell.soft_mask(VOXEL)
        made = cell_left_out.put_in(boxed, [upright], 0.3, None, VOXEL, torch.Generator().manual_seed(1))
        again = torch.Generator().manual_seed(1)
        turns = random_rotations(40, again)
        shifts = (2 * torch.rand(40, 3, generator=again) - 1) * VOXEL
        own = rotate_volume(upright, turns, shifts, VOXEL)
        found = []
        for one, two in zip(made, own, strict=True):
            a, b = cell_left_out._spectrum(one, observed), cell_left_out._spectrum(two, observed)
            found.append(float(a @ b / (a.norm() * b.norm())))
        assert np.mean(found) == pytest.approx(0.3, abs=1e-3)


def test_what_is_off_the_cut_and_off_picks(upright) -> None:
    far = cell_left_out.off_the_cut(upright, VOXEL)
    assert far[:, :, BOX // 2 - 1 : BOX // 2 + 2].abs().max() < 1e-2 < far.abs().max()
    places = np.array([[0.0, 0, 0], [0, 0, 9], [0, 0, 20]])
    left = cell_left_out.off_picks(places, [np.array([[0, 0, 1.0]]), np.array([[0, 0, 12.0]])], 4.0)
    assert left.tolist() == [[0, 0, 20]]
