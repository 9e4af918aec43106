"""Figures and tables of the physics generator: what it learned, and how it compares."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..baselines import CTF, CTF_AND_WEDGE, FORMULAS, K_SQUARED, RELEASED, WHITE, WRONG_MICROSCOPE
from ..downstream import PHYSICS, REAL, START, TRUE, gap_closed
from ..metrics import student_interval
from .artefacts import COLUMN_WIDTH_IN, PAGE_WIDTH_IN
from .tables import BOUNDS, over_draws

STYLES = {  # source of training data to colour and marker
    WHITE: ("0.7", "s"), K_SQUARED: ("0.45", "s"), CTF: ("C1", "^"), CTF_AND_WEDGE: ("C3", "v"), WRONG_MICROSCOPE: ("C4", "P"),
    TRUE: ("C2", "D"), START: ("C9", "o"), PHYSICS: ("C0", "o"), REAL: ("k", "x"),
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
    """A row a source and data draw: dataset, snr, seed, source, mean accuracy over the probes nested in it."""
    rows = pd.concat([pd.DataFrame(r["rows"]).assign(**{k: r["config"][k] for k in ("dataset", "snr", "seed")}) for r in results])
    return rows.groupby(["dataset", "snr", "seed", "source"], sort=False)["accuracy"].mean().reset_index()


def accuracy_by_snr(results: Sequence[dict]) -> Figure:
    """Accuracy on real test subtomograms of a classifier trained on each source, against the SNR, a panel a set.

    Points are means over data draws; bars, where there are several, Student's 95 % interval over them.
    """
    table = comparison_rows(results)
    sets = list(dict.fromkeys(table["dataset"]))
    figure, axes = plt.subplots(1, len(sets), sharex=True, sharey=True, figsize=(PAGE_WIDTH_IN, 2.4), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], sets, strict=True):
        for k, (source, (colour, marker)) in enumerate(STYLES.items()):
            part = table[(table["dataset"] == name) & (table["source"] == source)]
            points = {snr: student_interval(g["accuracy"], bounds=(0, 100)) for snr, g in part.groupby("snr")}
            mean, low, high = np.array(list(points.values())).T
            bars = np.nan_to_num([mean - low, high - mean])
            beside = 1.02 ** (k - len(STYLES) / 2)  # so that no bar hides another
            axis.errorbar([snr * beside for snr in points], mean, bars, color=colour, marker=marker, ms=3, lw=1, capsize=2, label=source)
        axis.set(xscale="log", xlabel="signal-to-noise ratio", title=name, ylim=(0, 100))
        axis.set_xticks(sorted(table["snr"].unique()), [f"{s:g}" for s in sorted(table["snr"].unique())])
        axis.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel("accuracy on real test (%)")
    axes[0, -1].legend(frameon=False, fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def comparison_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a source of training data, a column a set and SNR: accuracy on real test subtomograms (%), as `tables.over_draws`.

    The last rows are the generator's share of real, and the part of the gap from the best formula to real that it closes.
    """
    table, columns = comparison_rows(results), {}
    for (dataset, snr), part in table.groupby(["dataset", "snr"], sort=False):
        found = {source: g["accuracy"].to_numpy() for source, g in part.groupby("source", sort=False)}
        mean = {source: float(values.mean()) for source, values in found.items()}
        column = {s: over_draws(found[s], 1, (0, 100)) for s in (*FORMULAS, RELEASED, WRONG_MICROSCOPE, TRUE, START, PHYSICS, REAL)}
        ratio = found[PHYSICS] / np.where(found[REAL] > 0, found[REAL], np.nan)
        column |= {"share of real": over_draws(ratio, 3), "gap closed": f"{gap_closed(mean)[PHYSICS]:.2f}"}
        columns[f"{dataset}, SNR {snr:g}"] = column | {"draws": str(part["seed"].nunique())}
    return pd.DataFrame(columns).rename_axis("trained on").reset_index()


def told_apart_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a set, SNR and kind of volumes: AUC, distances and power in the missing wedge against real test subtomograms."""
    rows = []
    groups: dict[tuple[str, float], list[dict]] = {}
    for r in results:
        groups.setdefault((r["config"]["dataset"], r["config"]["snr"]), []).append(r["metrics"])
    for (dataset, snr), found in groups.items():
        for source, label in ((PHYSICS, PHYSICS), (START, START), (TRUE, "real, another draw"), (REAL, "real, train half")):
            columns = {
                title: over_draws([m[source][name] for m in found], digits, BOUNDS.get(name, (0, np.inf)))
                for title, name, digits in (
                    ("AUC", "auc", 2), ("log spectrum", "spectrum", 3), ("angular", "angular", 3), ("wedge power / real", "wedge_power", 2),
                )
            }  # fmt: skip
            rows.append({"set": dataset, "SNR": snr, "volumes": label} | columns | {"draws": len(found)})
    return pd.DataFrame(rows)


def ingredient_table(comparisons: Sequence[dict], parts: Sequence[dict]) -> pd.DataFrame:
    """Table 8, a row a form of the physics generator: accuracy on real of a probe trained on it, AUC, angular distance, wedge power.

    Parameters
    ----------
    comparisons : results of `workflow.proof.make_comparison`, which hold the whole generator and its start alone.
    parts : results of `workflow.proof.make_ablation` of the same draws.
    """
    seeds = {r["config"]["seed"] for r in parts}
    found: dict[str, list[tuple[float, dict]]] = {"all": [], "start alone": []}
    for r in comparisons:
        if r["config"]["dataset"] == "S1" and r["config"]["snr"] == parts[0]["config"]["snr"] and r["config"]["seed"] in seeds:
            for name, source in (("all", PHYSICS), ("start alone", START)):
                found[name].append((_accuracy(r, source), r["metrics"][source]))
    for r in parts:
        found.setdefault(r["variant"], []).append((_accuracy(r, PHYSICS), r["metrics"][PHYSICS]))
    rows = []
    for name, values in found.items():
        row: dict[str, object] = {"generator": name, "accuracy on real (%)": over_draws([a for a, _ in values], 1, (0, 100))}
        for title, metric, digits in (("AUC", "auc", 2), ("angular", "angular", 3), ("wedge power / real", "wedge_power", 2)):
            row[title] = over_draws([m[metric] for _, m in values], digits, BOUNDS.get(metric, (0, np.inf)))
        rows.append(row | {"draws": len(values)})
    return pd.DataFrame(rows)


def _accuracy(result: dict, source: str) -> float:
    """Mean over the probes of one source."""
    return float(np.mean([row["accuracy"] for row in result["rows"] if row["source"] == source]))


def given_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a kind of given densities: accuracy on real of each source, the physics generator's share of real, AUC and angular distance."""
    rows = []
    for r in results:
        mean = {source: _accuracy(r, source) for source in dict.fromkeys(row["source"] for row in r["rows"])}
        share = mean[PHYSICS] / mean[REAL] if mean[REAL] else float("nan")
        row = {"densities given": r["given"]} | {f"{source} (%)": f"{m:.1f}" for source, m in mean.items()}
        rows.append(
            row | {"share of real": f"{share:.3f}", "AUC": f"{r['metrics']['auc']:.2f}", "angular": f"{r['metrics']['angular']:.3f}"}
        )
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
