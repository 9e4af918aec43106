"""Figures and tables of the physics generator: what it learned, and how it compares."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..downstream import PHYSICS, REAL, gap_closed
from ..metrics import student_interval
from .artefacts import COLUMN_WIDTH_IN, PAGE_WIDTH_IN

STYLES = {  # source of training data to colour and marker
    "density + Gaussian noise": ("0.55", "s"), "released simulator": ("C1", "v"), "released simulator, fitted": ("C4", "^"),
    "our microscope, true parameters": ("C2", "D"), "physics generator": ("C0", "o"), "real": ("k", "x"),
}  # fmt: skip


def transfer_and_noise(result: dict) -> Figure:
    """Learned transfer T and noise N over spatial frequency and tilt, beside the simulator's true transfer, and the mean over the recorded tilts of both transfers; dotted: the tilt range found.

    T is known up to the units of density and subtomogram: the true one is scaled to the learned one by least squares up to 0.8 of Nyquist.
    """
    nyquist = 5.0 / result["voxel_size_A"]  # in 1/nm
    tilts, learned, noise = (np.array(result[k], dtype=float) for k in ("tilts_deg", "transfer", "noise"))
    true_tilts, truth = np.array(result["true_tilts_deg"]), np.array(result["true_transfer"])
    q, true_q = 10 * np.array(result["frequency_per_A"]), 10 * np.array(result["true_frequency_per_A"])
    fine = q if len(learned) == len(q) else np.linspace(0, 3**0.5 / 2, len(learned)) * 10 / result["voxel_size_A"]
    low, high = result["tilt_range_deg"]
    seen = (tilts > low) & (tilts < high)
    mean, true_mean = learned[:, seen].mean(1), truth.mean(0)
    at = fine <= 0.8 * nyquist
    there = np.interp(fine[at], true_q, true_mean)
    scale = float((mean[at] * there).sum() / (there**2).sum())
    limit = 1.1 * np.abs(truth[:, true_q <= nyquist]).max() * abs(scale)
    figure, axes = plt.subplots(1, 4, figsize=(PAGE_WIDTH_IN, 2.0), layout="constrained", width_ratios=(1, 1, 1, 1.2))
    order, masked = np.argsort(true_tilts), np.where(seen[:, None], learned.T, np.nan)
    for axis, title, rows, columns, values in (
        (axes[0], "T, learned", tilts, fine, masked),
        (axes[1], "T of the simulator, scaled", true_tilts[order], true_q, scale * truth[order]),
    ):
        image = axis.pcolormesh(columns, rows, values, vmin=-limit, vmax=limit, cmap="RdBu_r", shading="nearest", rasterized=True)
        axis.set_title(title)
    figure.colorbar(image, ax=axes[1], shrink=0.9, extend="both", label="T (network units)")  # T beyond the particles' power may be larger
    image = axes[2].pcolormesh(
        q, tilts, np.where(seen[:, None], noise.T, np.nan), cmap="viridis", shading="nearest", rasterized=True, vmin=0
    )
    axes[2].set_title("N, learned")
    figure.colorbar(image, ax=axes[2], shrink=0.9, label="N (network units)")
    for axis in axes[:3]:
        axis.axhline(low, color="k", lw=0.5, ls=":"), axis.axhline(high, color="k", lw=0.5, ls=":")
        axis.set(xlabel="frequency (1/nm)", ylim=(-90, 90), xlim=(0, nyquist), yticks=[-90, -45, 0, 45, 90], facecolor="0.85")
    axes[0].set_ylabel("tilt of the slice (°)")
    axes[3].plot(true_q[true_q <= nyquist], scale * true_mean[true_q <= nyquist], color="k", lw=1, label="simulator")
    axes[3].plot(fine, mean, color="C0", marker="o", ms=2, lw=0.8, label="learned", clip_on=False)
    axes[3].axhline(0, color="0.7", lw=0.5)
    axes[3].set(title="mean over tilts", xlabel="frequency (1/nm)", ylabel="T (network units)", xlim=(0, nyquist))
    axes[3].legend(frameon=False, fontsize=6)
    return figure


def generated_sheet(result: dict) -> Figure:
    """Central slices of densities, their generations and real subtomograms, along and across the beam, two a class."""
    sheet, classes = {k: np.array(v) for k, v in result["sheet"].items()}, result["classes"]
    columns = len(next(iter(sheet.values())))
    figure, axes = plt.subplots(
        len(sheet), columns, figsize=(PAGE_WIDTH_IN, PAGE_WIDTH_IN * len(sheet) / columns * 1.04), layout="constrained", squeeze=False
    )
    for k, (row, (name, slices)) in enumerate(zip(axes, sheet.items(), strict=True)):
        limit = (0, 1) if name.startswith("density") else (-2.5, 2.5)
        for i, (axis, image) in enumerate(zip(row, slices, strict=True)):
            axis.imshow(image, vmin=limit[0], vmax=limit[1], cmap="gray", origin="lower")
            axis.set(xticks=[], yticks=[])
            if k == 0 and i % 2 == 0:
                axis.set_title(classes[i // (columns // len(classes))].replace("_", " "), fontsize=6, loc="left")
        row[0].set_ylabel(name, fontsize=6)
    side = len(slices[0])
    axes[0, 0].plot([1, 1 + 200 / result["voxel_size_A"]], [1.2, 1.2], color="w", lw=2)
    axes[0, 0].annotate("20 nm", (1, 2.4), color="w", fontsize=6)
    axes[0, 0].set(xlim=(-0.5, side - 0.5), ylim=(-0.5, side - 0.5))
    return figure


def variance_by_source(result: dict) -> Figure:
    """Variance between generations from one density, by its source, on a logarithmic scale, and that between recordings of it, with and without noise."""
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.6), layout="constrained")
    place = np.arange(len(result["classes"]))
    apart = {"transfer": "transfer, contrast", "structure": "structure, deformation"}  # what each source draws
    shown = [(apart.get(k, k), v, {"all": "0.5"}.get(k, f"C{i}"), "o") for i, (k, v) in enumerate(result["variance"].items())]
    recorded = result["true_variance"]
    shown += [("recordings", recorded["all"], "k", "_"), ("recordings without noise", recorded["without noise"], "k", "x")]
    for label, values, colour, marker in shown:
        whole = label == "all"
        axis.plot(
            place, values, marker, color=colour, ms=6 if whole else 3 if marker == "o" else 5, mfc="none" if whole else colour,
            label="all at once" if whole else label,
        )  # fmt: skip
    axis.set_xticks(place, [c.replace("_", "\n") for c in result["classes"]])
    axis.set(yscale="log", ylabel="variance of a voxel\n(all voxels: 1)", xlim=(-0.5, len(place) - 0.5))
    figure.legend(frameon=False, fontsize=6, loc="outside upper center", ncols=2)
    return figure


def comparison_rows(results: Sequence[dict]) -> pd.DataFrame:
    """A row a probe: dataset, snr, seed, source, synthetic and real volumes a class, accuracy."""
    return pd.concat(
        [pd.DataFrame(r["rows"]).assign(dataset=r["config"]["dataset"], snr=r["config"]["snr"], seed=r["config"]["seed"]) for r in results],
        ignore_index=True,
    )


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Those trained on all volumes of one source."""
    most = table.groupby(["dataset", "snr", "source"])[["synthetic", "real"]].transform("max")
    alone = (table["synthetic"] == 0) | (table["real"] == 0)
    return table[
        alone
        & ((table["synthetic"] == most["synthetic"]) | (table["source"] == "real"))
        & ((table["source"] != "real") | (table["real"] == most["real"]))
    ]


