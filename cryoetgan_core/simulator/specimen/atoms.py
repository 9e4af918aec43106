"""Atomic models: PDB and mmCIF files through gemmi, as points with masses.

Coordinates are zyx in angstrom, in the frame of the file.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import gemmi
import numpy as np
import torch
from torch import Tensor

MODEL_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
# hydrogen that a deposited model leaves out, as a share of the mass of its C, N, O, S and P atoms
_PROTEIN_HYDROGEN = 0.075


def read_structure(path: str | Path) -> gemmi.Structure:
    """An atomic model without waters and alternative locations, expanded to the first biological assembly of its file,
    where it has one.

    Parameters
    ----------
    path
        .pdb, .ent, .cif or .mmcif, also gzipped (.gz).

    Raises ValueError when the file cannot be parsed or holds no atoms.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected an atomic model (PDB or mmCIF)")
    try:
        structure = gemmi.read_structure(str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"{path}: cannot be parsed as PDB or mmCIF ({error})") from error
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise ValueError(f"{path}: no atoms found; expected a PDB or mmCIF model with coordinates")
    while len(structure) > 1:  # the models of an ensemble are alternatives, not one body
        del structure[-1]
    structure.setup_entities()
    if structure.assemblies:
        structure.transform_to_assembly(structure.assemblies[0].name, gemmi.HowToNameCopiedChain.Dup)
    structure.remove_waters()
    _keep_main_location(structure)
    structure.remove_empty_chains()
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise ValueError(f"{path}: nothing left after removing waters; expected a protein or nucleic acid")
    atoms = [a for chain in structure[0] for residue in chain for a in residue]
    if not any(a.occ for a in atoms):
        warnings.warn(f"{path}: the occupancy of every atom is 0; taken as 1", stacklevel=3)
        for a in atoms:
            a.occ = 1.0
    return structure


def _keep_main_location(structure: gemmi.Structure) -> None:
    """Of an atom's alternative locations keep the one of highest occupancy (the first, of equals)."""
    for chain in structure[0]:
        for residue in chain:
            best: dict[str, tuple[float, int]] = {}
            for i, atom in enumerate(residue):
                if atom.has_altloc() and (atom.name not in best or atom.occ > best[atom.name][0]):
                    best[atom.name] = (atom.occ, i)
            for i in reversed(range(len(residue))):
                if residue[i].has_altloc() and best[residue[i].name][1] != i:
                    del residue[i]
            for atom in residue:
                if atom.has_altloc():
                    atom.altloc, atom.occ = "\0", 1.0


def read_atoms(path: str | Path) -> tuple[Tensor, Tensor]:
    """Atoms of a model: (n, 3) coordinates zyx in angstrom and (n,) masses in kDa, both float32.

    Hydrogens, which most models leave out, are added as 7.5 % of the mass when the file has none. Path and
    errors as in `read_structure`.
    """
    structure = read_structure(path)
    rows = [
        (a.pos.z, a.pos.y, a.pos.x, a.element.weight * a.occ, a.is_hydrogen())
        for chain in structure[0]
        for residue in chain
        for a in residue
    ]
    table = torch.tensor(np.array(rows, dtype=np.float64))
    if not torch.isfinite(table).all():
        raise ValueError(f"{path}: coordinates or occupancies that are not finite; repair the file")
    kDa = table[:, 3] / 1000
    if not table[:, 4].any():
        kDa = kDa * (1 + _PROTEIN_HYDROGEN)
    return table[:, :3].float(), kDa.float()
