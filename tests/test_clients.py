"""What is written, opened with the programs that it is written for; those not here are skipped, with the reason."""

import json
import os
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryoetgan_core.paper import clients
from cryoetgan_core.paper.clients import ALIGNED, CHECKS, correlation, reconstructed, reference
from cryoetgan_core.reproducibility import paths

# CRYOETGAN_CLIENTS='{"copick 1": "/envs/copick/bin/python", ...}'; the names are those of clients.CHECKS
ENVIRONMENTS = json.loads(os.environ.get("CRYOETGAN_CLIENTS", "{}"))
needs_relion = pytest.mark.skipif(
    not shutil.which("relion_reconstruct"), reason="RELION is not on the PATH (Debian: apt install relion)"
)


@needs_relion
def test_relion_averages_generated_particles_to_the_reference(tmp_path: Path) -> None:
    outcomes = list(clients.check_generated(tmp_path / "generated", 60))
    assert [right for _, _, right in outcomes] == [True] * 3, outcomes


@needs_relion
def test_relion_takes_the_weight_of_the_missing_wedge(tmp_path: Path) -> None:
    outcomes = list(clients.check_subtomograms(tmp_path / "subtomograms", 40))
    assert [right for _, _, right in outcomes] == [True] * 3, outcomes
    folder = tmp_path / "subtomograms"
    weight = next(folder.glob("volumes/wedge*.mrc"))
    told, wanted = (
        correlation(reconstructed(folder, "particles.star", "--ctf"), reference("ribosome")),
        mrcfile.read(weight),
    )
    clients.write_mrc(weight, np.fft.fftshift(wanted, axes=0), clients.VOXEL_A)  # a wedge somewhere else
    assert correlation(reconstructed(folder, "particles.star", "--ctf"), reference("ribosome")) < told - 0.003


@pytest.mark.parametrize("name", CHECKS)
def test_programs_of_python_read_what_is_written(name: str, tmp_path: Path) -> None:
    if name not in ENVIRONMENTS:
        pytest.skip(f"CRYOETGAN_CLIENTS names no Python that has {name}")
    outcomes = list(CHECKS[name][1](ENVIRONMENTS[name], tmp_path / "written"))
    assert outcomes and all(right for _, _, right in outcomes), outcomes


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    rows = clients.measure(tmp_path / "clients", {})["rows"]
    assert len(rows) == 1 + len(CHECKS) and all(
        r["right"] is None and r["found"].startswith("not tested: ") for r in rows
    )
    with pytest.raises(ValueError, match="nothing; expected some of copick 1"):
        clients.measure(tmp_path / "clients", {"nothing": "python"})


def test_the_committed_table_is_whole_and_right() -> None:
    folder = paths.reference("quick")
    found, before = (json.loads((folder / f"{name}.json").read_text()) for name in ("clients", "clients_first_version"))
    table = clients.table_of(found, before)
    assert (table["right"] == "yes").all() and (table["first version"] != "").all()
    assert {client.split()[0] for client, _ in table.index} == {"RELION", *(package for package, _ in CHECKS.values())}
    average = table.loc[("RELION 3.1.3", "relion_reconstruct: particles.star, noise-free, ribosome / tric"), "now"]
    assert min(map(float, average.split(" / "))) > ALIGNED
