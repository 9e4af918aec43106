"""F as a denoiser: the densities it is compared with are those of the particles, and the correlation is Pearson's."""

import numpy as np
import pytest
import torch

from cryoetgan_core.config import make_config
from cryoetgan_core.paper import denoiser
from cryoetgan_core.reproducibility.seeds import stream
from cryoetgan_core.simulator.sets import class_references, densities_of, density_maps


def test_the_density_of_a_particle_is_found_from_its_pose() -> None:
    references = class_references(("ribosome", "tric"), 24, 22.8)
    x = density_maps(references, 3, 24, 22.8, stream(0, "x"))
    found = densities_of(x.table, references, 24, 22.8)
    assert denoiser.correlations(found, torch.from_numpy(x.volumes)).min() > 0.99
    swapped = denoiser.correlations(found.flip(0), torch.from_numpy(x.volumes))
    assert swapped.max() < 0.9


def test_the_correlation_is_pearsons() -> None:
    a, b = torch.randn((2, 5, 6, 6, 6), generator=stream(0, "a"))
    wanted = [np.corrcoef(u.flatten(), v.flatten())[0, 1] for u, v in zip(a, b, strict=True)]
    assert denoiser.correlations(a, b) == pytest.approx(wanted, abs=1e-5)
    assert denoiser.correlations(2 * a + 3, a) == pytest.approx(1, abs=1e-5)


def test_it_is_planned_where_its_weights_were_trained() -> None:
    planned = {"denoiser_S1_seed0", "denoiser_S2_seed0", "denoiser_S1_cycle100_seed0"}
    assert set(denoiser.planned("evening", 0)) == planned
    assert denoiser.planned("quick", 0) == {}
    case, *_ = denoiser.planned("evening", 0).values()
    assert case.config == make_config("evening", "S1", "adapted", seed=0)
