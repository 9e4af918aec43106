"""Builders: the bodies of each built-in assembly, in angstrom, xyz, the main axis along z.

Sources of the figures stand with each assembly in `assemblies.ASSEMBLIES`; what was measured by us on a
public structure is in `measured`. The rest is drawn from the published descriptions: domains as ellipsoids of
the domain's mass at the published place. Only the low resolution of a subtomogram (20 A and coarser) is
claimed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import measured
from .geometry import PROTEIN_DENSITY_DA_A3, Ellipsoid, ball, rod, spindle, symmetrised

PATCH_RADIUS_A, SPACING_A = 700.0, 6.0  # of the membrane; mean distance of its points in the plane


def _polar(radius_A: float, phi_deg: float, z_A: float) -> tuple[float, float, float]:
    """xyz of a point given in cylinder coordinates."""
    phi = math.radians(phi_deg)
    return radius_A * math.cos(phi), radius_A * math.sin(phi), z_A


def _radius(mass_kDa: float) -> float:
    """Radius in angstrom of the protein sphere of a mass."""
    return (3000 * mass_kDa / (4 * math.pi * PROTEIN_DENSITY_DA_A3)) ** (1 / 3)


def proteasome() -> list[Ellipsoid]:
    """26S proteasome: one 19S cap on a whole 20S core, which neurons have more often than two caps.

    Asano et al., Science 347, 2015, doi 10.1126/science.1261197, counted the caps.
    """
    cap = [ball(row[:3], row[3], part="19S") for row in measured.REGULATORY_PARTICLE_19S]
    x0, y0, z0 = measured.CORE_CENTRE_A
    core = [
        ball((x + x0, y + y0, z + z0), b.semi_axes_A[0], part="20S distal" if z > 0 else "20S proximal")
        for b in t20s()
        for x, y, z in (b.centre_A,)
    ]
    return cap + core


def ribosome() -> list[Ellipsoid]:
    """80S ribosome: a 40S with head, body and beak, and a 60S with its central protuberance and stalks.

    RNA is 1.35 times as dense as protein, but water-filled channels finer than the balls take the ribosome's
    mean density inside its envelope down to that of protein.
    """
    return [
        ball(row[:3], measured.RIBOSOME_RADIUS_A, row[3] / 100, "60S" if row[2] > -30 else "40S")
        for row in measured.RIBOSOME_80S
    ]


def tric() -> list[Ellipsoid]:
    """TRiC, closed, with its pseudo-symmetry D8: two rings of eight, a folding chamber in each."""
    return symmetrised([ball(row[:3], row[3]) for row in measured.TRIC_SUBUNIT], "D8")


def aldolase() -> list[Ellipsoid]:
    """Aldolase: a D2 tetramer of (beta/alpha)8 barrels with their C-terminal helices outside."""
    unit = [Ellipsoid((20.0, 21.0, 9.0), (23.0, 22.0, 22.0)), ball((34.0, 28.0, 21.0), 9.0)]
    return symmetrised(unit, "D2")


def glutamate_dehydrogenase() -> list[Ellipsoid]:
    """Bovine glutamate dehydrogenase: a D3 dimer of trimers; per subunit core, NAD domain and antenna."""
    unit = [
        spindle(_polar(24.0, 0.0, 19.0), _polar(0.5, 30.0, 1.0), 23.0, 18.0, "core"),
        ball(_polar(35.0, 28.0, 41.0), 17.5, part="NAD domain"),
        # the antennae of a trimer cross over each other above its three-fold axis
        *rod(_polar(18.0, -10.0, 44.0), _polar(9.0, 60.0, 70.0), 7.0, "antenna"),
    ]
    return symmetrised(unit, "D3")


def dnab() -> list[Ellipsoid]:
    """DnaB with its loader: an open spiral of six subunits, five lambda P on the motor tier."""
    bodies = []
    for k in range(6):
        # a lock washer: the ring is cracked between the last subunit and the first, which lie 20 A apart in z
        rise, phi = 4.5 * (k - 2.5), 57.0 * k
        bodies.append(ball(_polar(37.0, phi, -12.0 + rise), _radius(34.0), part="motor tier"))
        # the collar is a trimer of dimers: the amino-terminal domains lie in and out in turn
        inner = k % 2
        bodies.append(ball(_polar(30.0 if inner else 44.0, phi + 8.0, 30.0 + 0.5 * rise), _radius(14.0),
                           part="collar"))  # fmt: skip
        bodies += rod(_polar(38.0, phi, 16.0 + 0.5 * rise), _polar(30.0, phi + 30.0, 26.0), 6.0, "collar")
    for k in range(5):
        rise, phi = 4.5 * (k - 2.0), 57.0 * (k + 0.5)
        bodies.append(spindle(_polar(46.0, phi, -44.0 + rise), _polar(0.8, phi, -1.0), 25.0, 15.0, "lambda P"))
    return bodies


def t20s() -> list[Ellipsoid]:
    """20S proteasome of Thermoplasma: four stacked rings of seven (alpha, beta, beta, alpha)."""
    unit = [ball(row[:3], row[3], part="alpha") for row in measured.T20S_ALPHA]
    unit += [ball(row[:3], row[3], part="beta") for row in measured.T20S_BETA]
    return symmetrised(unit, "D7")


def apoferritin() -> list[Ellipsoid]:
    """Apoferritin: a cage of symmetry O; per subunit the helices A to D, a loop and the short helix E.

    Ends of the helix axes measured on PDB 4V1W. The E helices line the channels on the four-fold axes; the
    channels on the three-fold axes stay open.
    """
    helices = (
        ((20, -46, 34), (-9, -20, 46)),
        ((-2, -16, 41), (18, -45, 23)),
        ((7, -49, 34), (-3, -21, 56)),
        ((3, -20, 52), (32, -43, 34)),
        ((23, -32, 27), (5, -6, 57)),
        ((2, -9, 40), (-1, -8, 52)),
    )
    return symmetrised([b for start, end in helices for b in rod(start, end, 6.0)], "O")


def hemagglutinin() -> list[Ellipsoid]:
    """Influenza hemagglutinin ectodomain, C3: the stem of helices below (z < 0), three heads above."""
    unit = [
        *rod(_polar(8.0, 0.0, -32.0), _polar(9.0, 40.0, 40.0), 7.0, "long helix"),
        *rod(_polar(20.0, 30.0, -22.0), _polar(19.0, 50.0, 16.0), 7.0, "short helix"),
        spindle(_polar(16.0, -10.0, -48.0), (0.0, 0.0, 1.0), 19.0, 12.0, "foot"),
        spindle(_polar(23.0, -20.0, -10.0), (0.0, 0.2, 1.0), 28.0, 9.0, "vestigial esterase"),
        spindle(_polar(26.0, 10.0, 40.0), _polar(-0.3, 10.0, 1.0), 29.0, 20.0, "head"),
    ]
    return symmetrised(unit, "C3")


def insulin_receptor() -> list[Ellipsoid]:
    """Insulin-bound insulin receptor ectodomain, a C2 T: L1, CR, L2 and insulin the bar, FnIII the stem.

    Domain sizes measured on PDB 4ZXB (the receptor without insulin), placed as in the T of PDB 6CEB.
    """
    unit = [
        spindle((28.0, -19.0, 35.0), (0.8, -0.2, 0.4), 22.0, 17.0, "L1"),
        spindle((50.0, 1.0, 30.0), (0.9, 0.3, -0.4), 31.0, 14.0, "CR"),
        spindle((22.0, 17.0, 19.0), (0.9, 0.1, 0.4), 22.0, 17.0, "L2"),
        spindle((15.0, 10.0, -10.0), (0.2, 0.3, 1.0), 24.0, 14.0, "FnIII-1"),
        spindle((15.0, 3.0, -39.0), (0.0, 0.2, 1.0), 25.0, 15.0, "FnIII-2"),
        spindle((13.0, -2.0, -69.0), (0.1, 0.1, 1.0), 21.0, 13.0, "FnIII-3"),
        ball((12.0, -20.0, 27.0), _radius(5.8), part="insulin"),
    ]
    return symmetrised(unit, "C2")


def bilayer_profile(depth_A: Tensor) -> Tensor:
    """Density across a lipid bilayer, protein being 1, at depths from its mid-plane: two Gaussians of +1.25 (full width
    10 A) at +-19 A, the head groups, and a trough of -0.25 between, the tails.

    In electrons per A^3 head groups have 0.46, tails 0.28, protein 0.43 and water 0.31 to 0.33 (Nagle and
    Tristram-Nagle, BBA 1469, 2000).
    """
    heads = sum(torch.exp(-4 * math.log(2) * ((depth_A - side) / 10.0) ** 2) for side in (-19.0, 19.0))
    return 1.25 * heads - 0.25 * torch.sigmoid((14.0 - depth_A.abs()) / 1.5)


def membrane() -> tuple[Tensor, Tensor]:
    """A round, flat patch of lipid bilayer: two head-group layers 38 A apart, lipid tails between them.

    Across it the density is `bilayer_profile`, in points 2 A apart. It has no membrane proteins. Every box up to 550 A
    wide, shifted by a fifth of its edge, is crossed from face to face.

    Returns
    -------
    tuple[Tensor, Tensor]
        (n, 3) points xyz and (n,) weights in kDa (negative in the tails), normal along z, mid-plane at z = 0.
    """
    # a sunflower (Vogel's spiral): a point for every spacing^2, and no lattice to beat with a voxel grid
    k = torch.arange(int(math.pi * (PATCH_RADIUS_A / SPACING_A) ** 2), dtype=torch.float64) + 0.5
    arc, turn = SPACING_A * (k / math.pi).sqrt(), k * (math.pi * (3 - math.sqrt(5)))
    x, y = arc * turn.cos(), arc * turn.sin()
    z = torch.arange(-32, 33, 2, dtype=torch.float64)
    points = torch.stack((x[:, None].expand(-1, len(z)), y[:, None].expand(-1, len(z)), z.expand(len(x), -1)), -1)
    point_kDa = bilayer_profile(z) * (PROTEIN_DENSITY_DA_A3 * SPACING_A**2 * 2.0 / 1000)
    return points.reshape(-1, 3).float(), point_kDa.expand(len(x), -1).reshape(-1).float()
