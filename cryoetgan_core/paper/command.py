"""The command `cryoetgan`: what the notebooks do with a user's particles, in a shell.

cryoetgan describe particles.star                      # what was read, and what looks wrong
cryoetgan train particles.star run --densities "ribosome=80S.mrc"
cryoetgan generate run particles 1000                  # labelled subtomograms for the next tool
cryoetgan simulate simulated 1000 --densities "ribosome=80S.mrc" --microscope S2
cryoetgan scenes run tomograms --counts "ribosome=50, tric=100" --n 10
cryoetgan view particles picture.png                   # central slices
"""

import argparse
import logging
import math
import os
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..config import LEAST_BOX, OWN_DATA, PRESETS, PROFILES, RunConfig, make_config
from ..engine.processes import processes
from ..evaluation.metrics import angular_log_ratio, angular_power_spectra
from ..generation import load_run
from ..particles.folder import load_particles
from ..particles.relion_writer import write_star
from ..particles.report import describe
from ..physics.acquisition import TRANSFERS
from ..scenes import KINDS
from ..simulator.microscope.simulate import MICROSCOPES
from ..simulator.sets import class_references
from ..streaming import FORMATS, Order, generate_to, missing_parts
from ..training import Trainer
from ..volumes.domains import Domains
from ..volumes.table import ParticleSet
from . import api
from .doubts import doubtful, doubts
from .own_data import parse_densities
from .own_runs import source_of
from .parameters import parse_json, parse_shares, reader_options
from .simulated_sets import default_device

IN_OPTIONS = (  # named by --options
    "mirror_z", "project_root", "min_distance_A", "edge", "min_voxels", "user", "session", "classes", "wiener", "limit",
)  # fmt: skip
SHOWN = 8  # particles of a picture
TIMED = 2  # training steps
COMPARED = 200  # particles at most
PER_A3 = 6.02214076e-4  # molecules in a cubic angstrom at 1 mol/l
READER = (
    "protein", "beam_axis", "voxel_size_A", "coordinates", "coordinate_voxel_size_A", "labels_path", "labels", "n",
    "tilts", "options",
)  # fmt: skip


def _read(subtomograms: list[str], box: int | None, target_voxel_size_A: float, told: dict) -> ParticleSet:
    path = subtomograms if len(subtomograms) > 1 else subtomograms[0]
    return load_particles(path, box, target_voxel_size_A, **reader_options(**told))


def _described(subtomograms: list[str], box: int, target_voxel_size_A: float, told: dict, picture: Path | None) -> None:
    """Print what was read, with its warnings; draw it where a picture is asked for."""
    particles = _read(subtomograms, box, target_voxel_size_A, told)
    report = describe(particles)
    print(particles)
    print(f"protein taken as {particles.table.attrs['read_with']['protein']} in the files, bright here")
    print(in_shell(str(report)))
    if report.box < LEAST_BOX:
        print(f"- `train` takes boxes of {LEAST_BOX} voxels or more.")
    if picture:
        from .plotting import report_figure, use_style  # only who draws waits for them

        use_style()
        report_figure(report).savefig(picture)


def _trained(
    subtomograms: list[str],
    run: Path,
    densities: str,
    preset: str,
    profile: str,
    box: int,
    target_voxel_size_A: float,
    told: dict,
    changes: str,
    seed: int,
    replace: bool,
    transfer: str,
) -> None:
    """Estimate or train a generator on particles, in the folder `run`."""
    changes = {"transfer": transfer} | parse_json("changes", changes, '{"width": 16}')
    asked = make_config(profile, OWN_DATA, preset, **({"box": box or 24, "seed": seed} | changes))
    if asked.generator != "physics" and transfer != "table":
        raise ValueError(f"--transfer {transfer} is for preset physics; leave it out.")
    parse_densities(densities)  # both refused before the particles are read
    particles = _read(subtomograms, box, target_voxel_size_A, told)
    config = make_config(profile, OWN_DATA, preset, **({"box": particles.volumes.shape[-1], "seed": seed} | changes))
    both = api.domains(particles, densities, config)
    for warning in [*describe(particles).warnings, *doubts(particles, densities)]:
        print("-", in_shell(warning))
    between = len(particles) - len(both.Y_train) - len(both.Y_test)
    print(
        f"{len(particles)} subtomograms: {len(both.Y_train)} to train, {len(both.Y_test)} kept out to compare with"
        + (f", {between} left out between them, whose boxes overlap both" if between else "")
    )
    if config.generator == "paper":
        minutes = expected_minutes(config, both)
        print(f"{config.steps} steps, about {minutes:.0f} minutes on this machine", flush=True)
        enough = PROFILES["evening"].sizes["steps"]
        if config.steps < enough:
            print(f"- so few steps make poor training data: --profile evening has {enough}")
    trained = api.train_domains(config, both, run, densities, progress=True, replace=replace)
    if config.generator == "physics":
        print(tilts_used(trained, both))
        if config.transfer == "table":
            print("- the sign of the transfer function beyond a zero of the CTF is a guess, unless you give --transfer")
        if both.background is None:
            print(
                "noise estimated from the particles (no empty boxes): for `scenes` of crowded tomograms signal and "
                "noise may be far off at low frequencies"
            )
        else:
            number, side = both.background.volumes.shape[:2]
            print(f"noise of {number} empty boxes of {side} voxels, for `scenes`")
    print(compared(trained, both))
    print(f"{run}: {preset} generator; next: cryoetgan generate {run} FOLDER NUMBER")


