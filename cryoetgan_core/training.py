"""Training: everything that a step needs, and the step. `run_folder.train` calls it and keeps what it makes.

Every random number of step k follows from the run's seed and k alone, so a resumed run needs no random states and
equals an unbroken one bit for bit on the same CPU and thread count.
"""

import hashlib
from functools import partial

import torch

from . import losses
from .build import Scaling, build_networks
from .config import RunConfig
from .engine.acceleration import Acceleration, Recorded, Tree, autocast
from .engine.optimizers import decay, load_optimizer, make_optimizer, optimizer_tensors, set_rate
from .engine.processes import Processes
from .reproducibility.seeds import stream

ALONE = Processes()
CRITICS = ("D_Y", "D_X")
MOST_ON_DEVICE = 1 << 31  # values of the subtomograms (8 GiB) that are kept on the training device


class TrainingDiverged(RuntimeError):
    """A loss or gradient became NaN or infinite, or a weight exceeded 1e6; the last good checkpoint is left in
    place.
    """


def fingerprint(config: RunConfig, *volumes: torch.Tensor) -> str:
    """Twelve hexadecimal digits that name a configuration and the data it is trained on."""
    digest = hashlib.sha256(config.hash.encode())
    for v in volumes:
        digest.update(memoryview(v.contiguous().numpy()).cast("B"))  # no copy: it may lie on disk
    return digest.hexdigest()[:12]


def check_batch(batch: int, processes: Processes) -> None:
    """Raise ValueError unless the processes can share a batch evenly."""
    if batch % processes.count:
        raise ValueError(
            f"A batch of {batch} cannot be shared by {processes.count} processes; start as many as divide it."
        )


