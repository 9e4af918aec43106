"""Atomic models from files: waters, altlocs, chains and assemblies; mass against potential."""

import gzip
from pathlib import Path

import pytest
import torch

from cryoetgan_core.specimen import reference_map
from cryoetgan_core.specimen.atoms import potential_map, read_atoms

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real files of ../shared are not here")

ATOM = "ATOM  {:5d}  CA {}{} {}{:4d}    {:8.3f}{:8.3f}{:8.3f}{:6.2f} 20.00           C\n"


def test_atoms_waters_altlocs_and_chains(tmp_path):
    lines = [
        ATOM.format(1, " ", "ALA", "A", 1, 1, 2, 3, 1.0),
        ATOM.format(2, "A", "ALA", "A", 2, 5, 5, 5, 0.4),
        ATOM.format(3, "B", "ALA", "A", 2, 6, 6, 6, 0.6),
        ATOM.format(4, " ", "ALA", "B", 1, 9, 9, 9, 1.0),
        "HETATM    5  O   HOH A 101      20.000  20.000  20.000  1.00 20.00           O\n",
        "END\n",
    ]
    path = tmp_path / "small.pdb"
    path.write_text("".join(lines))
    coords, kDa = read_atoms(path)
    assert coords.tolist() == [[3, 2, 1], [6, 6, 6], [9, 9, 9]]  # zyx
    assert kDa.tolist() == pytest.approx([0.012011 * 1.075] * 3, rel=1e-4)
    assert len(read_atoms(path, chains=["B"])[0]) == 1
    (tmp_path / "small.pdb.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert torch.equal(read_atoms(tmp_path / "small.pdb.gz")[0], coords)
    with pytest.raises(ValueError, match="no chain Q; the file has A, B"):
        read_atoms(path, chains=["Q"])
    with pytest.raises(ValueError, match="no assembly '7'"):
        read_atoms(path, assembly="7")
    for name, text in (("bad.pdb", "hello\n"), ("bad.cif", "data_x\nloop_\n_a\n'"), ("gone.pdb", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=name):
            read_atoms(tmp_path / name)


def test_biological_assembly_is_expanded(tmp_path):
    remark = "REMARK 350 BIOMOLECULE: 1\nREMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n"
    for i, row in enumerate(((-1, 0, 0), (0, -1, 0), (0, 0, 1)), 1):
        unit = [float(j == i) for j in (1, 2, 3)]
        for serial, values in ((1, unit), (2, row)):
            remark += "REMARK 350   BIOMT{}{:4d}{:10.6f}{:10.6f}{:10.6f}{:15.5f}\n".format(i, serial, *values, 0.0)
    path = tmp_path / "dimer.pdb"
    path.write_text(remark + ATOM.format(1, " ", "ALA", "A", 1, 10, 20, 5, 1.0) + "END\n")
    coords, _ = read_atoms(path, chains=["A"])
    assert sorted(coords.tolist()) == [[5, -20, -10], [5, 20, 10]]
    assert len(read_atoms(path, assembly="")[0]) == 1


@needs_shared
def test_potential_agrees_with_mass_density():
    path = SHARED / "data/atomic_models/4v1w.cif"
    grid = {"voxel_size_A": 6.0, "resolution_A": 15.0, "box": 32}
    mass, potential = reference_map(path, **grid), reference_map(path, potential=True, **grid)
    assert torch.corrcoef(torch.stack((mass.flatten(), potential.flatten())))[0, 1] > 0.98
    assert potential.max().item() == pytest.approx(mass.max().item(), rel=0.25)
    volts, spacing = potential_map(path, resolution_A=15.0)
    # protein stands 1 to 5 V above ice
    assert 1.0 < volts[volts > 1].mean() < 8.0 and spacing == 2.0


@needs_shared
def test_the_receptor_without_its_fabs():
    coords, kDa = read_atoms(SHARED / "data/atomic_models/4zxb.cif", chains=["E"])
    assert 150 < kDa.sum() < 250  # two copies of chain E: the assembly is a dimer
