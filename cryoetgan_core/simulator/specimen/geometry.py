"""Solid bodies: ellipsoids, rods, symmetry operators, and filling bodies with points.

Everything here is in angstrom and in **xyz** order, as structures are described; `assemblies.pseudo_atoms`
turns the points to zyx. A body is a list of ellipsoids. `fill` makes their smooth union as large as the mass
asks for, so the density inside is that of protein whatever the description's radii.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# 1.35 g/cm^3, the mean density of folded protein (Fischer, Polikarpov and Craievich, Protein Sci. 13, 2004)
PROTEIN_DENSITY_DA_A3 = 0.81


@dataclass(frozen=True)
class Ellipsoid:
    """One solid ellipsoid: its centre, semi-axes and density relative to protein."""

    centre_A: tuple[float, float, float]  # xyz
    semi_axes_A: tuple[float, float, float]  # along the columns of `axes`
    axes: tuple[tuple[float, float, float], ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))  # 3x3, columns unit vectors
    density: float = 1.0  # 1 is protein
    part: str = ""  # which piece of the assembly it belongs to, to select by


def ball(centre_A, radius_A: float, density: float = 1.0, part: str = "") -> Ellipsoid:
    """A sphere at ``centre_A`` xyz."""
    return Ellipsoid(tuple(centre_A), (radius_A,) * 3, density=density, part=part)


def spindle(centre_A, long_axis, semi_long_A: float, semi_short_A: float, part: str = "") -> Ellipsoid:
    """An ellipsoid of revolution about the direction ``long_axis`` xyz (any length)."""
    z = torch.tensor(long_axis, dtype=torch.float64)
    z = z / z.norm()
    # any vector not along z spans the plane across it: the body is round there
    x = torch.linalg.cross(z, torch.eye(3, dtype=torch.float64)[z.abs().argmin()])
    x = x / x.norm()
    axes = torch.stack((x, torch.linalg.cross(z, x), z), 1)
    semi_axes_A = (semi_short_A, semi_short_A, semi_long_A)
    return Ellipsoid(tuple(centre_A), semi_axes_A, tuple(map(tuple, axes.tolist())), part=part)


def rod(start_A, end_A, radius_A: float, part: str = "") -> list[Ellipsoid]:
    """A rod with round ends from ``start_A`` to ``end_A`` xyz (a helix, say): balls about a radius apart."""
    start, end = (torch.tensor(p, dtype=torch.float64) for p in (start_A, end_A))
    steps = max(2, math.ceil((end - start).norm().item() / radius_A) + 1)
    return [ball((start + (end - start) * k / (steps - 1)).tolist(), radius_A, part=part) for k in range(steps)]


def cyclic(n: int) -> Tensor:
    """(n, 3, 3) operators of C_n, acting on xyz, axis along z."""
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack((c, -s, zero, s, c, zero, zero, zero, one), 1).reshape(n, 3, 3)


def dihedral(n: int) -> Tensor:
    """(2 n, 3, 3) operators of D_n, acting on xyz, main axis along z, one two-fold along x."""
    ops = cyclic(n)
    return torch.cat((ops, ops @ torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))))


def octahedral() -> Tensor:
    """(24, 3, 3) operators of O, acting on xyz, four-folds along the axes: signed permutations of det +1."""
    eye = torch.eye(3, dtype=torch.float64)
    ops = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2)):
        for signs in range(8):
            diag = torch.tensor([1.0 - 2 * (signs >> k & 1) for k in range(3)], dtype=torch.float64)
            ops.append(diag[:, None] * eye[list(order)])
    return torch.stack([op for op in ops if torch.linalg.det(op) > 0])


def point_group(name: str) -> Tensor:
    """(n, 3, 3) operators acting on xyz of a point group written C1, C3, D7, O."""
    if name == "O":
        return octahedral()
    if name[:1] not in ("C", "D") or not name[1:].isdigit() or int(name[1:]) < 1:
        raise ValueError(f"point group is {name!r}, expected O, or C or D and a number, as in C3 or D7")
    return {"C": cyclic, "D": dihedral}[name[0]](int(name[1:]))


def symmetrised(unit: list[Ellipsoid], group: str) -> list[Ellipsoid]:
    """The copies of an asymmetric unit under a point group."""
    copies = []
    for op in point_group(group):
        for body in unit:
            centre = op @ torch.tensor(body.centre_A, dtype=torch.float64)
            axes = op @ torch.tensor(body.axes, dtype=torch.float64)
            copies.append(replace(body, centre_A=tuple(centre.tolist()), axes=tuple(map(tuple, axes.tolist()))))
    return copies


def fill(bodies: list[Ellipsoid], mass_kDa: float, spacing_A: float = 3.0) -> tuple[Tensor, Tensor]:
    """Points on a lattice inside a smooth union of ellipsoids that has the volume that the mass asks for.

    A point at ``s`` semi-axes from an ellipsoid's centre gets ``exp(-2 s^2)`` from it. Lattice points are
    taken in order of the sum over all ellipsoids, which is level on a surface that bridges neighbours as
    chains do, until their mass is ``mass_kDa``; the density of a point is the mean of its ellipsoids',
    weighted by the same terms. The lattice has a point at the origin and its axes along xyz.

    Returns
    -------
    tuple[Tensor, Tensor]
        (n, 3) points xyz in angstrom and (n,) weights in kDa, float32; the weights add up to ``mass_kDa``.
    """
    centres = torch.tensor([b.centre_A for b in bodies], dtype=torch.float64)
    reach = 2.0 * max(max(b.semi_axes_A) for b in bodies)
    low = ((centres.min(0).values - reach) / spacing_A).floor().long()
    high = ((centres.max(0).values + reach) / spacing_A).ceil().long()
    shape = (high - low + 1).tolist()
    field = torch.zeros(shape)
    density = torch.zeros(shape)
    for body, centre in zip(bodies, centres, strict=True):
        half = 2.0 * max(body.semi_axes_A)
        window, lines = [], []
        for axis in range(3):
            first = math.floor((centre[axis].item() - half) / spacing_A) - low[axis].item()
            last = math.ceil((centre[axis].item() + half) / spacing_A) - low[axis].item()
            first, last = max(first, 0), min(last, shape[axis] - 1)
            window.append(slice(first, last + 1))
            index = torch.arange(first, last + 1, dtype=torch.float64) + low[axis]
            lines.append(index * spacing_A - centre[axis])
        offset = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1)
        axes = torch.tensor(body.axes, dtype=torch.float64)
        square = ((offset @ axes) / torch.tensor(body.semi_axes_A, dtype=torch.float64)).square().sum(-1)
        term = torch.exp(-2 * square).float()
        field[tuple(window)] += term
        density[tuple(window)] += term * body.density
    density = (density / field.clamp(min=1e-30)).flatten()
    # symmetry-equivalent points differ by rounding; made equal, they come in together and the symmetry holds
    level = (-field.clamp(min=1e-30).log().flatten() * 1e4).round()
    order = level.argsort(stable=True)
    point_kDa = density[order].double() * (PROTEIN_DENSITY_DA_A3 * spacing_A**3 / 1000)
    n = int((point_kDa.cumsum(0) < mass_kDa).sum()) + 1
    n = int((level <= level[order[n - 1]]).sum())
    keep = order[:n]
    index = torch.stack(torch.unravel_index(keep, shape), 1)
    points = (index + low) * spacing_A
    weights = point_kDa[:n] * (mass_kDa / point_kDa[:n].sum())
    return points.float(), weights.float()
