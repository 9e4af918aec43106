"""The command `cryoetgan`: what the notebooks do with a user's particles, in a shell.

cryoetgan describe particles.star                      # what was read, and what looks wrong
cryoetgan train particles.star run --densities "ribosome=80S.mrc"
cryoetgan generate run particles 1000                  # labelled subtomograms for the next tool
cryoetgan view particles picture.png                   # central slices
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from ..config import OWN_DATA, PRESETS, PROFILES, RunConfig, make_config
from ..particles.report import describe
from ..streaming import FORMATS
from ..training import Trainer
from ..volumes.domains import Domains
from . import launch, own_data
from .own_runs import keep_source
from .parameters import parse_json
from .plotting import contact_sheet, report_figure, use_style
from .runs import train_on
from .simulated_sets import default_device

SHOWN = 8  # particles of a picture
TIMED = 2  # training steps


def _described(subtomograms: Path, box: int, voxel_size_A: float, options: str, picture: Path | None) -> None:
    """Print what was read, with its warnings; draw it where a picture is asked for."""
    particles = own_data.load(subtomograms, box, voxel_size_A, parse_json("options", options))
    report = describe(particles)
    print(f"{subtomograms}: {report.particles} subtomograms of {report.box}^3 voxels of {report.voxel_size_A:.2f} A")
    print(report.classes.to_string(index=False))
    for warning in report.warnings:
        print("-", warning)
    if picture:
        report_figure(report).savefig(picture)


def _trained(
    subtomograms: Path,
    run: Path,
    densities: str,
    preset: str,
    profile: str,
    box: int,
    voxel_size_A: float,
    options: str,
    changes: str,
    seed: int,
) -> None:
    """Estimate or train a generator on particles, in the folder `run`."""
    told = parse_json("options", options)
    config = make_config(profile, OWN_DATA, preset, box=box, seed=seed, **parse_json("changes", changes))
    own_data.parse_densities(densities)  # refused before the particles are read
    particles = own_data.load(subtomograms, box, voxel_size_A, told)
    both = own_data.domains(particles, densities, config, told)
    if config.generator == "paper":
        minutes = expected_minutes(config, both)
        print(f"{config.steps} steps, about {minutes:.0f} minutes on this machine", flush=True)
    trained = train_on(config, both, run, progress=True)
    if config.generator == "physics":
        told = tilts_told(both)
        low, high = trained.G.tilt_range_deg
        print(
            f"tilts {low:.0f} to {high:.0f} degrees, {'as the files say' if told else 'estimated from the particles'}"
        )
    keep_source(run, densities, particles.voxel_size_A)
    print(f"{run}: {preset} on {len(both.Y_train)} of {len(particles)} subtomograms")


def tilts_told(both: Domains) -> bool:
    """Whether the particles' table tells every particle's tilt range."""
    table = both.Y_train.table
    return {"tilt_min_deg", "tilt_max_deg"} <= set(table) and table["tilt_min_deg"].notna().all()


def expected_minutes(config: RunConfig, both: Domains) -> float:
    """Minutes that a training takes on this machine, from TIMED steps of another one that is thrown away."""
    trainer = Trainer(config, both.volumes("X_train"), both.volumes("Y_train"), default_device())
    trainer.step()  # the first one compiles and allocates
    start = time.perf_counter()
    for _ in range(TIMED):
        trainer.step()
    trainer.check()  # reads the losses: a GPU is waited for
    return (time.perf_counter() - start) / TIMED * config.steps / 60


def _generated(run: Path, output: Path, n: int, shares: str, part: int, volumes: str, seed: int) -> None:
    """Write labelled subtomograms of a run, or what is missing of them."""
    launch.generate(run, output, n, shares, part, volumes, seed)


def _viewed(subtomograms: Path, picture: Path, box: int, voxel_size_A: float, options: str) -> None:
    """Draw central slices of a few particles, along the beam (xy) and across it (xz)."""
    particles = own_data.load(subtomograms, box, voxel_size_A, parse_json("options", options))
    index = np.linspace(0, len(particles) - 1, min(SHOWN, len(particles))).round().astype(int)
    volumes = np.stack([np.asarray(particles.volumes[i]) for i in index])
    volumes = (volumes - volumes.mean()) / volumes.std()
    middle, names = box // 2, list(particles.table["class_name"].iloc[index])
    rows = [("xy", volumes[:, None, middle], False), ("xz", volumes[:, None, :, middle], False)]
    contact_sheet([(names, particles.voxel_size_A, rows)]).savefig(picture)
    print(picture)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cryoetgan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)

    def action(name: str, call: object, text: str, *, reads: bool = True) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        made.set_defaults(call=call)
        if reads:
            made.add_argument("subtomograms", type=Path, help="a file or folder of particles, as in your_data.ipynb")
            made.add_argument("--box", type=int, default=24, help="voxels a side")
            made.add_argument("--voxel-size-A", type=float, default=0.0, help="angstrom; 0 keeps that of the file")
            made.add_argument("--options", default="{}", help='JSON for the reader, as in {"protein": "bright"}')
        return made

    made = action("describe", _described, "what was read, and what looks wrong")
    made.add_argument("--picture", type=Path, default=None, help="also draw it into this file")
    made = action("train", _trained, "estimate (preset physics) or train a generator on particles")
    made.add_argument("run", type=Path, help="folder of the run")
    made.add_argument("--densities", required=True, help="class=FILE, with commas between, or an embedded class")
    made.add_argument("--preset", default="physics", choices=tuple(PRESETS), help="which generator")
    made.add_argument("--profile", default="quick", choices=tuple(PROFILES), help="sizes of the training")
    made.add_argument("--changes", default="{}", help="JSON of fields of config.RunConfig")
    made.add_argument("--seed", type=int, default=0, help="of weights, batches and noise")
    made = action("generate", _generated, "labelled subtomograms from a run", reads=False)
    made.add_argument("run", type=Path, help="folder of the run")
    made.add_argument("output", type=Path, help="folder for the particles")
    made.add_argument("n", type=int, help="particles")
    made.add_argument("--shares", default="", help='how often each class comes, as in "ribosome=3, tric=1"')
    made.add_argument("--part", type=int, default=256, help="particles of one part, which is held in memory")
    made.add_argument("--volumes", default="mrc", choices=FORMATS, help="kind of file")
    made.add_argument("--seed", type=int, default=0, help="of classes, poses and noise")
    made = action("view", _viewed, "central slices of a few particles as a picture")
    made.add_argument("picture", type=Path, help="file to write: .png or .pdf")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and do what it says; 2 and one sentence for bad input."""
    chosen = vars(_parser().parse_args(arguments))
    chosen.pop("action")
    call = chosen.pop("call")
    use_style()
    try:
        call(**chosen)
    except (ValueError, FileNotFoundError) as error:
        print(f"cryoetgan: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
