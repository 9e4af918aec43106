"""What a slab holds beside its molecules: membranes, molecules that stand in them, gold beads, the shape of the ice.

Points and directions are zyx in angstrom, from the first voxel of the slab. A membrane is given by the signed distance
to its mid-plane, so its density and its labels need no mesh.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral

import numpy as np
import torch

from ..volumes.maps import low_pass_gain
from .specimen.builders import bilayer_profile
from .specimen.crowding import HALF_MEMBRANE_A

MEMBRANES = ("planes", "vesicles", "tubes")
GOLD_DENSITY = 10.0  # protein is 1: mean inner potentials of about 25 V (gold) and 5.5 V (protein), 3.5 V in ice
GAP_A = 100.0  # between two membranes
STEEPEST = 0.5  # z of a plane's normal or a tube's axis: at most 30 degrees from where they are seen best
TRIES = 500
REACH_A = 60.0  # from the mid-plane, beyond which a bilayer has no density at any resolution used here


@dataclass(frozen=True)
class Surroundings:
    """What to put beside the molecules of a tomogram; by default nothing, and ice that fills it.

    Parameters
    ----------
    planes, vesicles, tubes
        how many membranes of each shape. Planes and tubes run through the whole slab.
    vesicle_radius_A, tube_radius_A
        least and greatest, to the mid-plane of the bilayer.
    in_membranes
        molecules of a class that stand in the membranes: the z axis of their map points out of it. They take the place
        of lipid.
    offset_A
        how far out of the mid-plane the centre of their map lies.
    gold, gold_diameter_A
        beads, and how wide they are. Their contrast is that of a weak phase object, which is too strong for so much
        gold, and they have sharp edges.
    ice_A, ice_tilt_deg
        thickness of the ice (0: all of the slab) and its tilt about y. Molecules and gold lie in it; membranes are not
        cut.

    Raises
    ------
    ValueError
        For a negative number, or a range that is none.
    """

    planes: int = 0
    vesicles: int = 0
    tubes: int = 0
    vesicle_radius_A: tuple[float, float] = (200.0, 500.0)
    tube_radius_A: tuple[float, float] = (120.0, 250.0)
    in_membranes: Mapping[str, int] = field(default_factory=dict)
    offset_A: float = 0.0
    gold: int = 0
    gold_diameter_A: float = 100.0
    ice_A: float = 0.0
    ice_tilt_deg: float = 0.0

    def __post_init__(self) -> None:
        for name in (*MEMBRANES, "gold"):
            if not isinstance(getattr(self, name), Integral) or getattr(self, name) < 0:
                raise ValueError(f"Surroundings: {name} is {getattr(self, name)}; expected a whole number, 0 or more.")
        for name in ("vesicle_radius_A", "tube_radius_A"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"Surroundings: {name} is {getattr(self, name)}; expected least and greatest.")
            low, high = getattr(self, name)
            if not 2 * HALF_MEMBRANE_A <= low <= high:
                raise ValueError(
                    f"Surroundings: {name} is {low:g} to {high:g}; expected a range from {2 * HALF_MEMBRANE_A:g} A on."
                )
        if not (self.gold_diameter_A > 0 and self.ice_A >= 0 and abs(self.ice_tilt_deg) <= 45):
            raise ValueError(
                f"Surroundings: gold_diameter_A is {self.gold_diameter_A:g}, ice_A {self.ice_A:g} and ice_tilt_deg "
                f"{self.ice_tilt_deg:g}; expected more than 0, 0 or more, and -45 to 45."
            )
        if any(not isinstance(n, Integral) or n < 1 for n in self.in_membranes.values()):
            raise ValueError(f"Surroundings: in_membranes is {dict(self.in_membranes)}; expected whole numbers from 1.")
        if self.in_membranes and not (self.planes or self.vesicles or self.tubes):
            names = ", ".join(self.in_membranes)
            raise ValueError(f"Surroundings: {names} in membranes, and there are none: ask for vesicles or tubes.")


def surroundings(told: Mapping[str, object]) -> Surroundings:
    """`Surroundings` from names and values, as a command or a notebook tells them.

    Raises
    ------
    ValueError
        For a name that is none, or a value that does not fit it.
    """
    known = [f.name for f in fields(Surroundings)]
    unknown = ", ".join(sorted(set(told) - set(known)))
    if unknown:
        raise ValueError(f"Surroundings: {unknown} is not known; expected some of {', '.join(known)}.")
    try:
        return Surroundings(**{k: tuple(v) if isinstance(v, list) else v for k, v in told.items()})
    except (TypeError, AttributeError):
        raise ValueError(
            f"Surroundings: {dict(told)} holds a value of a wrong kind; expected numbers, two numbers for a range of "
            "radii, and a number of each class in_membranes."
        ) from None


@dataclass(frozen=True)
class Membrane:
    """A bilayer: `kind` of MEMBRANES; a point of it or its centre; a plane's normal or a tube's axis; its radius."""

    kind: str
    centre: np.ndarray
    axis: np.ndarray
    radius_A: float = 0.0

    def area(self, extent_A: np.ndarray) -> float:
        """About how large it is in a slab, in square angstrom."""
        longest = float(extent_A.max())
        return {"planes": longest * float(extent_A.min()), "tubes": 2 * math.pi * self.radius_A * longest}.get(
            self.kind, 4 * math.pi * self.radius_A**2
        )

    def distance_and_normal(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distance (...) of points (..., 3) from the mid-plane, positive outside, and the direction out of it
        (..., 3).
        """
        away = points - self.centre
        if self.kind == "planes":
            return away @ self.axis, np.broadcast_to(self.axis, away.shape)
        if self.kind == "tubes":
            away = away - (away @ self.axis)[..., None] * self.axis
        length = np.linalg.norm(away, axis=-1)
        return length - self.radius_A, away / np.maximum(length, 1e-6)[..., None]


