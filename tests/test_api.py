"""What a user's program calls."""

import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

import cryoetgan_core as cg

SMALL = {"profile": "smoke"}


@pytest.fixture(scope="module")
def particles() -> cg.ParticleSet:
    return cg.simulate("ribosome, tric", 24, box=24, voxel_size_A=22.8, snr=0.3)


@pytest.fixture(scope="module")
def run(particles: cg.ParticleSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "a"
    cg.train(particles, "ribosome, tric", str(folder), **SMALL)
    return folder


def test_particles_say_what_they_are(particles: cg.ParticleSet) -> None:
    text = repr(particles)
    assert "48 volumes of 24^3 voxels of 22.8 A; ribosome 24, tric 24;" in text and "tilts -50 to 70 degrees" in text
    assert "48 particles, boxes of 24 voxels" in str(cg.describe(particles))


def test_a_torch_dataset(particles: cg.ParticleSet) -> None:
    loader = torch.utils.data.DataLoader(particles.torch_dataset(), batch_size=8)
    volumes, labels = next(iter(loader))
    assert volumes.shape == (8, 1, 24, 24, 24) and labels.tolist() == [0] * 8
    assert particles.classes == ("ribosome", "tric") and abs(float(volumes[0].std()) - 1) < 1e-3


def test_generated_particles_keep_class_and_pose_and_the_particles_grey_values(
    particles: cg.ParticleSet, run: Path
) -> None:
    x = cg.densities_for("ribosome, tric", 6, box=24, voxel_size_A=22.8, seed=3)
    made = cg.generate(str(run), x)
    assert made.table["rot_deg"].equals(x.table["rot_deg"]) and made.classes == particles.classes
    assert np.std(made.volumes) == pytest.approx(np.std(particles.volumes), rel=0.2)
    np.testing.assert_array_equal(cg.generate(cg.load_run(str(run)), x).volumes, made.volumes)
    assert cg.generate(run, x.volumes).shape == x.volumes.shape  # an array gives a tensor
    assert repr(cg.load_run(run)).startswith("TrainedRun: physics, physics generator, boxes of 24 voxels, tilts -50")


def test_mistakes_get_one_sentence(particles: cg.ParticleSet, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="particles are ndarray; expected what load_particles gives"):
        cg.train(particles.volumes, "ribosome", tmp_path)
    with pytest.raises(ValueError, match="densities on voxels of 20 A; the run has 22.8 A"):
        cg.generate(run, cg.densities_for("ribosome", 2, box=24, voxel_size_A=20.0))
    with pytest.raises(ValueError, match=r"expected \(N, D, D, D\) with D 24"):
        cg.generate(run, torch.zeros(2, 1, 24, 24, 24))
    fewer = particles.select(np.r_[:22, 24:46])
    with pytest.raises(ValueError, match="holds a run of other particles, densities or settings"):
        cg.train(fewer, "ribosome, tric", run, **SMALL)
    cg.train(particles, "ribosome, tric", run, **SMALL)  # the same again is no mistake
    with pytest.raises(AttributeError, match="has no 'trian'"):
        cg.trian  # noqa: B018


def test_train_warns_of_what_looks_wrong(particles: cg.ParticleSet, tmp_path: Path) -> None:
    dark = cg.ParticleSet(-particles.volumes, particles.table, particles.voxel_size_A)
    with pytest.warns(UserWarning) as said:
        cg.train(dark, "ribosome, apoferritin", tmp_path / "run", **SMALL)
    told = " ".join(str(w.message) for w in said)
    assert "darker than what surrounds it" in told
    assert "The particles have no class apoferritin" in told and "No density for the particles of tric" in told
    assert "falls to half" not in told  # the contrast is said already


def test_a_density_of_another_size_is_noticed(particles: cg.ParticleSet, tmp_path: Path) -> None:
    ribosomes = particles.select((particles.table["class_name"] == "ribosome").to_numpy())
    ribosomes = cg.ParticleSet(ribosomes.volumes, ribosomes.table.assign(class_name=""), 22.8)
    with pytest.warns(UserWarning, match="is it another molecule, is a voxel size wrong, or are the positions"):
        cg.train(ribosomes, "apoferritin", tmp_path / "run", **SMALL)


def test_several_tomograms_become_one_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("TS_1", "TS_2"):
        mrcfile.write(tmp_path / f"{name}.mrc", rng.normal(size=(20, 24, 24)).astype(np.float32), voxel_size=10.0)
        (tmp_path / f"{name}.tlt").write_text(f"-{50 + int(name[-1])}\n0\n{50 + int(name[-1])}\n")
    (tmp_path / "p.csv").write_text("tomogram,x_A,y_A,z_A\nTS_1,100,100,100\nTS_2,120,120,100\nTS_2,100,120,100\n")
    found = cg.load_particles(tmp_path / "TS_*.mrc", box=8, coordinates=tmp_path / "p.csv")
    assert list(found.table["tomogram"]) == ["TS_1", "TS_2", "TS_2"]
    assert list(found.table["tilt_max_deg"]) == [51, 52, 52]
    (tmp_path / "p.csv").write_text("tomogram,x_A,y_A,z_A\nTS_2,120,120,100\n")
    assert list(cg.load_particles(tmp_path / "TS_*.mrc", box=8, coordinates=tmp_path / "p.csv").table["tomogram"]) == [
        "TS_2"
    ]
    with pytest.raises(ValueError, match=r"^[^()]*p.csv: its particles lie in TS_2; none of these"):
        cg.load_particles(tmp_path / "TS_1.mrc", box=8, coordinates=tmp_path / "p.csv")
    (tmp_path / "other").mkdir()
    again = shutil.copy(tmp_path / "TS_2.mrc", tmp_path / "other")
    with pytest.raises(ValueError, match=r"TS_2.mrc and .*TS_2.mrc would take the same particles"):
        cg.load_particles([tmp_path / "TS_2.mrc", again], box=8, coordinates=tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("x_A,y_A,z_A\n120,120,100\n")
    with pytest.raises(ValueError, match="does not say in which of the 2 tomograms"):
        cg.load_particles(tmp_path / "TS_*.mrc", box=8, coordinates=tmp_path / "p.csv")
    with pytest.raises(ValueError, match="2 tomograms, but labels_path= gives 1"):
        cg.load_particles(tmp_path / "TS_*.mrc", box=8, labels_path=tmp_path / "TS_1.mrc")
    with pytest.raises(ValueError, match="no file fits"):
        cg.load_particles(tmp_path / "X_*.mrc", box=8, n=1)


def test_each_tomogram_may_have_its_own_picks(tmp_path: Path) -> None:
    names = ("TS_1", "TS_2")
    for name in names:
        mrcfile.write(tmp_path / f"{name}.mrc", np.zeros((20, 24, 24), np.float32), voxel_size=10.0)
        (tmp_path / f"{name}_picks.csv").write_text(f"X\tY\tZ\n1{name[-1]}\t10\t10\n")
    for picks in (tmp_path / "*_picks.csv", [tmp_path / f"{name}_picks.csv" for name in names]):
        found = cg.load_particles(tmp_path / "TS_*.mrc", box=8, coordinates=picks).table
        assert list(found["tomogram"]) == ["TS_1", "TS_2"] and list(found["x_A"]) == [110, 120]
    places = cg.load_particles([tmp_path / "TS_1.mrc"], box=8, coordinates=[(10, 10, 11)]).table
    assert list(places["x_A"]) == [110]
    with pytest.raises(ValueError, match=r"TS_2_picks.csv would be taken for the tomogram .*TS_1.mrc"):
        crossed = [tmp_path / f"{name}_picks.csv" for name in ("TS_2", "TS_1")]
        cg.load_particles([tmp_path / "TS_1.mrc", tmp_path / "TS_1.mrc"], box=8, coordinates=crossed)
    with pytest.raises(ValueError, match="2 tomograms, but coordinates= gives 1"):
        cg.load_particles(tmp_path / "TS_*.mrc", box=8, coordinates=tmp_path / "TS_1*.csv")
    (tmp_path / "TS_2_picks.csv").write_text("tomogram,x,y,z\nTS_1,10,10,10\n")  # says that it is another's
    with pytest.raises(ValueError, match="its particles lie in TS_1"):
        cg.load_particles(tmp_path / "TS_*.mrc", box=8, coordinates=tmp_path / "*_picks.csv")


def test_the_folder_of_a_relion_project_finds_its_particles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "default_pipeline.star").write_text("\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 12\n")
    for job in ("job010", "job011"):
        folder = tmp_path / "Extract" / job
        folder.mkdir(parents=True)
        mrcfile.write(folder / "1.mrc", np.ones((6, 6, 6), np.float32) + np.eye(6, dtype=np.float32), voxel_size=10.0)
        (folder / "optimisation_set.star").write_text(
            f"\ndata_\n\n_rlnTomoParticlesFile Extract/{job}/particles.star\n"
            "_rlnTomoTomogramsFile Extract/tomograms.star\n"
        )
        (folder / "particles.star").write_text(
            "\ndata_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n"
            "1 10 6 3\n\ndata_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n1.mrc 1\n"
        )
    (tmp_path / "Extract" / "tomograms.star").write_text("\ndata_global\n\nloop_\n_rlnTomoName\nTS_1\n")
    found = cg.load_particles(tmp_path)
    assert "job011" in found.table["source"][0] and "the last of 2 jobs" in caplog.text
