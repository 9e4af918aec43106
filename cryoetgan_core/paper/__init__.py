"""What notebooks and Snakemake call: check parameters, simulate a set, make a result by its name, and read results."""

from ..config import PROFILES, make_config
from .catalogue import (
    compared_draws,
    find_case,
    foreign_cases,
    make_result,
    make_run,
    planned_cases,
    reads_stored_data,
    results_of,
    write_result,
)
from .densities import given_names
from .mismatch import mismatch_names
from .own_runs import source_of, stand_in_run
from .parameters import (
    check_parameters,
    choose,
    parse_files,
    parse_json,
    parse_maps,
    parse_seeds,
    parse_shares,
    profile_for,
    reader_options,
)
from .plan import ABLATION, ablation_variant, noise_variant, planned_runs, recipes, resolve_run, run_name
from .proof import ablation_names, comparison_names
from .real import left_out_in_turn, make_real
from .record import code_of, described
from .results import committed, is_committed, made, measured, show_source
from .runs import train_on
from .simulated_sets import data_folder, data_record, default_device, has_data, simulate_data
