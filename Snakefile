"""The paper as a graph of notebooks: simulate the sets, train and evaluate every run, draw every figure and table.

    snakemake --cores 2 --config profile=quick seeds="0 1 2"
    snakemake proof --cores 2 --config profile=quick seeds="0 1 2"

Each rule runs one notebook with papermill; the executed copy is kept beside the run. A changed parameter of a profile or preset re-runs what depends on it.
"""

import dataclasses
import json
import os
import shlex

from cryoetgan_core import paths
from cryoetgan_core import workflow as paper
from cryoetgan_core.config import DATASETS, make_config
from cryoetgan_core.specimen.databases import is_identifier
from cryoetgan_core.specimen.render import parse_source

# Shell lines take every parameter quoted ({params.x:q}), or as one of these two, which hold nothing that a shell reads.
PROFILE = str(config.get("profile", "quick"))
paper.choose("profile", PROFILE, paper.PROFILES)
SEEDS = " ".join(map(str, paper.parse_seeds(str(config.get("seeds", "0")))))
MAPS = str(config.get("maps") or "")  # files in place of embedded models: "ribosome=/data/80S.mrc, tric=model.cif"
PLAN = paper.planned_runs(PROFILE, paper.parse_seeds(SEEDS))


def local(path):
    """Return the path as seen from the repository, for readable messages."""
    return os.path.relpath(path, paths.ROOT)


RUNS, RESULTS, FIGURES = local(paths.runs(PROFILE)), local(paths.results(PROFILE)), local(paths.figures(PROFILE))
EXECUTED = shlex.quote(f"{RUNS}/notebooks")
TIMES = f"{RUNS}/times"  # what each job took, for notebooks/benchmark_figures.ipynb
PAPERMILL = "papermill --no-progress-bar --log-level WARNING"
HUSH = " 2> >(grep -v IPKernelApp >&2)"  # ipykernel warns of its local TCP socket at every start


def result(*names):
    return [f"{RESULTS}/{name}.json" for name in names]


def each_seed(dataset, preset, variants=("",)):
    return result(*(paper.run_name(dataset, preset, s, v) for s in paper.parse_seeds(SEEDS) for v in variants))


MAIN = [*each_seed("S1", "adapted"), *each_seed("S2", "adapted")]
RECIPES = [r for dataset, presets in paper.RECIPES.items() for preset in presets for r in each_seed(dataset, preset)]
NOISE = each_seed("S1", "adapted", [paper.noise_variant(level) for level in paper.PROFILES[PROFILE].noise_levels])
ABLATION = each_seed("S1", "adapted", [paper.ablation_variant(name) for name in paper.ABLATION])
AUDIT = f"{RESULTS}/audit_S1.json"
DOWNSTREAM = [f"{RESULTS}/downstream_S1_{w}.json" for w in ("reference", *(f"seed{s}" for s in paper.parse_seeds(SEEDS)))]
# notebook: (results it reads, artefacts it writes)
FIGURE_NOTEBOOKS = {
    "fig1_overview": (MAIN, ["fig1_overview"]),
    "fig2_generated": (RECIPES, ["fig2_generated"]),
    "fig3_real": (MAIN, ["fig3_real", "table1_datasets"]),
    "fig4_uncertainty": (MAIN, ["fig4_uncertainty", "summary"]),
    "fig5_fig6_noise": (NOISE, ["fig5_inception_score", "fig6_frechet_distance", "table3_noise"]),
    "fig7_power_spectra": ([*MAIN, AUDIT], ["fig7_power_spectra"]),
    "metric_audit": ([*MAIN, AUDIT], ["table5_audit_S1"]),
    "table6_downstream": (DOWNSTREAM, ["table6_downstream_S1", "fig8_learning_curves_S1"]),
    "specimen_models": ([], ["specimen_models"]),
    "atoms_to_subtomogram": ([], ["microscope_walk"]),
    "physics_generator": ([], ["fig9_physics_S1", "fig10_transfer_and_noise_S1", "fig10_transfer_and_noise_S2", "fig11_variance_by_source_S1"]),
    "table7_physics": ([], ["table7_physics", "fig12_accuracy_by_snr"]),
    "table8_ingredients": ([], ["table8_ingredients"]),
    "table9_densities": ([], ["table9_given_densities"]),
    "fig13_defocus": ([], ["fig13_defocus"]),
    "table2_metrics": (RECIPES, ["table2_metrics"]),
    "table4_ablation": (ABLATION, ["table4_wasserstein_spectral"]),
}


rule all:
    input:
        [f"{FIGURES}/{name}.json" for _, names in FIGURE_NOTEBOOKS.values() for name in names],
        RECIPES, NOISE, ABLATION,


wildcard_constraints:
    dataset="S1|S2",
    name=r"S\d_.+",  # a run, not one of the other measurements beside it


def data_parameters(wildcards):
    """Everything that a set depends on: a change of any re-simulates it."""
    return paper.data_record(make_config(PROFILE, wildcards.dataset))


