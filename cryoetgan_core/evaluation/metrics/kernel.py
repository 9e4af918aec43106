"""Kernel distance between two sets of features: the squared maximum mean discrepancy, unbiased."""

import torch


def kernel_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """KID of Binkowski et al. 2018 (arXiv 1801.01401) of features (N, C) and (M, C): kernel (x . y / C + 1)^3, diagonal
    left out.

    Unbiased at any number of volumes, so that it may fall below 0 for equal distributions; a Frechet distance is not.

    Raises ValueError if a set has fewer than two points or the widths differ.
    """
    if min(len(real), len(fake)) < 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"kernel_distance: features {tuple(real.shape)} and {tuple(fake.shape)}: expected (N, C), (M, C), N and M "
            "> 1."
        )
    real, fake = real.double(), fake.double()

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: torch.Tensor) -> torch.Tensor:
        k = kernel(a, a)
        return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(real) + within(fake) - 2 * kernel(real, fake).mean())
