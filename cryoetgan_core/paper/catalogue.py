"""Everything that is measured, by name: runs of the paper's model, the audit, the downstream benchmark, and the physics
generator.
"""

import json
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ..config import RunConfig
from ..evaluation.downstream import benchmark, generated_set
from ..generation import load_run
from ..reproducibility import paths
from ..reproducibility.files import write_atomically
from ..reproducibility.provenance import code_hash
from . import (
    cell,
    cell_left_out,
    competitor,
    deepfinder_picker,
    denoiser,
    densities,
    foreign,
    labels,
    long_runs,
    measurements,
    mismatch,
    parts,
    pick_errors,
    picker,
    picker_and_templates,
    proof,
    reach,
    runs,
    spread,
    switches,
    template_matching,
    whole_tomograms,
    wrong_input,
)
from .case import Case
from .plan import planned_runs
from .record import RUNS
from .results import read_results
from .simulated_sets import default_device, has_data, load_data, simulate_data

LEAST_DRAWS = 5  # of Table 7: its intervals are over them
OF_STORED_DATA = ("paper.runs", "paper.measurements", "paper.labels", "paper.spread", "paper.switches")  # by module


def reads_stored_data(case: Case) -> bool:
    """Whether a case reads the profile's simulated set from disk; others simulate their own."""
    return case.module in OF_STORED_DATA


def planned_cases(profile: str, seeds: list[int]) -> dict[str, Case]:
    """Every result that the figures and tables of a profile read, by name."""
    of_runs = planned_runs(profile, seeds) | long_runs.planned(profile, seeds[0])
    cases = {name: Case(config, partial(make_run, name), module=RUNS) for name, config in of_runs.items()}
    draws = compared_draws(seeds)
    each = {name: case for draw in draws for name, case in proof.planned(profile, [draw]).items()}
    cases |= {name: each[name] for name in proof.comparison_names(profile, draws)}
    cases |= measurements.planned(profile, seeds) | proof.planned(profile, seeds) | switches.planned(profile)
    cases |= long_runs.measured(profile, seeds[0])
    # of the first draw
    for module in (
        competitor,
        denoiser,
        densities,
        labels,
        mismatch,
        pick_errors,
        picker,
        picker_and_templates,
        reach,
        spread,
        template_matching,
        whole_tomograms,
        wrong_input,
    ):
        cases |= module.planned(profile, seeds[0])
    return cases


def compared_draws(seeds: Sequence[int]) -> list[int]:
    """Data draws of Table 7: at least LEAST_DRAWS, where several are asked for."""
    return sorted({*seeds, *range(LEAST_DRAWS)}) if len(seeds) > 1 else list(seeds)


def make_run(name: str, config: RunConfig) -> dict:
    """Train and measure a run (`runs.make_run`), and train probes on its volumes: "downstream", rows of accuracy on
    real test particles.
    """
    found, domains = runs.make_run(name, config), load_data(config)
    sets = generated_set(load_run(paths.runs(config.profile) / name, default_device()), domains)
    rows = benchmark(sets, domains, seed=config.seed, **proof.small_probes(config))
    return found | {"downstream": rows}


def foreign_cases(profile: str, seed: int) -> dict[str, Case]:
    """Results on files that are not part of the project, by name."""
    cases = {}
    for module in (foreign, parts, cell, cell_left_out, deepfinder_picker):
        cases |= module.planned(profile, seed)
    for module in (pick_errors, template_matching, picker_and_templates):
        cases |= module.planned_foreign(profile, seed)
    return cases


def find_case(profile: str, name: str) -> Case:
    """The case of that name, of any seed.

    Raises ValueError for a name that is none; the message lists those of seed 0.
    """
    tail = name.rsplit("seed", 1)[-1]
    cases = _cases(profile, int(tail) if tail.isdigit() else 0)
    if name not in cases:
        known = ", ".join(_cases(profile, 0))
        raise ValueError(f"There is no result {name!r}; expected one of {known} (and other seeds).")
    return cases[name]


@lru_cache(32)  # it makes some hundred configurations, and a notebook asks for dozens of results
def _cases(profile: str, seed: int) -> dict[str, Case]:
    """All cases of a seed; not to be changed."""
    return planned_cases(profile, [seed]) | foreign_cases(profile, seed)


def make_result(profile: str, name: str, files: str = "") -> dict:
    """Make a result by its name and write it (`write_result`); `files` is the folder of files that are not part of the
    project.
    """
    case, start = find_case(profile, name), time.perf_counter()
    if profile == "smoke":  # everywhere else the Snakefile makes first what a case needs
        if reads_stored_data(case) and not has_data(case.config):
            simulate_data(case.config)
        if case.needs and not (paths.runs(profile) / case.needs / "weights.safetensors").exists():
            make_result(profile, case.needs)
    result = _made_of_files(case, files) if case.files else case.make(case.config)
    return write_result(profile, name, result | {"seconds": round(time.perf_counter() - start, 1)})


def _made_of_files(case: Case, files: str) -> dict:
    if not files or not all((Path(files) / name).exists() for name in case.files):
        raise FileNotFoundError(f"files {files!r} holds not all of {', '.join(case.files)}: give the folder that does.")
    # what these results run is all of the module, whichever one measured them
    return case.make(Path(files), case.config) | {"module": case.module, "code_hash": code_hash(case.module)}


def write_result(profile: str, name: str, result: dict) -> dict:
    """Write a result to `paths.results`: its numbers as NAME.json and its slices, where it has some, as NAME.npz;
    returns the numbers.
    """
    numbers, slices = {k: v for k, v in result.items() if k != "slices"}, result.get("slices")
    folder = paths.results(profile)
    folder.mkdir(parents=True, exist_ok=True)
    if slices is not None:

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **{k: v.astype(np.float16) for k, v in slices.items()})

        write_atomically(folder / f"{name}.npz", write)
    write_atomically(folder / f"{name}.json", lambda p: p.write_text(json.dumps(numbers, indent=1)))
    return numbers


def results_of(profile: str, names: list[str]) -> dict[str, dict]:
    """Results by name, as `read_results` gives them; in the smoke profile missing ones are made on the spot."""
    if profile == "smoke":
        for name in names:
            if not (paths.results(profile) / f"{name}.json").exists():
                make_result(profile, name)
    return read_results(profile, {name: find_case(profile, name).config for name in names})
