"""Particles in and out: simulated, measured (RELION, tomograms) and plain folders of volumes."""
