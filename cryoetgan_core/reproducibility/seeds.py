"""Random streams by name. Library code never seeds globally."""

import hashlib

import torch


def stream(seed: int, *purpose: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a random generator named by its purpose; the same seed and names give the same stream everywhere.

    Seed and names are hashed together: torch's CPU generator keeps only the low 32 bits of the number it is given.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
