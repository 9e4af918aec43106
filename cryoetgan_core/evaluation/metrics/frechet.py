"""Frechet distance (Heusel et al. 2017) and Inception Score (Salimans et al. 2016) on features and class probabilities
of any network.
"""

import torch


def frechet_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """|mu_r - mu_f|^2 + Tr(C_r + C_f - 2 (C_r C_f)^(1/2)) of features (N, C) and (M, C).

    Raises ValueError if a set has fewer than two points or the widths differ.
    """
    if min(len(real), len(fake)) < 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"frechet_distance: features {tuple(real.shape)} and {tuple(fake.shape)}: expected (N, C), (M, C), N and M "
            "> 1."
        )
    real, fake = real.double(), fake.double()
    mean = (real.mean(0) - fake.mean(0)).square().sum()
    c_real, c_fake = real.T.cov(), fake.T.cov()
    # The product of two covariances has real, non-negative eigenvalues: their roots sum to the trace of its root.
    roots = torch.linalg.eigvals(c_real @ c_fake).real.clamp(min=0).sqrt().sum()
    return float(mean + c_real.trace() + c_fake.trace() - 2 * roots)


def inception_score(probabilities: torch.Tensor) -> float:
    """exp(E[KL(p(class | volume) || p(class))]) of class probabilities (N, classes): 1 to the number of classes."""
    p = probabilities.double().clamp(min=1e-12)
    return float((p * (p.log() - p.mean(0).log())).sum(1).mean().exp())
