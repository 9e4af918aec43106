"""The paper as a graph of notebooks: simulate the sets, train and measure every case, draw every figure and table.

    snakemake --cores 2 --config profile=quick seeds="0 1 2"
    snakemake foreign --cores 2 --config profile=quick files=../data    # on files that are not part of the project
    snakemake switches --cores 2                                        # ten trainings of each switch: hours

Each rule runs one notebook with papermill; the executed copy is kept beside the run. A changed parameter of a profile
or preset, and changed code of the modules concerned (`provenance.code_hash`), make again what depends on it.
"""

import dataclasses
import os
import shlex

from cryoetgan_core import paper
from cryoetgan_core.config import DATASETS
from cryoetgan_core.reproducibility import paths
from cryoetgan_core.reproducibility.provenance import code_hash
from cryoetgan_core.simulator.specimen.databases import is_identifier
from cryoetgan_core.simulator.specimen.render import parse_source

# Shell lines take every parameter quoted ({params.x:q}), or as one of these two, which hold nothing that a shell reads.
PROFILE = str(config.get("profile", "quick"))
paper.choose("profile", PROFILE, paper.PROFILES)
SEEDS = " ".join(map(str, paper.parse_seeds(str(config.get("seeds", "0")))))
MAPS = str(config.get("maps") or "")  # files in place of embedded models: "ribosome=/data/80S.mrc, tric=model.cif"
FILES = str(config.get("files") or "")  # folder of the files that the rule `foreign` reads
NUMBERS = paper.parse_seeds(SEEDS)
FOREIGN = paper.foreign_cases(PROFILE, NUMBERS[0])
CASES = paper.planned_cases(PROFILE, NUMBERS) | FOREIGN
RUN_CASES = [name for name, case in CASES.items() if case.module == "paper.runs"]


def local(path):
    """Return the path as seen from the repository, for readable messages."""
    return os.path.relpath(path, paths.ROOT)


RUNS, RESULTS, FIGURES = local(paths.runs(PROFILE)), local(paths.results(PROFILE)), local(paths.figures(PROFILE))
EXECUTED = shlex.quote(f"{RUNS}/notebooks")
TIMES = f"{RUNS}/times"  # what each job took, for notebooks/benchmarks.ipynb
PAPERMILL = "papermill --no-progress-bar --log-level WARNING"
HUSH = " 2> >(grep -v IPKernelApp >&2)"  # ipykernel warns of its local TCP socket at every start


def results(names):
    return [f"{RESULTS}/{name}.json" for name in names]


def each_seed(dataset, preset, variants=("",)):
    return results(paper.run_name(dataset, preset, s, v) for s in NUMBERS for v in variants)


def data_of(case):
    """data.json of the stored set that a case reads."""
    return f"{local(paper.data_folder(case.config))}/data.json"


MAIN = [*each_seed("S1", "adapted"), *each_seed("S2", "adapted")]
RECIPES = [
    r
    for dataset, presets in paper.recipes(PROFILE).items()
    for preset in presets
    for r in each_seed(dataset, preset)
]
NOISE = each_seed("S1", "adapted", [paper.noise_variant(level) for level in paper.PROFILES[PROFILE].noise_levels])
ABLATION = each_seed("S1", "adapted", [paper.ablation_variant(name) for name in paper.ABLATION])
SPREAD = results(f"spread_{dataset}_seed{NUMBERS[0]}" for dataset in DATASETS)
SWITCHES = results(name for name, case in CASES.items() if case.module == "paper.switches")
AUDIT = results([f"audit_S1_seed{NUMBERS[0]}"])
DOWNSTREAM = results(f"downstream_S1_seed{s}" for s in NUMBERS)
COMPARISONS = results(paper.comparison_names(PROFILE, paper.compared_draws(NUMBERS)))
# Table 25 and Figure 26 show the quick profile's, whichever profile is made
PICK_ERRORS, TOMOGRAMS = (
    results(f"{name}_{d}_seed{NUMBERS[0]}" for d in DATASETS) if PROFILE == "quick" else []
    for name in ("pick_errors", "whole_tomograms")
)
PARTS = results(paper.ablation_names(PROFILE, NUMBERS))
MISMATCH = results(paper.mismatch_names(PROFILE, NUMBERS[0]))
DENSITIES = results(paper.given_names(PROFILE, NUMBERS[0]))
DEFOCUS = results([f"physics_defocus_seed{NUMBERS[0]}"])
REACH = results(f"physics_{name}_seed{NUMBERS[0]}" for name in ("few", "poses"))
INTERPRETATION = results(f"physics_interpretation_{dataset}_seed{NUMBERS[0]}" for dataset in DATASETS)
# notebook: (results it reads, artefacts it writes)
FIGURE_NOTEBOOKS = {
    "figures_1_to_4": (
        [*RECIPES, *SPREAD],
        [
            "fig1_overview",
            "fig2_generated",
            "fig3_real",
            "table1_datasets",
            "fig4_uncertainty",
            "fig18_reliability",
        ],
    ),
    "table2_metrics": (RECIPES, ["table2_metrics"]),
    "noise_and_loss": (
        [*NOISE, *ABLATION],
        ["fig5_inception_score", "fig6_frechet_distance", "table3_noise", "table4_wasserstein_spectral"],
    ),
    "metric_audit": ([*MAIN, *AUDIT], ["table5_audit_S1", "fig7_power_spectra"]),
    "training_data": (
        [*DOWNSTREAM, *COMPARISONS, *PICK_ERRORS],
        [
            "table6_downstream_S1",
            "fig8_learning_curves_S1",
            "table7_physics",
            "fig12_accuracy_by_snr",
            "table25_pick_errors",
        ],
    ),
    "atoms_to_subtomogram": ([], ["specimen_models", "microscope_walk"]),
    "physics_generator": (
        INTERPRETATION,
        [
            *(f"{name}_{d}" for name in ("fig9_physics", "fig10_transfer_and_noise") for d in DATASETS),
            "fig11_shells_of_means",
        ],
    ),
    "physics_measurements": (
        [*PARTS, *DENSITIES, *MISMATCH, *REACH, *DEFOCUS, *TOMOGRAMS],
        [
            "table8_ingredients",
            "table9_given_densities",
            "table11_mismatch",
            "table12_poses",
            "fig15_few_particles",
            "fig13_defocus",
            "fig26_whole_tomograms",
        ],
    ),
    # drawn from committed results, unless the rule `foreign` made one's own
    "foreign_data": ([], ["fig14_ribosomes", "table10_authors_simulator"]),
}


