"""The command `cryoetgan`, from particles to labelled particles."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import mrcfile
import numpy as np
import pytest

from cryoetgan_core.paper import command
from cryoetgan_core.paper.stand_ins import make_stand_in
from cryoetgan_core.particles.folder import load_particles


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stand_in(tmp_path_factory.mktemp("input"), 0)


def test_describe_says_what_was_read(particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    picture = tmp_path / "report.png"
    assert command.main(["describe", str(particles), "--picture", str(picture)]) == 0
    told = capsys.readouterr().out
    assert "12 volumes of 28^3 voxels of 18.8 A; ribosome 12; 3 tomograms" in told
    assert matplotlib.image.imread(picture).std() > 0


def test_train_generate_and_view(particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, output, picture = tmp_path / "run", tmp_path / "out", tmp_path / "view.png"
    small = ["--profile", "smoke", "--densities", "ribosome", "--seed", "3", "--box", "24"]
    assert command.main(["train", str(particles), str(run), *small]) == 0
    told = capsys.readouterr().out
    assert "12 subtomograms: 10 to train, 2 kept out" in told and "degrees, as given" in told
    assert "beyond a zero of the CTF is a guess, unless you give --transfer" in told
    assert command.main(["generate", str(run), str(output), "5"]) == 0
    assert "all 5 particles are there" in capsys.readouterr().out
    assert len(list(output.rglob("ribosome*.mrc"))) == 5
    assert mrcfile.read(next(output.rglob("ribosome*.mrc"))).shape == (24, 24, 24)
    assert command.main(["generate", str(run), str(tmp_path / "other"), "2", "--densities", "tric"]) == 0
    assert len(list((tmp_path / "other").rglob("tric*.mrc"))) == 2
    assert command.main(["view", str(output / "particles.csv"), str(picture)]) == 0
    for wrong in (tmp_path / "none" / "view.png", tmp_path / "view.xyz"):  # before anything is read
        with pytest.raises(SystemExit):
            command.main(["view", "no such particles", str(wrong)])
    assert matplotlib.image.imread(picture).std() > 0


def test_a_folder_that_cannot_be_written_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "run" / "of_mine"):
        with pytest.raises(SystemExit):
            command.main(["train", "no such particles", str(wrong), "--densities", "ribosome"])
        assert f"{wrong}: {tmp_path / 'file'} is a file; expected a folder" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(SystemExit):
        command.main(["train", "no such particles", str(tmp_path / "run"), "--densities", "ribosome"])
    assert f"nothing can be written into {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("tilts", ["-50,50", "-50 50", "{folder}/a.tlt"])
def test_tilts_are_numbers_or_a_file(
    particles: Path, tmp_path: Path, tilts: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.tlt").write_text("-50\n0\n50\n")
    assert command.main(["describe", str(particles), "--tilts", tilts.format(folder=tmp_path)]) == 0
    assert "tilts -50 to 50 degrees" in capsys.readouterr().out


def test_simulate_writes_what_load_particles_reads(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["simulate", str(tmp_path / "out"), "3", "--densities", "ribosome, tric", "--box", "24"]
    assert command.main([*arguments, "--voxel-size-A", "22.8", "--microscope", "S2"]) == 0
    assert "6 volumes of 24^3 voxels of 22.8 A; ribosome 3, tric 3" in capsys.readouterr().out
    found = load_particles(tmp_path / "out")
    assert sorted(found.table["class_name"]) == ["ribosome"] * 3 + ["tric"] * 3
    assert command.main(arguments) == 2 and "holds particles already" in capsys.readouterr().err


def test_doubts_are_said_before_a_training(particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["--profile", "smoke", "--box", "20", "--tilts", "-55 60"]
    assert command.main(["train", str(particles), str(tmp_path / "run"), *small, "--densities", "tric"]) == 0
    told, said = capsys.readouterr()
    assert "- The particles have no class tric" in told and "- No density for the particles of ribosome" in told
    shown = re.search(r"tilts (-60 to 55|-55 to 60) degrees, as given", told)[1]
    assert ("along the tomogram" in said) == (shown == "-60 to 55")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["describe", "nowhere.star"], "nowhere.star: no such file"),
        (["describe", "{particles}", "--options", "{wrong"], "options"),
        (["describe", "{particles}", "--options", '{"box": 8}'], "'options' holds box; expected each to be given once"),
        (["describe", "{particles}", "--coordinates", "p.csv"], "there is no --coordinates for such a file or folder"),
        (["describe", "{particles}", "--coordinates", "p.csv"], '"mirror_z" in --options'),
        (["train", "{particles}", "{run}", "--densities", "ribosome=nowhere.mrc"], "'nowhere.mrc' of class 'ribosome'"),
        (["train", "{particles}", "{run}", "--densities", "tric", "--changes", "{}x"], "Parameter 'changes' is '{}x'"),
        (
            ["train", "{particles}", "{run}", "--densities", "tric", "--preset", "adapted", "--transfer", "corrected"],
            "--transfer corrected is for preset physics",
        ),
        (["simulate", "{run}", "0", "--densities", "tric"], "n is 0; expected one particle"),
        (["generate", "{run}", "{run}", "3"], "source.json is missing"),
    ],
)
def test_bad_input_gets_one_sentence(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], sentence: str
) -> None:
    names = {"particles": particles, "run": tmp_path / "run"}
    filled = [str(names[a.strip("{}")]) if a.strip("{}") in names else a for a in arguments]
    assert command.main(filled) == 2
    told = capsys.readouterr().err
    assert sentence in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_long_training_says_how_long_before_it_begins(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    small = ["--profile", "smoke", "--densities", "ribosome", "--preset", "adapted", "--box", "24"]
    assert command.main(["train", str(particles), str(tmp_path / "run"), *small]) == 0
    told = capsys.readouterr()
    assert re.search("3 steps, about [0-9]+ minutes on this machine", told.out) and "100%" in told.err


def test_messages_speak_the_command_s_language(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(0)
    mrcfile.write(tmp_path / "t.mrc", rng.normal(size=(30, 40, 40)).astype(np.float32), voxel_size=10.0)
    assert command.main(["describe", str(tmp_path / "t.mrc")]) == 2
    told = capsys.readouterr().err
    assert "a tomogram of 30 x 40 x 40 voxels" in told and "give --box and" in told and "--labels-path or --n" in told
    (tmp_path / "p.csv").write_text("x,y,z\n" + "30,30,20\n" * 3)
    picks = ["describe", str(tmp_path / "t.mrc"), "--box", "8", "--coordinates", str(tmp_path / "p.csv")]
    assert command.main([*picks, "--coordinate-voxel-size-A", "5"]) == 0
    assert "protein taken as dark in the files" in capsys.readouterr().out
    assert command.main([*picks, "--coordinate-voxel-size-A", "50"]) == 2
    assert "--coordinate-voxel-size-A" in capsys.readouterr().err


def test_another_run_is_not_written_over(particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = ["--profile", "smoke", "--box", "24", "--densities"]
    assert command.main(["train", str(particles), str(tmp_path / "run"), *small, "ribosome"]) == 0
    assert command.main(["train", str(particles), str(tmp_path / "run"), *small, "tric"]) == 2
    assert (
        "holds a run of other particles, densities or settings: give another folder, or --replace"
        in capsys.readouterr().err
    )
    assert command.main(["train", str(particles), str(tmp_path / "run"), *small, "tric", "--replace"]) == 0
    of_run = ["generate", str(tmp_path / "run"), str(tmp_path / "out"), "3", "--volumes", "deepfinder"]
    assert command.main(of_run) == 0  # which writes the label maps that it needs
    assert len(list((tmp_path / "out" / "tomograms").glob("*_mask.h5"))) == 1


def test_a_stopped_command_says_that_it_can_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_particles", stop)
    assert command.main(["describe", "somewhere.star"]) == 130 and "stopped" in capsys.readouterr().err


def test_a_reader_that_stops_early_gets_no_complaint(particles: Path) -> None:
    described = [sys.executable, "-m", "cryoetgan_core.paper.command", "describe", str(particles)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(described, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert "pipe" not in done.stderr.lower() and done.returncode == 0


@pytest.mark.parametrize("action", ["describe", "train", "generate", "simulate", "view"])
def test_every_action_has_help(action: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main([action, "--help"])
    assert stop.value.code == 0 and "usage: cryoetgan" in capsys.readouterr().out


def test_counts_are_told_with_or_without_an_equals_sign() -> None:
    assert command.parse_counts("ribosome=50, 80S large 7,tric 3") == {"ribosome": 50, "80S large": 7, "tric": 3}
    cubic_micrometre = 1e12  # holds 602 molecules at 1 uM
    assert command.parse_counts("ribosome=0.5 uM, tric 100nM, x 3", cubic_micrometre) == {
        "ribosome": 301, "tric": 60, "x": 3
    }  # fmt: skip
    for wrong in ("", "ribosome", "ribosome=0", "50", "tric=-2", "tric=1.5", "tric=1, tric=2", "tric=1 nM", "x=1 mM"):
        with pytest.raises(ValueError, match="Parameter 'counts'"):
            command.parse_counts(wrong)


def test_a_shape_is_three_whole_numbers() -> None:
    assert command._sizes("48 128, 256") == (48, 128, 256)
    for wrong in ("48 a 128", "48a 128.0 128", "48 128", "1 2 3 4", ""):
        with pytest.raises(ValueError, match="Parameter 'shape' is .*three whole numbers"):
            command._sizes(wrong)
