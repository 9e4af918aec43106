"""The physics generator measured: beside formulas, simulators and real subtomograms at two noise levels, without its
parts, and at a new defocus.

Each case simulates its own set, estimates and measures.
"""

import dataclasses
import time
from collections.abc import Mapping
from functools import lru_cache, partial

import numpy as np
import torch

from ..build import Scaling
from ..config import DATASETS, RunConfig, make_config
from ..evaluation.baselines import (
    BACKGROUND,
    WRONG_MICROSCOPE,
    empty_ice,
    more_real,
    noise_level,
    on_background,
    wrong_microscope,
)
from ..evaluation.compare import told_apart
from ..evaluation.downstream import PHYSICS, REAL, TRUE, benchmark, reference_sets
from ..evaluation.metrics import angular_log_ratio, angular_power_spectra, fourier_shell_correlation
from ..generation import TrainedRun, generate, generate_repeats
from ..physics import estimate as physics_estimate
from ..physics.acquisition import acquisition
from ..physics.fourier_grid import RADII, TILTS, coordinates, lookup, wedge, window
from ..physics.generator import PhysicsGenerator
from ..reproducibility import paths
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import transfer_function
from ..simulator.sets import class_references, poses_of
from ..volumes.domains import Domains
from .case import Case
from .record import described
from .runs import train_on
from .simulated_sets import simulated_domains

SNRS = (0.05, 0.02)
HEADLINE_SNR = 0.05  # at which every seed, that is every data draw, is measured; the others at the first
WHOLE = "all"
# Table 8; that part is off here
VARIANTS = tuple(f"without {part}" for part in physics_estimate.PARTS if part != "one SNR")
ABLATED = {"S1": HEADLINE_SNR, "S2": 0.1}  # where: on S2 the CTF crosses zero
MEAN_OF, CLEAN = 200, 20  # generations whose mean is compared with that of recordings without noise
DEFOCI_um = (3.0, 5.0)  # trained on, asked for


@lru_cache(maxsize=1)
def _domains(profile: str, dataset: str, snr: float, data_seed: int) -> Domains:
    """The set of a case, which the cases of one session share."""
    return simulated_domains(proof_config(profile, dataset, snr, data_seed))


def estimated(config: RunConfig, domains: Domains, name: str) -> tuple[TrainedRun, dict]:
    """Estimate the generator of a case in its own folder under runs/; the run, and what it took."""
    start = time.perf_counter()
    run = train_on(config, domains, paths.runs(config.profile) / "proof" / name)
    return run, {"seconds_estimating": round(time.perf_counter() - start, 1)}


def small_probes(config: RunConfig) -> dict:
    """Every source whole, and nothing else; fewer and shorter probes in the smoke profile."""
    return dict(shares=(1.0,), real_shares=()) | (dict(steps=4, repeats=1) if config.profile == "smoke" else {})


def wedge_power(volumes: torch.Tensor, tilt_range_deg: tuple[float, float]) -> torch.Tensor:
    """Mean power (N,) of each of volumes (N, D, D, D) in the missing wedge, seen through a window, beyond a tenth of
    the sampling frequency.
    """
    n = volumes.shape[-1]
    inside = (wedge(n, *tilt_range_deg, n) < 0.01) & (coordinates(n)[0] > 0.1) & (coordinates(n)[0] < 0.5)
    spectra = torch.fft.rfftn(volumes * window(n), dim=(-3, -2, -1), norm="ortho")
    return spectra[:, inside].abs().square().mean(1)


def _told_apart(sets: Mapping[str, torch.Tensor], real: torch.Tensor, dataset: str) -> dict[str, dict[str, float]]:
    """Metrics of each set against real test volumes, with its power in the recorded missing wedge over theirs
    ("wedge_power").
    """
    scope = DATASETS[dataset].microscope
    recorded = (scope.tilt_min_deg, scope.tilt_max_deg)
    of_real = float(wedge_power(real, recorded).mean())
    return {
        k: told_apart(real, v) | {"wedge_power": float(wedge_power(v, recorded).mean()) / of_real}
        for k, v in sets.items()
    }


