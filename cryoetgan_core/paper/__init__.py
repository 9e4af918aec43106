"""What notebooks and Snakemake call: check parameters, simulate a set, make a result by its name, and read results.

Each name is loaded when it is first used: a command that reads particles need not load every measurement.
"""

import importlib

_HOMES = {
    ".config": "PROFILES make_config",
    "catalogue": "compared_draws find_case foreign_cases make_result make_run planned_cases reads_stored_data "
    "results_of write_result",
    "densities": "given_names",
    "mismatch": "mismatch_names",
    "own_runs": "source_of stand_in_run",
    "parameters": "check_parameters choose parse_files parse_json parse_maps parse_seeds parse_shares profile_for "
    "reader_options",
    "plan": "ABLATION ablation_variant noise_variant planned_runs recipes resolve_run run_name",
    "proof": "ablation_names comparison_names",
    "real": "left_out_in_turn make_real",
    "record": "code_of described",
    "results": "committed is_committed made measured show_source",
    "runs": "train_on",
    "simulated_sets": "data_folder data_record default_device has_data simulate_data",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"cryoetgan_core.paper has no {name!r}; it has {', '.join(__all__)}, and its modules.")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
