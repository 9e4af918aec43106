"""Generation: weights of a run and densities in, labelled subtomograms out."""

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from .build import Scaling, build_networks
from .config import RunConfig
from .engine.acceleration import autocast
from .models import Generator
from .physics.acquisition import Acquisition
from .physics.generator import PhysicsGenerator
from .reproducibility.files import SETTINGS_CHECKSUM, load_tensors, read_json
from .reproducibility.seeds import stream
from .simulator.microscope.simulate import Microscope

CHUNK = 16  # volumes made at a time
TRAIN_AGAIN = "train the run again, which goes on from its checkpoint"
LARGEST_BLOCK = 31 * 2**20  # bytes, beside which all of a chunk's arrays are small
Draws = list[torch.Tensor] | dict[str, torch.Tensor]  # what `sample_noise` drew


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """Both generators of a finished run, its configuration and its z-scoring."""

    config: RunConfig
    scaling: Scaling
    G: Generator | PhysicsGenerator
    F: Generator | None  # the physics generator has no inverse
    noise_distances: dict[str, float] | None = (
        None  # of each kind of noise, from held-out particles, where there was a choice
    )

    def __repr__(self) -> str:
        kind = f"{self.config.preset}, {self.config.generator} generator, boxes of {self.config.box} voxels"
        if isinstance(self.G, PhysicsGenerator):
            low, high = self.G.tilt_range_deg
            return f"TrainedRun: {kind}, tilts {low:.0f} to {high:.0f} degrees"
        return f"TrainedRun: {kind}, {self.config.steps} steps"

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(iter(self.G.state_dict().values())).device


def load_run(folder: str | Path, device: torch.device | str = "cpu") -> TrainedRun:
    """Read a finished run.

    Raises
    ------
    FileNotFoundError
        When the folder holds no weights; the message says how to make them.
    ValueError
        When weights or configuration are damaged, cut off, or not of one training.
    """
    folder = Path(folder)
    if not (folder / "weights.safetensors").exists():
        raise FileNotFoundError(
            f"{folder} holds no weights.safetensors: train it first, by `cryoetgan train`, cryoetgan_core.train or "
            "notebooks/train.ipynb."
        )
    settings = read_json(folder / "config.json", TRAIN_AGAIN)
    weights, metadata = load_tensors(folder / "weights.safetensors", TRAIN_AGAIN)
    known = metadata.get(SETTINGS_CHECKSUM)
    if known and known != hashlib.sha256((folder / "config.json").read_bytes()).hexdigest():
        raise ValueError(
            f"{folder / 'config.json'} is not the one that weights.safetensors was written with: {TRAIN_AGAIN}."
        )
    fields = {f.name for f in dataclasses.fields(RunConfig)}
    config = RunConfig(**{k: v for k, v in settings.items() if k in fields})
    if metadata.get("config_hash") != config.hash:
        raise ValueError(
            f"{folder}: config.json is not that of the weights: it was changed, or another version of this package "
            "wrote it. Open the run with that version, or train it again in a new folder."
        )
    acquisition = Acquisition.from_record(settings["acquisition"]) if config.generator == "physics" else None
    if config.generator == "physics":
        backgrounds = len(weights.get("G.background", ()))
        networks = {
            "G": PhysicsGenerator(config.box, acquisition, transfer=config.transfer, backgrounds=backgrounds).to(device)
        }
    else:
        networks = {name: network for name, network in build_networks(config, device).items() if name in ("G", "F")}
    for name, network in networks.items():
        own = {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}
        try:
            network.load_state_dict(own)
        except RuntimeError:
            raise ValueError(
                f"{folder}: the weights do not fit the network of this version of the package. Open the run with the "
                "version that trained it, or train it again in a new folder."
            ) from None
        network.eval().requires_grad_(False)
    scaling = Scaling(**settings["scaling"])
    return TrainedRun(config, scaling, networks["G"], networks.get("F"), settings.get("noise_distances"))


@torch.no_grad()
def _inputs(run: TrainedRun, density: torch.Tensor, seed: int, number: int) -> tuple[torch.Tensor, Draws]:
    """What the generator takes for one density (D, D, D): that, with its noise (1, 1, D, D, D), and its random draws,
    from a stream named by `seed` and `number` alone.
    """
    device = run.device
    rng = stream(seed, "generate", number, device=device)
    x = density.to(device)[None, None]
    if run.config.noise_level:
        x = x + run.config.noise_level * torch.randn(x.shape, generator=rng, device=device)
    return x, run.G.sample_noise(x, rng)


@torch.no_grad()
def _translate(run: TrainedRun, inputs: list[tuple[torch.Tensor, Draws]], **optics: object) -> torch.Tensor:
    """Volumes (B, D, H, W) of what `_inputs` gave, in one batch; on a CPU the paper's generator takes one at a time, as
    quick there, which keeps its volumes the same to the bit.
    """
    device = inputs[0][0].device
    one_by_one = isinstance(run.G, Generator) and device.type == "cpu"
    with autocast(run.config.compute_dtype, device):
        made = [run.G(*_batch(run, part), **optics) for part in ([[i] for i in inputs] if one_by_one else [inputs])]
    return torch.cat(made)[:, 0].float().cpu()


def _batch(run: TrainedRun, inputs: list[tuple[torch.Tensor, Draws]]) -> tuple[torch.Tensor, Draws]:
    """What `_inputs` gave for several densities as a batch, z-scored."""
    first = inputs[0][1]
    keys = first if isinstance(first, dict) else range(len(first))
    draws = {k: torch.cat([d[k] for _, d in inputs]) for k in keys}
    return run.scaling.x(torch.cat([x for x, _ in inputs])), draws if isinstance(first, dict) else list(draws.values())


