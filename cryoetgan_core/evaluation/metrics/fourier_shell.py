"""Fourier shell correlation of two volumes (Harauz and van Heel 1986)."""

import torch


def fourier_shell_correlation(a: torch.Tensor, b: torch.Tensor, observed: torch.Tensor | None = None) -> torch.Tensor:
    """Correlation (N // 2 + 1,) of two volumes (N, N, N) in shells of one Fourier voxel; shell i lies at i / (N voxel
    size).

    Parameters
    ----------
    observed
        (N, N, N // 2 + 1) mask in rfft layout of the Fourier voxels that count, as outside a missing wedge; default
        all.

    Raises ValueError when the volumes are not two equal cubes.
    """
    if a.shape != b.shape or a.ndim != 3 or len(set(a.shape)) != 1:
        raise ValueError(
            f"fourier_shell_correlation: volumes {tuple(a.shape)} and {tuple(b.shape)}; expected two equal cubes."
        )
    n = a.shape[-1]
    f, h = torch.fft.fftfreq(n, 1 / n), torch.fft.rfftfreq(n, 1 / n)
    shell = (f[:, None, None] ** 2 + f[:, None] ** 2 + h**2).sqrt().round().long()
    weight = torch.where((h == 0) | (2 * h == n), 1.0, 2.0).double().expand(n, n, -1)  # the others stand for both signs
    if observed is not None:
        weight = weight * observed
    keep = shell <= n // 2
    fa, fb = torch.fft.rfftn(a.double()), torch.fft.rfftn(b.double())

    def summed(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(n // 2 + 1, dtype=torch.float64).index_add_(0, shell[keep], (values * weight)[keep])

    power = summed(fa.abs() ** 2) * summed(fb.abs() ** 2)
    return summed((fa * fb.conj()).real) / power.sqrt().clamp(min=1e-300)


def resolution_A(fsc: torch.Tensor, voxel_size_A: float, threshold: float = 0.5) -> float:
    """Resolution in angstrom of the last shell before the curve first falls below `threshold`; infinite where it starts
    below.

    The edge of the volumes is taken to be even.
    """
    below = (fsc[1:] < threshold).nonzero()
    last = int(below[0]) if len(below) else len(fsc) - 1
    return 2 * (len(fsc) - 1) * voxel_size_A / last if last else float("inf")