def compared(run: "api.TrainedRun", both: Domains) -> str:
    """Distance of the power spectra of generated from those of the particles kept out, beside that of the others."""
    real, others = (run.scaling.y(both.volumes(half, most=COMPARED)) for half in ("Y_test", "Y_train"))
    made = api.generate(run, both.volumes("X_test", most=COMPARED))
    found = [angular_log_ratio(*(angular_power_spectra(v).mean(0) for v in (real, other))) for other in (made, others)]
    return (
        f"power spectrum over frequency and tilt: generated differ from the particles kept out by {found[0]:.2f}, the "
        f"training particles by {found[1]:.2f} (0: equal; it sees neither contrast nor shape)"
    )


def tilts_used(run: "api.TrainedRun", both: Domains) -> str:
    """The tilt ranges of a physics generator, beside where they come from."""
    table = both.Y_train.table
    ranges = [f"{low:.0f} to {high:.0f}" for low, high in run.G.recordings[:, 2:].unique(dim=0).tolist()]
    shown = ", ".join(ranges[:SHOWN]) + (f" and {len(ranges) - SHOWN} more" if len(ranges) > SHOWN else "")
    told = {"tilt_min_deg", "tilt_max_deg"} <= set(table) and table["tilt_min_deg"].notna().all()
    source = "as given" if told and run.config.tilt_range == "known" else "estimated from the particles"
    return f"tilts {shown} degrees, {source}"


def in_shell(sentence: str) -> str:
    """A sentence that names options of Python, with those of the command."""
    names = "|".join((*READER, "box", "target_voxel_size_A", "replace"))
    named = re.sub(
        rf"\b({names})=(True\b|\"\w*\"|)",
        lambda m: " ".join(filter(None, (f"--{m[1].replace('_', '-')}", m[2].replace("True", "").replace('"', "")))),
        sentence.replace("tilt_range_deg", "tilts"),
    )
    named = re.sub(
        rf"\b({'|'.join(IN_OPTIONS)})=(True\b|)",
        lambda m: f"--options '{{\"{m[1]}\": true}}'" if m[2] else f'"{m[1]}" in --options',
        named,
    )
    return re.sub(r"(give|leave out|as|by) ((?:target_|coordinate_)?voxel_size_A)\b", _as_option, named)


def _as_option(found: re.Match) -> str:
    return f"{found[1]} --{found[2].replace('_', '-')}"


def expected_minutes(config: RunConfig, both: Domains) -> float:
    """Minutes that a training takes on this machine, from TIMED steps of another one that is thrown away."""
    trainer = Trainer(config, both.volumes("X_train"), both.volumes("Y_train"), default_device())
    trainer.step()  # the first one compiles and allocates
    start = time.perf_counter()
    for _ in range(TIMED):
        trainer.step()
    return (time.perf_counter() - start) / TIMED * config.steps / 60


