"""From a specimen to subtomograms: tilt schemes, CTF, noise, weighted back-projection.

Needs torch-ctf and torch-fourier-slice.
"""
