"""Where a result comes from: random streams, paths, provenance, files that are whole or not there."""
