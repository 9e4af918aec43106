"""How an artefact is written: PNG and PDF, or CSV, each with a JSON sidecar that says where it comes from."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ...reproducibility import paths
from ...reproducibility.provenance import code_hash, provenance

COLUMN_WIDTH_IN = 3.35  # one column of a journal page
PAGE_WIDTH_IN = 6.9


def use_style() -> None:
    """Fixed style of every figure: small sans-serif type that stays readable at column width, TrueType in the PDF."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.dpi": 110, "savefig.dpi": 300, "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7,
            "legend.fontsize": 6,
            "xtick.labelsize": 6, "ytick.labelsize": 6, "pdf.fonttype": 42, "image.interpolation": "nearest",
            "image.cmap": "gray",
        }
    )  # fmt: skip


def _sidecar(path: Path, results: Mapping[str, dict], module: str) -> None:
    """Write `path`.json: what drew the artefact, and of each result in it configuration, data, code, commit and
    machine.

    An artefact that no result stands behind names the module whose code it shows.
    """
    if not results and not module:
        raise ValueError(f"{path.name}: give the results that it was drawn from, or the module whose code it shows")
    keys = (
        "config_hash",
        "data_hash",
        "classifier_hash",
        "module",
        "code_hash",
        "seconds_training",
        "seconds",
        "provenance",
    )
    record = {
        "artefact": path.name,
        "drawn_with": provenance(),
        "made_by": {"module": module, "code_hash": code_hash(module)} if module else None,
        "results": {
            name: {"seed": r["config"]["seed"], "preset": r["config"]["preset"]} | {k: r[k] for k in keys if k in r}
            for name, r in results.items()
        },
    }  # fmt: skip
    path.with_name(path.name + ".json").write_text(json.dumps({k: v for k, v in record.items() if v}, indent=1) + "\n")


def savefig(figure: Figure, name: str, profile: str, results: Mapping[str, dict], *, module: str = "") -> None:
    """Write `name`.png, .pdf and .json to the profile's figure folder; the same figure gives the same bytes.

    `results` are those that it was drawn from; `module` is the one whose code it shows where there are none.
    """
    folder = paths.figures(profile)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    _sidecar(folder / name, results, module)


def save_table(table: pd.DataFrame, name: str, profile: str, results: Mapping[str, dict]) -> None:
    """Write `name`.csv and .json to the profile's figure folder."""
    folder = paths.figures(profile)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    _sidecar(folder / name, results, "")
