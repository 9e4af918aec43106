"""How far off centre picks are, and how far they are found to be; and what it costs the signal that is estimated.

Picks in the tomograms that `picker` trains on are moved at random. The file of the paper's authors tells where its
particles lie.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..config import DATASETS, OWN_DATA, RunConfig, make_config
from ..physics.pick_error import CERTAIN, pick_error, spread
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..reproducibility.seeds import stream
from ..simulator.sets import density_maps
from . import own_data, picker
from .foreign import AUTHORS, AUTHORS_MAPS, MAPS, Foreign
from .picker import recorded_tomograms, what_is_picked
from .picking import estimated, particles_in
from .proof import proof_config
from .record import described
from .simulated_sets import simulated_domains
from .wrong_input import moved_picks

ERRORS = (0.0, 1.0, 2.0, 3.0)  # voxels, standard deviation along each axis
FEW = (100, 30)  # particles, beside all
SIGNAL = slice(1, 10)  # shells of T: below the zero of the CTF, above the mean of a box


def make_pick_errors(config: RunConfig, errors: tuple[float, ...] = ERRORS, few: tuple[int, ...] = FEW) -> dict:
    """Rows of the error put in, particles, the error found and its certainty; "levels": of the mean transfer function,
    over that of picks in the centre, with densities as they are and moved as far as the picks; and "control": what is
    found beyond the densities' own spread where particles are spread alike (in voxels), and its certainty.
    """
    references, _, voxel = what_is_picked(config)
    trained_on, _ = recorded_tomograms(config, picker.TRAINED_ON, 0)
    x = density_maps(references, 50, config.box, voxel, stream(config.data_seed, "picker", "X"))
    densities, own = torch.from_numpy(np.asarray(x.volumes)), spread(x)
    rows, levels, centred = [], [], None
    for error in errors:
        rng = np.random.default_rng([config.data_seed, 25, round(10 * error)])  # no other stream of the project
        picks = [moved_picks(tomogram, error * voxel, rng) for tomogram in trained_on]
        y = torch.from_numpy(np.asarray(particles_in(picks, voxel, config.box).volumes))
        for n in (len(y), *few):
            found, certainty = pick_error(densities, y[torch.from_numpy(rng.permutation(len(y))[:n])], voxel)
            all_of_it = float(np.hypot(found, own))
            rows.append({"error": error, "particles": n, "found": all_of_it, "certainty": certainty})
        folder = paths.runs(config.profile) / "pick_errors" / f"{config.dataset}_seed{config.seed}"
        level = {}
        for name, mend in (("as they are", False), ("moved", True)):
            run, _ = estimated(config, picks, references, voxel, folder, mend=mend)
            level[name] = float(run.G.T.abs()[SIGNAL].mean())
        centred = centred or level["as they are"]
        levels.append({"error": error} | {name: value / centred for name, value in level.items()})
    alike = simulated_domains(config)
    control = pick_error(alike.volumes("X_train"), alike.volumes("Y_train"), voxel)
    return {
        "rows": rows,
        "levels": levels,
        "control": control,
        "densities": own,
        "rounded": float(np.sqrt(1 / 12)),  # boxes are cut round a voxel
        "certain": CERTAIN,
        "data_hash": array_hash(*(volume for volume, _ in trained_on)),
    } | described(config, "paper.pick_errors")


def make_authors(folder: Path, config: RunConfig) -> dict:
    """The error of the authors' particles as their file tells it, and as it is found."""
    particles = own_data.load_particles(folder / AUTHORS, config.box, protein="dark", beam_axis="x")
    densities = ", ".join(f"{name}={folder / MAPS / file}" for name, file in AUTHORS_MAPS.items())
    both = own_data.domains(particles, densities, config)
    y = both.volumes("Y_train")
    found, certainty = pick_error(both.volumes("X_train"), y, particles.voxel_size_A)
    own = spread(both.X_train)
    row = {"error": spread(both.Y_train), "particles": len(y), "found": float(np.hypot(found, own))}
    return {"rows": [row | {"certainty": certainty}], "densities": own} | described(config, "paper.pick_errors", both)


def planned(profile: str, seed: int) -> dict[str, tuple[RunConfig, Callable[[], dict]]]:
    """Configuration and call for both sets, by name."""
    small = dict(errors=ERRORS[:3:2], few=()) if profile == "smoke" else {}
    configs = {name: proof_config(profile, name, picker.SNR, seed) for name in DATASETS}
    return {
        f"pick_errors_{name}_seed{seed}": (config, partial(make_pick_errors, config, **small))
        for name, config in configs.items()
    }


def planned_foreign(profile: str, seed: int) -> dict[str, Foreign]:
    """The result on the authors' particles, by name."""
    files = (AUTHORS, *(f"{MAPS}/{file.split('#')[0]}" for file in AUTHORS_MAPS.values()))
    config = make_config(profile, OWN_DATA, "physics", box=28, seed=seed)
    return {f"authors_pick_error_seed{seed}": Foreign(files, config, make_authors)}
