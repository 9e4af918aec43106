"""The simulated set of a run: made once a profile, with the classifier trained on its real half, and read by everything
after.
"""

import dataclasses
import json
from pathlib import Path

import torch

from ..config import DATASETS, RunConfig
from ..evaluation.baselines import more_real
from ..evaluation.classification import save_classifier, train_classifier
from ..evaluation.compare import floor
from ..models import C3D
from ..reproducibility import paths
from ..reproducibility.files import read_json, write_atomically
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import Microscope
from ..simulator.sets import class_references, density_maps, poses_of, subtomograms
from ..volumes.domains import Domains, load_domains, save_domains

# What a simulated set and its reference classifier depend on, besides the data set's own description
DATA_FIELDS = (
    "box", "train_per_class", "test_per_class", "snr", "data_seed", "classifier_width", "classifier_dense",
    "classifier_epochs",
)  # fmt: skip
SIMULATE_AGAIN = "run notebooks/simulate_data.ipynb again"
REPEATS = 40  # recordings of a density, and generations of it to compare them with


def default_device() -> str:
    """Return "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def data_folder(config: RunConfig) -> Path:
    """Folder of the run's simulated set: one a data draw."""
    return paths.runs(config.profile) / "data" / f"{config.dataset}_draw{config.data_seed}"


def data_record(config: RunConfig, maps: dict[str, str] | None = None) -> dict:
    """Everything that a simulated set depends on, as JSON types; the set's folder holds it in data.json."""
    # sets of the first version, which lack "angles", have those of the inverse poses
    record = {"dataset": config.dataset, "maps": maps or {}, "angles": "reference to particle"} | {
        k: getattr(config, k) for k in DATA_FIELDS
    }
    return json.loads(json.dumps(record | dataclasses.asdict(DATASETS[config.dataset])))


def simulated_domains(
    config: RunConfig,
    *,
    maps: dict[str, str] | None = None,
    microscope: Microscope | None = None,
    densities: dict[str, torch.Tensor] | None = None,
) -> Domains:
    """Both domains of the run's set, in memory; `maps` as in `simulate_data`, `microscope` in place of the set's,
    `densities` (class to reference) in X in place of those that are recorded.
    """
    dataset = DATASETS[config.dataset]
    voxel_size_A = dataset.field_of_view_A / config.box
    references = class_references(dataset.classes, config.box, voxel_size_A, maps)
    halves, noise_std = {}, None
    for half, per_class in (("train", config.train_per_class), ("test", config.test_per_class)):
        rng = {domain: stream(config.data_seed, config.dataset, domain, half) for domain in "XY"}
        halves[f"X_{half}"] = density_maps(densities or references, per_class, config.box, voxel_size_A, rng["X"])
        halves[f"Y_{half}"] = subtomograms(
            references, per_class, config.box, voxel_size_A, microscope or dataset.microscope, rng["Y"], snr=config.snr,
            noise_std=noise_std,
            crowding=dataset.crowding, prefix=half,
        )  # fmt: skip
        noise_std = float(halves[f"Y_{half}"].table["noise_std"][0])
    return Domains(**halves)


def simulate_data(config: RunConfig, maps: dict[str, str] | None = None) -> Domains:
    """Make both domains of the run's set, train its reference classifier on the real train half, and write all to
    `data_folder`.

    `maps` gives a file (atomic model or density map) for a class instead of its built-in model. data.json is written
    last: a set without it is incomplete.
    """
    folder = data_folder(config)
    (folder / "data.json").unlink(missing_ok=True)
    domains = simulated_domains(config, maps=maps)
    save_domains(domains, folder)
    classifier = fit_classifier(config, domains)
    save_classifier(classifier, folder / "classifier.safetensors")
    references = class_references(domains.classes, config.box, domains.X_test.voxel_size_A, maps)
    redrawn = more_real(domains, references, config.test_per_class, config, stream(config.data_seed, "redraw", "floor"))
    write_atomically(
        folder / "floor.json", lambda p: p.write_text(json.dumps(floor(domains, redrawn, classifier), indent=1))
    )
    write_atomically(folder / "data.json", lambda p: p.write_text(json.dumps(data_record(config, maps), indent=1)))
    return domains


def has_data(config: RunConfig) -> bool:
    """Whether the run's set has been simulated."""
    return (data_folder(config) / "data.json").exists()


def load_data(config: RunConfig) -> Domains:
    """Read the run's set.

    Raises FileNotFoundError when it has not been simulated; ValueError when it was simulated with other sizes or
    another microscope than the configuration's.
    """
    folder = data_folder(config)
    if not has_data(config):
        raise FileNotFoundError(
            f"{folder} holds no complete set: run notebooks/simulate_data.ipynb (or `make figures`) first."
        )
    found = read_json(folder / "data.json", SIMULATE_AGAIN)
    wanted = data_record(config, found["maps"])
    different = [k for k in wanted if found.get(k) != wanted[k]]
    if different:
        raise ValueError(
            f"{folder} was simulated with another {', '.join(different)}: run notebooks/simulate_data.ipynb again."
        )
    return load_domains(folder)


def fit_classifier(config: RunConfig, domains: Domains) -> C3D:
    """Train the reference classifier on Y_train."""
    volumes = domains.volumes("Y_train")
    volumes = (volumes - volumes.mean()) / volumes.std()
    return train_classifier(
        config, volumes[:, None], domains.labels("Y_train"), classes=len(domains.classes), device=default_device()
    )


def recorded_repeats(config: RunConfig, domains: Domains) -> torch.Tensor:
    """What the microscope shows of the first test density of each class, in its pose, recorded many times: (classes,
    R, D, H, W), raw; R is REPEATS, and fewer in the smoke profile.

    Defocus, neighbours and noise differ from one to the next.
    """
    repeats = 8 if config.profile == "smoke" else REPEATS
    first = domains.X_test.table.groupby("class_name", sort=False).head(1)
    maps = read_json(data_folder(config) / "data.json", SIMULATE_AGAIN)["maps"]
    references = class_references(domains.classes, config.box, domains.X_test.voxel_size_A, maps)
    rng, poses = stream(config.data_seed, "repeats"), poses_of(first, repeats)
    return more_real(domains, references, repeats, config, rng, poses=poses).unflatten(0, (len(references), repeats))
