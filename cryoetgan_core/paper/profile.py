"""What `make figures` spent its time on: the jobs that the Snakefile timed, and of the trainings what was training."""

import time

import pandas as pd
import torch

from ..config import make_config
from ..reproducibility import paths
from ..run_folder import read_log
from .benchmark import memory_GiB
from .simulated_sets import simulate_data
from .timing import hardware


def figures_profile(profile: str) -> dict:
    """Wall time, processor time and memory of every job of the last `make figures` of a profile.

    Returns
    -------
    dict
        hardware; jobs, a list of rule, job, seconds, processor seconds, peak memory in MiB and, of trainings, the
        seconds that the steps took.

    Raises
    ------
    FileNotFoundError
        When no job was timed yet.
    """
    folder = paths.runs(profile) / "times"
    files = sorted(folder.glob("*/*.tsv"))
    if not files and profile == "smoke":  # one job stands in
        start = time.perf_counter()
        simulate_data(make_config("smoke"))
        spent = {
            "seconds": time.perf_counter() - start,
            "processor_s": time.process_time(),
            "memory_MiB": memory_GiB(torch.device("cpu")) * 1024,
        }
        return {"hardware": hardware(), "jobs": [{"rule": "simulate_data", "job": "S1"} | spent]}
    if not files:
        raise FileNotFoundError(f"{folder} holds no times of jobs: run `make figures PROFILE={profile}` first.")
    jobs = []
    for path in files:
        row = pd.read_csv(path, sep="\t").iloc[0]
        job = {"rule": path.parent.name, "job": path.stem, "seconds": float(row["s"])}
        job |= {"processor_s": float(row["cpu_time"]), "memory_MiB": float(row["max_rss"])}
        folder = paths.runs(profile) / path.stem
        if job["rule"] == "train" and (folder / "log.jsonl").exists():
            job["steps_s"] = read_log(folder)[-1]["seconds"]
        jobs.append(job)
    return {"hardware": hardware(), "jobs": jobs}


def profile_table(found: dict) -> pd.DataFrame:
    """Rows by what the time went into, the largest first: jobs, seconds together, their share, and the most memory of
    one of them.

    Trainings are told apart into their steps and the rest, which is a notebook's start, the measuring of the run, and
    what the figures read of it.
    """
    jobs = pd.DataFrame(found["jobs"])
    steps = jobs["steps_s"].fillna(0) if "steps_s" in jobs else 0.0
    parts = [
        jobs.assign(part=jobs["rule"].replace({"train": "train: measuring the run"}), spent=jobs["seconds"] - steps)
    ]
    parts.append(jobs.assign(part="train: steps", spent=steps)[jobs["rule"] == "train"])
    table = (
        pd.concat(parts)
        .groupby("part")
        .agg(jobs=("job", "size"), seconds=("spent", "sum"), memory_MiB=("memory_MiB", "max"))
    )
    table.insert(2, "share_percent", 100 * table["seconds"] / table["seconds"].sum())
    return table.sort_values("seconds", ascending=False)
