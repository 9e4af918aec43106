"""Honest evaluation: metrics, classifiers, baselines, and the test on a downstream task."""
