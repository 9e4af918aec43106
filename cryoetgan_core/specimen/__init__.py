"""The specimen: what the molecules are, at which pose. Domain X of the paper starts here.

`assemblies` embeds the eleven classes of the paper; `render` turns them, atomic models (`atoms`) or density
maps (`maps`) into reference maps on one scale; `poses` turns reference maps. Volumes are zyx, lengths are in
angstrom.
"""

from .assemblies import ASSEMBLIES, S1_CLASSES, S2_CLASSES, Assembly, pseudo_atoms
from .maps import read_map
from .poses import (
    matrix_to_relion_euler,
    random_rotations,
    random_shifts,
    relion_euler_to_matrix,
    rotate_volume,
)
from .render import reference_map, render_points, source_points
from .shape import radius_of_gyration

__all__ = [
    "ASSEMBLIES",
    "S1_CLASSES",
    "S2_CLASSES",
    "Assembly",
    "matrix_to_relion_euler",
    "pseudo_atoms",
    "radius_of_gyration",
    "random_rotations",
    "random_shifts",
    "read_map",
    "reference_map",
    "relion_euler_to_matrix",
    "render_points",
    "rotate_volume",
    "source_points",
]