def _generated(
    run: Path, output: Path, n: int, densities: str, shares: str, part: int, volumes: str, protein: str, seed: int
) -> None:
    """Write labelled subtomograms of a run, or what is missing of them: of what it was trained with, or of other
    `densities`. Under torchrun this process makes its share of the parts.
    """
    trained_with, voxel_size_A = source_of(run)
    names, files = parse_densities(densities or trained_with)
    channels = ("mask",) if volumes == "deepfinder" else ()  # it trains on label maps
    order = Order(n, parse_shares(shares, names), seed, part=part, volumes=volumes, channels=channels, protein=protein)
    with processes() as these:  # which gives each its own GPU
        trained = load_run(run, default_device())
        for text in doubtful(names, files, trained.config.box, voxel_size_A):
            print("-", text)
        references = class_references(names, trained.config.box, voxel_size_A, files)
        parts = generate_to(output, run, trained, references, order, voxel_size_A, shard=these.rank, shards=these.count)
        mine = -(-len(missing_parts(output, order)) // these.count)
        made = list(tqdm(parts, total=mine, desc="parts", disable=these.rank > 0))
        missing = len(missing_parts(output, order))
        whose = f"process {these.rank}: " if these.count > 1 else ""
        state = (
            f"{missing} of {order.parts} parts are still missing" if missing else f"all {order.n} particles are there"
        )
        print(f"{whose}{output}: {state} ({len(made)} parts made now); the tables name class and pose of each")
        print(f"{whose}protein is {'bright' if order.sign > 0 else 'dark'} (--protein), and the beam along z")


def _simulated(
    output: Path, n: int, densities: str, microscope: str, snr: float, box: int, voxel_size_A: float, seed: int
) -> None:
    """Write labelled subtomograms of the microscope simulator, n of each class."""
    if (output / "particles.star").exists():
        raise ValueError(f"{output} holds particles already: give another folder.")
    made = api.simulate(densities, n, box, voxel_size_A, microscope=microscope, snr=snr, seed=seed)
    output.mkdir(parents=True, exist_ok=True)
    write_star(made, output / "particles.star", output / "volumes")
    print(f"{output / 'particles.star'}: {made}")


def parse_counts(text: str, volume_A3: float = 0.0) -> dict[str, int]:
    """How many of each class, from "ribosome=50, tric=100" or "ribosome 50, tric 100"; also as a concentration, as in
    "ribosome=0.5 uM" (or nM), where the volume is known.
    """
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        told = re.fullmatch(r"(.*?\S)(?:\s*=\s*|\s+)(\d+(?:\.\d+)?)\s*(nM|uM)?", part)
        number = float(told[2]) if told else 0.0
        if told and told[3]:
            number = round(number * {"nM": 1e-9, "uM": 1e-6}[told[3]] * PER_A3 * volume_A3)
        if number < 1 or number % 1:
            raise ValueError(
                f"Parameter 'counts' holds {part!r}; expected NAME=NUMBER with whole positive numbers, or a "
                "concentration such as NAME=0.5 uM that is one molecule or more."
            )
        if told[1] in found:
            raise ValueError(f"Parameter 'counts' names {told[1]} twice; expected each class once.")
        found[told[1]] = int(number)
    if not found:
        raise ValueError("Parameter 'counts' is empty; expected such as \"ribosome=50, tric=100\".")
    return found


def _scenes(
    run: str, output: Path, counts: str, crowders: str, around: str, shape: str, n: int, voxel_size_A: float,
    snr: float | None, **told: object,
) -> None:  # fmt: skip
    """Write labelled tomograms of a physics run or a simulated microscope."""
    there, size = len(list((output / "tables").glob("*.csv"))), _sizes(shape)
    volume_A3 = math.prod(size) * api.tomogram_source(run, voxel_size_A, snr)[1] ** 3
    told |= {"voxel_size_A": voxel_size_A, "snr": snr, "n": n, "around": parse_json("around", around, '{"gold": 5}')}
    told["crowders"] = parse_counts(crowders, volume_A3) if crowders else {}
    target = api.generate_tomograms(output, run, parse_counts(counts, volume_A3), size, progress=True, **told)
    done = len(list((output / "tables").glob("*.csv")))
    if done < n:
        print(f"{output}: {done} of {n} tomograms; another process is at the others, and writes the tables at the end")
    else:
        print(f"{target}: {n} tomograms with labels and picks, {max(n - there, 0)} of them made now")


def _sizes(shape: str) -> tuple[int, ...]:
    """Voxels z, y, x from "64 256 256"."""
    words = shape.replace(",", " ").split()
    if len(words) != 3 or not all(word.isdigit() for word in words):
        raise ValueError(f"Parameter 'shape' is {shape!r}; expected three whole numbers, z y x.")
    return tuple(int(word) for word in words)


def _viewed(subtomograms: list[str], picture: Path, box: int, target_voxel_size_A: float, told: dict) -> None:
    """Draw central slices of a few particles, along the beam (xy) and across it (xz)."""
    from .plotting import contact_sheet, use_style

    use_style()
    particles = _read(subtomograms, box, target_voxel_size_A, told)
    index = np.linspace(0, len(particles) - 1, min(SHOWN, len(particles))).round().astype(int)
    volumes = np.stack([np.asarray(particles.volumes[i]) for i in index])
    volumes = (volumes - volumes.mean()) / volumes.std()
    middle, names = volumes.shape[-1] // 2, list(particles.table["class_name"].iloc[index])
    rows = [("xy", volumes[:, None, middle], False), ("xz", volumes[:, None, :, middle], False)]
    contact_sheet([(names, particles.voxel_size_A, rows)], {}).savefig(picture)
    print(picture)


def _folder(name: str) -> Path:
    """A folder that is there, or that can be made."""
    path = Path(name)
    above = next((p for p in (path, *path.absolute().parents) if p.exists()), path)
    if above.exists() and not above.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: {above} is a file; expected a folder, or a new name in one")
    return path


def _output(name: str) -> Path:
    """A folder that is written into: there, or to be made, by who calls."""
    path = _folder(name)
    above = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path}: nothing can be written into {above}; choose another folder")
    return path