def make_comparison(config: RunConfig) -> dict:
    """One draw of a set at one noise level: every source of training data, by accuracy on real test subtomograms, and
    how it is told apart.

    The formulas and the released simulator get the true SNR, defocus and width of the wedge, and BACKGROUND empty boxes
    of the same microscope too; TRUE is another draw of the simulator that made the real ones, the upper bound. The
    physics generator is told nothing.
    """
    domains, dataset = _domains(config.profile, config.dataset, config.snr, config.data_seed), DATASETS[config.dataset]
    voxel_size_A = domains.X_train.voxel_size_A
    name = f"{config.dataset}_snr{config.snr:g}_seed{config.seed}"
    run, took = estimated(config, domains, name)
    y = domains.volumes("Y_train")
    real_train, real_test = (y - y.mean()) / y.std(), (domains.volumes("Y_test") - y.mean()) / y.std()
    references = class_references(domains.classes, config.box, voxel_size_A)

    def another(half: str, per_class: int) -> torch.Tensor:
        made = more_real(domains, references, per_class, config, stream(config.data_seed, "true settings", half))
        return (made - y.mean()) / y.std()

    def made_from(half: str, per_class: int) -> dict[str, torch.Tensor]:
        x, seed = domains.volumes(f"X_{half}"), config.seed + (1 if half == "train" else 2)
        return {TRUE: another(half, per_class), PHYSICS: generate(run, x, seed=seed)}

    sets = reference_sets(domains, dataset.microscope, config.snr, config.data_seed)
    background = empty_ice(len(real_test), config, noise_level(domains), voxel_size_A)
    rng = stream(config.data_seed, "downstream", BACKGROUND)
    sets[BACKGROUND] = on_background(
        domains.volumes("X_train"), background, voxel_size_A, dataset.microscope, config.snr, rng
    )
    rng = stream(config.data_seed, "downstream", WRONG_MICROSCOPE)
    sets[WRONG_MICROSCOPE] = wrong_microscope(references, config.train_per_class, config.box, voxel_size_A, config, rng)
    rows = benchmark(
        sets | made_from("train", config.train_per_class), domains, seed=config.seed, **small_probes(config)
    )
    tests = made_from("test", config.test_per_class)
    tests[REAL] = real_train[:: max(1, len(real_train) // len(real_test))]  # of other tomograms, whose defocus differs
    told = _told_apart(tests, real_test, config.dataset)
    return (
        {"rows": rows, "metrics": told, "tilt_range_deg": run.G.tilt_range_deg}
        | took
        | described(config, "paper.proof", domains)
    )


def make_ablation(config: RunConfig, variant: str) -> dict:
    """The physics generator with one part of its estimate replaced (VARIANTS): accuracy of a probe trained on it, and
    how it is told apart.
    """
    domains = _domains(config.profile, config.dataset, config.snr, config.data_seed)
    start = time.perf_counter()
    x, y = domains.volumes("X_train"), domains.volumes("Y_train")
    scaling = Scaling.of(x, y, config.noise_level)
    G = PhysicsGenerator(config.box, acquisition(domains.Y_train, tilt_range=config.tilt_range))
    physics_estimate.estimate(
        G, scaling.x(x), scaling.y(y), variant.removeprefix("without ") if variant != WHOLE else ""
    )
    run, took = TrainedRun(config, scaling, G, None), {"seconds_estimating": round(time.perf_counter() - start, 1)}
    sets = {PHYSICS: generate(run, domains.volumes("X_train"), seed=config.seed + 1)}
    rows = benchmark(sets, domains, seed=config.seed, **small_probes(config))
    real = (domains.volumes("Y_test") - y.mean()) / y.std()
    told = _told_apart({PHYSICS: generate(run, domains.volumes("X_test"), seed=config.seed + 2)}, real, config.dataset)
    _, generated, clean = _repeats(run, domains, config, MEAN_OF)
    return (
        {"variant": variant, "rows": rows, "metrics": told, "fsc": _mean_fsc(generated, clean)}
        | took
        | described(config, "paper.proof", domains)
    )


def make_interpretation(config: RunConfig, repeats: int = 40) -> dict:
    """What a generator has estimated, beside the truth of the simulator: T and noise over (frequency, tilt), and means
    of many generations beside means of many recordings.
    """
    domains, scope = (
        _domains(config.profile, config.dataset, config.snr, config.data_seed),
        DATASETS[config.dataset].microscope,
    )
    run, took = estimated(config, domains, f"{config.dataset}_interpretation_seed{config.seed}")
    voxel_size_A, n = domains.X_train.voxel_size_A, config.box
    at, inside = lookup(n, "tilt"), (coordinates(n)[0] <= 0.5).float().flatten()
    tables = {
        k: physics_estimate.node_means(at, v.flatten(), inside)
        for k, v in (("noise", run.G.noise_power), ("support", run.G.support))
    }
    # The truth: the transfer of each tilt along a line of the image's transform; over the tomograms recorded its mean,
    # and its root mean square, which is what power tells
    defoci = torch.from_numpy(
        domains.Y_train.table.groupby("tomogram")["defocus_um"].mean().to_numpy(copy=True)
    ).float()
    lines = transfer_function(scope, defoci.expand(len(scope.angles_deg), -1), (256, 256), voxel_size_A)[:, :, 0]
    densities, generated, recorded = _repeats(run, domains, config, repeats, noise=True)
    _, many, clean = _repeats(run, domains, config, MEAN_OF)
    middle = n // 2
    sheet = {}
    for plane, cut in (("xy", (slice(None), middle)), ("xz", (slice(None), slice(None), middle))):
        shown = {"density": densities, "one generated": generated[:, 0], "one recorded": recorded[:, 0]}
        shown |= {f"mean of {repeats} generated": generated.mean(1), f"mean of {repeats} recorded": recorded.mean(1)}
        sheet |= {f"{name}, {plane}": v[cut].numpy().round(3).tolist() for name, v in shown.items()}
    variance = {
        "generated": generated.var(1).mean((1, 2, 3)).tolist(),
        "recorded": recorded.var(1).mean((1, 2, 3)).tolist(),
    }
    return {
        "frequency_per_A": (torch.linspace(0, 0.5, RADII) / voxel_size_A).tolist(), "transfer": run.G.T.tolist(),
        "trust": run.G.trust.tolist(),
        "tilts_deg": torch.linspace(-90, 90, TILTS + 1)[:-1].tolist(), "tilt_range_deg": run.G.tilt_range_deg,
        "true_frequency_per_A": (torch.fft.rfftfreq(256) / voxel_size_A).tolist(),
        "true_transfer": lines.mean(1).tolist(),
        "true_rms": lines.square().mean(1).sqrt().tolist(),
        "true_tilts_deg": scope.angles_deg.tolist(),
        "classes": list(domains.classes), "sheet": sheet, "variance": variance, "voxel_size_A": voxel_size_A,
        "fsc": _mean_fsc(many, clean),
    } | {k: v.view(RADII, TILTS).tolist() for k, v in tables.items()} | took | described(config, "paper.proof",
    domains)  # fmt: skip


def _repeats(
    run: TrainedRun, domains: Domains, config: RunConfig, repeats: int, *, noise: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first test density of each class (C, D, D, D), `repeats` generations of it, and recordings of it in its pose,
    with or without noise, (C, R, D, H, W).
    """
    first = domains.X_test.table.groupby("class_name", sort=False).head(1)
    densities = domains.volumes("X_test")[first.index.to_numpy(copy=True)]
    references = class_references(domains.classes, config.box, domains.X_test.voxel_size_A)
    count = repeats if noise else CLEAN
    recorded = more_real(
        domains, references, count, config, stream(config.seed, "repeats"), noise_std=None if noise else 1e-6,
        poses=poses_of(first, count),
    )  # fmt: skip
    generated = generate_repeats(run, densities, repeats=repeats, seed=config.seed + 3)
    return densities, generated, run.scaling.y(recorded).unflatten(0, (len(densities), count))


def _mean_fsc(generated: torch.Tensor, recorded: torch.Tensor) -> list[float]:
    """Fourier shell correlation (shells,) of the mean of `generated` with that of `recorded`, (C, R, D, D, D); mean
    over classes.
    """
    curves = [fourier_shell_correlation(a.mean(0), b.mean(0)) for a, b in zip(generated, recorded, strict=True)]
    return torch.stack(curves).mean(0).tolist()


def make_defocus_knob(config: RunConfig, repeats: int = 200) -> dict:
    """Estimate with the CTF formula at one defocus, ask for another, and compare with the simulator there.

    For one density the average of many generations, and of many recordings, tells the transfer function: Re(FT[average]
    conj FT[density]) / |FT[density]|^2 over spatial frequency.
    """
    scope = dataclasses.replace(DATASETS[config.dataset].microscope, defocus_um=DEFOCI_um[0], defocus_spread_um=0.25)
    other = dataclasses.replace(scope, defocus_um=DEFOCI_um[1])
    domains = simulated_domains(config, microscope=scope)
    run, took = estimated(config, domains, f"{config.dataset}_knob_seed{config.seed}")
    voxel_size_A, n = domains.X_train.voxel_size_A, config.box
    first = domains.X_test.table.groupby("class_name", sort=False).head(1)
    densities = domains.volumes("X_test")[first.index.to_numpy(copy=True)]
    references = class_references(domains.classes, n, voxel_size_A)
    # where the wedge leaves something, and a radius: the sums over shells
    at, reached = lookup(n, "radius"), wedge(n, scope.tilt_min_deg, scope.tilt_max_deg, 2 * n).flatten() > 0.99

    def transfer_of(volumes: torch.Tensor) -> list[float]:
        spectra = torch.fft.rfftn(volumes.mean(1), dim=(-3, -2, -1)).flatten(1)
        x = torch.fft.rfftn(run.scaling.x(densities), dim=(-3, -2, -1)).flatten(1)
        above, below = (spectra * x.conj()).real.sum(0), x.abs().square().sum(0)
        sums = [
            torch.zeros(RADII).index_add_(
                0, at.index[reached].flatten(), (v[reached, None] * at.weight[reached]).flatten()
            )
            for v in (above, below)
        ]
        return (sums[0] / sums[1]).tolist()

    curves, angular = {}, {}
    for name, microscope in (("trained", scope), ("asked", other)):
        told = {} if name == "trained" else {"microscope": microscope}
        # of particles and tomograms about their mean
        height = domains.Y_train.table["defocus_um"].to_numpy() - scope.defocus_um
        defoci = (
            microscope.defocus_um
            + torch.tensor(np.random.default_rng(config.seed).choice(height, len(densities) * repeats)).float()
        )
        many = densities.repeat_interleave(repeats, 0)
        generated = generate(run, many, seed=config.seed + 5, defocus_um=defoci, **told)
        recorded = more_real(
            domains, references, repeats, config, stream(config.seed, "knob", name), microscope=microscope,
            poses=poses_of(first, repeats),
        )  # fmt: skip
        real = run.scaling.y(recorded)
        shape = (len(densities), repeats)
        curves[f"generated, {name}"], curves[f"recorded, {name}"] = (
            transfer_of(generated.unflatten(0, shape)),
            transfer_of(real.unflatten(0, shape)),
        )
        spectra = [angular_power_spectra(v).mean(0) for v in (real[::2], real[1::2], generated[::2])]
        angular[name] = angular_log_ratio(spectra[0], spectra[2])
        angular[f"{name}, floor"] = angular_log_ratio(spectra[0], spectra[1])
    return {
        "frequency_per_A": (torch.linspace(0, 0.5, RADII) / voxel_size_A).tolist(), "curves": curves,
        "angular": angular,
        "defoci_um": DEFOCI_um, "voxel_size_A": voxel_size_A, "recorded": f"at {DEFOCI_um[0]:g} um",
    } | took | described(config, "paper.proof", domains)  # fmt: skip


def proof_config(profile: str, dataset: str, snr: float, seed: int, **changes: object) -> RunConfig:
    """Configuration of a case: preset "physics" at an SNR, told nothing of the tilt range; the seed draws the data."""
    return make_config(profile, dataset, "physics", **({"tilt_range": "estimated"} | changes), seed=seed, snr=snr)


def comparison_names(profile: str, seeds: list[int]) -> list[str]:
    """Results that Table 7 and Figure 12 read; the smoke profile has one."""
    names = [name for name, case in planned(profile, seeds).items() if case.make is make_comparison]
    return names if profile != "smoke" else [f"physics_S1_snr{HEADLINE_SNR:g}_seed{seeds[0]}"]


def ablation_names(profile: str, seeds: list[int]) -> list[str]:
    """Results that Table 8 reads; the smoke profile has two."""
    return [name for name in planned(profile, seeds) if "_ablation_" in name][: 2 if profile == "smoke" else None]


def planned(profile: str, seeds: list[int]) -> dict[str, Case]:
    """Every result of the physics generator, by name."""
    first, cases = seeds[0], {}
    for seed in seeds:
        for dataset in DATASETS:
            for snr in SNRS if seed == first else (HEADLINE_SNR,):
                config = proof_config(profile, dataset, snr, seed)
                cases[f"physics_{dataset}_snr{snr:g}_seed{seed}"] = Case(config, make_comparison)
        for dataset, snr in ABLATED.items():
            config = proof_config(profile, dataset, snr, seed)
            for variant in (WHOLE, *VARIANTS):
                name = f"physics_ablation_{dataset}_{variant.replace(' ', '-')}_seed{seed}"
                cases[name] = Case(config, partial(make_ablation, variant=variant))
    for dataset, snr in (("S1", 0.05), ("S2", 0.1)):
        config = proof_config(profile, dataset, snr, first)
        cases[f"physics_interpretation_{dataset}_seed{first}"] = Case(config, make_interpretation)
    config = proof_config(profile, "S2", 0.2, first, transfer="ctf", tilt_range="known")
    few = dict(repeats=16) if profile == "smoke" else {}
    return cases | {f"physics_defocus_seed{first}": Case(config, partial(make_defocus_knob, **few))}
