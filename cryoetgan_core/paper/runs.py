"""The long step: train a run and measure it. Training notebooks write results; figure and table notebooks only read
them.
"""

import time
from pathlib import Path

import numpy as np
import torch

from ..config import RunConfig
from ..engine.processes import Processes
from ..evaluation.classification import load_classifier
from ..evaluation.compare import evaluate
from ..generation import TrainedRun, load_run
from ..physics.acquisition import acquisition
from ..reproducibility import paths
from ..reproducibility.files import read_json
from ..reproducibility.seeds import stream
from ..run_folder import estimate, read_log, train
from ..training import ALONE, Trainer
from ..volumes.domains import Domains
from .record import RUNS, described
from .simulated_sets import SIMULATE_AGAIN, data_folder, default_device, load_data, recorded_repeats


def train_on(
    config: RunConfig,
    domains: Domains,
    folder: Path,
    *,
    replace: bool = False,
    progress: bool = False,
    processes: Processes = ALONE,
) -> TrainedRun:
    """Train (or resume) a run on both domains in a folder, or estimate the physics generator, with what the particles'
    table tells of the recording; the finished run.
    """
    x, y = domains.volumes("X_train"), domains.volumes("Y_train")
    if config.generator == "physics":
        known = acquisition(domains.Y_train, tilt_range=config.tilt_range, transfer=config.transfer)
        beside = domains.background
        whole = beside is not None and beside.volumes.shape == (len(beside), *y.shape[1:])  # else scenes alone use them
        empty = torch.from_numpy(np.asarray(beside.volumes)) if whole else None
        estimate(config, x, y, known, folder, empty)
    else:
        train(Trainer(config, x, y, default_device(), processes), folder, replace=replace, progress=progress)
    return load_run(folder, default_device())


def make_run(name: str, config: RunConfig) -> dict:
    """Train (or resume) a planned run and measure it on the test halves: its numbers, and slices for the figures (key
    "slices").

    A run of that name with another configuration or other data is replaced.
    """
    folder, domains = paths.runs(config.profile) / name, load_data(config)
    run = train_on(config, domains, folder, replace=True, progress=True)
    start = time.perf_counter()
    classifier = load_classifier(data_folder(config) / "classifier.safetensors", config, len(domains.classes))
    numbers, slices = evaluate(
        run, domains, classifier.to(default_device()), recorded=recorded_repeats(config, domains)
    )
    log = read_log(folder)
    # what the cycle costs a generator that ignores x and answers the best constant
    constant = constant_cycle(run, domains)
    return (
        numbers
        | {
            "floor": read_json(data_folder(config) / "floor.json", SIMULATE_AGAIN),
            "constant_cycle": constant,
            "log": log[:: max(1, len(log) // 200)],
            "seconds_training": log[-1]["seconds"],
            "seconds_evaluation": round(time.perf_counter() - start, 1),
            "slices": slices,
        }
        | described(config, RUNS, domains, classifier)
    )


def constant_cycle(run: TrainedRun, domains: Domains) -> float:
    """Mean |x - c| of the training densities as the cycle sees them, with the run's noise on them, for the best
    constant c (their median).
    """
    x = domains.volumes("X_train")
    noise = torch.randn(x.shape, generator=stream(run.config.seed, "constant cycle"))
    x = run.scaling.x(x + run.config.noise_level * noise)
    return float((x - x.median()).abs().mean())


def ensure_run(profile: str, name: str) -> None:
    """Raise FileNotFoundError unless a run's weights are there."""
    if not (paths.runs(profile) / name / "weights.safetensors").exists():
        raise FileNotFoundError(f"{paths.runs(profile) / name} is missing: run `make figures PROFILE={profile}` first.")
