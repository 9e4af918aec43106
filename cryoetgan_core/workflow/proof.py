"""The physics generator put to the proof: against simulators and real subtomograms at every noise level, without each of its ingredients, and at a defocus it never saw.

Each case simulates its own set, trains and measures; none is part of `make figures`, whose notebooks read the committed results (`make proof` makes them anew).
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import numpy as np
import pandas as pd
import torch

from .. import paths
from ..baselines import BASELINES, baseline, fitted_released_simulator
from ..config import DATASETS, RunConfig, make_config
from ..downstream import PHYSICS, REAL, benchmark
from ..evaluation import told_apart
from ..fourier_grid import RADII, TILTS, coordinates, lookup, wedge, window
from ..generation import TrainedRun, generate, generate_repeats
from ..metrics import student_interval
from ..microscope.simulate import transfer_function
from ..particles.domains import Domains
from ..particles.simulated import class_references, poses_of, subtomograms
from ..physics import INGREDIENTS, SOURCES
from ..run_folder import read_log
from ..seeds import stream
from .measurements import has_measurement, measured
from .runs import described, train_on
from .simulated_sets import simulated_domains

SNRS = (0.2, 0.1, 0.05, 0.02)
FITTED, TRUE, REAL_TEST = "released simulator, fitted", "our microscope, true parameters", "real test"
VARIANTS: dict[str, dict] = {  # Table 8: the generator without each of its parts
    "all": {},
    **{f"without {name.replace('_', ' ')}": {"without": name} for name in INGREDIENTS},
    "start alone": {"steps": 1},  # tables as told by means and power, hardly trained
    "without critic": {"adversarial_weight": 0.0},
    "without log power": {"log_power": 0.0},
    "without cycle": {"cycle_x": 0.0},
    "tilt range told": {"tilt_range": "told"},
    "CTF formula": {"transfer": "ctf"},
}
DEFOCI_um = (3.0, 5.0)  # trained on, asked for


@lru_cache(maxsize=1)
def _domains(profile: str, dataset: str, snr: float) -> Domains:
    """The set of a case, which the cases of one session share."""
    return simulated_domains(proof_config(profile, dataset, snr, 0))


def trained(config: RunConfig, domains: Domains, name: str) -> tuple[TrainedRun, dict]:
    """Train the generator of a case in its own folder under runs/; the run, and what training took."""
    folder = paths.runs(config.profile) / "proof" / name
    run = train_on(config, domains, folder, replace=True)
    log = read_log(folder)
    validations = [(line["step"], line["validation"]) for line in log if "validation" in line]
    return run, {"seconds_training": log[-1]["seconds"], "steps": len(log), "validations": validations}


def small_probes(config: RunConfig) -> dict:
    """Probes of the smoke profile."""
    return dict(repeats=1, steps=4) if config.profile == "smoke" else dict(repeats=3)


def wedge_power(volumes: torch.Tensor, tilt_range_deg: tuple[float, float]) -> torch.Tensor:
    """Mean power (N,) of each of volumes (N, D, D, D) in the missing wedge, seen through a window, beyond a tenth of the sampling frequency."""
    n = volumes.shape[-1]
    inside = (wedge(n, *tilt_range_deg, n) < 0.01) & (coordinates(n)[0] > 0.1) & (coordinates(n)[0] < 0.5)
    spectra = torch.fft.rfftn(volumes * window(n), dim=(-3, -2, -1), norm="ortho")
    return spectra[:, inside].abs().square().mean(1)


def _told_apart(sets: dict[str, torch.Tensor], real: torch.Tensor, dataset: str, tomograms: Mapping[str, pd.Series]) -> dict[str, dict]:
    """Metrics of each set against real test volumes, with the power of both in the wedge that was recorded.

    `tomograms`: which one each volume comes from, of REAL_TEST and where wanted of sets. Their defocus differs, and with it the power, so these intervals are over tomograms; those of other sets over volumes.
    """
    scope, found = DATASETS[dataset].microscope, {}

    def power(volumes: torch.Tensor, name: str) -> dict[str, float]:
        values = pd.Series(wedge_power(volumes, (scope.tilt_min_deg, scope.tilt_max_deg)).numpy())
        if name in tomograms:
            values = values.groupby(tomograms[name].to_numpy()).mean()
        return dict(zip(("value", "low", "high"), student_interval(values), strict=True))

    of_real = power(real, REAL_TEST)
    for name, volumes in sets.items():
        found[name] = told_apart(real, volumes) | {"wedge_power": power(volumes, name), "real_wedge_power": of_real}
    return found


def make_comparison(config: RunConfig, *, curves: bool = False) -> dict:
    """One set at one noise level: every source of training data, by accuracy on real test subtomograms and by how it is told apart from them.

    The two simulators get the true SNR, defocus and width of the wedge; the fitted one, unlabelled subtomograms; "our microscope, true parameters" is another draw of the simulator that made the real
    ones, the upper bound. `curves` adds learning curves and mixtures with few real labels.
    """
    domains, dataset = _domains(config.profile, config.dataset, config.snr), DATASETS[config.dataset]
    voxel_size_A, scope = domains.X_train.voxel_size_A, dataset.microscope
    run, took = trained(config, domains, f"{config.dataset}_snr{config.snr:g}_seed{config.seed}")
    y = domains.volumes("Y_train")
    real_train, real_test = (y - y.mean()) / y.std(), (domains.volumes("Y_test") - y.mean()) / y.std()
    references = class_references(domains.classes, config.box, voxel_size_A)
    noise_std = float(domains.Y_train.table["noise_std"].iloc[0])

    def another(per_class: int, half: str) -> torch.Tensor:
        made = subtomograms(
            references, per_class, config.box, voxel_size_A, scope, stream(config.seed, "true parameters", half), snr=config.snr,
            noise_std=noise_std, crowding=dataset.crowding,
        )  # fmt: skip
        return (torch.from_numpy(made.volumes) - y.mean()) / y.std()

    def made_from(x: torch.Tensor, half: str) -> tuple[dict[str, torch.Tensor], dict]:
        rng = stream(config.seed, "baselines", half)
        simple = {kind: baseline(kind, x, voxel_size_A, scope, config.snr, rng) for kind in BASELINES}
        fitted, parameters = fitted_released_simulator(x, y, voxel_size_A, rng)
        per_class = config.train_per_class if half == "train" else config.test_per_class
        generated = generate(run, x, seed=config.seed + (1 if half == "train" else 2))
        return simple | {FITTED: fitted, TRUE: another(per_class, half), PHYSICS: generated}, parameters

    sets, parameters = made_from(domains.volumes("X_train"), "train")
    shares = {} if curves else dict(shares=(1.0,), real_shares=())
    rows = benchmark(sets | {REAL: real_train}, domains, seed=config.seed, **small_probes(config), **shares)
    tests, _ = made_from(domains.volumes("X_test"), "test")
    few = slice(None, None, max(1, len(real_train) // len(real_test)))
    tests[REAL] = real_train[few]  # of other tomograms, whose defocus differs
    tomograms = {REAL: domains.Y_train.table["tomogram"][few], REAL_TEST: domains.Y_test.table["tomogram"]}
    told = _told_apart({k: tests[k] for k in (BASELINES[1], FITTED, TRUE, PHYSICS, REAL)}, real_test, config.dataset, tomograms)
    return {"rows": rows, "metrics": told, "fitted": parameters, "tilt_range_deg": run_tilt_range(run)} | took | described(config)


def run_tilt_range(run: TrainedRun) -> tuple[float, float]:
    """The tilt range that a physics generator was told or estimated, in degrees."""
    low, high = run.G.tilt_range_deg.tolist()
    return low, high


def make_ablation(config: RunConfig, variant: str) -> dict:
    """The physics generator without one of its parts: accuracy of a probe trained on it, and how it is told apart."""
    config = config.replace(**VARIANTS[variant])
    domains = _domains(config.profile, config.dataset, config.snr)
    run, took = trained(config, domains, f"{config.dataset}_{variant.replace(' ', '-')}_seed{config.seed}")
    sets = {PHYSICS: generate(run, domains.volumes("X_train"), seed=config.seed + 1)}
    rows = benchmark(sets, domains, seed=config.seed, **(small_probes(config) | {"repeats": 1}), shares=(1.0,), real_shares=())
    y = domains.volumes("Y_train")
    real = (domains.volumes("Y_test") - y.mean()) / y.std()
    tomograms = {REAL_TEST: domains.Y_test.table["tomogram"]}
    told = _told_apart({PHYSICS: generate(run, domains.volumes("X_test"), seed=config.seed + 2)}, real, config.dataset, tomograms)
    return {"variant": variant, "rows": rows, "metrics": told[PHYSICS]} | took | described(config)


def make_interpretation(config: RunConfig, repeats: int = 40) -> dict:
    """What a trained generator has learned, beside the truth of the simulator: T and noise over (frequency, tilt), and the uncertainty split by source."""
    domains, scope = _domains(config.profile, config.dataset, config.snr), DATASETS[config.dataset].microscope
    run, took = trained(config, domains, f"{config.dataset}_interpretation_seed{config.seed}")
    voxel_size_A, n = domains.X_train.voxel_size_A, config.box
    drawn = torch.zeros(1)
    q = torch.linspace(0, 0.5, RADII) / voxel_size_A
    with torch.no_grad():
        learned = run.G.transfer_table(drawn)[0] if config.transfer == "table" else run.G.transfer_table(drawn.long())[0]
        noise = run.G.noise_table()
    # The truth: the transfer of each tilt, mean of the tomograms recorded, along a line of the image's transform
    defoci = torch.from_numpy(domains.Y_train.table.groupby("tomogram")["defocus_um"].mean().to_numpy(copy=True)).float()
    line = transfer_function(scope, defoci.expand(len(scope.angles_deg), -1), (256, 256), voxel_size_A).mean(1)[:, 0]
    first = domains.X_test.table.groupby("class_name", sort=False).head(1)
    densities = domains.volumes("X_test")[first.index.to_numpy(copy=True)]
    variance = {}
    for source in ("", *SOURCES):
        volumes = generate_repeats(run, densities, repeats=repeats, seed=config.seed + 3, source=source)
        variance[source or "all"] = volumes.var(1)
    rotations, shifts = poses_of(first)
    recorded = {}
    for name, noise_std in (("all", float(domains.Y_train.table["noise_std"].iloc[0])), ("without noise", 1e-6)):
        made = subtomograms(
            class_references(domains.classes, n, voxel_size_A), repeats, n, voxel_size_A, scope, stream(config.seed, "repeats"), snr=config.snr,
            noise_std=noise_std, crowding=DATASETS[config.dataset].crowding,
            poses=(rotations.repeat_interleave(repeats, 0), shifts.repeat_interleave(repeats, 0)),
        )  # fmt: skip
        recorded[name] = run.scaling.y(torch.from_numpy(made.volumes)).unflatten(0, (len(densities), repeats)).var(1)
    return {
        "frequency_per_A": q.tolist(), "transfer": learned.tolist(), "noise": [[v if v == v else None for v in row] for row in noise.tolist()], "tilts_deg": torch.linspace(-90, 90, TILTS + 1)[:-1].tolist(),
        "true_frequency_per_A": (torch.fft.rfftfreq(256) / voxel_size_A).tolist(), "true_transfer": line.tolist(),
        "true_tilts_deg": scope.angles_deg.tolist(), "tilt_range_deg": run_tilt_range(run), "classes": list(domains.classes),
        "variance": {k: v.mean((1, 2, 3)).tolist() for k, v in variance.items()}, "true_variance": {k: v.mean((1, 2, 3)).tolist() for k, v in recorded.items()},
        "sheet": _sheet(run, domains, config.seed), "voxel_size_A": voxel_size_A,
    } | took | described(config)  # fmt: skip


def _sheet(run: TrainedRun, domains: Domains, seed: int, columns: int = 2) -> dict[str, list]:
    """Central slices, xy and xz, of densities, their generations and real subtomograms, `columns` a class."""
    index = {
        half: np.concatenate([np.flatnonzero(domains.labels(half) == k)[:columns] for k in range(len(domains.classes))])
        for half in ("X_test", "Y_test")
    }
    density = domains.volumes("X_test")[index["X_test"]]
    sets = {
        "density": density,
        "generated": generate(run, density, seed=seed + 4),
        "real": run.scaling.y(domains.volumes("Y_test")[index["Y_test"]]),
    }
    middle = density.shape[-1] // 2
    return {
        f"{name} {plane}": v[cut].round(decimals=3).tolist()
        for name, v in sets.items()
        for plane, cut in (("xy", (slice(None), middle)), ("xz", (slice(None), slice(None), middle)))
    }


def make_defocus_knob(config: RunConfig, repeats: int = 200) -> dict:
    """Train with the CTF formula at one defocus, ask for another, and compare with the simulator there.

    For one density the average of many generations, and of many recordings, tells the transfer function: Re(FT[average] conj FT[density]) / |FT[density]|^2 over spatial frequency.
    """
    scope = dataclasses.replace(DATASETS[config.dataset].microscope, defocus_um=DEFOCI_um[0], defocus_spread_um=0.25)
    other = dataclasses.replace(scope, defocus_um=DEFOCI_um[1])
    config = config.replace(transfer="ctf", tilt_range="told")
    domains = simulated_domains(config, microscope=scope)
    run, took = trained(config, domains, f"{config.dataset}_knob_seed{config.seed}")
    voxel_size_A, n = domains.X_train.voxel_size_A, config.box
    first = domains.X_test.table.groupby("class_name", sort=False).head(1)
    densities = domains.volumes("X_test")[first.index.to_numpy(copy=True)]
    rotations, shifts = poses_of(first)
    references = class_references(domains.classes, n, voxel_size_A)
    noise_std = float(domains.Y_train.table["noise_std"].iloc[0])
    # where the wedge leaves something, and a radius: the sums over shells
    at, reached = lookup(n, "radius"), wedge(n, scope.tilt_min_deg, scope.tilt_max_deg, 2 * n).flatten() > 0.99

    def transfer_of(volumes: torch.Tensor) -> list[float]:
        spectra = torch.fft.rfftn(volumes.mean(1), dim=(-3, -2, -1)).flatten(1)
        x = torch.fft.rfftn(run.scaling.x(densities), dim=(-3, -2, -1)).flatten(1)
        above, below = (spectra * x.conj()).real.sum(0), x.abs().square().sum(0)
        sums = [
            torch.zeros(RADII).index_add_(0, at.index[reached].flatten(), (v[reached, None] * at.weight[reached]).flatten())
            for v in (above, below)
        ]
        return (sums[0] / sums[1]).tolist()

    curves, angular = {}, {}
    for name, microscope in (("trained", scope), ("asked", other)):
        told = {} if name == "trained" else {"microscope": microscope}
        height = domains.Y_train.table["defocus_um"].to_numpy() - scope.defocus_um  # of particles and tomograms about their mean
        defoci = microscope.defocus_um + torch.tensor(np.random.default_rng(config.seed).choice(height, len(densities) * repeats)).float()
        many = densities.repeat_interleave(repeats, 0)
        generated = generate(run, many, seed=config.seed + 5, defocus_um=defoci, **told)
        recorded = subtomograms(
            references, repeats, n, voxel_size_A, microscope, stream(config.seed, "knob", name), snr=config.snr, noise_std=noise_std,
            crowding=DATASETS[config.dataset].crowding, poses=(rotations.repeat_interleave(repeats, 0), shifts.repeat_interleave(repeats, 0)),
        )  # fmt: skip
        real = run.scaling.y(torch.from_numpy(recorded.volumes))
        shape = (len(densities), repeats)
        curves[f"generated, {name}"], curves[f"recorded, {name}"] = (
            transfer_of(generated.unflatten(0, shape)),
            transfer_of(real.unflatten(0, shape)),
        )
        angular[name] = told_apart(real[::2], generated[::2])["angular"]
        angular[f"{name}, floor"] = told_apart(real[::2], real[1::2])["angular"]
    return {
        "frequency_per_A": (torch.linspace(0, 0.5, RADII) / voxel_size_A).tolist(), "curves": curves, "angular": angular,
        "defoci_um": DEFOCI_um, "voxel_size_A": voxel_size_A,
    } | took | described(config)  # fmt: skip


def proof_config(profile: str, dataset: str, snr: float, seed: int) -> RunConfig:
    """Configuration of a case: preset "physics" at an SNR."""
    return make_config(profile, dataset, "physics", seed=seed, snr=snr)


def _comparisons(profile: str, seeds: list[int]) -> dict[str, Callable[[], dict]]:
    cases = {}
    for seed in seeds:
        for dataset in DATASETS:
            for snr in SNRS:
                config, curves = proof_config(profile, dataset, snr, seed), (dataset, snr) == ("S1", 0.05)
                cases[f"physics_{dataset}_snr{snr:g}_seed{seed}"] = partial(make_comparison, config, curves=curves)
    return cases


def _ablations(profile: str, seeds: list[int]) -> dict[str, Callable[[], dict]]:
    return {
        f"physics_ablation_{variant.replace(' ', '-')}_seed{seed}": partial(make_ablation, proof_config(profile, "S1", 0.05, seed), variant)
        for seed in seeds
        for variant in VARIANTS
    }


def proof_cases(profile: str, seeds: list[int]) -> dict[str, Callable[[], dict]]:
    """Every measurement of the proof by name, each a call that makes it; comparisons and those without a seed of their own at the first of `seeds`."""
    first = seeds[0]
    return {
        **_comparisons(profile, seeds[:1]), **_ablations(profile, seeds),
        "physics_interpretation_S1": partial(make_interpretation, proof_config(profile, "S1", 0.05, first)),
        "physics_interpretation_S2": partial(make_interpretation, proof_config(profile, "S2", 0.1, first)),
        "physics_defocus": partial(make_defocus_knob, proof_config(profile, "S2", 0.2, first)),
    }  # fmt: skip


def proof_results(profile: str, kind: str, seeds: list[int]) -> list[dict] | dict[str, list[dict]]:
    """Results of the comparisons that have been measured ("comparison": a list) or the ablations ("ablation": variant to one a seed), one's own or the committed ones.

    The smoke profile, which makes missing ones, has one comparison and two variants.
    """
    if kind == "comparison":
        cases = list(_comparisons(profile, seeds).items())[: 1 if profile == "smoke" else None]
        there = [(name, make) for name, make in cases if profile == "smoke" or has_measurement(profile, name)]
        return [measured(profile, name, make) for name, make in there or cases]
    found: dict[str, list[dict]] = {}
    for name, make in list(_ablations(profile, seeds).items())[: 2 if profile == "smoke" else None]:
        if profile != "smoke" and not has_measurement(profile, name):
            continue
        result = measured(profile, name, make)
        found.setdefault(result["variant"], []).append(result)
    return found
