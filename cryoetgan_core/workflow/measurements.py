"""Measurements that are no runs: the audit of the metrics and the downstream benchmark, made once and kept beside the results of the runs."""

import json
import time
from collections.abc import Callable

from .. import paths
from ..baselines import controls
from ..classification import load_classifier
from ..config import DATASETS, RunConfig, make_config
from ..downstream import benchmark, generated_set, reference_sets
from ..evaluation import compare, spectra
from ..files import read_json, write_atomically
from ..generation import load_run
from ..particles.simulated import class_references
from .plan import run_name
from .runs import described, ensure_run
from .simulated_sets import SIMULATE_AGAIN, data_folder, default_device, has_data, load_data, simulate_data


def make_audit(config: RunConfig) -> dict:
    """Every metric of every control of the run's set (`baselines.controls`), with the spectra that Figure 7 draws."""
    if config.profile == "smoke" and not has_data(config):
        simulate_data(config)
    domains, folder = load_data(config), data_folder(config.profile, config.dataset)
    maps = read_json(folder / "data.json", SIMULATE_AGAIN)["maps"]
    references = class_references(domains.classes, config.box, domains.Y_test.voxel_size_A, maps)
    classifier = load_classifier(folder / "classifier.safetensors", config, len(domains.classes))
    train = domains.volumes("Y_train")
    real = (domains.volumes("Y_test") - train.mean()) / train.std()
    train = ((train - train.mean()) / train.std())[:: max(1, len(train) // len(real))]
    rows = {}
    for name, (volumes, labels) in controls(domains, references, config).items():
        metrics, _ = compare(real, volumes, labels, classifier, train)
        rows[name] = {"metrics": metrics, "spectra": spectra(volumes)}
    return {
        "controls": rows,
        "real": spectra(real),
        "voxel_size_A": domains.Y_test.voxel_size_A,
        "density_ceiling": len(real) / 5,
    } | described(config)


def make_downstream(config: RunConfig, which: str) -> dict:
    """The downstream benchmark (`downstream.benchmark`) of a finished run ("run"), or of the sources that need none ("reference")."""
    small = dict(repeats=2, steps=4) if config.profile == "smoke" else {}
    if config.profile == "smoke" and not has_data(config):
        simulate_data(config)
    domains = load_data(config)
    if which == "reference":
        sets = reference_sets(domains, DATASETS[config.dataset].microscope, config.snr, config.data_seed)
    else:
        name = run_name(config.dataset, config.preset, config.seed)
        ensure_run(config.profile, name)
        sets = generated_set(load_run(paths.runs(config.profile) / name, default_device()), domains)
    return {"rows": benchmark(sets, domains, seed=config.seed, **small)} | described(config)


def downstream_result(profile: str, dataset: str, which: str, *, anew: bool = False) -> dict:
    """The downstream benchmark of "reference" or of a seed's run ("seed0"), as `measured` gives it."""
    tail = which.removeprefix("seed")
    if which != "reference" and not (which.startswith("seed") and tail.isdigit()):
        raise ValueError(f"Parameter 'measure' is {which!r}; expected reference, or seed and a number.")
    config = make_config(profile, dataset, seed=0 if which == "reference" else int(tail))
    kind = "reference" if which == "reference" else "run"
    return measured(profile, f"downstream_{dataset}_{which}", lambda: make_downstream(config, kind), anew=anew)


def has_measurement(profile: str, name: str) -> bool:
    """Whether a measurement is there, one's own or the committed one."""
    return any((folder / f"{name}.json").exists() for folder in (paths.results(profile), paths.reference(profile)))


def measured(profile: str, name: str, make: Callable[[], dict], *, anew: bool = False) -> dict:
    """A measurement by name: one's own or the committed one; made `anew` where asked for, and in the smoke profile where it is missing.

    Raises
    ------
    FileNotFoundError
        When it is missing in another profile; the message says how to make it.
    """
    own, reference = paths.results(profile) / f"{name}.json", paths.reference(profile) / f"{name}.json"
    if anew or (profile == "smoke" and not own.exists()):
        start = time.perf_counter()
        result = make()
        own.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result | {"seconds": round(time.perf_counter() - start, 1)}, indent=1)
        write_atomically(own, lambda p: p.write_text(text))
    for path in (own, reference):
        if path.exists():
            return read_json(path, "delete it and make the measurement again")
    raise FileNotFoundError(f"{own} is missing: run `make figures PROFILE={profile}`, or this notebook with measure set to True.")