@dataclass(frozen=True)
class Placed:
    """Surroundings of one tomogram, drawn: membranes, and centres (N, 3) of beads."""

    order: Surroundings
    extent_A: np.ndarray
    membranes: tuple[Membrane, ...] = ()
    gold: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))

    @property
    def empty(self) -> bool:
        """Whether there are neither membranes nor beads."""
        return not self.membranes and not len(self.gold)

    def in_ice(self, points: np.ndarray, radius_A: float) -> np.ndarray:
        """Whether balls round points (..., 3) lie in the ice."""
        if not self.order.ice_A:
            return np.ones(points.shape[:-1], bool)
        tilt, away = math.radians(self.order.ice_tilt_deg), points - self.extent_A / 2
        depth = away[..., 0] * math.cos(tilt) - away[..., 2] * math.sin(tilt)
        return np.abs(depth) + radius_A <= self.order.ice_A / 2

    def leaves_room(self, point: np.ndarray, radius_A: float, *, but: Membrane | None = None) -> bool:
        """Whether a ball lies in the ice, and off every bead and every membrane `but` one."""
        if not self.in_ice(point, radius_A):
            return False
        if (np.linalg.norm(self.gold - point, axis=1) < radius_A + self.order.gold_diameter_A / 2).any():
            return False
        others = (m for m in self.membranes if m is not but)
        return all(abs(m.distance_and_normal(point)[0]) >= radius_A + HALF_MEMBRANE_A for m in others)


def draw(order: Surroundings, shape: Sequence[int], voxel_size_A: float, generator: torch.Generator) -> Placed:
    """Membranes at random places of a slab (Z, Y, X) that do not touch each other, then beads beside them.

    Raises
    ------
    ValueError
        Where they find no room.
    """
    extent = np.array(shape) * voxel_size_A
    if order == Surroundings():  # draws nothing, so that molecules stay where they were
        return Placed(order, extent)
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    coarse = np.stack(np.meshgrid(*(np.arange(0, e, GAP_A / 2) for e in extent), indexing="ij"), -1)
    membranes, near = [], np.zeros(coarse.shape[:-1], bool)
    for kind in MEMBRANES:
        for k in range(getattr(order, kind)):
            for _ in range(TRIES):
                one = _membrane(kind, order, extent, rng)
                around = np.abs(one.distance_and_normal(coarse)[0]) < HALF_MEMBRANE_A + GAP_A / 2
                if not (around & near).any():
                    break
            else:
                raise ValueError(f"Surroundings: room for {k} of {getattr(order, kind)} {kind}: ask for fewer.")
            membranes.append(one)
            near |= around
    radius, beads = order.gold_diameter_A / 2, np.empty((0, 3))
    for k in range(order.gold):
        for _ in range(TRIES):
            centre = rng.random(3) * extent
            so_far = Placed(order, extent, tuple(membranes), beads)
            if so_far.leaves_room(centre, radius):
                break
        else:
            raise ValueError(f"Surroundings: room for {k} of {order.gold} gold beads: ask for fewer.")
        beads = np.concatenate([beads, centre[None]])
    return Placed(order, extent, tuple(membranes), beads)


