"""Atomic models from files: waters, altlocs and assemblies; the contrast of protein."""

import gzip
import math
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from common import SHARED, needs_shared

from cryoetgan_core.simulator.microscope.noise import PROTEIN_CONTRAST_V
from cryoetgan_core.simulator.specimen.atoms import read_atoms, read_structure
from cryoetgan_core.simulator.specimen.geometry import PROTEIN_DENSITY_DA_A3

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
    (tmp_path / "small.pdb.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert torch.equal(read_atoms(tmp_path / "small.pdb.gz")[0], coords)
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
    coords, _ = read_atoms(path)
    assert sorted(coords.tolist()) == [[5, -20, -10], [5, 20, 10]]


def mean_potential(path: Path) -> float:
    """Integral (V A^3) of a model's electrostatic potential above that of the ice it displaces.

    Atoms scatter by gemmi's electron form factors; ice has a mean inner potential of 3.5 V (Harscher and Lichte 1998).
    """
    model, spacing, margin = read_structure(path)[0], 2.0, 8.0
    atoms = [atom for chain in model for residue in chain for atom in residue]
    xyz = np.array([atom.pos.tolist() for atom in atoms])
    shape = [2 * math.ceil(extent / (2 * spacing)) for extent in np.ptp(xyz, axis=0) + 2 * margin]
    for atom, place in zip(atoms, xyz - xyz.min(0) + margin, strict=True):
        atom.pos = gemmi.Position(*place)
        atom.b_iso, atom.aniso = 8 * math.pi**2 * (0.7 * spacing) ** 2, gemmi.SMat33f(0, 0, 0, 0, 0, 0)
    cell, calculator = gemmi.UnitCell(*(n * spacing for n in shape), 90, 90, 90), gemmi.DensityCalculatorE()
    mask = gemmi.FloatGrid(*shape)
    for grid in (calculator.grid, mask):
        grid.set_unit_cell(cell)
        grid.spacegroup = gemmi.SpaceGroup("P1")
    calculator.grid.set_size(*shape)
    calculator.add_model_density_to_grid(model)
    gemmi.SolventMasker(gemmi.AtomicRadiiSet.Cctbx).put_mask_on_float_grid(mask, model)
    # h^2 / (2 pi m e): a scattering factor (A) per A^3 in volts
    volts = 6.62607015e-34**2 / (2 * math.pi * 9.1093837e-31 * 1.602176634e-19) * 1e20 * np.array(calculator.grid)
    return float((volts - 3.5 * (1 - np.array(mask))).sum() * spacing**3)  # the mask is 1 in the solvent


@needs_shared
@pytest.mark.parametrize("name", ["3j9i.pdb", "4v1w.cif"])
def test_protein_contrast_of_the_microscope_is_that_of_real_entries(name):
    path = SHARED / "atomic_models" / name
    volume_A3 = read_atoms(path)[1].sum().item() * 1000 / PROTEIN_DENSITY_DA_A3
    assert mean_potential(path) / volume_A3 == pytest.approx(PROTEIN_CONTRAST_V, rel=0.02)
