"""Atomic models from files: waters, altlocs, chains and assemblies; mass against potential."""

import gzip
import math
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch

from cryoetgan_core.simulator.microscope.noise import PROTEIN_CONTRAST_V
from cryoetgan_core.simulator.specimen import reference_map
from cryoetgan_core.simulator.specimen.atoms import potential_map, read_atoms
from cryoetgan_core.simulator.specimen.geometry import PROTEIN_DENSITY_DA_A3

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


def test_potential_equals_the_sum_of_the_atoms_gaussians(tmp_path):
    atoms = [
        ("N", 0.0, 0.0, 0.0),
        ("C", 1.5, 0.0, 0.3),
        ("C", 2.1, 1.4, 0.0),
        ("O", 1.4, 2.3, -0.4),
        ("S", 3.5, -1.0, 1.2),
    ]
    line = "ATOM  {:5d}  {:<3s} ALA A   1    {:8.3f}{:8.3f}{:8.3f}  1.00 20.00          {:>2s}\n"
    names = ("N", "CA", "C", "O", "SG")
    path = tmp_path / "few.pdb"
    path.write_text("".join(line.format(i + 1, names[i], x, y, z, e) for i, (e, x, y, z) in enumerate(atoms)) + "END\n")
    volts, spacing = potential_map(path, resolution_A=4.0, ice_V=0.0)
    # electron scattering factors at zero angle, in A: International Tables C, table 4.3.1.1
    at_zero = {"C": 2.509, "N": 2.211, "O": 1.983, "S": 5.161}
    assert volts.sum().item() * spacing**3 == pytest.approx(47.878 * sum(at_zero[e] for e, *_ in atoms), rel=0.02)
    # h^2 / (2 pi m e), from the constants themselves
    assert 6.62607015e-34**2 / (2 * math.pi * 9.1093837e-31 * 1.602176634e-19) * 1e20 == pytest.approx(47.878, rel=1e-4)
    xyz = np.array([a[1:] for a in atoms])
    middle = (xyz.min(0) + xyz.max(0)) / 2
    axes = [(np.arange(n) - n // 2) * spacing + m for n, m in zip(volts.shape, middle[::-1], strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    blur = 8 * math.pi**2 * (0.7 * spacing) ** 2
    expected = np.zeros(volts.shape)
    for element, ax, ay, az in atoms:
        r2 = (x - ax) ** 2 + (y - ay) ** 2 + (z - az) ** 2
        coefficients = gemmi.Element(element).c4322.get_coefs()
        for a, b in zip(coefficients[:5], coefficients[5:], strict=True):
            expected += 47.878 * a * (4 * math.pi / (b + blur)) ** 1.5 * np.exp(-4 * math.pi**2 * r2 / (b + blur))
    assert np.abs(volts.numpy() - expected).max() < 0.01 * expected.max()


@needs_shared
@pytest.mark.parametrize("name", ["3j9i.pdb", "4v1w.cif"])
def test_protein_contrast_of_the_microscope_is_that_of_real_entries(name):
    path = SHARED / "data/atomic_models" / name
    volts, spacing = potential_map(path, resolution_A=12.0)
    volume_A3 = read_atoms(path)[1].sum().item() * 1000 / PROTEIN_DENSITY_DA_A3
    assert volts.sum().item() * spacing**3 / volume_A3 == pytest.approx(PROTEIN_CONTRAST_V, rel=0.02)


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