def _picture(name: str) -> Path:
    """The file of a picture, once its folder is there and matplotlib knows its kind."""
    from matplotlib.backend_bases import FigureCanvasBase

    path, kinds = Path(name), FigureCanvasBase.filetypes
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: there is no folder {path.parent}")
    if path.suffix[1:].lower() not in kinds:
        raise argparse.ArgumentTypeError(f"{path}: no kind of picture known here; expected .png, .pdf or .svg")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cryoetgan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)

    def action(name: str, call: object, text: str, *, reads: bool = True) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        made.set_defaults(call=call)
        if reads:
            made.add_argument("subtomograms", nargs="+", help="file or folder of particles, or several tomograms")
        return made

    def reading(made: argparse.ArgumentParser) -> None:
        add = made.add_argument_group("how the particles are read").add_argument
        box = f"voxels a side; needed for tomograms, else that of the file; {LEAST_BOX} or more to train"
        add("--box", type=int, default=None, help=box)
        add("--target-voxel-size-A", type=float, default=0.0, help="angstrom wanted; 0 keeps the file's")
        add("--voxel-size-A", type=float, default=0.0, help="of the file, where its header lacks it or is wrong")
        add("--protein", default="", choices=("", "dark", "bright"), help="how the file shows it")
        add("--beam-axis", default="", choices=("", "x", "y", "z"), help="along which the electrons went")
        add("--tilts", type=str.strip, default="", help='"-60 60", or a .tlt, .rawtlt or .mdoc file')
        picks = "picks: .star, .tbl, .em, .csv with x,y,z in voxels from 0; as a pattern one file for each tomogram"
        add("--coordinates", default="", help=picks)
        add("--coordinate-voxel-size-A", type=float, default=0.0, help="of the picks' voxels; 0: as their file says")
        add("--labels-path", default="", help="label volume of a tomogram; as a pattern one for each")
        add("--labels", default="", help="CSV of particle,label for a folder or stack")
        add("--n", type=int, default=0, help="without picks: this many density maxima of a tomogram")
        more = "JSON of further options: mirror_z, project_root; of tomograms min_distance_A, edge, min_voxels; of "
        more += 'copick user, session, classes; of STAR files wiener, limit; as in {"mirror_z": true}'
        add("--options", default="{}", help=more)

    def making(made: argparse.ArgumentParser, densities: str, *, required: bool = True) -> None:
        made.add_argument("--densities", required=required, default="", help=densities)
        made.add_argument("--seed", type=int, default=0, help="of poses, noise and weights")

    made = action("describe", _described, "what was read, and what looks wrong")
    made.add_argument("--picture", type=_picture, default=None, help="also draw it into this file")
    reading(made)
    made = action("train", _trained, "estimate (preset physics) or train a generator on particles")
    made.add_argument("run", type=_output, help="folder of the run")
    making(made, "what the particles show: class=FILE, with commas between, or a built-in class")
    made.add_argument("--preset", default="physics", choices=tuple(PRESETS), help="which generator")
    made.add_argument("--profile", default="quick", choices=tuple(PROFILES), help="sizes of the training")
    known = "what is known of the particles' CTF: table (nothing), uncorrected, corrected (phases flipped, Wiener "
    known += "filter, deconvolution) or ctf (the files give each particle's defocus)"
    made.add_argument("--transfer", default="table", choices=TRANSFERS, help=known)
    made.add_argument("--changes", default="{}", help='JSON of fields of config.RunConfig, as {"width": 16}')
    made.add_argument("--replace", action="store_true", help="start anew over another run in the folder")
    reading(made)
    made = action("generate", _generated, "labelled subtomograms from a run", reads=False)
    made.add_argument("run", type=_folder, help="folder of the run")
    made.add_argument("output", type=_output, help="folder for the particles")
    made.add_argument("n", type=int, help="particles")
    making(made, "what to generate, where it is not what the run was trained with", required=False)
    made.add_argument("--shares", default="", help='how often each class comes, as in "ribosome=3, tric=1"')
    made.add_argument("--part", type=int, default=256, help="particles of one part, which is held in memory")
    made.add_argument("--volumes", default="mrc", choices=FORMATS, help="kind of file")
    shown = "how the volumes show it; else bright, but dark in the tomograms of copick and deepfinder"
    made.add_argument("--protein", default="", choices=("", "dark", "bright"), help=shown)
    made = action("simulate", _simulated, "labelled subtomograms of a simulated microscope", reads=False)
    made.add_argument("output", type=_output, help="folder for the particles")
    made.add_argument("n", type=int, help="particles of each class")
    making(made, "class=FILE, with commas between, or built-in classes")
    made.add_argument("--microscope", default="S1", choices=tuple(MICROSCOPES), help="tilts, optics and dose")
    made.add_argument("--snr", type=float, default=0.1, help="variance of signal over noise, of all voxels")
    made.add_argument("--box", type=int, default=32, help="voxels a side")
    made.add_argument("--voxel-size-A", type=float, default=15.0, help="angstrom")
    text = "whole labelled tomograms that look like those of a run, or of a simulated microscope with its tilt series"
    made = action("scenes", _scenes, text, reads=False)
    made.add_argument("run", help=f"folder of a run of preset physics, or one of {', '.join(MICROSCOPES)}")
    made.add_argument("output", type=_output, help="folder for the tomograms")
    made.add_argument("--counts", required=True, help='in each tomogram: "ribosome=50, tric=2 uM"')
    made.add_argument("--crowders", default="", help="more molecules in each tomogram, which get no labels")
    made.add_argument(
        "--around",
        default="{}",
        help='JSON of membranes, gold and ice, as {"vesicles": 3, "tubes": 1, "planes": 1, "gold": 5, "ice_A": 900, '
        '"in_membranes": {"hemagglutinin": 20}, "offset_A": 70}; all of it: simulator.surroundings.Surroundings',
    )
    made.add_argument("--background", default="", help="a measured tomogram without such molecules, in place of noise")
    making(made, "class=FILE, with commas between, where a class is none of the run's", required=False)
    made.add_argument(
        "--shape", default="64 256 256", help='voxels along z (the ice), y and x, even, as in "64 256 256"'
    )
    made.add_argument("--voxel-size-A", type=float, default=0.0, help="angstrom; of a simulated microscope alone")
    snr = "variance of signal over noise, of all voxels; of a simulated microscope alone, which else counts electrons"
    made.add_argument("--snr", type=float, default=None, help=snr)
    made.add_argument("--n", type=int, default=1, help="tomograms")
    made.add_argument("--volumes", default="mrc", choices=KINDS, help="kind of file")
    shown = "how the tomograms, and the background, show it; else as the run's tomograms, or dark"
    made.add_argument("--protein", default="", choices=("", "dark", "bright"), help=shown)
    made.add_argument(
        "--halves", action="store_true", help="write two recordings of half of the dose too, for denoisers"
    )
    made = action("view", _viewed, "central slices of a few particles as a picture")
    made.add_argument("picture", type=_picture, help="file to write: .png or .pdf")
    reading(made)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and do what it says; 2 and one sentence for bad input."""
    words = sys.argv[1:] if arguments is None else arguments
    # argparse takes "-60,60" for the name of an option, but not with a space before it
    words = [f" {w}" if before == "--tilts" else w for before, w in zip(["", *words], words, strict=False)]
    chosen = vars(_parser().parse_args(words))
    chosen.pop("action")
    call = chosen.pop("call")
    if "options" in chosen:
        chosen["told"] = {name: chosen.pop(name) for name in READER}
    said = logging.StreamHandler()
    said.emit = lambda record: print("-", in_shell(record.getMessage()), file=sys.stderr)
    log = logging.getLogger("cryoetgan_core")
    log.handlers, log.propagate = [said], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once")
            warnings.showwarning = lambda message, *_: print("-", in_shell(str(message)), file=sys.stderr)
            call(**chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush says nothing
    except (ValueError, OSError) as error:
        print(f"cryoetgan: {in_shell(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cryoetgan: stopped; what is written stays, and the same command goes on from there", file=sys.stderr)
        return 130  # as a shell tells it
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
