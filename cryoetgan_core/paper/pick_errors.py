"""How far off centre picks are, and how far they are found to be; and what it costs the signal that is estimated.

Picks in the tomograms that `picker` trains on are moved, at random or all alike. The file of the paper's authors tells
where its particles lie.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..config import DATASETS, OWN_DATA, RunConfig, make_config
from ..physics.pick_error import CERTAIN, LEAST, as_picked, mean_offset, pick_error, spread
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..reproducibility.seeds import stream
from ..simulator.sets import density_maps
from ..volumes.domains import Domains
from ..volumes.poses import random_rotations
from ..volumes.table import POSITION_COLUMNS, ParticleSet
from . import picker
from .case import Case
from .foreign import AUTHORS_FILES, authors_domains
from .picker import recorded_tomograms, what_is_picked
from .picking import particles_in
from .proof import proof_config
from .record import described
from .runs import train_on
from .simulated_sets import simulated_domains
from .wrong_input import moved_picks

ERRORS = (0.0, 1.0, 2.0, 3.0)  # voxels, standard deviation along each axis
OFFSET = (2.0, 0.0, -1.0)  # voxels, zyx: of all picks alike
FEW = (100, 30)  # particles, beside all
EACH = 50  # densities of each class
SIGNAL = slice(1, 10)  # shells of T: below the zero of the CTF, above the mean of a box


def make_pick_errors(config: RunConfig, errors: tuple[float, ...] = ERRORS, few: tuple[int, ...] = FEW) -> dict:
    """Rows of the error put in, particles, the error found and its certainty, and "control": what is found beyond the
    densities' own spread where particles are spread alike (in voxels), and its certainty.

    Also "levels": of the mean transfer function, with densities as they are drawn, moved as far as the picks are found
    to lie ("found", 0 for none), and spread as the picks are; over that of picks in the centre with the last. And
    "offset": where particles are found to lie on average when all picks are off by OFFSET, and the same levels.
    """
    references, _, voxel = what_is_picked(config)
    trained_on, _ = recorded_tomograms(config, picker.TRAINED_ON, 0)
    x = density_maps(references, EACH, config.box, voxel, stream(config.data_seed, "picker", "X"))
    densities, own, rounded = torch.from_numpy(np.asarray(x.volumes)), spread(x), float(np.sqrt(1 / 12))
    folder = paths.runs(config.profile) / "pick_errors" / f"{config.dataset}_seed{config.seed}"

    def level(x: ParticleSet, y: ParticleSet) -> float:
        return float(train_on(config, Domains(x, x, y, y), folder, replace=True).G.T.abs()[SIGNAL].mean())

    rows, levels, centred = [], [], None
    for error in errors:
        rng = np.random.default_rng([config.data_seed, 25, round(10 * error)])  # no other stream of the project
        y = particles_in([moved_picks(tomogram, error * voxel, rng) for tomogram in trained_on], voxel, config.box)
        volumes = torch.from_numpy(np.asarray(y.volumes))
        for n in (len(y), *few):
            chosen = volumes if n == len(y) else volumes[torch.from_numpy(rng.permutation(len(y))[:n])]
            found, certainty = pick_error(densities, chosen, voxel)
            all_of_it = float(np.hypot(found, own))
            rows.append({"error": error, "particles": n, "found": all_of_it, "certainty": certainty})
        both, found, _ = as_picked(Domains(x, x, y, y), config.data_seed)
        poses_rng = stream(config.data_seed, "pick errors", round(10 * error))
        moves = torch.randn((len(x), 3), generator=poses_rng, dtype=torch.float64)
        poses = random_rotations(len(x), poses_rng), moves * float(np.hypot(error, rounded)) * voxel
        alike = density_maps(references, EACH, config.box, voxel, poses_rng, poses)
        of = {name: level(one, y) for name, one in (("drawn", x), ("moved", both.X_train), ("alike", alike))}
        centred = centred or of["alike"]
        levels.append({"error": error, "found": found} | {name: value / centred for name, value in of.items()})
    columns, off = list(POSITION_COLUMNS[::-1]), voxel * np.array(OFFSET)
    y = particles_in(
        [(v, t.assign(**{c: t[c] + o for c, o in zip(columns, off, strict=True)})) for v, t in trained_on],
        voxel,
        config.box,
    )
    volumes, rng, told = torch.from_numpy(np.asarray(y.volumes)), np.random.default_rng([config.data_seed, 26]), []
    for n in (len(y), *few):
        place, standard_error = mean_offset(volumes[torch.from_numpy(rng.permutation(len(y))[:n])])
        told.append({"particles": n, "found": place.tolist(), "standard_error": standard_error.tolist()})
    moved = as_picked(Domains(x, x, y, y), config.data_seed).domains.X_train
    offset = {
        "rows": told,
        "put_in": [-v for v in OFFSET],
        "drawn": level(x, y) / centred,
        "moved": level(moved, y) / centred,
    }
    alike = simulated_domains(config)
    control = pick_error(alike.volumes("X_train"), alike.volumes("Y_train"), voxel)
    return {
        "rows": rows,
        "levels": levels,
        "control": control,
        "offset": offset,
        "densities": own,
        "rounded": rounded,  # boxes are cut round a voxel
        "certain": CERTAIN,
        "least": LEAST,
        "data_hash": array_hash(*(volume for volume, _ in trained_on)),
    } | described(config, "paper.pick_errors")


def make_authors(folder: Path, config: RunConfig) -> dict:
    """The error of the authors' particles as their file tells it, and as it is found."""
    both = authors_domains(folder, config)
    y = both.volumes("Y_train")
    found, certainty = pick_error(both.volumes("X_train"), y, both.Y_train.voxel_size_A)
    own = spread(both.X_train)
    row = {"error": spread(both.Y_train), "particles": len(y), "found": float(np.hypot(found, own))}
    return {"rows": [row | {"certainty": certainty}], "densities": own} | described(config, "paper.pick_errors", both)


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name."""
    small = dict(errors=ERRORS[:3:2], few=()) if profile == "smoke" else {}
    configs = {name: proof_config(profile, name, picker.SNR, seed) for name in DATASETS}
    return {
        f"pick_errors_{name}_seed{seed}": Case(config, partial(make_pick_errors, **small))
        for name, config in configs.items()
    }


def planned_foreign(profile: str, seed: int) -> dict[str, Case]:
    """The result on the authors' particles, by name."""
    config = make_config(profile, OWN_DATA, "physics", box=28, seed=seed)
    return {f"authors_pick_error_seed{seed}": Case(config, make_authors, AUTHORS_FILES)}
