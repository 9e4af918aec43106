"""Panels of the paper's figures. Volumes arrive as slices ``(classes, examples, D, W)``."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .artefacts import COLUMN_WIDTH_IN, PAGE_WIDTH_IN

SHORT = {
    "proteasome": "26S prot.", "ribosome": "80S ribosome", "tric": "TRiC", "membrane": "membrane",
    "aldolase": "aldolase",
    "glutamate_dehydrogenase": "GDH", "dnab": "DnaB–λP", "t20s": "T20S", "apoferritin": "apoferritin",
    "hemagglutinin": "HA",
    "insulin_receptor": "insulin rec.",
}  # fmt: skip


def _show(axis: Axes, image: np.ndarray, limits: tuple[float, float] | None = None, **options: object) -> object:
    low, high = limits or np.percentile(image, [0.5, 99.5])
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_linewidth(0.4)
    return axis.imshow(image, vmin=low, vmax=high, origin="lower", **options)


def _scale_bar(axis: Axes, voxel_size_A: float, length_A: float = 100.0) -> None:
    """Draw a white bar of `length_A` in the lower left corner."""
    axis.plot([1, 1 + length_A / voxel_size_A], [1.2, 1.2], color="white", linewidth=1.6, solid_capstyle="butt")


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
    label, title = 0.75, 0.2
    cell = (PAGE_WIDTH_IN - label) / max(len(classes) * rows[0][1].shape[1] for classes, _, rows in groups)
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
            axes[0, c * examples].set_title(names.get(name, name), fontsize=6, loc="left", pad=2)
        _scale_bar(axes[0, 0], voxel_size_A)
        top += len(rows) * cell + title + 0.05
    return figure


def uncertainty_maps(
    groups: Sequence[tuple[Sequence[str], float, np.ndarray, Sequence[tuple[int, np.ndarray]]]],
) -> Figure:
    """Figure 4: density, and voxelwise standard deviation over repeated generations, one column a class.

    Parameters
    ----------
    groups
        for each set (classes, voxel size in angstrom, density slices (classes, D, W), [(number of generations, standard
        deviation slices (classes, D, W)), ...]). The rows of a set share one colour scale, from 0.
    """
    label, title = 0.85, 0.2
    cell = (PAGE_WIDTH_IN - label - 0.6) / max(len(g[0]) for g in groups)
    figure = plt.figure(
        figsize=(PAGE_WIDTH_IN, sum(title + (1 + len(g[3])) * cell for g in groups) + 0.05 * len(groups))
    )
    width, height = figure.get_size_inches()
    top = title
    for classes, voxel_size_A, density, deviations in groups:
        rows = 1 + len(deviations)
        axes = _grid(figure, rows, len(classes), label, top, cell)
        for c, name in enumerate(classes):
            _show(axes[0, c], density[c], (0.0, float(np.percentile(density, 99.7))))
            axes[0, c].set_title(SHORT.get(name, name), fontsize=6, pad=2)
        highest = float(np.percentile(deviations[0][1], 99.5))
        for r, (_, maps) in enumerate(deviations, start=1):
            images = [_show(axes[r, c], maps[c], (0.0, highest), cmap="magma") for c in range(len(classes))]
        x, y = label + len(classes) * cell + 0.05, height - top - rows * cell
        bar = figure.colorbar(
            images[0], cax=figure.add_axes((x / width, y / height, 0.08 / width, 0.96 * (rows - 1) * cell / height))
        )
        bar.set_label("s.d. (unit: s.d. of the real set)", fontsize=6)
        for axis, text in zip(
            axes[:, 0], ["density", *(f"s.d. of {n}\ngenerations" for n, _ in deviations)], strict=True
        ):
            axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
        _scale_bar(axes[0, 0], voxel_size_A)
        top += rows * cell + title + 0.05
    return figure


def summary(runs: Sequence[dict]) -> Figure:
    """All classes of several runs in one strip, one column a class: density, generated subtomogram, uncertainty map,
    real subtomogram.
    """
    label, title, gap, right = 0.72, 0.2, 0.1, 0.5
    columns = sum(len(run["classes"]) for run in runs)
    cell = (PAGE_WIDTH_IN - label - right - gap * (len(runs) - 1)) / columns
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, title + 4 * cell + 0.05))
    width, height = figure.get_size_inches()
    highest = max(float(np.percentile(run["slices"]["uncertainty_40"], 99.5)) for run in runs)
    left = label
    for run in runs:
        slices, classes = run["slices"], run["classes"]
        axes = _grid(figure, 4, len(classes), left, title, cell)
        for k, name in enumerate(classes):
            _show(axes[0, k], slices["density"][k, 0], (0.0, float(np.percentile(slices["density"], 99.7))))
            _show(axes[1, k], slices["generated"][k, 0], (-3.0, 3.0))
            image = _show(axes[2, k], slices["uncertainty_40"][k, 0], (0.0, highest), cmap="magma")
            _show(axes[3, k], slices["real"][k, 0], (-3.0, 3.0))
            axes[0, k].set_title(SHORT.get(name, name), fontsize=5, pad=2)
        _scale_bar(axes[0, 0], run["voxel_size_A"])
        if left == label:
            for axis, text in zip(
                axes[:, 0], ("density", "generated", "s.d. of 40\ngenerations", "real, other\ninstances"), strict=True
            ):
                axis.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
        left += len(classes) * cell + gap
    x, y = (left - gap + 0.04) / width, (height - title - 3 * cell) / height
    bar = figure.colorbar(image, cax=figure.add_axes((x, y, 0.06 / width, 0.96 * cell / height)))
    bar.set_label("s.d. / real", fontsize=5)
    bar.ax.tick_params(labelsize=5, length=2)
    return figure


def noise_sweep(table: pd.DataFrame, metric: str, label: str, floor: float, paper: dict[float, float]) -> Figure:
    """Figures 5 and 6: a metric against the noise added to the density maps, and below it the paper's values.

    Parameters
    ----------
    table : columns noise_level, seed, value.
    floor : the metric of another draw of real subtomograms against the real test half.
    paper : noise level to the paper's value: another feature network, hence a panel of its own.
    """
    figure, (axis, below) = plt.subplots(
        2, 1, sharex=True, height_ratios=(2.2, 1), figsize=(COLUMN_WIDTH_IN, 3.1), layout="constrained"
    )
    for seed, group in table.groupby("seed"):
        axis.plot(group["noise_level"], group["value"], ".", ms=5, alpha=0.7, label=f"draw and seed {seed}")
    mean = table.groupby("noise_level")["value"].mean()
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


def overview(run: dict, example: int = 1) -> Figure:
    """Figure 1: the two domains, the generators between them, the losses, and the loss curves of a real run."""
    slices, classes, config = run["slices"], run["classes"], run["config"]
    k = classes.index("ribosome") if "ribosome" in classes else 0
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, 3.75))
    width, height = figure.get_size_inches()
    side, step = 0.85, 1.75
    chains = (
        (
            0.2,
            "G\n+ noise",
            "F",
            (
                ("density", "x: density map (X)", True),
                ("generated", "G(x): looks like Y", False),
                ("cycled", "F(G(x)): should be x", True),
            ),
        ),
        (1.35, "F", "", (("real", "y: subtomogram (Y)", False), ("restored", "F(y): looks like X", True))),
    )
    for top, first, second, chain in chains:
        y = height - top - side
        for i, (name, label, is_density) in enumerate(chain):
            x, image = 0.25 + step * i, slices[name][k, example]
            axis = figure.add_axes((x / width, y / height, side / width, side / height))
            _show(axis, image, None if is_density else (-3.0, 3.0))
            axis.set_title(label, fontsize=6, pad=2)
            if i:
                arrow = {"arrowstyle": "-|>", "color": "0.2", "lw": 1.0}
                ends = [((x - e) / width, (y + side / 2) / height) for e in (0.08, step - side - 0.08)]
                figure.add_artist(
                    plt.Annotation(
                        "", *ends, xycoords="figure fraction", textcoords="figure fraction", arrowprops=arrow
                    )
                )
                where = ((x - (step - side) / 2) / width, (y + side / 2 + 0.06) / height)
                figure.text(*where, first if i == 1 else second, ha="center", va="bottom", fontsize=6)
    critics = (
        config["adversarial"].replace("_", " ").capitalize()
        + " critics"
        + (", spectral norm" if config["spectral_norm"] else "")
    )
    cycle_y = f" + {config['cycle_y']:g} |G(F(y)) − y|" if config["cycle_y"] else ""
    terms = [
        "D_Y tells y from G(x)", "D_X tells x from F(y)", critics,
        f"cycle: {config['cycle_x']:g} |F(G(x)) − x|" + cycle_y,
        f"recipe “{config['preset']}”, seed {config['seed']}",
    ]  # fmt: skip
    figure.text(
        (0.25 + 2 * step + side + 0.25) / width, (height - 0.95) / height, "\n\n".join(terms), fontsize=6, va="center"
    )
    log = pd.DataFrame(run["log"])
    names = {"critic": "D_{}", "adversarial": "at D_{}", "cycle": "{}"}
    panels = (("critic loss", "critic"), ("generator loss", "adversarial"), ("cycle loss", "cycle"))
    for i, (title, prefix) in enumerate(panels):
        axis = figure.add_axes((0.075 + 0.325 * i, 0.105, 0.245, 0.2))
        for column in (c for c in log if c.startswith(prefix)):
            axis.plot(
                log["step"],
                log[column].rolling(5, min_periods=1).mean(),
                lw=0.9,
                label=names[prefix].format(column.split("_")[-1]),
            )
        axis.set(xlabel="step", title=title + (" (s.d. of x)" if prefix == "cycle" else " (score units)"))
        low, high = axis.get_ylim()
        axis.set_ylim(low - 0.3 * (high - low), high)  # room for the legend below the curves
        if prefix == "cycle":
            axis.axhline(run["constant_cycle"], color="0.5", ls="--", lw=0.8, label="a constant")
            low = min(low, 0.9 * run["constant_cycle"])
        axis.set_ylim(low - 0.3 * (high - low), high)
        axis.legend(frameon=False, loc="lower center", ncols=2)
    return figure
