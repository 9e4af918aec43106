"""Metrics: pure functions of volumes or features. Tested against prdc, scikit-learn and scipy."""

from .fourier_shell import fourier_shell_correlation, resolution_A
from .frechet import frechet_distance, inception_score
from .grey_values import autocorrelation, calibration, nearest_real, voxel_moments
from .kernel import kernel_distance
from .manifold import manifold_scores
from .spectrum import (
    angular_log_ratio,
    angular_power_spectra,
    log_ratio,
    log_spectrum_distance,
    radial_power_spectra,
    radial_power_spectrum,
)
from .voxels import prediction_interval, student_interval
