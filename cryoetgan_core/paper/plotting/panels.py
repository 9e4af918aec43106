"""Panels of the paper's figures. Volumes arrive as slices ``(classes, examples, D, W)``."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .artefacts import PAGE_WIDTH_IN

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


def _name_of_set(figure: Figure, result: dict, top: float) -> None:
    """Write the set's name left of its first row, `top` inches below the figure's upper edge."""
    height = figure.get_size_inches()[1]
    figure.text(
        0.005, 1 - (top - 0.02) / height, result["config"]["dataset"], fontsize=7, fontweight="bold", va="bottom"
    )


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
