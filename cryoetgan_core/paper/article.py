"""What `article/article.md` is filled with: numbers, tables and their origin, all from committed results."""

import json
from functools import lru_cache

import pandas as pd
from IPython.display import Markdown

from ..evaluation.downstream import PHYSICS, REAL
from ..reproducibility import paths
from .claims import Results, claims_table, mean
from .record import code_of

PROFILE, SEEDS = "quick", (0, 1, 2)


def numbers() -> dict[str, str]:
    """Every number of the article's prose, by name, as text."""
    r = Results(PROFILE, SEEDS)
    found = {}
    for dataset in ("S1", "S2"):
        found[f"{dataset}_physics"] = f"{mean(r.comparison(dataset, PHYSICS)):.1f}"
        found[f"{dataset}_real"] = f"{mean(r.comparison(dataset, REAL)):.1f}"
        evening = r.evening(dataset)
        found[f"{dataset}_evening"] = f"{mean(evening):.1f}"
        found[f"{dataset}_evening_range"] = f"{min(evening):.1f} to {max(evening):.1f} %"
    found["S1_quick"] = f"{mean(r.metric('S1', 'accuracy')):.1f}"
    found |= {"authors_physics": f"{r.authors(PHYSICS):.1f}", "authors_real": f"{r.authors(REAL):.1f}"}
    for name in ("ribosomes", "deepfinder"):
        found[f"{name}_angular"] = _joined([f"{ratio:.2f}" for ratio in r.folds(name, "angular")])
    return found


def _joined(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]


def artefacts() -> list[str]:
    """Names of the figures and tables that have a record of what they were drawn from."""
    return sorted(path.stem for path in paths.ROOT.joinpath("figures", PROFILE).glob("*.json"))


def drawn_from(name: str) -> str:
    """One sentence on the results behind a figure or table: how many, which data, which code, which commits."""
    record = json.loads((paths.ROOT / "figures" / PROFILE / f"{name}.json").read_text())
    results = record.get("results", {})
    if not results:
        return f"Drawn by the code {record['made_by']['code_hash']}."
    commits = sorted({r["provenance"]["commit"] for r in results.values()})
    parts = [f"{len(results)} result{'s' if len(results) > 1 else ''}"]
    for label, key in (("data", "data_hash"), ("code", "code_hash")):
        found = sorted({r[key] for r in results.values() if key in r})
        if found:
            parts.append(f"{label} {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else ""))
    parts.append(f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}")
    return ", ".join(parts) + (", **older code**." if any(map(_is_older, results.values())) else ".")


def _is_older(result: dict) -> bool:
    """Whether the code that made a result has changed since; `result` as a figure's record holds it."""
    generator = "physics" if result["preset"] == "physics" else "paper"
    try:
        return code_of(result["module"], generator) != result["code_hash"]
    except ValueError:  # its module is gone
        return True


def glue_all() -> None:
    """Put every number and every origin where the article's text finds it."""
    from myst_nb import glue  # only there where the article is built

    for name, text in numbers().items():
        glue(name, Markdown(text), display=False)
    for name in artefacts():
        glue(f"from_{name}", Markdown(f"<small>{drawn_from(name)}</small>"), display=False)


@lru_cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(paths.ROOT / "figures" / PROFILE / f"{name}.csv", dtype=str, keep_default_na=False)


def table(name: str) -> object:
    """A committed table, without its row numbers."""
    return _table(name).style.hide(axis="index")


def claims() -> object:
    """Every claim with what was found, and pass or FAIL."""
    return claims_table(PROFILE, SEEDS).style.hide(axis="index")
