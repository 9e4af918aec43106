"""Runs that no `make figures` makes: too long for it. They say whether budget or recipe is what a run lacked."""

from functools import partial

from ..config import RunConfig, make_config
from ..evaluation.classification import load_classifier
from ..evaluation.compare import evaluate, told_apart
from ..evaluation.downstream import GENERATED, REAL, benchmark, generated_set
from ..generation import TrainedRun, generate, load_run
from ..reproducibility import paths
from ..run_folder import load_checkpoint, read_log
from ..training import Trainer
from .case import Case
from .denoiser import CYCLES
from .plan import run_name
from .proof import small_probes
from .record import described
from .runs import constant_cycle, ensure_run
from .simulated_sets import data_folder, load_data, simulated_domains

LONG_STEPS = 80_000  # of the paper, one volume each
LARGE = "batch16"  # the run of the paper's width and box
FEW = dict(train_per_class=100, test_per_class=50)  # what it is measured on, so that a laptop can


def make_size(config: RunConfig) -> dict:
    """Measure the run of the paper's width and box on FEW new densities and subtomograms: accuracy on real of
    classifiers trained on its volumes and on as many real ones, distances from real, and slices of the first of each
    class.
    """
    name = run_name("S1", "adapted", config.seed, LARGE)
    ensure_run(config.profile, name)
    run, domains = load_run(paths.runs(config.profile) / name), simulated_domains(config.replace(**FEW))
    sets = {
        GENERATED: generate(run, domains.volumes("X_train"), seed=config.seed + 1),
        REAL: run.scaling.y(domains.volumes("Y_train")),
    }
    rows = benchmark(sets, domains, seed=config.seed, **small_probes(config))
    real, fake = (
        run.scaling.y(domains.volumes("Y_test")),
        generate(run, domains.volumes("X_test"), seed=config.seed + 2),
    )
    middle, shown = config.box // 2, slice(None, None, FEW["test_per_class"])
    volumes = {"density": domains.volumes("X_test"), "generated": fake, "real": real}
    slices = {k: v[shown, None, middle].numpy() for k, v in volumes.items()}
    slices |= {f"{k}_xz": v[shown, None, :, middle].numpy() for k, v in volumes.items()}
    return {
        "rows": rows,
        "metrics": told_apart(real, fake),
        "classes": list(domains.classes),
        "voxel_size_A": domains.X_test.voxel_size_A,
        "slices": slices,
    } | described(config, "paper.long_runs", domains)


def make_stopped(config: RunConfig, name: str) -> dict:
    """Measure a long run as far as its checkpoint has come: metrics of its generations, accuracy on real of classifiers
    trained on them, and its losses.

    A run whose learning rate does not fall is at each step what a run of so many steps would be.
    """
    domains, folder = load_data(config), paths.runs(config.profile) / name
    trainer = Trainer(config, domains.volumes("X_train"), domains.volumes("Y_train"))
    if not load_checkpoint(trainer, folder):
        raise FileNotFoundError(f"{folder} holds no checkpoint: train it by notebooks/measure.ipynb first.")
    G, F = trainer.networks["G"].eval().requires_grad_(False), trainer.networks["F"].eval().requires_grad_(False)
    G.load_state_dict(trainer.ema)
    run = TrainedRun(config, trainer.scaling, G, F)
    classifier = load_classifier(data_folder(config) / "classifier.safetensors", config, len(domains.classes))
    numbers, _ = evaluate(run, domains, classifier)
    rows = benchmark(generated_set(run, domains), domains, seed=config.seed, **small_probes(config))
    log = read_log(folder, trainer.steps_done)
    return (
        {k: numbers[k] for k in ("classes", "metrics", "real_accuracy", "confusion")}
        | {"downstream": rows, "steps_done": trainer.steps_done, "seconds_training": log[-1]["seconds"]}
        | {"log": log[:: max(1, len(log) // 200)], "constant_cycle": constant_cycle(run, domains)}
        | described(config, "paper.long_runs", domains, classifier)
    )


def measured(profile: str, seed: int) -> dict[str, Case]:
    """The results by name: `make_size` of a whole run, and `make_stopped` of a checkpoint."""
    plan = planned(profile, seed)
    if profile == "paper":
        return {f"size_S1_seed{seed}": Case(config, make_size, needs=name) for name, config in plan.items()}
    if profile == "quick":
        return {f"stopped_{name}": Case(config, partial(make_stopped, name=name)) for name, config in plan.items()}
    return {}


def planned(profile: str, seed: int) -> dict[str, RunConfig]:
    """Configurations by name: both faithful recipes at the paper's batch of 1 (quick); other weights of the cycle
    (evening); `adapted` at the paper's size, in larger batches (paper).
    """
    if profile == "quick":
        return {
            run_name("S1", preset, seed, "batch1"): make_config(
                profile, "S1", preset, seed=seed, batch=1, steps=LONG_STEPS, checkpoint_every=5000
            )
            for preset in ("described", "released")
        }
    if profile == "evening":
        return {run_name("S1", "adapted", seed, k): make_config(profile, seed=seed, **v) for k, v in CYCLES.items()}
    if profile == "paper":
        changes = dict(batch=16, steps=800, compute_dtype="bfloat16", checkpoint_every=100)
        return {run_name("S1", "adapted", seed, LARGE): make_config(profile, seed=seed, **changes)}
    return {}
