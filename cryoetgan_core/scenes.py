"""Whole labelled tomograms: molecules in a slab, seen through the microscope of a user's own particles, which a physics
generator has learned, or through a simulated one.

    for name in generate_scenes(folder, run, references, Scenes({"ribosome": 200}, (64, 256, 256)), voxel_size_A):
        ...  # a tomogram and its labels are on disk

Each scene is made by its own seed, so that a stopped job goes on where it was. Several processes with the same order
and folder share the work: each takes the next tomogram that nobody is at.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .generation import TrainedRun
from .particles import copick
from .particles.tilt_series_writer import picks_star, write_project, write_series, write_volume
from .particles.writers import PICKER
from .physics.any_size import recorded
from .physics.generator import REMEMBERED
from .reproducibility.files import LOCK, claimed, read_json, remove_temporaries, write_atomically
from .reproducibility.provenance import array_hash
from .reproducibility.seeds import stream
from .simulator import scene
from .simulator.microscope.simulate import Microscope
from .simulator.surroundings import Placed, Surroundings, draw
from .volumes.table import ANGLE_COLUMNS, CENTRED_COLUMNS, POSITION_COLUMNS, check_class_names

KINDS = ("mrc", "copick")
SCALES = 2.0  # between grey values of a background and of the particles, at most
FLIPS = ((), (1,), (0, 2), (0, 1, 2))  # of a tomogram that leave its missing wedge where it is


@dataclass(frozen=True)
class Scenes:
    """What to make: molecules of each class in each of `n` tomograms of `shape` (z, y, x; even), z being the ice.

    `crowders` are placed too and have no labels. `around` tells membranes, beads and the ice; molecules that stand in
    membranes are labelled. `volumes` is the kind of file. `protein` says how the tomograms show it. With `halves`, two
    recordings of half of the dose stand beside each, for denoisers, with noise of their own.
    """

    counts: Mapping[str, int]
    shape: tuple[int, int, int]
    n: int = 1
    seed: int = 0
    crowders: Mapping[str, int] = field(default_factory=dict)
    volumes: str = "mrc"
    protein: str = "dark"
    halves: bool = False
    around: Surroundings = field(default_factory=Surroundings)

    def __post_init__(self) -> None:
        scene.check_shape(self.shape)
        check_class_names(self.counts)
        for name, allowed in (("volumes", KINDS), ("protein", ("dark", "bright"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Scenes: {name} is {getattr(self, name)!r}; expected {' or '.join(allowed)}.")
        check_class_names(self.around.in_membranes)
        if self.volumes == "copick":
            copick.check_object_names(self.labelled)
        both = ", ".join(sorted(set(self.labelled) & set(self.crowders)))
        if both:
            raise ValueError(f"Scenes: {both} is counted and a crowder too; expected each class in one of them.")
        if self.n < 1:
            raise ValueError(f"Scenes: n is {self.n}; expected one tomogram or more.")
        if not self.labelled:
            raise ValueError("Scenes: counts is empty; expected a number of molecules of one class or more.")
        if {"membrane", "gold"} & {*self.labelled, *self.crowders}:
            raise ValueError("Scenes: membrane and gold are no molecules to count; ask for them in surroundings.")

    @property
    def sign(self) -> int:
        """Sign of the grey values of protein."""
        return 1 if self.protein == "bright" else -1

    @property
    def labelled(self) -> list[str]:
        """Classes of the molecules that get labels, sorted."""
        return sorted({*self.counts, *self.around.in_membranes})

    @property
    def labels(self) -> dict[str, int]:
        """What each number of the label volume of classes stands for."""
        return {name: k + 1 for k, name in enumerate([*self.labelled, "membrane", "gold"])}

    def name(self, number: int) -> str:
        """Name of tomogram `number`, from 0."""
        return f"scene_{number + 1:04d}"


@dataclass(frozen=True)
class Simulated:
    """A simulated microscope in place of a run. `snr` is the variance of the tomogram of the molecules, without noise,
    over that of the noise; None: electrons are counted at the microscope's dose.
    """

    microscope: Microscope
    snr: float | None = None


def make_scene(
    run: TrainedRun,
    references: Mapping[str, torch.Tensor],
    order: Scenes,
    number: int,
    voxel_size_A: float,
    noise_power: torch.Tensor | None = None,
    background: np.ndarray | None = None,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One tomogram: the table of its labelled molecules, and volumes (Z, Y, X) by name: "" the tomogram, with halves
    "even" and "odd"; "density", the specimen; "classes" and "molecules", labels (0 none).

    Grey values are those of the particles that the run was estimated from. Tilt range, defocus and dose are those of
    one of them. `noise_power` is that of empty boxes in network units (`physics.any_size.mean_power`), where there are
    any: the noise that is estimated from boxes with a molecule is too strong at low spatial frequencies. With
    `background`, a measured volume (Z, Y, X) without molecules, protein bright, the signal is added to a random part
    of it, mirrored or not, in place of noise: all scenes share it, so it should be larger than they are.

    Raises
    ------
    ValueError
        For a run of the paper's generator, whose network sees boxes of one size only; where the molecules find no
        room; or for a background that is smaller than the scene, or of which halves are asked for.
    """
    if background is not None:
        check_background(background, order, float(run.scaling.y_std))
    if run.config.generator != "physics":
        raise ValueError("make_scene: the paper's generator sees boxes of one size; scenes need a physics run.")
    rng, name = stream(order.seed, "scene", number), order.name(number)
    _, kept, _, specimen = _composed(references, order, number, voxel_size_A, rng)
    density = specimen["density"]
    recording = int(torch.randint(REMEMBERED, (1,), generator=rng))
    scaled = run.scaling.x(torch.from_numpy(density)).numpy()
    empty = float(run.scaling.x(torch.zeros(())))
    made = recorded(
        run.G, scaled, empty, order.seed, name=name, recording=recording, noise_power=noise_power, halves=order.halves,
        noisy=background is None,
    )  # fmt: skip
    if background is None:
        made = made * run.scaling.y_std + run.scaling.y_mean
    else:
        drawn = np.random.default_rng(int(torch.randint(2**62, (1,), generator=rng)))
        low = [int(drawn.integers(a - b + 1)) for a, b in zip(background.shape, order.shape, strict=True)]
        part = background[tuple(slice(a, a + n) for a, n in zip(low, order.shape, strict=True))]
        made = (made - float(run.G.offset)) * run.scaling.y_std + np.flip(part, FLIPS[drawn.integers(len(FLIPS))])
    made = made * order.sign
    volumes = {"": made.mean(0)} | (dict(zip(("even", "odd"), made, strict=True)) if order.halves else {})
    defocus, _, low, high = run.G.recordings[recording].tolist()
    kept = kept.assign(tilt_min_deg=low, tilt_max_deg=high)
    if run.config.transfer == "ctf":
        kept = kept.assign(defocus_um=defocus, dose_e_A2=run.G.acquisition.microscope.total_dose_e_A2)
    return kept, volumes | specimen


