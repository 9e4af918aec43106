"""Measurements that are no runs: the audit of the metrics, and the downstream benchmark, of one data draw each."""

from ..config import DATASETS, RunConfig, make_config
from ..evaluation.baselines import WRONG_MICROSCOPE, controls, wrong_microscope
from ..evaluation.classification import load_classifier
from ..evaluation.compare import compare, spectra
from ..evaluation.downstream import benchmark, generated_set, reference_sets
from ..generation import load_run
from ..reproducibility import paths
from ..reproducibility.files import read_json
from ..reproducibility.seeds import stream
from ..simulator.sets import class_references
from .case import Case
from .plan import run_name
from .record import described
from .runs import ensure_run, train_on
from .simulated_sets import SIMULATE_AGAIN, data_folder, default_device, load_data


def make_audit(config: RunConfig) -> dict:
    """Every metric of every control of the run's set (`baselines.controls`), with the spectra that Figure 7 draws."""
    domains, folder = load_data(config), data_folder(config)
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
    } | described(config, "paper.measurements", domains, classifier)


def make_downstream(config: RunConfig) -> dict:
    """The downstream benchmark (`downstream.benchmark`) of a finished run, beside every formula, wrong settings, the
    physics generator, and real.
    """
    domains, dataset = load_data(config), DATASETS[config.dataset]
    voxel_size_A = domains.X_train.voxel_size_A
    maps = read_json(data_folder(config) / "data.json", SIMULATE_AGAIN)["maps"]
    references = class_references(domains.classes, config.box, voxel_size_A, maps)
    name = run_name(config.dataset, config.preset, config.seed)
    ensure_run(config.profile, name)
    sets = reference_sets(domains, dataset.microscope, config.snr, config.data_seed)
    rng = stream(config.data_seed, "downstream", WRONG_MICROSCOPE)
    sets[WRONG_MICROSCOPE] = wrong_microscope(references, config.train_per_class, config.box, voxel_size_A, config, rng)
    sizes = dict(box=config.box, snr=config.snr, seed=config.seed, data_seed=config.data_seed)
    physics = make_config(config.profile, config.dataset, "physics", **sizes, tilt_range="estimated")
    sets |= generated_set(train_on(physics, domains, paths.runs(config.profile) / "physics" / name), domains)
    sets |= generated_set(load_run(paths.runs(config.profile) / name, default_device()), domains)
    small = dict(steps=4, repeats=1) if config.profile == "smoke" else {}
    return {"rows": benchmark(sets, domains, seed=config.seed, **small)} | described(
        config, "paper.measurements", domains
    )


def planned(profile: str, seeds: list[int]) -> dict[str, Case]:
    """The results by name: an audit at the first seed, a benchmark at each."""
    found = {}
    for seed in seeds:
        config = make_config(profile, "S1", seed=seed)
        if seed == seeds[0]:
            found[f"audit_S1_seed{seed}"] = Case(config, make_audit)
        found[f"downstream_S1_seed{seed}"] = Case(config, make_downstream, needs=run_name("S1", "adapted", seed))
    return found
