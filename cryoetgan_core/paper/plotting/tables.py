"""Tables: mean over data draws and training seeds with an interval, formatted so that a rounded table redraws to the
same text.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ...evaluation.metrics import student_interval

SIX = ("psnr", "precision", "recall", "density", "coverage", "accuracy")


# What a metric can be: an interval is cut off there
BOUNDS = {
    **dict.fromkeys(("accuracy",), (0.0, 100.0)),
    **dict.fromkeys(("auc", "nearest_train"), (0.0, 1.0)),
    **{
        f"{prefix}{name}": (0.0, 1.0)
        for prefix in ("", "feature_", "standardised_")
        for name in ("precision", "recall", "coverage")
    },
    **{f"{prefix}density": (0.0, np.inf) for prefix in ("", "feature_", "standardised_")},
    **dict.fromkeys(
        ("fid", "spectrum", "angular", "moments", "autocorrelation", "uncertainty_ratio"), (0.0, np.inf)
    ),
    "inception_score": (1.0, np.inf),
    **dict.fromkeys(("molecule", "molecule_ceiling", "uncertainty_rank"), (-1.0, 1.0)),
}  # fmt: skip


def over_draws(values: Sequence[float], digits: int, bounds: tuple[float, float] = (-np.inf, np.inf)) -> str:
    """'mean [low, high]': Student's 95 % interval over independent data draws and training seeds, cut off at `bounds`;
    one value alone; 'value in each' where several draws gave the same one, whose spread is not known.
    """
    mean, low, high = student_interval(values, bounds=bounds)
    texts = [f"{round(v, digits) + 0.0:.{digits}f}" for v in (mean, low, high)]  # -0.00 becomes 0.00
    if len(values) > 1 and len(set(values)) == 1:
        return f"{texts[0]} in each"
    return texts[0] if len(values) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def metric_table(
    rows: dict[str, list[dict]], metrics: tuple[str, ...] = SIX, digits: dict[str, int] | None = None
) -> pd.DataFrame:
    """One row a label, one column a metric, as `over_draws`; accuracy in per cent with one digit; a dash where a metric
    was not measured.

    Parameters
    ----------
    rows
        label to the metrics dictionaries of its runs, one a data draw and training seed.
    """
    digits = {"accuracy": 1, "fid": 1} | (digits or {})
    table = []
    for label, runs in rows.items():
        row: dict[str, object] = {"run": label}
        for m in metrics:
            there = all(m in r for r in runs)
            row[m] = (
                over_draws([r[m] for r in runs], digits.get(m, 2), BOUNDS.get(m, (-np.inf, np.inf))) if there else "–"
            )
        table.append(row | {"draws": len(runs)})
    return pd.DataFrame(table)


def confusion_table(run: dict, which: str = "confusion") -> pd.DataFrame:
    """Per cent of each class (rows) that the classifier calls each class (columns): "confusion" of generated,
    "real_confusion" of real volumes.
    """
    counts = np.array(run[which], dtype=float)
    return pd.DataFrame(
        (100 * counts / counts.sum(1, keepdims=True)).round().astype(int), index=run["classes"], columns=run["classes"]
    )


def never_named(runs: Mapping[str, dict]) -> dict[str, dict[str, int]]:
    """Classes that the reference classifier never names among the generated volumes of a class that it should: run to
    class to volumes.

    A class is listed where not one of the volumes generated from its densities is called by its name.
    """
    found = {}
    for name, run in runs.items():
        missed = {
            c: sum(row) for k, (c, row) in enumerate(zip(run["classes"], run["confusion"], strict=True)) if row[k] == 0
        }
        if missed:
            found[name] = missed
    return found
