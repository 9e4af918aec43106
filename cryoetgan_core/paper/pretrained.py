"""Runs that come with the repository."""

from pathlib import Path

from ..reproducibility import paths

FOLDER = paths.ROOT / "weights"
TRAINED_IN = "evening"


def pretrained(name: str) -> Path:
    """Folder of a run that comes with the repository, for `load_run`; weights/README.md describes each.

    Raises ValueError for an unknown name; the message lists the known ones.
    """
    known = sorted(path.parent.name for path in FOLDER.glob("*/weights.safetensors"))
    if name not in known:
        raise ValueError(f"pretrained: {name!r}; expected one of {', '.join(known)} (in {FOLDER}).")
    return FOLDER / name
