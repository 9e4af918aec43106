"""Runs that no `make figures` makes: too long for it. They say whether budget or recipe is what a run lacked."""

from ..config import RunConfig, make_config
from .plan import run_name

LONG_STEPS = 80_000  # of the paper, one volume each
# of the cycle's weights: what makes F return the density
CYCLES = {"cycle30": dict(cycle_x=30.0), "cycle100": dict(cycle_x=100.0), "cycles30": dict(cycle_x=30.0, cycle_y=30.0)}


def planned(profile: str, seed: int) -> dict[str, RunConfig]:
    """Configurations by name: both faithful recipes at the paper's batch of 1 (quick); other weights of the cycle
    (evening); `adapted` at the paper's size, in larger batches (paper).
    """
    if profile == "quick":
        return {
            run_name("S1", preset, seed, "batch1"): make_config(
                profile, "S1", preset, seed=seed, batch=1, steps=LONG_STEPS, checkpoint_every=5000
            )
            for preset in ("described", "released")
        }
    if profile == "evening":
        return {run_name("S1", "adapted", seed, k): make_config(profile, seed=seed, **v) for k, v in CYCLES.items()}
    if profile == "paper":
        changes = dict(batch=16, steps=800, compute_dtype="bfloat16", checkpoint_every=100)
        return {run_name("S1", "adapted", seed, "batch16"): make_config(profile, seed=seed, **changes)}
    return {}
