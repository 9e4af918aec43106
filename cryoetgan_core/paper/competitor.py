"""A modern competitor: unpaired translation by flow matching with minibatch optimal transport (Tong et al. 2024, TMLR;
library torchcfm).

A flow carries densities to subtomograms. It cannot be trained on pairs, since there are none: each batch of densities
and of subtomograms is coupled by optimal transport. Needs `pip install torchcfm`.
"""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..build import Scaling
from ..config import RunConfig
from ..evaluation.compare import told_apart
from ..evaluation.downstream import benchmark
from ..reproducibility.seeds import stream
from .case import Case
from .proof import HEADLINE_SNR, proof_config, small_probes
from .record import described
from .simulated_sets import simulated_domains

OT_FLOW = "flow matching with optimal transport"
TRAINED, BATCH = 550, 32  # steps, ten minutes of a core: five times what the quick profile gives CryoETGAN; volumes
RATE, STEPS = 1e-3, 20  # of Adam; of Euler's method
NOISE = 1.0  # s.d. added to the z-scored densities, so that one density has many subtomograms


class Velocity(nn.Module):
    """A small 3-D U-Net for the velocity at (t, volume): three levels of w, 2w, 4w channels; time enters each as a
    scale and an offset.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        w = width
        self.first, self.down1, self.down2 = (
            nn.Conv3d(1, w, 3, padding=1),
            nn.Conv3d(w, 2 * w, 4, 2, 1),
            nn.Conv3d(2 * w, 4 * w, 4, 2, 1),
        )
        self.middle = nn.Conv3d(4 * w, 4 * w, 3, padding=1)
        self.up1, self.up2 = nn.ConvTranspose3d(4 * w, 2 * w, 4, 2, 1), nn.ConvTranspose3d(4 * w, w, 4, 2, 1)
        self.last = nn.Conv3d(2 * w, 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.norms = nn.ModuleList(nn.GroupNorm(8, c) for c in (w, 2 * w, 4 * w, 4 * w, 2 * w, w))
        self.times = nn.Sequential(
            nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 2 * sum(n.num_channels for n in self.norms))
        )

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Velocity (B, 1, D, H, W) at times `t` (B,) and volumes `x` of the same shape; sides are multiples of 4."""
        waves = t[:, None] * torch.pi * 2.0 ** torch.arange(8)
        parts = self.times(torch.cat([waves.sin(), waves.cos()], 1)).split([2 * n.num_channels for n in self.norms], 1)
        times = iter(zip(self.norms, parts, strict=True))

        def act(h: torch.Tensor) -> torch.Tensor:
            norm, part = next(times)
            scale, offset = part[..., None, None, None].chunk(2, 1)
            return F.silu(norm(h) * (1 + scale) + offset)

        a = act(self.first(x))
        b = act(self.down1(a))
        c = act(self.middle(act(self.down2(b))))
        b = torch.cat([act(self.up1(c)), b], 1)
        return self.last(torch.cat([act(self.up2(b)), a], 1))


def make_competitor(config: RunConfig, trained: int = TRAINED) -> dict:
    """Train the flow for some steps on S1 and measure it as Table 7 measures every source.

    Raises ImportError where torchcfm is not installed.
    """
    try:
        from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher
    except ImportError as missing:
        raise ImportError("The competitor needs torchcfm: pip install torchcfm") from missing
    domains = simulated_domains(config)
    x, y = domains.volumes("X_train"), domains.volumes("Y_train")
    scaling, rng = Scaling.of(x, y, 0.0), stream(config.seed, "competitor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        np.random.seed(config.seed)  # torchcfm couples by NumPy's global generator
        network, matcher = Velocity(), ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
        optimizer = torch.optim.Adam(network.parameters(), RATE)
        start, batch = time.process_time(), min(BATCH, len(x))
        for _ in range(trained):
            sources = scaling.x(x[torch.randint(len(x), (batch,), generator=rng)])[:, None]
            sources = sources + NOISE * torch.randn(sources.shape, generator=rng)
            targets = scaling.y(y[torch.randint(len(y), (batch,), generator=rng)])[:, None]
            t, between, velocity = matcher.sample_location_and_conditional_flow(sources, targets)
            loss = (network(t, between) - velocity).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    made = {
        half: _carried(network, scaling.x(domains.volumes(half)), stream(config.seed, "carried", half))
        for half in ("X_train", "X_test")
    }
    rows = benchmark({OT_FLOW: made["X_train"]}, domains, seed=config.seed, **small_probes(config))
    metrics = {OT_FLOW: told_apart(scaling.y(domains.volumes("Y_test")), made["X_test"])}
    took = {"seconds_training": round(time.process_time() - start, 1), "steps": trained, "loss": float(loss.detach())}
    return {"rows": rows, "metrics": metrics} | took | described(config, "paper.competitor", domains)


@torch.no_grad()
def _carried(network: Velocity, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Densities (N, D, D, D), z-scored, carried to subtomograms by Euler's method."""
    out = []
    for part in x.split(64):
        volumes = part[:, None] + NOISE * torch.randn(part[:, None].shape, generator=generator)
        for step in range(STEPS):
            volumes = volumes + network(torch.full((len(part),), step / STEPS), volumes) / STEPS
        out.append(volumes[:, 0])
    return torch.cat(out)


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The result by name."""
    config = proof_config(profile, "S1", HEADLINE_SNR, seed)
    trained = TRAINED
    if profile == "smoke":
        config, trained = replace(config, box=20), 3  # sides of a multiple of 4
    return {f"competitor_S1_seed{seed}": Case(config, partial(make_competitor, trained=trained))}
