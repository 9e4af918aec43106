"""The report of what was read: the beam axis found from data whose axis is known, and a warning for what a careful
person would ask about.
"""

import numpy as np
import pytest
import torch
from common import SHARED, needs_shared

import cryoetgan_core as cg
from cryoetgan_core.paper.plotting import report_figure
from cryoetgan_core.particles.report import beam_axis_of, describe, unlike_tomograms
from cryoetgan_core.particles.tomogram import read_tomogram
from cryoetgan_core.reproducibility.seeds import stream
from cryoetgan_core.simulator.microscope.simulate import MICROSCOPES
from cryoetgan_core.simulator.sets import class_references, subtomograms
from cryoetgan_core.volumes.table import ParticleSet, particle_table

BOX, VOXEL_A = 24, 15.0


@pytest.fixture(scope="module")
def recorded():
    references = class_references(("ribosome",), BOX, VOXEL_A)
    return subtomograms(references, 24, BOX, VOXEL_A, MICROSCOPES["S2"], stream(0, "y"), snr=0.1, tomograms=2)


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_the_beam_axis_is_found_from_the_wedge(recorded, axis):
    turned = np.swapaxes(recorded.volumes, 1, 1 + "zyx".index(axis)).copy()
    assert beam_axis_of(torch.from_numpy(turned))[0] == axis


def test_no_axis_is_named_where_there_is_no_wedge():
    assert beam_axis_of(torch.randn(8, BOX, BOX, BOX, generator=stream(0, "n")))[0] is None


def test_few_particles_do_not_tell_the_beam_axis(recorded):
    """In few boxes noise may look like a wedge round any axis."""
    turned = np.swapaxes(recorded.volumes, 1, 3).copy()
    for n, said in ((7, False), (24, True)):
        told = describe(ParticleSet(turned[:n], recorded.table[:n], VOXEL_A)).warnings
        assert any("wedge lies round x" in text for text in told) == said


@needs_shared
def test_the_beam_axis_of_measured_tomograms():
    hiv, _ = read_tomogram(SHARED / "experimental" / "emd1155_hiv" / "emd_1155.ccp4")
    tubule, _ = read_tomogram(SHARED / "experimental" / "microtubule" / "13pf_MT.tif", 10.52)
    for volume, axis in ((hiv, "y"), (tubule, "z")):
        cube = [slice((n - min(volume.shape)) // 2, (n + min(volume.shape)) // 2) for n in volume.shape]
        assert beam_axis_of(torch.from_numpy(volume[tuple(cube)])[None])[0] == axis


def test_the_report_of_a_sound_set(recorded):
    report = describe(recorded)
    assert report.warnings == [] and report.particles == 24 and report.voxel_size_A == VOXEL_A
    assert report.classes["particles"].sum() == 24 and report.classes["tomogram"].nunique() == 2
    assert report.histogram[0].sum() == recorded.volumes.size and report.mean.shape == (BOX,) * 3
    frequency, power = report.spectrum
    assert frequency[-1] == pytest.approx(0.5 / VOXEL_A) and (power > 0).all()
    assert len(report_figure(report).axes) == 7


def test_the_mean_grey_value_of_a_file_moves_no_tilt(recorded):
    far = describe(ParticleSet(recorded.volumes + 250 * recorded.volumes.std(), recorded.table, VOXEL_A))
    assert far.tilts_seen == pytest.approx(describe(recorded).tilts_seen, abs=1)


@pytest.mark.parametrize(("scale", "offset", "odd"), [(1, 0, False), (1, 2, True), (3, 0, True)])
def test_tomograms_of_other_grey_values_are_named(recorded, scale, offset, odd):
    one, other = recorded.table["tomogram"].unique()
    volumes, second = recorded.volumes.copy(), (recorded.table["tomogram"] == other).to_numpy()
    volumes[second] = scale * volumes[second] + offset * volumes.std()
    particles = ParticleSet(volumes, recorded.table, VOXEL_A)
    said = unlike_tomograms(particles)
    assert bool(said) is odd and said in ["", *describe(particles).warnings]
    if odd:
        assert one in said and other in said
        with pytest.raises(ValueError, match="differ too much for one generator"):
            cg.train(particles, "ribosome", "nowhere", profile="smoke")


def test_what_is_odd_is_said(recorded):
    y = recorded.volumes
    dark = describe(ParticleSet(-y, recorded.table, VOXEL_A))
    assert any('protein="dark"' in w for w in dark.warnings)
    turned = describe(ParticleSet(np.swapaxes(y, 1, 3).copy(), recorded.table, VOXEL_A))
    assert any('beam_axis="x"' in w for w in turned.warnings)
    with pytest.raises(ValueError, match="all 24 particles looked at are constant"):
        describe(ParticleSet(np.ones_like(y), recorded.table, VOXEL_A))
    odd = y.copy()
    odd[:3] = 1.0
    table = particle_table(24, class_name=["a"] * 22 + ["b"] * 2, tomogram="t")
    said = " ".join(describe(ParticleSet(np.sign(odd).astype(np.float32), table, VOXEL_A)).warnings)
    assert "3 of the 24 particles looked at are constant" in said
    assert "b (2)" in said and "Only one tomogram: every third particle is held out" in said and "values only" in said
