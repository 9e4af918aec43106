"""What runs on a cluster: every rule that the Slurm profile names exists and a dry run asks for what it says;
Kubernetes jobs call what is there.
"""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "profiles"


def test_a_dry_run_asks_for_the_resources_of_the_slurm_profile(tmp_path: Path, checkout: Path) -> None:
    settings = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    assert settings["executor"] == "slurm"
    here = {k: v for k, v in settings.items() if k != "executor"}  # a plugin of a cluster
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(here))
    command = [sys.executable, "-m", "snakemake", "all", "-n", "--workflow-profile", str(tmp_path), "--cores", "8"]
    made = subprocess.run(
        [*command, "--config", "profile=paper", "seeds=0"], cwd=checkout, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr[-2000:]
    wanted = {rule: settings["default-resources"] | own for rule, own in settings["set-resources"].items()}
    for rule, resources in wanted.items():
        found = re.search(rf"^rule {rule}:.*?resources: ([^\n]*)", made.stdout, re.M | re.S)
        assert found, rule
        for name, value in resources.items():
            assert f"{name}={value}" in found[1], (rule, name)
    table = re.search(r"^rule figures_1_to_4:.*?resources: ([^\n]*)", made.stdout, re.M | re.S)[1]
    assert f"mem_mb={settings['default-resources']['mem_mb']}" in table and "gpu" not in table


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
