"""The specimen: what the molecules are, at which pose. Domain X of the paper starts here.

`assemblies` embeds the eleven classes of the paper; `render` turns them, atomic models (`atoms`) or density
maps (`maps`) into reference maps on one scale; `poses` turns reference maps. Volumes are zyx, lengths are in
angstrom.
"""

from ...volumes.maps import read_map
from ...volumes.poses import (
    pose_to_relion_angles,
    random_rotations,
    random_shifts,
    relion_angles_to_pose,
    rotate_volume,
)
from .assemblies import ASSEMBLIES, S1_CLASSES, S2_CLASSES, pseudo_atoms
from .render import reference_map, render_points, source_points
from .shape import radius_of_gyration
