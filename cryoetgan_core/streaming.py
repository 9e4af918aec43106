"""Labelled subtomograms by the million: in constant memory, in parts that machines share, and resumed where they
stopped.

Particle i has its class, pose and noise from streams named by the seed and i alone, and parts are cut at fixed places,
so the same seed gives the same files whichever machine makes which part. A part is there once its volumes, its table
and, written last, the list of their sizes are; one that misses a file, or has a shorter one, is made again.
"""

import hashlib
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .generation import TrainedRun, generate_recorded
from .particles.copick import RUNS, object_name, write_picks
from .particles.writers import FORMATS, IN_TOMOGRAMS, PICKER, place_in_mosaic, write_tables, write_volumes
from .reproducibility.files import read_json, remove_temporaries, write_atomically
from .reproducibility.seeds import stream
from .simulator.sets import MAX_SHIFT, densities_of
from .volumes.poses import pose_to_relion_angles, random_rotations, random_shifts
from .volumes.table import check_class_names, particle_table

OPTICS = ("voltage_kV", "cs_mm", "amplitude_contrast")  # columns of the table, where the training particles' files told
SAME_VOXEL = 0.01  # as part of a voxel's size
MASK_LEVEL = 0.3  # of a density whose protein is 1: inside
LONGEST_WRITE_S = 3600.0  # of one file: an unfinished one that is older was left by a writer that died


@dataclass(frozen=True)
class Order:
    """What is to be generated.

    Attributes
    ----------
    n
        particles.
    shares
        how often each class comes, by name; any positive numbers.
    seed
        of classes, poses and noise.
    tilt_deg
        range of the angle between the reference's z axis and the beam; (0, 180) with all directions alike are uniform
        poses, less is a preferred orientation.
    part
        particles of one part, which is made in one go and held in memory.
    channels
        further volumes of each particle: "mask" (inside the molecule; in tomograms its class's number), "density" (the
        input).
    volumes
        kind of file that holds them, one of FORMATS.
    protein
        how the volumes show it, "bright" or "dark", whatever the training particles' files did. "": dark in tomograms
        ("copick", "deepfinder"), bright in files of subtomograms. Channels do not change.
    """

    n: int
    shares: Mapping[str, float]
    seed: int = 0
    tilt_deg: tuple[float, float] = (0.0, 180.0)
    part: int = 256
    channels: tuple[str, ...] = ()
    volumes: str = "mrc"
    protein: str = ""

    def __post_init__(self) -> None:
        if self.n < 1 or self.part < 1:
            raise ValueError(f"Order: {self.n} particles in parts of {self.part}; expected at least 1 of each.")
        if not self.shares or not all(np.isfinite(s) and s > 0 for s in self.shares.values()):
            raise ValueError(f"Order: shares {dict(self.shares)}; expected a positive number for each class.")
        check_class_names(self.shares)
        if self.volumes == "copick" and len(set(map(object_name, self.shares))) < len(self.shares):
            raise ValueError(
                f"Order: classes {list(self.shares)} share a name as objects of a copick project; rename one."
            )
        if not 0 <= self.tilt_deg[0] < self.tilt_deg[1] <= 180:
            raise ValueError(f"Order: tilt_deg {self.tilt_deg}; expected 0 <= low < high <= 180.")
        unknown = set(self.channels) - {"mask", "density"}
        if unknown or self.volumes not in FORMATS:
            raise ValueError(
                f"Order: channels {self.channels} in {self.volumes!r}; expected some of mask, density in one of "
                f"{', '.join(FORMATS)}."
            )
        if self.volumes == "deepfinder" and "mask" not in self.channels:
            raise ValueError(
                'Order: DeepFinder trains on label maps; expected channels ("mask",) with volumes "deepfinder".'
            )
        if self.protein not in ("", "bright", "dark"):
            raise ValueError(f'Order: protein {self.protein!r}; expected "bright", "dark" or "".')

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.n // self.part)

    @property
    def sign(self) -> int:
        """Of the protein in the volumes: 1 where it is bright."""
        shown = self.protein or ("dark" if self.volumes in IN_TOMOGRAMS else "bright")
        return 1 if shown == "bright" else -1


def places(
    n: int, box: int, voxel_size_A: float, generator: torch.Generator, picks: Mapping[str, object]
) -> torch.Tensor:
    """Where n particles lie off the centres of their boxes, (n, 3) zyx in angstrom.

    Parameters
    ----------
    picks
        What a run notes of its training particles, where they were found to lie farther off than `MAX_SHIFT` tells:
        ``scatter_A``, standard deviation along each axis (0: not farther), and ``offset_zyx_A``, their mean. Empty:
        up to `MAX_SHIFT` of the box, all places alike.
    """
    if picks.get("scatter_A"):
        shifts = picks["scatter_A"] * torch.randn((n, 3), generator=generator, dtype=torch.float64)
    else:
        shifts = random_shifts(n, MAX_SHIFT * box * voxel_size_A, generator)
    return shifts + torch.tensor(picks.get("offset_zyx_A", (0.0, 0.0, 0.0)), dtype=torch.float64)


