"""Figures 4 to 6 and 18: what generations vary in, whether that predicts errors, and metrics against added noise."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .artefacts import COLUMN_WIDTH_IN, PAGE_WIDTH_IN
from .panels import SHORT, _grid, _scale_bar, _show


def uncertainty_maps(found: Sequence[dict]) -> Figure:
    """Figure 4: density, the noise of generations, and what the molecule adds to their standard deviation and to that
    of recordings; one column a class.

    Parameters
    ----------
    found : results of `spread`, one a set. Both rows of what is added share one colour scale.
    """
    label, title, right = 0.95, 0.2, 0.65
    cell = (PAGE_WIDTH_IN - label - right) / max(len(r["classes"]) for r in found)
    rows = (
        ("density", "x", ""),
        ("s.d. of generations\nof empty ice", "noise", "s.d."),
        ("added by the\nmolecule, generated", "generated_signal", "root of the added variance"),
        ("added by the\nmolecule, recorded", "recorded_signal", ""),
    )
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, len(found) * (title + len(rows) * cell + 0.05)))
    width, height = figure.get_size_inches()
    top = title
    for r in found:
        slices, classes = r["slices"], r["classes"]
        axes = _grid(figure, len(rows), len(classes), label, top, cell)
        largest = max(
            float(np.percentile(np.abs(slices[f"{kind}_signal"]), 99.5)) for kind in ("generated", "recorded")
        )
        limits = {
            "x": (0.0, float(np.percentile(slices["x"], 99.7))),
            "noise": (0.0, 1.5),
            "generated_signal": (-largest, largest),
            "recorded_signal": (-largest, largest),
        }
        colours = {"x": "gray", "noise": "magma", "generated_signal": "RdBu_r", "recorded_signal": "RdBu_r"}
        for k, (text, name, unit) in enumerate(rows):
            for c, axis in enumerate(axes[k]):
                image = _show(axis, slices[name][c], limits[name], cmap=colours[name])
            axes[k, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
            if unit:
                high = 2 if name == "generated_signal" else 1
                x, y = label + len(classes) * cell + 0.05, height - top - (k + high) * cell
                place = (x / width, y / height, 0.07 / width, 0.96 * high * cell / height)
                bar = figure.colorbar(image, cax=figure.add_axes(place))
                bar.set_label(unit, fontsize=6)
                bar.ax.tick_params(labelsize=5, length=2)
        for c, name in enumerate(classes):
            axes[0, c].set_title(SHORT.get(name, name), fontsize=6, pad=2)
        _scale_bar(axes[0, 0], r["voxel_size_A"])
        name_of_set = dict(fontsize=7, fontweight="bold", va="bottom")
        figure.text(0.005, 1 - (top - 0.02) / height, r["config"]["dataset"], **name_of_set)
        top += len(rows) * cell + title + 0.05
    return figure


def reliability_curves(found: Mapping[str, dict]) -> Figure:
    """Error that recordings have against the error predicted, in bins of voxels; by set, what `spread.reliability`
    gives.
    """
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.6), layout="constrained")
    ends = [v for r in found.values() for v in (*r["predicted"], *r["found"])]
    line = [min(ends) - 0.05, max(ends) + 0.05]
    axis.plot(line, line, color="0.5", ls="--", lw=0.8, label="calibrated")
    for name, r in found.items():
        slope = np.polyfit(r["predicted"], r["found"], 1)[0]
        label = f"{name}: mean deviation {r['ence']:.1%}, slope {slope:.2f}"
        axis.plot(r["predicted"], r["found"], "o-", ms=3, lw=0.8, label=label)
    unit = "(unit: s.d. of the real set)"
    axis.set(xlabel=f"predicted s.d. of a voxel {unit}", ylabel=f"r.m.s. error of a recording\n{unit}")
    axis.set(xlim=line, ylim=line)
    axis.set_aspect("equal")
    axis.legend(frameon=False, fontsize=6, loc="lower right")
    return figure


def noise_sweep(table: pd.DataFrame, metric: str, label: str, floor: float, paper: dict[float, float]) -> Figure:
    """Figures 5 and 6: a metric against the noise added to the density maps, and below it the paper's values.

    Parameters
    ----------
    table : columns noise_level, seed and the metric.
    floor : the metric of another draw of real subtomograms against the real test half.
    paper : noise level to the paper's value: another feature network, hence a panel of its own.
    """
    figure, (axis, below) = plt.subplots(
        2, 1, sharex=True, height_ratios=(2.2, 1), figsize=(COLUMN_WIDTH_IN, 3.1), layout="constrained"
    )
    for seed, group in table.groupby("seed"):
        axis.plot(group["noise_level"], group[metric], ".", ms=5, alpha=0.7, label=f"draw and seed {seed}")
    mean = table.groupby("noise_level")[metric].mean()
    axis.plot(mean.index, mean, color="0.2", lw=1, zorder=0, label="mean")
    axis.axhline(floor, color="0.5", ls="--", lw=0.8, label="real, another draw")
    if metric == "fid":
        axis.set_yscale("log")
        axis.set_ylim(bottom=floor / 2)
    axis.set_ylabel(f"{label},\nC3D features")
    below.plot(list(paper), list(paper.values()), "k*-", ms=5, lw=0.6)
    below.set_ylim(0, 1.15 * max(paper.values()))
    below.set_ylabel(f"{label},\npaper (ImageNet)")
    below.set_xlabel("s.d. of noise added to the density (protein = 1)")
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
    return figure
