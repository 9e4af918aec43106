"""A run is a folder that can be stopped, resumed and rebuilt: configuration, log, checkpoint, weights."""

import dataclasses
import json
import os
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from .training import Trainer, TrainingDiverged

READ_EVERY = 50  # steps on a GPU


def write_atomically(path: Path, write: object) -> None:
    """Call `write(temporary path)`, then put the file in place at once: a reader never meets half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    os.replace(temporary, path)


def save_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Write `checkpoint.safetensors` of a run, replacing the former one only once it is whole."""
    largest = max(float(p.detach().abs().max()) for p in trainer.networks.parameters())
    if not largest < 1e6:  # weights are of order 0.1: such a checkpoint would only fail again
        raise TrainingDiverged(f"A weight reached {largest:.1e} at step {trainer.steps_done}; the checkpoint before it is kept.")
    metadata = {"steps_done": str(trainer.steps_done), "fingerprint": trainer.fingerprint}
    write_atomically(folder / "checkpoint.safetensors", lambda p: save_file(trainer.tensors(), p, metadata=metadata))


def load_checkpoint(trainer: Trainer, folder: Path, *, replace: bool = False) -> bool:
    """Continue from the run's checkpoint if there is one; returns whether there was.

    A checkpoint of another configuration or other data is an error, or, with `replace`, ignored.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return False
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata.get("fingerprint") != trainer.fingerprint:
            if replace:
                return False
            raise ValueError(f"{path} belongs to another configuration or other data: delete the run's folder or choose another.")
        trainer.load_tensors({k: file.get_tensor(k) for k in file.keys()}, int(metadata["steps_done"]))  # noqa: SIM118
    return True


def validates(trainer: Trainer) -> bool:
    """Whether the step that was done is one after which the generator is validated."""
    return len(trainer.validation) > 0 and trainer.steps_done % trainer.config.validate_every == 0


def reads(trainer: Trainer) -> bool:
    """Whether losses are read from the device after the step that was done: always on a CPU; on a GPU now and then, because to read them is to wait for it."""
    gpu, done = trainer.device.type == "cuda", trainer.steps_done
    return not gpu or done % READ_EVERY == 0 or done % trainer.config.checkpoint_every == 0 or trainer.finished


def train(trainer: Trainer, folder: Path, *, progress: bool = True, replace: bool = False) -> Path:
    """Train to the configured number of steps in `folder`, resuming what is there; returns the path of the weights.

    The folder holds config.json, log.jsonl (a line a step), checkpoint.safetensors and, at the end, weights.safetensors: the generators, G being
    the averaged one where `ema` is on, and of these, where `validation_share` is, the one with the least distance from the held-out real volumes. Of several processes the first writes; a run may go on with another number of them. `replace` starts anew over a run of another configuration or other data instead of refusing it.

    Raises
    ------
    TrainingDiverged
        When a loss or gradient is NaN or infinite, or a weight exceeds 1e6.
    ValueError
        When the folder's checkpoint belongs to another configuration or other data.
    """
    config, first = trainer.config, trainer.processes.rank == 0
    folder.mkdir(parents=True, exist_ok=True)
    load_checkpoint(trainer, folder, replace=replace)
    trainer.processes.wait()
    if not first:
        while not trainer.finished:
            trainer.step()
            if validates(trainer):
                trainer.validate()
            if reads(trainer):
                trainer.check()
        trainer.processes.wait()
        return folder / "weights.safetensors"
    if not trainer.finished:
        (folder / "weights.safetensors").unlink(missing_ok=True)  # never an older run's weights beside this configuration
    settings = dataclasses.asdict(config) | {
        "scaling": dataclasses.asdict(trainer.scaling),
        "hash": config.hash,
        "fingerprint": trainer.fingerprint,
        "acquisition": trainer.acquisition and trainer.acquisition.record,
    }
    write_atomically(folder / "config.json", lambda p: p.write_text(json.dumps(settings, indent=1)))
    log_path = folder / "log.jsonl"
    kept = log_path.read_text().splitlines()[: trainer.steps_done] if log_path.exists() else []
    log_path.write_text("".join(line + "\n" for line in kept))
    start = time.perf_counter() - (json.loads(kept[-1])["seconds"] if kept else 0.0)
    with (
        log_path.open("a") as log,
        tqdm(total=config.steps, initial=trainer.steps_done, disable=not progress, desc=f"{config.preset} seed {config.seed}") as bar,
    ):
        waiting = []  # steps whose losses were not read from the device
        while not trainer.finished:
            values = trainer.step()
            waiting.append({"step": trainer.steps_done, "seconds": round(time.perf_counter() - start, 2)} | values)
            if validates(trainer):
                waiting[-1]["validation"] = trainer.validate()
            bar.update()
            if not reads(trainer):
                continue
            trainer.check()
            shown = torch.stack([torch.stack([torch.as_tensor(record[k]) for k in values]) for record in waiting]).tolist()
            log.writelines(
                json.dumps(record | dict(zip(values, row, strict=True))) + "\n" for record, row in zip(waiting, shown, strict=True)
            )
            bar.set_postfix(
                {k: f"{v:.3f}" for k, v in zip(values, shown[-1], strict=True) if k in ("critic_Y", "adversarial_Y", "cycle_x")}
            )
            waiting = []
            if trainer.steps_done % config.checkpoint_every == 0:
                log.flush()
                save_checkpoint(trainer, folder)
    save_checkpoint(trainer, folder)
    weights = {f"G.{k}": v for k, v in (trainer.best or trainer.ema).items()} | {
        f"F.{k}": v for k, v in trainer.networks["F"].state_dict().items()
    }
    weights = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    write_atomically(folder / "weights.safetensors", lambda p: save_file(weights, p, metadata={"config_hash": config.hash}))
    trainer.processes.wait()
    return folder / "weights.safetensors"