def simulate_scene(
    simulated: Simulated, references: Mapping[str, torch.Tensor], order: Scenes, number: int, voxel_size_A: float
) -> tuple[pd.DataFrame, dict[str, np.ndarray], scene.TiltSeries]:
    """One tomogram of a simulated microscope: table and volumes as of `make_scene`, and its tilt series. Halves are
    reconstructions of every other image.
    """
    rng, scope, depth = stream(order.seed, "scene", number), simulated.microscope, order.shape[0]
    table, kept, placed, specimen = _composed(references, order, number, voxel_size_A, rng)
    series = scene.tilt_series(
        references, table, order.shape, voxel_size_A, scope, rng, placed=placed, snr=simulated.snr
    )
    made = {"": scene.tomogram(series.images, series.angles_deg, depth)}
    if order.halves:
        made |= dict(zip(("even", "odd"), scene.halves(series, depth), strict=True))
    told = dict(tilt_min_deg=scope.tilt_min_deg, tilt_max_deg=scope.tilt_max_deg)
    told |= dict(defocus_um=series.defocus_um, dose_e_A2=scope.total_dose_e_A2)
    return kept.assign(**told), {k: -order.sign * v for k, v in made.items()} | specimen, series


def _composed(
    references: Mapping[str, torch.Tensor], order: Scenes, number: int, voxel_size_A: float, rng: torch.Generator
) -> tuple[pd.DataFrame, pd.DataFrame, Placed, dict[str, np.ndarray]]:
    """The specimen of a scene: tables of all molecules and of those with labels, what lies beside them, and the volumes
    "density", "classes" and "molecules".
    """
    placed = draw(order.around, order.shape, voxel_size_A, rng)
    counts = {**order.counts, **order.crowders}
    table = scene.place(references, counts, order.shape, voxel_size_A, rng, tomogram=order.name(number), placed=placed)
    density, classes, molecules = scene.specimen(references, table, order.shape, voxel_size_A, placed)
    beside = np.where(molecules == 0, classes, 0)
    labelled = table["class_name"].isin(order.labelled).to_numpy()
    kept, numbers = table[labelled].reset_index(drop=True), np.zeros(len(table) + 1, np.int32)
    kept["molecule"] = np.arange(len(kept)) + 1
    kept["particle"] = [f"{number:06d}" for number in kept["molecule"]]
    numbers[1:][labelled] = kept["molecule"]
    class_of = np.array([0, *kept["class_name"].map(order.labels)], np.uint8)
    molecules = numbers[molecules]
    first = table["class_name"].nunique() + 1  # the label of a membrane among all that was placed
    classes = class_of[molecules] + np.where(beside > 0, order.labels["membrane"] + beside - first, 0).astype(np.uint8)
    return table, kept, placed, {"density": density, "classes": classes, "molecules": molecules}


