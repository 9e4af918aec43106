"""Is the inverse generator F a denoiser? F(y) against filters, on subtomograms whose density and pose are known."""

from functools import partial

import numpy as np
import scipy
import torch

from ..config import DATASETS, RunConfig, make_config
from ..evaluation.metrics import fourier_shell_correlation
from ..generation import load_run, restore
from ..physics.fourier_grid import wedge
from ..simulator.sets import class_references, densities_of
from .case import Case
from .pretrained import TRAINED_IN, pretrained
from .record import described
from .simulated_sets import simulated_domains

SIGMAS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)  # voxels, of the Gaussian filter
# weights of the cycle: is it what keeps F from returning the density?
CYCLES = {"cycle30": dict(cycle_x=30.0), "cycle100": dict(cycle_x=100.0)}
STRONG = "cycle100"  # the run whose weights come with the repository
CHOSEN_ON = 20  # training particles of each class that its width is chosen on
RESTORED, FILTERED, SEEN, RAW = "F(y)", "Gaussian filter", "density within the wedge", "y itself"


def correlations(volumes: torch.Tensor, wanted: torch.Tensor) -> np.ndarray:
    """Pearson correlation (N,) of each volume with the one wanted, both (N, D, D, D)."""
    a, b = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (volumes, wanted))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)).numpy()


def _filtered(volumes: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.from_numpy(np.stack([scipy.ndimage.gaussian_filter(v, sigma) for v in volumes.numpy()]))


def make_denoiser(config: RunConfig, trained: str) -> dict:
    """Of the run `trained` in `weights`: correlation and Fourier shell correlation of the densities with what each
    filter makes of test subtomograms.

    The width of the Gaussian is the one that correlates best on training particles, all classes together. The best
    that any filter can do without inventing what the missing wedge holds is the density within the wedge.
    """
    domains, scope = simulated_domains(config), DATASETS[config.dataset].microscope
    run = load_run(pretrained(trained))
    first = domains.Y_train.table.groupby("class_name", sort=False).head(CHOSEN_ON).index.to_numpy(copy=True)
    chosen = domains.Y_train.select(first)
    voxel_size_A = domains.X_test.voxel_size_A
    references = class_references(domains.classes, config.box, voxel_size_A)
    tried = torch.from_numpy(np.array(chosen.volumes))
    truth = densities_of(chosen.table, references, config.box, voxel_size_A)
    sigma = max(SIGMAS, key=lambda s: float(correlations(_filtered(tried, s), truth).mean()))
    y, truth = domains.volumes("Y_test"), densities_of(domains.Y_test.table, references, config.box, voxel_size_A)
    mask = wedge(config.box, scope.tilt_min_deg, scope.tilt_max_deg)
    seen = torch.fft.irfftn(torch.fft.rfftn(truth, dim=(1, 2, 3)) * mask, s=(config.box,) * 3, dim=(1, 2, 3))
    made = {RESTORED: restore(run, run.scaling.y(y)), FILTERED: _filtered(y, sigma), SEEN: seen, RAW: y}
    labels = domains.labels("Y_test").numpy()
    rows, middle, curves = [], config.box // 2, {}
    for name, volumes in made.items():
        found = correlations(volumes, truth)
        rows += [
            {"filter": name, "class": kind, "correlation": float(found[labels == k].mean())}
            for k, kind in enumerate(domains.classes)
        ]
        curves[name] = torch.stack([fourier_shell_correlation(a, b) for a, b in zip(volumes, truth, strict=True)]).mean(
            0
        )
    examples = [int(np.flatnonzero(labels == k)[0]) for k in range(len(domains.classes))]
    sheet = {name: v[examples, middle].numpy().round(3).tolist() for name, v in (made | {"density": truth}).items()}
    return {
        "rows": rows,
        "fsc": {name: curve.tolist() for name, curve in curves.items()},
        "sigma_voxels": sigma,
        "sheet": sheet,
        "classes": list(domains.classes),
        "voxel_size_A": voxel_size_A,
    } | described(config, "paper.denoiser", domains)


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name: of the profile that the runs in `weights` were trained in."""
    if profile != TRAINED_IN:
        return {}
    plan = {}
    for dataset in DATASETS:
        config = make_config(profile, dataset, "adapted", seed=seed)
        plan[f"denoiser_{dataset}_seed{seed}"] = Case(config, partial(make_denoiser, trained=f"{dataset}_adapted"))
    strong = make_config(profile, "S1", "adapted", seed=seed, **CYCLES[STRONG])
    plan[f"denoiser_S1_{STRONG}_seed{seed}"] = Case(strong, partial(make_denoiser, trained=f"S1_adapted_{STRONG}"))
    return plan
