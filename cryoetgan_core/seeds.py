"""Random streams by name. Library code never seeds globally."""

import zlib

import torch


def stream(seed: int, *purpose: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a random generator named by its purpose; the same seed and names give the same stream everywhere."""
    key = zlib.crc32("/".join(map(str, purpose)).encode())
    return torch.Generator(device=device).manual_seed((seed << 32) + key)
