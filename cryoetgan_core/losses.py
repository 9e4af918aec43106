"""The objective's terms: pure functions of scores and volumes. The step weighs, sums and descends.

Scores are a critic's patches ``(B, 1, d, h, w)``; volumes are ``(B, 1, D, H, W)``.
"""

from collections.abc import Callable
from functools import cache

import torch

ADVERSARIAL = ("wasserstein", "least_squares")
RADIAL_BINS, ANGULAR_BINS = 12, 9  # of `log_power_loss`
FLOOR = 1e-6  # added to both powers, so that frequencies which were filtered away do not count


def critic_loss(real: torch.Tensor, fake: torch.Tensor, kind: str, real_label: float = 1.0) -> torch.Tensor:
    """What the critic descends, given its scores of real and of generated volumes.

    "wasserstein": E[D(fake)] - E[D(real)] (Arjovsky et al. 2017), valid only under a Lipschitz constraint;
    "least_squares": E[(D(real) - real_label)^2] + E[D(fake)^2] (Mao et al. 2017), halved; the released code has
    real_label 0.8.
    """
    if kind == "wasserstein":
        return fake.mean() - real.mean()
    return 0.5 * ((real - real_label).square().mean() + fake.square().mean())


def generator_loss(fake: torch.Tensor, kind: str, real_label: float = 1.0) -> torch.Tensor:
    """What the generator descends, given the critic's scores of its volumes.

    "wasserstein": -E[D(fake)]; "least_squares": E[(D(fake) - real_label)^2], not halved, as released.
    """
    if kind == "wasserstein":
        return -fake.mean()
    return (fake - real_label).square().mean()


def cycle_loss(volume: torch.Tensor, returned: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference between a volume and what came back through both generators (Zhu et al. 2017)."""
    return (volume - returned).abs().mean()


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    mix: torch.Tensor,
    norm: str = "volume",
) -> torch.Tensor:
    """Squared deviation from 1 of the critic's gradient norm on real-fake mixtures (Gulrajani et al. 2017).

    The gradient is that of a volume's mean patch score.

    Parameters
    ----------
    mix
        Tensor (B, 1, 1, 1, 1), uniform on [0, 1): the share of `real` in each mixture.
    norm
        "volume", the norm over all voxels of a volume; or "depth", the released code's: over the depth axis alone, then
        averaged.
    """
    point = (mix * real + (1 - mix) * fake).detach().requires_grad_(True)
    gradient = torch.autograd.grad(critic(point).mean(dim=(1, 2, 3, 4)).sum(), point, create_graph=True)[0]
    axes = (1, 2, 3, 4) if norm == "volume" else (2,)
    # The epsilon (absent from the released code) keeps the root's own gradient finite where the critic is flat.
    length = (gradient.square().sum(dim=axes) + 1e-12).sqrt()
    return (length - 1).square().mean()


def zero_centred_penalty(critic: Callable[[torch.Tensor], torch.Tensor], volumes: torch.Tensor) -> torch.Tensor:
    """Mean squared gradient norm of the critic's mean patch score at `volumes`: R1 on real, R2 on generated ones
    (Mescheder et al. 2018).
    """
    point = volumes.detach().requires_grad_(True)
    gradient = torch.autograd.grad(critic(point).mean(dim=(1, 2, 3, 4)).sum(), point, create_graph=True)[0]
    return gradient.square().sum(dim=(1, 2, 3, 4)).mean()


def log_power_loss(
    real: torch.Tensor, fake: torch.Tensor, *, over_all: Callable[[torch.Tensor], torch.Tensor] = lambda power: power
) -> torch.Tensor:
    """Mean squared log ratio of the two batches' power spectra, over spatial frequency and angle to the beam (z).

    The angle is taken within the plane across the tilt axis (y), where the missing wedge lies. Not in the paper.

    Parameters
    ----------
    over_all
        Makes the mean power of a whole batch from that of these volumes, where other processes hold the rest.
    """
    place, index, count = _power_bins(real.shape[-1], real.device)

    def log_power(volumes: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfftn(volumes, dim=(-3, -2, -1), norm="ortho").abs().square().mean(dim=(0, 1))
        power = over_all(power)
        total = torch.zeros(len(count), device=real.device, dtype=power.dtype).index_add_(
            0, index, power.flatten()[place]
        )
        return (total / count + FLOOR).log()

    return (log_power(real) - log_power(fake)).square().mean()


@cache  # for good: a CUDA graph reads this memory
def _power_bins(n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For the bins of `log_power_loss` that hold a voxel of an rfft of `n`^3: which voxels count, flattened (V,), the
    bin of each (V,), and the voxels of each bin.
    """
    f, half = torch.fft.fftfreq(n, device=device), torch.fft.rfftfreq(n, device=device)
    kz, ky, kx = f[:, None, None], f[None, :, None], half[None, None, :]
    radius = (kz**2 + ky**2 + kx**2).sqrt()
    angle = torch.atan2(kx.abs(), kz.abs()) / (torch.pi / 2)  # 0 along the beam, 1 across it
    angle = angle.expand_as(radius)
    shell = (radius / 0.5 * RADIAL_BINS).long()
    place = ((radius > 0) & (shell < RADIAL_BINS)).flatten().nonzero()[:, 0]
    index = (shell * ANGULAR_BINS + (angle * ANGULAR_BINS).long().clamp(max=ANGULAR_BINS - 1)).flatten()[place]
    _, index, count = index.unique(return_inverse=True, return_counts=True)
    return place, index, count.to(torch.get_default_dtype())
