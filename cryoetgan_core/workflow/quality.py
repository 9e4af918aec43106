"""What half the width and larger batches cost in quality: the same training, as many volumes seen, measured on the test halves."""

from functools import partial

from .. import paths
from ..classification import load_classifier
from ..config import RunConfig, make_config
from ..evaluation import compare
from ..generation import generate
from .measurements import measured
from .runs import described, train_on
from .simulated_sets import data_folder, default_device, has_data, load_data, simulate_data

HALF = {"compute_dtype": "bfloat16"}
# preset, changes, times the profile's batch (at as many volumes seen), times its learning rates
QUALITY: dict[str, tuple[str, dict, int, float]] = {
    "paper's generator, float32": ("adapted", {}, 1, 1),
    "paper's generator, bfloat16": ("adapted", HALF, 1, 1),
    "paper's generator, bfloat16, 4x batch": ("adapted", HALF, 4, 1),
    "paper's generator, bfloat16, 4x batch, 2x rates": ("adapted", HALF, 4, 2),  # Adam: by the root of the batch
    "physics generator, float32": ("physics", {}, 1, 1),
    "physics generator, bfloat16": ("physics", HALF, 1, 1),
}
JUDGED = ("accuracy", "spectrum", "angular", "auc")


def make_quality(config: RunConfig) -> dict:
    """Train one case on its data set, which is simulated where it is missing, and measure generated test volumes as the figures' runs are (`evaluation.compare`)."""
    if not has_data(config):
        simulate_data(config)
    domains, folder = load_data(config), paths.runs(config.profile) / "quality" / config.hash
    run = train_on(config, domains, folder, replace=True)
    generated, y = generate(run, domains.volumes("X_test"), seed=config.seed + 2), domains.volumes("Y_train")
    classifier = load_classifier(data_folder(config.profile, config.dataset) / "classifier.safetensors", config, len(domains.classes))
    real = (domains.volumes("Y_test") - y.mean()) / y.std()
    metrics, _ = compare(real, generated, domains.labels("X_test"), classifier.to(default_device()))
    return {"metrics": {name: metrics[name] for name in JUDGED}} | described(config)


def quality_cases(profile: str, seeds: list[int]) -> dict[str, dict[str, RunConfig]]:
    """Configurations by case and name of the measurement; the smoke profile has one of each."""
    cases: dict[str, dict[str, RunConfig]] = {}
    for case, (preset, changes, times, rates) in list(QUALITY.items())[: 1 if profile == "smoke" else None]:
        for seed in seeds[: 1 if profile == "smoke" else None]:
            config = make_config(profile, "S1", preset, seed=seed, **changes)
            config = config.replace(
                batch=config.batch * times, steps=config.steps // times,
                learning_rate=config.learning_rate * rates, critic_learning_rate=config.critic_learning_rate * rates,
            )  # fmt: skip
            name = case.replace("'", "").replace(",", "").replace(" ", "-")
            cases.setdefault(case, {})[f"quality_{name}_seed{seed}"] = config
    return cases


def quality_results(profile: str, seeds: list[int], *, anew: bool = False) -> dict[str, list[dict]]:
    """Metrics of every case, one a seed: committed measurements, or made `anew`."""
    return {
        case: [measured(profile, name, partial(make_quality, config), anew=anew)["metrics"] for name, config in named.items()]
        for case, named in quality_cases(profile, seeds).items()
    }
