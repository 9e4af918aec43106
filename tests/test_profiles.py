"""What runs on a cluster: every rule that the Slurm profile names exists and a dry run asks for what it says;
Kubernetes jobs call what is there.
"""

import re
from pathlib import Path

import nbformat
import pytest
import yaml
from common import ROOT, snakemake

from cryoetgan_core import paper

PROFILES = ROOT / "profiles"


def test_a_dry_run_asks_for_the_resources_of_the_slurm_profile(tmp_path: Path, checkout: Path) -> None:
    """And every case of the paper's profile is planned."""
    settings = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    assert settings["executor"] == "slurm"
    here = {k: v for k, v in settings.items() if k != "executor"}  # a plugin of a cluster
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(here))
    seeds = [0, 1, 2]
    told = ["all", "-n", "--workflow-profile", str(tmp_path), "--config", "profile=paper", "seeds=0 1 2"]
    made = snakemake(checkout, *told)
    assert made.returncode == 0, made.stderr[-2000:]
    check_plan(made.stdout + made.stderr, "paper", seeds, 12)
    wanted = {rule: settings["default-resources"] | own for rule, own in settings["set-resources"].items()}
    for rule, resources in wanted.items():
        found = re.search(rf"^rule {rule}:.*?resources: ([^\n]*)", made.stdout, re.M | re.S)
        assert found, rule
        for name, value in resources.items():
            assert f"{name}={value}" in found[1], (rule, name)
    table = re.search(r"^rule figures_1_to_4:.*?resources: ([^\n]*)", made.stdout, re.M | re.S)[1]
    assert f"mem_mb={settings['default-resources']['mem_mb']}" in table and "gpu" not in table


def test_every_case_of_the_quick_profile_is_planned(checkout: Path) -> None:
    made = snakemake(checkout, "-n", "--config", "profile=quick", "seeds=0")
    assert made.returncode == 0, made.stderr[-2000:]
    check_plan(made.stdout + made.stderr, "quick", [0], 10)


def check_plan(printed: str, profile: str, seeds: list[int], runs: int) -> None:
    planned = dict(re.findall(r"^(\w+) +(\d+)$", printed, flags=re.M))
    assert int(planned["simulate_data"]) == 2 * len(seeds) and int(planned["train"]) == runs * len(seeds)
    # trained by a rule of their own; made by name, where its library is, or of the weights of the repository
    apart = "runs competitor denoiser labels long_runs picker picker_and_templates switches template_matching"
    apart += " wrong_input" + ("" if profile == "quick" else " pick_errors whole_tomograms")
    apart = {f"paper.{m}" for m in apart.split()}
    cases = paper.planned_cases(profile, seeds).items()
    made = [name for name, case in cases if case.module not in apart and not re.search("_fine-|_uncorrected_", name)]
    assert int(planned["measure"]) == len(made) > 40
    notebooks = {"figures_1_to_4", "noise_and_loss", "metric_audit", "training_data", "physics_measurements"}
    assert notebooks <= set(planned)


@pytest.mark.parametrize("name", ["figures", "generate"])
def test_kubernetes_jobs_are_whole_and_call_what_is_there(name: str) -> None:
    job = yaml.safe_load((PROFILES / "kubernetes" / f"{name}.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    words = " ".join(container["command"]).split()
    if name == "figures":
        assert re.search(r"^figures:", (ROOT / "Makefile").read_text(), re.M) and words[:2] == ["make", "figures"]
        return
    notebook = next(w for w in words if w.endswith(".ipynb"))
    parameters = next(
        c.source
        for c in nbformat.read(ROOT / notebook, as_version=4).cells
        if "parameters" in c.metadata.get("tags", [])
    )
    for flag, parameter in zip(words, words[1:], strict=False):
        assert flag not in ("-p", "-r") or f"{parameter}:" in parameters
    assert job["spec"]["completions"] == int(words[words.index("shards") + 1])
