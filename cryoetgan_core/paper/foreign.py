"""Results on files that are not part of the project: measured particles, another simulator's, maps of homologues.

`snakemake foreign --config files=FOLDER` makes those whose files are there; FOLDER is laid out as the paths below. They
are committed like all other results, so that a table of them can be shown where the files are not.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import scipy

from ..config import OWN_DATA, RunConfig, make_config
from ..evaluation.classification import probe_logits, train_probe
from ..evaluation.compare import told_apart
from ..evaluation.downstream import benchmark, generated_set, reference_sets
from ..generation import generate
from ..particles.folder import load_particles
from ..particles.picked import MOST_EMPTY, cut_empty
from ..particles.volume_files import read_hdf5
from ..reproducibility import paths
from ..reproducibility.seeds import stream
from ..simulator.microscope.simulate import MICROSCOPES
from ..volumes.domains import Domains
from ..volumes.table import ParticleSet, particle_table
from . import own_data
from .case import Case
from .densities import make_given
from .proof import HEADLINE_SNR, proof_config
from .real import make_real
from .record import described
from .runs import train_on

MODULE = "paper.foreign"
RIBOSOMES, MAPS = "experimental/ribosome_tiltstacks", "density_maps"
AUTHORS = "simulated/released_simulator/four_classes_box28_snr0.3.npz"
DEEPFINDER = ("simulated/deepfinder_tomos/tomo1_data.h5", "simulated/deepfinder_tomos/tomo2_data.h5")
# not in the files, and only a name for the frequencies; voxels of a particle that is whole
DEEPFINDER_VOXEL_A, LEAST_SHAPE = 10.0, 50
AUTHORS_SNR = 0.3  # of their file
AUTHORS_MAPS = {
    "proteasome_26s": "4cr2.mrc",
    "ribosome_80s": "6qzp.mrc",
    "tric": "4v94.mrc#0",
    "proteasome_t20s": "3j9i.mrc",
}
AUTHORS_FILES = (AUTHORS, *(f"{MAPS}/{file.split('#')[0]}" for file in AUTHORS_MAPS.values()))


def make_ribosomes(folder: Path, config: RunConfig) -> dict:
    """Ribosomes of three tilt series, each series left out in turn (`real.make_real`), at 13.68 A a voxel."""
    particles = load_particles(folder / RIBOSOMES / "optimisation_set.star", config.box, 13.68)
    densities = f"ribosome={folder / MAPS / '4v4r.mrc'}"
    average = str(folder / RIBOSOMES / "average_box32_12A.mrc")
    numbers, _ = make_real(particles, densities, config, paths.runs(config.profile) / "real" / "ribosomes", average)
    return numbers | described(config, MODULE)


def make_cubes(folder: Path, config: RunConfig, *, tomogram: str, density: str, options: Mapping[str, object]) -> dict:
    """Cubes of one tomogram, split by position: distances of generated and, as the floor, of the training cubes from
    those left out.
    """
    particles = load_particles(folder / tomogram, config.box, **options)
    name, equals, file = density.partition("=")
    both = own_data.domains(particles, f"{name}={folder / file}" if equals else name, config)
    run = train_on(config, both, paths.runs(config.profile) / "foreign" / Path(tomogram).stem, replace=True)
    wanted, floor = (run.scaling.y(both.volumes(half)) for half in ("Y_test", "Y_train"))
    made = generate(run, both.volumes("X_test"), seed=config.seed + 1)
    most = min(len(made), len(floor))  # as many of each: the mean of more would be nearer by its smaller noise alone
    found = {"generated": told_apart(wanted, made[:most]), "real": told_apart(wanted, floor[:most])}
    counts = {
        "compared": most,
        "particles": len(particles),
        "train": len(floor),
        "test": len(wanted),
        "voxel_size_A": particles.voxel_size_A,
    }
    return counts | {"metrics": found, "tilt_range_deg": list(run.G.tilt_range_deg)} | described(config, MODULE, both)


def authors_domains(folder: Path, config: RunConfig) -> Domains:
    """Both domains of the paper authors' particles, told contrast and beam axis."""
    particles = load_particles(folder / AUTHORS, config.box, protein="dark", beam_axis="x")
    densities = ", ".join(f"{name}={folder / MAPS / file}" for name, file in AUTHORS_MAPS.items())
    return own_data.domains(particles, densities, config)


def make_authors(folder: Path, config: RunConfig) -> dict:
    """The downstream benchmark on labelled particles of the paper authors' own simulator, told contrast and beam axis
    and nothing else.
    """
    both = authors_domains(folder, config)
    # the authors' defocus and width of the wedge are those of MICROSCOPES["S1"], so the formulas and the released
    # simulator are told the truth
    sets = reference_sets(both, MICROSCOPES["S1"], AUTHORS_SNR, config.seed)
    for preset in ("adapted", "physics"):
        chosen = make_config(config.profile, OWN_DATA, preset, box=config.box, seed=config.seed)
        sets |= generated_set(
            train_on(chosen, both, paths.runs(config.profile) / "foreign" / f"authors_{preset}", replace=True), both
        )
    return {
        "rows": benchmark(sets, both, seed=config.seed, shares=(1.0,), real_shares=()),
        "particles": len(both.Y_train) + len(both.Y_test),
    } | described(config, MODULE, both)


