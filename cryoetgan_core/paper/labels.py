"""Why labels of generated volumes are read less well than volumes teach: they are changed by hand, and read again."""

import torch

from ..config import RunConfig, make_config
from ..evaluation.classification import load_classifier, predict
from ..generation import generate, generate_repeats
from .case import Case
from .plan import run_name
from .record import described
from .simulated_sets import data_folder, fit_classifier, has_data, load_data, simulated_domains
from .spread import trained

FACTORS = (0.8, 1.0, 1.2, 1.5, 2.0)  # of the signal
REPEATS = 8  # generations of a density, whose mean stands for its signal


def with_histogram(volumes: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Volumes (N, D, D, D) with the grey values of a set of others, rank by rank."""
    ranks = volumes.flatten().argsort().argsort().double() / volumes.numel()
    values = wanted.flatten().sort().values
    return values[(ranks * len(values)).long().clamp(max=len(values) - 1)].reshape(volumes.shape)


def with_power(volumes: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Volumes (N, D, D, D) with the mean power of a set of others at each voxel of Fourier space."""
    dims = (1, 2, 3)
    gain = torch.sqrt(
        torch.fft.rfftn(wanted, dim=dims).abs().square().mean(0)
        / torch.fft.rfftn(volumes, dim=dims).abs().square().mean(0).clamp(min=1e-12)
    )
    return torch.fft.irfftn(torch.fft.rfftn(volumes, dim=dims) * gain, s=volumes.shape[1:], dim=dims)


def make_labels(config: RunConfig) -> dict:
    """How often the reference classifier reads each class of real and generated test volumes, and of generated ones
    whose grey values, power spectrum or signal were changed.

    The signal is the mean of REPEATS generations of a density; times f, f - 1 of it is added to each volume.
    """
    domains = load_data(config) if has_data(config) else simulated_domains(config)
    classes, run = len(domains.classes), trained(config)
    if has_data(config):
        classifier = load_classifier(data_folder(config) / "classifier.safetensors", config, classes)
    else:
        classifier = fit_classifier(config, domains)
    x, labels = domains.volumes("X_test"), domains.labels("X_test")
    real, made = run.scaling.y(domains.volumes("Y_test")), generate(run, x, seed=config.seed)
    signal = generate_repeats(run, x, repeats=REPEATS, seed=config.seed + 7).mean(1)
    changed = {
        "as generated": made,
        "grey values of the real set": with_histogram(made, real),
        "power spectrum of the real set": with_power(made, real),
    } | {f"signal times {f:g}": made + (f - 1) * signal for f in FACTORS if f != 1}
    rows = []
    for name, volumes, wanted in (
        ("real", real, domains.labels("Y_test")),
        *((name, volumes, labels) for name, volumes in changed.items()),
    ):
        named = predict(classifier, volumes[:, None])[0].argmax(1)
        rows.append(
            {"volumes": name, "label read": 100 * float((named == wanted).double().mean())}
            | {c: 100 * float((named[wanted == k] == k).double().mean()) for k, c in enumerate(domains.classes)}
        )
    return {"rows": rows, "classes": list(domains.classes)} | described(config, "paper.labels", domains, classifier)


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The result by name."""
    config = make_config(profile, "S1", "adapted", seed=seed)
    return {f"labels_S1_seed{seed}": Case(config, make_labels, needs=run_name("S1", "adapted", seed))}
