"""Which runs make up the paper, and the two long steps that notebooks and Snakemake call: simulate a set, train and evaluate a run.

Training notebooks write results; figure and table notebooks only read them.
"""

import dataclasses
import json
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from . import paths
from .baselines import controls
from .classification import load_classifier, save_classifier, train_classifier
from .config import DATASETS, PROFILES, RunConfig, make_config
from .downstream import benchmark, generated_set, reference_sets
from .evaluation import compare, evaluate, floor, spectra
from .generation import load_run
from .models import C3D
from .particles.domains import Domains, load_domains, save_domains
from .particles.simulated import class_references, density_maps, poses_of, subtomograms
from .provenance import provenance
from .seeds import stream
from .specimen.render import parse_source, source_exists
from .training import Trainer, train, write_atomically

RECIPES = {"S1": ("adapted", "described", "released"), "S2": ("adapted",)}  # shown in Figure 2 and Table 2
ABLATION = {  # Table 4: Wasserstein loss x spectral normalisation
    "wasserstein_sn": dict(adversarial="wasserstein", spectral_norm=True),
    "wasserstein_plain": dict(adversarial="wasserstein", spectral_norm=False),
    "leastsquares_sn": dict(adversarial="least_squares", spectral_norm=True),
    "leastsquares_plain": dict(adversarial="least_squares", spectral_norm=False),
}
# What a simulated set and its reference classifier depend on, besides the data set's own description
DATA_FIELDS = (
    "box", "train_per_class", "test_per_class", "snr", "data_seed", "classifier_width", "classifier_dense", "classifier_epochs",
)  # fmt: skip
ADAPTED_NOISE = make_config().noise_level
IPYTHON_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open"}


def check_parameters(namespace: dict[str, object]) -> None:
    """Check a notebook's parameters, right after its parameters cell: ``check_parameters(globals())``.

    A parameter is an annotated name. papermill injects any name and any type in silence; this raises a ValueError that names the unknown
    or mistyped one.
    """
    known = {k: v for k, v in namespace.get("__annotations__", {}).items() if not k.startswith("_")}
    skip = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
    for name, value in namespace.items():
        if name.startswith("_") or name in IPYTHON_NAMES or isinstance(value, skip) or name in known:
            continue
        raise ValueError(f"Unknown parameter {name!r}; this notebook has {', '.join(known)}.")
    for name, wanted in known.items():
        value = namespace[name]
        fits = isinstance(value, (int, float) if wanted is float else wanted) and not (isinstance(value, bool) and wanted is not bool)
        if not fits:
            hint = f" (papermill reads numbers from -p: write -r {name} {value})" if wanted is str else ""
            raise ValueError(f"Parameter {name!r} is {value!r} ({type(value).__name__}); expected {wanted.__name__}{hint}.")
    if "profile" in known and namespace["profile"] not in PROFILES:
        raise ValueError(f"Parameter 'profile' is {namespace['profile']!r}; expected one of {', '.join(PROFILES)}.")


