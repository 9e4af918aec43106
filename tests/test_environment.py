"""environment.yml (conda), pyproject.toml and the pip lock describe one environment."""

import re
import tomllib

import yaml
from common import ROOT

CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def split(requirement: str) -> tuple[str, str]:
    name, specifier = re.match(r"([A-Za-z0-9_.-]+)\s*(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name).lower(), specifier.replace(" ", "")


def wanted() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict(split(r) for r in project["dependencies"] + project["optional-dependencies"]["test"])


def test_conda_and_pip_ask_for_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "cryoetgan"
    assert set(environment["channels"]) == {"conda-forge", "nodefaults"}
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    found = dict(split(r) for r in conda + pip if not r.startswith(("python ", "pip")))
    assert found == wanted()


def test_lock_pins_every_requirement_within_its_range() -> None:
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[^\s]+", line) for line in lines)
    locked = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    assert locked["torch"] == "2.13.0"

    def number(version: str) -> tuple[int, ...]:
        return tuple(int(n) for n in re.findall(r"\d+", version)[:3])

    for name, specifier in wanted().items():
        operator, version = re.match(r"(==|>=)(.*)", specifier).groups()
        assert number(locked[name]) >= number(version), name
        assert operator == ">=" or locked[name] == version


def test_the_files_a_user_expects_are_there() -> None:
    for name in ("README.md", "LICENSE", "CITATION.cff", "Makefile", "Snakefile", "environment.yml", ".ci/run"):
        assert (ROOT / name).is_file(), name
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["preferred-citation"]["doi"] == "10.3389/fphys.2022.760404"
