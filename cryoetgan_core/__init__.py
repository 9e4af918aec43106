"""CryoETGAN: labelled cryo-ET training data that looks like your microscope.

The heart:

- `models`, `losses`: the paper's networks and objectives
- `physics`: the generator built as a microscope, estimated from particles
- `training`, `run_folder`: the trainer; runs that can be stopped and resumed
- `generation`, `streaming`: densities in, labelled subtomograms out; by the million
- `scenes`: whole labelled tomograms
- `config`: every setting of a run

Beside it, each importing only from those before it:

- `reproducibility`: random streams, paths, provenance, whole files
- `layers`, `engine`: quick convolutions; quick training steps
- `volumes`: density maps, poses, the particle table, the two domains of a training
- `simulator`: the specimen and the microscope
- `particles`: readers and writers of other programs' files
- `evaluation`: metrics, baselines, the downstream task
- `paper`: what the notebooks and the Snakefile call; figures and tables

The names below are those that most users need; they are loaded when they are first used.
"""

import importlib
import importlib.metadata

_HOMES = {
    "load_particles": "particles.folder",
    "describe": "particles.report",
    "densities_for": "paper.api",
    "train": "paper.api",
    "generate": "paper.api",
    "simulate": "paper.api",
    "generate_tomograms": "paper.api",
    "ParticleSet": "volumes.table",
    "Domains": "volumes.domains",
    "RunConfig": "config",
    "make_config": "config",
    "DATASETS": "config",
    "train_on": "paper.runs",
    "TrainedRun": "generation",
    "load_run": "generation",
    "pretrained": "paper.pretrained",
    "Order": "streaming",
    "generate_to": "streaming",
    "MICROSCOPES": "simulator.microscope.simulate",
    "class_references": "simulator.sets",
    "density_maps": "simulator.sets",
    "subtomograms": "simulator.sets",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.metadata.version("cryoetgan-core")
    if name not in _HOMES:
        raise AttributeError(f"cryoetgan_core has no {name!r}; it has {', '.join(__all__)}, and its modules.")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
