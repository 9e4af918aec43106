"""Figures and tables of the paper, drawn from results; one `savefig` and one `save_table` write every artefact."""

from .artefacts import save_table, savefig, use_style
from .curves import density_sheet, shell_curves, walk
from .evidence import AUDITED, audit_table, downstream_table, learning_curves, power_spectra
from .operator import (
    accuracy_by_snr,
    few_particles,
    generated_sheet,
    mixed_sheet,
    shell_agreement,
    shells_of_means,
    transfer_and_noise,
    transfer_curves,
)
from .operator_tables import (
    comparison_table,
    given_table,
    ingredient_table,
    mismatch_table,
    pose_table,
    real_table,
    told_apart_table,
)
from .panels import SHORT, contact_sheet, summary, translated
from .report import report_figure
from .scheme import overview
from .spread_panels import noise_sweep, reliability_curves, uncertainty_maps
from .switches import switch_strips, switch_table
from .tables import (
    confusion_table,
    dataset_table,
    metric_table,
    never_named,
    over_draws,
    spread_table,
)

__all__ = [
    "mixed_sheet",
    "real_table",
    "shell_agreement",
    "few_particles",
    "mismatch_table",
    "pose_table",
    "shells_of_means",
    "transfer_curves",
    "transfer_and_noise",
    "ingredient_table",
    "generated_sheet",
    "given_table",
    "comparison_table",
    "accuracy_by_snr",
    "AUDITED",
    "SHORT",
    "audit_table",
    "confusion_table",
    "contact_sheet",
    "dataset_table",
    "density_sheet",
    "downstream_table",
    "learning_curves",
    "metric_table",
    "never_named",
    "noise_sweep",
    "over_draws",
    "overview",
    "power_spectra",
    "reliability_curves",
    "report_figure",
    "save_table",
    "savefig",
    "shell_curves",
    "spread_table",
    "summary",
    "switch_strips",
    "switch_table",
    "told_apart_table",
    "translated",
    "uncertainty_maps",
    "use_style",
    "walk",
]
