"""A user's files as the two domains of a training."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoetgan_core.config import make_config
from cryoetgan_core.paper import own_data, runs
from cryoetgan_core.paper.doubts import _half_radius, dark, doubts
from cryoetgan_core.paper.runs import train_on
from cryoetgan_core.particles.folder import load_particles
from cryoetgan_core.volumes.domains import Domains
from cryoetgan_core.volumes.table import ParticleSet, particle_table

CONFIG = make_config("smoke", "own")


def smooth(n: int, side: int) -> np.ndarray:
    rng = torch.Generator().manual_seed(0)
    volumes = torch.randn(n, 1, side, side, side, generator=rng)
    for _ in range(3):  # band-limited below half of Nyquist, so that every second voxel loses nothing
        volumes = torch.nn.functional.avg_pool3d(volumes, 5, stride=1, padding=2)
    return volumes[:, 0].numpy()


def write_folder(folder: Path, volumes: np.ndarray, voxel: float) -> Path:
    folder.mkdir()
    for i, volume in enumerate(volumes):
        with mrcfile.new(folder / f"{i:02d}.mrc") as file:
            file.set_data(volume.astype(np.float32))
            file.voxel_size = voxel
    return folder


def test_a_folder_is_resampled_to_the_voxel_asked_for(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "volumes", smooth(3, 48), 10.0)
    same = load_particles(folder, 24)
    coarse = load_particles(folder, 24, 20.0)
    assert (same.voxel_size_A, coarse.voxel_size_A) == (10.0, 20.0)
    assert same.volumes.shape == coarse.volumes.shape == (3, 24, 24, 24)
    np.testing.assert_allclose(same.volumes, smooth(3, 48)[:, 12:36, 12:36, 12:36], atol=1e-4)
    assert np.corrcoef(coarse.volumes[0].ravel(), smooth(3, 48)[0, ::2, ::2, ::2].ravel())[0, 1] > 0.97
    with pytest.raises(ValueError, match="48\\^3 voxels of 10 A; expected at least 24\\^3 of 30 A"):
        load_particles(folder, 24, 30.0)
    assert load_particles(folder, None, 20.0).volumes.shape == (3, 24, 24, 24)  # as large in angstrom
    other = write_folder(tmp_path / "other", smooth(2, 50), 9.99)
    assert load_particles([folder, other]).volumes.shape == (5, 48, 48, 48)  # the boxes of the first


def particles(n: int, **columns: object) -> ParticleSet:
    return ParticleSet(smooth(n, 24), particle_table(n, particle=[str(i) for i in range(n)], **columns), 20.0)


def test_densities_are_noted_with_paths_that_hold_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.mrc").touch()
    told = own_data.absolute("tric, one=a.mrc#0@13.68, two=pdb:3j9i")
    assert told == f"tric, one={tmp_path / 'a.mrc'}#0@13.68, two=pdb:3j9i"


def test_a_density_in_the_wrong_contrast_is_doubted(tmp_path: Path) -> None:
    line = np.arange(24) - 12
    blob = np.exp(-(line[:, None, None] ** 2 + line[:, None] ** 2 + line**2) / 30)
    for name, volume in {"bright": blob, "dark": -blob, "on_dark": blob.max() - blob}.items():
        mrcfile.write(tmp_path / f"{name}.mrc", volume.astype(np.float32), voxel_size=10.0)
    files = {name: f"{tmp_path / name}.mrc" for name in ("bright", "dark", "on_dark")}
    assert [text.partition(" (")[2][:5] for text in dark([*files, "tric"], files)] == ["dark)", "on_da"]


def test_numbered_classes_that_no_density_names_are_doubted() -> None:
    numbered = particles(40, class_name=["1", "2"] * 20)
    assert "of 2 classes (1, 2), which the densities do not name" in doubts(numbered, "ribosome")[0]
    assert not any("name" in doubt for doubt in doubts(particles(40, class_name="1"), "ribosome"))


def test_the_halves_do_not_share_voxels() -> None:
    along = np.arange(12) * 200.0
    both = own_data.domains(particles(12, x_A=along, y_A=0.0, z_A=0.0), "ribosome", CONFIG)
    gap = both.Y_test.table["x_A"].min() - both.Y_train.table["x_A"].max()
    assert gap >= 24 * 20.0
    by_tomogram = own_data.domains(particles(8, tomogram=["a"] * 5 + ["b"] * 3), "ribosome", CONFIG)
    assert set(by_tomogram.Y_train.table["tomogram"]) == {"a"} and len(by_tomogram.Y_test) == 3
    every_third = own_data.domains(particles(9), "ribosome", CONFIG)
    assert (len(every_third.Y_train), len(every_third.Y_test)) == (6, 3)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 particles split into"):
        own_data.domains(particles(2), "ribosome", CONFIG)
    with pytest.raises(ValueError, match="no such file"):
        load_particles(tmp_path / "nothing.star", 24)
    for densities, message in (
        ("", "empty"),
        ("ribosom", "no built-in class"),
        ("ribosome=/nowhere.mrc", "is no file"),
        ("a/b=pdb:3j9i", "Class names"),
        ("tric, tric", "'tric' twice"),
    ):
        with pytest.raises(ValueError, match=message):
            own_data.parse_densities(densities)


@pytest.mark.parametrize("picks", [60, 12])
def test_background_is_offered_where_enough_particles_can_choose(tmp_path: Path, picks: int) -> None:
    rng, side = np.random.default_rng(0), 160
    volume = rng.normal(size=(40, side, side)).astype(np.float32)
    mrcfile.write(tmp_path / "t.mrc", volume, voxel_size=20.0)
    points = rng.integers(14, (side - 14, 70), (picks, 2))  # y, x: half of the tomogram is empty
    (tmp_path / "picks.csv").write_text("x,y,z\n" + "\n".join(f"{x},{y},20" for y, x in points))
    options = {"coordinates": str(tmp_path / "picks.csv"), "coordinate_voxel_size_A": 20.0, "protein": "bright"}
    config = make_config("smoke", "own", "physics", test_per_class=8)
    particles = load_particles(tmp_path / "t.mrc", 24, **options)
    both = own_data.domains(particles, "ribosome", config)
    if picks == 12:
        assert len(both.Y_train) < own_data.LEAST_TO_CHOOSE and both.background is None
        return
    assert len(both.Y_train) >= own_data.LEAST_TO_CHOOSE and len(both.background) > 0
    particles.table.attrs.clear()  # particles of no known source
    assert own_data.domains(particles, "ribosome", config).background is None
    run = train_on(config, both, tmp_path / "run")
    assert set(run.noise_distances) == {"measured", "real background"}
    assert all(np.isfinite(list(run.noise_distances.values())))


def test_a_dip_of_the_transfer_function_within_a_molecule_is_not_its_edge() -> None:
    r = (torch.stack(torch.meshgrid(*(torch.arange(24) - 12,) * 3, indexing="ij")) ** 2).sum(0).float().sqrt()
    ball = (r < 5.5).float()
    assert _half_radius(ball) == _half_radius(ball * (1 - 0.8 * ((r > 1.5) & (r < 3.5)))) == 6
    assert _half_radius(torch.zeros(24, 24, 24)) == 0


@pytest.mark.parametrize(("side", "used"), [(24, True), (16, False)])
def test_empty_boxes_are_noise_of_particles_only_if_as_large(monkeypatch, tmp_path, side: int, used: bool) -> None:
    given = []
    monkeypatch.setattr(runs, "estimate", lambda *arguments: given.append(arguments[-1]))
    monkeypatch.setattr(runs, "load_run", lambda *_: None)
    particles, empty = (
        ParticleSet(np.zeros((n, box, box, box), np.float32), particle_table(n), 10.0)
        for n, box in ((30, 24), (25, side))
    )
    config = make_config("smoke", "own", generator="physics")
    runs.train_on(config, Domains(particles, particles, particles, particles, empty), tmp_path)
    assert (given[0] is not None) == used
