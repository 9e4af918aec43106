"""Baselines, controls, the two-sample test, repeats against recordings, and the downstream benchmark, on cases whose
answer is known.
"""

import dataclasses
import math

import pytest
import torch
from common import rng
from sklearn.metrics import roc_auc_score

from cryoetgan_core.config import DATASETS, make_config
from cryoetgan_core.evaluation import classification
from cryoetgan_core.evaluation.baselines import (
    CTF,
    CTF_AND_WEDGE,
    FORMULAS,
    OFF,
    RELEASED,
    WHITE,
    baseline,
    controls,
    ctf_factor,
)
from cryoetgan_core.evaluation.classification import (
    STARTS,
    auc,
    build_classifier,
    probe_logits,
    train_classifier,
    train_probe,
    two_sample_scores,
)
from cryoetgan_core.evaluation.compare import compare_repeats
from cryoetgan_core.evaluation.downstream import GENERATED, REAL, benchmark, gap_closed
from cryoetgan_core.paper import plotting
from cryoetgan_core.simulator.microscope import transfer
from cryoetgan_core.simulator.sets import class_references, density_maps, poses_of, subtomograms
from cryoetgan_core.simulator.specimen import rotate_volume
from cryoetgan_core.volumes.domains import Domains


@pytest.fixture(scope="module")
def small() -> tuple:
    """Two classes of S1 in boxes of 24, twenty of each in every half: configuration, references, domains."""
    config = make_config("smoke", "S1", snr=0.3, box=24)
    voxel = DATASETS["S1"].field_of_view_A / 24
    references = class_references(("ribosome", "tric"), 24, voxel)
    x = [density_maps(references, 20, 24, voxel, rng(i)) for i in (1, 2)]
    y = [subtomograms(references, 20, 24, voxel, DATASETS["S1"].microscope, rng(i), snr=0.3) for i in (3, 4)]
    return config, references, Domains(x[0], x[1], y[0], y[1])


def test_auc_equals_scikit_learn() -> None:
    negative, positive = (
        torch.randn(40, generator=rng()).round(decimals=1),
        torch.randn(30, generator=rng(1)).round(decimals=1) + 0.5,
    )
    labels = [0] * 40 + [1] * 30
    assert auc(negative, positive) == pytest.approx(roc_auc_score(labels, torch.cat([negative, positive])), abs=1e-9)


def test_two_sample_test_tells_different_sets_apart_and_equal_ones_not() -> None:
    a, b, c = torch.randn(3, 120, 16, 16, 16, generator=rng())
    assert all(0.3 < auc(*fold) < 0.7 for fold in two_sample_scores(a, b))
    assert all(auc(*fold) > 0.95 for fold in two_sample_scores(a, 0.8 * c[:90]))


def test_a_probe_learns_what_can_be_learned() -> None:
    labels = torch.arange(60) % 3
    volumes = torch.randn(60, 16, 16, 16, generator=rng()) + labels.view(-1, 1, 1, 1)
    network = train_probe(volumes, labels, 3, steps=60)
    fresh = torch.randn(60, 16, 16, 16, generator=rng(1)) + labels.view(-1, 1, 1, 1)
    assert (probe_logits(network, fresh).argmax(1) == labels).double().mean() > 0.9
    twice = [probe_logits(train_probe(volumes, labels, 3, steps=5), fresh) for _ in range(2)]
    assert torch.equal(*twice)


@pytest.mark.parametrize("kind", [*FORMULAS, RELEASED])
def test_baselines_are_standardised_and_noisy_as_asked(kind: str, small: tuple) -> None:
    config, _, domains = small
    x, voxel_size_A = domains.volumes("X_train"), domains.X_train.voxel_size_A
    made = baseline(kind, x, voxel_size_A, DATASETS["S1"].microscope, config.snr, rng())
    assert abs(float(made.mean())) < 1e-4 and float(made.std()) == pytest.approx(1, abs=1e-4)
    spectrum = torch.fft.fftn(made, dim=(1, 2, 3)).abs().square().mean((0, 2))  # (kz, kx)
    empty = float(spectrum[8, 1] / spectrum[1, 8])  # along the beam: in the wedge
    assert empty < 1e-6 if kind in (RELEASED, CTF_AND_WEDGE) else 0.3 < empty < 3
    if kind in (RELEASED, CTF_AND_WEDGE):
        return
    # another draw of the noise leaves the signal: its share of the variance is that of the SNR
    again = baseline(kind, x, voxel_size_A, DATASETS["S1"].microscope, config.snr, rng(1))
    shared = torch.corrcoef(torch.stack([made.flatten(), again.flatten()]))[0, 1]
    mean_power = float(x.mean() ** 2 / x.var()) if kind == WHITE else 0.0
    assert float(shared) == pytest.approx(config.snr / (1 + config.snr), abs=0.03 + mean_power)


