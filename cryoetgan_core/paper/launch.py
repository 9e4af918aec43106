"""Training of a planned run by several processes.

    torchrun --nproc-per-node 4 -m cryoetgan_core.paper.launch paper S1_adapted_seed0

It leaves the run's folder as `notebooks/train.ipynb` does, which then only measures it. Without torchrun it runs in one
process.
"""

import argparse

from .. import paper
from ..engine.processes import processes
from ..reproducibility import paths
from ..training import check_batch
from .simulated_sets import load_data


def train(profile: str, run: str) -> None:
    """Train (or resume) a planned run; its simulated set is made where it is missing."""
    name, config = paper.resolve_run(profile, run, "", "", 0, "{}")
    with processes() as these:
        check_batch(config.batch, these)
        if these.rank == 0 and not paper.has_data(config):
            paper.simulate_data(config)
        these.wait()
        folder = paths.runs(profile) / name
        paper.train_on(config, load_data(config), folder, replace=True, progress=these.rank == 0, processes=these)
        if these.rank == 0:
            print(
                f"{folder}: trained by {these.count} process(es); notebooks/train.ipynb with run {name!r} measures it."
            )


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="torchrun ... -m cryoetgan_core.paper.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # no options that torchrun would take for short forms of its own
    parser.add_argument("profile", choices=paper.PROFILES)
    parser.add_argument("run", help="its name, such as S1_adapted_seed0")
    train(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
