"""The rule that chooses between measured noise and real background, fixed before any result was seen: real volumes
held out from the train half decide.
"""

import torch

from .metrics import angular_log_ratio, angular_power_spectra, voxel_moments

# power, in units of the variance of the voxels, below which a frequency does not count: files may be low-passed
FLOOR = 1e-3


def distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """How far volumes `fake` (M, D, D, D) are from held-out real ones (N, D, D, D): two distances added, both cheap and
    without a trained network.

    The root mean square log ratio of their power over frequency and tilt, and that of their standard deviation,
    skewness and kurtosis in units of the spread between real volumes.
    """
    angular = angular_log_ratio(
        angular_power_spectra(real).mean(0) + FLOOR, angular_power_spectra(fake).mean(0) + FLOOR
    )
    wanted, found = voxel_moments(real)[:, 1:], voxel_moments(fake)[:, 1:]
    return angular + float(((found.mean(0) - wanted.mean(0)) / wanted.std(0)).square().mean().sqrt())
