"""The eleven classes of the paper as pseudo-atom models of our own, from documented geometry.

`ASSEMBLIES` says what each one is and where its figures come from; `pseudo_atoms` gives its points. Nothing
is read from disk: the data sets of Table 1 can be rehearsed without a download. With the real atomic models
or maps at hand, use those instead (`render.reference_map` takes either).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from . import builders
from .geometry import Ellipsoid, fill

S1_CLASSES = ("proteasome", "ribosome", "tric", "membrane")
S2_CLASSES = ("aldolase", "glutamate_dehydrogenase", "dnab", "t20s", "apoferritin", "hemagglutinin", "insulin_receptor")


@dataclass(frozen=True)
class Assembly:
    """What a built-in class is, in figures."""

    name: str
    title: str
    point_group: str  # of the built-in model; C1 when it has none
    mass_kDa: float | None  # None: a membrane has no mass of its own, only one an area
    dimensions_A: str  # overall, as described in the source
    pdb: str  # an entry of this assembly ("" for none)
    source: str  # where mass, dimensions and arrangement come from
    build: Callable[[], list[Ellipsoid]] | None = None  # bodies in xyz; None: the membrane, which is no list of bodies


ASSEMBLIES: dict[str, Assembly] = {
    a.name: a
    for a in (
        Assembly(
            "proteasome", "26S proteasome, single-capped", "C1", 1600.0,
            "330 long (19S 170, 20S 150) x 200 wide", "5MPA",
            "Unverdorben et al., PNAS 111, 2014, doi 10.1073/pnas.1403409111 (PDB 4CR2); Wehmer et al., "
            "PNAS 114, 2017, doi 10.1073/pnas.1621129114 (PDB 5MPA)", builders.proteasome,
        ),
        Assembly(
            "ribosome", "80S ribosome", "C1", 4300.0, "250 to 300 across", "5T2C",
            "shape from EMD-3883; Natchiar et al., Nature 551, 2017, doi 10.1038/nature24482; mass of the "
            "human 80S: Anger et al., Nature 497, 2013, doi 10.1038/nature12104", builders.ribosome,
        ),
        Assembly(
            "tric", "chaperonin TRiC/CCT, closed", "D8", 950.0, "160 diameter x 180 long", "4V94",
            "Leitner et al., Structure 20, 2012, doi 10.1016/j.str.2012.03.007", builders.tric,
        ),
        Assembly(
            "membrane", "lipid bilayer", "C1", None, "head groups 38 apart, patch 1400 wide", "",
            "Nagle and Tristram-Nagle, BBA 1469, 2000, doi 10.1016/S0304-4157(00)00016-2",
        ),
        Assembly(
            "aldolase", "rabbit muscle aldolase", "D2", 157.0, "100 x 100 x 65", "5VY5",
            "Herzik, Wu and Lander, Nat. Methods 14, 2017, doi 10.1038/nmeth.4461", builders.aldolase,
        ),
        Assembly(
            "glutamate_dehydrogenase", "bovine glutamate dehydrogenase", "D3", 336.0,
            "105 diameter x 140 long", "5K12", "Merk et al., Cell 165, 2016, doi 10.1016/j.cell.2016.05.040",
            builders.glutamate_dehydrogenase,
        ),
        Assembly(
            "dnab", "DnaB helicase with lambda P loader", "C1", 445.0, "130 diameter x 120 long", "6BBM",
            "Chase et al., eLife 7, 2018, doi 10.7554/eLife.41140", builders.dnab,
        ),
        Assembly(
            "t20s", "20S proteasome of Thermoplasma acidophilum", "D7", 680.0,
            "113 diameter x 150 long", "3J9I",
            "Loewe et al., Science 268, 1995, doi 10.1126/science.7725097; Li et al., Nat. Methods 10, 2013, "
            "doi 10.1038/nmeth.2472", builders.t20s,
        ),
        Assembly(
            "apoferritin", "apoferritin, 24 light chains", "O", 478.0, "120 outside, 80 inside", "4V1W",
            "Russo and Passmore, Science 346, 2014, doi 10.1126/science.1259530", builders.apoferritin,
        ),
        Assembly(
            "hemagglutinin", "influenza hemagglutinin ectodomain", "C3", 180.0,
            "135 long x 70 wide", "1RUZ",
            "Wilson, Skehel and Wiley, Nature 289, 1981, doi 10.1038/289366a0", builders.hemagglutinin,
        ),
        Assembly(
            "insulin_receptor", "insulin-bound insulin receptor ectodomain", "C2", 260.0,
            "T: bar 150 wide, stem 100 long", "6CEB",
            "Scapin et al., Nature 556, 2018, doi 10.1038/nature26153", builders.insulin_receptor,
        ),
    )
}  # fmt: skip


@cache
def _points(name: str) -> tuple[Tensor, Tensor]:
    if name not in ASSEMBLIES:
        raise ValueError(f"no built-in assembly {name!r}; expected one of {', '.join(ASSEMBLIES)}")
    entry = ASSEMBLIES[name]
    if entry.build is None:
        points, weights = builders.membrane()
    else:
        points, weights = fill(entry.build(), entry.mass_kDa)
        points = points - (points.double() * weights[:, None]).sum(0).div(weights.sum()).float()
    return points.flip(1).contiguous(), weights


def pseudo_atoms(name: str) -> tuple[Tensor, Tensor]:
    """The built-in model of a class as points.

    Parameters
    ----------
    name
        one of ``S1_CLASSES`` or ``S2_CLASSES``.

    Returns
    -------
    tuple[Tensor, Tensor]
        (n, 3) points **zyx** in angstrom from the centre of mass, the main symmetry axis along z; and (n,)
        weights in kDa that add up to the assembly's mass. The membrane: mid-plane at z = 0, normal along z,
        700 A in radius, negative weights in the lipid tails.

    Raises ValueError for an unknown name.
    """
    points, weights = _points(name)
    return points.clone(), weights.clone()
