"""Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020, doi
10.48550/arXiv.2002.09797).
"""

import torch

CHUNK = 512  # rows of a distance matrix held at once


def _kth_neighbour(points: torch.Tensor, k: int) -> torch.Tensor:
    """Distance (N,) from each of `points` (N, C) to its k-th nearest other point."""
    # cdist of a row with itself is 0: the k-th neighbour is the (k+1)-th smallest
    return torch.cat([torch.cdist(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(CHUNK)])


def manifold_scores(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> dict[str, float]:
    """Compare `fake` (M, ...) with `real` (N, ...), each flattened to points. A ball reaches to its point's k-th
    neighbour.

    precision: share of generated points inside some real ball; recall: of real ones inside some generated ball;
    density: mean number of real balls round a generated point, over k (saturates at N / k); coverage: share of real
    balls that hold a generated point.

    Raises ValueError if either set has no more than k points or the two differ in shape.
    """
    if min(len(real), len(fake)) <= k or real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"manifold_scores: real {tuple(real.shape)} and fake {tuple(fake.shape)}: expected equal points, over {k} "
            "each."
        )
    real, fake = real.flatten(1).double(), fake.flatten(1).double()
    real_radius, fake_radius = _kth_neighbour(real, k), _kth_neighbour(fake, k)
    inside_real, recalled, covered = [], [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows in fake.split(CHUNK):
        distance = torch.cdist(rows, real)
        inside = distance < real_radius
        inside_real.append(inside.sum(dim=1))
        covered |= inside.any(dim=0)
    for rows in real.split(CHUNK):
        recalled.append((torch.cdist(rows, fake) < fake_radius).any(dim=1))
    inside = torch.cat(inside_real)
    means = {
        "precision": inside > 0,
        "recall": torch.cat(recalled),
        "density": inside.double() / k,
        "coverage": covered,
    }
    return {name: float(values.double().mean()) for name, values in means.items()}
