"""Curves of whole tomograms: of volumes whose transfer function and noise are known, and of a generator."""

import numpy as np
import pytest

from cryoetgan_core.paper import picker
from cryoetgan_core.paper.picking import seen_by_tilts
from cryoetgan_core.paper.whole_tomograms import Shells, planned

SHAPE = (48, 64, 80)


@pytest.fixture(scope="module")
def shells() -> Shells:
    return Shells(SHAPE, -60, 60)


def white(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def filtered(volume: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return np.fft.irfftn(np.fft.rfftn(volume) * factor, s=SHAPE, axes=(0, 1, 2)).astype(np.float32)


def test_a_known_transfer_function_and_noise_are_found(shells: Shells) -> None:
    radius = np.sqrt(
        sum(f**2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE[:2]), np.fft.rfftfreq(80), indexing="ij"))
    )
    found = shells.curves(white(0), filtered(white(0), 1 - 3 * radius), 2 * filtered(white(1), radius))
    filled = np.isfinite(found["transfer"])  # the lowest shells of a small volume hold nothing
    assert filled[4:].all()
    f = shells.frequency[filled]
    np.testing.assert_allclose(np.array(found["transfer"])[filled], 1 - 3 * f, atol=0.02)
    far = shells.frequency > 0.2  # shells of many voxels
    np.testing.assert_allclose(np.array(found["noise"])[far] / (2 * shells.frequency[far]) ** 2, 1, atol=0.15)


def test_noise_in_the_wedge_is_told(shells: Shells) -> None:
    seen = seen_by_tilts(SHAPE, -60, 60).numpy()
    half = np.where(seen > 0, 1, 0.5)  # of the amplitude: a quarter of the power
    assert shells.curves(white(0), white(0), white(1))["in_wedge"] == pytest.approx(1, abs=0.05)
    assert shells.curves(white(0), white(0), filtered(white(1), half))["in_wedge"] == pytest.approx(0.25, abs=0.02)
    assert shells.curves(white(0), white(0), filtered(white(1), seen))["in_wedge"] < 0.02


def test_a_generated_tomogram_has_the_noise_of_those_its_particles_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picker, "SHAPE", (48, 80, 80))
    monkeypatch.setattr(picker, "MOLECULES", 20)
    case, told = (planned("smoke", 0)[f"whole_tomograms_S1{kind}_seed0"] for kind in ("", "_uncorrected"))
    assert told.config.replace(transfer="table") == case.config and told.config.transfer == "uncorrected"
    result = case.make(case.config)
    between = np.array(result["frequency"]) > 0.15
    (real,), (made,) = ([np.array(c["noise"])[between] for c in result[k]] for k in ("simulator", "generator"))
    assert np.median(made / real) == pytest.approx(1, abs=0.2)
    assert 0 < result["generator"][0]["in_wedge"] < 0.1