def parse_seeds(seeds: str) -> list[int]:
    """Seeds of a notebook parameter such as "0" or "0 1 2"."""
    try:
        numbers = [int(s) for s in seeds.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if not numbers:
        raise ValueError(f"Parameter 'seeds' is {seeds!r}; expected whole numbers such as '0 1 2'.")
    return numbers


def run_name(dataset: str, preset: str, seed: int, variant: str = "") -> str:
    """Name of a run's folder and results."""
    return "_".join(part for part in (dataset, preset, variant, f"seed{seed}") if part)


def noise_variant(level: float) -> str:
    """Variant of a run at one noise level of Table 3; "" for the level that the main run has."""
    return "" if level == ADAPTED_NOISE else f"noise{level:g}"


def ablation_variant(name: str) -> str:
    """Variant of a run of Table 4; "" for the combination that is the main run."""
    return "" if name == "wasserstein_sn" else name


def planned_runs(profile: str, seeds: list[int]) -> dict[str, RunConfig]:
    """Every run that the figures and tables of a profile read, by name."""
    plan = {}
    for seed in seeds:
        for dataset in DATASETS:
            for preset in RECIPES[dataset]:
                plan[run_name(dataset, preset, seed)] = make_config(profile, dataset, preset, seed=seed)
        for level in PROFILES[profile].noise_levels:
            plan[run_name("S1", "adapted", seed, noise_variant(level))] = make_config(profile, noise_level=level, seed=seed)
        for name, switches in ABLATION.items():
            plan[run_name("S1", "adapted", seed, ablation_variant(name))] = make_config(profile, seed=seed, **switches)
    return plan


def resolve_run(profile: str, run: str, dataset: str, preset: str, seed: int, changes: str) -> tuple[str, RunConfig]:
    """Name and configuration of a run: a planned one by its name, or one put together from a preset and JSON `changes`."""
    if run:
        if changes.strip() != "{}":
            raise ValueError("Parameters 'run' and 'changes' are both given; a planned run has its own fields: leave one out.")
        tail = run.rsplit("seed", 1)[-1]
        plan = planned_runs(profile, [int(tail) if tail.isdigit() else 0])
        if run not in plan:
            raise ValueError(f"Parameter 'run' is {run!r}; planned are {', '.join(plan)} (and other seeds).")
        return run, plan[run]
    try:
        fields = json.loads(changes)
    except json.JSONDecodeError as error:
        raise ValueError(f"Parameter 'changes' is {changes!r}; expected JSON such as {{\"noise_level\": 0.5}} ({error}).") from None
    reserved = {"profile", "dataset", "preset", "seed", *DATA_FIELDS}
    if not isinstance(fields, dict) or reserved & set(fields):
        raise ValueError(
            f"Parameter 'changes' is {changes!r}; expected a JSON object without {', '.join(sorted(reserved))}, which other parameters or the "
            "profile set."
        )
    config = make_config(profile, dataset, preset, seed=seed, **fields)
    return run_name(dataset, preset, seed, f"changed-{config.hash}" if fields else ""), config


def parse_maps(maps: str) -> dict[str, str]:
    """Class to file, from a notebook parameter such as "ribosome=/data/4v4r.mrc, tric=model.cif"."""
    chosen = {}
    for part in filter(None, (p.strip() for p in maps.split(","))):
        name, equals, path = part.partition("=")
        if not equals or not source_exists(path):
            raise ValueError(f"Parameter 'maps' holds {part!r}; expected class=FILE with a file that exists, or class=pdb:3j9i.")
        chosen[name.strip()] = path.strip()
    return chosen


def parse_files(files: str) -> dict[str, tuple[str, dict]]:
    """Name to (source, options of `reference_map`), from a notebook parameter of files, folders and entries: "maps/, emd_5225.mrc@13.68, pdb:3j9i"."""
    found = {}
    for part in filter(None, (p.strip() for p in files.split(","))):
        source, options = parse_source(part)
        if not source_exists(part):
            raise ValueError(f"Parameter 'files' holds {part!r}; expected files, folders or entries such as pdb:3j9i that exist.")
        path = Path(source)
        for one in sorted(path.iterdir()) if path.is_dir() else [source]:
            found[Path(one).name] = (str(one), options)  # named later, a single file replaces the folder's entry
    return found


def choose(parameter: str, value: str, known: dict) -> object:
    """The entry of `known` that a notebook's parameter names, or a ValueError that lists the names."""
    if value not in known:
        raise ValueError(f"Parameter {parameter!r} is {value!r}; expected one of {', '.join(known)}.")
    return known[value]


def data_folder(profile: str, dataset: str) -> Path:
    """Folder of a simulated set."""
    return paths.runs(profile) / "data" / dataset


def data_record(config: RunConfig, maps: dict[str, str] | None = None) -> dict:
    """Everything that a simulated set depends on, as JSON types; the set's folder holds it in data.json."""
    record = {"dataset": config.dataset, "maps": maps or {}} | {k: getattr(config, k) for k in DATA_FIELDS}
    return json.loads(json.dumps(record | dataclasses.asdict(DATASETS[config.dataset])))


def simulate_data(config: RunConfig, maps: dict[str, str] | None = None) -> Domains:
    """Make both domains of the run's set, train its reference classifier on the real train half, and write all to `data_folder`.

    `maps` gives a file (atomic model or density map) for a class instead of its embedded model. data.json is written last: a set without it is incomplete.
    """
    dataset = DATASETS[config.dataset]
    folder, voxel_size_A = data_folder(config.profile, config.dataset), dataset.field_of_view_A / config.box
    (folder / "data.json").unlink(missing_ok=True)
    references = class_references(dataset.classes, config.box, voxel_size_A, maps)
    halves, noise_std = {}, None
    for half, per_class in (("train", config.train_per_class), ("test", config.test_per_class)):
        rng = {domain: stream(config.data_seed, config.dataset, domain, half) for domain in "XY"}
        halves[f"X_{half}"] = density_maps(references, per_class, config.box, voxel_size_A, rng["X"])
        halves[f"Y_{half}"] = subtomograms(
            references, per_class, config.box, voxel_size_A, dataset.microscope, rng["Y"], snr=config.snr, noise_std=noise_std,
            crowding=dataset.crowding, prefix=half,
        )  # fmt: skip
        noise_std = float(halves[f"Y_{half}"].table["noise_std"][0])
    domains = Domains(**halves)
    save_domains(domains, folder)
    classifier = fit_classifier(config, domains)
    save_classifier(classifier, folder / "classifier.safetensors")
    write_atomically(folder / "floor.json", lambda p: p.write_text(json.dumps(floor(domains, classifier), indent=1)))
    write_atomically(folder / "data.json", lambda p: p.write_text(json.dumps(data_record(config, maps), indent=1)))
    return domains


def has_data(config: RunConfig) -> bool:
    """Whether the run's set has been simulated."""
    return (data_folder(config.profile, config.dataset) / "data.json").exists()


def load_data(config: RunConfig) -> Domains:
    """Read the run's set.

    Raises
    ------
    FileNotFoundError
        When it has not been simulated.
    ValueError
        When it was simulated with other sizes or another microscope than the configuration's.
    """
    folder = data_folder(config.profile, config.dataset)
    if not has_data(config):
        raise FileNotFoundError(f"{folder} holds no complete set: run notebooks/simulate_data.ipynb (or `make figures`) first.")
    found = json.loads((folder / "data.json").read_text())
    wanted = data_record(config, found["maps"])
    different = [k for k in wanted if found.get(k) != wanted[k]]
    if different:
        raise ValueError(f"{folder} was simulated with another {', '.join(different)}: run notebooks/simulate_data.ipynb again.")
    return load_domains(folder)


def fit_classifier(config: RunConfig, domains: Domains) -> C3D:
    """Train the reference classifier on Y_train."""
    volumes = domains.volumes("Y_train")
    volumes = (volumes - volumes.mean()) / volumes.std()
    return train_classifier(config, volumes[:, None], domains.labels("Y_train"), classes=len(domains.classes), device=default_device())


def default_device() -> str:
    """Return "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def recorded_repeats(config: RunConfig, domains: Domains, repeats: int = 40) -> torch.Tensor:
    """What the microscope shows of the first test density of each class, in its pose, recorded `repeats` times: (classes, repeats, D, H, W), raw.

    Defocus, neighbours and noise differ from one to the next.
    """
    dataset, classes = DATASETS[config.dataset], domains.classes
    first = domains.X_test.table.groupby("class_name", sort=False).head(1)
    rotations, shifts = poses_of(first)
    maps = json.loads((data_folder(config.profile, config.dataset) / "data.json").read_text())["maps"]
    made = subtomograms(
        class_references(classes, config.box, domains.X_test.voxel_size_A, maps), repeats, config.box, domains.X_test.voxel_size_A,
        dataset.microscope, stream(config.data_seed, "repeats"), snr=config.snr,
        noise_std=float(domains.Y_test.table["noise_std"].iloc[0]), crowding=dataset.crowding,
        poses=(rotations.repeat_interleave(repeats, 0), shifts.repeat_interleave(repeats, 0)),
    )  # fmt: skip
    return torch.from_numpy(made.volumes).unflatten(0, (len(classes), repeats))


def make_audit(config: RunConfig) -> dict:
    """Every metric of every control of the run's set (`baselines.controls`), with the spectra that Figure 7 draws."""
    if config.profile == "smoke" and not has_data(config):
        simulate_data(config)
    domains, folder = load_data(config), data_folder(config.profile, config.dataset)
    maps = json.loads((folder / "data.json").read_text())["maps"]
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


def described(config: RunConfig) -> dict:
    """What a result says of itself: configuration, and with what it was made."""
    return {"config": dataclasses.asdict(config), "config_hash": config.hash, "provenance": provenance()}


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
            return json.loads(path.read_text())
    raise FileNotFoundError(f"{own} is missing: run `make figures PROFILE={profile}`, or this notebook with measure set to True.")


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


def make_result(name: str, config: RunConfig) -> None:
    """Train (or resume) a planned run, measure it on the test halves, and write its numbers (JSON) and slices (NPZ) to `paths.results`.

    A run of that name with another configuration or other data is replaced.
    """
    data, folder = data_folder(config.profile, config.dataset), paths.runs(config.profile) / name
    domains = load_data(config)
    trainer = Trainer(config, domains.volumes("X_train"), domains.volumes("Y_train"), default_device())
    train(trainer, folder, replace=True)
    start = time.perf_counter()
    classifier = load_classifier(data / "classifier.safetensors", config, len(domains.classes))
    recorded = recorded_repeats(config, domains)
    numbers, slices = evaluate(load_run(folder, default_device()), domains, classifier.to(default_device()), recorded=recorded)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    thin = max(1, len(log) // 200)
    numbers |= {
        "floor": json.loads((data / "floor.json").read_text()),
        "log": log[::thin],
        "seconds_training": log[-1]["seconds"],
        "seconds_evaluation": round(time.perf_counter() - start, 1),
    } | described(config)
    out = paths.results(config.profile)
    out.mkdir(parents=True, exist_ok=True)
    keep = {k: v.astype(np.float16) for k, v in slices.items()}
    with (out / f".{name}.npz").open("wb") as file:
        np.savez_compressed(file, **keep)
    (out / f".{name}.npz").replace(out / f"{name}.npz")
    write_atomically(out / f"{name}.json", lambda p: p.write_text(json.dumps(numbers, indent=1)))


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
    results = {}
    for name in names:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as slices:
            numbers = json.loads((folder / f"{name}.json").read_text())
            results[name] = numbers | {"slices": {k: slices[k].astype(np.float32) for k in slices.files}}
    return results
