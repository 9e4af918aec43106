"""Template matching, the strongest simple baseline of the pickers: nothing is trained, and nothing is generated.

The densities of the classes, seen through the CTF formula and the missing wedge, are correlated with a tomogram in many
rotations. It is told the optics and the tilts; on DeepFinder's tomograms, whose optics are not known, the wedge alone.
Noise is not whitened (see `wrong_input`). Its thresholds are set on a tomogram with real labels.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..config import DATASETS, RunConfig
from ..reproducibility.provenance import array_hash
from ..simulator.specimen.crowding import radius_A
from ..volumes.alignment import rotation_grid
from ..volumes.poses import rotate_volume
from . import deepfinder_picker, picker
from .case import Case
from .deepfinder_picker import labelled
from .foreign import DEEPFINDER, DEEPFINDER_VOXEL_A
from .picker import recorded_tomograms, what_is_picked
from .picking import formula, kept_apart, normalised, picked_right, scores, seen_by_tilts
from .record import described
from .results import read_results
from .simulated_sets import default_device

LEVELS = np.linspace(3, 20, 35)  # thresholds, standard deviations of a template's scores
ROTATIONS, FINE = 600, 2400  # of each template: 24 degrees apart, and 15
OWN = picker.TRAINED_ON  # labelled tomograms that set the thresholds where more than one does
TEMPLATES = "template matching"
MIDDLE = "template matching, middle of equally good thresholds"


def template_scores(
    volume: np.ndarray, references: Mapping[str, torch.Tensor], factor: torch.Tensor, rotations: int = ROTATIONS
) -> np.ndarray:
    """How well each class (sorted) fits at each voxel, (classes, Z, Y, X): the largest correlation of its density, seen
    through `factor`, over rotations, in standard deviations of its score.
    """
    device, found = default_device(), []
    spectrum = torch.fft.rfftn(torch.from_numpy(normalised(volume)).to(device)) * factor.to(device)
    template = torch.zeros(volume.shape, device=device)
    for _, reference in sorted(references.items()):
        best, size = torch.full(volume.shape, -torch.inf, device=device), reference.shape
        for part in rotation_grid(rotations).split(20):
            for turned in rotate_volume(reference.to(device), part, torch.zeros(len(part), 3), 1.0, upsample=1):
                template[tuple(slice(0, n) for n in size)] = turned
                score = torch.fft.irfftn(spectrum * torch.fft.rfftn(template).conj(), s=volume.shape)
                best = torch.maximum(best, score / score.std())
        template.zero_()
        found.append(best.roll([n // 2 for n in size], (0, 1, 2)).cpu().numpy())  # from its corner to its centre
    return np.stack(found)


def matched_heights(
    volume: np.ndarray, references: Mapping[str, torch.Tensor], radii: list[float], factor: torch.Tensor, rotations: int
) -> np.ndarray:
    """`template_scores` of the maxima that `kept_apart` leaves; radii (voxels) in the order of sorted classes."""
    return kept_apart(template_scores(volume, references, factor, rotations), radii, LEVELS[0])


def make_simulated(
    config: RunConfig, rotations: int = ROTATIONS, recorded: int = 12, tested: int = picker.TESTED_ON, own: int = 1
) -> dict:
    """Scores on the tomograms that the pickers of `picker` are tested on; thresholds are set on the last `own` of the
    four that they were trained on with real labels. Of equally good thresholds the lowest is taken, as for pickers, and
    the middle one.
    """
    references, _, voxel_size_A = what_is_picked(config)
    radii = {name: radius_A(r, voxel_size_A) for name, r in references.items()}
    trained_on, tested_on = recorded_tomograms(config, recorded, tested)
    scope = DATASETS[config.dataset].microscope
    factor = formula(picker.SHAPE, voxel_size_A, scope) * seen_by_tilts(
        picker.SHAPE, scope.tilt_min_deg, scope.tilt_max_deg
    )
    in_voxels = [radii[name] / voxel_size_A for name in sorted(radii)]
    matching = partial(matched_heights, references=references, radii=in_voxels, factor=factor, rotations=rotations)
    labelled_ones = trained_on[picker.TRAINED_ON - own : picker.TRAINED_ON]
    own_heights, tested_heights = ([(matching(v), table) for v, table in some] for some in (labelled_ones, tested_on))
    lowest, middle = (
        picked_right(lambda found: found, own_heights, tested_heights, voxel_size_A, radii, LEVELS, middle=middle)
        for middle in (False, True)
    )
    return {
        "rows": lowest,
        "rows_middle": middle,
        "scores": {TEMPLATES: [scores(pd.DataFrame(lowest))], MIDDLE: [scores(pd.DataFrame(middle))]},
        "rotations": rotations,
        "thresholds_from": own,
        "voxel_size_A": voxel_size_A,
        "data_hash": array_hash(*(volume for volume, _ in (*trained_on, *tested_on))),
    } | described(config, "paper.template_matching")


def make_deepfinder(folder: Path, config: RunConfig, rotations: int = ROTATIONS) -> dict:
    """Scores on each of DeepFinder's tomograms, with the densities and the thresholds of the other one, and the tilts
    that its generator was estimated to have.
    """
    both = [labelled(folder / name) for name in DEEPFINDER]
    name = f"deepfinder_picker_seed{config.seed}"
    case = deepfinder_picker.planned(config.profile, config.seed)[name]
    (estimated,) = read_results(config.profile, {name: case.config}).values()
    rows, each, voxel = [], [], DEEPFINDER_VOXEL_A
    for fold, (known, other) in enumerate((both, both[::-1])):
        volume, table, references = known
        radii = {name: radius_A(r, voxel) for name, r in references.items()}
        seen = seen_by_tilts(volume.shape, *estimated["tilt_range_deg"][fold])
        in_voxels = [radii[name] / voxel for name in sorted(radii)]
        matching = partial(matched_heights, references=references, radii=in_voxels, factor=seen, rotations=rotations)
        found = picked_right(matching, [(volume, table)], [other[:2]], voxel, radii, LEVELS)
        rows += [{"fold": fold} | row for row in found]
        each.append(scores(pd.DataFrame(found)))
    return {
        "rows": rows,
        "scores": {TEMPLATES: each},
        "rotations": rotations,
        "data_hash": array_hash(*(b[0] for b in both)),
    } | described(config, "paper.template_matching")


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name."""
    few = dict(rotations=3, recorded=picker.TRAINED_ON, tested=1) if profile == "smoke" else {}
    plan = {}
    for dataset in DATASETS:
        config = picker.planned(profile, seed)[f"picker_{dataset}_seed{seed}"].config
        for kind, more in {"": {}, "_four": dict(own=OWN), "_fine": dict(rotations=FINE, own=OWN)}.items():
            plan[f"templates_{dataset}{kind}_seed{seed}"] = Case(config, partial(make_simulated, **(more | few)))
    return plan


def planned_foreign(profile: str, seed: int) -> dict[str, Case]:
    """The result on DeepFinder's tomograms, by name."""
    few = dict(rotations=3) if profile == "smoke" else {}
    name = f"deepfinder_picker_seed{seed}"
    case, make = deepfinder_picker.planned(profile, seed)[name], partial(make_deepfinder, **few)
    return {name.replace("picker", "templates"): Case(case.config, make, case.files, reads=name)}
