"""The specimen, the microscope, and the simulated sets of subtomograms. Reads no particle file."""
