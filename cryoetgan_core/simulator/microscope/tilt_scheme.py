"""Tilt schemes: the angles, the order in which they are recorded, and the rotation that each of them is.

Angles are in degrees, doses in electrons per square angstrom. The beam runs along z; the tilt axis lies in the xy
plane, along y unless stated otherwise.
"""

import torch

SCHEMES = ("bidirectional", "dose_symmetric")


def tilt_angles(minimum_deg: float, maximum_deg: float, step_deg: float) -> torch.Tensor:
    """Tilt angles (T,) in degrees from minimum in steps up to the maximum, which is included where a step falls on it.

    Raises ValueError if the step is not positive, the range is empty or goes beyond +-90 degrees.
    """
    if step_deg <= 0 or not -90 <= minimum_deg <= maximum_deg <= 90:
        raise ValueError(
            f"Tilt scheme from {minimum_deg} to {maximum_deg} in steps of {step_deg} degrees: expected a positive step "
            "and "
            "-90 <= minimum <= maximum <= 90."
        )
    count = int((maximum_deg - minimum_deg) / step_deg + 1e-6) + 1
    return minimum_deg + step_deg * torch.arange(count, dtype=torch.float32)


def recording_order(angles_deg: torch.Tensor, scheme: str) -> torch.Tensor:
    """Rank (T,) of every tilt in time, 0 for the first recorded.

    "dose_symmetric" (Hagen, Wan and Briggs 2017, doi 10.1016/j.jsb.2016.06.007) alternates sides outwards from the tilt
    nearest 0; "bidirectional" goes from there up to the maximum, then down to the minimum.

    Raises ValueError for another scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"Tilt scheme {scheme!r}; expected one of {', '.join(SCHEMES)}.")
    angles = [round(float(a), 3) for a in angles_deg]
    if scheme == "dose_symmetric":
        order = sorted(range(len(angles)), key=lambda i: (abs(angles[i]), angles[i]))
    else:
        start = min(range(len(angles)), key=lambda i: abs(angles[i]))
        order = [*range(start, len(angles)), *reversed(range(start))]
    rank = torch.empty(len(angles), dtype=torch.long)
    rank[torch.tensor(order)] = torch.arange(len(angles))
    return rank


def tilt_matrices(angles_deg: torch.Tensor) -> torch.Tensor:
    """Rotations (..., 3, 3) of the specimen about y, acting on xyz column vectors, for tilt angles (...).

    A point at (x, y, z) comes to x cos(tilt) - z sin(tilt) on the detector.
    """
    tilt = torch.deg2rad(angles_deg.double())
    zero, one = torch.zeros_like(tilt), torch.ones_like(tilt)
    rows = ((tilt.cos(), zero, -tilt.sin()), (zero, one, zero), (tilt.sin(), zero, tilt.cos()))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
