"""What a notebook's parameters may hold: checked and parsed, with one clear sentence for what does not fit."""

import json
import re
import types
from pathlib import Path

from ..config import PROFILES
from ..simulator.specimen.render import parse_source, source_exists

CHECKED = "_parameters_checked"  # set in a notebook's namespace once its names were checked
IPYTHON_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open"}


def check_parameters(namespace: dict[str, object]) -> None:
    """Check a notebook's parameters, right after its parameters cell: ``check_parameters(globals())``.

    A parameter is an annotated name. papermill injects any name and any type in silence; this raises a ValueError that
    names the unknown or mistyped one. When cells are run again in the same session, names of other cells are there too,
    and only the parameters are checked.
    """
    known = {k: v for k, v in namespace.get("__annotations__", {}).items() if not k.startswith("_")}
    skip = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)
    for name, value in () if CHECKED in namespace else namespace.items():
        if name.startswith("_") or name in IPYTHON_NAMES or isinstance(value, skip) or name in known:
            continue
        raise ValueError(f"Unknown parameter {name!r}; this notebook has {', '.join(known)}.")
    namespace[CHECKED] = True
    for name, wanted in known.items():
        value = namespace[name]
        fits = isinstance(value, (int, float) if wanted is float else wanted) and not (
            isinstance(value, bool) and wanted is not bool
        )
        if not fits:
            hint = f" (papermill reads numbers from -p: write -r {name} {value})" if wanted is str else ""
            raise ValueError(
                f"Parameter {name!r} is {value!r} ({type(value).__name__}); expected {wanted.__name__}{hint}."
            )
    of_files = {"subtomograms", "particles"} & set(known)
    if "profile" in known and namespace["profile"] not in (*PROFILES, *([""] if of_files else [])):
        raise ValueError(f"Parameter 'profile' is {namespace['profile']!r}; expected one of {', '.join(PROFILES)}.")


def profile_for(profile: str, files: str) -> str:
    """The profile of a notebook on a user's files: the one asked for, else "quick"; "smoke" where there are no files.

    Warns where numbers on a user's files would mean nothing.
    """
    chosen = profile or ("quick" if files else "smoke")
    if files and chosen == "smoke":
        from IPython.display import Markdown, display  # the command is no notebook

        text = "The smoke profile only shows that every part runs: **no number or picture below means anything.**"
        display(Markdown(text))
    return chosen


def parse_seeds(seeds: str) -> list[int]:
    """Seeds of a notebook parameter such as "0" or "0 1 2"."""
    words = seeds.replace(",", " ").split()
    if not words or not all(re.fullmatch("[0-9]{1,9}", word) for word in words):
        raise ValueError(f"Parameter 'seeds' is {seeds!r}; expected whole numbers such as '0 1 2'.")
    return [int(word) for word in words]


def parse_maps(maps: str) -> dict[str, str]:
    """Class to file, from a notebook parameter such as "ribosome=/data/4v4r.mrc, tric=model.cif"."""
    chosen = {}
    for part in filter(None, (p.strip() for p in maps.split(","))):
        name, equals, path = part.partition("=")
        if not equals or not source_exists(path):
            raise ValueError(
                f"Parameter 'maps' holds {part!r}; expected class=FILE with a file that exists, or class=pdb:3j9i."
            )
        chosen[name.strip()] = path.strip()
    return chosen


def parse_files(files: str) -> dict[str, tuple[str, dict]]:
    """Name to (source, options of `reference_map`), from a notebook parameter of files, folders and entries: "maps/,
    emd_5225.mrc@13.68, pdb:3j9i".
    """
    found = {}
    for part in filter(None, (p.strip() for p in files.split(","))):
        source, options = parse_source(part)
        if not source_exists(part):
            raise ValueError(
                f"Parameter 'files' holds {part!r}; expected files, folders or entries such as pdb:3j9i that exist."
            )
        path = Path(source)
        for one in sorted(path.iterdir()) if path.is_dir() else [source]:
            found[Path(one).name] = (str(one), options)  # named later, a single file replaces the folder's entry
    return found


def parse_json(parameter: str, text: str, example: str = '{"noise_level": 0.5}') -> dict:
    """The JSON object that a parameter holds; `example` is one in messages."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"Parameter {parameter!r} is {text!r}; expected JSON such as {example} ({error}).") from None
    if not isinstance(found, dict):
        raise ValueError(f"Parameter {parameter!r} is {text!r}; expected JSON of names and values such as {example}.")
    return found


def reader_options(
    *,
    protein: str = "",
    beam_axis: str = "",
    voxel_size_A: float = 0.0,
    coordinates: str = "",
    coordinate_voxel_size_A: float = 0.0,
    labels_path: str = "",
    labels: str = "",
    n: int = 0,
    tilts: str = "",
    options: str = "{}",
) -> dict:
    """Options of `load_particles` from a notebook's parameters or the command's arguments; what is empty or 0 is left
    to the files.

    Parameters
    ----------
    tilts
        least and greatest tilt, as in "-60 60", or a .tlt, .rawtlt or .mdoc file.
    options
        JSON of any others.
    """
    told = {"protein": protein, "beam_axis": beam_axis, "voxel_size_A": voxel_size_A, "n": n}
    told |= {"coordinates": coordinates, "coordinate_voxel_size_A": coordinate_voxel_size_A}
    told |= {"labels_path": labels_path, "labels": labels}
    found = {k: v for k, v in told.items() if v}
    if tilts:
        words = tilts.replace(",", " ").split()
        try:
            found["tilt_range_deg"] = [float(w) for w in words]
        except ValueError:
            found["tilt_file"] = tilts
    more = parse_json("options", options, '{"mirror_z": true}')
    own = sorted({"box", "target_voxel_size_A", *found} & set(more))
    if own:
        raise ValueError(
            f"Parameter 'options' holds {', '.join(own)}; expected each to be given once, by its own name."
        )
    return found | more


def choose(parameter: str, value: str, known: dict) -> object:
    """The entry of `known` that a notebook's parameter names, or a ValueError that lists the names."""
    if value not in known:
        raise ValueError(f"Parameter {parameter!r} is {value!r}; expected one of {', '.join(known)}.")
    return known[value]


def parse_shares(text: str, names: tuple[str, ...]) -> dict[str, float]:
    """How often each class comes, from "ribosome=3, tric=1"; all of `names` alike from "".

    Raises ValueError for a name that is none of `names`, or a share that is no positive number.
    """
    if not text.strip():
        return dict.fromkeys(names, 1.0)
    shares = {}
    for part in text.split(","):
        name, _, number = (s.strip() for s in part.partition("="))
        try:
            shares[name] = float(number or 1)
        except ValueError:
            shares[name] = 0.0
        if name not in names or not shares[name] > 0:
            raise ValueError(
                f"Parameter 'shares' holds {part.strip()!r}; expected NAME=NUMBER with some of {', '.join(names)} and "
                "positive numbers."
            )
    return shares
