"""What was read, on one page: classes, grey values, the mean particle, and the power spectrum."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ...particles.report import Report
from .artefacts import PAGE_WIDTH_IN
from .panels import _scale_bar, _show

MOST_CLASSES = 12  # named in the picture; the table holds all


def report_figure(report: Report) -> Figure:
    """Particles by class, histogram of grey values, mean particle along (xy) and across (xz) the beam, radial power
    spectrum and power round each axis.
    """
    figure, axes = plt.subplots(
        1, 6, figsize=(PAGE_WIDTH_IN, 1.9), layout="constrained", width_ratios=(1.2, 1, 1, 1, 1.2, 0.9)
    )
    counts = report.classes.groupby("class_name")["particles"].sum().sort_values()[-MOST_CLASSES:]
    axes[0].barh([name or "unnamed" for name in counts.index], counts, color="0.45")
    axes[0].set(xlabel="particles", title=f"{report.particles} of {report.box}$^3$")
    heights, edges = report.histogram
    axes[1].stairs(heights / heights.sum(), edges, fill=True, color="0.45")
    axes[1].set(xlabel="grey value", ylabel="share of voxels", yscale="log", title="voxels")
    middle = report.box // 2
    for axis, name, plane in (
        (axes[2], "mean, xy", report.mean[middle]),
        (axes[3], "mean, xz", report.mean[:, middle]),
    ):
        _show(axis, plane, (float(report.mean.min()), float(report.mean.max())), cmap="gray")
        axis.set_title(name)
    _scale_bar(axes[2], report.voxel_size_A)
    frequency, power = report.spectrum
    axes[4].semilogy(frequency, power, color="0.2", lw=1)
    axes[4].set(xlabel="spatial frequency (1/Å)", title="power")
    axes[5].bar(["z", "y", "x"], report.cones, color=["C3" if c == min(report.cones) else "0.45" for c in report.cones])
    axes[5].set(xlabel="axis", title="power in cone")
    return figure