def _membrane(kind: str, order: Surroundings, extent: np.ndarray, rng: np.random.Generator) -> Membrane:
    centre, axis = rng.random(3) * extent, np.array([1.0, 0, 0])
    while abs(axis[0]) > STEEPEST:
        axis = rng.standard_normal(3)
        axis /= np.linalg.norm(axis)
    low, high = order.tube_radius_A if kind == "tubes" else order.vesicle_radius_A
    return Membrane(kind, centre, axis, 0.0 if kind == "planes" else rng.uniform(low, high))


def stand(
    placed: Placed, radius_A: float, rng: np.random.Generator, centres: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """A free place for a molecule in a membrane: its centre (3,), and the membrane's direction out (3,); None where
    none was found off the molecules at `centres` (N, 3) with `radii` (N,).
    """
    areas = np.array([m.area(placed.extent_A) for m in placed.membranes])
    for _ in range(TRIES):
        one = placed.membranes[int(rng.choice(len(areas), p=areas / areas.sum()))]
        point = rng.random(3) * placed.extent_A
        if one.kind == "vesicles":  # seldom hit by a point of the slab
            out = rng.standard_normal(3)
            point = one.centre + one.radius_A * out / np.linalg.norm(out)
        distance, normal = one.distance_and_normal(point)
        centre = point - (distance - placed.order.offset_A) * normal
        inside = (centre >= radius_A).all() and (centre <= placed.extent_A - radius_A).all()
        apart = np.linalg.norm(centres - centre, axis=1) >= radii + radius_A
        if inside and apart.all() and placed.leaves_room(centre, radius_A, but=one):
            return centre, normal
    return None


def turned_out(normals: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Rotations (N, 3, 3) acting on xyz that bring z onto each direction (N, 3), zyx, with a random turn about it."""
    found = []
    for out in normals[:, ::-1]:
        side = np.cross(out, rng.standard_normal(3))
        side /= np.linalg.norm(side)
        found.append(np.stack([side, np.cross(out, side), out], 1))
    return torch.from_numpy(np.array(found).reshape(-1, 3, 3))


def add_to(
    density: np.ndarray, classes: np.ndarray, placed: Placed, voxel_size_A: float, resolution_A: float, first: int
) -> None:
    """Add membranes and beads to a slab's density (Z, Y, X), lipid where no molecule is, and label their voxels, where
    none is labelled yet, in `classes`: `first` for a membrane and `first` + 1 for gold.
    """
    depth, values = _profile(voxel_size_A, resolution_A)
    radius = placed.order.gold_diameter_A / 2
    rows = np.stack(np.meshgrid(*(np.arange(n) * voxel_size_A for n in density.shape[1:]), indexing="ij"), -1)
    for z in range(len(density)):  # a section at a time, so that memory is bounded
        points = np.concatenate([np.full((*rows.shape[:2], 1), z * voxel_size_A), rows], -1)
        free, room = classes[z] == 0, 1 - np.clip(density[z], 0, 1)
        for one in placed.membranes:
            away = np.abs(one.distance_and_normal(points)[0])
            density[z] += room * np.interp(away, depth, values, right=0.0).astype(np.float32)
            classes[z][free & (away <= HALF_MEMBRANE_A)] = first
        for centre in placed.gold[np.abs(placed.gold[:, 0] - z * voxel_size_A) < radius + voxel_size_A]:
            away = np.linalg.norm(points - centre, axis=-1)
            density[z] += GOLD_DENSITY * np.clip((radius - away) / voxel_size_A + 0.5, 0, 1).astype(np.float32)
            classes[z][free & (away <= radius)] = first + 1


def _profile(voxel_size_A: float, resolution_A: float) -> tuple[np.ndarray, np.ndarray]:
    """Density of a bilayer at distances from its mid-plane, low-passed as all densities are."""
    depth = torch.arange(-1000.0, 1000.0, dtype=torch.float64)  # every angstrom; the ends are far outside
    gain = low_pass_gain(torch.fft.rfftfreq(len(depth), dtype=torch.float64), resolution_A, 0.5 / voxel_size_A)
    smooth = torch.fft.irfft(torch.fft.rfft(bilayer_profile(depth)) * gain, n=len(depth))
    kept = (depth >= 0) & (depth <= REACH_A + 3 * resolution_A)
    return depth[kept].numpy(), smooth[kept].numpy()
