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
from .physics import Acquisition, PhysicsGenerator
from .physics_networks import PatchCritic, Restorer
from .physics_start import start_from
from .seeds import stream
from .selection import distance


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


def build_networks(config: RunConfig, device: torch.device | str = "cpu", acquisition: Acquisition | None = None) -> nn.ModuleDict:
    """G (X to Y), F (Y to X) and the critics D_Y and, for the paper's generator, D_X, with weights drawn from the run's seed.

    Raises
    ------
    ValueError
        When the physics generator is asked for without an `acquisition`.
    """
    if config.generator == "physics" and acquisition is None:
        raise ValueError("The physics generator needs an acquisition: at least the voxel size of the subtomograms.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.generator == "physics":
            without = tuple(config.without.split())
            networks = {
                "G": PhysicsGenerator(config.box, acquisition, transfer=config.transfer, without=without),
                "F": Restorer(config.box),
                "D_Y": PatchCritic(config.critic_width),
            }
            return nn.ModuleDict(networks).to(device)
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


def make_optimizer(config: RunConfig, networks: list[nn.Module]) -> torch.optim.Optimizer:
    """Adam(beta1, beta2) or RMSProp(0.9), as the configuration says; every step sets the learning rate, times the group's "scale"."""
    tables = [p for network in networks if hasattr(network, "tables") for p in network.tables()]
    known = {id(p) for p in tables}
    parameters = [{"params": [p for n in networks for p in n.parameters() if id(p) not in known], "scale": 1.0}]
    if tables:
        parameters.append({"params": tables, "scale": config.table_rate})
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

    def __init__(
        self,
        config: RunConfig,
        x: torch.Tensor,
        y: torch.Tensor,
        device: torch.device | str = "cpu",
        acquisition: Acquisition | None = None,
    ):
        """Take raw train densities `x` (N, D, H, W), raw train subtomograms `y` (M, D, H, W) and, for the physics generator, how these were recorded."""
        self.config, self.device, self.steps_done = config, torch.device(device), 0
        for name, volumes in (("densities", x), ("subtomograms", y)):
            if len(volumes) < config.batch or volumes.shape[-1] != config.box:
                raise ValueError(
                    f"Training {name} have shape {tuple(volumes.shape)}; expected at least {config.batch} (the batch) of {config.box}^3."
                )
        self.fingerprint = fingerprint(config, x, y)
        self.scaling = Scaling.of(x, y, config.noise_level)
        self.x, self.y = x.to(self.device)[:, None], self.scaling.y(y).to(self.device)[:, None]
        self.acquisition, self.networks = acquisition, build_networks(config, self.device, acquisition)
        held_out = round(config.validation_share * len(y))
        order = torch.randperm(len(y), generator=stream(config.seed, "validation"))
        self.validation, self.y = self.y[order[:held_out]], self.y[order[held_out:].sort().values]
        if config.generator == "physics":
            start_from(self.networks["G"], self.scaling.x(x), self.y[:, 0])
        self.ema = {k: v.clone() for k, v in self.networks["G"].state_dict().items()}
        self.best, self.validations = {}, []  # the averaged generator at the least distance; (step, distance) of each validation
        self.critics = [name for name in ("D_Y", "D_X") if name in self.networks]
        groups = {"generators": ["G", "F"], "critics": self.critics}
        self.optimizers = {name: make_optimizer(config, [self.networks[n] for n in names]) for name, names in groups.items()}
        self.pools = {"Y": torch.empty(0), "X": torch.empty(0)}

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Network inputs (x, y), (B, 1, D, H, W), of a step: each domain passes through its own shuffled epochs."""
        config, picked = self.config, []
        for name, data in (("x", self.x), ("y", self.y)):
            per_epoch = len(data) // config.batch
            epoch, i = divmod(step, per_epoch)
            order = torch.randperm(len(data), generator=stream(config.seed, f"order of {name}", epoch))
            picked.append(data[order[i * config.batch : (i + 1) * config.batch].to(self.device)])
        if config.augment:
            flips = stream(config.seed, "augment", step)
            for axes in ((-2,), (-3, -1)):
                for i, volumes in enumerate(picked):
                    turned = (torch.rand((len(volumes), 1, 1, 1, 1), generator=flips) < 0.5).to(self.device)
                    picked[i] = torch.where(turned, volumes.flip(axes), volumes)
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
                group["lr"] = rates[name] * decay(config, self.steps_done) * group["scale"]
        for name in self.critics:
            net[name].power_iteration()

        def translate(name: str, volumes: torch.Tensor) -> torch.Tensor:
            return net[name](volumes, net[name].sample_noise(volumes, rng))

        # Generators: adversarial + cycle; the critics are held still so that no gradient is spent on them.
        for name in self.critics:
            net[name].requires_grad_(False)
        fake_y = translate("G", x)
        fake_x = translate("F", y) if "D_X" in self.critics or config.cycle_y else None
        pairs = {"D_Y": (y, fake_y), "D_X": (x, fake_x)}
        relativistic = config.adversarial == "relativistic"
        log, total = {}, torch.zeros((), device=self.device)
        for name in self.critics if config.adversarial_weight else ():
            real, fake = pairs[name]
            real_scores = net[name](real) if relativistic else None
            log[f"adversarial_{name[-1]}"] = losses.generator_loss(net[name](fake), config.adversarial, config.real_label, real_scores)
            total = total + config.adversarial_weight * log[f"adversarial_{name[-1]}"]
        if config.cycle_x:
            log["cycle_x"] = losses.cycle_loss(x, translate("F", fake_y))
            total = total + config.cycle_x * log["cycle_x"]
        if config.cycle_y:
            log["cycle_y"] = losses.cycle_loss(y, translate("G", fake_x))
            total = total + config.cycle_y * log["cycle_y"]
        if config.log_power:
            bins = dict(angular_bins=18, signed=True) if config.generator == "physics" else {}
            log["log_power"] = losses.log_power_loss(y, fake_y, **bins)
            total = total + config.log_power * log["log_power"]
        self._descend("generators", total)

        if config.adversarial_weight:
            log |= self._critics_step({name: pairs[name] for name in self.critics}, rng)
        self._update_ema()
        self.steps_done += 1
        return {k: float(v.detach()) for k, v in log.items()}

    def _critics_step(self, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], rng: torch.Generator) -> dict[str, torch.Tensor]:
        """One update of the critics, on fakes from the pool, given each one's real and generated volumes."""
        config, log, total = self.config, {}, 0.0
        for key, (real, fake) in pairs.items():
            critic, name = self.networks[key].requires_grad_(True), key[-1]
            fake = self._pooled(name, fake.detach())
            log[f"critic_{name}"] = losses.critic_loss(critic(real), critic(fake), config.adversarial, config.real_label)
            total = total + config.adversarial_weight * log[f"critic_{name}"]
            if config.gradient_penalty:
                mix = torch.rand((len(real), 1, 1, 1, 1), generator=rng, device=self.device)
                penalty = losses.gradient_penalty(critic, real, fake, mix, config.gradient_penalty_norm)
                log[f"penalty_{name}"] = penalty
                total = total + config.gradient_penalty * penalty
            if config.zero_centred_penalty:
                penalty = losses.zero_centred_penalty(critic, real) + losses.zero_centred_penalty(critic, fake)
                log[f"penalty_{name}"] = penalty
                total = total + 0.5 * config.zero_centred_penalty * penalty
        self._descend("critics", total)
        if config.clip:
            with torch.no_grad():
                for parameter in (p for name in self.critics for p in self.networks[name].parameters()):
                    parameter.clamp_(-config.clip, config.clip)
        return log

    @torch.no_grad()
    def validate(self) -> float:
        """Distance of the averaged generator's volumes from the held-out real ones (`selection.distance`); keeps the generator where it is the least so far."""
        config, G = self.config, self.networks["G"]
        own = {k: v.clone() for k, v in G.state_dict().items()}
        G.load_state_dict(self.ema)
        chosen = torch.linspace(0, len(self.x) - 1, len(self.validation)).round().long()
        fakes = []
        for part in chosen.split(config.batch):
            rng = stream(config.seed, "validation", int(part[0]), device=self.device)
            x = self.x[part.to(self.device)]
            x = self.scaling.x(x + config.noise_level * torch.randn(x.shape, generator=rng, device=self.device))
            fakes.append(G(x, G.sample_noise(x, rng)))
        G.load_state_dict(own)
        found = distance(self.validation[:, 0].cpu(), torch.cat(fakes)[:, 0].cpu())
        if not self.validations or found < min(value for _, value in self.validations):
            self.best = {k: v.clone() for k, v in self.ema.items()}
        self.validations.append((self.steps_done, found))
        return found

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the last `patience` validations found nothing better."""
        values = [value for _, value in self.validations]
        waited = len(values) - 1 - values.index(min(values)) if values else 0
        return self.steps_done >= self.config.steps or waited >= self.config.patience

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
        state |= {f"best.{k}": v for k, v in self.best.items()}
        if self.validations:
            state["validations"] = torch.tensor(self.validations, dtype=torch.float64)
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
        self.best = {k: v.to(self.device) for k, v in part("best.").items()}
        self.validations = [(int(step), value) for step, value in state.get("validations", torch.zeros(0, 2)).tolist()]
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
    the averaged one where `ema` is on, and of these, where `validation_share` is, the one with the least distance from the held-out real volumes. `replace` starts anew over a run of another configuration or other data instead of refusing it.

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
        while not trainer.finished:
            values = trainer.step()
            if len(trainer.validation) and trainer.steps_done % config.validate_every == 0:
                values["validation"] = trainer.validate()
            record = {"step": trainer.steps_done, "seconds": round(time.perf_counter() - start, 2)} | values
            log.write(json.dumps(record) + "\n")
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in values.items() if k in ("critic_Y", "adversarial_Y", "cycle_x")})
            if trainer.steps_done % config.checkpoint_every == 0:
                log.flush()
                save_checkpoint(trainer, folder)
    save_checkpoint(trainer, folder)
    weights = {f"G.{k}": v for k, v in (trainer.best or trainer.ema).items()} | {
        f"F.{k}": v for k, v in trainer.networks["F"].state_dict().items()
    }
    weights = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    write_atomically(folder / "weights.safetensors", lambda p: save_file(weights, p, metadata={"config_hash": config.hash}))
    return folder / "weights.safetensors"
