"""A run is a folder that can be stopped, resumed and rebuilt: configuration, log, checkpoint, weights."""

import dataclasses
import hashlib
import json
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .build import Scaling
from .config import RunConfig
from .evaluation.metrics import distance
from .physics.acquisition import Acquisition
from .physics.estimate import estimate as estimate_physics
from .physics.generator import PhysicsGenerator
from .reproducibility.files import SETTINGS_CHECKSUM, load_tensors, remove_temporaries, save_tensors, write_atomically
from .reproducibility.provenance import PHYSICS, code_hash, provenance
from .reproducibility.seeds import stream
from .training import Trainer, TrainingDiverged, fingerprint

MOST_TO_ESTIMATE = 2000  # subtomograms that the physics generator is estimated from
MEASURED, REAL_BACKGROUND = "measured", "real background"  # noise of the physics generator
HELD_OUT_EVERY, LEAST_HELD_OUT = 4, 64  # particle, to choose between them; generated volumes compared, at least
CLEARLY = 0.8  # of the distance with measured noise, for real background to be taken: few particles tell it poorly
SHOWN = ("critic_Y", "adversarial_Y", "cycle_x")  # losses beside the progress bar
LOG_REMEDY = "delete it, and training goes on from its checkpoint with a log that begins there"


def save_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Write `checkpoint.safetensors` of a run, replacing the former one only once it is whole."""
    largest = max(float(p.detach().abs().max()) for p in trainer.networks.parameters())
    if not largest < 1e6:  # weights are of order 0.1: such a checkpoint would only fail again
        raise TrainingDiverged(
            f"A weight reached {largest:.1e} at step {trainer.steps_done}; the checkpoint before it is kept."
        )
    metadata = {"steps_done": str(trainer.steps_done), "fingerprint": trainer.fingerprint}
    save_tensors(trainer.tensors(), folder / "checkpoint.safetensors", metadata)


def load_checkpoint(trainer: Trainer, folder: Path, *, replace: bool = False) -> bool:
    """Continue from the run's checkpoint if there is one; returns whether there was.

    A checkpoint of another configuration or other data is an error, or, with `replace`, ignored; a damaged one is an
    error.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return False
    tensors, metadata = load_tensors(path, "delete it, and the training starts anew")
    if metadata.get("fingerprint") != trainer.fingerprint:
        if replace:
            return False
        raise ValueError(
            f"{path} belongs to another configuration, other data or another version of this package: delete the run's "
            "folder or choose another."
        )
    try:
        trainer.load_tensors(tensors, int(metadata["steps_done"]))
    except (KeyError, RuntimeError, ValueError):
        raise ValueError(
            f"{path} does not fit this version of the package: go on with the version that began it, or choose another "
            "folder."
        ) from None
    return True


def read_log(folder: Path, steps: int | None = None) -> list[dict]:
    """The lines of a run's log, one a step; of the first `steps` steps only, if given.

    Raises
    ------
    ValueError
        When a line is damaged or cut off, or the log ends before `steps`; the message names it and says what to do.
    """
    path, lines = folder / "log.jsonl", []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if lines and lines[-1]["step"] == steps:
            break
        try:
            lines.append(json.loads(line))
            complete = {"step", "seconds"} <= lines[-1].keys()
        except (ValueError, AttributeError):
            complete = False
        if not complete:
            raise ValueError(f"{path}: line {number} is damaged or cut off: {LOG_REMEDY}.")
    if not lines or steps not in (None, lines[-1]["step"]):
        raise ValueError(f"{path} ends too early: {LOG_REMEDY}.")
    return lines


def _log_so_far(folder: Path, steps: int) -> list[dict]:
    """The log of the steps that the checkpoint holds; what was logged after it is made again."""
    if steps == 0:
        return []
    return read_log(folder, steps) if (folder / "log.jsonl").exists() else [{"step": steps, "seconds": 0.0}]


