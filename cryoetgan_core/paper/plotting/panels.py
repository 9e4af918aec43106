"""Panels of the paper's figures. Volumes arrive as slices ``(classes, examples, D, W)``."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .artefacts import COLUMN_WIDTH_IN, PAGE_WIDTH_IN

SHORT = {
    "proteasome": "26S proteasome", "ribosome": "80S ribosome", "tric": "TRiC", "glutamate_dehydrogenase": "GDH",
    "dnab": "DnaB–λP", "t20s": "T20S", "insulin_receptor": "insulin receptor",
}  # fmt: skip


def _show(axis: Axes, image: np.ndarray, limits: tuple[float, float] | None = None, **options: object) -> object:
    low, high = limits or np.percentile(image, [0.5, 99.5])
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_linewidth(0.4)
    return axis.imshow(image, vmin=low, vmax=high, origin="lower", **options)


def _scale_bar(axis: Axes, voxel_size_A: float, length_A: float = 100.0) -> None:
    """Draw a white bar of `length_A` in the lower left corner, its length above it."""
    axis.plot([1, 1 + length_A / voxel_size_A], [1.2, 1.2], color="white", linewidth=1.6, solid_capstyle="butt")
    axis.text(1, 2.0, f"{length_A:g} Å", color="white", fontsize=4.5, va="bottom", ha="left")


def _grid(figure: Figure, rows: int, columns: int, left: float, top: float, cell: float) -> np.ndarray:
    """Square axes (rows, columns) of `cell` inches with hairline gaps; `left` and `top` in inches from the figure's
    corner.
    """
    width, height = figure.get_size_inches()
    axes = np.empty((rows, columns), dtype=object)
    for r in range(rows):
        for c in range(columns):
            x, y = left + c * cell, height - top - (r + 1) * cell
            axes[r, c] = figure.add_axes((x / width, y / height, 0.96 * cell / width, 0.96 * cell / height))
    return axes


def contact_sheet(
    groups: Sequence[tuple[Sequence[str], float, Sequence[tuple[str, np.ndarray, bool]]]],
    names: Mapping[str, str] = SHORT,
) -> Figure:
    """Rows of slices, the examples of a class side by side, for one or more sets below each other.

    Parameters
    ----------
    groups
        for each set (classes, voxel size in angstrom, rows); a row is (label, slices (classes, examples, D, W),
        is_density). Densities share one grey scale a row; subtomograms, z-scored as a set, run from -3 to 3 standard
        deviations. The bar is 100 A.
    names
        how classes are written, where not as they are; a user's own classes ({}) are.
    """
    label = 0.75
    cell = (PAGE_WIDTH_IN - label) / max(len(classes) * rows[0][1].shape[1] for classes, _, rows in groups)
    narrow = any(cell * rows[0][1].shape[1] < 0.8 for _, _, rows in groups)  # too narrow for names of two words
    title = 0.3 if narrow else 0.2
    figure = plt.figure(
        figsize=(PAGE_WIDTH_IN, sum(title + len(rows) * cell for _, _, rows in groups) + 0.05 * len(groups))
    )
    top = title
    for classes, voxel_size_A, rows in groups:
        examples = rows[0][1].shape[1]
        axes = _grid(figure, len(rows), len(classes) * examples, label, top, cell)
        for r, (text, slices, is_density) in enumerate(rows):
            limits = (0.0, float(np.percentile(slices, 99.7))) if is_density else (-3.0, 3.0)
            for c, axis in enumerate(axes[r]):
                _show(axis, slices[c // examples, c % examples], limits)
            axes[r, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
        for c, name in enumerate(classes):
            text = names.get(name, name)
            text = text.replace(" ", "\n") if narrow else text
            axes[0, c * examples].set_title(text, fontsize=5 if narrow else 6, loc="left", pad=2)
        _scale_bar(axes[0, 0], voxel_size_A)
        top += len(rows) * cell + title + 0.05
    return figure


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
        _name_of_set(figure, r, top)
        top += len(rows) * cell + title + 0.05
    return figure


def _name_of_set(figure: Figure, result: dict, top: float) -> None:
    """Write the set's name left of its first row, `top` inches below the figure's upper edge."""
    height = figure.get_size_inches()[1]
    figure.text(
        0.005, 1 - (top - 0.02) / height, result["config"]["dataset"], fontsize=7, fontweight="bold", va="bottom"
    )


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


def summary(found: Sequence[dict]) -> Figure:
    """All classes of several sets in one strip, one column a class: density, one generation, the mean of many, the mean
    of as many recordings, one recording. `found` are results of `spread`.
    """
    label, title, gap = 0.78, 0.27, 0.1
    rows = (
        ("density", "x"),
        ("generated", "generated"),
        ("mean of 40\ngenerations", "generated_mean"),
        ("mean of 40\nrecordings", "recorded_mean"),
        ("recorded", "recorded"),
    )
    cell = (PAGE_WIDTH_IN - label - gap * (len(found) - 1)) / sum(len(r["classes"]) for r in found)
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, title + len(rows) * cell + 0.02))
    left = label
    for r in found:
        slices, classes = r["slices"], r["classes"]
        axes = _grid(figure, len(rows), len(classes), left, title, cell)
        for k, (text, name) in enumerate(rows):
            for c, axis in enumerate(axes[k]):
                _show(axis, slices[name][c], _grey(slices, name))
            if r is found[0]:
                axes[k, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
        for c, name in enumerate(classes):
            axes[0, c].set_title(SHORT.get(name, name).replace(" ", "\n"), fontsize=5.5, pad=2)
        _scale_bar(axes[0, 0], r["voxel_size_A"])
        left += len(classes) * cell + gap
    return figure


def _grey(slices: Mapping[str, np.ndarray], name: str) -> tuple[float, float]:
    """Grey scale of slices of `spread`: densities from 0, means over their own range, and single subtomograms from -3
    to 3 standard deviations of the set.
    """
    if name.startswith("x"):
        return 0.0, float(np.percentile(slices["x"], 99.7))
    if "mean" in name:
        low, high = np.percentile(slices["recorded_mean"], [0.5, 99.7])
        return float(low), float(high)
    return -3.0, 3.0


def translated(found: Sequence[dict], single: Sequence[Mapping[str, np.ndarray]]) -> Figure:
    """Figure 2: a density of each class, one generation, the mean of many, and recordings of the same density in the
    same pose; across (xy) and along the beam (xz, z upwards).

    Parameters
    ----------
    found : results of `spread`, one a set.
    single : for each set, xy slices (classes, D, D) of generations by other recipes, by name; one grey panel a class.
    """
    label, title = 0.95, 0.2
    columns = 2 * max(len(r["classes"]) for r in found)
    cell = (PAGE_WIDTH_IN - label) / columns
    rows = (
        ("density", "x"),
        ("one generation", "generated"),
        ("mean of 40\ngenerations", "generated_mean"),
        ("mean of 40\nrecordings", "recorded_mean"),
        ("one recording", "recorded"),
    )
    counts = [len(rows) + len(others) for others in single]
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, sum(title + n * cell + 0.1 for n in counts)))
    top = title
    for r, others, n in zip(found, single, counts, strict=True):
        slices, classes = r["slices"], r["classes"]
        axes = _grid(figure, n, 2 * len(classes), label, top, cell)
        for k, (text, name) in enumerate(rows):
            for c in range(len(classes)):
                _show(axes[k, 2 * c], slices[name][c], _grey(slices, name))
                _show(axes[k, 2 * c + 1], slices[f"{name}_xz"][c], _grey(slices, name))
            axes[k, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
        for k, (text, made) in enumerate(others.items(), start=len(rows)):
            for c in range(len(classes)):
                _show(axes[k, 2 * c], made[c], (-3.0, 3.0))
                axes[k, 2 * c + 1].set_axis_off()
            axes[k, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
        for c, name in enumerate(classes):
            axes[0, 2 * c].set_title(f"{SHORT.get(name, name)}", fontsize=6, loc="left", pad=2)
        for axis, plane in zip(axes[0, :2], ("xy", "xz"), strict=True):
            axis.text(0.97, 0.95, plane, transform=axis.transAxes, color="white", fontsize=5, ha="right", va="top")
        _scale_bar(axes[0, 0], r["voxel_size_A"])
        _name_of_set(figure, r, top)
        top += n * cell + title + 0.1
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


def overview(run: dict, found: dict) -> Figure:
    """Figure 1: both cycles as a scheme with the losses on their arrows, and the loss curves of a run.

    Parameters
    ----------
    run : result of the run, for its losses.
    found : result of `spread` of the same run, for its volumes.
    """
    slices, config = found["slices"], run["config"]
    k = found["classes"].index("ribosome") if "ribosome" in found["classes"] else 0
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, 4.6))
    width, height = figure.get_size_inches()
    side, lefts, tops = 0.85, (0.75, 3.0, 5.25), (0.5, 1.95)
    chains = (
        (("x", "x: density"), ("generated", "G(x)"), ("cycled", "F(G(x))")),
        (("real", "y: subtomogram"), ("restored", "F(y)"), ("cycled_y", "G(F(y))")),
    )
    at = {}
    for top, chain in zip(tops, chains, strict=True):
        for left, (name, text) in zip(lefts, chain, strict=True):
            place = (left / width, (height - top - side) / height, side / width, side / height)
            is_density = name in ("x", "cycled", "restored")
            _show(figure.add_axes(place), slices[name][k], None if is_density else (-3.0, 3.0))
            figure.text(
                (left - 0.06) / width, (height - top - side / 2) / height, text, ha="right", va="center", fontsize=6.5,
                rotation=90,
            )  # fmt: skip
            at[name] = (left, height - top - side)

    def arrow(start: tuple[float, float], end: tuple[float, float], **options: object) -> None:
        style = {"arrowstyle": "-|>", "color": "0.2", "lw": 1.0, "shrinkA": 0, "shrinkB": 0} | options
        ends = [(x / width, y / height) for x, y in (end, start)]
        figure.add_artist(
            plt.Annotation("", *ends, xycoords="figure fraction", textcoords="figure fraction", arrowprops=style)
        )

    def note(x: float, y: float, text: str, **options: object) -> None:
        figure.text(x / width, y / height, text, **{"ha": "center", "va": "center", "fontsize": 6.5} | options)

    for names, steps in ((("x", "generated", "cycled"), "GF"), (("real", "restored", "cycled_y"), "FG")):
        for a, b, step in zip(names, names[1:], steps, strict=False):
            (x0, y0), (x1, _) = at[a], at[b]
            arrow((x0 + side + 0.05, y0 + side / 2), (x1 - 0.25, y0 + side / 2))
            note((x0 + side + x1 - 0.2) / 2, y0 + side / 2 + 0.12, step, fontsize=8, fontweight="bold")
    cycles = ((tops[0], 1, "x", "cycled", "|F(G(x)) − x|", "cycle_x"),)
    cycles += ((tops[1], -1, "real", "cycled_y", "|G(F(y)) − y|", "cycle_y"),)
    for _, up, a, b, text, key in cycles:
        edge = side + 0.03 if up > 0 else -0.03
        (x0, y0), (x1, _) = at[a], at[b]
        used = bool(config[key])
        colour = "C0" if used else "0.65"
        start, end = (x1 + side / 2, y0 + edge), (x0 + side / 2, y0 + edge)
        arrow(start, end, color=colour, arrowstyle="<|-|>", connectionstyle=f"bar,fraction={0.04 * up}")
        weight = f"cycle loss: {config[key]:g} {text}" if used else f"cycle loss {text}: weight 0 in this recipe"
        note((x0 + x1 + side) / 2, y0 + edge + 0.28 * up, weight, color=colour)
    for critic, a, b, share, text in (
        ("$D_Y$", "generated", "real", 0.62, "real or\ngenerated?"),
        ("$D_X$", "x", "restored", 0.62, "density\nor F(y)?"),
    ):
        (x0, y0), (x1, y1) = at[a], at[b]
        start = (x0 + (0 if a == "generated" else side), y0 - 0.02)
        end = (x1 + (side if a == "generated" else 0), y1 + side + 0.02)
        arrow(start, end, color="C1", arrowstyle="-", ls="--")
        x, y = (s + share * (e - s) for s, e in zip(start, end, strict=True))
        note(x, y, critic, bbox={"boxstyle": "circle,pad=0.25", "fc": "white", "ec": "C1"})
        note(x + (-0.55 if a == "generated" else 0.55), y - 0.02, text, color="C1", fontsize=5.5)
    log = pd.DataFrame(run["log"])
    labels = {"critic": "$D_{}$", "adversarial": "against $D_{}$", "cycle": "{}"}
    panels = (("critic loss", "critic"), ("generator loss", "adversarial"), ("cycle loss", "cycle"))
    for i, (title, prefix) in enumerate(panels):
        axis = figure.add_axes((0.075 + 0.325 * i, 0.095, 0.245, 0.17))
        for column in (c for c in log if c.startswith(prefix)):
            smooth, name = log[column].rolling(5, min_periods=1).mean(), column.split("_")[-1]
            label = f"|F(G({name})) − {name}|" if prefix == "cycle" else labels[prefix].format(name)
            axis.plot(log["step"], smooth, lw=0.9, label=label)
        axis.set(xlabel="step", title=title + (" (s.d. of x)" if prefix == "cycle" else " (score units)"))
        if prefix == "cycle":
            axis.axhline(run["constant_cycle"], color="0.5", ls="--", lw=0.8, label="best constant in place of F(G(x))")
        low, high = axis.get_ylim()
        axis.set_ylim(low - (0.8 if prefix == "cycle" else 0.45) * (high - low), high)  # room for the legend
        axis.legend(frameon=False, loc="lower center", ncols=1 if prefix == "cycle" else 2, fontsize=5.5)
    return figure
