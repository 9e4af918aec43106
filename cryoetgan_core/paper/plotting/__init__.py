"""Figures and tables of the paper, drawn from results; one `savefig` and one `save_table` write every artefact."""

from .artefacts import save_table, savefig, use_style
from .evidence import AUDITED, audit_table, downstream_table, learning_curves, power_spectra
from .operator import (
    accuracy_by_snr,
    few_particles,
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
    tomogram_table,
)
from .panels import SHORT, contact_sheet
from .report import report_figure
from .scheme import overview
from .spread_panels import noise_sweep, reliability_curves, uncertainty_maps
from .switches import switch_strips, switch_table
from .tables import confusion_table, metric_table, never_named, over_draws