def train(trainer: Trainer, folder: Path, *, progress: bool = True, replace: bool = False) -> Path:
    """Train to the configured number of steps in `folder`, resuming what is there; returns the path of the weights.

    The folder holds config.json, log.jsonl (a line a step), checkpoint.safetensors and, at the end,
    weights.safetensors: the generators, G being the averaged one where `ema` is on. Of several processes the first
    writes; a run may go on with another number of them. `replace` starts anew over a run of another configuration
    or other data instead of refusing it.

    Raises
    ------
    TrainingDiverged
        When a loss or gradient is NaN or infinite, or a weight exceeds 1e6.
    ValueError
        When the folder's checkpoint belongs to another configuration or other data, or checkpoint or log are damaged.
    """
    config, first = trainer.config, trainer.processes.rank == 0
    folder.mkdir(parents=True, exist_ok=True)
    if first:
        remove_temporaries(folder)
    load_checkpoint(trainer, folder, replace=replace)
    trainer.processes.wait()
    if not first:
        while not trainer.finished:
            trainer.step()
        trainer.processes.wait()
        return folder / "weights.safetensors"
    if not trainer.finished:
        # never an older run's weights beside this configuration
        (folder / "weights.safetensors").unlink(missing_ok=True)
    text = _write_settings(folder, config, trainer.scaling, trainer.fingerprint)
    log_path = folder / "log.jsonl"
    kept = _log_so_far(folder, trainer.steps_done)
    write_atomically(log_path, lambda p: p.write_text("".join(json.dumps(line) + "\n" for line in kept)))
    start = time.perf_counter() - (kept[-1]["seconds"] if kept else 0.0)
    with (
        log_path.open("a") as log,
        tqdm(
            total=config.steps,
            initial=trainer.steps_done,
            disable=not progress,
            desc=f"{config.preset} seed {config.seed}",
        ) as bar,
    ):
        while not trainer.finished:
            values = trainer.step()
            record = {"step": trainer.steps_done, "seconds": round(time.perf_counter() - start, 2)} | values
            log.write(json.dumps(record) + "\n")
            bar.update()
            bar.set_postfix({k: f"{values[k]:.3f}" for k in SHOWN if k in values})
            if trainer.steps_done % config.checkpoint_every == 0:
                log.flush()
                save_checkpoint(trainer, folder)
    save_checkpoint(trainer, folder)
    weights = {f"G.{k}": v for k, v in trainer.ema.items()} | {
        f"F.{k}": v for k, v in trainer.networks["F"].state_dict().items()
    }
    _write_weights(folder, config, weights, text)
    trainer.processes.wait()
    return folder / "weights.safetensors"


def estimate(
    config: RunConfig,
    x: torch.Tensor,
    y: torch.Tensor,
    acquisition: Acquisition,
    folder: Path,
    background: torch.Tensor | None = None,
) -> Path:
    """Estimate the physics generator from raw densities `x` (N, D, H, W) and subtomograms `y` (M, D, H, W).

    Its noise is what is measured in the particles; or `background` (K, D, H, W), empty boxes of the tomograms, where
    with it the volumes come clearly nearer to particles held out, by `evaluation.metrics.distance`.

    The folder holds config.json and weights.safetensors, as that of a trained run does.

    Returns
    -------
    Path
        Of the weights.

    Raises
    ------
    ValueError
        When T is the CTF formula and the particles have no defocus, or the volumes do not vary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scaling = Scaling.of(x, y, config.noise_level)
    few = torch.linspace(0, len(y) - 1, min(len(y), MOST_TO_ESTIMATE)).round().long()
    x_scaled, y_scaled, distances = scaling.x(x), scaling.y(y[few]), None

    def estimated(particles: torch.Tensor, empty: torch.Tensor | None) -> PhysicsGenerator:
        G = PhysicsGenerator(config.box, acquisition, transfer=config.transfer)
        estimate_physics(G, x_scaled, particles, background=empty)
        return G

    if background is not None:
        background = scaling.y(background)
        held = torch.arange(len(y_scaled)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        distances = {}
        for noise, empty in ((MEASURED, None), (REAL_BACKGROUND, background)):
            G, wanted = estimated(y_scaled[~held], empty), y_scaled[held]
            densities = x_scaled[torch.linspace(0, len(x) - 1, max(len(wanted), LEAST_HELD_OUT)).round().long(), None]
            distances[noise] = distance(
                wanted, G(densities, G.sample_noise(densities, stream(config.seed, "held out", noise)))[:, 0]
            )
        if distances[REAL_BACKGROUND] > CLEARLY * distances[MEASURED]:
            background = None
    G = estimated(y_scaled, background)
    text = _write_settings(folder, config, scaling, fingerprint(config, x, y), acquisition, distances)
    _write_weights(folder, config, {f"G.{k}": v for k, v in G.state_dict().items()}, text)
    return folder / "weights.safetensors"


def _write_settings(
    folder: Path,
    config: RunConfig,
    scaling: Scaling,
    name: str,
    acquisition: Acquisition | None = None,
    distances: dict[str, float] | None = None,
) -> bytes:
    """Write config.json of a run; returns what it holds. `distances` from held-out particles, of each kind of noise."""
    settings = dataclasses.asdict(config) | {
        "scaling": dataclasses.asdict(scaling),
        "hash": config.hash,
        "fingerprint": name,
        "acquisition": acquisition and acquisition.record,
        "noise_distances": distances,
        "trained_by": provenance()
        | {"code_hash": code_hash("run_folder", without=PHYSICS if config.generator == "paper" else ())},
    }
    text = json.dumps(settings, indent=1).encode()
    write_atomically(folder / "config.json", lambda p: p.write_bytes(text))
    return text


def _write_weights(folder: Path, config: RunConfig, weights: dict[str, torch.Tensor], settings: bytes) -> None:
    """Write weights.safetensors of a run, which names the config.json that it belongs to."""
    weights = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    metadata = {"config_hash": config.hash, SETTINGS_CHECKSUM: hashlib.sha256(settings).hexdigest()}
    save_tensors(weights, folder / "weights.safetensors", metadata)
