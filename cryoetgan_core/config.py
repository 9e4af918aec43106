"""Everything that configures a run, in one place: the data sets, the presets of the objective, and the four profiles.

A run is configured by one frozen `RunConfig`. `make_config` fills it from a profile and a preset and refuses an unknown
name or a wrong type by name: papermill itself accepts a misspelt parameter in silence.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field

from .losses import ADVERSARIAL
from .models import NOISE_PLACES, OUTPUTS
from .physics.acquisition import TRANSFERS
from .simulator.microscope.simulate import MICROSCOPES, Microscope
from .simulator.specimen.assemblies import S1_CLASSES, S2_CLASSES
from .simulator.specimen.crowding import Crowding


@dataclass(frozen=True)
class DataSet:
    """A set of Table 1: what the subtomograms show and how they are recorded."""

    classes: tuple[str, ...]
    field_of_view_A: float  # side of a subtomogram; box x voxel size in every profile
    microscope: Microscope
    crowding: Crowding = Crowding(volume_fraction=0.005)  # large complexes only; fig. 3 shows what it looks like


DATASETS = {
    "S1": DataSet(S1_CLASSES, 40 * 13.68, MICROSCOPES["S1"]),
    "S2": DataSet(S2_CLASSES, 28 * 9.4, MICROSCOPES["S2"]),
}


LEAST_BOX = 17  # at 16 the last norm of the paper's critic sees one voxel
OWN_DATA = "own"  # the `dataset` of a run on a user's particles: classes and voxel size come with them


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Build it with `make_config`: bare defaults are the objective of "described" at the data sizes of "quick".
    """

    profile: str = "quick"  # where the sizes below come from
    dataset: str = "S1"  # "S1" (4 classes) or "S2" (7 classes): paper, Table 1
    preset: str = "adapted"  # which recipe of PRESETS the objective below comes from
    seed: int = 0  # of the training: weights, batches, noise and image pool
    # data
    box: int = 24  # voxels a side
    train_per_class: int = 200  # instances of each domain in the training half
    test_per_class: int = 100  # instances of each domain in the test half
    snr: float = 0.1  # signal variance / noise variance over all voxels of the reconstructions, mean over the set
    data_seed: int = 0  # of the data draw: poses, defocus and noise of both domains; `make_config` sets it to `seed`
    noise_level: float = (
        0.2  # std of Gaussian noise added to density maps (protein interior ~ 1) before z-scoring; Table 3
    )
    # networks
    generator: str = (
        "paper"  # "paper", or "physics" (`physics.generator.PhysicsGenerator`), which is estimated and not trained
    )
    width: int = 64  # channels of the generators' first layer (paper: 64)
    critic_width: int = 64  # channels of the discriminators' first layer (paper: 64)
    output: str = "tanh"  # generator's last activation: "tanh" (released) or "linear"
    noise: str = "bottleneck"  # where the generator draws noise: "bottleneck" (released), "all" or "none"
    skip: bool = False  # linear path from the generator's input (and noise) to its output
    critic_norm: str = "instance"  # "instance" (released) or "none"
    spectral_norm: bool = True  # divide each critic weight by its largest singular value (Table 4)
    # the physics generator
    # T: "table", learned from the particles, its sign too; "uncorrected" or "corrected", the same, where it is known
    # whether their CTF was corrected; or "ctf", the formula at each particle's defocus times a learned envelope
    transfer: str = "table"
    # of the wedge: "known", by the particles' table where it tells, else "estimated"; or "estimated" always
    tilt_range: str = "known"
    # objective
    adversarial: str = "wasserstein"  # "wasserstein" or "least_squares" (Table 4)
    real_label: float = 1.0  # least squares: the target for real scores (released: 0.8)
    adversarial_weight: float = 1.0  # of the adversarial terms of generators and critics, against cycle and penalties
    gradient_penalty: float = 0.0  # weight; 0 turns it off (released: 10)
    gradient_penalty_norm: str = "volume"  # "volume", or "depth" as the released code takes it
    zero_centred_penalty: float = (
        0.0  # half of it weighs R1 + R2, the squared slope at real and generated volumes; any loss
    )
    cycle_x: float = 10.0  # weight of |F(G(x)) - x|
    cycle_y: float = 10.0  # weight of |G(F(y)) - y|
    log_power: float = 0.0  # weight of the log power spectrum loss between y and G(x); not in the paper
    # optimiser
    optimizer: str = "adam"  # "adam" or "rmsprop" (the released Wasserstein switch)
    learning_rate: float = 2e-4  # generators
    critic_learning_rate: float = 2e-4
    beta1: float = 0.5  # Adam
    beta2: float = 0.999  # Adam
    decay_from: float = 1.0  # fraction of the steps after which the learning rate falls linearly to 0
    ema: float = 0.0  # decay of the averaged generator that generates; 0 turns it off
    pool: int = 50  # earlier fakes kept for the critics; 0 turns it off
    batch: int = 1
    steps: int = 80_000  # generator steps
    # of convolutions: "float32" or "bfloat16"; weights, norms, transforms, losses and spectral normalisation are
    # float32
    compute_dtype: str = "float32"
    checkpoint_every: int = 200  # steps
    # reference classifier (accuracy column, feature metrics)
    classifier_width: int = 64
    classifier_dense: int = 4096
    classifier_epochs: int = 20

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            wanted = (int, float) if f.type is float else f.type
            if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
                raise ValueError(
                    f"Parameter {f.name!r} is {value!r} ({type(value).__name__}); expected {f.type.__name__}."
                )
        for name, allowed in (
            ("profile", tuple(PROFILES)),
            ("dataset", (*DATASETS, OWN_DATA)),
            ("preset", tuple(PRESETS)),
            ("generator", ("paper", "physics")),
            ("transfer", TRANSFERS),
            ("tilt_range", ("known", "estimated")),
            ("output", OUTPUTS),
            ("noise", NOISE_PLACES),
            ("critic_norm", ("instance", "none")),
            ("adversarial", ADVERSARIAL),
            ("gradient_penalty_norm", ("volume", "depth")),
            ("optimizer", ("adam", "rmsprop")),
            ("compute_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"Parameter {name!r} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}."
                )
        for name in (
            "box",
            "train_per_class",
            "test_per_class",
            "width",
            "critic_width",
            "batch",
            "steps",
            "checkpoint_every",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"Parameter {name!r} is {getattr(self, name)}; expected at least 1.")
        if self.box < LEAST_BOX:
            raise ValueError(
                f"Parameter 'box' is {self.box}; expected at least {LEAST_BOX} voxels: choose a larger box, or smaller "
                "voxels."
            )
        if self.generator == "physics" and self.compute_dtype != "float32":
            raise ValueError(
                f"Parameter 'compute_dtype' is {self.compute_dtype!r}; the physics generator has no convolutions: "
                "leave float32."
            )
        if self.snr <= 0 or self.noise_level < 0:
            raise ValueError(f"Parameters 'snr' ({self.snr}) and 'noise_level' ({self.noise_level}) must be positive.")

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that name this configuration: of the fields that are not as by default, so that a
        new field renames no run.
        """
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    def replace(self, **changes: object) -> "RunConfig":
        """Return a copy with `changes`; an unknown name is an error that lists the known ones."""
        known = {f.name for f in dataclasses.fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ValueError(
                f"Unknown parameter {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}."
            )
        return dataclasses.replace(self, **changes)


# Recipes of the objective and the networks. Each says which text it follows.
PRESETS: dict[str, dict] = {
    # What the released code computes (shared facts of its 'Wasserstein' switch): least squares with real label 0.8, a
    # gradient penalty
    # whose norm runs over the depth axis, cycle terms weighted twice (10 x 10), RMSProp (PyTorch's: TensorFlow 1 starts
    # its mean square at 1, not 0).
    "released": dict(
        adversarial="least_squares",
        real_label=0.8,
        gradient_penalty=10.0,
        gradient_penalty_norm="depth",
        cycle_x=100.0,
        cycle_y=100.0,
        optimizer="rmsprop",
    ),
    # What the paper's text says: a Wasserstein critic under spectral normalisation, and the cycle; the networks are the
    # released ones.
    "described": dict(adversarial="wasserstein", spectral_norm=True, cycle_x=10.0, cycle_y=10.0),
    # The described model with what it needs to learn in a short budget. Generator: linear output, a linear skip under
    # which the network starts silent,
    # noise at every level. Critic: no instance norm (it divides each volume's amplitude away), a zero-centred gradient
    # penalty that sets the scale of
    # its scores, a higher learning rate than the generator's. Cycle only on x (y is stochastic), and the log power
    # spectrum.
    "adapted": dict(
        adversarial="wasserstein",
        spectral_norm=True,
        critic_norm="none",
        output="linear",
        noise="all",
        skip=True,
        adversarial_weight=3.0,
        zero_centred_penalty=100.0,
        cycle_x=3.0,
        cycle_y=0.0,
        log_power=10.0,
        learning_rate=1.5e-4,
        critic_learning_rate=1e-3,
        beta2=0.99,
        decay_from=0.5,
        ema=0.98,
        pool=0,
    ),
    # The microscope whose curves are estimated from the particles (`physics.generator`): nothing is trained.
    "physics": dict(generator="physics", noise_level=0.0),
}


@dataclass(frozen=True)
class Profile:
    """Sizes of one profile.

    `sizes` override RunConfig fields; `boxes` and `snr` give the box and signal-to-noise ratio of each set.
    """

    boxes: dict[str, int]
    snr: dict[str, float]
    sizes: dict = field(default_factory=dict)
    noise_levels: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)  # of Figures 5 and 6; the paper has 0, 0.2 and 0.5


PROFILES = {
    "smoke": Profile(  # seconds; checks that every part runs, its numbers mean nothing
        {"S1": 18, "S2": 18, OWN_DATA: 24},
        {"S1": 0.1, "S2": 0.2, OWN_DATA: 0.1},
        dict(
            train_per_class=8,
            test_per_class=8,
            width=2,
            critic_width=2,
            batch=4,
            steps=3,
            checkpoint_every=2,
            classifier_width=2,
            classifier_dense=16,
            classifier_epochs=2,
        ),
        noise_levels=(0.0, 0.2),
    ),
    "quick": Profile(  # laptop; every figure in under an hour on 2 cores
        {"S1": 24, "S2": 24, OWN_DATA: 24},
        {"S1": 0.1, "S2": 0.2, OWN_DATA: 0.1},
        dict(
            width=8, critic_width=16, batch=4, steps=120, classifier_width=8, classifier_dense=64, classifier_epochs=25
        ),
    ),
    "evening": Profile(  # laptop, an evening; one run takes about 20 minutes of a core
        {"S1": 24, "S2": 24, OWN_DATA: 24},
        {"S1": 0.1, "S2": 0.2, OWN_DATA: 0.1},
        dict(
            width=16,
            critic_width=16,
            batch=4,
            steps=2000,
            classifier_width=8,
            classifier_dense=64,
            classifier_epochs=25,
        ),
    ),
    "paper": Profile(  # GPU; the paper's sizes: 400 subtomograms a class, width 64, 50 epochs of S1's 1,600
        {"S1": 40, "S2": 28, OWN_DATA: 40},
        {"S1": 0.05, "S2": 0.1, OWN_DATA: 0.1},
        dict(
            train_per_class=400,
            test_per_class=200,
            width=64,
            critic_width=64,
            batch=4,
            steps=20_000,
            classifier_width=64,
            classifier_dense=4096,
            classifier_epochs=20,
            checkpoint_every=1000,
        ),
    ),
}


def make_config(profile: str = "quick", dataset: str = "S1", preset: str = "adapted", **changes: object) -> RunConfig:
    """Build a run's configuration: the preset's recipe, then the profile's sizes, then `changes`.

    Unless `changes` holds a `data_seed`, the data are drawn with the training's seed: runs of different seeds differ in
    both, so that an interval over seeds is one over independent data draws and trainings.

    Raises
    ------
    ValueError
        For an unknown profile, data set, preset or field, or a value of the wrong type; the message names it.
    """
    for name, value, allowed in (
        ("profile", profile, PROFILES),
        ("dataset", dataset, (*DATASETS, OWN_DATA)),
        ("preset", preset, PRESETS),
    ):
        if value not in allowed:
            raise ValueError(f"Parameter {name!r} is {value!r}; expected one of {', '.join(allowed)}.")
    chosen = PROFILES[profile]
    base = dict(profile=profile, dataset=dataset, preset=preset, box=chosen.boxes[dataset], snr=chosen.snr[dataset])
    base |= PRESETS[preset] | chosen.sizes
    return RunConfig(**base).replace(**{"data_seed": changes.get("seed", 0)} | changes)
