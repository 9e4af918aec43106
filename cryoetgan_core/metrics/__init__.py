"""Metrics: pure functions of volumes or features. Tested against prdc, torchmetrics and scikit-learn."""

from .fourier_shell import fourier_shell_correlation, resolution_A
from .frechet import frechet_distance, inception_score
from .manifold import ManifoldScores, manifold_scores
from .spectrum import log_ratio, log_spectrum_distance, radial_power_spectra, radial_power_spectrum
from .voxels import bootstrap_interval, jackknife_interval, psnr

__all__ = [
    "ManifoldScores",
    "bootstrap_interval",
    "fourier_shell_correlation",
    "frechet_distance",
    "inception_score",
    "jackknife_interval",
    "log_ratio",
    "log_spectrum_distance",
    "manifold_scores",
    "psnr",
    "radial_power_spectra",
    "radial_power_spectrum",
    "resolution_A",
]
