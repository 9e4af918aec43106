"""Figures of the physics generator: what it estimates, and how it compares."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ...evaluation.baselines import BACKGROUND, CTF, CTF_AND_WEDGE, K_SQUARED, WHITE, WRONG_MICROSCOPE
from ...evaluation.downstream import PHYSICS, REAL, TRUE
from ...evaluation.metrics import student_interval
from .artefacts import COLUMN_WIDTH_IN, PAGE_WIDTH_IN
from .operator_tables import comparison_rows

STYLES = {  # source of training data to colour and marker
    WHITE: ("0.7", "s"), K_SQUARED: ("0.45", "s"), CTF: ("C1", "^"), CTF_AND_WEDGE: ("C3", "v"),
    WRONG_MICROSCOPE: ("C4", "P"),
    BACKGROUND: ("C5", "<"), TRUE: ("C2", "D"), PHYSICS: ("C0", "o"), REAL: ("k", "x"),
}  # fmt: skip


def transfer_and_noise(result: dict) -> Figure:
    """Estimated transfer T beside the simulator's, and the measured noise over spatial frequency and tilt.

    T is known up to the units of density and subtomogram: the true one, its mean over the recorded tilts, is scaled to
    the estimate by least squares up to 0.8 of Nyquist. Dashed is its root mean square over tomograms of other defoci,
    which is what power tells. The estimate is dotted, on grey, where the signal does not stand out of the noise (trust
    below one half). Lines at the tilt range found.
    """
    nyquist = 5.0 / result["voxel_size_A"]  # in 1/nm
    q, true_q = 10 * np.array(result["frequency_per_A"]), 10 * np.array(result["true_frequency_per_A"])
    T, trust, truth = np.array(result["transfer"]), np.array(result["trust"]), np.array(result["true_transfer"]).mean(0)
    at = q <= 0.8 * nyquist
    there = np.interp(q[at], true_q, truth)
    scale = float((T[at] * there).sum() / (there**2).sum())
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_WIDTH_IN * 0.8, 2.3), layout="constrained", width_ratios=(1.4, 1))
    axes[0].plot(
        true_q[true_q <= nyquist], scale * truth[true_q <= nyquist], color="k", lw=1, label="simulator, scaled"
    )
    rms = scale * np.sign(truth) * np.sqrt((np.array(result["true_rms"]) ** 2).mean(0))
    rms[1:][np.diff(np.sign(truth)) != 0] = np.nan  # no line across the zero
    axes[0].plot(
        true_q[true_q <= nyquist], rms[true_q <= nyquist], color="k", lw=0.8, ls="--", label="its root mean square"
    )
    axes[0].plot(q, T, color="C0", lw=0.8, ls=":")
    axes[0].plot(
        q, np.where(trust >= 0.5, T, np.nan), color="C0", marker="o", ms=2, lw=0.8, label="estimated", clip_on=False
    )
    for low, high in zip(q[:-1], q[1:], strict=True):
        if np.interp((low + high) / 2, q, trust) < 0.5:
            axes[0].axvspan(low, high, color="0.9", lw=0)
    axes[0].axhline(0, color="0.7", lw=0.5)
    axes[0].set(xlabel="spatial frequency (1/nm)", ylabel="T (network units)", xlim=(0, nyquist))
    axes[0].legend(frameon=False, fontsize=6)
    power = 10 * np.log10(np.array(result["noise"]))
    image = axes[1].pcolormesh(
        q, result["tilts_deg"], power.T, cmap="viridis", shading="nearest", rasterized=True
    )  # fmt: skip
    figure.colorbar(image, ax=axes[1], shrink=0.9, label="power (dB)")
    for end in result["tilt_range_deg"]:
        axes[1].axhline(end, color="w", lw=0.5, ls=":")
    axes[1].set(title="noise, measured", xlabel="spatial frequency (1/nm)", ylim=(-90, 90))
    axes[1].set_yticks([-90, -45, 0, 45, 90])
    axes[1].set_ylabel("tilt of the slice (°)")
    return figure


def shells_of_means(results: Mapping[str, dict]) -> Figure:
    """Fourier shell correlation of the mean of many generations with that of recordings without noise, by set."""
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.0), layout="constrained")
    for name, result in results.items():
        curve = np.array(result["fsc"])
        axis.plot(np.arange(1, len(curve)) / (len(curve) - 1), curve[1:], marker="o", ms=2, lw=0.8, label=name)
    axis.axhline(0, color="0.7", lw=0.5)
    axis.set(xlabel="spatial frequency / Nyquist", ylabel="Fourier shell correlation", xlim=(0, 1))
    axis.set_ylim(min(-0.2, *axis.get_ylim()), 1.02)
    axis.legend(frameon=False, fontsize=6)
    return figure


def few_particles(result: dict) -> Figure:
    """Accuracy on real of a classifier trained on the generator, and distances from real, against the particles it was
    estimated from.
    """
    rows = pd.DataFrame([{k: v for k, v in r.items() if k != "metrics"} | r["metrics"] for r in result["rows"]])
    table = rows.groupby("particles").mean(numeric_only=True)
    figure, axes = plt.subplots(1, 3, figsize=(PAGE_WIDTH_IN, 2.1), layout="constrained")
    axes[0].plot(table.index, table["accuracy"], marker="o", ms=3, color="C0", label=PHYSICS)
    real = np.mean([row["accuracy"] for row in result["real"]])
    axes[0].axhline(real, color="k", lw=0.8, ls="--", label=f"real labels, {max(table.index)} particles")
    axes[0].set(ylabel="accuracy on real test (%)", ylim=(min(80, *table["accuracy"], real) - 1, 100))
    for name, label in (("spectrum", "log spectrum"), ("angular", "angular"), ("moments", "moments")):
        axes[1].plot(table.index, table[name], marker="o", ms=3, label=label)
    axes[1].set(ylabel="distance from real", ylim=(0, None))
    axes[2].plot(table.index, table["auc"], marker="o", ms=3, color="C3", label="AUC")
    axes[2].axhline(0.5, color="k", lw=0.8, ls="--", label="not told apart")
    axes[2].set(ylabel="AUC, generated and real", ylim=(0.4, 1))
    for axis in axes:
        axis.set(xscale="log", xlabel="particles")
        axis.set_xticks(list(table.index), [str(n) for n in table.index])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.legend(frameon=False, fontsize=6)
    return figure


def accuracy_by_snr(results: Sequence[dict]) -> Figure:
    """Accuracy on real test subtomograms of a classifier trained on each source, against the SNR, a panel a set.

    Points are means over data draws; bars, where there are several, Student's 95 % interval over them.
    """
    table = comparison_rows(results)
    sets = list(dict.fromkeys(table["dataset"]))
    figure, axes = plt.subplots(
        1, len(sets), sharex=True, sharey=True, figsize=(PAGE_WIDTH_IN, 2.4), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], sets, strict=True):
        for k, (source, (colour, marker)) in enumerate(STYLES.items()):
            part = table[(table["dataset"] == name) & (table["source"] == source)]
            points = {snr: student_interval(g["accuracy"], bounds=(0, 100)) for snr, g in part.groupby("snr")}
            mean, low, high = np.array(list(points.values())).T
            bars = np.nan_to_num([mean - low, high - mean])
            beside = 1.02 ** (k - len(STYLES) / 2)  # so that no bar hides another
            axis.errorbar(
                [snr * beside for snr in points],
                mean,
                bars,
                color=colour,
                marker=marker,
                ms=3,
                lw=1,
                capsize=2,
                label=source,
            )
        axis.set(xscale="log", xlabel="signal-to-noise ratio", title=name, ylim=(0, 100))
        axis.set_xticks(sorted(table["snr"].unique()), [f"{s:g}" for s in sorted(table["snr"].unique())])
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel("accuracy on real test (%)")
    axes[0, -1].legend(frameon=False, fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def transfer_curves(result: dict) -> Figure:
    """Transfer function read from averages, of generations and of recordings, at the defocus of the particles and at
    the one asked for.
    """
    q = 10 * np.array(result["frequency_per_A"])
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.3), layout="constrained")
    for i, (which, defocus) in enumerate(zip(("trained", "asked"), result["defoci_um"], strict=True)):
        axis.plot(
            q,
            result["curves"][f"recorded, {which}"],
            color=f"C{i}",
            lw=2.5,
            alpha=0.4,
            label=f"recorded at {defocus:g} µm",
        )
        label = f"generated at {defocus:g} µm" + (" (estimated there)" if which == "trained" else " (never seen)")
        axis.plot(q, result["curves"][f"generated, {which}"], color=f"C{i}", lw=0.8, marker="o", ms=2, label=label)
    axis.axhline(0, color="0.7", lw=0.5)
    axis.set(xlabel="spatial frequency (1/nm)", ylabel="transfer (network units)")
    axis.legend(frameon=False, fontsize=6)
    return figure


def mixed_sheet(volumes: Mapping[str, np.ndarray], seed: int, columns: int = 8, rows: int = 2) -> tuple[Figure, str]:
    """Central xy and xz slices of real and generated volumes (N, D, D, D) in mixed order, numbered and unlabelled, and
    the key: which numbers are generated.
    """
    rng, count = np.random.default_rng(seed), columns * rows
    pool = [(name, volume) for name, stack in volumes.items() for volume in stack]
    chosen = [pool[i] for i in rng.permutation(len(pool))[:count]]
    figure, axes = plt.subplots(
        2 * rows,
        columns,
        figsize=(PAGE_WIDTH_IN, PAGE_WIDTH_IN * 2 * rows / columns * 1.08),
        layout="constrained",
        squeeze=False,
    )
    for i, (_, volume) in enumerate(chosen):
        row, column, middle = 2 * (i // columns), i % columns, len(volume) // 2
        for axis, image in ((axes[row, column], volume[middle]), (axes[row + 1, column], volume[:, middle])):
            axis.imshow(image, vmin=-2.5, vmax=2.5, cmap="gray", origin="lower")
            axis.set(xticks=[], yticks=[])
        axes[row, column].set_title(str(i + 1), fontsize=6)
    for row in range(rows):
        axes[2 * row, 0].set_ylabel("xy")
        axes[2 * row + 1, 0].set_ylabel("xz")
    return figure, "generated: " + ", ".join(str(i + 1) for i, (name, _) in enumerate(chosen) if name == "generated")


def shell_agreement(correlation: Sequence[float], ceiling: Sequence[float], voxel_size_A: float) -> Figure:
    """Fourier shell correlation of the mean of generated and that of real particles, both brought back by the real
    poses, beside what as many other real particles would reach (`real.as_many_others`).
    """
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.0), layout="constrained")
    q = 10 * np.arange(len(correlation)) / (2 * (len(correlation) - 1)) / voxel_size_A
    axis.plot(q[1:], correlation[1:], marker="o", ms=2, label="generated and real")
    axis.plot(q[1:], ceiling[1:], color="0.5", ls="--", label="real and as many other real ones, expected")
    axis.axhline(0.5, color="0.7", lw=0.5, ls=":")
    axis.set(xlabel="spatial frequency (1/nm)", ylabel="Fourier shell correlation", ylim=(-0.2, 1))
    axis.legend(fontsize=5)
    return figure
