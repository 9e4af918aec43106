"""What generations vary in, and whether that predicts errors: formulae against known answers."""

import numpy as np
import pytest
import torch

from cryoetgan_core.config import make_config
from cryoetgan_core.paper import labels, plotting, spread, switches


def test_a_calibrated_prediction_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    deviation = rng.uniform(0.5, 2.0, 40_000)
    error = deviation * rng.standard_normal(40_000)
    right = spread.reliability(deviation, error)
    assert right["ence"] < 0.03 and right["inside_90"] == pytest.approx(0.9, abs=0.01)
    assert right["found"] == pytest.approx(right["predicted"], rel=0.06)
    small = spread.reliability(deviation / 2, error)
    assert small["ence"] == pytest.approx(1.0, abs=0.06) and small["inside_90"] < 0.65
    blind = spread.reliability(deviation, 1.5 * rng.standard_normal(40_000))  # it does not know where errors are large
    assert blind["ence"] > 0.2 and np.ptp(blind["found"]) < 0.1


def test_a_difference_of_variances_keeps_its_sign() -> None:
    assert spread.deviation_of(np.full((4, 4, 4), 0.25)) == pytest.approx(0.5)
    assert spread.deviation_of(np.full((4, 4, 4), -0.25)) == pytest.approx(-0.5)


def test_volumes_take_grey_values_and_power_of_others() -> None:
    rng = torch.Generator().manual_seed(0)
    made, real = torch.randn((6, 8, 8, 8), generator=rng), torch.rand((5, 8, 8, 8), generator=rng)
    matched = labels.with_histogram(made, real)
    assert matched.mean() == pytest.approx(float(real.mean()), abs=0.01)
    assert matched.std() == pytest.approx(float(real.std()), abs=0.01)
    in_order = matched.flatten()[made.flatten().argsort()]
    assert (in_order.diff() >= 0).all()
    power = torch.fft.rfftn(labels.with_power(made, real), dim=(1, 2, 3)).abs().square().mean(0)
    torch.testing.assert_close(power, torch.fft.rfftn(real, dim=(1, 2, 3)).abs().square().mean(0), rtol=1e-3, atol=1e-3)


def test_a_switch_is_resolved_where_both_draws_agree() -> None:
    low, high = [1.0, 2, 3, 4, 5], [6.0, 7, 8, 9, 10]
    assert switches.resolved([high, high], [low, low])[0]
    assert not switches.resolved([high, low], [low, high])[0]  # opposite directions
    assert not switches.resolved([high, low], [low, low])[0]  # one draw only


def test_the_table_of_switches_says_what_differs() -> None:
    def rows(values: list[float]) -> dict:
        return {"rows": [{"seed": i, "on_real": v, "fid": 100 - v} for i, v in enumerate(values)], "classes": "abcd"}

    results = {"switch_draw0": rows([40, 41, 42, 43, 44]), "switch_draw1": rows([50, 51, 52, 53, 54])}
    results |= {"switch_b_draw0": rows([70, 71, 72, 73, 74]), "switch_b_draw1": rows([80, 81, 82, 83, 30])}
    results |= {"switch_c_draw0": rows([40, 45, 42, 43, 41]), "switch_c_draw1": rows([50, 51, 52, 53, 54])}
    table = plotting.switch_table(results, {"": "plain", "b": "B", "c": "C"}, (0, 1), ("fid",)).set_index("variant")
    assert table.loc["plain", "on real: differs"] == "reference" and table.loc["plain", "failed"] == "0 of 10 (0 + 0)"
    assert table.loc["C", "on real: differs"] == "–" and table.loc["B", "on real (%), draw 0"] == "72 [70, 74]"
    assert table.loc["B", "failed"] == "1 of 10 (0 + 1)" and table.loc["B", "on real: differs"] == "–"  # 30 spoils it
    results["switch_b_draw1"] = rows([80, 81, 82, 83, 84])
    table = plotting.switch_table(results, {"": "plain", "b": "B"}, (0, 1), ("fid",)).set_index("variant")
    assert table.loc["B", "on real: differs"] == "higher" and table.loc["B", "fid: differs"] == "lower"


def test_a_training_near_chance_or_that_diverged_has_failed() -> None:
    assert switches.failures([26.0, float("nan"), 80.0, 90.0], classes=4) == 2


def test_every_switch_has_both_draws_and_differs_from_the_recipe_as_it_is() -> None:
    plan = switches.planned("quick")
    assert len(plan) == 2 * len(switches.variants())
    assert len({case.config.hash for case in plan.values()}) == len(plan) - 2  # the recipe as it is stands there twice
    plain = make_config("quick", "S1", seed=0, data_seed=1)
    assert plan["switch_draw1"].config == plain
