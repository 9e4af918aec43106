"""Damaged files of every kind that particles are read from: what the readers make of them.

    python tests/fuzz/files.py --mutants 2000 --seed 0

Each mutant is a valid file with bytes flipped, cut, doubled or inserted, or words of text changed. A worker with 2 GiB
of memory loads it. Found are: "clear" (a ValueError that names a file), "as it was", "changed" (voxels or table differ;
flipped voxels must), and the faults: "raw" (another exception, or no file named), "hang" and "memory".
"""

import argparse
import collections
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import emfile
import h5py
import mrcfile
import numpy as np
import tifffile
import zarr

SECONDS, MEMORY = 30, 2 << 30
SHAPE = (12, 14, 16)
TEXT = (".star", ".csv", ".tbl", ".json", ".tlt", ".mdoc")
OPTICS = (
    "\ndata_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n_rlnImageDimensionality\n"
    "_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnCtfDataAreCtfPremultiplied\n"
)


def _volumes(n: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, side, side, side)).astype(np.float32)


def _tomogram() -> np.ndarray:
    return np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def make(folder: Path) -> dict[str, tuple[str, dict, list[str]]]:
    """Valid inputs by name: the path to load, options, and the files to damage, relative to `folder`."""
    cut = {"box": 4, "coordinates": [(6, 7, 8)]}
    found: dict[str, tuple[str, dict, list[str]]] = {}

    def new(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    d = new("folder")
    for i, volume in enumerate(_volumes()):
        mrcfile.write(d / f"{i}.mrc", volume, voxel_size=10.0)
    (d / "labels.csv").write_text("particle,label\n0.mrc,a\n1.mrc,b\n2.mrc,a\n")
    found["folder"] = ("folder", {}, ["folder/1.mrc", "folder/labels.csv"])
    d = new("em")
    for i, volume in enumerate(_volumes()):
        emfile.write(d / f"{i}.em", volume)
    found["em"] = ("em", {"voxel_size_A": 10.0}, ["em/0.em"])
    d = new("tiff")
    tifffile.imwrite(d / "t.tif", _tomogram())
    found["tiff"] = ("tiff/t.tif", cut | {"voxel_size_A": 10.0}, ["tiff/t.tif"])
    d = new("npz")
    np.savez(d / "p.npz", volumes=_volumes(), label=np.array(["a", "b", "a"]), voxel_size_A=10.0)
    found["npz"] = ("npz/p.npz", {}, ["npz/p.npz"])
    np.save(d / "p.npy", _volumes())
    found["npy"] = ("npz/p.npy", {"voxel_size_A": 10.0}, ["npz/p.npy"])
    mrcfile.write(d / "p.mrcs", _volumes().reshape(-1, 8, 8), voxel_size=10.0)
    found["mrcs"] = ("npz/p.mrcs", {}, ["npz/p.mrcs"])
    d = new("hdf5")
    with h5py.File(d / "p.h5", "w") as handle:
        handle["volumes"] = _volumes()
    found["hdf5"] = ("hdf5/p.h5", {"voxel_size_A": 10.0}, ["hdf5/p.h5"])
    with h5py.File(d / "t.h5", "w") as handle:
        handle.create_dataset("v", data=_tomogram(), chunks=(4, 7, 8), compression="gzip")
    found["hdf5 packed"] = ("hdf5/t.h5", cut | {"voxel_size_A": 10.0}, ["hdf5/t.h5"])
    for version in (2, 3):
        d = new(f"zarr{version}")
        group = zarr.open_group(d / "t.zarr", mode="w", zarr_format=version)
        group.create_array("0", data=_tomogram(), chunks=(6, 7, 8))
        axes = [{"name": a, "type": "space", "unit": "angstrom"} for a in "zyx"]
        level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [10.0] * 3}]}
        image = {"multiscales": [{"axes": axes, "datasets": [level]}]}
        group.attrs.update(image if version == 2 else {"ome": image})
        files = [p.relative_to(folder).as_posix() for p in (d / "t.zarr").rglob("*") if p.is_file()]
        found[f"zarr {version}"] = (f"zarr{version}/t.zarr", cut, files)
    d = new("tomogram")
    mrcfile.write(d / "TS_1.mrc", _tomogram(), voxel_size=10.0)
    (d / "TS_1.tlt").write_text("-60.0\n0.0\n60.0\n")
    (d / "TS_1.mdoc").write_text("[ZValue = 0]\nTiltAngle = -60\n[ZValue = 1]\nTiltAngle = 60\n")
    picks = {
        "p.csv": "x,y,z,class_name\n8,7,6,a\n9,8,6,b\n",
        "p.tbl": "".join(
            " ".join(["1"] * 23 + ["9", "8", "7"] + ["0"] * 9).replace("1", str(k), 1) + "\n" for k in (1, 2)
        ),
        "p.star": "\ndata_particles\n\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        "_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\nTS_1 8 7 6 10 20 30\nTS_1 9 8 6 1 2 3\n",
        "p5.star": "\ndata_particles\n\nloop_\n_rlnTomoName\n"
        + "".join(f"_rlnCenteredCoordinate{a}Angst\n" for a in "XYZ")
        + "TS_1 1 2 3\nTS_1 5 6 7\n",
    }
    for name, text in picks.items():
        (d / name).write_text(text)
        options = {"box": 4, "coordinates": f"tomogram/{name}", "coordinate_voxel_size_A": 10.0}
        files = [f"tomogram/{f}" for f in (name, "TS_1.mrc", "TS_1.tlt")]
        found[f"tomogram, {name}"] = ("tomogram/TS_1.mrc", options, files)
    labels = np.zeros(SHAPE, np.int8)
    labels[4:8, 5:9, 6:10] = 2
    mrcfile.write(d / "labels.mrc", labels, voxel_size=10.0)
    options = {"box": 4, "labels_path": "tomogram/labels.mrc"}
    found["labels"] = ("tomogram/TS_1.mrc", options, ["tomogram/labels.mrc", "tomogram/TS_1.tlt"])
    d = new("relion")
    for i, volume in enumerate(_volumes()):
        mrcfile.write(d / f"{i}.mrc", volume, voxel_size=10.0)
    rows = "".join(f"TS_1 {i}.mrc 1 10 20 30 1 2 3\n" for i in range(3))
    names = ("TomoName", "ImageName", "OpticsGroup", "AngleRot", "AngleTilt", "AnglePsi", "CoordinateX", "CoordinateY")
    columns = "".join(f"_rln{c}\n" for c in (*names, "CoordinateZ"))
    (d / "particles.star").write_text(OPTICS + f"1 10 8 3 300 2.7 0.1 0\n\ndata_particles\n\nloop_\n{columns}{rows}")
    found["relion"] = ("relion", {}, ["relion/particles.star", "relion/0.mrc"])
    d = new("relion5")
    mrcfile.write(d / "s.mrcs", _volumes(3).reshape(-1, 8, 8)[:3], voxel_size=10.0)
    names = ("TomoName", "ImageName", "OpticsGroup", "AngleRot", "AngleTilt", "AnglePsi", "TomoVisibleFrames")
    stack = "".join(f"_rln{c}\n" for c in names)
    (d / "particles.star").write_text(
        OPTICS + f"1 10 8 2 300 2.7 0.1 1\n\ndata_particles\n\nloop_\n{stack}TS_1 s.mrcs 1 10 20 30 [1,1,1]\n"
    )
    (d / "tomograms.star").write_text(
        "\ndata_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesStarFile\nTS_1 TS_1.star\n"
    )
    (d / "TS_1.star").write_text(
        "\ndata_TS_1\n\nloop_\n_rlnTomoXTilt\n_rlnTomoYTilt\n_rlnTomoZRot\n_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n"
        "_rlnMicrographPreExposure\n0 -40 85 30000 29000 45 0\n0 0 85 30000 29000 45 3\n0 40 85 30000 29000 45 6\n"
    )
    files = [f"relion5/{f}" for f in ("particles.star", "tomograms.star", "TS_1.star", "s.mrcs")]
    found["relion 5"] = ("relion5", {}, files)
    d = new("copick")
    run = d / "ExperimentRuns" / "TS_1"
    group = zarr.open_group(run / "VoxelSpacing10.000" / "wbp.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=_tomogram(), chunks=SHAPE)
    (run / "Picks").mkdir()
    point = {"location": {"x": 80, "y": 70, "z": 60}, "transformation_": np.eye(4).tolist(), "instance_id": 0}
    picks = {"pickable_object_name": "a", "user_id": "me", "session_id": "1", "run_name": "TS_1", "points": [point]}
    (run / "Picks" / "me_1_a.json").write_text(json.dumps(picks))
    config = {"config_type": "filesystem", "overlay_root": "local://.", "pickable_objects": [{"name": "a", "label": 1}]}
    (d / "copick.json").write_text(json.dumps(config))
    files = ["copick/ExperimentRuns/TS_1/Picks/me_1_a.json", "copick/copick.json"]
    found["copick"] = ("copick", {"box": 4}, files)
    return found


def damage(path: Path, rng: np.random.Generator) -> str:
    """Change a file in one way; returns which."""
    raw = bytearray(path.read_bytes())
    kinds = ["flip", "cut", "double", "insert", "header", "empty"] + ["word", "number", "line"] * 2 * (
        path.suffix in TEXT
    )
    kind, place = str(rng.choice(kinds)), int(rng.integers(max(len(raw), 1)))
    if kind == "flip":
        for k in rng.integers(len(raw), size=int(rng.integers(1, 9))):
            raw[k] ^= int(rng.integers(1, 256))
    elif kind == "header":
        raw[int(rng.integers(min(len(raw), 256)))] = int(rng.integers(256))
    elif kind == "cut":
        raw = raw[:place]
    elif kind == "double":
        raw = raw[:place] + raw[place : place + 64] + raw[place:]
    elif kind == "insert":
        raw[place:place] = rng.bytes(int(rng.integers(1, 64)))
    elif kind == "empty":
        raw = bytearray()
    else:
        lines = raw.decode().splitlines(True)
        k = int(rng.integers(len(lines)))
        if kind == "line":
            del lines[k]
        else:
            words = lines[k].split(" ")
            odd = (
                ["", "nan", "-1e99", "x y", "[1", "1e400", "/etc/passwd", "0"]
                if kind == "word"
                else ["-7", "1e9", "0.0"]
            )
            words[int(rng.integers(len(words)))] = str(rng.choice(odd))
            lines[k] = " ".join(words) if words[-1].endswith("\n") else " ".join(words) + "\n"
        raw = bytearray("".join(lines).encode())
    path.write_bytes(bytes(raw))
    return kind


def _load(folder: Path, path: str, options: dict) -> tuple[np.ndarray, str]:
    from cryoetgan_core.particles.folder import load_particles

    found = {
        k: str(folder / v) if k in ("coordinates", "labels_path") and isinstance(v, str) else v
        for k, v in options.items()
    }
    particles = load_particles(folder / path, **found)
    return np.asarray(particles.volumes[:]), particles.table.drop(columns="source").to_csv(float_format="%.6g")


def _work(pipe, source: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.CRITICAL)
    inputs = json.loads((source / "inputs.json").read_text())
    right = {name: _load(source, path, options) for name, (path, options, _) in inputs.items()}
    pipe.send("ready")
    while True:
        try:
            name, folder = pipe.recv()
        except EOFError:
            return
        path, options, _ = inputs[name]
        try:
            volumes, table = _load(folder, path, options)
            same = volumes.shape == right[name][0].shape and np.array_equal(volumes, right[name][0])
            pipe.send(("as it was" if same and table == right[name][1] else "changed", ""))
        except ValueError as error:
            named = str(folder) in str(error) or any(Path(f).name in str(error) for f in inputs[name][2])
            pipe.send(("clear" if named and len(str(error)) < 900 else "raw", f"ValueError: {str(error)[:300]}"))
        except MemoryError as error:
            pipe.send(("memory", repr(error)[:300]))
        except BaseException as error:  # what a user would see as a traceback
            trace = error.__traceback__
            while trace.tb_next:
                trace = trace.tb_next
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            pipe.send(("raw", f"{type(error).__name__}: {str(error)[:200]} ({place})"))


def main() -> int:
    """Load the mutants; 1 when a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changed", action="store_true", help="list also which mutants were read as something else")
    chosen = parser.parse_args()
    source = Path(tempfile.mkdtemp(prefix="fuzz_source_"))
    inputs = make(source)
    (source / "inputs.json").write_text(json.dumps(inputs))
    context, worker, pipe = multiprocessing.get_context("spawn"), None, None
    counts, faults, changed = collections.Counter(), collections.Counter(), collections.Counter()
    names = list(inputs)
    for number in range(chosen.mutants):
        rng = np.random.default_rng((chosen.seed, number))
        name = names[number % len(names)]
        path, _, files = inputs[name]
        folder = Path(tempfile.mkdtemp(prefix="fuzz_"))
        top = Path(path).parts[0]
        shutil.copytree(source / top, folder / top)
        target = str(rng.choice(files))
        kind = damage(folder / target, rng)
        if worker is None or not worker.is_alive():
            pipe, other = context.Pipe()
            worker = context.Process(target=_work, args=(other, source), daemon=True)
            worker.start()
            pipe.recv()
        pipe.send((name, folder))
        try:
            outcome, told = pipe.recv() if pipe.poll(SECONDS) else ("hang", f"more than {SECONDS} s")
        except (EOFError, ConnectionResetError):
            outcome, told = "raw", "the process died"
        if outcome == "hang":
            worker.kill()
            worker.join()
        counts[outcome] += 1
        changed[f"{name}, {Path(target).name}, {kind}"] += outcome == "changed"
        if outcome in ("raw", "hang", "memory"):
            faults[f"{outcome}: {name}, {Path(target).name}, {kind}: {told.replace(str(folder), '')}"] += 1
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(source, ignore_errors=True)
    print(dict(counts), "of", chosen.mutants, "mutants of", len(inputs), "kinds, seed", chosen.seed)
    for fault, times in faults.most_common():
        print(f"{times} x {fault}")
    for what, times in (+changed).most_common() if chosen.changed else ():
        print(f"{times} x changed: {what}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