def accuracy_by_snr(results: Sequence[dict]) -> Figure:
    """Accuracy on real test subtomograms of a classifier trained on each source, against the SNR, a panel a set."""
    table = _whole(comparison_rows(results))
    sets = list(dict.fromkeys(table["dataset"]))
    figure, axes = plt.subplots(1, len(sets), sharex=True, sharey=True, figsize=(PAGE_WIDTH_IN, 2.4), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], sets, strict=True):
        for source, (colour, marker) in STYLES.items():
            part = table[(table["dataset"] == name) & (table["source"] == source)]
            points = {snr: student_interval(g["accuracy"]) for snr, g in part.groupby("snr")}
            mean, low, high = np.array(list(points.values())).T
            axis.errorbar(list(points), mean, (mean - low, high - mean), color=colour, marker=marker, ms=3, lw=1, capsize=2, label=source)
        axis.set(xscale="log", xlabel="signal-to-noise ratio", title=name)
        axis.set_xticks(sorted(table["snr"].unique()), [f"{s:g}" for s in sorted(table["snr"].unique())])
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel("accuracy on real test (%)")
    axes[0, -1].legend(frameon=False, fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def comparison_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a set and SNR: accuracy of training on each source, the part of the gap from Gaussian noise to real that the generator closes, and how it is told apart from real test subtomograms, beside which stand another draw of these and the real train ones."""
    table, rows = _whole(comparison_rows(results)), []
    for (dataset, snr), part in table.groupby(["dataset", "snr"], sort=False):
        mean = {source: float(g["accuracy"].mean()) for source, g in part.groupby("source")}
        mine = [r["metrics"] for r in results if r["config"]["dataset"] == dataset and r["config"]["snr"] == snr]
        share = mean[PHYSICS] / mean[REAL] if mean[REAL] else float("nan")
        rows.append(
            {"set": dataset, "SNR": snr} | {source: f"{mean[source]:.1f}" for source in STYLES}
            | {"share of real": f"{share:.3f}", "gap closed": f"{gap_closed(mean)[PHYSICS]:.2f}"} | _told_apart(mine)
        )  # fmt: skip
    return pd.DataFrame(rows)


def _told_apart(mine: Sequence[dict]) -> dict[str, str]:
    """Columns of `comparison_table` from the metrics of its runs: means of AUC, angular distance and power in the wedge over that of real test subtomograms."""
    fitted, another = "released simulator, fitted", "our microscope, true parameters"

    def mean(source: str, name: str) -> float:
        return float(np.mean([metrics[source][name]["value"] for metrics in mine]))

    def wedge(source: str) -> float:
        return mean(source, "wedge_power") / mean(source, "real_wedge_power")

    found = {
        f"{title} (another draw, real train; fitted)": f"{mean(PHYSICS, name):.{digits}f} "
        f"({mean(another, name):.{digits}f}, {mean(REAL, name):.{digits}f}; {mean(fitted, name):.{digits}f})"
        for title, name, digits in (("AUC", "auc", 2), ("angular", "angular", 3))
    }
    found["wedge power / real (another draw)"] = f"{wedge(PHYSICS):.2f} ({wedge(another):.2f})"
    for title, source, name in (("real train / real", REAL, "wedge_power"), ("interval of real", PHYSICS, "real_wedge_power")):
        ends = [np.mean([m[source][name][end] / m[source]["real_wedge_power"]["value"] for m in mine]) for end in ("low", "high")]
        found[title] = (f"{wedge(REAL):.2f} " if source == REAL else "") + f"[{ends[0]:.2f}, {ends[1]:.2f}]"
    return found


def ingredient_table(results: Mapping[str, Sequence[dict]]) -> pd.DataFrame:
    """A row a variant, with mean and Student's interval over seeds: accuracy on real of a probe trained on it, AUC, angular distance, power in the wedge over the real one's."""
    rows = []
    for variant, found in results.items():
        columns = {
            "accuracy on real (%)": ([r["rows"][0]["accuracy"] for r in found], 1),
            "AUC": ([r["metrics"]["auc"]["value"] for r in found], 2),
            "angular": ([r["metrics"]["angular"]["value"] for r in found], 3),
            "wedge power / real": ([r["metrics"]["wedge_power"]["value"] / r["metrics"]["real_wedge_power"]["value"] for r in found], 2),
        }
        row: dict[str, object] = {"generator": variant, "seeds": len(found)}
        for name, (values, digits) in columns.items():
            mean, low, high = student_interval(values)
            row[name] = f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        rows.append(row)
    return pd.DataFrame(rows)


def given_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a kind of given densities: accuracy on real of each source of training data, the physics generator's share of real, AUC and angular distance."""
    rows = []
    for r in results:
        accuracy = {source: student_interval(g) for source, g in pd.DataFrame(r["rows"]).groupby("source")["accuracy"]}
        mean = {source: values[0] for source, values in accuracy.items()}
        row = {"densities given": r["given"]} | {source: f"{m:.1f} [{low:.1f}, {high:.1f}]" for source, (m, low, high) in accuracy.items()}
        row |= {"share of real": f"{mean[PHYSICS] / mean[REAL]:.3f}", "AUC": f"{r['metrics']['auc']['value']:.2f}"}
        rows.append(row | {"angular": f"{r['metrics']['angular']['value']:.3f}"})
    return pd.DataFrame(rows)


def transfer_curves(result: dict) -> Figure:
    """Transfer function read from averages, of generations and of recordings, at the defocus trained on and at the one asked for."""
    q = 10 * np.array(result["frequency_per_A"])
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.3), layout="constrained")
    for i, (which, defocus) in enumerate(zip(("trained", "asked"), result["defoci_um"], strict=True)):
        axis.plot(q, result["curves"][f"recorded, {which}"], color=f"C{i}", lw=2.5, alpha=0.4, label=f"recorded at {defocus:g} µm")
        label = f"generated at {defocus:g} µm" + (" (trained)" if which == "trained" else " (never seen)")
        axis.plot(q, result["curves"][f"generated, {which}"], color=f"C{i}", lw=0.8, marker="o", ms=2, label=label)
    axis.axhline(0, color="0.7", lw=0.5)
    axis.set(xlabel="spatial frequency (1/nm)", ylabel="transfer (network units)")
    axis.legend(frameon=False, fontsize=6)
    return figure