def particles_of(
    order: Order, part: int, box: int, voxel_size_A: float, picks: Mapping[str, object] | None = None
) -> pd.DataFrame:
    """Classes and poses of a part, as the columns of `volumes.table`; `picks` as in `places`."""
    first = part * order.part
    numbers = range(first, min(first + order.part, order.n))
    names, bounds = list(order.shares), np.cumsum(list(order.shares.values())) / sum(order.shares.values())
    low, high = (np.cos(np.deg2rad(t)) for t in order.tilt_deg)
    classes, rows = [], []
    for i in numbers:
        rng = stream(order.seed, "particle", i)
        classes.append(
            names[min(int(np.searchsorted(bounds, float(torch.rand((), generator=rng)), side="right")), len(names) - 1)]
        )
        rotation = random_rotations(1, rng)
        rot, tilt, psi = (float(a) for a in pose_to_relion_angles(rotation))
        if order.tilt_deg != (0.0, 180.0):
            cosine = low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))
            tilt = float(np.rad2deg(np.arccos(cosine)))
        rows.append((rot, tilt, psi, *places(1, box, voxel_size_A, rng, picks or {})[0].tolist()))
    columns = dict(
        zip(("rot_deg", "tilt_deg", "psi_deg", "shift_z_A", "shift_y_A", "shift_x_A"), np.array(rows).T, strict=True)
    )
    return particle_table(
        len(rows), class_name=classes, particle=[f"{i:09d}" for i in numbers], tomogram="generated-1", **columns
    )


def provenance(
    run_folder: Path, run: TrainedRun, references: Mapping[str, torch.Tensor], order: Order, voxel_size_A: float
) -> dict:
    """What made the particles: hashes of weights, configuration and references, the order, and versions.

    It holds no time and no place, so the same order gives the same card.
    """
    packages = ("torch", "numpy", "cryoetgan-core")
    return {
        "weights_sha256": hashlib.sha256((run_folder / "weights.safetensors").read_bytes()).hexdigest(),
        "config_hash": run.config.hash,
        "training_data": json.loads((run_folder / "config.json").read_text())["fingerprint"],
        "references_sha256": {
            k: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest() for k, v in references.items()
        },
        "order": asdict(order) | {"shares": dict(order.shares)},
        "angles": "RELION's, from the reference to the particle",  # those of the first version were inverse
        "box": run.config.box,
        "voxel_size_A": voxel_size_A,
        "versions": {p: importlib.metadata.version(p) for p in packages} | {"python": platform.python_version()},
    }


def missing_parts(folder: Path, order: Order) -> list[int]:
    """The parts that are not there yet, or that lack a file, or a piece of one."""
    return [k for k in range(order.parts) if not _is_whole(folder, k)]


