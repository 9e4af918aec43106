"""What is written here, opened with the programs that it is written for.

Particles go through `streaming.generate_to` as a user's do, with a generator that adds nothing: what comes out is the
density in its pose, so that an average must be the reference, and voxels are known. Programs of Python run in
environments of their own (their requirements exclude each other), RELION's from the PATH.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pandas as pd
import torch
import zarr
from torch import nn

from ..build import Scaling
from ..config import make_config
from ..generation import TrainedRun
from ..particles import copick
from ..particles.relion_writer import write_mrc, write_star
from ..reproducibility.provenance import provenance
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import MICROSCOPES
from ..simulator.sets import class_references, poses_of, subtomograms
from ..streaming import Order, generate_to
from ..volumes.maps import resample
from ..volumes.table import particle_centres

CLASSES, BOX, VOXEL_A = ("ribosome", "tric"), 32, 13.68
ALIGNED = 0.99  # correlation of an average with the reference that says that the poses are understood
REFINED = 0.95  # of a class average, which is filtered by its own resolution
SNR = 20.0  # of the subtomograms that are averaged


class Unchanged(nn.Module):
    """A generator that returns the density."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))  # tells the device
        self.recordings = torch.tensor([[0.0, 0.0, -90.0, 90.0]])  # a density has no missing wedge

    def sample_noise(self, x: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """The one recording."""
        return {"recording": torch.zeros(len(x), dtype=torch.long)}

    def forward(self, x: torch.Tensor, noise: dict[str, torch.Tensor]) -> torch.Tensor:
        """The density itself."""
        return x


def write_noise_free(folder: Path, n: int, volumes: str, channels: tuple[str, ...] = ()) -> None:
    """Write `n` noise-free particles of two classes, as `streaming.generate_to` writes generated ones."""
    trained = folder.with_name(f"{folder.name}-trained")
    trained.mkdir(parents=True, exist_ok=True)
    (trained / "weights.safetensors").write_bytes(b"")  # of which provenance.json holds the hash
    (trained / "config.json").write_text('{"fingerprint": ""}')
    config = make_config("smoke", "own", "physics", box=BOX, noise_level=0.0)
    run = TrainedRun(config, Scaling(0.0, 1.0, 0.0, 1.0), Unchanged(), Unchanged())
    order = Order(n, dict.fromkeys(CLASSES, 1.0), part=max(1, n // 2), channels=channels, volumes=volumes)
    list(generate_to(folder, trained, run, class_references(CLASSES, BOX, VOXEL_A), order, VOXEL_A))


def reference(name: str) -> np.ndarray:
    """Reference density of a class in the box of the particles."""
    density = class_references((name,), BOX, VOXEL_A)[name]
    return resample(density, VOXEL_A, new_voxel_size_A=VOXEL_A, box=BOX).numpy()


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Normalised correlation over the whole box."""
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def output_of(*command: object, folder: Path | None = None) -> str:
    """Standard output of a program, run in a folder without what points at this process's modules, or at a notebook's
    way to draw. RuntimeError when it fails.
    """
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MPLBACKEND")
    env = {k: v for k, v in os.environ.items() if k not in ours}
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{Path(str(command[0])).name}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout.strip()


def reconstructed(folder: Path, star: str, *options: object) -> np.ndarray:
    """The average that `relion_reconstruct` makes of a STAR file's volumes."""
    output_of("relion_reconstruct", "--i", star, "--o", "average.mrc", "--3d_rot", *options, folder=folder)
    return mrcfile.read(folder / "average.mrc")


def check_generated(folder: Path, n: int) -> Iterator[tuple[str, str, bool]]:
    """`relion_reconstruct` and `relion_project` on noise-free particles as `generate` writes them."""
    write_noise_free(folder, n, "mrc")
    for star in ("particles.star", "particles_relion5.star"):
        averages = [reconstructed(folder, star, "--class", k + 1) for k in range(len(CLASSES))]
        values = [correlation(a, reference(name)) for a, name in zip(averages, CLASSES, strict=True)]
        yield f"relion_reconstruct: {star}, noise-free, {' / '.join(CLASSES)}", _numbers(*values), min(values) > ALIGNED
    table = pd.read_csv(folder / "particles.csv")
    values = []
    for name in CLASSES:
        write_mrc(folder / "reference.mrc", reference(name), VOXEL_A)
        words = "relion_project --i reference.mrc --o turned --3d_rot --ang particles.star".split()
        output_of(*words, folder=folder)
        rows = np.flatnonzero(table["class_name"] == name)
        names = [(f"turned{i + 1:06d}.mrc", table["file"][i]) for i in rows]
        pairs = [[mrcfile.read(folder / name) for name in two] for two in names]
        values.append(float(np.mean([correlation(*pair) for pair in pairs])))
    yield (
        f"relion_project --3d_rot: mean over particles, {' / '.join(CLASSES)}",
        _numbers(*values),
        min(values) > ALIGNED,
    )


def check_subtomograms(folder: Path, n: int) -> Iterator[tuple[str, str, bool]]:
    """`relion_reconstruct` and `relion_refine` on subtomograms with a missing wedge, and its weight.

    The microscope has a phase plate and no defocus: RELION's average of 3-D particles is not corrected for a CTF.
    """
    folder.mkdir(parents=True)
    blur = ("defocus_um", "defocus_spread_um", "b_factor_A2", "ice_thickness_A", "field_A", "point_spread_px")
    still = dict.fromkeys(blur, 0.0)
    scope = replace(MICROSCOPES["S2"], phase_shift_deg=90.0, **still)
    references = class_references(("ribosome",), BOX, VOXEL_A)
    particles = subtomograms(references, n, BOX, VOXEL_A, scope, stream(0, "clients"), snr=SNR)
    write_star(particles, folder / "particles.star", folder / "volumes")
    wanted = reference("ribosome")
    plain = correlation(reconstructed(folder, "particles.star"), wanted)
    weighted = correlation(reconstructed(folder, "particles.star", "--ctf"), wanted)
    yield f"relion_reconstruct: subtomograms, wedge of 60 degrees, SNR {SNR:g}", _numbers(plain), plain > ALIGNED - 0.02
    yield (
        "relion_reconstruct --ctf: the same, rlnCtfImage tells the wedge",
        _numbers(weighted),
        weighted > max(ALIGNED, plain),
    )
    write_mrc(folder / "reference.mrc", wanted, VOXEL_A)
    (folder / "refine").mkdir()
    words = "relion_refine --i particles.star --o refine/run --ref reference.mrc --skip_align --iter 1 --K 1 --ctf"
    words += " --ctf_corrected_ref --ini_high 60 --particle_diameter 400 --tau2_fudge 4 --dont_check_norm"
    output_of(*words.split(), folder=folder)
    average = correlation(mrcfile.read(folder / "refine" / "run_it001_class001.mrc"), wanted)
    yield "relion_refine --skip_align --ctf: class average", _numbers(average), average > REFINED


def _numbers(*values: float) -> str:
    return " / ".join(f"{v:.4f}" for v in values)


# What each program of Python is asked, in its own environment: one line of JSON comes back.
COPICK = """
import copick, hashlib, json, sys
from copick.util.handlers.picks.csv import csv_handler
from copick.util.handlers.picks.dynamo import dynamo_handler
from copick.util.handlers.picks.star import star_handler
folder, voxel = sys.argv[1], float(sys.argv[2])
found = {"runs": {}, "segmentations": {}, "picks": {}, "kinds": []}
for run in copick.from_file(f"{folder}/copick.json").runs:
    tomograms = run.get_voxel_spacing(voxel).tomograms
    found["kinds"] += [t.tomo_type for t in tomograms]
    array = tomograms[0].numpy()
    found["runs"][run.name] = [list(array.shape), hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()]
    for s in run.get_segmentations():
        digest = hashlib.sha256(s.numpy().tobytes()).hexdigest()
        found["segmentations"][f"{run.name} {s.name} {s.is_multilabel}"] = digest
    for picks in run.picks:
        points, matrices = picks.numpy()
        found["picks"][f"{run.name} {picks.pickable_object_name}"] = [points.tolist(), matrices[:, :3, :3].tolist()]
def arrays(read):
    return {name: [v[0].tolist(), v[1][:, :3, :3].tolist()] for name, v in read.items()}
found["star"] = arrays(star_handler.read_grouped(f"{folder}/particles.star", voxel, {}))
found["csv"] = arrays(csv_handler.read_grouped(f"{folder}/particles.csv", voxel, {}))
points, matrices = dynamo_handler.read(f"{folder}/particles.tbl", voxel)[:2]
found["dynamo"] = [points.tolist(), matrices[:, :3, :3].tolist()]
print(json.dumps(found))
"""
CRYOCAT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from cryocat.cryomotl import DynamoMotl, RelionMotl
found = {}
motls = {
    "star": RelionMotl(f"{sys.argv[1]}/particles.star", binning=1.0),
    "dynamo": DynamoMotl(f"{sys.argv[1]}/particles.tbl"),
}
for name, motl in motls.items():
    position = motl.df[["x", "y", "z"]].to_numpy() + motl.df[["shift_x", "shift_y", "shift_z"]].to_numpy()
    matrices = [r.as_matrix().tolist() for r in motl.get_rotations()]
    found[name] = [motl.df["tomo_id"].tolist(), position.tolist(), matrices, motl.df["class"].tolist()]
print(json.dumps(found))
"""
EULERANGLES = """
import json, sys
from eulerangles import convert_eulers, euler2matrix
import dynamotable, numpy as np, starfile
star = starfile.read(f"{sys.argv[1]}/particles.star")["particles"]
angles = star[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy()
table = dynamotable.read(f"{sys.argv[1]}/particles.tbl")
dynamo = table[["tdrot", "tilt", "narot"]].to_numpy()
converted = convert_eulers(angles, source_meta="relion", target_meta="dynamo")
print(json.dumps({"dynamo": converted.tolist(), "table": dynamo.tolist()}))
"""
TOMOTWIN = """
import json, sys
from pathlib import Path
from tomotwin.modules.common.preprocess import label_filename
print(json.dumps({p.name: label_filename(str(p)) for p in Path(sys.argv[1]).rglob("volumes/0*/*.mrc")}))
"""
DEEPFINDER = """
import contextlib, hashlib, io, json, sys
from pathlib import Path
from deepfinder.utils import objl
from deepfinder.utils.common import read_array
found = {}
for path in sorted(Path(sys.argv[1]).glob("tomograms/*.h5")):
    with contextlib.redirect_stdout(io.StringIO()):
        array = read_array(str(path))
    found[path.name] = [list(array.shape), str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()]
objects = objl.read_xml(f"{sys.argv[1]}/particles.xml")
found["objects"] = [[float(o[k]) for k in ("tomo_idx", "label", "z", "y", "x")] for o in objects]
print(json.dumps(found))
"""


def ask(python: str, program: str, folder: Path, *arguments: object) -> dict:
    """What a program says in another environment. RuntimeError when it fails."""
    return json.loads(output_of(python, "-c", program, folder, *arguments).splitlines()[-1])


def version_of(python: str, package: str) -> str:
    """Version of a package in another environment."""
    return output_of(python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))")


def _apart(found: list, wanted: np.ndarray) -> float:
    """Largest difference of two arrays of numbers; infinite where their shapes differ."""
    found = np.asarray(found, float)
    return float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf


def _written(folder: Path) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Table, positions (N, 3) in angstrom and poses (N, 3, 3) of generated particles."""
    table = pd.read_csv(folder / "particles.csv", dtype={"particle": str})
    return table, particle_centres(table), poses_of(table)[0].numpy()


def check_copick(python: str, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """A project that copick opens: voxels, picks, segmentations, and the tables beside it."""
    write_noise_free(folder, 8, "copick", ("mask", "density"))
    found = ask(python, COPICK, folder, VOXEL_A)
    table, centres, poses = _written(folder)
    same = []
    for name, (_, digest) in found["runs"].items():
        spacing = folder / copick.RUNS / name / f"VoxelSpacing{VOXEL_A:.3f}"
        store = zarr.open_array(spacing / "generated.zarr" / "0", mode="r")[:]
        same.append(digest == hashlib.sha256(store.astype("<f4").tobytes()).hexdigest() and store.std() > 0)
    yield (
        "voxels of every tomogram, bit by bit",
        f"{sum(same)} of {table['tomogram'].nunique()} equal",
        len(same) == sum(same) == table["tomogram"].nunique(),
    )
    kinds = sorted(set(found["kinds"]))
    names = sorted({k.partition(" ")[2] for k in found["segmentations"]})
    right = kinds == ["generated"] and names == ["density False", "mask True"]
    yield (
        "masks and densities are segmentations",
        f"tomograms: {', '.join(kinds)}; segmentations: {', '.join(n.split()[0] for n in names)}",
        right,
    )
    checks = {"picks": ("picks", ["tomogram", "class_name"])}
    checks |= {f"particles.{kind}, by run": (kind, ["tomogram"]) for kind in ("star", "csv")}
    for name, (kind, by) in checks.items():
        apart = []
        for key, part in table.groupby(by):
            points, matrices = found[kind].get(" ".join(key), ([], []))
            apart.append((_apart(points, centres[part.index]), _apart(matrices, poses[part.index])))
        places, turns = np.max(apart, axis=0)
        yield name, _difference(places, turns), places < 1e-3 and turns < 1e-5
    points, matrices = found["dynamo"]
    places, turns = _apart(points, centres + VOXEL_A), _apart(matrices, poses)  # Dynamo counts from 1, copick does not
    yield (
        "particles.tbl, less the voxel from which Dynamo counts",
        _difference(places, turns),
        places < 1e-3 and turns < 1e-5,
    )


def _difference(places_A: float, matrices: float) -> str:
    return f"positions within {places_A:.0e} A, matrices within {matrices:.0e}"


def check_cryocat(python: str, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """STAR and Dynamo table of a copick project as cryoCAT loads them."""
    write_noise_free(folder, 8, "copick")
    found = ask(python, CRYOCAT, folder)
    table, centres, poses = _written(folder)
    tomograms = table["tomogram"].str.rpartition("-")[2].astype(int).to_numpy()
    for kind, first in (("star", 0), ("dynamo", 1)):
        numbers, points, matrices, classes = found[kind]
        places, turns = _apart(points, centres / VOXEL_A + first) * VOXEL_A, _apart(matrices, poses)
        numbers_right = np.array_equal(numbers, tomograms) and len(set(classes)) == table["class_name"].nunique()
        name = "particles.star" if kind == "star" else "particles.tbl, less the voxel from which Dynamo counts"
        text = f"{len(set(numbers))} tomograms of {len(set(tomograms))}, {_difference(places, turns)}"
        yield name, text, numbers_right and places < 1e-3 and turns < 1e-5


def check_eulerangles(python: str, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """Dynamo's angles of the STAR file's, by eulerangles, and those of the Dynamo table, by dynamotable."""
    write_noise_free(folder, 8, "mrc")
    found = ask(python, EULERANGLES, folder)
    apart = np.abs((np.array(found["dynamo"]) - np.array(found["table"]) + 180) % 360 - 180).max()
    yield (
        "angles of particles.star, made Dynamo's, and those of particles.tbl",
        f"within {apart:.0e} degrees",
        apart < 1e-3,
    )


def check_tomotwin(python: str, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """The class that TomoTwin reads from each file's name."""
    write_noise_free(folder, 8, "mrc")
    found = ask(python, TOMOTWIN, folder)
    table, _, _ = _written(folder)
    labels = {Path(f).name: c for f, c in zip(table["file"], table["class_name"], strict=True)}
    named = {(label, labels[name]) for name, label in found.items()}
    text = ", ".join(f"{label}: {name}" for label, name in sorted(named))
    right = len(found) == len(table) and len(named) == len(CLASSES) == len({n for n, _ in named})
    yield "label_filename of each volume", text, right


def check_deepfinder(python: str, folder: Path) -> Iterator[tuple[str, str, bool]]:
    """Tomograms, label maps and object list as DeepFinder's own functions read them."""
    write_noise_free(folder, 8, "deepfinder", ("mask",))
    found = ask(python, DEEPFINDER, folder)
    table, centres, _ = _written(folder)
    objects, same = found.pop("objects"), []
    for name, (_, kind, digest) in found.items():
        with h5py.File(folder / "tomograms" / name) as file:
            data = file["dataset"][:]
        wanted_kind = "int8" if "_mask" in name else "float32"
        same.append(digest == hashlib.sha256(data.tobytes()).hexdigest() and kind == wanted_kind)
    yield (
        "tomograms and label maps, bit by bit",
        f"{sum(same)} of {2 * table['tomogram'].nunique()} equal",
        all(same) and len(same) == 4,
    )
    numbers = {name: k + 1 for k, name in enumerate(sorted(CLASSES))}
    wanted = np.column_stack([
        table["tomogram"].str.rpartition("-")[2].astype(int) - 1, table["class_name"].map(numbers),
        centres[:, ::-1] / VOXEL_A,
    ])  # fmt: skip
    apart = _apart(objects, wanted)
    yield "object list: tomogram, class and position of each particle", f"within {apart:.0e} voxels", apart < 1e-2


CHECKS: dict[str, tuple[str, Callable[[str, Path], Iterator[tuple[str, str, bool]]]]] = {
    "copick 1": ("copick", check_copick),
    "copick 2": ("copick", check_copick),
    "cryocat": ("cryocat", check_cryocat),
    "eulerangles": ("eulerangles", check_eulerangles),
    "tomotwin": ("tomotwin-cryoet", check_tomotwin),
    "deepfinder": ("cryoet-deepfinder", check_deepfinder),
}


def measure(folder: Path, environments: Mapping[str, str], n: int = 200) -> dict:
    """A row a check: the client with its version, what was asked, what came out, and whether that is right.

    Parameters
    ----------
    folder
        where files are written; what an earlier call left there is removed.
    environments
        the Python of each program of CHECKS that is to be tried.
    n
        particles that RELION averages.

    Raises ValueError when an environment is named that no check knows.
    """
    unknown = sorted(set(environments) - set(CHECKS))
    if unknown:
        raise ValueError(f"clients: {', '.join(unknown)}; expected some of {', '.join(CHECKS)}.")
    shutil.rmtree(folder, ignore_errors=True)
    rows: list[dict] = []
    if shutil.which("relion_reconstruct"):
        for name, check in (("generated", check_generated), ("subtomograms", check_subtomograms)):
            rows += _rows(f"RELION {relion_version()}", check(folder / name, n))
    else:
        rows.append(_untested("RELION", "relion_reconstruct is not on the PATH"))
    for name, (package, check) in CHECKS.items():
        if name in environments:
            python = environments[name]
            rows += _rows(f"{package} {version_of(python, package)}", check(python, folder / name.replace(" ", "")))
        else:
            rows.append(_untested(name, "no environment was given"))
    return {"rows": rows, "particles": n, "provenance": provenance()}


def _untested(client: str, reason: str) -> dict:
    return {"client": client, "check": "all", "found": f"not tested: {reason}", "right": None}


def table_of(found: dict, before: dict) -> pd.DataFrame:
    """Rows of `measure`, beside what the same checks found on the first version."""
    known = {(row["client"], row["check"]): row["found"] for row in before["rows"]}
    marks = {True: "yes", False: "NO", None: "-"}
    rows = []
    for row in found["rows"]:
        key = row["client"], row["check"]
        rows.append((*key, known.get(key, ""), row["found"], marks[row["right"]]))
    columns = ["client", "check", "first version", "now", "right"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


def _rows(client: str, outcomes: Iterator[tuple[str, str, bool]]) -> list[dict]:
    """Rows of one client; what it raises is a row of its own."""
    rows = []
    try:
        for check, found, right in outcomes:
            rows.append({"client": client, "check": check, "found": found, "right": bool(right)})
    except RuntimeError as error:
        rows.append({"client": client, "check": "the rest", "found": f"failed: {error}", "right": False})
    return rows


def relion_version() -> str:
    """Version of RELION on the PATH."""
    said = output_of("relion_reconstruct", "--version")
    return said.split("version:")[-1].split()[0].rstrip(",") if "version:" in said else said
