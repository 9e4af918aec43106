"""The cluster profiles: every rule they name exists, and a dry run asks for what they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROFILES = sorted((ROOT / "profiles").iterdir())
# Executors and object stores are plugins of a cluster, which a dry run here has not
OF_A_CLUSTER = ("executor", "kubernetes-namespace", "container-image", "default-storage-provider", "default-storage-prefix")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.name)
def test_a_dry_run_asks_for_the_resources_of_the_profile(profile: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    assert settings["executor"] == profile.name
    here = {k: v for k, v in settings.items() if k not in OF_A_CLUSTER}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(here))
    # a copy, since a dry run takes Snakemake's lock
    for name in ("Snakefile", "notebooks", "cryoetgan_core", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "snakemake", "all", "proof", "-n", "--workflow-profile", str(tmp_path), "--cores", "8"]
    made = subprocess.run([*command, "--config", "profile=paper", "seeds=0"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    wanted = {rule: settings["default-resources"] | own for rule, own in settings["set-resources"].items()}
    for rule, resources in wanted.items():
        found = re.search(rf"^rule {rule}:.*?resources: ([^\n]*)", made.stdout, re.M | re.S)
        assert found, rule
        for name, value in resources.items():
            assert f"{name}={str(value).strip(chr(39))}" in found[1], (rule, name)
    table = re.search(r"^rule fig1_overview:.*?resources: ([^\n]*)", made.stdout, re.M | re.S)[1]
    assert f"mem_mb={settings['default-resources']['mem_mb']}" in table and "gpu" not in table
