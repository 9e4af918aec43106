"""Training: one step function, and a run that is a folder which can be stopped, resumed and rebuilt.

Every random number of step k follows from the run's seed and k alone, so a resumed run needs no random states and equals an unbroken one bit for bit on
the same CPU and thread count.
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from . import losses
from .config import RunConfig
from .models import Discriminator, Generator
from .seeds import stream


class TrainingDiverged(RuntimeError):
    """A loss or gradient became NaN or infinite, or a weight exceeded 1e6; the last good checkpoint is left in place."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation by which each domain is z-scored as a whole (paper; one pair a set), from the train halves."""

    x_mean: float
    x_std: float
    y_mean: float
    y_std: float

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor, noise_level: float) -> "Scaling":
        """Statistics of train densities `x` with noise of std `noise_level` added, and of train subtomograms `y`."""
        x_std = math.sqrt(float(x.var()) + noise_level**2)
        scaling = cls(float(x.mean()), x_std, float(y.mean()), float(y.std()))
        if not all(map(math.isfinite, dataclasses.astuple(scaling))) or scaling.y_std == 0 or x_std == 0:
            raise ValueError(f"Cannot z-score the training data: {scaling}; expected finite values that vary.")
        return scaling

    def x(self, density: torch.Tensor) -> torch.Tensor:
        """Density in physical contrast to network units."""
        return (density - self.x_mean) / self.x_std

    def y(self, subtomogram: torch.Tensor) -> torch.Tensor:
        """Subtomogram to network units."""
        return (subtomogram - self.y_mean) / self.y_std


def build_networks(config: RunConfig, device: torch.device | str = "cpu") -> nn.ModuleDict:
    """G (X to Y), F (Y to X) and the critics D_Y, D_X, with weights drawn from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator = dict(output=config.output, skip=config.skip)
        critic = dict(spectral_norm=config.spectral_norm, norm=config.critic_norm)
        networks = nn.ModuleDict(
            {
                "G": Generator(config.width, noise=config.noise, **generator),
                "F": Generator(config.width, noise="bottleneck" if config.noise == "bottleneck" else "none", **generator),
                "D_Y": Discriminator(config.critic_width, **critic),
                "D_X": Discriminator(config.critic_width, **critic),
            }
        )
    return networks.to(device)


def make_optimizer(config: RunConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam(beta1, beta2) or RMSProp(0.9), as the configuration says; every step sets the learning rate."""
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, alpha=0.9)
    return torch.optim.Adam(parameters, betas=(config.beta1, config.beta2))


def decay(config: RunConfig, step: int) -> float:
    """Factor on the learning rates: 1, then linear to zero over the part of the run after `decay_from`."""
    left = (config.steps - step) / max(config.steps * (1 - config.decay_from), 1)
    return min(1.0, left)


