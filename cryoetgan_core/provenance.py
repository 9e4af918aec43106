"""Where a result comes from: commit, versions, hardware."""

import importlib.metadata
import os
import platform
import subprocess

import torch

from .paths import ROOT

PACKAGES = ("torch", "numpy", "matplotlib", "torch-ctf", "gemmi")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def provenance() -> dict[str, object]:
    """Commit (with "+" where the tree differs from it), package versions, processor, threads and GPU."""
    commit = _git("rev-parse", "--short=12", "HEAD") or "none"
    # The results and figures that a run itself rewrites do not make it another version of the code.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!figures")
    return {
        "commit": commit + ("+" if changed else ""),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