def test_the_ctf_of_the_formula_is_the_microscopes() -> None:
    """Against the two-dimensional CTF by which the simulator records, on the plane kz = 0."""
    scope, box, voxel_size_A = DATASETS["S2"].microscope, 24, 11.0
    optics = {k: getattr(scope, k) for k in ("voltage_kV", "cs_mm", "amplitude_contrast")}
    wanted = transfer.ctf(torch.tensor(4.0), (box, box), voxel_size_A, **optics)
    found = ctf_factor(box, voxel_size_A, scope, 4.0)[0]
    torch.testing.assert_close(found, wanted.to(found), atol=0.02, rtol=0)
    assert not torch.allclose(found, ctf_factor(box, voxel_size_A, scope, 5.0)[0], atol=0.1)


def test_the_wrong_defocus_of_a_formula_is_that_of_its_name(small: tuple) -> None:
    _, _, domains = small
    x, voxel_size_A, scope = domains.volumes("X_train"), domains.X_train.voxel_size_A, DATASETS["S1"].microscope
    for name, error_um in OFF.items():
        other = dataclasses.replace(scope, defocus_um=scope.defocus_um + error_um)
        wanted = baseline(CTF, x, voxel_size_A, other, 0.3, rng())
        torch.testing.assert_close(baseline(name, x, voxel_size_A, scope, 0.3, rng()), wanted)


def test_controls_are_what_their_names_say(small: tuple) -> None:
    config, references, domains = small
    sets = controls(domains, references, config)
    assert all(v.shape == domains.volumes("Y_test").shape and len(labels) == len(v) for v, labels in sets.values())
    std = {name: float(volumes.std()) for name, (volumes, _) in sets.items()}
    assert std["noise x 0.98"] < std["real, another draw 1"] < std["noise x 1.02"] < 1.05 * std["noise x 0.98"]
    assert std["particle removed"] < std["noise x 0.98"]
    _, labels = sets["tric alone"]
    assert labels.unique().tolist() == [1]


def test_subtomograms_of_given_poses_show_those_poses(small: tuple) -> None:
    _, references, domains = small
    voxel = domains.X_test.voxel_size_A
    rotations, shifts = poses_of(domains.X_test.table)
    turned = rotate_volume(references["ribosome"], rotations[:3], shifts[:3], voxel, box=24, upsample=2)
    torch.testing.assert_close(turned.float(), domains.volumes("X_test")[:3], atol=1e-4, rtol=0)
    made = subtomograms(
        references, 20, 24, voxel, DATASETS["S1"].microscope, rng(5), snr=1e6, poses=(rotations, shifts)
    )
    densities = domains.volumes("X_test").flatten(1)
    pairs = torch.corrcoef(torch.cat([torch.from_numpy(made.volumes).flatten(1), densities]))[:40, 40:]
    assert (pairs.argmax(1) == torch.arange(40)).double().mean() > 0.9


def test_repeats_of_a_perfect_and_of_a_flat_generator() -> None:
    axis = torch.arange(16) - 8.0
    r = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    shape = torch.randn(2, 1, 16, 16, 16, generator=rng(9))
    deviation = 0.5 + (r < 6)
    recorded, perfect = (shape + deviation * torch.randn(2, 60, 16, 16, 16, generator=rng(i)) for i in (0, 1))
    found = compare_repeats(recorded, perfect)
    assert found["molecule"] > 0.85 and found["uncertainty_rank"] > 0.3
    assert found["molecule_ceiling"] == pytest.approx(found["molecule"], abs=0.05)
    few = compare_repeats(recorded, perfect[:, :8])  # the number of generations does not show
    assert found["uncertainty_ratio"] == pytest.approx(1, abs=0.02) and few["uncertainty_ratio"] == pytest.approx(
        1, abs=0.05
    )
    empty = compare_repeats(recorded, 0.1 * torch.randn(2, 60, 16, 16, 16, generator=rng(2)))
    assert empty["molecule"] < 0.4 and empty["uncertainty_ratio"] > 5 and abs(empty["uncertainty_rank"]) < 0.05


