"""How results are read: never another configuration's, never of two data sets at once, and said aloud whose."""

import dataclasses
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..config import OWN_DATA, RunConfig
from ..reproducibility import paths
from ..reproducibility.files import read_json, write_atomically
from ..reproducibility.provenance import provenance
from .record import is_older
from .simulated_sets import DATA_FIELDS

OWN, COMMITTED = "own", "committed"
REMEDY = "delete both files of this result and make it again (`make figures`)"


def read_results(profile: str, wanted: Mapping[str, RunConfig]) -> dict[str, dict]:
    """Results by name, with their slices (key "slices") where they have some and whose they are (key "read_from").

    One's own where all are there, else the committed ones; the two are never mixed.

    Raises FileNotFoundError when some are missing; the message says which, and how to make them; ValueError when a
    result is of another configuration than `wanted`, or two that should share their data do not.
    """
    own, committed = paths.results(profile), paths.reference(profile)

    def missing_in(folder: Path) -> list[str]:
        return [name for name in wanted if not (folder / f"{name}.json").exists()]

    folder = own if not missing_in(own) or missing_in(committed) else committed
    if missing_in(folder):
        raise FileNotFoundError(
            f"{folder} lacks the results {', '.join(missing_in(folder))}: run `make figures PROFILE={profile}` "
            "(SEEDS='0 1 2' for three seeds)."
        )
    results = {}
    for name, config in wanted.items():
        path = folder / f"{name}.json"
        result = read_json(path, REMEDY)
        _check_configuration(result, config, path)
        # not with_suffix: names such as S1_adapted_noise0.5_seed0 hold a dot
        if (slices := folder / f"{name}.npz").exists():
            result["slices"] = _read_slices(slices)
        results[name] = result | {"read_from": OWN if folder == own else COMMITTED}
    check_same_data(results)
    return results


def _read_slices(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {k: file[k].astype(np.float32) for k in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}): {REMEDY}.") from None


def _check_configuration(result: dict, config: RunConfig, path: Path) -> None:
    if result.get("config_hash") == config.hash:
        return
    found, wanted = result.get("config", {}), dataclasses.asdict(config)
    different = [f"{k} {found[k]!r}, not {v!r}" for k, v in wanted.items() if k in found and found[k] != v]
    raise ValueError(
        f"{path} was made with another configuration "
        f"({'; '.join(different) or 'fields were added or taken away since'}): "
        f"run `make figures PROFILE={config.profile}` to make it again."
    )


def check_same_data(results: Mapping[str, dict]) -> None:
    """Raise ValueError where two results of one data draw were measured on other volumes, or by another reference
    classifier. Files of others, which no draw names, are not compared.
    """
    for kind in ("data_hash", "classifier_hash"):
        seen: dict[str, tuple[str, str]] = {}
        for name, result in results.items():
            if kind not in result or result["config"]["dataset"] == OWN_DATA:
                continue
            draw = json.dumps(
                [result["config"]["dataset"], result.get("recorded", ""), *(result["config"][f] for f in DATA_FIELDS)]
            )
            other, hash_there = seen.setdefault(draw, (name, result[kind]))
            if hash_there != result[kind]:
                what = "other data" if kind == "data_hash" else "another reference classifier"
                raise ValueError(
                    f"{name} and {other} were measured on {what} ({kind} {result[kind]}, {hash_there}): make both "
                    "again."
                )


def show_source(results: Mapping[str, dict]) -> None:
    """Print whose results are shown, by which commit and machine they were made, and which of them older code made."""
    all_of = list(results.values())
    profile = all_of[0]["config"]["profile"]
    committed_ones = all_of[0]["read_from"] == COMMITTED
    folder = f"figures/{profile}/results, committed" if committed_ones else f"runs/{profile}/results, your own"
    commits = sorted({r["provenance"]["commit"] + ("" if r["provenance"]["clean"] else ", changed") for r in all_of})
    machines = sorted({r["provenance"]["gpu"] or r["provenance"]["processor"] for r in all_of})
    print(f"Results ({len(all_of)}) from {folder}; commit {', '.join(commits)}; {', '.join(machines)}")
    older = [name for name, r in results.items() if is_older(r)]
    if older:
        print(
            f"The code has changed since for {len(older)} of them "
            f"({', '.join(older[:3])}{', ...' if len(older) > 3 else ''})."
        )


def measured(profile: str, name: str, make: Callable[[], dict], *, anew: bool = False) -> dict:
    """A table of times by name: one's own or the committed one; made `anew` where asked for, and in the smoke profile
    where it is missing.

    Raises FileNotFoundError when it is missing in another profile; the message says how to make it.
    """
    own, reference = paths.results(profile) / f"{name}.json", paths.reference(profile) / f"{name}.json"
    if anew or (profile == "smoke" and not own.exists()):
        start = time.perf_counter()
        result = make()
        own.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            result | {"seconds": round(time.perf_counter() - start, 1), "provenance": provenance()}, indent=1
        )
        write_atomically(own, lambda p: p.write_text(text))
    for path in (own, reference):
        if path.exists():
            return read_json(path, "delete it and make the measurement again")
    raise FileNotFoundError(
        f"{own} is missing: run `make figures PROFILE={profile}`, or this notebook with measure set to True."
    )


def committed(name: str, profile: str = "quick") -> dict:
    """A committed table by name, of what is not made anew."""
    return read_json(paths.reference(profile) / f"{name}.json", "check the file out again")


def is_committed(name: str, profile: str) -> bool:
    """Whether a result is among the committed ones of a profile."""
    return (paths.reference(profile) / f"{name}.json").exists()


def made(profile: str, names: list[str]) -> list[str]:
    """Those of the results that there are: one's own where there is any, else the committed ones; all of them in the
    smoke profile, which makes what is missing.
    """
    if profile == "smoke":
        return names
    own = [name for name in names if (paths.results(profile) / f"{name}.json").exists()]
    return own or [name for name in names if is_committed(name, profile)]
