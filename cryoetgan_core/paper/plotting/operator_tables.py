"""Tables of the physics generator: beside other sources of training data, without its parts, under other conditions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...evaluation.baselines import BACKGROUND, CTF, FORMULAS, RELEASED, WRONG_MICROSCOPE
from ...evaluation.downstream import PHYSICS, REAL, TRUE, gap_closed
from .tables import BOUNDS, over_draws


def pose_table(result: dict) -> pd.DataFrame:
    """A row a class: median angular error of the same alignment on generated and on real particles, and the FSC of
    their averages, mean to half of Nyquist.
    """
    rows = []
    for name, found in result["classes"].items():
        error, curve = found["median_error_deg"], np.array(found["fsc_of_means"])
        rows.append(
            {
                "class": name,
                "generated (°)": f"{error['generated']:.1f}",
                "real (°)": f"{error['real']:.1f}",
                "FSC of averages": f"{curve[1 : len(curve) // 2 + 1].mean():.2f}",
            }
        )
    return pd.DataFrame(rows)


def mismatch_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a condition: accuracy on real of the CTF formula, of the physics generator and of real labels, the share of
    real, and how it is told apart.
    """
    rows = []
    for r in results:
        mean = {source: accuracy_of(r, source) for source in (CTF, PHYSICS, REAL)}
        row = {"particles": r["condition"]} | {f"{source} (%)": f"{m:.1f}" for source, m in mean.items()}
        row |= {
            "share of real": f"{mean[PHYSICS] / max(mean[REAL], 1e-9):.2f}",
            "AUC": f"{r['metrics'][PHYSICS]['auc']:.2f}",
        }
        row |= {"angular (real)": f"{r['metrics'][PHYSICS]['angular']:.2f} ({r['metrics'][REAL]['angular']:.2f})"}
        rows.append(row)
    return pd.DataFrame(rows)


def tomogram_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a data draw of `whole_tomograms`: least and most, over spatial frequency, of the size of the generator's T
    and of the power of its noise, both over the simulator's; and power of the noise in the wedge, in % of that outside,
    and over the simulator's.

    "below": below the lowest frequency of a particle's box; "beyond": beyond 0.3 cycles/voxel; else between these. The
    simulator's T is the root mean square over its tomograms.
    """
    rows = []
    for r in results:
        f, box = np.array(r["frequency"]), r["of_a_box"]
        made, real = ({k: np.array([c[k] for c in r[kind]]) for k in r[kind][0]} for kind in ("generator", "simulator"))
        row = {"tomograms": r["config"]["dataset"], "draw": r["config"]["data_seed"]}
        for name, ratio in (
            ("T", np.abs(made["transfer"].mean(0)) / np.sqrt((real["transfer"] ** 2).mean(0))),
            ("noise", made["noise"].mean(0) / real["noise"].mean(0)),
        ):
            for place, where in ((" below", f < box), ("", (f > box) & (f < 0.3)), (" beyond", f >= 0.3)):
                row |= {f"{name}{place}, least": ratio[where].min(), f"{name}{place}, most": ratio[where].max()}
        row |= {"in wedge": 100 * made["in_wedge"].mean(), "simulator's in wedge": 100 * real["in_wedge"].mean()}
        row["in wedge / simulator's"] = row["in wedge"] / row["simulator's in wedge"]
        rows.append(row | {"sign of T at Nyquist": np.sign(made["transfer"][0, -1])})
    return pd.DataFrame(rows)


def comparison_rows(results: Sequence[dict]) -> pd.DataFrame:
    """A row a source and data draw: dataset, snr, seed, source, mean accuracy over the probes nested in it."""
    rows = pd.concat(
        [pd.DataFrame(r["rows"]).assign(**{k: r["config"][k] for k in ("dataset", "snr", "seed")}) for r in results]
    )
    return rows.groupby(["dataset", "snr", "seed", "source"], sort=False)["accuracy"].mean().reset_index()


def comparison_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a source of training data, a column a set and SNR: accuracy on real test subtomograms (%), as
    `tables.over_draws`.

    The last rows are the generator's share of real, and the part of the gap from the best formula to real that it
    closes.
    """
    table, columns = comparison_rows(results), {}
    for (dataset, snr), part in table.groupby(["dataset", "snr"], sort=False):
        found = {source: g["accuracy"].to_numpy() for source, g in part.groupby("source", sort=False)}
        mean = {source: float(values.mean()) for source, values in found.items()}
        column = {
            s: over_draws(found[s], 1, (0, 100))
            for s in (*FORMULAS, RELEASED, WRONG_MICROSCOPE, BACKGROUND, TRUE, PHYSICS, REAL)
        }
        ratio = found[PHYSICS] / np.where(found[REAL] > 0, found[REAL], np.nan)
        column |= {"share of real": over_draws(ratio, 3), "gap closed": f"{gap_closed(mean)[PHYSICS]:.2f}"}
        columns[f"{dataset}, SNR {snr:g}"] = column | {"draws": str(part["seed"].nunique())}
    return pd.DataFrame(columns).rename_axis("trained on").reset_index()