def maps_of(wildcards):
    """Those of the given files that stand for a class of the set, with absolute paths."""
    chosen = {k: v for k, v in paper.parse_maps(MAPS).items() if k in DATASETS[wildcards.dataset].classes}
    return ", ".join(
        f"{name}={path if is_identifier(parse_source(path)[0]) else os.path.abspath(path)}" for name, path in chosen.items()
    )


rule simulate_data:
    input:
        "notebooks/simulate_data.ipynb",
    output:
        f"{RUNS}/data/{{dataset}}/data.json",
    params:
        depends_on=data_parameters,
        maps=maps_of,
    benchmark:
        f"{TIMES}/simulate_data/{{dataset}}.tsv"
    threads: 1
    shell:
        f"mkdir -p {EXECUTED} && {PAPERMILL} {{input:q}} {EXECUTED}/simulate_data_{{wildcards.dataset:q}}.ipynb"
        f" -p profile {PROFILE} -p dataset {{wildcards.dataset:q}} -r maps {{params.maps:q}}{HUSH}"


rule train:
    input:
        data=lambda w: f"{RUNS}/data/{PLAN[w.name].dataset}/data.json",
        notebook="notebooks/train.ipynb",
    output:
        f"{RUNS}/{{name}}/weights.safetensors",
        f"{RESULTS}/{{name}}.json",
    params:
        depends_on=lambda w: dataclasses.asdict(PLAN[w.name]),
    benchmark:
        f"{TIMES}/train/{{name}}.tsv"
    threads: 1
    resources:
        gpu=1,  # runs share a GPU only if told to (--resources gpu=2); without one, the limit is not set
    shell:
        f"mkdir -p {EXECUTED} && {PAPERMILL} {{input.notebook:q}} {EXECUTED}/train_{{wildcards.name:q}}.ipynb"
        f" -p profile {PROFILE} -p run {{wildcards.name:q}}{HUSH}"


rule audit:
    input:
        data=f"{RUNS}/data/S1/data.json",
        main=each_seed("S1", "adapted")[0],
        notebook="notebooks/metric_audit.ipynb",
    output:
        AUDIT,
    params:
        seed=paper.parse_seeds(SEEDS)[0],
    benchmark:
        f"{TIMES}/audit/S1.tsv"
    threads: 1
    shell:
        f"{PAPERMILL} {{input.notebook:q}} {EXECUTED}/measure_audit.ipynb -p profile {PROFILE} -r seeds {{params.seed:q}} -p measure True{HUSH}"


rule downstream:
    input:
        lambda w: f"{RUNS}/data/S1/data.json" if w.which == "reference" else f"{RESULTS}/S1_adapted_{w.which}.json",
        notebook="notebooks/table6_downstream.ipynb",
    output:
        f"{RESULTS}/downstream_S1_{{which}}.json",
    wildcard_constraints:
        which="reference|seed[0-9]+",
    benchmark:
        f"{TIMES}/downstream/{{which}}.tsv"
    threads: 1
    shell:
        f"{PAPERMILL} {{input.notebook:q}} {EXECUTED}/measure_downstream_{{wildcards.which:q}}.ipynb -p profile {PROFILE}"
        f" -r measure {{wildcards.which:q}}{HUSH}"


rule prove:
    input:
        "notebooks/prove_physics.ipynb",
    output:
        f"{RESULTS}/physics_{{case}}.json",
    benchmark:
        f"{TIMES}/prove/{{case}}.tsv"
    threads: 1
    resources:
        gpu=1,
    shell:
        f"mkdir -p {EXECUTED} && {PAPERMILL} {{input:q}} {EXECUTED}/physics_{{wildcards.case:q}}.ipynb"
        f" -p profile {PROFILE} -r case physics_{{wildcards.case:q}}{HUSH}"


rule proof:
    input:
        result(*paper.proof_cases(PROFILE, paper.parse_seeds(SEEDS))),
        # those of homologues need files, or a network
        result(*(name for name in paper.given_cases(PROFILE, paper.parse_seeds(SEEDS)[0]) if "homologue" not in name)),


for notebook, (reads, writes) in FIGURE_NOTEBOOKS.items():

    rule:
        name:
            notebook
        input:
            results=reads,
            notebook=f"notebooks/{notebook}.ipynb",
        output:
            [f"{FIGURES}/{name}.json" for name in writes],
        params:
            seeds=f" -r seeds '{SEEDS}'" if reads else "",  # those that read no run of this call take none
            out=f"{RUNS}/notebooks/{notebook}.ipynb",
        benchmark:
            f"{TIMES}/figures/{notebook}.tsv"
        threads: 1
        shell:
            f"mkdir -p {EXECUTED} && {PAPERMILL} {{input.notebook:q}} {{params.out:q}} -p profile {PROFILE}{{params.seeds}}{HUSH}"
