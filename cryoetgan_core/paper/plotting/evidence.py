"""How far numbers are to be believed: the audit of metrics, power spectra, and the downstream benchmark."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ...evaluation.baselines import CTF, FORMULAS, RELEASED, WHITE, WRONG_MICROSCOPE
from ...evaluation.downstream import GENERATED, PHYSICS, REAL, gap_closed
from ...evaluation.metrics import student_interval
from .artefacts import PAGE_WIDTH_IN
from .tables import BOUNDS, over_draws

# Metric: whether more is better, and digits shown
AUDITED = {
    "psnr": (True, 2), "precision": (True, 2), "recall": (True, 2), "density": (True, 2), "coverage": (True, 2),
    "accuracy": (True, 1),
    "standardised_precision": (True, 2), "standardised_recall": (True, 2), "standardised_density": (True, 2),
    "standardised_coverage": (True, 2),
    "feature_precision": (True, 2), "feature_recall": (True, 2), "feature_density": (True, 2),
    "feature_coverage": (True, 2),
    "fid": (False, 2), "kid": (False, 3), "inception_score": (True, 2), "spectrum": (False, 3), "angular": (False, 3),
    "moments": (False, 2),
    "autocorrelation": (False, 4), "auc": (False, 2),
}  # fmt: skip
COLOURS = {WHITE: "0.55", CTF: "C1", GENERATED: "C0", PHYSICS: "C2", REAL: "k"}  # of the sources with learning curves
PERFECT = "real, another draw"


def _verdict(metric: str, low: float, high: float, found: float, tiny: bool) -> str:
    """'!' where a change that no eye sees falls outside what another real draw scores; '*' where a gross one falls
    within it, or better.
    """
    if tiny:
        return "!" if found < low or found > high else ""
    more_is_better = AUDITED[metric][0]
    return "*" if (found >= low if more_is_better else found <= high) else ""


def audit_table(audit: dict, runs: Mapping[str, dict]) -> pd.DataFrame:
    """Metrics (rows) of controls and runs (columns), with marks, and how many controls fooled each.

    The first column is what a perfect generator scores: the mean over independent draws of real subtomograms, and the
    range in which 95 % of further draws fall (Student's t). The marks follow from that range.

    Parameters
    ----------
    audit
        what `paper.measurements.make_audit` returned.
    runs
        label to the result of a run, shown beside the controls without a mark.
    """
    controls = audit["controls"]
    perfect = [name for name in controls if name.startswith(PERFECT)]
    others = [name for name in controls if name not in perfect]
    rows = []
    for metric, (_, digits) in AUDITED.items():
        mean, low, high = student_interval([controls[name]["metrics"][metric] for name in perfect], of_next=True)
        low, high = np.clip((low, high), *BOUNDS.get(metric, (-np.inf, np.inf)))
        row = {
            "metric": metric.replace("_", " "),
            f"{PERFECT} [95 %]": f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]",
        }
        marks = {}
        for name in others:
            found = controls[name]["metrics"][metric]
            marks[name] = _verdict(metric, low, high, found, tiny=name.startswith("noise x"))
            row[name] = f"{found + 0.0:.{digits}f}{marks[name]}"
        for label, run in runs.items():
            row[label] = f"{run['metrics'][metric] + 0.0:.{digits}f}"
        rows.append(row | {"fooled by": sum(m == "*" for m in marks.values())})
    return pd.DataFrame(rows)


def power_spectra(audit: dict, runs: Mapping[str, dict]) -> Figure:
    """Radial power spectra of real, baseline and generated subtomograms over the real one, and power over frequency and
    tilt.

    Parameters
    ----------
    audit
        what `paper.make_audit` returned.
    runs
        label to the result of a run.
    """
    shown = {PERFECT: audit["controls"][f"{PERFECT} 1"]["spectra"]}
    shown |= {name: audit["controls"][name]["spectra"] for name in (WHITE, CTF, RELEASED)}
    shown |= {k: r["spectra"]["generated"] for k, r in runs.items()}
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, 3.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes = top.subplots(1, 2)
    real = np.array(audit["real"]["radial"])
    q = np.arange(1, len(real) + 1) / (2 * len(real) * audit["voxel_size_A"])
    axes[0].plot(q, real, color="k", lw=1.2, label="real, test half")
    for name, spectrum in shown.items():
        colour = "C2" if name.startswith("real") else {RELEASED: "C4"}.get(name, COLOURS.get(name))
        axes[0].plot(q, spectrum["radial"], lw=0.9, label=name, color=colour)
        axes[1].plot(q, np.array(spectrum["radial"]) / real, lw=0.9, color=axes[0].lines[-1].get_color())
    axes[0].set(yscale="log", ylabel="power (variance a Fourier voxel)", xlabel="spatial frequency (1/Å)")
    axes[0].legend(frameon=False, fontsize=5)
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axes[1].axhline(1, color="k", lw=0.6)
    axes[1].set(yscale="log", ylabel="power / real", xlabel="spatial frequency (1/Å)")
    maps = {"real, test half": audit["real"]["angular"]} | {k: v["angular"] for k, v in shown.items()}
    panels = bottom.subplots(1, len(maps), sharey=True)
    for axis, (name, angular) in zip(panels, maps.items(), strict=True):
        power = np.array(angular)
        power = np.where(power > 0, power, np.nan)
        image = axis.imshow(
            np.log10(power).T, origin="lower", aspect="auto", extent=(0, 1, -90, 90), cmap="magma", vmin=-3, vmax=0.5
        )
        axis.set_title(name, fontsize=5, pad=2)
        axis.set_xlabel("frequency / Nyquist", fontsize=5)
        axis.tick_params(labelsize=5)
    panels[0].set_ylabel("tilt of the slice (°)", fontsize=6)
    panels[0].set_yticks([-90, -50, 0, 70, 90])
    bottom.colorbar(image, ax=panels, shrink=0.9).set_label("log₁₀ power", fontsize=6)
    return figure


def _rows(results: Sequence[dict]) -> pd.DataFrame:
    """A row a source, numbers of synthetic and real volumes, and data draw: mean accuracy over the probes nested in
    it.
    """
    rows = pd.concat([pd.DataFrame(r["rows"]).assign(seed=r["config"]["seed"]) for r in results], ignore_index=True)
    return rows.groupby(["source", "synthetic", "real", "seed"], sort=False)["accuracy"].mean().reset_index()


def learning_curves(results: Sequence[dict]) -> Figure:
    """Accuracy on real test subtomograms against the number of labelled training volumes, and against the real labels
    added to synthetic ones.

    Bars are Student's 95 % interval over data draws and training seeds, cut off at 0 and 100 %; one draw has none.
    """
    table = _rows(results)
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(PAGE_WIDTH_IN, 2.5), layout="constrained")
    for source in COLOURS:
        own = table[table["source"] == source]
        if own.empty:
            continue
        alone = own[(own["synthetic"] > 0) & (own["real"] == 0)] if source != REAL else own
        key = "synthetic" if source != REAL else "real"
        mixed = (
            own[(own["synthetic"] > 0) & (own["real"] > 0)]
            if source != REAL
            else own[own["real"] <= own["real"].max() / 4]
        )
        for axis, part, column in ((axes[0], alone, key), (axes[1], mixed, "real")):
            if part.empty:
                continue
            points = {n: student_interval(g["accuracy"], bounds=(0, 100)) for n, g in part.groupby(column)}
            mean, low, high = np.array(list(points.values())).T
            bars = (mean - low, high - mean) if len(results) > 1 else None
            label = source if axis is axes[0] else (f"+ {source}" if source != REAL else "real alone")
            axis.errorbar(
                list(points), mean, bars, marker="o", ms=3, lw=1, capsize=2, color=COLOURS[source], label=label
            )
    for axis, label in zip(
        axes, ("labelled volumes a class, one source", "real labels a class, added to all synthetic ones"), strict=True
    ):
        axis.set(xscale="log", xlabel=label, ylim=(0, 100))
        drawn = sorted({float(x) for container in axis.containers for x in container[0].get_xdata()})
        axis.set_xticks(drawn, [f"{x:g}" for x in drawn])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.legend(frameon=False, loc="lower left" if axis is axes[0] else "lower right", fontsize=5)
    axes[0].set_ylabel("accuracy on real test (%)")
    return figure


def downstream_table(results: Sequence[dict]) -> pd.DataFrame:
    """Accuracy of every source at all volumes, alone and with real labels added, and the part of the gap from the best
    formula to real.

    Intervals are over data draws and training seeds (`tables.over_draws`); a dash where a mixture was not measured.
    """
    table = _rows(results)
    most = int(table["real"].max())
    few = sorted({int(n) for n in table.loc[table["synthetic"] > 0, "real"]} - {0})
    rows, alone = [], {}
    for source in (*FORMULAS, RELEASED, WRONG_MICROSCOPE, GENERATED, PHYSICS, REAL):
        own = table[table["source"] == source]
        if own.empty:
            continue
        whole = (
            own[own["real"] == most]
            if source == REAL
            else own[(own["synthetic"] == own["synthetic"].max()) & (own["real"] == 0)]
        )
        alone[source] = float(whole["accuracy"].mean())
        row = {"trained on": source, f"{most} a class (%)": over_draws(whole["accuracy"], 1, (0, 100))}
        for n in few:
            part = own[(own["real"] == n) & ((own["synthetic"] > 0) | (source == REAL))]
            row[f"with {n} real a class (%)"] = over_draws(part["accuracy"], 1, (0, 100)) if len(part) else "–"
        rows.append(row)
    closed = gap_closed(alone)
    for row in rows:
        row["gap closed"] = f"{closed[row['trained on']]:.2f}" if row["trained on"] not in FORMULAS else "–"
    return pd.DataFrame(rows).assign(draws=len(results))
