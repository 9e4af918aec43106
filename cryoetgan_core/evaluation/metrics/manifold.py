"""Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020, doi
10.48550/arXiv.2002.09797).
"""

from dataclasses import dataclass

import torch

CHUNK = 512  # rows of a distance matrix held at once


@dataclass(frozen=True)
class ManifoldScores:
    """What the four numbers are means of, one value a volume, so that a bootstrap needs no new distances."""

    inside: torch.Tensor  # (M,) for each generated volume, how many real balls hold it
    recalled: torch.Tensor  # (N,) whether each real volume lies in a generated ball
    covered: torch.Tensor  # (N,) whether each real ball holds a generated volume
    k: int

    @property
    def precision(self) -> float:
        """Share of generated volumes inside some real ball."""
        return float((self.inside > 0).double().mean())

    @property
    def recall(self) -> float:
        """Share of real volumes inside some generated ball."""
        return float(self.recalled.double().mean())

    @property
    def density(self) -> float:
        """Mean number of real balls around a generated volume, over k; saturates at N / k."""
        return float(self.inside.double().mean() / self.k)

    @property
    def coverage(self) -> float:
        """Share of real balls that hold a generated volume."""
        return float(self.covered.double().mean())


def _kth_neighbour(points: torch.Tensor, k: int) -> torch.Tensor:
    """Distance (N,) from each of `points` (N, C) to its k-th nearest other point."""
    # cdist of a row with itself is 0: the k-th neighbour is the (k+1)-th smallest
    return torch.cat([torch.cdist(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(CHUNK)])


def manifold_scores(real: torch.Tensor, fake: torch.Tensor, k: int = 5) -> ManifoldScores:
    """Compare `fake` (M, ...) with `real` (N, ...), each flattened to points of a Euclidean space.

    Raises
    ------
    ValueError
        If either set has no more than k points or the two differ in shape.
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
    return ManifoldScores(torch.cat(inside_real).cpu(), torch.cat(recalled).cpu(), covered.cpu(), k)
