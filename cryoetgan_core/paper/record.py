"""What a result says of itself. Kept apart from how results are read: a change there makes no result old."""

import dataclasses

import torch

from ..config import RunConfig
from ..reproducibility.provenance import PHYSICS, array_hash, code_hash, provenance
from ..volumes.domains import Domains

RUNS = "paper.runs"


def code_of(module: str, generator: str) -> str:
    """`code_hash` of a module that made a result with a configuration's `generator`: a run of the paper's one never
    calls the physics.
    """
    return code_hash(module, without=PHYSICS if module == RUNS and generator == "paper" else ())


def is_older(result: dict) -> bool:
    """Whether the code that made a result, or a result that a figure's record names, has changed since."""
    generator = result["config"]["generator"] if "config" in result else result["preset"]
    try:
        return code_of(result["module"], "physics" if generator == "physics" else "paper") != result["code_hash"]
    except ValueError:  # its module is gone
        return True


def described(
    config: RunConfig, module: str, domains: Domains | None = None, classifier: torch.nn.Module | None = None
) -> dict:
    """What a result says of itself.

    Parameters
    ----------
    module : that made it, e.g. "paper.runs"; its code and that of all it imports is hashed.
    domains, classifier : what it was measured on and by.
    """
    found = {
        "config": dataclasses.asdict(config),
        "config_hash": config.hash,
        "module": module,
        "code_hash": code_of(module, config.generator),
    }
    if domains is not None:
        found["data_hash"] = domains.hash
    if classifier is not None:
        found["classifier_hash"] = array_hash(*(v.detach().cpu().numpy() for v in classifier.state_dict().values()))
    return found | {"provenance": provenance()}
