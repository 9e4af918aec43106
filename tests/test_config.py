"""Configuration and notebook parameters: bad values fail with a sentence that names them."""

import dataclasses

import pytest

from cryoetgan_core import paper
from cryoetgan_core.config import PRESETS, PROFILES, RunConfig, make_config


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", ["S1", "S2"])
def test_every_profile_and_preset_builds(profile: str, preset: str, dataset: str) -> None:
    config = make_config(profile, dataset, preset)
    assert all(getattr(config, k) == v for k, v in PRESETS[preset].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_levl": 0.1}, "noise_levl"),
        ({"seed": "0"}, "'seed' is '0' \\(str\\); expected int"),
        ({"seed": True}, "'seed' is True"),
        ({"learning_rate": "1e-4"}, "'learning_rate'"),
        ({"adversarial": "hinge"}, "'adversarial' is 'hinge'; expected one of wasserstein"),
        ({"box": 16}, "'box' is 16; expected at least 17"),
        ({"batch": 0}, "'batch' is 0"),
        ({"snr": 0.0}, "'snr'"),
    ],
)
def test_bad_fields_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config("smoke", **changes)


def test_the_paper_profile_has_the_papers_sizes() -> None:
    s1, s2 = (make_config("paper", d) for d in ("S1", "S2"))
    assert (s1.box, s2.box, s1.width, s1.train_per_class) == (40, 28, 64, 400)
    assert s1.steps * s1.batch == 50 * 4 * 400


def test_a_changed_field_changes_the_hash() -> None:
    assert make_config("smoke").hash == make_config("smoke").hash
    assert make_config("smoke").hash != make_config("smoke", noise_level=0.3).hash


def test_a_new_field_renames_no_run() -> None:
    """A run made before a field existed is one that has its default."""
    config = make_config("smoke")
    told = dataclasses.asdict(config)
    longer = dataclasses.make_dataclass("Longer", [("new", int, 3)], bases=(RunConfig,), frozen=True)
    assert longer(**told).hash == config.hash != longer(**told, new=4).hash


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"profil": "smoke"}, "Unknown parameter 'profil'"),
        ({"seed": "1"}, "'seed' is '1' \\(str\\); expected int"),
        ({"profile": "huge"}, "expected one of smoke, quick, evening, paper"),
        ({"profile": 3}, "write -r profile 3"),
    ],
)
def test_notebook_parameters_are_checked(names: dict, message: str) -> None:
    namespace = {
        "__annotations__": {"profile": str, "seed": int},
        "profile": "smoke",
        "seed": 0,
        "pytest": pytest,
    } | names
    with pytest.raises(ValueError, match=message):
        paper.check_parameters(namespace)


def test_cells_can_be_run_again_in_the_same_session() -> None:
    """Names of the cells below are there then."""
    namespace = {"__annotations__": {"seed": int}, "seed": 0}
    paper.check_parameters(namespace)
    namespace["molecules"] = "ribosome"
    paper.check_parameters(namespace)
    with pytest.raises(ValueError, match="'seed' is '1'"):
        paper.check_parameters(namespace | {"seed": "1"})


def test_planned_runs_hold_every_figure_and_share_the_main_run() -> None:
    plan = paper.planned_runs("quick", [0, 1])
    assert "S1_adapted_seed0" in plan and "S2_adapted_seed1" in plan
    levels = PROFILES["quick"].noise_levels
    assert {0.0, 0.2, 0.5} <= set(levels)  # the paper's
    noise = {paper.run_name("S1", "adapted", 0, paper.noise_variant(v)): v for v in levels}
    assert {name: plan[name].noise_level for name in noise} == noise
    names = [paper.run_name("S1", "adapted", 0, paper.ablation_variant(v)) for v in paper.ABLATION]
    switches = {(plan[n].adversarial, plan[n].spectral_norm) for n in names}
    assert len(switches) == 4


def test_resolve_run_refuses_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="planned are S1_adapted"):
        paper.resolve_run("smoke", "S3_adapted_seed0", "", "", 0, "{}")
    with pytest.raises(ValueError, match="expected JSON"):
        paper.resolve_run("smoke", "", "S1", "adapted", 0, "{noise}")
    with pytest.raises(ValueError, match="'dataset' is 'own'; expected one of S1, S2"):
        paper.resolve_run("smoke", "", "own", "adapted", 0, "{}")
    with pytest.raises(ValueError, match="names and values"):
        paper.resolve_run("smoke", "", "S1", "adapted", 0, "[1]")
    name, config = paper.resolve_run("smoke", "", "S1", "adapted", 2, '{"noise_level": 0.7}')
    assert config.noise_level == 0.7 and config.hash in name
    with pytest.raises(ValueError, match="file that exists"):
        paper.parse_maps("ribosome=/nowhere.mrc")
    with pytest.raises(ValueError, match="whole numbers"):
        paper.parse_seeds("a b")


def test_the_profile_follows_from_the_files(capsys: pytest.CaptureFixture) -> None:
    assert paper.profile_for("", "") == "smoke"
    assert paper.profile_for("", "/data/particles.star") == "quick"
    assert paper.profile_for("paper", "/data/particles.star") == "paper"
    capsys.readouterr()
    assert paper.profile_for("smoke", "/data/particles.star") == "smoke"
    assert "Markdown" in capsys.readouterr().out  # the warning that the notebook shows in bold
    assert paper.profile_for("smoke", "") == "smoke" and capsys.readouterr().out == ""


def test_a_profile_may_be_left_open_only_where_files_decide() -> None:
    files = {"__annotations__": {"profile": str, "subtomograms": str}, "profile": "", "subtomograms": ""}
    paper.check_parameters(files)
    with pytest.raises(ValueError, match="Parameter 'profile' is ''"):
        paper.check_parameters({"__annotations__": {"profile": str}, "profile": ""})
