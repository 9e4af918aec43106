"""What parts of the estimate are worth on files that are not part of the project: those that S1 and S2 do not need."""

from pathlib import Path

from ..build import Scaling
from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation.compare import told_apart
from ..evaluation.downstream import PHYSICS, benchmark
from ..generation import TrainedRun, generate
from ..particles.folder import load_particles
from ..physics.acquisition import acquisition
from ..physics.estimate import estimate
from ..physics.generator import PhysicsGenerator
from ..volumes.domains import Domains
from . import own_data
from .case import Case
from .foreign import AUTHORS_FILES, MAPS, RIBOSOMES, authors_domains
from .proof import small_probes
from .record import described

LEFT_OUT = {"authors": ("", "cap", "one SNR"), "ribosomes": ("", "amplitude")}  # of the estimate; "" nothing


def _domains(data: str, folder: Path, config: RunConfig) -> Domains:
    """The paper authors' particles with their densities, or ribosomes of three tilt series, the last of which tests."""
    if data == "authors":
        return authors_domains(folder, config)
    particles = load_particles(folder / RIBOSOMES / "optimisation_set.star", config.box, 13.68)
    return own_data.domains(particles, f"ribosome={folder / MAPS / '4v4r.mrc'}", config)


def make_parts(folder: Path, config: RunConfig) -> dict:
    """Distances of generated from real test particles with and without each part of LEFT_OUT, and, where there are
    several classes, the accuracy on real of a classifier trained on generated volumes.
    """
    rows = []
    for data, parts in LEFT_OUT.items():
        domains = _domains(data, folder, config)
        x, y = domains.volumes("X_train"), domains.volumes("Y_train")
        scaling, told = Scaling.of(x, y, config.noise_level), acquisition(domains.Y_train)
        for without in parts:
            G = PhysicsGenerator(config.box, told)
            estimate(G, scaling.x(x), scaling.y(y), without)
            run = TrainedRun(config, scaling, G.eval(), None)
            real = scaling.y(domains.volumes("Y_test"))
            row = {"data": data, "without": without}
            row |= told_apart(real, generate(run, domains.volumes("X_test"), seed=config.seed + 2))
            if len(domains.classes) > 1:
                sets = {PHYSICS: generate(run, x, seed=config.seed + 1)}
                probes = benchmark(sets, domains, seed=config.seed, **small_probes(config))
                row["accuracy"] = sum(r["accuracy"] for r in probes) / len(probes)
            rows.append(row)
    return {"rows": rows} | described(config, "paper.parts")


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The result by name."""
    files = (*AUTHORS_FILES, f"{RIBOSOMES}/optimisation_set.star", f"{MAPS}/4v4r.mrc")
    return {f"parts_seed{seed}": Case(make_config(profile, OWN_DATA, "physics", box=28, seed=seed), make_parts, files)}
