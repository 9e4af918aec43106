"""What a user's program calls, and the command `cryoetgan`: train on particles, generate, simulate."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import generation
from ..config import OWN_DATA, RunConfig, make_config
from ..generation import TrainedRun, load_run
from ..particles.report import describe, unlike_tomograms
from ..particles.tomogram import read_tomogram
from ..particles.volume_files import NO_VOXEL_SIZE, suffix_of
from ..physics.acquisition import acquisition
from ..physics.pick_error import LEAST, as_picked
from ..physics.signal_moments import PARTS_FOR_SIGNS
from ..reproducibility.files import read_json
from ..reproducibility.seeds import stream
from ..run_folder import fingerprint
from ..scenes import Scenes, Simulated, generate_scenes
from ..simulator.microscope.simulate import MICROSCOPES
from ..simulator.sets import class_references, density_maps, subtomograms
from ..simulator.specimen.render import parse_source
from ..simulator.surroundings import surroundings
from ..streaming import SAME_VOXEL, places
from ..volumes.domains import Domains
from ..volumes.poses import random_rotations
from ..volumes.table import SHIFT_COLUMNS, ParticleSet
from . import own_data
from .doubts import doubtful, doubts
from .own_runs import keep_noise, keep_source, noise_of, noted, source_of
from .parameters import choose
from .runs import train_on

LOG = logging.getLogger(__name__)


def train(
    particles: ParticleSet,
    densities: str | Mapping[str, str | Path],
    folder: str | Path,
    *,
    preset: str = "physics",
    profile: str = "quick",
    seed: int = 0,
    progress: bool = False,
    replace: bool = False,
    **changes: object,
) -> TrainedRun:
    """Estimate the physics generator, or train the paper's, on particles; the finished run.

    A training that was stopped goes on from its checkpoint when it is called again. What looks wrong with particles or
    densities is warned of first.

    Parameters
    ----------
    particles
        as `load_particles` reads them; those of one tomogram, or a third, are kept out.
    densities
        what the particles show: "class=FILE" with commas between (or a mapping), or built-in classes. FILE#0 is the
        first of several molecules in a map. Other molecules can be generated afterwards.
    folder
        of the run: configuration and weights.
    preset
        "physics", estimated in seconds, or "adapted", the paper's, trained for the profile's steps.
    replace
        start anew over another run in the folder.
    changes
        fields of `config.RunConfig`, such as ``transfer="uncorrected"`` (what was done about the particles' CTF) or
        ``steps=2000``.

    Raises
    ------
    ValueError
        For densities or settings that do not fit, too few particles, or tomograms whose grey values differ too much;
        before anything is trained.
    """
    if not isinstance(particles, ParticleSet):
        raise ValueError(f"train: particles are {type(particles).__name__}; expected what load_particles gives")
    densities = densities if isinstance(densities, str) else ", ".join(f"{k}={v}" for k, v in densities.items())
    box = particles.volumes.shape[-1]
    config = make_config(profile, OWN_DATA, preset, **({"box": box, "seed": seed} | changes))
    both = domains(particles, densities, config)
    for text in [*describe(particles).warnings, *doubts(particles, densities)]:
        warnings.warn(text, stacklevel=2)
    return train_domains(config, both, folder, densities, progress=progress, replace=replace)


def domains(particles: ParticleSet, densities: str, config: RunConfig) -> Domains:
    """Both domains of a training on particles (`own_data.domains`). For the physics generator: where the particles
    are found to lie farther off centre than the densities, the densities are shifted as far; this is logged, and noted
    in the table of X_train (``attrs["picks"]``).

    Raises
    ------
    ValueError
        For too few particles, or tomograms whose grey values differ too much for one generator.
    """
    unlike = unlike_tomograms(particles)
    if unlike:
        raise ValueError(unlike)
    both = own_data.domains(particles, densities, config)
    if config.generator != "physics":
        return both
    if len(both.Y_train) < PARTS_FOR_SIGNS and config.transfer == "table":
        LOG.warning(
            "%d particles are too few to find where the transfer function changes its sign (expected %d or more): "
            "beyond the first zero of the CTF, if it is within Nyquist, generated particles have the wrong contrast. "
            'If nobody corrected the CTF, say transfer="uncorrected".',
            len(both.Y_train),
            PARTS_FOR_SIGNS,
        )
    tilts = acquisition(both.Y_train, tilt_range=config.tilt_range).tilt_range_deg
    both, error, offset = as_picked(both, config.data_seed, tilts)
    if error:
        LOG.warning(
            "The picks scatter about the particles' centres by %.1f voxels (%.0f A; standard deviation along each "
            "axis). The densities were shifted at random by as much; otherwise the signal would be estimated too weak. "
            "`generate` shifts its particles alike (in Python: densities_for with run=).",
            error,
            error * particles.voxel_size_A,
        )
    told = np.nan_to_num(both.Y_train.table[list(SHIFT_COLUMNS)].to_numpy(float)).mean(0)[::-1] / particles.voxel_size_A
    if np.linalg.norm(offset - told) >= LEAST and offset.any():  # else the particles' table tells it
        LOG.warning(
            "The particles lie off the centres of their boxes by (x, y, z) = (%.1f, %.1f, %.1f) voxels on average, "
            "(%.0f, %.0f, %.0f) A, in axes with the beam along z. The densities were shifted by the same vector. It is "
            "better to add this vector to the positions of the picks, and to cut the particles again. If they are of "
            "several tomograms, check each one.",
            *(offset - told)[::-1],
            *(particles.voxel_size_A * (offset - told)[::-1]),
        )
    if error or offset.any():
        voxel = particles.voxel_size_A
        both.X_train.table.attrs["picks"] = {"scatter_A": error * voxel, "offset_zyx_A": (voxel * offset).tolist()}
    return both


def train_domains(
    config: RunConfig,
    both: Domains,
    folder: str | Path,
    densities: str,
    *,
    progress: bool = False,
    replace: bool = False,
) -> TrainedRun:
    """`train` on domains that are at hand. For `cryoetgan generate` the folder notes the densities, and how far off
    centre the particles lie.

    Raises
    ------
    ValueError
        When the folder holds a run of other particles, densities or settings.
    """
    settings = Path(folder) / "config.json"
    if settings.exists() and not replace:
        held = read_json(settings, "give another folder, or replace=True").get("fingerprint")
        if held != fingerprint(config, both.volumes("X_train"), both.volumes("Y_train")):
            raise ValueError(
                f"{folder} holds a run of other particles, densities or settings: give another folder, or replace=True."
            )
    run = train_on(config, both, Path(folder), progress=progress, replace=replace)
    keep_source(Path(folder), densities, both.Y_train, both.X_train.table.attrs.get("picks"))
    keep_noise(Path(folder), run, both.background)
    return run


def densities_for(
    densities: str, n: int, box: int, voxel_size_A: float, seed: int = 0, *, run: str | Path | None = None
) -> ParticleSet:
    """Density maps in random poses, `n` of each class of `densities`, in boxes of `box` voxels.

    Parameters
    ----------
    densities
        "class=FILE" with commas between, or built-in classes: "ribosome=80S.mrc, tric".
    run
        Folder of a run of `train`: densities lie as far off the centres of their boxes as its particles were found to.
        None: up to 6 % of the box.

    Raises
    ------
    FileNotFoundError
        When the folder is no run on particles.
    """
    (names, files), rng = own_data.parse_densities(densities), stream(seed, "densities")
    if n < 1:
        raise ValueError(f"densities_for: n is {n}; expected one density of each class or more.")
    for text in doubtful(names, files, box, voxel_size_A):
        LOG.warning(text)
    references, count = class_references(names, box, voxel_size_A, files), n * len(names)
    picks = {} if run is None else noted(Path(run)).get("picks", {})
    poses = random_rotations(count, rng), places(count, box, voxel_size_A, rng, picks)
    return density_maps(references, n, box, voxel_size_A, rng, poses)


def generate(
    run: TrainedRun | str | Path, densities: ParticleSet | torch.Tensor | np.ndarray, *, seed: int = 0, **optics: object
) -> ParticleSet | torch.Tensor:
    """Subtomograms of densities: a volume for each, with the density's class and pose.

    Parameters
    ----------
    run
        of `train` or `load_run`, or its folder, which is loaded to the CPU.
    densities
        of `densities_for` or `simulator.sets.density_maps`, on the voxels of the run. A ParticleSet gives a ParticleSet
        with its table, in the grey values of the training particles as `load_particles` gives them: protein bright,
        beam along z, whatever their files show. A tensor or array (N, D, D, D) gives a tensor in network units (see
        `generation.generate`).
    optics
        microscope and defocus_um of `generation.generate`.

    Raises
    ------
    ValueError
        When the box or the voxel size is not that of the run.
    """
    run = load_run(run) if isinstance(run, str | Path) else run
    given = isinstance(densities, ParticleSet)
    volumes = torch.as_tensor(np.asarray(densities.volumes) if given else densities)
    if volumes.ndim != 4 or volumes.shape[-1] != run.config.box:
        raise ValueError(f"densities of shape {tuple(volumes.shape)}; expected (N, D, D, D) with D {run.config.box}")
    voxel = run.G.acquisition.voxel_size_A if run.config.generator == "physics" else None
    if given and voxel and abs(densities.voxel_size_A / voxel - 1) > SAME_VOXEL:
        raise ValueError(f"densities on voxels of {densities.voxel_size_A:g} A; the run has {voxel:g} A")
    made = generation.generate(run, volumes, seed=seed, **optics)
    if not isinstance(densities, ParticleSet):
        return made
    made = made * run.scaling.y_std + run.scaling.y_mean
    return ParticleSet(made.numpy(), densities.table, densities.voxel_size_A)


def simulate(
    densities: str, n: int, box: int, voxel_size_A: float, *, microscope: str = "S1", snr: float = 0.1, seed: int = 0
) -> ParticleSet:
    """Labelled subtomograms that the microscope simulator records, `n` of each class: no particles are needed.

    Parameters
    ----------
    densities
        "class=FILE" with commas between, or built-in classes.
    microscope
        one of `MICROSCOPES`: "S1", "S2" or "modern".
    snr
        variance of the signal over that of the noise, of all voxels.
    """
    names, files = own_data.parse_densities(densities)
    scope = choose("microscope", microscope, MICROSCOPES)
    if n < 1:
        raise ValueError(f"simulate: n is {n}; expected one particle of each class or more.")
    for text in doubtful(names, files, box, voxel_size_A):
        LOG.warning(text)
    references = class_references(names, box, voxel_size_A, files)
    return subtomograms(references, n, box, voxel_size_A, scope, stream(seed, "simulate"), snr=snr)


def tomogram_source(run: str | Path, voxel_size_A: float, snr: float | None) -> tuple[str, float]:
    """Densities and voxel size of a run's tomograms, or of a simulated microscope's: "" and what is asked for.

    Raises
    ------
    ValueError
        For a run with a voxel size or SNR beside its own, a microscope without a voxel size, or where `run` is neither
        a run nor the name of a microscope.
    """
    if str(run) in MICROSCOPES:
        if not voxel_size_A > 0:
            raise ValueError(f"Tomograms of the simulated microscope {run}: give voxel_size_A, angstrom.")
        return "", voxel_size_A
    if not Path(run).is_dir():
        raise ValueError(
            f"{run} is no folder; expected that of a run of `cryoetgan train`, or one of {', '.join(MICROSCOPES)}."
        )
    if voxel_size_A or snr is not None:
        raise ValueError(f"{run} is a run, with a voxel size and noise of its own: leave out voxel_size_A and snr.")
    return source_of(Path(run))


def generate_tomograms(
    folder: str | Path,
    run: str | Path,
    counts: Mapping[str, int],
    shape: tuple[int, int, int],
    *,
    voxel_size_A: float = 0.0,
    snr: float | None = None,
    n: int = 1,
    densities: str = "",
    crowders: Mapping[str, int] | None = None,
    around: Mapping[str, object] | None = None,
    background: str | Path = "",
    volumes: str = "mrc",
    protein: str = "",
    halves: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Whole labelled tomograms that look like those which a physics run was estimated from, or those of a simulated
    microscope, with its tilt series (`scenes.generate_scenes`). They are made on the CPU.

    Returns the path of picks.csv, the table of all molecules of `counts` and in membranes. What is in the folder
    already is not made again.

    Parameters
    ----------
    run
        folder of a run of `train`, or one of `MICROSCOPES`: "S1", "S2" or "modern" ("./S1" is a folder).
    counts, crowders
        molecules of each class in each tomogram; crowders have no labels.
    shape
        voxels z, y, x; even. The ice fills all of it, unless `around` gives it a thickness (``ice_A``).
    voxel_size_A, snr
        of a simulated microscope alone: a run has its own. `snr` is the variance of the tomogram of the molecules,
        without noise, over that of the noise, of all voxels; None: electrons are counted at the microscope's dose.
    n
        tomograms.
    densities
        "class=FILE" with commas between, where a class is neither built-in nor one that the run was estimated with.
    around
        membranes, gold and ice: names and values of `simulator.surroundings.Surroundings`, as in {"vesicles": 3}.
    background
        a measured tomogram, or a part of one, that holds no molecules of these classes and is at least as large: the
        molecules are added to it, in place of generated noise. FILE@10 where the file lacks its voxel size, angstrom.
    volumes
        "mrc" or "copick".
    protein
        how the tomograms, and the background, show it: "dark" or "bright". "": as the tomograms of the run's particles
        do; dark where there were none. The beam is along z, whatever it was in those.
    halves
        write two recordings of half of the dose too, for denoisers; of a simulated microscope, reconstructions of
        every other image.

    Raises
    ------
    ValueError
        For a run of the paper's generator, a class without a density, molecules that find no room, a background of
        another voxel size or another beam axis, or a folder with another order.
    """
    trained, voxel = tomogram_source(run, voxel_size_A, snr)
    simulated = str(run) in MICROSCOPES
    if simulated and background:
        raise ValueError(f"A background for the simulated microscope {run}: it is for runs; leave it out.")
    told = {} if simulated else noted(Path(run)).get("tomograms", {})
    protein, axis = protein or told.get("protein", "dark"), told.get("beam_axis", "z")
    if axis != "z":
        if background:
            raise ValueError(
                f"{background}: the run's tomograms have the beam along {axis}, generated ones along z: turn the "
                "background so that the beam is along z, and train the run on tomograms turned alike."
            )
        LOG.warning("The run's tomograms have the beam along %s; those made here have it along z.", axis)
    beside = surroundings(around or {})
    names = tuple(sorted({*counts, *(crowders or {}), *beside.in_membranes}))
    # of the run's densities, those asked for: others may be gone
    kept = ", ".join(part for part in trained.split(",") if part.partition("=")[0].strip() in names)
    given = {k: v for text in (kept, densities) if text for k, v in own_data.parse_densities(text)[1].items()}
    order = Scenes(dict(counts), tuple(shape), n, seed, dict(crowders or {}), volumes, protein, halves, beside)
    measured = None
    if background:
        source, said = parse_source(str(background))
        if not said and suffix_of(Path(source)) in NO_VOXEL_SIZE:
            raise ValueError(f"{background}: no reliable voxel size in this kind of file; give FILE@{voxel:g}.")
        measured, found = read_tomogram(source, said.get("map_voxel_size_A"), protein=protein)
        if abs(found / voxel - 1) > SAME_VOXEL:
            raise ValueError(
                f"{background}: voxels of {found:g} A; expected the {voxel:g} A of the run's particles. If the file is "
                f"wrong, give the size behind its name: FILE@{voxel:g}."
            )
    references = class_references(names, min(shape), voxel, given)
    source = Simulated(MICROSCOPES[str(run)], snr) if simulated else load_run(run)
    noise = None if simulated else noise_of(Path(run))
    made = generate_scenes(folder, source, references, order, voxel, noise, measured)
    for _ in tqdm(made, total=n, desc="tomograms", disable=not progress, delay=1):
        pass
    return Path(folder) / "picks.csv"