def make_deepfinder(folder: Path, config: RunConfig) -> dict:
    """DeepFinder's simulated tomograms of nine classes: the generator is estimated on one tomogram, and judged on the
    other, in turn.

    A label volume holds each particle's shape in its pose, which is the density given. The number of particles is
    small, so probes tell little.
    """
    first, second = (_deepfinder(folder / name, f"tomogram {i}", config.box) for i, name in enumerate(DEEPFINDER))
    folds = {}
    for name, (train, test) in {"first": (first, second), "second": (second, first)}.items():
        both = Domains(train[0], test[0], train[1], test[1], train[2])
        run = train_on(config, both, paths.runs(config.profile) / "foreign" / f"deepfinder_{name}")
        x, wanted, floor = (
            both.volumes("X_test"),
            run.scaling.y(both.volumes("Y_test")),
            run.scaling.y(both.volumes("Y_train")),
        )
        made = generate(run, x, seed=config.seed + 1)
        probe = {}
        for source, volumes, labels in (
            ("generated", generate(run, both.volumes("X_train"), seed=config.seed + 2), "X_train"),
            ("real", floor, "Y_train"),
        ):
            network = train_probe(volumes, both.labels(labels), len(both.classes), seed=config.seed)
            probe[source] = 100 * float(
                (probe_logits(network, wanted).argmax(1) == both.labels("Y_test")).double().mean()
            )
        folds[name] = {
            "generated": told_apart(wanted, made),
            "real": told_apart(wanted, floor),
            "accuracy": probe,
            "tilt_range_deg": run.G.tilt_range_deg,
            "noise_distances": run.noise_distances,
        }
    return {"folds": folds, "particles": [len(first[1]), len(second[1])], "classes": list(both.classes)} | described(
        config, MODULE
    )


def _deepfinder(path: Path, tomogram: str, box: int) -> tuple[ParticleSet, ParticleSet, ParticleSet]:
    """Shapes, bright on 0, subtomograms and background of one tomogram: a box around every particle of its label volume
    that fits.
    """
    volume = -read_hdf5(path, (3,)).astype(np.float32)  # protein is dark
    labels = read_hdf5(path.with_name(path.name.replace("data", "target")), (3,))
    shapes, volumes, names, picks = [], [], [], []
    for label in range(1, int(labels.max()) + 1):
        parts, count = scipy.ndimage.label(labels == label)
        for i, centre in enumerate(scipy.ndimage.center_of_mass(parts > 0, parts, range(1, count + 1)), 1):
            picks.append(centre)
            corner = np.round(centre).astype(int) - box // 2
            cut = tuple(slice(c, c + box) for c in corner)
            if (corner < 0).any() or (corner + box > volume.shape).any() or (parts == i).sum() < LEAST_SHAPE:
                continue
            shapes.append((parts == i)[cut].astype(np.float32))
            volumes.append(volume[cut])
            names.append(f"class {label}")
    table = particle_table(
        len(names),
        class_name=names,
        particle=[f"{tomogram} {i}" for i in range(len(names))],
        tomogram=tomogram,
        source=str(path),
    )
    rng, voxel_A = stream(0, "background", tomogram), DEEPFINDER_VOXEL_A
    empty = cut_empty(volume, voxel_A, np.array(picks), box, voxel_A, MOST_EMPTY, rng)
    cut = [ParticleSet(np.stack(stack), table, voxel_A) for stack in (shapes, volumes)]
    return *cut, ParticleSet(empty, particle_table(len(empty), source=str(path)), voxel_A)


def make_homologue(folder: Path, config: RunConfig, *, given: str, recorded: str, density: str) -> dict:
    """Table 9 with homologues: one ribosome is recorded, another one's map is given."""
    sources = {k: {"ribosome": str(folder / MAPS / v)} for k, v in (("recorded", recorded), ("densities", density))}
    return make_given(config, given, **sources) | {"module": MODULE}


def planned(profile: str, seed: int) -> dict[str, Case]:
    """Every result on foreign files, by name."""
    own = partial(make_config, profile, OWN_DATA, "physics", seed=seed)
    emd = "experimental/emd1155_hiv/emd_1155.ccp4"
    homologue = proof_config(profile, "S1", HEADLINE_SNR, seed)
    ribosomes = (f"{RIBOSOMES}/optimisation_set.star", f"{RIBOSOMES}/average_box32_12A.mrc", f"{MAPS}/4v4r.mrc")
    cell, tubule = "experimental/empiar10499_TS254/recon_wbp_20A_int8.mrc", "experimental/microtubule/13pf_MT.tif"

    def cubes(tomogram: str, density: str, **options: object) -> Callable[[Path, RunConfig], dict]:
        return partial(make_cubes, tomogram=tomogram, density=density, options=options)

    found = {
        "ribosomes": Case(own(box=28), make_ribosomes, ribosomes),
        "emd1155": Case(own(), cubes(emd, "membrane", beam_axis="y", n=80, protein="dark"), (emd,)),
        "empiar10499": Case(
            own(), cubes(cell, f"ribosome={MAPS}/4v4r.mrc", n=300, protein="dark"), (cell, f"{MAPS}/4v4r.mrc")
        ),
        "microtubule": Case(own(), cubes(tubule, "membrane", n=50, protein="bright", voxel_size_A=10.52), (tubule,)),
        "authors": Case(own(box=28), make_authors, AUTHORS_FILES),
        "deepfinder": Case(
            own(box=20), make_deepfinder, (*DEEPFINDER, *(f.replace("data", "target") for f in DEEPFINDER))
        ),
    }
    for given, density in (("a homologue", "4v7r.mrc"), ("a distant homologue", "4v4r.mrc")):
        make = partial(make_homologue, given=given, recorded="6qzp.mrc", density=density)
        found[given.replace(" ", "_")] = Case(homologue, make, (f"{MAPS}/6qzp.mrc", f"{MAPS}/{density}"))
    return {f"foreign_{name}_seed{seed}": case for name, case in found.items()}
