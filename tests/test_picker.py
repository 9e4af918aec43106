"""Picks against molecules whose places are known; a picker that is trained where MONAI is installed."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cryoetgan_core.config import DATASETS
from cryoetgan_core.paper import picker, picker_and_templates, picking, template_matching, wrong_input
from cryoetgan_core.paper.case import Case
from cryoetgan_core.physics.fourier_grid import window
from cryoetgan_core.reproducibility.seeds import stream
from cryoetgan_core.simulator import scene

RADII = {"a": 40.0, "b": 20.0}
VOXEL = 10.0


def table(places: dict[str, list]) -> pd.DataFrame:
    rows = [
        {"class_name": name, **dict(zip(("z_A", "y_A", "x_A"), at, strict=True))}
        for name, many in places.items()
        for at in many
    ]
    return pd.DataFrame(rows)


def test_targets_are_balls_of_half_the_radius_round_the_molecules() -> None:
    labels = picking.targets(table({"a": [(100, 110, 120)], "b": [(50, 50, 50)]}), (20, 24, 28), VOXEL, RADII)
    assert labels[10, 11, 12] == 1 and labels[5, 5, 5] == 2
    assert np.argwhere(labels == 1).min(0).tolist() == [8, 9, 10] and np.argwhere(labels == 1).max(0).tolist() == [
        12,
        13,
        14,
    ]
    edge = picking.targets(table({"a": [(0, 0, 0)]}), (8, 8, 8), VOXEL, {"a": 40.0})
    assert edge[0, 0, 0] == 1 and (edge > 0).sum() < 20  # what lies outside is left out


def test_peaks_are_apart_and_carry_their_height() -> None:
    probability = np.zeros((20, 20, 20), np.float32)
    for at, height in (((5, 5, 5), 4.0), ((5, 5, 8), 3.0), ((14, 14, 14), 2.0)):
        probability[at] = height
    found, height = picking.peaks(probability, 4.0, 0.1)
    assert found.tolist() == [[5, 5, 5], [14, 14, 14]] and height[0] > height[1]


def test_a_molecule_is_found_by_one_pick_only() -> None:
    truth = np.array([[0, 0, 0], [0, 0, 10.0]])
    assert picking.matched(np.array([[0, 0, 1], [0, 1, 0.0]]), truth, 3) == 1
    assert picking.matched(np.array([[0, 0, 4], [0, 0, 6.0]]), truth, 5) == 2
    assert picking.matched(np.array([[0, 0, 4.0]]), truth, 3) == picking.matched(np.empty((0, 3)), truth, 3) == 0


def test_scores_are_means_over_classes() -> None:
    counts = pd.DataFrame(
        [
            {"class_name": "a", "picks": 8, "molecules": 10, "right": 8},
            {"class_name": "b", "picks": 20, "molecules": 10, "right": 5},
        ]
    )
    found = picking.scores(counts)
    assert found["precision"] == pytest.approx((1 + 0.25) / 2) and found["recall"] == pytest.approx((0.8 + 0.5) / 2)
    assert found["f1"] == pytest.approx((16 / 18 + 1 / 3) / 2)
    assert found["f4"] == pytest.approx((17 * 0.8 / (16 + 0.8) + 17 * 0.125 / (16 * 0.25 + 0.5)) / 2)
    nothing = pd.DataFrame([{"class_name": "a", "picks": 0, "molecules": 10, "right": 0}])
    assert set(picking.scores(nothing).values()) == {0.0}


def made(case: Case) -> dict:
    return case.make(case.config)


def test_formulas_have_the_signal_to_noise_ratio_that_is_asked_for() -> None:
    config = picker.planned("smoke", 0)["picker_S1_seed0"].config
    density = np.zeros((32, 40, 48), np.float32)
    density[12:20, 16:24, 20:28] = 1
    scope = DATASETS["S1"].microscope
    seen = picking.seen_by_tilts(density.shape, scope.tilt_min_deg, scope.tilt_max_deg)
    for factor, tilts in ((None, None), (picking.formula(density.shape, 22.8, scope), seen)):
        one, other = (picking.noisy(density, factor, config.snr, stream(0, k), tilts) for k in (1, 2))
        signal = np.cov(one.ravel(), other.ravel())[0, 1]  # noise is independent
        assert signal / (one.var() - signal) == pytest.approx(config.snr, rel=0.2)
    power = torch.fft.rfftn(torch.from_numpy(one)).abs().square()
    assert power[seen == 0].max() < 1e-6 * power[seen == 1].mean()  # noise lies in no missing wedge either


def test_the_wedge_of_the_formula_is_that_of_the_tilts() -> None:
    """On the side where a tomogram of noise has it, of tilts that go further one way than the other."""
    angles = np.arange(-50.0, 71.0, 3.0)
    images = np.random.default_rng(0).standard_normal((len(angles), 48, 48)).astype(np.float32)
    volume = torch.from_numpy(scene.tomogram(images, angles, 48))
    power = torch.fft.rfftn(volume * window(48)).abs().square()
    ours, turned = picking.seen_by_tilts((48,) * 3, -50.0, 70.0), picking.seen_by_tilts((48,) * 3, -70.0, 50.0)
    assert ours[0, 0, 0] == 1 and power[ours == 0].mean() < 0.1 * power[ours == 1].mean()
    assert power[turned == 0].mean() > 0.3 * power[turned == 1].mean()


def test_template_matching_finds_each_class_where_it_lies() -> None:
    rng = np.random.default_rng(0)
    references = {"long": torch.zeros(12, 12, 12), "round": torch.zeros(12, 12, 12)}
    references["long"][1:11, 5:7, 5:7] = 1
    references["round"][4:8, 4:8, 4:8] = 1
    volume = 0.2 * rng.standard_normal((32, 48, 48)).astype(np.float32)
    volume[15:17, 9:11, 5:15] += 1
    volume[14:18, 28:32, 28:32] += 1
    scores = template_matching.template_scores(volume, references, torch.ones(32, 48, 25), rotations=200)
    places = [picking.peaks(s, 6.0, 5.0) for s in scores]
    for (found, height), wanted in zip(places, ((16, 10, 10), (16, 30, 30)), strict=True):
        assert np.abs(found[height.argmax()] - wanted).max() <= 1
    alone = picking.kept_apart(scores, [6.0, 6.0], 3.0)
    for one, wanted in zip(alone, ((16, 10, 10), (16, 30, 30)), strict=True):
        (found,) = np.argwhere(one > 8)
        assert np.abs(found - wanted).max() <= 1


def test_the_flank_of_a_molecule_is_none_of_another_class() -> None:
    height = np.full((2, 20, 20, 20), -1.0)
    height[0, 10, 10, 10], height[1, 10, 10, 13], height[1, 10, 10, 17] = 9.0, 7.0, 6.0
    kept = picking.kept_apart(height, [5.0, 2.0], 3.0)
    assert kept[0, 10, 10, 10] == 9 and kept[1, 10, 10, 17] == 6 and np.isfinite(kept).sum() == 2
    height[1, 10, 10, 13] = 11.0  # the higher one's radius counts
    kept = picking.kept_apart(height, [5.0, 2.0], 3.0)
    assert kept[1, 10, 10, 13] == 11 and kept[0, 10, 10, 10] == 9 and np.isfinite(kept).sum() == 3


def test_templates_tell_the_class_of_what_the_network_cannot_tell_apart() -> None:
    """The network finds every molecule and hardly knows its class; templates score high in the corners, too."""
    rng, shape, radii = np.random.default_rng(0), (20, 200, 200), {"a": 40.0, "b": 40.0}
    own = []
    for _ in range(2):
        places = np.stack(np.meshgrid(10, np.arange(15, 190, 20), np.arange(15, 190, 20), indexing="ij"), -1)
        places = places.reshape(-1, 3)
        classes = rng.integers(2, size=len(places))
        maps = np.concatenate([np.full((2, *shape), 1e-6), rng.normal(0, 1, (2, *shape))])
        for place, number in zip(places, classes, strict=True):
            maps[(slice(0, 2), *place)] = rng.uniform(0.3, 0.5, 2)
            beside = tuple(place + [0, 1, -1])  # the best score lies a voxel or so away
            maps[(2 + number, *beside)], maps[(3 - number, *beside)] = 12.0, 9.0
        maps[2:, 2, 3, 3] = 30.0  # no molecule
        own.append((maps, table({n: VOXEL * places[classes == k] for k, n in enumerate(radii)})))
    heights = picker_and_templates.fitted(own[:1], VOXEL, radii)
    of = {"a": 4.0, "b": 4.0}
    for maps, truth in own:
        simpler = picker_and_templates.by_best_template(maps, list(of.values()))
        assert simpler[np.isfinite(simpler)].max() == pytest.approx(0.5, abs=0.03)  # the network's probability
        for found, least in ((heights(maps), 0.5), (simpler, 0.1)):
            for height, name in zip(found, radii, strict=True):
                picks = np.argwhere(height > least)
                wanted = truth.loc[truth["class_name"] == name, ["z_A", "y_A", "x_A"]].to_numpy() / VOXEL
                assert picking.matched(picks, wanted, of[name]) == len(picks) == len(wanted) > 20
    assert not np.isfinite(heights(np.zeros_like(own[0][0]))).any()  # where the network sees nothing


def test_a_place_is_of_the_class_of_the_nearest_molecule_in_reach() -> None:
    truth = table({"a": [(50, 50, 50)], "b": [(50, 50, 80)]})
    places = np.array([[5, 5, 5], [5, 5, 7], [5, 5, 12], [5, 9, 5]])
    assert picker_and_templates.true_class(places, truth, VOXEL, RADII).tolist() == [0, 1, 2, 0]


def test_mirror_images_of_a_tomogram_are_put_back_before_they_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = np.zeros((12, 16, 20), np.float32)
    volume[3, 4, 5], volume[8, 12, 15] = 0.9, 0.6
    monkeypatch.setattr(picking, "probabilities", lambda _, v: np.stack([v, 0.5 * v]))
    found = picking.heights_apart(None, volume, [2.0, 2.0])
    assert {tuple(p) for p in np.argwhere(np.isfinite(found)).tolist()} == {(0, 3, 4, 5), (0, 8, 12, 15)}
    assert found[0, 3, 4, 5] == pytest.approx(0.9)


def test_a_stopped_training_ends_in_the_same_weights(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("monai")
    rng = np.random.default_rng(0)
    tomograms = [(rng.normal(size=(48, 52, 56)).astype(np.float32), table({"a": [(200, 200, 200)]}))]
    monkeypatch.setattr(picking, "KEPT", 2)
    train = partial(picking.train_picker, tomograms, VOXEL, {"a": 40.0}, steps=4, size=((4, 8), 1))
    whole, loaded = train(seed=0), []
    scheduler, step = torch.optim.lr_scheduler.OneCycleLR, torch.optim.lr_scheduler.OneCycleLR.step
    with monkeypatch.context() as stopped:
        stopped.setattr(scheduler, "step", lambda self: step(self) if self.last_epoch < 3 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(seed=0, folder=tmp_path)
    monkeypatch.setattr(torch, "load", lambda *a, load=torch.load, **k: loaded.append(load(*a, **k)) or loaded[-1])
    again = train(seed=0, folder=tmp_path)
    assert [found["done"] for found in loaded] == [2]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    train(seed=0, folder=tmp_path)
    train(seed=1, folder=tmp_path)  # another seed starts anew
    assert [found["done"] for found in loaded] == [2, 4]


def test_thresholds_are_those_that_are_best_on_all_tomograms_of_its_own() -> None:
    """On the first alone the lowest one would be as good."""
    places = [table({"a": [(50, 50, 50)], "b": [(50, 50, 50)]})] * 3
    heights = [np.zeros((2, 12, 12, 12)) for _ in places]
    for height, wrong in zip(heights, (0.0, 0.5, 0.5), strict=True):
        height[:, 5, 5, 5], height[:, 5, 5, 11] = 0.8, wrong
    own = [(height, of) for height, of in zip(heights, places, strict=True)]
    rows = picking.picked_right(lambda volume: volume, own[:2], own[2:], VOXEL, {"a": 15.0, "b": 15.0})
    assert [row["picks"] for row in rows] == [1, 1] and [row["right"] for row in rows] == [1, 1]
    rows = picking.picked_right(lambda volume: volume, own[:1], own[2:], VOXEL, {"a": 15.0, "b": 15.0})
    assert [row["picks"] for row in rows] == [2, 2]
    heights[2][:, 5, 5, 11] = 0.3  # below the middle of the thresholds from 0.1 to 0.75, which are equally good
    some = own[:1], own[2:], VOXEL, {"a": 15.0, "b": 15.0}
    for middle, picks in ((False, 2), (True, 1)):
        rows = picking.picked_right(lambda volume: volume, *some, middle=middle)
        assert [row["picks"] for row in rows] == [picks, picks]


def test_every_source_is_scored(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    pytest.importorskip("monai")
    monkeypatch.setenv("CRYOETGAN_RUNS", str(tmp_path))
    monkeypatch.setattr(picker, "SHAPE", (48, 64, 64))
    monkeypatch.setattr(picker, "MOLECULES", 9)
    own, others = (made(picker.planned("smoke", 0)[f"picker_S1{kind}_seed0"]) for kind in ("", "_others"))
    assert list(own["scores"]) == [picker.PHYSICS] and own["classes"] == list(DATASETS["S1"].classes)[:3]
    scored = own["scores"] | others["scores"]
    assert set(scored) == set(picker.SOURCES) and set(others["scores"]).isdisjoint(own["scores"])
    assert all(0 <= v <= 1 for found in scored.values() for one in found for v in one.values())
    assert len(own["rows"]) == 2 * 3 and len(others["rows"]) == len(picker.SOURCES) * 3
    curves = own["learning_curves"][picker.PHYSICS]
    assert list(curves) == ["2", "4"] and list(others["learning_curves"][picker.REAL]) == ["4", "5"]
    assert curves["4"] == own["scores"][picker.PHYSICS]
    looked_at = []
    monkeypatch.setattr(picker, "heights_apart", lambda *a, **k: looked_at.append(a) or picking.heights_apart(*a, **k))
    long = made(picker.planned("smoke", 0)["picker_S1_long_formula_seed0"])
    assert list(long["learning_curves"]) == [picking.CTF_WEDGE] and len(long["rows"]) == 3
    assert len(looked_at) == picker.LONG_OWN + 1  # tomograms that set the thresholds, and one that is tested on
    matched = made(template_matching.planned("smoke", 0)["templates_S1_four_seed0"])
    assert len(matched["rows"]) == len(matched["rows_middle"]) == 3
    assert list(matched["scores"]) == [template_matching.TEMPLATES, template_matching.MIDDLE]
    both = made(picker_and_templates.planned("smoke", 0)["picker_and_templates_S1_seed0"])
    ways = {picker.PHYSICS, template_matching.TEMPLATES, picker_and_templates.BEST, picker_and_templates.BOTH}
    assert set(both["scores"]) == ways and len(both["rows"]) == 4 * 3


def test_deepfinders_tomograms_test_what_was_estimated_from_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    """Estimated from tomogram `fold`, trained and fitted on its scenes, tested on the other one."""
    monkeypatch.setenv("CRYOETGAN_RUNS", str(tmp_path))
    reference, row = torch.zeros(8, 8, 8), table({"a": [(20, 20, 20)]})
    reference[2:6, 2:6, 2:6] = 1
    used = {}

    def labelled(path):
        return np.full((4, 4, 4), float("tomo2" in path.name)), row, {"a": reference}

    def estimated(config, tomograms, *_):
        used["estimated"] = [float(v.mean()) for v, _ in tomograms]
        return "run", "noise of empty boxes"

    def compared(network, run, noise_power, own, tested_on, *_):
        assert noise_power == "noise of empty boxes"
        used.update(network=network, own=[v for v, _ in own], tested=[float(v.mean()) for v, _ in tested_on])
        return [{"source": "x", "class_name": "a", "picks": 1, "molecules": 2, "right": 1}]

    for name, stand_in in {
        "labelled": labelled,
        "estimated": estimated,
        "scenes_of": lambda run, references, number, *_: ((row, {"": k}) for k in range(number)),
        "train_picker": lambda tomograms, *_: [v for v, _ in tomograms],
        "compared": compared,
    }.items():
        monkeypatch.setattr(picker_and_templates, name, stand_in)
    plan = picker_and_templates.planned_foreign("smoke", 0)
    for fold, case in enumerate(plan.values()):
        result = case.make(tmp_path, case.config)
        assert used == {"estimated": [fold], "network": [0, 1], "own": [2], "tested": [1 - fold]}
        assert result["scores"]["x"]["f1"] == pytest.approx(2 / 3) and result["module"] == "paper.picker_and_templates"
    assert list(plan) == [f"deepfinder_picker_and_templates_{fold}_seed0" for fold in (0, 1)]


def test_a_learned_transfer_function_is_divided_by_the_power_of_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that passes everything, with noise of amplitude 2 but for a quarter of that along y."""
    shape, size = (16, 24, 32), 16
    along_y = torch.fft.fftfreq(size)[:, None].abs()
    amplitude = torch.where(along_y > 0.3, 0.5, 2.0).expand(size, size, size // 2 + 1)
    signal, noise = (torch.fft.irfftn(f, s=(size,) * 3) for f in (torch.ones_like(amplitude), amplitude))
    given = lambda G, recording, size, power=None: (signal, noise if power is None else power * noise)  # noqa: E731
    monkeypatch.setattr(wrong_input, "kernels", given)
    generator = SimpleNamespace(recordings=torch.tensor([[0.0, 0.0, -50.0, 70.0]]), tilt_range_deg=(-50.0, 70.0))
    run = SimpleNamespace(G=generator)
    factor = wrong_input.matched_filter(run, shape)
    seen = picking.seen_by_tilts(shape, -50, 70)
    assert (factor[seen == 0] == 0).all()
    inside = seen[:, 0] > 0
    torch.testing.assert_close(factor[:, 0][inside], torch.full_like(factor[:, 0][inside], 0.25), rtol=1e-3, atol=0)
    assert float(factor[:, 12][seen[:, 12] > 0].max()) < 1  # weak noise counts as half of its mean, not as it is
    torch.testing.assert_close(wrong_input.matched_filter(run, shape, torch.tensor(2.0)), factor / 4)  # of empty boxes
    assert set(wrong_input.transfer_by_shell(run, shape)) == {1.0}


def test_back_projected_noise_is_weak_at_low_frequencies_and_has_the_ratio_asked_for() -> None:
    scope, shape = DATASETS["S2"].microscope, (32, 48, 48)
    power = wrong_input._power(shape, scope, stream(0, "power"))
    seen = picking.seen_by_tilts(shape, scope.tilt_min_deg, scope.tilt_max_deg)
    x = torch.fft.rfftfreq(shape[2]).expand(seen.shape)
    low, middle = (float(power[(seen > 0) & (x > a) & (x < b)].mean()) for a, b in ((0, 0.05), (0.2, 0.3)))
    assert low < 0.5 * middle
    assert float(power[(seen == 0) & (x > 0.1)].mean()) < 0.3 * middle
    density = np.zeros(shape, np.float32)
    density[12:20, 20:28, 20:28] = 1
    noise = wrong_input._back_projected(shape, scope, stream(0, "noise"))
    made = wrong_input._in_noise(density, seen, noise, 0.05)
    clean = wrong_input._in_noise(density, seen, noise, 1e9)
    assert clean.var() / (made - clean).var() == pytest.approx(0.05, rel=0.01)


def test_off_centre_picks_are_two_voxels_off_along_each_axis() -> None:
    places = table({"a": [(100, 110, 120)] * 500})
    _, moved = wrong_input.moved_picks((np.zeros(1), places), 2 * VOXEL, np.random.default_rng(0))
    off = (moved[["x_A", "y_A", "z_A"]] - places[["x_A", "y_A", "z_A"]]) / VOXEL
    assert off.std().to_numpy() == pytest.approx(2, rel=0.1)
    assert abs(np.corrcoef(off.T) - np.eye(3)).max() < 0.2
    assert abs(off.mean()).max() < 0.3 and (moved["class_name"] == "a").all()
