"""What was read, on one page: classes, grey values, the mean particle, and the power spectrum."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ...particles.report import Report
from .artefacts import PAGE_WIDTH_IN
from .panels import _scale_bar, _show

MOST_CLASSES = 12  # named in the picture; the table holds all


def report_figure(report: Report) -> Figure:
    """Particles by class, histogram of grey values, radial power spectrum, mean particle along (xy) and across (xz) the
    beam, power against tilt with the edges of the wedge, and power in a cone about each axis.
    """
    figure, axes = plt.subplot_mosaic(
        [["classes", "voxels", "power", "power"], ["xy", "xz", "tilts", "cones"]],
        figsize=(PAGE_WIDTH_IN, 3.6),
        layout="constrained",
        width_ratios=(1.1, 1.1, 1.6, 0.8),
    )
    counts = report.classes.groupby("class_name")["particles"].sum().sort_values()[-MOST_CLASSES:]
    axes["classes"].barh([name or "unnamed" for name in counts.index], counts, color="0.45")
    axes["classes"].set(xlabel="particles", title=f"{report.particles} of {report.box}$^3$")
    heights, edges = report.histogram
    axes["voxels"].stairs(heights / heights.sum(), edges, fill=True, color="0.45")
    axes["voxels"].set(xlabel="grey value", ylabel="share of voxels", yscale="log", title="voxels")
    middle, limits = report.box // 2, (float(report.mean.min()), float(report.mean.max()))
    for name, plane in (("xy", report.mean[middle]), ("xz", report.mean[:, middle])):
        _show(axes[name], plane, limits, cmap="gray")
        axes[name].set_title(f"mean, {name}")
    _scale_bar(axes["xy"], report.voxel_size_A)
    axes["xy"].set_xlabel("bar: 100 Å")
    frequency, power = report.spectrum
    axes["power"].semilogy(frequency, power, color="0.2", lw=1)
    axes["power"].set(xlabel="spatial frequency (1/Å)", title="radial power spectrum")
    tilt, power = (v[np.isfinite(report.tilts[1])] for v in report.tilts)
    axes["tilts"].semilogy(tilt, power, color="0.2", lw=1, drawstyle="steps-mid")
    for label, ends, style in (("files", report.tilts_told, "C0-"), ("by power", report.tilts_seen, "C3--")):
        for k, end in enumerate(ends or ()):
            axes["tilts"].plot([end, end], [power[power > 0].min(), 1], style, lw=1, label=label[k * 99 :])
    axes["tilts"].set(xlabel="tilt (degrees)", xticks=[-90, -45, 0, 45, 90], title="power against tilt")
    axes["tilts"].set_ylim(top=30)
    axes["tilts"].legend(loc="upper center", fontsize="x-small", frameon=False, ncols=2)
    colours = ["C3" if c == min(report.cones) else "0.45" for c in report.cones]
    axes["cones"].bar(["z", "y", "x"], report.cones, color=colours)
    axes["cones"].set(xlabel="axis", title="power near axis")
    return figure
