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
    groups: Sequence[tuple[Sequence[str], float, Sequence[tuple[str, np.ndarray, bool | tuple[float, float]]]]],
    names: Mapping[str, str] = SHORT,
    planes: Sequence[str] = (),
) -> Figure:
    """Rows of slices, the examples of a class side by side, for one or more sets below each other.

    Parameters
    ----------
    groups
        for each set (classes, voxel size in angstrom, rows); a row is (label, slices (classes, examples, D, W), grey).
        Grey is its limits; or True: a density, from 0; or False: subtomograms, z-scored as a set, from -3 to 3 standard
        deviations. A slice of NaN is left out. The bar is 100 A.
    names
        how classes are written, where not as they are; a user's own classes ({}) are.
    planes
        names of the examples, written into those of the first class.
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
        for r, (text, slices, grey) in enumerate(rows):
            if isinstance(grey, bool):
                grey = (0.0, float(np.percentile(slices, 99.7))) if grey else (-3.0, 3.0)
            for c, axis in enumerate(axes[r]):
                cut = slices[c // examples, c % examples]
                _show(axis, cut, grey)
                axis.set_visible(bool(np.isfinite(cut).all()))
            axes[r, 0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6)
        for c, name in enumerate(classes):
            text = names.get(name, name)
            text = text.replace(" ", "\n") if narrow else text
            axes[0, c * examples].set_title(text, fontsize=5 if narrow else 6, loc="left", pad=2)
        for axis, plane in zip(axes[0], planes, strict=False):
            axis.text(0.97, 0.95, plane, transform=axis.transAxes, color="white", fontsize=5, ha="right", va="top")
        _scale_bar(axes[0, 0], voxel_size_A)
        top += len(rows) * cell + title + 0.05
    return figure