def generate_to(
    folder: Path,
    run_folder: Path,
    run: TrainedRun,
    references: Mapping[str, torch.Tensor],
    order: Order,
    voxel_size_A: float,
    *,
    shard: int = 0,
    shards: int = 1,
    replace: bool = False,
) -> Iterator[int]:
    """Make the missing parts of an order in `folder`, one after another, and yield the number of each; of several
    machines the one numbered `shard` makes every `shards`-th.

    Whoever finds all parts there at the end writes the tables: ``particles.csv``, ``particles.tbl`` (Dynamo) and those
    of the kind of volumes (`particles.writers.write_tables`). `replace` starts anew over the parts of another order
    instead of refusing the folder. Particles lie as far off the centres of their boxes as the run notes of those it was
    trained on (`places`). Volumes of kind "copick" make a copick project: a mosaic tomogram a part, with
    picks; its copick.json names the folder where it lies. Those of kind "deepfinder" are such mosaics and label maps in
    HDF5.

    Raises
    ------
    ValueError
        When a class has no reference, the voxels are not those of the run, the shard does not exist, or the folder
        holds the parts of another order, or something else.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"generate_to: shard {shard} of {shards}; expected 0 to {shards - 1}.")
    unknown = sorted(set(order.shares) - set(references))
    if unknown:
        raise ValueError(f"generate_to: no density for {', '.join(unknown)}; there are {', '.join(references)}.")
    noted = run_folder / "source.json"
    source = read_json(noted, "train the run again") if noted.exists() else {}
    trained_on = source.get("voxel_size_A", voxel_size_A)
    if abs(voxel_size_A / trained_on - 1) > SAME_VOXEL:
        raise ValueError(f"generate_to: voxels of {voxel_size_A:g} A; the run was trained on {trained_on:g} A.")
    folder.mkdir(parents=True, exist_ok=True)
    optics, picks = source.get("optics", {}), source.get("picks", {})
    card = provenance(run_folder, run, references, order, voxel_size_A) | ({"picks": picks} if picks else {})
    path = folder / "provenance.json"
    others = any(not p.name.startswith(".") for p in folder.iterdir())  # before `held`: another process may begin now
    held = read_json(path, "choose an empty folder") if path.exists() else None
    if others and held is None:
        raise ValueError(f"{folder} is not empty, and holds no particles of this command: choose an empty folder.")
    other = held is not None and held != json.loads(json.dumps(card))
    if other and replace:
        tables = [folder / f"particles{end}" for end in (".csv", ".tbl", ".star", "_relion5.star", ".xml")]
        for old in [*(folder / "parts").glob("*"), *tables, folder / "copick.json", path]:
            old.unlink(missing_ok=True)
        for old in (folder / "volumes", folder / "tomograms", *(folder / RUNS).glob("generated-*")):
            shutil.rmtree(old, ignore_errors=True)
    elif other:
        there, wanted = (of | of.get("order", {}) for of in (held, json.loads(json.dumps(card))))
        different = [k for k in (there | wanted) if k != "order" and there.get(k) != wanted.get(k)]
        raise ValueError(
            f"{folder} holds particles of another order, seed, training or version (other {', '.join(different)}; "
            "provenance.json): choose an empty folder."
        )
    write_atomically(path, lambda p: p.write_text(json.dumps(card, indent=1)))
    (folder / "parts").mkdir(exist_ok=True)
    box = run.config.box
    for part in [k for k in missing_parts(folder, order) if k % shards == shard]:
        table = particles_of(order, part, box, voxel_size_A, picks).assign(**optics)
        density = densities_of(table, references, box, voxel_size_A)
        made, recorded = generate_recorded(run, density, seed=order.seed, first=part * order.part)
        volumes = made * run.scaling.y_std + run.scaling.y_mean
        table = table.assign(**{name: column.double().numpy() for name, column in recorded.items()})
        channels = {"": order.sign * volumes} | {
            c: density if c == "density" else (density > MASK_LEVEL).float() for c in order.channels
        }
        for channel, values in channels.items():
            table[f"{channel}_file" if channel else "file"] = write_volumes(
                folder, part, order, table, values.numpy(), voxel_size_A, channel
            )
        if order.volumes in IN_TOMOGRAMS:
            place_in_mosaic(table, part, order, box, voxel_size_A)
        if order.volumes == "copick":
            write_picks(folder, table, **PICKER)
        write_atomically(_part_table(folder, part), lambda p, t=table: t.to_csv(p, index=False, float_format="%.9f"))
        sizes = json.dumps(_sizes(folder, part, order, table), indent=1)
        write_atomically(_part_sizes(folder, part), lambda p, text=sizes: p.write_text(text))
        yield part
    if not missing_parts(folder, order):
        for finished in ("parts", "volumes", RUNS):  # nobody writes there any more
            remove_temporaries(folder / finished, below=True)
        remove_temporaries(folder, older_than_s=LONGEST_WRITE_S)  # others may write the tables at this moment
        write_tables(folder, [_part_table(folder, k) for k in range(order.parts)], order, box, voxel_size_A)


def _part_table(folder: Path, part: int) -> Path:
    return folder / "parts" / f"{part:06d}.csv"


def _part_sizes(folder: Path, part: int) -> Path:
    return folder / "parts" / f"{part:06d}.json"


def _sizes(folder: Path, part: int, order: Order, table: pd.DataFrame) -> dict[str, int]:
    """Bytes of each file of a part, by its path in `folder`."""
    columns = ["file", *(f"{channel}_file" for channel in order.channels)]
    places = [folder / name for name in {entry.rpartition("@")[2] for column in columns for entry in table[column]}]
    if order.volumes == "zarr":  # one store for all parts, of which a part is a chunk
        places = [place / own for place in places for own in ("zarr.json", f"c/{part}")]
    elif order.volumes == "copick":  # tomograms and picks
        places = [folder / RUNS / table["tomogram"].iloc[0]]
    below = [
        p for place in [_part_table(folder, part), *places] for p in (place.rglob("*") if place.is_dir() else [place])
    ]
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(below) if not file.is_dir()}


def _is_whole(folder: Path, part: int) -> bool:
    """Whether all files of a part are there, with the sizes that they were written with."""
    try:
        sizes = json.loads(_part_sizes(folder, part).read_bytes())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, ValueError):  # not made yet, or the list itself is damaged
        return False