class Trainer:
    """Holds the networks, optimisers, image pools and data of one run; `step` advances it by one batch."""

    def __init__(
        self,
        config: RunConfig,
        x: torch.Tensor,
        y: torch.Tensor,
        device: torch.device | str = "cpu",
        processes: Processes = ALONE,
        acceleration: Acceleration | None = None,
    ):
        """Take raw train densities `x` (N, D, H, W) and raw train subtomograms `y` (M, D, H, W).

        Every one of several `processes` takes the same arguments, and its own part of each batch. `acceleration` is
        what suits the device by default.

        Raises
        ------
        ValueError
            For a configuration of the physics generator, which is not trained; for volumes that do not fit the
            configuration.
        """
        if config.generator != "paper":
            raise ValueError(
                f"Trainer: generator {config.generator!r} is estimated (`run_folder.estimate`), not trained."
            )
        self.config, self.device, self.steps_done = config, torch.device(device), 0
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # where streams and graphs are made
        for name, volumes in (("densities", x), ("subtomograms", y)):
            if len(volumes) < config.batch or volumes.shape[-1] != config.box:
                raise ValueError(
                    f"Training {name} have shape {tuple(volumes.shape)}; expected at least {config.batch} (the batch) "
                    f"of {config.box}^3."
                )
        check_batch(config.batch, processes)
        self.processes, self.acceleration = (
            processes,
            acceleration or Acceleration.automatic(self.device, processes.count),
        )
        self.acceleration.check(self.device, processes.count)
        self.fingerprint = fingerprint(config, x, y)
        self.scaling = Scaling.of(x, y, config.noise_level)
        # as given, scaled batch by batch: subtomograms may be more than memory holds
        self.x, self.y = x.to(self.device)[:, None], (y if y.numel() > MOST_ON_DEVICE else y.to(self.device))[:, None]
        self.networks = build_networks(config, self.device)
        if self.acceleration.channels_last:
            self.networks.to(memory_format=torch.channels_last_3d)
        self.ema = {k: v.clone() for k, v in self.networks["G"].state_dict().items()}
        groups = {"generators": ("G", "F"), "critics": CRITICS}
        self.optimizers = {
            name: make_optimizer(config, [self.networks[n] for n in names], self.acceleration)
            for name, names in groups.items()
        }
        self.pools = {"Y": torch.empty(0), "X": torch.empty(0)}
        self._ready()

    def _ready(self) -> None:
        """Capture the CUDA graphs of both halves of a step again: the tensors that they read and write have moved."""
        record = Recorded if self.acceleration.graphs else lambda function: function
        self._update_generators, self._update_critics = record(self._generators_update), record(self._critics_update)

    def _send(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the CPU on the device, without waiting for what the device does now."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _real(self, rows: torch.Tensor) -> torch.Tensor:
        """Subtomograms (B, 1, D, H, W) of the given rows in network units, on the device."""
        volumes = self.y[rows] if self.y.device.type == "cpu" else self.y[self._send(rows)]
        return self.scaling.y(volumes if volumes.device == self.x.device else self._send(volumes))

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Network inputs (x, y), (B, 1, D, H, W), of a step, for all processes together: each domain passes through its
        own shuffled epochs.
        """
        config, picked = self.config, []
        for name, volumes in (("x", self.x), ("y", self.y)):
            epoch, i = divmod(step, len(volumes) // config.batch)
            order = torch.randperm(len(volumes), generator=stream(config.seed, f"order of {name}", epoch))
            chosen = order[i * config.batch : (i + 1) * config.batch]
            picked.append(self.x[self._send(chosen)] if name == "x" else self._real(chosen))
        x, y = picked
        rng = stream(config.seed, "noise level", step, device=self.device)
        noise = config.noise_level * torch.randn(x.shape, generator=rng, device=self.device)
        return self.scaling.x(x + noise), y

    def step(self) -> dict[str, float]:
        """One update of both generators, then one of both critics; returns the losses by name.

        Raises TrainingDiverged for a loss or gradient that is not finite.
        """
        config = self.config
        rates = {"generators": config.learning_rate, "critics": config.critic_learning_rate}
        for name, optimizer in self.optimizers.items():
            set_rate(optimizer, rates[name] * decay(config, self.steps_done))
        inputs, mix = self._inputs()
        made = self._update_generators(inputs)
        log, finite = dict(made["log"]), {"generators": made["finite"]}
        if config.adversarial_weight:
            fakes = {name: self._pooled(name[-1], fake) for name, fake in made["fakes"].items()}
            made = self._update_critics({"real": {"D_Y": inputs["y"], "D_X": inputs["x"]}, "fake": fakes, "mix": mix})
            log, finite = log | made["log"], finite | {"critics": made["finite"]}
        self.steps_done += 1
        for name, fine in finite.items():
            if not fine:
                raise TrainingDiverged(
                    f"A loss or gradient of the {name} is not finite at step {self.steps_done} of preset "
                    f"{config.preset!r}: lower learning_rate, or turn spectral_norm or gradient_penalty on. The last "
                    "checkpoint is from before it."
                )
        return dict(zip(log, self.processes.mean(torch.stack(list(log.values()))).tolist(), strict=True))

    def _inputs(self) -> tuple[dict[str, Tree], dict[str, torch.Tensor]]:
        """This process's part of what a step needs, random numbers included: volumes and draws of the generators, and
        the mixtures of gradient penalties.
        """
        config, part = self.config, self.processes.part
        rng = stream(config.seed, "generator", self.steps_done, device=self.device)
        x, y = map(part, self.batch(self.steps_done))

        def draws(name: str) -> Tree:
            return part(self.networks[name].sample_noise(x.new_empty(1).expand(config.batch, *x.shape[1:]), rng))

        inputs = {"x": x, "y": y, "G(x)": draws("G"), "F(y)": draws("F")}
        if config.cycle_x:
            inputs["F(G(x))"] = draws("F")
        if config.cycle_y:
            inputs["G(F(y))"] = draws("G")
        mixed = CRITICS if config.gradient_penalty and config.adversarial_weight else ()
        return inputs, {
            name: part(torch.rand((config.batch, 1, 1, 1, 1), generator=rng, device=self.device)) for name in mixed
        }

    def _pass(self, name: str, volumes: torch.Tensor, *draws: Tree) -> torch.Tensor:
        """What a network makes of volumes, computed in the configured type; float32."""
        with autocast(self.config.compute_dtype, self.device):
            out = self.networks[name](volumes, *draws)
        return out if out.dtype == volumes.dtype else out.to(volumes.dtype)

    def _generators_update(self, inputs: dict[str, Tree]) -> dict[str, Tree]:
        """Descend adversarial and cycle losses; returns losses, generated volumes, and whether all was finite.

        A CUDA graph can record it.
        """
        config, x, y = self.config, inputs["x"], inputs["y"]
        for name in CRITICS:
            self.networks[name].power_iteration()
            self.networks[name].requires_grad_(False)  # held still, so that no gradient is spent on them
        fakes = {"D_Y": self._pass("G", x, inputs["G(x)"]), "D_X": self._pass("F", y, inputs["F(y)"])}
        log, total = {}, torch.zeros((), device=self.device)
        for name in CRITICS if config.adversarial_weight else ():
            scores = self._pass(name, fakes[name])
            log[f"adversarial_{name[-1]}"] = losses.generator_loss(scores, config.adversarial, config.real_label)
            total = total + config.adversarial_weight * log[f"adversarial_{name[-1]}"]
        if config.cycle_x:
            log["cycle_x"] = losses.cycle_loss(x, self._pass("F", fakes["D_Y"], inputs["F(G(x))"]))
            total = total + config.cycle_x * log["cycle_x"]
        if config.cycle_y:
            log["cycle_y"] = losses.cycle_loss(y, self._pass("G", fakes["D_X"], inputs["G(F(y))"]))
            total = total + config.cycle_y * log["cycle_y"]
        if config.log_power:
            log["log_power"] = losses.log_power_loss(y, fakes["D_Y"], over_all=self.processes.mean)
            total = total + config.log_power * log["log_power"]
        finite = self._descend("generators", total)
        self._update_ema()
        kept = {name: fake.detach() for name, fake in fakes.items()}
        return {"log": {k: v.detach() for k, v in log.items()}, "fakes": kept, "finite": finite}

    def _critics_update(self, inputs: dict[str, Tree]) -> dict[str, Tree]:
        """Descend the critics' losses, given real and generated volumes of each; returns losses and whether all was
        finite.

        A CUDA graph can record it.
        """
        config, log, total = self.config, {}, 0.0
        for key, fake in inputs["fake"].items():
            real, name = inputs["real"][key], key[-1]
            self.networks[key].requires_grad_(True)
            critic = partial(self._pass, key)
            log[f"critic_{name}"] = losses.critic_loss(
                critic(real), critic(fake), config.adversarial, config.real_label
            )
            total = total + config.adversarial_weight * log[f"critic_{name}"]
            if config.gradient_penalty:
                penalty = losses.gradient_penalty(critic, real, fake, inputs["mix"][key], config.gradient_penalty_norm)
                log[f"penalty_{name}"] = penalty
                total = total + config.gradient_penalty * penalty
            if config.zero_centred_penalty:
                penalty = losses.zero_centred_penalty(critic, real) + losses.zero_centred_penalty(critic, fake)
                log[f"penalty_{name}"] = penalty
                total = total + 0.5 * config.zero_centred_penalty * penalty
        finite = self._descend("critics", total)
        return {"log": {k: v.detach() for k, v in log.items()}, "finite": finite}

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.steps_done >= self.config.steps

    def _descend(self, which: str, loss: torch.Tensor) -> torch.Tensor:
        """One step of an optimiser; returns whether the loss and all gradients are finite, as a tensor."""
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.processes.average_gradients(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        finite = torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all() & torch.isfinite(loss.detach())
        optimizer.step()
        return finite

    @torch.no_grad()
    def _update_ema(self) -> None:
        for key, value in self.networks["G"].state_dict().items():
            self.ema[key].lerp_(value, 1 - self.config.ema)

    def _pooled(self, name: str, fake: torch.Tensor) -> torch.Tensor:
        """Fakes for a critic: each is kept and, half of the time, exchanged for an older one (Shrivastava et al.
        2017).
        """
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
        for name, optimizer in self.optimizers.items():
            state |= {f"optimizer.{name}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
        return {k: v.detach().cpu().contiguous() for k, v in state.items()}

    def load_tensors(self, state: dict[str, torch.Tensor], steps_done: int) -> None:
        """Continue from `tensors()` of a trainer of the same configuration and data."""

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

        self.networks.load_state_dict(part("network."))
        self.ema = {k: v.to(self.device) for k, v in part("ema.").items()}
        self.pools |= {k: v.to(self.device) for k, v in part("pool.").items()}
        for name, optimizer in self.optimizers.items():
            load_optimizer(optimizer, part(f"optimizer.{name}."))
        self.steps_done = steps_done
        self._ready()