def fingerprint(config: RunConfig, *volumes: torch.Tensor) -> str:
    """Twelve hexadecimal digits that name a configuration and the data it is trained on."""
    digest = hashlib.sha256(config.hash.encode())
    for v in volumes:
        digest.update(v.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


class Trainer:
    """Holds the networks, optimisers, image pools and data of one run; `step` advances it by one batch."""

    def __init__(self, config: RunConfig, x: torch.Tensor, y: torch.Tensor, device: torch.device | str = "cpu"):
        """Take raw train densities `x` (N, D, H, W) and raw train subtomograms `y` (M, D, H, W)."""
        self.config, self.device, self.steps_done = config, torch.device(device), 0
        for name, volumes in (("densities", x), ("subtomograms", y)):
            if len(volumes) < config.batch or volumes.shape[-1] != config.box:
                raise ValueError(
                    f"Training {name} have shape {tuple(volumes.shape)}; expected at least {config.batch} (the batch) of {config.box}^3."
                )
        self.fingerprint = fingerprint(config, x, y)
        self.scaling = Scaling.of(x, y, config.noise_level)
        self.x, self.y = x.to(self.device)[:, None], self.scaling.y(y).to(self.device)[:, None]
        self.networks = build_networks(config, self.device)
        self.ema = {k: v.clone() for k, v in self.networks["G"].state_dict().items()}
        groups = {"generators": ("G", "F"), "critics": ("D_Y", "D_X")}
        self.optimizers = {
            name: make_optimizer(config, [p for n in names for p in self.networks[n].parameters()]) for name, names in groups.items()
        }
        self.pools = {"Y": torch.empty(0), "X": torch.empty(0)}

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Network inputs (x, y), (B, 1, D, H, W), of a step: each domain passes through its own shuffled epochs."""
        config, picked = self.config, []
        for name, data in (("x", self.x), ("y", self.y)):
            per_epoch = len(data) // config.batch
            epoch, i = divmod(step, per_epoch)
            order = torch.randperm(len(data), generator=stream(config.seed, f"order of {name}", epoch))
            picked.append(data[order[i * config.batch : (i + 1) * config.batch].to(self.device)])
        x, y = picked
        rng = stream(config.seed, "noise level", step, device=self.device)
        noise = config.noise_level * torch.randn(x.shape, generator=rng, device=self.device)
        return self.scaling.x(x + noise), y

    def step(self) -> dict[str, float]:
        """One update of both generators, then one of both critics; returns the losses by name."""
        config, net = self.config, self.networks
        rng = stream(config.seed, "generator", self.steps_done, device=self.device)
        x, y = self.batch(self.steps_done)
        rates = {"generators": config.learning_rate, "critics": config.critic_learning_rate}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[name] * decay(config, self.steps_done)
        for name in ("D_Y", "D_X"):
            net[name].power_iteration()

        def translate(name: str, volumes: torch.Tensor) -> torch.Tensor:
            return net[name](volumes, net[name].sample_noise(volumes, rng))

        # Generators: adversarial + cycle; the critics are held still so that no gradient is spent on them.
        net["D_Y"].requires_grad_(False), net["D_X"].requires_grad_(False)
        fake_y, fake_x = translate("G", x), translate("F", y)
        relativistic = config.adversarial == "relativistic"
        log = {}
        for name, fake, real in (("D_Y", fake_y, y), ("D_X", fake_x, x)):
            real_scores = net[name](real) if relativistic else None
            log[f"adversarial_{name[-1]}"] = losses.generator_loss(net[name](fake), config.adversarial, config.real_label, real_scores)
        total = config.adversarial_weight * (log["adversarial_Y"] + log["adversarial_X"])
        if config.cycle_x:
            log["cycle_x"] = losses.cycle_loss(x, translate("F", fake_y))
            total = total + config.cycle_x * log["cycle_x"]
        if config.cycle_y:
            log["cycle_y"] = losses.cycle_loss(y, translate("G", fake_x))
            total = total + config.cycle_y * log["cycle_y"]
        if config.log_power:
            log["log_power"] = losses.log_power_loss(y, fake_y)
            total = total + config.log_power * log["log_power"]
        self._descend("generators", total)

        # Critics: on fakes from the pool.
        net["D_Y"].requires_grad_(True), net["D_X"].requires_grad_(True)
        critics = 0.0
        for name, real, fake in (("Y", y, fake_y), ("X", x, fake_x)):
            critic, fake = net[f"D_{name}"], self._pooled(name, fake.detach())
            log[f"critic_{name}"] = losses.critic_loss(critic(real), critic(fake), config.adversarial, config.real_label)
            critics = critics + config.adversarial_weight * log[f"critic_{name}"]
            if config.gradient_penalty:
                mix = torch.rand((len(real), 1, 1, 1, 1), generator=rng, device=self.device)
                penalty = losses.gradient_penalty(critic, real, fake, mix, config.gradient_penalty_norm)
                log[f"penalty_{name}"] = penalty
                critics = critics + config.gradient_penalty * penalty
            if config.zero_centred_penalty:
                penalty = losses.zero_centred_penalty(critic, real) + losses.zero_centred_penalty(critic, fake)
                log[f"penalty_{name}"] = penalty
                critics = critics + 0.5 * config.zero_centred_penalty * penalty
        self._descend("critics", critics)
        if config.clip:
            with torch.no_grad():
                for parameter in (*net["D_Y"].parameters(), *net["D_X"].parameters()):
                    parameter.clamp_(-config.clip, config.clip)

        self._update_ema()
        self.steps_done += 1
        return {k: float(v.detach()) for k, v in log.items()}

    def _descend(self, which: str, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all() & torch.isfinite(loss.detach())):
            raise TrainingDiverged(
                f"A loss or gradient of the {which} is not finite at step {self.steps_done + 1} of preset {self.config.preset!r}: lower "
                "learning_rate, or turn spectral_norm or gradient_penalty on. The last checkpoint is from before it."
            )
        optimizer.step()

    @torch.no_grad()
    def _update_ema(self) -> None:
        for key, value in self.networks["G"].state_dict().items():
            self.ema[key].lerp_(value, 1 - self.config.ema)

    def _pooled(self, name: str, fake: torch.Tensor) -> torch.Tensor:
        """Fakes for a critic: each is kept and, half of the time, exchanged for an older one (Shrivastava et al. 2017)."""
        pool, size = self.pools[name], self.config.pool
        if size == 0:
            return fake
        rng = stream(self.config.seed, f"pool {name}", self.steps_done)
        out = []
        for volume in fake:
            if len(pool) < size:
                pool = torch.cat([pool.to(volume).view(-1, *volume.shape), volume[None]])
            elif torch.rand((), generator=rng) < 0.5:
                i = int(torch.randint(size, (), generator=rng))
                volume, pool[i] = pool[i].clone(), volume
            out.append(volume)
        self.pools[name] = pool
        return torch.stack(out)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, as named tensors."""
        state = {f"network.{k}": v for k, v in self.networks.state_dict().items()}
        state |= {f"ema.{k}": v for k, v in self.ema.items()}
        state |= {f"pool.{k}": v for k, v in self.pools.items() if v.numel()}
        for name, optimizer in self.optimizers.items():
            for i, slots in optimizer.state_dict()["state"].items():
                state |= {f"optimizer.{name}.{i}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
        return {k: v.detach().cpu().contiguous() for k, v in state.items()}

    def load_tensors(self, state: dict[str, torch.Tensor], steps_done: int) -> None:
        """Continue from `tensors()` of a trainer of the same configuration and data."""

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        self.networks.load_state_dict(part("network."))
        self.ema = {k: v.to(self.device) for k, v in part("ema.").items()}
        self.pools |= {k: v.to(self.device) for k, v in part("pool.").items()}
        for name, optimizer in self.optimizers.items():
            slots: dict[int, dict] = {}
            for key, value in part(f"optimizer.{name}.").items():
                index, slot = key.split(".", 1)
                slots.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
        self.steps_done = steps_done


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


def train(trainer: Trainer, folder: Path, *, progress: bool = True, replace: bool = False) -> Path:
    """Train to the configured number of steps in `folder`, resuming what is there; returns the path of the weights.

    The folder holds config.json, log.jsonl (a line a step), checkpoint.safetensors and, at the end, weights.safetensors: the generators, G being
    the averaged one where `ema` is on. `replace` starts anew over a run of another configuration or other data instead of refusing it.

    Raises
    ------
    TrainingDiverged
        When a loss or gradient is NaN or infinite, or a weight exceeds 1e6.
    ValueError
        When the folder's checkpoint belongs to another configuration or other data.
    """
    config = trainer.config
    folder.mkdir(parents=True, exist_ok=True)
    load_checkpoint(trainer, folder, replace=replace)
    if trainer.steps_done < config.steps:
        (folder / "weights.safetensors").unlink(missing_ok=True)  # never an older run's weights beside this configuration
    settings = dataclasses.asdict(config) | {
        "scaling": dataclasses.asdict(trainer.scaling),
        "hash": config.hash,
        "fingerprint": trainer.fingerprint,
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
        while trainer.steps_done < config.steps:
            values = trainer.step()
            record = {"step": trainer.steps_done, "seconds": round(time.perf_counter() - start, 2)} | values
            log.write(json.dumps(record) + "\n")
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in values.items() if k in ("critic_Y", "adversarial_Y", "cycle_x")})
            if trainer.steps_done % config.checkpoint_every == 0:
                log.flush()
                save_checkpoint(trainer, folder)
    save_checkpoint(trainer, folder)
    weights = {f"G.{k}": v for k, v in trainer.ema.items()} | {f"F.{k}": v for k, v in trainer.networks["F"].state_dict().items()}
    weights = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    write_atomically(folder / "weights.safetensors", lambda p: save_file(weights, p, metadata={"config_hash": config.hash}))
    return folder / "weights.safetensors"
