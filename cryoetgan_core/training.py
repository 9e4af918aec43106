"""Training: everything that a step needs, and the step. `run_folder.train` calls it and keeps what it makes.

Every random number of step k follows from the run's seed and k alone, so a resumed run needs no random states and equals an unbroken one bit for bit on
the same CPU and thread count.
"""

import hashlib

import torch
from torch import nn

from . import losses
from .acquisition import Acquisition
from .config import RunConfig
from .networks import Scaling, build_networks
from .physics_start import start_from
from .processes import Processes
from .seeds import stream
from .selection import FLOOR, distance

ALONE = Processes()
MOST_ON_DEVICE = 1 << 31  # values of the subtomograms (8 GiB) that are kept on the training device
MOST_HELD_OUT = 1000  # subtomograms to validate on
MOST_TO_START = 2000  # subtomograms that the physics generator's start looks at


class TrainingDiverged(RuntimeError):
    """A loss or gradient became NaN or infinite, or a weight exceeded 1e6; the last good checkpoint is left in place."""


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
        digest.update(memoryview(v.contiguous().numpy()).cast("B"))  # no copy: it may lie on disk
    return digest.hexdigest()[:12]


def check_batch(batch: int, processes: Processes) -> None:
    """Raise ValueError unless the processes can share a batch evenly."""
    if batch % processes.count:
        raise ValueError(f"A batch of {batch} cannot be shared by {processes.count} processes; start as many as divide it.")


class Trainer:
    """Holds the networks, optimisers, image pools and data of one run; `step` advances it by one batch."""

    def __init__(
        self,
        config: RunConfig,
        x: torch.Tensor,
        y: torch.Tensor,
        device: torch.device | str = "cpu",
        acquisition: Acquisition | None = None,
        processes: Processes = ALONE,
    ):
        """Take raw train densities `x` (N, D, H, W), raw train subtomograms `y` (M, D, H, W) and, for the physics generator, how these were recorded.

        Every one of several `processes` takes the same arguments, and its own part of each batch.
        """
        self.config, self.device, self.steps_done = config, torch.device(device), 0
        for name, volumes in (("densities", x), ("subtomograms", y)):
            if len(volumes) < config.batch or volumes.shape[-1] != config.box:
                raise ValueError(
                    f"Training {name} have shape {tuple(volumes.shape)}; expected at least {config.batch} (the batch) of {config.box}^3."
                )
        check_batch(config.batch, processes)
        self.processes = processes
        self.fingerprint = fingerprint(config, x, y)
        self.scaling = Scaling.of(x, y, config.noise_level)
        # as given, scaled batch by batch: subtomograms may be more than memory holds
        self.x, self.y = x.to(self.device)[:, None], (y if y.numel() > MOST_ON_DEVICE else y.to(self.device))[:, None]
        self.acquisition, self.networks = acquisition, build_networks(config, self.device, acquisition)
        held_out = min(round(config.validation_share * len(y)), MOST_HELD_OUT)
        order = torch.randperm(len(y), generator=stream(config.seed, "validation"))
        self.validation, self.rows = self._real(order[:held_out]), {"x": torch.arange(len(x)), "y": order[held_out:].sort().values}
        if config.generator == "physics":
            few = torch.linspace(0, len(self.rows["y"]) - 1, min(len(self.rows["y"]), MOST_TO_START)).round().long()
            start_from(self.networks["G"], self.scaling.x(x), self._real(self.rows["y"][few])[:, 0])
        self.ema = {k: v.clone() for k, v in self.networks["G"].state_dict().items()}
        self.best, self.validations = {}, []  # the averaged generator at the least distance; (step, distance) of each validation
        self.critics = [name for name in ("D_Y", "D_X") if name in self.networks]
        groups = {"generators": ["G", "F"], "critics": self.critics}
        self.optimizers = {name: make_optimizer(config, [self.networks[n] for n in names]) for name, names in groups.items()}
        self.pools = {"Y": torch.empty(0), "X": torch.empty(0)}

    def _real(self, rows: torch.Tensor) -> torch.Tensor:
        """Subtomograms (B, 1, D, H, W) of the given rows in network units, on the device."""
        return self.scaling.y(self.y[rows.to(self.y.device)]).to(self.device)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Network inputs (x, y), (B, 1, D, H, W), of a step, for all processes together: each domain passes through its own shuffled epochs."""
        config, picked = self.config, []
        for name, rows in self.rows.items():
            epoch, i = divmod(step, len(rows) // config.batch)
            order = torch.randperm(len(rows), generator=stream(config.seed, f"order of {name}", epoch))
            chosen = rows[order[i * config.batch : (i + 1) * config.batch]]
            picked.append(self.x[chosen.to(self.device)] if name == "x" else self._real(chosen))
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
        x, y = map(self.processes.part, self.batch(self.steps_done))
        rates = {"generators": config.learning_rate, "critics": config.critic_learning_rate}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rates[name] * decay(config, self.steps_done) * group["scale"]
        for name in self.critics:
            net[name].power_iteration()

        def translate(name: str, volumes: torch.Tensor) -> torch.Tensor:
            batch = volumes.new_empty(1).expand(config.batch, *volumes.shape[1:])
            return net[name](volumes, self.processes.part(net[name].sample_noise(batch, rng)))

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
            bins = dict(angular_bins=18, signed=True, floor=FLOOR) if config.generator == "physics" else {}
            log["log_power"] = losses.log_power_loss(y, fake_y, **bins, over_all=self.processes.mean)
            total = total + config.log_power * log["log_power"]
        self._descend("generators", total)

        if config.adversarial_weight:
            log |= self._critics_step({name: pairs[name] for name in self.critics}, rng)
        self._update_ema()
        self.steps_done += 1
        return dict(zip(log, self.processes.mean(torch.stack([v.detach() for v in log.values()])).tolist(), strict=True))

    def _critics_step(self, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], rng: torch.Generator) -> dict[str, torch.Tensor]:
        """One update of the critics, on fakes from the pool, given each one's real and generated volumes."""
        config, log, total = self.config, {}, 0.0
        for key, (real, fake) in pairs.items():
            critic, name = self.networks[key].requires_grad_(True), key[-1]
            fake = self._pooled(name, fake.detach())
            log[f"critic_{name}"] = losses.critic_loss(critic(real), critic(fake), config.adversarial, config.real_label)
            total = total + config.adversarial_weight * log[f"critic_{name}"]
            if config.gradient_penalty:
                mix = self.processes.part(torch.rand((config.batch, 1, 1, 1, 1), generator=rng, device=self.device))
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
        found = self.processes.of_first(distance(self.validation[:, 0].cpu(), torch.cat(fakes)[:, 0].cpu()))
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
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.processes.average_gradients(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
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
        for volume in self.processes.whole(fake):
            if len(pool) < size:
                pool = torch.cat([pool.to(volume).view(-1, *volume.shape), volume[None]])
            elif torch.rand((), generator=rng) < 0.5:
                i = int(torch.randint(size, (), generator=rng))
                volume, pool[i] = pool[i].clone(), volume
            out.append(volume)
        self.pools[name] = pool
        return self.processes.part(torch.stack(out))

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
