"""Panels of the paper's figures. Volumes arrive as slices ``(classes, examples, D, W)``."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .artefacts import PAGE_WIDTH_IN

SHORT = {
    "proteasome": "26S proteasome", "ribosome": "80S ribosome", "tric": "TRiC", "membrane": "membrane", "aldolase": "aldolase",
    "glutamate_dehydrogenase": "GDH", "dnab": "DnaB–λP", "t20s": "T20S", "apoferritin": "apoferritin", "hemagglutinin": "HA",
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


def contact_sheet(groups: Sequence[tuple[Sequence[str], float, Sequence[tuple[str, np.ndarray, bool]]]]) -> Figure:
    """Rows of slices, one column a class and example, for one or more sets below each other.

    Parameters
    ----------
    groups : for each set (classes, voxel size in angstrom, rows); a row is (label, slices (classes, examples, D, W), is_density).
        Densities share one grey scale a row; subtomograms, z-scored as a set, run from -3 to 3 standard deviations.
    """
    heights = [len(rows) for _, _, rows in groups]
    columns = max(len(classes) * rows[0][1].shape[1] for classes, _, rows in groups)
    cell = PAGE_WIDTH_IN / (columns + 1.2)
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, sum(heights) * cell + 0.42 * len(groups)), layout="constrained")
    for (classes, voxel_size_A, rows), part in zip(
        groups, np.atleast_1d(figure.subfigures(len(groups), 1, height_ratios=heights)), strict=True
    ):
        examples = rows[0][1].shape[1]
        axes = part.subplots(len(rows), len(classes) * examples, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
        for r, (label, slices, is_density) in enumerate(rows):
            limits = (0.0, float(np.percentile(slices, 99.7))) if is_density else (-3.0, 3.0)
            for c in range(len(classes)):
                for e in range(examples):
                    _show(axes[r, c * examples + e], slices[c, e], limits)
            axes[r, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=6)
        for c, name in enumerate(classes):
            # over the first of a class's examples, spanning them
            axes[0, c * examples].set_title(SHORT.get(name, name), fontsize=6, loc="left", pad=2)
        _scale_bar(axes[0, 0], voxel_size_A)
    return figure


def uncertainty_maps(groups: Sequence[tuple[Sequence[str], float, np.ndarray, np.ndarray]]) -> Figure:
    """Figure 4: density, and voxelwise standard deviation over repeated generations, per class.

    Parameters
    ----------
    groups : for each set (classes, voxel size in angstrom, density slices, standard deviation slices), both (classes, examples, D, W).
    """
    columns = max(len(g[0]) for g in groups)
    cell = PAGE_WIDTH_IN / (columns + 1.6)
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, len(groups) * (2 * cell + 0.35)), layout="constrained")
    for (classes, voxel_size_A, density, deviation), part in zip(groups, np.atleast_1d(figure.subfigures(len(groups), 1)), strict=True):
        axes = part.subplots(2, len(classes), squeeze=False)
        limits = (float(np.percentile(deviation, 1)), float(np.percentile(deviation, 99)))
        for c, name in enumerate(classes):
            _show(axes[0, c], density[c, 0], (0.0, float(np.percentile(density, 99.7))))
            image = _show(axes[1, c], deviation[c, 0], limits, cmap="magma")
            axes[0, c].set_title(SHORT.get(name, name), fontsize=6, pad=2)
        for axis, label in zip(axes[:, 0], ("density", "s.d. of 5\ngenerations"), strict=True):
            axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=6)
        _scale_bar(axes[0, 0], voxel_size_A)
        bar = part.colorbar(image, ax=axes[1, :], fraction=0.02, pad=0.01)
        bar.set_label("s.d. (s.d. of the set)", fontsize=6)
    return figure


def noise_sweep(table: pd.DataFrame, metric: str, label: str, floor: float, paper: dict[float, float]) -> Figure:
    """Figures 5 and 6: a metric against the noise added to the density maps.

    Parameters
    ----------
    table : columns noise_level, seed, value, low, high.
    floor : the metric between real subtomograms of the train and the test half.
    paper : noise level to the paper's value, drawn on an axis of its own: another feature network, so only the shape compares.
    """
    figure, axis = plt.subplots(figsize=(3.35, 2.5), layout="constrained")
    for seed, group in table.groupby("seed"):
        error = np.abs(group[["low", "high"]].to_numpy().T - group["value"].to_numpy()).clip(min=0)
        axis.errorbar(group["noise_level"], group["value"], error, fmt=".", ms=4, lw=0.7, capsize=1.5, alpha=0.7, label=f"seed {seed}")
    mean = table.groupby("noise_level")["value"].mean()
    axis.plot(mean.index, mean, color="0.2", lw=1, zorder=0, label="mean" if table["seed"].nunique() > 1 else None)
    axis.axhline(floor, color="0.5", ls="--", lw=0.8, label="real train / real test")
    if metric == "fid":
        axis.set_yscale("log")
    axis.set_xlabel("noise s.d. added to the density (protein interior = 1)")
    axis.set_ylabel(f"{label}, C3D features")
    twin = axis.twinx()
    twin.plot(list(paper), list(paper.values()), "k*", ms=5, label="paper (ImageNet; right axis)")
    twin.set_ylabel(f"{label}, paper")
    lines = [h for a in (axis, twin) for h in a.get_legend_handles_labels()[0]]
    names = [n for a in (axis, twin) for n in a.get_legend_handles_labels()[1]]
    figure.legend(lines, names, frameon=False, loc="outside upper center", ncols=2)
    return figure


def overview(run: dict, example: int = 1) -> Figure:
    """Figure 1: the two domains, the generators between them, the losses, and the loss curves of a real run."""
    slices, classes = run["slices"], run["classes"]
    k = classes.index("ribosome") if "ribosome" in classes else 0
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, 3.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    canvas = top.subplots()
    canvas.set(xlim=(0, 11.6), ylim=(-0.15, 3.7))
    canvas.axis("off")
    chains = (
        (1.9, (("density", "x  (density map, X)", True), ("generated", "G(x)  (looks like Y)", False), ("cycled", "F(G(x)) ≈ x", False))),
        (0.0, (("real", "y  (subtomogram, Y)", False), ("restored", "F(y)  (looks like X)", False))),
    )
    for y, chain in chains:
        arrows = ("G\n+ noise", "F") if y else ("F",)
        for i, (name, label, is_density) in enumerate(chain):
            image, x = slices[name][k, example], 0.2 + 3.2 * i
            low, high = (0.0, image.max()) if is_density else np.percentile(image, [1, 99])
            canvas.imshow(image, extent=(x, x + 1.5, y, y + 1.5), vmin=low, vmax=high, origin="lower", aspect="auto")
            canvas.text(x + 0.75, y + 1.56, label, ha="center", va="bottom", fontsize=6)
            if i:
                canvas.annotate("", (x - 0.1, y + 0.75), (x - 1.6, y + 0.75), arrowprops={"arrowstyle": "-|>", "lw": 1})
                canvas.text(x - 0.85, y + 0.85, arrows[i - 1], ha="center", va="bottom", fontsize=6)
    config = run["config"]
    terms = [
        f"D_Y: y or G(x)?   D_X: x or F(y)?\n({config['adversarial'].replace('_', ' ')} loss"
        + (", spectral normalisation)" if config["spectral_norm"] else ")"),
        f"cycle: {config['cycle_x']:g} · |F(G(x)) − x|" + (f" + {config['cycle_y']:g} · |G(F(y)) − y|" if config["cycle_y"] else ""),
        f"recipe: {config['preset']}, seed {config['seed']}",
    ]
    canvas.text(8.5, 1.7, "\n\n".join(terms), fontsize=6, va="center")
    canvas.set(xlim=(0, 11.6), ylim=(-0.15, 3.7))
    log = pd.DataFrame(run["log"])
    panels = [
        ("critic", [c for c in log if c.startswith("critic")]), ("generator", [c for c in log if c.startswith("adversarial")]),
        ("cycle", [c for c in log if c.startswith("cycle")]),
    ]  # fmt: skip
    for axis, (title, columns) in zip(bottom.subplots(1, 3), panels, strict=True):
        for column in columns:
            axis.plot(log["step"], log[column].rolling(5, min_periods=1).mean(), lw=0.9, label=column.split("_")[-1])
        axis.set(xlabel="step", title=f"{title} loss")
        if columns:
            axis.legend(frameon=False)
    return figure