def told_apart_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a set, SNR and kind of volumes: AUC, distances and power in the missing wedge against real test
    subtomograms.
    """
    rows = []
    groups: dict[tuple[str, float], list[dict]] = {}
    for r in results:
        groups.setdefault((r["config"]["dataset"], r["config"]["snr"]), []).append(r["metrics"])
    for (dataset, snr), found in groups.items():
        for source, label in ((PHYSICS, PHYSICS), (TRUE, "real, another draw"), (REAL, "real, train half")):
            columns = {
                title: over_draws([m[source][name] for m in found], digits, BOUNDS.get(name, (0, np.inf)))
                for title, name, digits in (
                    ("AUC", "auc", 2), ("log spectrum", "spectrum", 3), ("angular", "angular", 3),
                    ("wedge power / real", "wedge_power", 2),
                )
            }  # fmt: skip
            rows.append({"set": dataset, "SNR": snr, "volumes": label} | columns | {"draws": len(found)})
    return pd.DataFrame(rows)


def ingredient_table(parts: Sequence[dict]) -> pd.DataFrame:
    """Table 8, a row a set and form of the estimate: accuracy on real of a probe trained on it, how it is told apart,
    and the FSC of a mean of generations.

    The FSC is with the mean of recordings without noise: mean to half of Nyquist, and from there on.
    """
    groups: dict[tuple[str, str], list[dict]] = {}
    for r in parts:
        groups.setdefault((r["config"]["dataset"], r["variant"]), []).append(r)
    rows = []
    for (dataset, variant), found in groups.items():
        row: dict[str, object] = {
            "set": dataset,
            "estimate": variant,
            "accuracy on real (%)": over_draws([accuracy_of(r, PHYSICS) for r in found], 1, (0, 100)),
        }
        for title, metric, digits in (
            ("AUC", "auc", 2),
            ("angular", "angular", 2),
            ("moments", "moments", 2),
            ("wedge power / real", "wedge_power", 1),
        ):
            row[title] = over_draws(
                [r["metrics"][PHYSICS][metric] for r in found], digits, BOUNDS.get(metric, (0, np.inf))
            )
        middle = len(found[0]["fsc"]) // 2 + 1
        for title, chosen in (("FSC, low", slice(1, middle)), ("FSC, high", slice(middle, None))):
            row[title] = over_draws([float(np.mean(r["fsc"][chosen])) for r in found], 2, (-1, 1))
        rows.append(row | {"draws": len(found)})
    return pd.DataFrame(rows)


def accuracy_of(result: dict, source: str) -> float:
    """Accuracy on real after training on a source, mean over the probes of a result."""
    return float(np.mean([row["accuracy"] for row in result["rows"] if row["source"] == source]))


def given_table(results: Sequence[dict]) -> pd.DataFrame:
    """A row a kind of given densities: accuracy on real of each source, the physics generator's share of real, AUC and
    angular distance.
    """
    rows = []
    for r in results:
        mean = {source: accuracy_of(r, source) for source in dict.fromkeys(row["source"] for row in r["rows"])}
        share = mean[PHYSICS] / mean[REAL] if mean[REAL] else float("nan")
        row = {"densities given": r["given"]} | {f"{source} (%)": f"{m:.1f}" for source, m in mean.items()}
        rows.append(
            row
            | {
                "share of real": f"{share:.3f}",
                "AUC": f"{r['metrics']['auc']:.2f}",
                "angular": f"{r['metrics']['angular']:.3f}",
            }
        )
    return pd.DataFrame(rows)


def real_table(result: dict) -> pd.DataFrame:
    """A row a tomogram left out: distances of generated volumes from its particles, and of the real training particles
    in brackets.
    """
    names = ("spectrum", "angular", "moments", "autocorrelation", "auc")

    def wedge(tilts: list[float] | None) -> str:
        return "{:.0f} to {:.0f}".format(*tilts) if tilts else "-"

    rows = {
        tomogram: {"wedge used (°)": wedge(fold["tilt_range_deg"])}
        | {name: f"{fold['generated'][name]:.2f} ({fold['real'][name]:.2f})" for name in names}
        for tomogram, fold in result["folds"].items()
    }
    return pd.DataFrame(rows).T.rename_axis("left out")
