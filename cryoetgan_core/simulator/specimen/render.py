"""Rendering: points to density on a grid, and one entry that turns any source into a reference map.

Units: `reference_map` returns contrast against the solvent in units of protein, so that the inside of a large
protein is about 1, nucleic acid above it and lipid tails below 0, for every source.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ...volumes.em import EM_SUFFIXES, read_em
from ...volumes.maps import MAP_SUFFIXES, low_pass_gain, read_map, resample
from .assemblies import ASSEMBLIES, pseudo_atoms
from .atoms import MODEL_SUFFIXES, read_atoms
from .databases import fetch, is_identifier
from .geometry import PROTEIN_DENSITY_DA_A3
from .shape import centre_of_mass, outline_level, split_molecules


def render_points(coords_zyx_A: Tensor, weights: Tensor, box: int, voxel_size_A: float, resolution_A: float) -> Tensor:
    """Density of weighted points on a grid: (box, box, box) float32, in units of weight per cubic angstrom.

    The origin of the coordinates is the voxel ``box // 2``. Points are splatted trilinearly on a grid two or
    three times finer, the splat's own blur is divided out, a Gaussian low-pass that falls to 1/e at ``1 /
    resolution_A`` (standard deviation 0.225 ``resolution_A``) is applied and the Nyquist frequency is softly
    cut (`maps.low_pass_gain`), so nothing aliases. Points outside the box contribute what their blur brings
    in, and nothing wraps round.

    Parameters
    ----------
    coords_zyx_A
        (n, 3) zyx, angstrom.
    weights
        (n,), any sign.

    Raises ValueError when shapes disagree or a size is not positive.
    """
    n = coords_zyx_A.shape[0]
    if coords_zyx_A.shape != (n, 3) or weights.shape != (n,):
        raise ValueError(
            f"render_points: coords_zyx_A {tuple(coords_zyx_A.shape)} and weights {tuple(weights.shape)}; expected (n, "
            "3) and (n,)"
        )
    if box < 1 or not voxel_size_A > 0 or not resolution_A > 0:
        raise ValueError(
            f"render_points: box {box}, voxel_size_A {voxel_size_A}, resolution_A {resolution_A}; all must be positive"
        )
    margin = math.ceil(resolution_A / voxel_size_A) + 2
    padded = box + 2 * margin
    fine = 3 if padded <= 80 else 2
    size = padded * fine
    grid = _splat(coords_zyx_A * (fine / voxel_size_A) + padded // 2 * fine, weights, size)
    spectrum = torch.fft.rfftn(grid)
    for axis in range(3):
        f = (torch.fft.rfftfreq if axis == 2 else torch.fft.fftfreq)(size, device=grid.device)  # cycles a fine voxel
        gain = low_pass_gain(f * fine / voxel_size_A, resolution_A, 0.5 / voxel_size_A) / torch.sinc(f) ** 2
        spectrum = spectrum * gain.reshape([-1 if a == axis else 1 for a in range(3)])
    out = torch.fft.irfftn(spectrum, s=(size,) * 3)[::fine, ::fine, ::fine]
    inner = slice(margin, margin + box)
    return (out[inner, inner, inner] * (fine / voxel_size_A) ** 3).float()


def _splat(index_zyx: Tensor, weights: Tensor, size: int) -> Tensor:
    """Trilinear splat of (n, 3) fractional indices on a (size, size, size) grid, without those outside."""
    inside = ((index_zyx >= 0) & (index_zyx < size)).all(1)
    index_zyx, weights = index_zyx[inside], weights[inside].float()
    low = index_zyx.floor()
    part = (index_zyx - low).float()
    low = low.long()
    grid = torch.zeros(size**3, device=weights.device)
    for corner in range(8):
        step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=weights.device)
        # periodic as the transform is: a membrane that fills the grid has no seam
        z, y, x = ((low + step) % size).unbind(1)
        grid.index_add_(0, (z * size + y) * size + x, weights * torch.where(step > 0, part, 1 - part).prod(1))
    return grid.reshape(size, size, size)


def reference_map(
    source: str | Path,
    *,
    voxel_size_A: float,
    resolution_A: float,
    box: int | None = None,
    map_voxel_size_A: float | None = None,
    molecule: int | None = None,
) -> Tensor:
    """One molecule in its own frame: (box, box, box) float32, zyx, centre of mass at ``box // 2``.

    Scale: contrast in units of protein. Built-in classes and atomic models are mass density over 0.81 Da/A^3.
    A map has no absolute scale: it is multiplied so that it best fits a body of density 1 with the map's own
    outline, low-passed alike.

    Parameters
    ----------
    source
        the name of a built-in class (`assemblies.ASSEMBLIES`), or the path of an atomic model (.pdb, .ent, .cif) or of
        a density map (.mrc, .map, .ccp4), gzipped or not, or an entry such as "pdb:3j9i" or "emdb:3883", which is
        downloaded (`databases.fetch`).
    voxel_size_A, resolution_A
        of the result; resolution as in `render_points`. Less than two voxels cannot be held: the rest is cut.
    box
        edge in voxels; by default the smallest even one that holds the molecule and its blur in every pose.
    map_voxel_size_A, molecule
        maps only: override the header; pick one of several molecules (0: the largest).

    Raises ValueError for an unknown source, an argument that does not apply to it, or a file that cannot be used.
    """
    if not voxel_size_A > 0 or not resolution_A > 0 or (box is not None and box < 1):
        raise ValueError(
            f"reference_map: voxel_size_A {voxel_size_A}, resolution_A {resolution_A}, box {box}; all must be positive"
        )
    source = fetch(str(source)) if is_identifier(source) else source
    kind = _source_kind(source)
    if kind != "map" and (map_voxel_size_A is not None or molecule is not None):
        raise ValueError(
            f"{source}: is {'a built-in class' if kind == 'embedded' else 'an atomic model'}; map_voxel_size_A (@) "
            "and molecule (#) apply to maps"
        )
    if kind == "map":
        volume, old_voxel = _read(source, map_voxel_size_A)
        return _from_volume(_one_molecule(source, volume, molecule), old_voxel, voxel_size_A, resolution_A, box)
    if kind == "embedded":
        coords, kDa = pseudo_atoms(str(source))
    else:
        coords, kDa = read_atoms(source)
        coords = coords - ((coords.double() * kDa[:, None]).sum(0) / kDa.sum()).float()
    if box is None:
        box = _roomy_box(coords.norm(dim=1).max().item(), voxel_size_A, resolution_A)
    return render_points(coords, kDa * (1000 / PROTEIN_DENSITY_DA_A3), box, voxel_size_A, resolution_A)


def parse_source(text: str) -> tuple[str, dict]:
    """Source and options of `reference_map` from "FILE", "FILE#0" (one of a map's molecules) or "FILE@13.68" (its true
    voxel size), or both. The name of a file that exists is taken whole.

    Raises ValueError when what follows # or @ is no number.
    """
    if Path(text.strip()).is_file():
        return text.strip(), {}
    rest, at, voxel = text.strip().partition("@")
    source, hash_, molecule = rest.partition("#")
    try:
        options = ({"map_voxel_size_A": float(voxel)} if at else {}) | ({"molecule": int(molecule)} if hash_ else {})
    except ValueError:
        raise ValueError(
            f"{text!r}: expected FILE, FILE#0 for its first molecule, or FILE@13.68 for its voxel size in angstrom."
        ) from None
    return source.strip(), options


def source_exists(text: str) -> bool:
    """Whether a source, written as for `parse_source`, is a database entry or a file or folder that exists."""
    source, _ = parse_source(text)
    return is_identifier(source) or Path(source).exists()


def source_points(source: str | Path) -> Tensor:
    """Points (n, 3) zyx in angstrom from the centre of mass, to draw a source by: pseudo-atoms, atoms, or the voxels of
    a map above its outline.

    `source` as in `reference_map`.
    """
    source = fetch(str(source)) if is_identifier(source) else source
    kind = _source_kind(source)
    if kind == "embedded":
        return pseudo_atoms(str(source))[0]
    if kind == "model":
        points, kDa = read_atoms(source)
        return points - ((points.double() * kDa[:, None]).sum(0) / kDa.sum()).float()
    volume, voxel = _read(source, 1.0 if str(source).lower().endswith(EM_SUFFIXES) else None)
    points = (volume > outline_level(volume)).nonzero().float() * voxel
    return points - points.mean(0)


def _read(source: str | Path, voxel_size_A: float | None) -> tuple[Tensor, float]:
    """A map, and its voxel size, which an EM file does not hold."""
    if not str(source).lower().endswith(EM_SUFFIXES):
        return read_map(source, voxel_size_A=voxel_size_A)
    if voxel_size_A is None:
        raise ValueError(f"{source}: an EM file holds no voxel size; write it behind the name, as in {source}@13.68")
    return torch.from_numpy(read_em(Path(source)).astype("float32")), voxel_size_A


def _source_kind(source: str | Path) -> str:
    """'embedded', 'model' or 'map'."""
    if str(source) in ASSEMBLIES:
        return "embedded"
    name = str(source).lower().removesuffix(".gz")
    if name.endswith(MODEL_SUFFIXES):
        return "model"
    if name.endswith(MAP_SUFFIXES + EM_SUFFIXES):
        return "map"
    raise ValueError(
        f"{source}: neither a built-in class ({', '.join(ASSEMBLIES)}) nor a file with one of the endings "
        f"{', '.join(MODEL_SUFFIXES + MAP_SUFFIXES + EM_SUFFIXES)}, with or without .gz, nor an entry such as "
        "pdb:3j9i or emdb:3883"
    )


def _roomy_box(radius_A: float, voxel_size_A: float, resolution_A: float) -> int:
    return 2 * math.ceil((radius_A + resolution_A / 2) / voxel_size_A) + 2


def _one_molecule(source: str | Path, volume: Tensor, molecule: int | None) -> Tensor:
    """The map without dust, reduced to one molecule when ``molecule`` says which."""
    try:
        parts = split_molecules(volume)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if molecule is None:
        if len(parts) > 1:
            warnings.warn(
                f"{source}: the map holds {len(parts)} separate molecules, and all are taken; {source}#0 to "
                f"#{len(parts) - 1} is one of them",
                stacklevel=3,
            )
        return torch.stack(parts).sum(0)
    if not 0 <= molecule < len(parts):
        raise ValueError(
            f"{source}: molecule {molecule}, but the map holds {len(parts)}; expected 0 to {len(parts) - 1}"
        )
    return parts[molecule]


def _from_volume(
    volume: Tensor, old_voxel_A: float, voxel_size_A: float, resolution_A: float, box: int | None
) -> Tensor:
    """A map on its own grid to the reference's grid, centre and scale."""
    level = outline_level(volume)
    solid = volume > level
    centre = centre_of_mass(volume, level)
    if box is None:
        far = (solid.nonzero().double() - centre).norm(dim=1).max().item() * old_voxel_A
        box = _roomy_box(far, voxel_size_A, resolution_A)
    grid = {"new_voxel_size_A": voxel_size_A, "box": box, "resolution_A": resolution_A, "centre_zyx": centre}
    out = resample(volume, old_voxel_A, **grid)
    body = resample(solid.float(), old_voxel_A, **grid)
    return out * ((body * body).sum() / (out * body).sum())