def mixed_sheet(volumes: Mapping[str, np.ndarray], seed: int, columns: int = 8, rows: int = 2) -> tuple[Figure, str]:
    """Central xy and xz slices of real and generated volumes (N, D, D, D) in mixed order, numbered and unlabelled, and the key: which numbers are generated."""
    rng, count = np.random.default_rng(seed), columns * rows
    pool = [(name, volume) for name, stack in volumes.items() for volume in stack]
    chosen = [pool[i] for i in rng.permutation(len(pool))[:count]]
    figure, axes = plt.subplots(
        2 * rows, columns, figsize=(PAGE_WIDTH_IN, PAGE_WIDTH_IN * 2 * rows / columns * 1.08), layout="constrained", squeeze=False
    )
    for i, (_, volume) in enumerate(chosen):
        row, column, middle = 2 * (i // columns), i % columns, len(volume) // 2
        for axis, image in ((axes[row, column], volume[middle]), (axes[row + 1, column], volume[:, middle])):
            axis.imshow(image, vmin=-2.5, vmax=2.5, cmap="gray", origin="lower")
            axis.set(xticks=[], yticks=[])
        axes[row, column].set_title(str(i + 1), fontsize=6)
    for row in range(rows):
        axes[2 * row, 0].set_ylabel("xy"), axes[2 * row + 1, 0].set_ylabel("xz")
    return figure, "generated: " + ", ".join(str(i + 1) for i, (name, _) in enumerate(chosen) if name == "generated")


def shell_agreement(correlation: Sequence[float], voxel_size_A: float) -> Figure:
    """Fourier shell correlation of the mean of generated and that of real particles, both brought back by the real poses."""
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.0), layout="constrained")
    q = 10 * np.arange(len(correlation)) / (2 * (len(correlation) - 1)) / voxel_size_A
    axis.plot(q[1:], correlation[1:], marker="o", ms=2)
    axis.axhline(0.5, color="0.7", lw=0.5, ls=":")
    axis.set(xlabel="spatial frequency (1/nm)", ylabel="Fourier shell correlation", ylim=(-0.2, 1))
    return figure


def real_table(result: dict) -> pd.DataFrame:
    """A row a tilt series left out: distances of generated volumes from its particles, and of the real training particles in brackets."""
    names = ("spectrum", "angular", "moments", "autocorrelation")
    rows = {
        tomogram: {"wedge found (°)": f"{fold['tilt_range_deg'][0]:.0f} to {fold['tilt_range_deg'][1]:.0f}"}
        | {name: f"{fold['generated'][name]:.2f} ({fold['real'][name]:.2f})" for name in names}
        for tomogram, fold in result["folds"].items()
    }
    return pd.DataFrame(rows).T.rename_axis("left out")
