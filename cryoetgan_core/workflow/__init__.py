"""What notebooks and Snakemake call: check parameters, simulate a set, train and evaluate a run, measure, and read results."""

from .. import paths
from ..config import PROFILES, make_config
from .densities import given_cases, given_results, proof_case
from .measurements import downstream_result, make_audit, measured
from .parameters import check_parameters, choose, parse_files, parse_json, parse_maps, parse_seeds, parse_shares
from .plan import ABLATION, RECIPES, ablation_variant, noise_variant, planned_runs, resolve_run, run_name
from .profile import figures_profile, profile_table
from .proof import proof_cases, proof_results
from .quality import JUDGED, quality_results
from .real import real_case, real_volumes
from .runs import keep_source, load_results, make_result, source_of, stand_in_run, train_on
from .simulated_sets import data_folder, data_record, default_device, has_data, simulate_data
from .speed import make_speed

__all__ = [
    "ABLATION", "JUDGED", "PROFILES", "RECIPES", "ablation_variant", "check_parameters", "choose", "data_folder", "data_record", "default_device",
    "downstream_result", "figures_profile", "given_cases", "given_results", "has_data", "keep_source", "load_results", "make_audit", "make_config", "make_result", "make_speed", "measured", "noise_variant", "parse_files", "parse_json",
    "parse_maps", "parse_seeds", "parse_shares", "paths", "planned_runs", "profile_table", "proof_case", "proof_cases", "proof_results", "quality_results", "real_case", "real_volumes", "resolve_run", "run_name", "simulate_data", "source_of", "stand_in_run", "train_on",
]  # fmt: skip
