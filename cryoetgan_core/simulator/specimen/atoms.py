"""Atomic models: PDB and mmCIF files through gemmi, as points with masses or as an electrostatic potential.

Coordinates are zyx in angstrom, in the frame of the file.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import gemmi
import numpy as np
import torch
from torch import Tensor

MODEL_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
# scattering factor (A) per A^3 to volts: h^2 / (2 pi m e) in V A^2
_VOLTS = 47.878
# mean inner potential of vitreous ice in volts (Harscher and Lichte 1998)
ICE_V = 3.5
# hydrogen that a deposited model leaves out, as a share of the mass of its C, N, O, S and P atoms
_PROTEIN_HYDROGEN = 0.075


def read_structure(
    path: str | Path, *, chains: Iterable[str] | None = None, assembly: str | None = None
) -> gemmi.Structure:
    """An atomic model without waters and alternative locations, expanded to a biological assembly.

    Parameters
    ----------
    path
        .pdb, .ent, .cif or .mmcif, also gzipped (.gz).
    chains
        names of the chains to keep, with all their copies in the assembly; None: all.
    assembly
        name of the biological assembly; None: the first of the file, if it has one; "" leaves the file as it
        is.

    Raises
    ------
    ValueError
        when the file cannot be parsed or holds no atoms, or when a chain or the assembly does not exist.
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
    names = [a.name for a in structure.assemblies]
    if assembly and assembly not in names:
        raise ValueError(f"{path}: no assembly {assembly!r}; the file has {', '.join(names) or 'none'}")
    if assembly is None and names:
        assembly = names[0]
    if assembly:
        # copies keep their chain's name, so that chains can be chosen by it afterwards
        structure.transform_to_assembly(assembly, gemmi.HowToNameCopiedChain.Dup)
    if chains is not None:
        chains = set(chains)
        names = [chain.name for chain in structure[0]]
        if missing := chains - set(names):
            raise ValueError(
                f"{path}: no chain {', '.join(sorted(missing))}; the file has {', '.join(sorted(set(names)))}"
            )
        for i in reversed(range(len(names))):
            if names[i] not in chains:
                del structure[0][i]
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


def read_atoms(
    path: str | Path, *, chains: Iterable[str] | None = None, assembly: str | None = None
) -> tuple[Tensor, Tensor]:
    """Atoms of a model: (n, 3) coordinates zyx in angstrom and (n,) masses in kDa, both float32.

    Hydrogens, which most models leave out, are added as 7.5 % of the mass when the file has none. Arguments
    and errors as in `read_structure`.
    """
    structure = read_structure(path, chains=chains, assembly=assembly)
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


def potential_map(
    path: str | Path,
    *,
    resolution_A: float,
    chains: Iterable[str] | None = None,
    assembly: str | None = None,
    ice_V: float = ICE_V,
) -> tuple[Tensor, float]:
    """Electrostatic potential above that of the displaced ice: (D, H, W) in volts, and its voxel size in A.

    Atoms scatter with gemmi's electron form factors (International Tables C 4.3.2.2) at one B factor that suits the
    grid, whose voxel is at most a quarter of ``resolution_A`` and of 8 A. Inside the model's molecular surface `ice_V`,
    the mean inner potential of vitreous ice, is taken away; 0 gives the potential in vacuum. The map is not low- passed
    further. Its axes are the file's; its centre is the middle of the model's bounding box. Other arguments and errors
    as in `read_structure`.
    """
    if not resolution_A > 0:
        raise ValueError(f"potential_map: resolution_A is {resolution_A}; expected a positive number")
    structure = read_structure(path, chains=chains, assembly=assembly)
    spacing = min(resolution_A, 8.0) / 4
    margin = 8.0
    xyz = np.array([a.pos.tolist() for c in structure[0] for r in c for a in r])
    low, high = xyz.min(0) - margin, xyz.max(0) + margin
    # sizes that gemmi's grid and an FFT both like
    shape = [2 * math.ceil(extent / (2 * spacing)) for extent in high - low]
    middle = (low + high) / 2
    model = structure[0]
    origin = middle - np.array(shape) // 2 * spacing
    b_factor = 8 * math.pi**2 * (0.7 * spacing) ** 2  # a Gaussian that this grid can sample
    for chain in model:
        for residue in chain:
            for atom in residue:
                atom.pos = gemmi.Position(*(np.array(atom.pos.tolist()) - origin))
                atom.b_iso = b_factor
                atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)
    cell = gemmi.UnitCell(*(n * spacing for n in shape), 90, 90, 90)
    calculator = gemmi.DensityCalculatorE()
    calculator.grid.set_unit_cell(cell)
    calculator.grid.spacegroup = gemmi.SpaceGroup("P1")
    calculator.grid.set_size(*shape)
    calculator.add_model_density_to_grid(model)
    volume = np.array(calculator.grid, copy=True) * _VOLTS
    mask = gemmi.FloatGrid(*shape)
    mask.set_unit_cell(cell)
    mask.spacegroup = gemmi.SpaceGroup("P1")
    gemmi.SolventMasker(gemmi.AtomicRadiiSet.Cctbx).put_mask_on_float_grid(mask, model)
    volume -= ice_V * (1 - np.array(mask, copy=True))  # the mask is 1 in the solvent
    return torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 1, 0)).astype(np.float32)), spacing
