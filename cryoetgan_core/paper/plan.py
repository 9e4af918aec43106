"""Which runs make up the paper, by name."""

from ..config import DATASETS, PROFILES, RunConfig, make_config
from .parameters import choose, parse_json
from .simulated_sets import DATA_FIELDS

ALL = ("adapted", "described", "released")


def recipes(profile: str) -> dict[str, tuple[str, ...]]:
    """Presets of each set that Figure 2 and Table 2 show: all of them, but in a quick profile the faithful two on S1
    only.
    """
    return {"S1": ALL, "S2": ALL if profile in ("evening", "paper") else ALL[:1]}


ABLATION = {  # Table 4: Wasserstein loss x spectral normalisation
    "wasserstein_sn": dict(adversarial="wasserstein", spectral_norm=True),
    "wasserstein_plain": dict(adversarial="wasserstein", spectral_norm=False),
    "leastsquares_sn": dict(adversarial="least_squares", spectral_norm=True),
    "leastsquares_plain": dict(adversarial="least_squares", spectral_norm=False),
}
ADAPTED_NOISE = make_config().noise_level


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
            for preset in recipes(profile)[dataset]:
                plan[run_name(dataset, preset, seed)] = make_config(profile, dataset, preset, seed=seed)
        for level in PROFILES[profile].noise_levels:
            plan[run_name("S1", "adapted", seed, noise_variant(level))] = make_config(
                profile, noise_level=level, seed=seed
            )
        for name, switches in ABLATION.items():
            plan[run_name("S1", "adapted", seed, ablation_variant(name))] = make_config(profile, seed=seed, **switches)
    return plan


def resolve_run(profile: str, run: str, dataset: str, preset: str, seed: int, changes: str) -> tuple[str, RunConfig]:
    """Name and configuration of a run: a planned one by its name, or one put together from a preset and JSON
    `changes`.
    """
    if run:
        if changes.strip() != "{}":
            raise ValueError(
                "Parameters 'run' and 'changes' are both given; a planned run has its own fields: leave one out."
            )
        tail = run.rsplit("seed", 1)[-1]
        plan = planned_runs(profile, [int(tail) if tail.isdigit() else 0])
        if run not in plan:
            raise ValueError(f"Parameter 'run' is {run!r}; planned are {', '.join(plan)} (and other seeds).")
        return run, plan[run]
    choose("dataset", dataset, DATASETS)
    fields = parse_json("changes", changes)
    reserved = {"profile", "dataset", "preset", "seed", *DATA_FIELDS}
    if reserved & set(fields):
        raise ValueError(
            f"Parameter 'changes' is {changes!r}; expected a JSON object without {', '.join(sorted(reserved))}, which "
            "other parameters or the "
            "profile set."
        )
    config = make_config(profile, dataset, preset, seed=seed, **fields)
    return run_name(dataset, preset, seed, f"changed-{config.hash}" if fields else ""), config
