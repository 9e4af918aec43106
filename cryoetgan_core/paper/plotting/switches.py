"""Ten trainings of each switch on two data draws (`paper.switches`): strips and the table of what they resolve."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..switches import failures, resolved, switch_name
from .artefacts import COLUMN_WIDTH_IN


def switch_strips(results: Mapping[str, dict], labels: Mapping[str, str], draws: tuple[int, ...]) -> Figure:
    """Accuracy on real of every training, one column a variant, its draws side by side with their medians.

    Parameters
    ----------
    results : by `switch_name`, of every variant on every draw.
    labels : variant to how it is written.
    """
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.6), layout="constrained")
    for k, variant in enumerate(labels):
        for d, draw in enumerate(draws):
            rows = results[switch_name(variant, draw)]["rows"]
            values = [row["on_real"] for row in rows if "on_real" in row]
            middle = k + (d - (len(draws) - 1) / 2) * 0.8 / len(draws)
            across = middle + 0.05 * (np.arange(len(values)) % 5 - 2)  # side by side, so that none hides another
            label = f"{draw}" if k == 0 else None
            axis.plot(across, values, "o", ms=2.6, color=f"C{d}", label=label)
            axis.plot([middle - 0.14, middle + 0.14], [np.median(values)] * 2, color="0.2", lw=1.2)
    classes = len(next(iter(results.values()))["classes"])
    axis.axhline(100 / classes, color="0.6", ls=":", lw=0.8)
    axis.set(ylabel="accuracy on real (%)", ylim=(0, 100))
    axis.set_xticks(range(len(labels)), list(labels.values()))
    axis.tick_params(axis="x", labelsize=6)
    axis.legend(title="data draw", frameon=False, ncols=2, fontsize=6, title_fontsize=6, loc="lower right")
    return figure


def switch_table(
    results: Mapping[str, dict], labels: Mapping[str, str], draws: tuple[int, ...], metrics: tuple[str, ...]
) -> pd.DataFrame:
    """Median and range over the trainings of each draw, failures (in all and by draw), and whether each metric
    differs from that of the first variant (`switches.resolved`; "-" where not).
    """

    def values(variant: str, metric: str) -> list[list[float]]:
        """One list a draw; a training that diverged has none."""
        return [[row[metric] for row in results[switch_name(variant, draw)]["rows"] if metric in row] for draw in draws]

    first, table = next(iter(labels)), []
    for variant, label in labels.items():
        row: dict[str, object] = {"variant": label}
        for draw, found in zip(draws, values(variant, "on_real"), strict=True):
            low, high = (f"{edge:.0f}" for edge in (min(found), max(found)))
            row[f"on real (%), draw {draw}"] = f"{np.median(found):.0f} [{low}, {high}]"
        failed = [
            failures([row.get("on_real", float("nan")) for row in found["rows"]], len(found["classes"]))
            for found in (results[switch_name(variant, draw)] for draw in draws)
        ]
        many = sum(len(results[switch_name(variant, draw)]["rows"]) for draw in draws)
        row["failed"] = f"{sum(failed)} of {many} ({' + '.join(map(str, failed))})"
        for metric in ("on_real", *metrics):
            name = "on real" if metric == "on_real" else metric
            if variant == first:
                row[f"{name}: differs"] = "reference"
                continue
            told, _ = resolved(values(variant, metric), values(first, metric))
            up = np.median(values(variant, metric)[0]) > np.median(values(first, metric)[0])
            row[f"{name}: differs"] = ("higher" if up else "lower") if told else "–"
        table.append(row)
    return pd.DataFrame(table)
