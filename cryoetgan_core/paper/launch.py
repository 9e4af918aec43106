"""What torchrun starts: training by several processes, and generation shared by them.

    torchrun --nproc-per-node 4 -m cryoetgan_core.paper.launch train paper S1_adapted_seed0
    torchrun --nproc-per-node 8 -m cryoetgan_core.paper.launch generate RUN FOLDER 1000000

Training leaves the run's folder as `notebooks/train.ipynb` does, which then only measures it. Without torchrun both run
in one process.
"""

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from .. import paper
from ..engine.processes import processes
from ..generation import load_run
from ..reproducibility import paths
from ..simulator.sets import class_references
from ..streaming import Order, generate_to, missing_parts
from ..training import check_batch
from .own_data import parse_densities
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


def generate(
    trained: Path, output: Path, n: int, shares: str, part: int, volumes: str, seed: int, densities: str = ""
) -> None:
    """Make this process's parts of an order of particles from a run on a user's particles: of what it was trained with,
    or of other `densities`.
    """
    trained_with, voxel_size_A = paper.source_of(trained)
    names, files = parse_densities(densities or trained_with)
    order = Order(n, paper.parse_shares(shares, names), seed, part=part, volumes=volumes)
    with processes() as these:  # which gives each its own GPU
        run = load_run(trained, paper.default_device())
        references = class_references(names, run.config.box, voxel_size_A, files)
        parts = generate_to(output, trained, run, references, order, voxel_size_A, shard=these.rank, shards=these.count)
        mine = -(-len(missing_parts(output, order)) // these.count)
        made = list(tqdm(parts, total=mine, desc="parts", disable=these.rank > 0))
        missing = len(missing_parts(output, order))
        whose = f"process {these.rank}: " if these.count > 1 else ""
        state = (
            f"{missing} of {order.parts} parts are still missing" if missing else f"all {order.n} particles are there"
        )
        print(f"{whose}{output}: {state} ({len(made)} parts made now); the tables name class and pose of each")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="torchrun ... -m cryoetgan_core.paper.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    training = actions.add_parser("train", help="a planned run")
    # no options that torchrun would take for short forms of its own
    training.add_argument("profile", choices=paper.PROFILES)
    training.add_argument("run", help="its name, such as S1_adapted_seed0")
    making = actions.add_parser("generate", help="particles from a run of your_data.ipynb")
    making.add_argument("trained", type=Path, help="folder of the run")
    making.add_argument("output", type=Path, help="folder for the particles")
    making.add_argument("n", type=int, help="particles, of all processes together")
    making.add_argument(
        "--shares", default="", help='how often each class comes, as in "ribosome=3, tric=1"; all alike by default'
    )
    making.add_argument("--part", type=int, default=256, help="particles of one part")
    making.add_argument("--volumes", default="mrc", help="kind of file: mrc, hdf5, zarr or copick")
    making.add_argument("--densities", default="", help="to generate, where they are not those of the training")
    making.add_argument("--seed", type=int, default=0)
    chosen = vars(parser.parse_args(arguments))
    {"train": train, "generate": generate}[chosen.pop("action")](**chosen)


if __name__ == "__main__":
    main()
