"""How an artefact is written: PNG and PDF, or CSV, each with a JSON sidecar that says where it comes from."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .. import paths
from ..provenance import provenance

COLUMN_WIDTH_IN = 3.35  # one column of a journal page
PAGE_WIDTH_IN = 6.9


def use_style() -> None:
    """Fixed style of every figure: small sans-serif type that stays readable at column width, TrueType in the PDF."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 110, "savefig.dpi": 300, "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7, "legend.fontsize": 6,
            "xtick.labelsize": 6, "ytick.labelsize": 6, "pdf.fonttype": 42, "image.interpolation": "nearest", "image.cmap": "gray",
        }
    )  # fmt: skip


def _sidecar(path: Path, runs: dict[str, dict]) -> None:
    """Write `path`.json: what made the artefact, and for each run it was drawn from, its configuration's hash, seed, commit and wall time."""
    record = {
        "artefact": path.name,
        "drawn_with": provenance(),
        "runs": {
            name: {
                "config_hash": run["config_hash"], "seed": run["config"]["seed"], "preset": run["config"]["preset"],
                "seconds_training": run["seconds_training"], "seconds_evaluation": run["seconds_evaluation"],
                "provenance": run["provenance"],
            }
            for name, run in runs.items()
        },
    }  # fmt: skip
    path.with_name(path.name + ".json").write_text(json.dumps(record, indent=1) + "\n")


def savefig(figure: Figure, name: str, profile: str, runs: dict[str, dict]) -> None:
    """Write `name`.png, .pdf and .json to the profile's figure folder; the same figure gives the same bytes."""
    folder = paths.figures(profile)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    _sidecar(folder / name, runs)


def save_table(table: pd.DataFrame, name: str, profile: str, runs: dict[str, dict]) -> None:
    """Write `name`.csv and .json to the profile's figure folder."""
    folder = paths.figures(profile)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    _sidecar(folder / name, runs)
