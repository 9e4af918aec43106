"""Everything that is measured, by name: runs of the paper's model, the audit, the downstream benchmark, and the physics
generator.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
    proof,
    reach,
    runs,
    spread,
    switches,
    template_matching,
    wrong_input,
)
from .plan import planned_runs
from .results import read_results
from .simulated_sets import default_device, has_data, load_data, simulate_data

LEAST_DRAWS = 5  # of Table 7: its intervals are over them


@dataclass(frozen=True)
class Case:
    """A result to be: its configuration, the call that makes it, and the module whose code it depends on."""

    config: RunConfig
    make: Callable[[], dict]
    module: str
    needs: str = ""  # the run whose weights it reads
    reads: str = ""  # another result that it reads

    @property
    def of_stored_data(self) -> bool:
        """Whether it reads the profile's simulated set from disk; others simulate their own."""
        return self.module in ("paper.runs", "paper.measurements", "paper.labels", "paper.spread", "paper.switches")


def planned_cases(profile: str, seeds: list[int]) -> dict[str, Case]:
    """Every result that the figures and tables of a profile read, by name."""
    cases = {
        name: Case(config, lambda name=name, config=config: make_run(name, config), "paper.runs")
        for name, config in (planned_runs(profile, seeds) | long_runs.planned(profile, seeds[0])).items()
    }
    for name, (config, make, needs) in measurements.planned(profile, seeds).items():
        cases[name] = Case(config, make, "paper.measurements", needs)
    of_runs = {"labels": labels.planned, "long_runs": long_runs.measured, "spread": spread.planned}
    for module, plan in of_runs.items():  # of the first draw
        for name, (config, make, needs) in plan(profile, seeds[0]).items():
            cases[name] = Case(config, make, f"paper.{module}", needs)
    cases |= {name: Case(config, make, "paper.proof") for name, (config, make) in proof.planned(profile, seeds).items()}
    draws = compared_draws(seeds)
    each = {name: case for draw in draws for name, case in proof.planned(profile, [draw]).items()}
    cases |= {name: Case(*each[name], "paper.proof") for name in proof.comparison_names(profile, draws)}
    for module in (
        competitor,
        denoiser,
        densities,
        mismatch,
        pick_errors,
        picker,
        reach,
        template_matching,
        wrong_input,
    ):  # of the first draw
        name = f"paper.{module.__name__.rsplit('.', 1)[-1]}"
        cases |= {case: Case(config, make, name) for case, (config, make) in module.planned(profile, seeds[0]).items()}
    cases |= {name: Case(config, make, "paper.switches") for name, (config, make) in switches.planned(profile).items()}
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
    rows = benchmark(sets, domains, seed=config.seed, curves=(), **proof.small_probes(config))
    return found | {"downstream": rows}


def foreign_cases(profile: str, seed: int, files: str = "") -> dict[str, Case]:
    """Results on files that are not part of the project (of `foreign`, `parts`, `cell`, `cell_left_out`,
    `deepfinder_picker`, `pick_errors` and `template_matching`), by name; `files` is their folder.
    """

    def make(case: foreign.Foreign, module: str) -> dict:
        if not files or not foreign.there(case, Path(files)):
            raise FileNotFoundError(
                f"files {files!r} holds not all of {', '.join(case.files)}: give the folder that does."
            )
        # what these results run is all of the module, whichever one measured them
        return case.make(Path(files), case.config) | {"module": module, "code_hash": code_hash(module)}

    return {
        name: Case(case.config, partial(make, case, module), module, reads=case.reads)
        for module, planned in (
            (foreign.MODULE, foreign.planned),
            ("paper.parts", parts.planned),
            ("paper.cell", cell.planned),
            ("paper.cell_left_out", cell_left_out.planned),
            ("paper.deepfinder_picker", deepfinder_picker.planned),
            ("paper.pick_errors", pick_errors.planned_foreign),
            ("paper.template_matching", template_matching.planned_foreign),
        )
        for name, case in planned(profile, seed).items()
    }


def find_case(profile: str, name: str, files: str = "") -> Case:
    """The case of that name, of any seed; `files` as in `foreign_cases`.

    Raises
    ------
    ValueError
        For a name that is none; the message lists those of seed 0.
    """
    tail = name.rsplit("seed", 1)[-1]
    seed = int(tail) if tail.isdigit() else 0
    cases = planned_cases(profile, [seed]) | foreign_cases(profile, seed, files)
    if name not in cases:
        known = [*planned_cases(profile, [0]), *foreign_cases(profile, 0)]
        raise ValueError(f"There is no result {name!r}; expected one of {', '.join(known)} (and other seeds).")
    return cases[name]


def make_result(profile: str, name: str, files: str = "") -> dict:
    """Make a result by its name and write it (`write_result`); `files` as in `foreign_cases`."""
    case, start = find_case(profile, name, files), time.perf_counter()
    if profile == "smoke":  # everywhere else the Snakefile makes first what a case needs
        if case.of_stored_data and not has_data(case.config):
            simulate_data(case.config)
        if case.needs and not (paths.runs(profile) / case.needs / "weights.safetensors").exists():
            make_result(profile, case.needs)
    result = case.make()
    return write_result(profile, name, result | {"seconds": round(time.perf_counter() - start, 1)})


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
