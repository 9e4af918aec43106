"""The physics generator given densities that are not the molecules': of another resolution, or of a homologue."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..baselines import BASELINES, baseline
from ..config import DATASETS, RunConfig
from ..downstream import PHYSICS, REAL, benchmark
from ..evaluation import told_apart
from ..generation import generate
from ..particles.simulated import RESOLUTION_VOXELS, class_references
from ..seeds import stream
from .measurements import has_measurement, measured
from .proof import proof_cases, proof_config, small_probes, trained
from .runs import described
from .simulated_sets import simulated_domains

GIVEN: dict[str, dict] = {  # Table 9: what X shows in place of what was recorded
    "the molecules' own": {},
    "half the resolution": {"resolution_voxels": 2 * RESOLUTION_VOXELS},
    "a quarter of the resolution": {"resolution_voxels": 4 * RESOLUTION_VOXELS},
    "a homologue": {"recorded": {"ribosome": "pdb:6qzp"}, "densities": {"ribosome": "pdb:4v7r"}},  # human; yeast
    "a distant homologue": {"recorded": {"ribosome": "pdb:6qzp"}, "densities": {"ribosome": "pdb:4v4r"}},  # human; Thermus thermophilus
}


def make_given(
    config: RunConfig,
    given: str,
    *,
    resolution_voxels: float = RESOLUTION_VOXELS,
    recorded: Mapping[str, str] | None = None,
    densities: Mapping[str, str] | None = None,
) -> dict:
    """Train the physics generator, and make the baseline, from densities that differ from what was recorded; accuracy on real, and how it is told apart.

    Parameters
    ----------
    resolution_voxels : to which the given densities are low-passed.
    recorded, densities : class to source, of what is recorded and of what is given, in place of the embedded models.
    """
    dataset = DATASETS[config.dataset]
    voxel_size_A = dataset.field_of_view_A / config.box
    shown = class_references(dataset.classes, config.box, voxel_size_A, densities, resolution_voxels)
    domains = simulated_domains(config, maps=dict(recorded or {}), densities=shown)
    run, took = trained(config, domains, f"{config.dataset}_given-{given.replace(' ', '-')}_seed{config.seed}")
    x, y = domains.volumes("X_train"), domains.volumes("Y_train")
    sets = {
        BASELINES[0]: baseline(BASELINES[0], x, voxel_size_A, dataset.microscope, config.snr, stream(config.seed, "baselines", "given")),
        PHYSICS: generate(run, x, seed=config.seed + 1),
        REAL: (y - y.mean()) / y.std(),
    }
    rows = benchmark(sets, domains, seed=config.seed, **small_probes(config), shares=(1.0,), real_shares=())

    def names(sources: Mapping[str, str] | None) -> dict[str, str]:
        return {k: Path(v).name for k, v in (sources or {}).items()}

    real = (domains.volumes("Y_test") - y.mean()) / y.std()
    metrics = told_apart(real, generate(run, domains.volumes("X_test"), seed=config.seed + 2))
    return (
        {"given": given, "rows": rows, "metrics": metrics, "recorded": names(recorded), "densities": names(densities)}
        | took
        | described(config)
    )


def given_cases(profile: str, seed: int, sources: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Callable[[], dict]]:
    """The measurements by name, each a call that makes it; `sources` ("recorded", "densities": class to file) replace the database entries of the homologues."""
    config = proof_config(profile, "S1", 0.05, seed)
    return {
        f"physics_given_{given.replace(' ', '-').replace(chr(39), '')}_seed{seed}": partial(
            make_given, config, given, **(options | dict(sources or {}) if "densities" in options else options)
        )
        for given, options in GIVEN.items()
    }


def proof_case(profile: str, name: str, sources: Mapping[str, Mapping[str, str]] | None = None) -> Callable[[], dict]:
    """The call that makes a case of the proof, or one with given densities, by its name; `sources` as in `given_cases`.

    Raises
    ------
    ValueError
        For a name that is none (the message lists them), or sources where none are taken.
    """
    tail = name.rsplit("seed", 1)[-1]
    seed = int(tail) if tail.isdigit() else 0
    given = given_cases(profile, seed, sources)
    cases = proof_cases(profile, [seed]) | given
    if name not in cases:
        raise ValueError(f"Parameter 'case' is {name!r}; expected one of {', '.join(cases)} (and other seeds).")
    if sources and not (name in given and "homologue" in name):
        raise ValueError(f"Parameter 'sources' replaces the entries of a homologue; the case {name!r} takes none.")
    return cases[name]


def given_results(profile: str, seeds: list[int]) -> list[dict]:
    """Results of those that have been measured; the smoke profile makes the first two."""
    cases = [case for seed in seeds for case in given_cases(profile, seed).items()]
    if profile == "smoke":
        return [measured(profile, name, make) for name, make in cases[:2]]
    return [measured(profile, name, make) for name, make in cases if has_measurement(profile, name)]