rule all:
    input:
        [f"{FIGURES}/{name}.json" for _, names in FIGURE_NOTEBOOKS.values() for name in names],


rule foreign:
    input:
        results(FOREIGN),


# ten trainings of each noise level and switch of the loss on two draws: hours
rule switches:
    input:
        SWITCHES,


wildcard_constraints:
    dataset="S1|S2",
    draw=r"\d+",


def data_parameters(wildcards):
    """Everything that a set depends on: a change of any re-simulates it."""
    configuration = paper.make_config(PROFILE, wildcards.dataset, seed=int(wildcards.draw))
    return paper.data_record(configuration) | {"code": code_hash("paper.simulated_sets")}


def maps_of(wildcards):
    """Those of the given files that stand for a class of the set, with absolute paths, as papermill takes them."""
    chosen = {k: v for k, v in paper.parse_maps(MAPS).items() if k in DATASETS[wildcards.dataset].classes}
    text = ", ".join(
        f"{name}={path if is_identifier(parse_source(path)[0]) else os.path.abspath(path)}"
        for name, path in chosen.items()
    )
    return ["-r", "maps", text] if text else []


rule simulate_data:
    input:
        "notebooks/simulate_data.ipynb",
    output:
        f"{RUNS}/data/{{dataset}}_draw{{draw}}/data.json",
    params:
        depends_on=data_parameters,
        maps=maps_of,
    benchmark:
        f"{TIMES}/simulate_data/{{dataset}}_draw{{draw}}.tsv"
    threads: 1
    shell:
        f"mkdir -p {EXECUTED} && {PAPERMILL} {{input:q}} "
        f"{EXECUTED}/simulate_data_{{wildcards.dataset:q}}_{{wildcards.draw:q}}.ipynb"
        f" -p profile {PROFILE} -p dataset {{wildcards.dataset:q}} -p seed {{wildcards.draw:q}} {{params.maps:q}}{HUSH}"


def parameters_of(wildcards):
    """Everything that a result depends on but its data."""
    case = CASES[wildcards.name]
    return {"config": dataclasses.asdict(case.config), "code": paper.code_of(case.module, case.config.generator)}


rule train:
    input:
        data=lambda w: data_of(CASES[w.name]),
        notebook="notebooks/train.ipynb",
    output:
        f"{RUNS}/{{name}}/weights.safetensors",
        f"{RESULTS}/{{name}}.json",
    wildcard_constraints:
        name="|".join(RUN_CASES),
    params:
        depends_on=parameters_of,
    benchmark:
        f"{TIMES}/train/{{name}}.tsv"
    threads: 1
    resources:
        gpu=1,  # runs share a GPU only if told to (--resources gpu=2); without one, the limit is not set
    shell:
        f"mkdir -p {EXECUTED} && {PAPERMILL} {{input.notebook:q}} {EXECUTED}/train_{{wildcards.name:q}}.ipynb"
        f" -p profile {PROFILE} -p run {{wildcards.name:q}}{HUSH}"


rule measure:
    input:
        notebook="notebooks/measure.ipynb",
        data=lambda w: [data_of(CASES[w.name])] if paper.reads_stored_data(CASES[w.name]) else [],
        run=lambda w: [f"{RUNS}/{CASES[w.name].needs}/weights.safetensors"] if CASES[w.name].needs else [],
        other=lambda w: results([CASES[w.name].reads]) if CASES[w.name].reads else [],
    output:
        f"{RESULTS}/{{name}}.json",
    wildcard_constraints:
        name="|".join(name for name in CASES if name not in RUN_CASES),
    params:
        depends_on=parameters_of,
        files=lambda w: ["-r", "files", os.path.abspath(FILES)] if w.name in FOREIGN else [],
    benchmark:
        f"{TIMES}/measure/{{name}}.tsv"
    threads: 1
    resources:
        gpu=1,
    shell:
        f"mkdir -p {EXECUTED} && {PAPERMILL} {{input.notebook:q}} {EXECUTED}/measure_{{wildcards.name:q}}.ipynb"
        f" -p profile {PROFILE} -r case {{wildcards.name:q}} {{params.files:q}}{HUSH}"


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
            seeds=["-r", "seeds", SEEDS] if reads else [],  # those that read no result take none
            out=f"{RUNS}/notebooks/{notebook}.ipynb",
            code=code_hash("paper.plotting"),
        benchmark:
            f"{TIMES}/figures/{notebook}.tsv"
        threads: 1
        shell:
            f"mkdir -p {EXECUTED} && {PAPERMILL} {{input.notebook:q}} {{params.out:q}} "
            f"-p profile {PROFILE} {{params.seeds:q}}{HUSH}"
