"""The long step: train a run and measure it. Training notebooks write results; figure and table notebooks only read them."""

import dataclasses
import json
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .. import paths
from ..classification import load_classifier
from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation import evaluate
from ..files import read_json, write_atomically
from ..generation import TrainedRun, load_run
from ..particles import own_data
from ..particles.acquisition import acquisition
from ..particles.domains import Domains
from ..processes import Processes
from ..provenance import provenance
from ..run_folder import read_log, train
from ..training import ALONE, Trainer
from .plan import resolve_run
from .simulated_sets import SIMULATE_AGAIN, data_folder, default_device, has_data, load_data, recorded_repeats, simulate_data


def described(config: RunConfig) -> dict:
    """What a result says of itself: configuration, and with what it was made."""
    return {"config": dataclasses.asdict(config), "config_hash": config.hash, "provenance": provenance()}


def train_on(
    config: RunConfig, domains: Domains, folder: Path, *, replace: bool = False, progress: bool = False, processes: Processes = ALONE
) -> TrainedRun:
    """Train (or resume) a run on both domains in a folder, with what the particles' table tells of the recording where the physics generator asks; the finished run."""
    told = acquisition(domains.Y_train, tilt_range=config.tilt_range, transfer=config.transfer) if config.generator == "physics" else None
    trainer = Trainer(config, domains.volumes("X_train"), domains.volumes("Y_train"), default_device(), told, processes, start=False)
    train(trainer, folder, replace=replace, progress=progress)
    return load_run(folder, default_device())


def keep_source(folder: Path, densities: str, voxel_size_A: float) -> None:
    """Note beside a run on a user's particles what it was trained with: what `source_of` tells `generate.ipynb`."""
    write_atomically(
        folder / "source.json", lambda p: p.write_text(json.dumps({"densities": densities, "voxel_size_A": voxel_size_A}, indent=1))
    )


def source_of(folder: Path) -> tuple[str, float]:
    """Densities and voxel size that `keep_source` noted.

    Raises
    ------
    FileNotFoundError
        When the folder is no run of your_data.ipynb.
    """
    path = folder / "source.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: give the folder of a run of your_data.ipynb, or densities and voxel_size_A.")
    source = read_json(path, "run your_data.ipynb again, or give densities and voxel_size_A")
    return source["densities"], float(source["voxel_size_A"])


def stand_in_run(folder: Path, seed: int) -> Path:
    """Train a run of the smoke profile on simulated particles, in place of a user's; returns its folder."""
    particles = own_data.labelled_stand_in(24, seed)
    config = make_config("smoke", OWN_DATA, seed=seed)
    densities = ", ".join(sorted(set(particles.table["class_name"])))
    train_on(config, own_data.domains(particles, densities, config), folder, replace=True)
    keep_source(folder, densities, particles.voxel_size_A)
    return folder


def make_result(name: str, config: RunConfig) -> None:
    """Train (or resume) a planned run, measure it on the test halves, and write its numbers (JSON) and slices (NPZ) to `paths.results`.

    A run of that name with another configuration or other data is replaced.
    """
    data, folder = data_folder(config.profile, config.dataset), paths.runs(config.profile) / name
    domains = load_data(config)
    run = train_on(config, domains, folder, replace=True, progress=True)
    start = time.perf_counter()
    classifier = load_classifier(data / "classifier.safetensors", config, len(domains.classes))
    recorded = recorded_repeats(config, domains)
    numbers, slices = evaluate(run, domains, classifier.to(default_device()), recorded=recorded)
    log = read_log(folder)
    thin = max(1, len(log) // 200)
    numbers |= {
        "floor": read_json(data / "floor.json", SIMULATE_AGAIN),
        "log": log[::thin],
        "seconds_training": log[-1]["seconds"],
        "seconds_evaluation": round(time.perf_counter() - start, 1),
    } | described(config)
    out = paths.results(config.profile)
    out.mkdir(parents=True, exist_ok=True)
    keep = {k: v.astype(np.float16) for k, v in slices.items()}

    def write_slices(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **keep)

    write_atomically(out / f"{name}.npz", write_slices)
    write_atomically(out / f"{name}.json", lambda p: p.write_text(json.dumps(numbers, indent=1)))


def ensure_run(profile: str, name: str) -> None:
    """In the smoke profile, make a planned run that is missing; elsewhere say so."""
    if (paths.runs(profile) / name / "weights.safetensors").exists():
        return
    if profile != "smoke":
        raise FileNotFoundError(f"{paths.runs(profile) / name} is missing: run `make figures PROFILE={profile}` first.")
    _, config = resolve_run(profile, name, "", "", 0, "{}")
    if not has_data(config):
        simulate_data(config)
    make_result(name, config)


def load_results(profile: str, names: list[str]) -> dict[str, dict]:
    """Numbers and slices (key "slices") of finished runs, by name.

    One's own where all are there, else the committed ones; the two are never mixed. In the smoke profile missing ones are made on the spot.

    Raises
    ------
    FileNotFoundError
        When results of another profile are missing; the message says which and how to make them.
    """
    own, reference = paths.results(profile), paths.reference(profile)

    def missing_in(folder: Path) -> list[str]:
        return [name for name in names if not (folder / f"{name}.json").exists()]

    folder = own if not missing_in(own) or missing_in(reference) else reference
    if missing_in(folder) and profile != "smoke":
        raise FileNotFoundError(
            f"{folder} lacks the results of {', '.join(missing_in(folder))}: run `make figures PROFILE={profile}` "
            "(SEEDS='0 1 2' for three seeds)."
        )
    for name in missing_in(folder):
        _, config = resolve_run(profile, name, "", "", 0, "{}")
        if not has_data(config):
            simulate_data(config)
        make_result(name, config)
    return {name: _read_result(folder / name) for name in names}


def _read_result(path: Path) -> dict:
    """Numbers and slices that `make_result` wrote, from `path`.json and .npz."""
    remedy = "delete both files of this run and make the result again (`make figures`)"
    numbers, slices = read_json(path.with_name(f"{path.name}.json"), remedy), path.with_name(f"{path.name}.npz")
    try:
        with np.load(slices, allow_pickle=False) as file:
            return numbers | {"slices": {k: file[k].astype(np.float32) for k in file.files}}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(f"{slices} is damaged or cut off ({error}): {remedy}.") from None