@torch.no_grad()
def generate(
    run: TrainedRun,
    densities: torch.Tensor,
    *,
    seed: int = 0,
    first: int = 0,
    microscope: Microscope | None = None,
    defocus_um: torch.Tensor | None = None,
) -> torch.Tensor:
    """Translate densities (N, D, H, W), protein interior about 1, into subtomograms (N, D, H, W) in network units.

    Volume i draws its noise from a stream named by `seed` and ``first + i`` alone: the same particle comes out whatever
    the batch (to rounding; of the paper's generator on a CPU, to the bit). Multiply by `scaling.y_std` and add
    `scaling.y_mean` for the grey values of the training subtomograms.

    Parameters
    ----------
    microscope, defocus_um
        for a physics generator with the CTF formula: optics, dose and tilt range, and defocus at zero tilt (N,), in
        place of those of the training particles.

    Raises
    ------
    ValueError
        When a microscope or a defocus is asked of another generator.
    """
    return generate_recorded(run, densities, seed=seed, first=first, microscope=microscope, defocus_um=defocus_um)[0]


@torch.no_grad()
def generate_recorded(
    run: TrainedRun,
    densities: torch.Tensor,
    *,
    seed: int = 0,
    first: int = 0,
    microscope: Microscope | None = None,
    defocus_um: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What `generate` gives, and, where a physics generator made it, how each volume was recorded, as columns (N,) of a
    particle table: tilt_min_deg and tilt_max_deg; with the CTF formula also defocus_um (at zero tilt) and dose_e_A2.
    """
    asked = {k: v for k, v in (("microscope", microscope), ("defocus_um", defocus_um)) if v is not None}
    if asked and run.config.generator != "physics":
        raise ValueError(
            f"The paper's generator cannot be told a {', '.join(asked)}: train a run with preset 'physics' and "
            "transfer 'ctf'."
        )
    out, threads = torch.empty(densities.shape), torch.get_num_threads()
    recordings = torch.empty(len(densities), 4) if run.config.generator == "physics" else None
    # Each thread of a CPU makes volumes of its own by a physics generator, whose many short operations share threads
    # badly where other work runs beside them
    workers = threads if run.config.generator == "physics" and run.device.type == "cpu" else 1
    if workers > 1:
        # glibc maps and unmaps each array that is larger than the largest block freed so far (at most 32 MiB, see
        # mallopt(3)), which takes a fifth of the time. Freeing one large block first avoids it.
        torch.empty(LARGEST_BLOCK, dtype=torch.uint8)

    def make(part: torch.Tensor) -> None:
        if workers > 1:
            torch.set_num_threads(1)  # of the thread that calls it
        optics = asked | ({"defocus_um": defocus_um[part]} if defocus_um is not None else {})
        inputs = [_inputs(run, densities[i], seed, first + i) for i in part.tolist()]
        out[part] = _translate(run, inputs, **optics)
        if recordings is not None:
            drawn = torch.cat([draws["recording"] for _, draws in inputs])
            recordings[part] = run.G.recordings[drawn].cpu()

    parts = torch.arange(len(densities)).split(max(1, min(CHUNK, -(-len(densities) // workers))))
    try:
        with ThreadPoolExecutor(workers) as pool:
            for _ in (pool.map if workers > 1 else map)(make, parts):
                pass  # raises here what a thread raised
    finally:
        torch.set_num_threads(threads)  # of threads yet to come
    return out, {} if recordings is None else _recorded(run, recordings, microscope, defocus_um)


def _recorded(
    run: TrainedRun, recordings: torch.Tensor, microscope: Microscope | None, defocus_um: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Columns of `generate_recorded`: what was drawn (N, 4) of the training particles, or what was asked for."""
    defocus, _, low, high = recordings.unbind(1)
    if microscope is not None:
        low, high = (torch.full_like(low, end) for end in (microscope.tilt_min_deg, microscope.tilt_max_deg))
    columns = {"tilt_min_deg": low, "tilt_max_deg": high}
    if run.config.transfer == "ctf":
        dose = (microscope or run.G.acquisition.microscope).total_dose_e_A2
        defocus = defocus if defocus_um is None else defocus_um.to(defocus)
        columns |= {"defocus_um": defocus, "dose_e_A2": torch.full_like(low, dose)}
    return columns


@torch.no_grad()
def restore(run: TrainedRun, subtomograms: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
    """The inverse generator F: subtomograms (N, D, H, W) in network units to z-scored densities.

    Raises
    ------
    ValueError
        For a physics generator, which has no inverse.
    """
    if run.F is None:
        raise ValueError("The physics generator has no inverse: restore with a run of the paper's generator.")
    device = next(run.F.parameters()).device
    volumes = subtomograms.to(device)[:, None]
    with autocast(run.config.compute_dtype, device):
        return run.F(volumes, run.F.sample_noise(volumes, stream(seed, "restore", device=device)))[:, 0].float().cpu()


@torch.no_grad()
def generate_repeats(run: TrainedRun, densities: torch.Tensor, *, repeats: int = 5, seed: int = 0) -> torch.Tensor:
    """Repeated generations (N, repeats, D, H, W) from each density; their voxelwise standard deviation is the
    uncertainty map (released code: 5).

    All randomness varies: the noise added to the density, and the generator's own.
    """
    n = len(densities)
    return torch.stack([generate(run, densities, seed=seed, first=(r + 1) * n) for r in range(repeats)], 1)