def test_downstream_finds_that_noise_teaches_nothing_and_real_does(small: tuple) -> None:
    _, _, domains = small
    noise = torch.randn(domains.volumes("X_train").shape, generator=rng())
    y = domains.volumes("Y_train")
    sets = {GENERATED: noise, REAL: (y - y.mean()) / y.std()}
    rows = benchmark(sets, domains, repeats=1, shares=(1.0,), real_shares=(0.2,), steps=40)

    def accuracy(source: str, synthetic: int, real: int) -> float:
        return max(r["accuracy"] for r in rows if (r["source"], r["synthetic"], r["real"]) == (source, synthetic, real))

    assert accuracy(REAL, 0, 20) > 85 and accuracy(GENERATED, 20, 0) < 75
    assert accuracy(GENERATED, 20, 4) > accuracy(GENERATED, 20, 0)
    assert {r["real"] for r in rows if r["source"] == REAL} == {4, 20}


def test_gap_closed_is_zero_for_the_best_formula_and_one_for_real() -> None:
    closed = gap_closed({WHITE: 10.0, CTF: 40.0, GENERATED: 70.0, REAL: 100.0})
    assert closed == {WHITE: -0.5, CTF: 0.0, GENERATED: 0.5, REAL: 1.0}
    assert math.isnan(gap_closed({CTF: 40.0, REAL: 40.0})[REAL])


def test_downstream_intervals_are_over_draws_not_over_probes() -> None:
    def result(seed: int, accuracies: list[float]) -> dict:
        rows = [
            {"source": CTF, "synthetic": 9, "real": 0, "repeat": i, "accuracy": a} for i, a in enumerate(accuracies)
        ]
        rows += [{"source": REAL, "synthetic": 0, "real": 9, "repeat": 0, "accuracy": 95.0}]
        return {"rows": rows, "config": {"seed": seed}}

    # probes of one draw differ by 40 points, their means by none
    table = plotting.downstream_table(
        [result(0, [50.0, 90.0]), result(1, [60.0, 80.0]), result(2, [70.0, 70.0])]
    ).set_index("trained on")
    assert table.loc[CTF].iloc[0] == "70.0 in each" and table.loc[CTF, "draws"] == 3
    alone = plotting.downstream_table([result(0, [50.0, 90.0])]).set_index("trained on")
    assert alone.loc[CTF].iloc[0] == "70.0"


def test_audit_marks_the_fooled_and_the_oversensitive() -> None:
    def entry(value: float) -> dict:
        return {"metrics": dict.fromkeys(plotting.AUDITED, value)}

    # 95 % of further ones: 0.90 to 1.10
    perfect = {f"real, another draw {k}": entry(value) for k, value in enumerate((0.98, 1.0, 1.02))}
    audit = {"controls": {**perfect, "noise x 0.98": entry(0.5), "noise x 1.02": entry(1.05), "gross": entry(2.0)}}
    table = plotting.audit_table(audit, {}).set_index("metric")
    # precision ends at 1
    assert table.loc["precision"].iloc[0] == "1.00 [0.90, 1.00]" and table.loc["fid"].iloc[0] == "1.00 [0.90, 1.10]"
    # more precision fools, a larger FID does not
    assert table.loc["precision", "gross"] == "2.00*" and table.loc["fid", "gross"] == "2.00"
    assert table.loc["fid", "noise x 0.98"] == "0.50!" and table.loc["fid", "noise x 1.02"] == "1.05"
    assert table.loc["precision", "fooled by"] == 1 and table.loc["fid", "fooled by"] == 0


def test_classes_never_named_are_found() -> None:
    run = {"classes": ["a", "b"], "confusion": [[0, 7], [2, 5]]}
    assert plotting.never_named({"run": run, "whole": run | {"confusion": [[1, 6], [2, 5]]}}) == {"run": {"a": 7}}


def test_a_reference_classifier_that_never_names_a_class_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    config, labels = make_config("smoke", "S1", "adapted"), torch.arange(3).repeat(4)

    def trained(*starts: list[int]) -> tuple[list[int], int]:
        """Stand-ins for classifiers: the name that each gives each class."""
        begun = []

        def train(config, volumes, labels, classes, start, device):
            begun.append(start)
            return starts[start]

        def predict(names, volumes):
            return torch.nn.functional.one_hot(torch.tensor(names)[labels], 3).float(), None

        monkeypatch.setattr(classification, "_train_classifier", train)
        monkeypatch.setattr(classification, "predict", predict)
        return train_classifier(config, torch.zeros(12, 1, 4, 4, 4), labels, classes=3), len(begun)

    assert trained([0, 1, 2]) == ([0, 1, 2], 1)
    assert trained([0, 1, 1], [0, 1, 2]) == ([0, 1, 2], 2)  # class 2 was never named
    assert trained([0, 0, 0], [0, 1, 1], [1, 1, 1]) == ([0, 1, 1], STARTS)  # none is whole: the one that reads most
    weights = [build_classifier(config, 3, start).logits.weight for start in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