def check_background(background: np.ndarray, order: Scenes, spread: float) -> None:
    """Refuse a background (Z, Y, X) that cannot hold a scene of an order, that would have to have halves, or whose grey
    values are not on the scale of the particles, of standard deviation `spread`.
    """
    shape = background.shape
    if len(shape) != 3 or any(a < b for a, b in zip(shape, order.shape, strict=True)):
        raise ValueError(
            f"The background has {' x '.join(map(str, shape))} voxels and the scene {' x '.join(map(str, order.shape))}"
            " (z, y, x); expected a background at least as large."
        )
    if order.halves:
        raise ValueError(
            "Halves of a scene need noise of their own; a measured background has one: leave out one of them."
        )
    if not 1 / SCALES < background.std() / spread < SCALES:
        raise ValueError(
            f"The background's grey values have a standard deviation of {background.std():.3g}, those of the run's "
            f"particles {spread:.3g}; expected a tomogram that was reconstructed and scaled as theirs."
        )


def generate_scenes(
    folder: str | Path,
    run: TrainedRun | Simulated,
    references: Mapping[str, torch.Tensor],
    order: Scenes,
    voxel_size_A: float,
    noise_power: torch.Tensor | None = None,
    background: np.ndarray | None = None,
) -> Iterator[str]:
    """Make what is missing of an order in a folder (`make_scene`, or `simulate_scene` for a simulated microscope);
    yields the name of each tomogram once it is on disk. Tomograms that another process is at are left to it; the last
    one writes the tables.

    "mrc": tomograms/NAME.mrc, NAME_density.mrc, NAME_classes.mrc, NAME_molecules.mrc. "copick": a project with
    tomogram "generated", picks, and segmentations "classes" and "density". With halves "even" and "odd". At the end
    picks.csv, picks.star (centred positions, as RELION 5 takes them), and for copick copick.json. A simulated
    microscope also leaves its tilt series and, around them, a RELION 5 project (`write_series`, `write_project`).

    Raises
    ------
    ValueError
        As `make_scene`, or where the folder holds another order, or something else.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; expected a folder.")
    card = {"order": asdict(order), "voxel_size_A": voxel_size_A, "labels": order.labels}
    simulated = isinstance(run, Simulated)
    if simulated:
        card |= {"run": "simulated", "microscope": asdict(run)}
    else:
        operator = [v.cpu().numpy() for v in run.G.state_dict().values()]
        card["run"] = run.config.hash
        card["operator"] = array_hash(*operator, *([] if noise_power is None else [noise_power.numpy()]))
    if background is not None:
        check_background(background, order, float(run.scaling.y_std))
        card["background"] = array_hash(background)
    card["references"] = {k: array_hash(v.numpy()) for k, v in sorted(references.items())}
    path, card = folder / "scenes.json", json.loads(json.dumps(card))
    _check_folder(folder, card)
    for number in range(order.n):
        name = order.name(number)
        done = folder / "tables" / f"{name}.csv"
        if done.exists():
            continue
        with claimed(done) as ours:
            if not ours or done.exists():
                continue
            if simulated:
                table, volumes, series = simulate_scene(run, references, order, number, voxel_size_A)
            else:
                table, volumes = make_scene(run, references, order, number, voxel_size_A, noise_power, background)
            if path.exists():  # another process may have begun another order
                _check_folder(folder, card)
            write_atomically(path, lambda p: p.write_text(json.dumps(card, indent=1)))
            (_write_copick if order.volumes == "copick" else _write_mrc)(folder, name, table, volumes, voxel_size_A)
            if simulated:
                write_series(folder, name, series)
            write_atomically(done, lambda p, t=table: t.to_csv(p, index=False, float_format="%.6f"))
        yield name
    tables = [folder / "tables" / f"{order.name(k)}.csv" for k in range(order.n)]
    if not all(table.exists() for table in tables):
        return
    with claimed(folder / "tables" / "all") as ours:
        if not ours:
            return
        texts = dict.fromkeys(("class_name", "particle", "tomogram"), str)
        every = pd.concat([pd.read_csv(t, dtype=texts, keep_default_na=False, na_values=[""]) for t in tables])
        every = every.reset_index(drop=True)
        write_atomically(folder / "picks.star", lambda p: p.write_text(picks_star(every)))
        columns = ["tomogram", "molecule", "class_name", *POSITION_COLUMNS, *CENTRED_COLUMNS, *ANGLE_COLUMNS]
        write_atomically(folder / "picks.csv", lambda p: every[columns].to_csv(p, index=False, float_format="%.4f"))
        if simulated:
            names = [order.name(k) for k in range(order.n)]
            write_project(folder, names, run.microscope, order.shape, every, voxel_size_A)
        if order.volumes == "copick":
            copick.write_config(folder, order.labelled, ["membrane", "gold", "density"])
        remove_temporaries(folder, below=True)
    for lock in (folder / "tables").glob(f".*{LOCK}"):
        lock.unlink()


def _check_folder(folder: Path, card: dict) -> None:
    """Refuse a folder that holds another order, or something else."""
    path = folder / "scenes.json"
    if path.exists():
        held = read_json(path, "choose an empty folder")
        ours, theirs = (c | c.get("order", {}) for c in (card, held))
        different = [k for k in sorted({*ours, *theirs} - {"order", "n"}) if ours.get(k) != theirs.get(k)]
        different += ["n"] if ours["n"] < theirs["n"] else []  # more of the same are made
        if different:
            more = f"; it holds {theirs['n']}" if different == ["n"] else ""
            raise ValueError(
                f"{folder} holds tomograms of another order ({', '.join(different)}{more}): choose an empty folder."
            )
    elif any(p.is_file() and p.suffix != LOCK for p in folder.rglob("*")):
        raise ValueError(f"{folder} is not empty, and holds no tomograms of this command: choose an empty folder.")


def _write_mrc(
    folder: Path, name: str, table: pd.DataFrame, volumes: Mapping[str, np.ndarray], voxel_size_A: float
) -> None:
    (folder / "tomograms").mkdir(exist_ok=True)
    for kind, volume in volumes.items():
        path = folder / "tomograms" / f"{name}{f'_{kind}' if kind else ''}.mrc"
        write_atomically(path, lambda p, v=volume: write_volume(p, v, voxel_size_A))


def _write_copick(
    folder: Path, name: str, table: pd.DataFrame, volumes: Mapping[str, np.ndarray], voxel_size_A: float
) -> None:
    for kind in ("", "even", "odd"):
        if kind in volumes:
            copick.write_volume(folder, name, kind or "generated", volumes[kind], voxel_size_A)
    for kind in ("classes", "density"):
        copick.write_volume(folder, name, kind, volumes[kind], voxel_size_A, PICKER)
    copick.write_picks(folder, table, **PICKER)
