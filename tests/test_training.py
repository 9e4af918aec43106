"""Training: resume after kill -9, divergence, and that every switch really changes what is computed."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch

from cryoetgan_core.config import make_config
from cryoetgan_core.engine.optimizers import decay
from cryoetgan_core.generation import generate, generate_repeats, load_run
from cryoetgan_core.reproducibility.files import load_tensors, save_tensors, temporary
from cryoetgan_core.run_folder import load_checkpoint, read_log, save_checkpoint, train
from cryoetgan_core.training import Trainer, TrainingDiverged


def data() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(7)
    return tuple(torch.randn(12, 18, 18, 18, generator=rng) for _ in "xy")


def test_a_training_that_fails_saves_nothing_from_the_bad_step_on(tmp_path: Path) -> None:
    config = make_config("smoke", steps=12, checkpoint_every=4)
    trainer = Trainer(config, *data())
    step = trainer.step

    def failing() -> dict[str, float]:
        if trainer.steps_done == 5:
            with torch.no_grad():
                trainer.networks["G"].first.weight.fill_(float("nan"))
        return step()

    trainer.step = failing
    with pytest.raises(TrainingDiverged, match="generators is not finite at step 6 "):
        train(trainer, tmp_path, progress=False)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 5
    again = Trainer(config, *data())
    assert load_checkpoint(again, tmp_path) and again.steps_done == 4
    assert all(bool(v.isfinite().all()) for v in again.tensors().values())


# what tells in the second step
LATER = {"optimizer", "critic_learning_rate", "beta1", "beta2", "decay_from", "pool"}
LATER |= {"gradient_penalty", "zero_centred_penalty"}


@cache
def losses_after(steps: int = 1, **changes: object) -> tuple[float, ...]:
    trainer = Trainer(make_config("smoke", **changes), *data())
    for _ in range(steps):
        values = trainer.step()
    weights = sum(float(p.double().abs().sum()) for p in trainer.ema.values())
    return (*sorted(values.values()), weights)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"noise_level": 0.5},
        {"width": 3},
        {"critic_width": 3},
        {"output": "tanh"},
        {"noise": "bottleneck"},
        {"noise": "none"},
        {"skip": False},
        {"critic_norm": "instance"},
        {"spectral_norm": False},
        {"adversarial": "least_squares"},
        {"zero_centred_penalty": 0.0},
        {"adversarial_weight": 0.1},
        {"gradient_penalty": 10.0},
        {"gradient_penalty": 10.0, "gradient_penalty_norm": "depth"},
        {"zero_centred_penalty": 0.3},
        {"cycle_x": 0.0},
        {"cycle_y": 3.0},
        {"log_power": 0.0},
        {"optimizer": "rmsprop"},
        {"learning_rate": 1e-5},
        {"critic_learning_rate": 1e-5},
        {"beta1": 0.9},
        {"beta2": 0.5},
        {"decay_from": 0.0},
        {"ema": 0.5},
        {"pool": 4},
        {"batch": 2},
    ],
    ids=str,
)
def test_every_field_changes_the_computation(change: dict) -> None:
    steps = 1 + bool(LATER & set(change))
    assert losses_after(steps, **change) != losses_after(steps)


def test_real_label_matters_for_least_squares() -> None:
    assert losses_after(adversarial="least_squares", real_label=0.8) != losses_after(adversarial="least_squares")


def test_checkpoint_of_another_configuration_or_other_data_is_refused(tmp_path: Path) -> None:
    x, y = data()
    save_checkpoint(Trainer(make_config("smoke"), x, y), tmp_path)
    with pytest.raises(ValueError, match="another configuration, other data or another version"):
        load_checkpoint(Trainer(make_config("smoke", seed=3), x, y), tmp_path)
    with pytest.raises(ValueError, match="another configuration, other data or another version"):
        load_checkpoint(Trainer(make_config("smoke"), x, y + 1), tmp_path)


@pytest.fixture(scope="module")
def half_trained(tmp_path_factory) -> Path:
    """A run of 6 steps that stopped after 4."""
    folder = tmp_path_factory.mktemp("half")
    trainer = Trainer(make_config("smoke", steps=6, checkpoint_every=2), *data())
    trainer.step, step = lambda: step() if trainer.steps_done < 4 else interrupt(), trainer.step
    with pytest.raises(KeyboardInterrupt):
        train(trainer, folder, progress=False)
    return folder


@pytest.mark.parametrize("change", ["renamed", "reshaped"])
def test_a_folder_of_another_version_is_refused_and_left_as_it_is(
    tmp_path: Path, half_trained: Path, change: str
) -> None:
    """Networks that this version no longer builds, under a configuration that it still knows."""
    folder = shutil.copytree(half_trained, tmp_path / "run")
    path = folder / "checkpoint.safetensors"

    def older(path: Path, key: str) -> bytes:
        tensors, metadata = load_tensors(path, "")
        tensor = tensors.pop(key)
        tensors[f"{key}.old" if change == "renamed" else key] = tensor[..., :-1].contiguous()
        save_tensors(tensors, path, metadata)
        return path.read_bytes()

    before = older(path, "network.G.first.weight")
    with pytest.raises(ValueError, match="checkpoint.safetensors does not fit this version of the package"):
        go_on(folder)
    assert path.read_bytes() == before
    weights = go_on(shutil.copytree(half_trained, tmp_path / "whole"))
    older(weights, "G.first.weight")
    with pytest.raises(ValueError, match="the weights do not fit the network of this version"):
        load_run(weights.parent)
    settings = json.loads((half_trained / "config.json").read_text())
    weights.write_bytes(go_on(shutil.copytree(half_trained, tmp_path / "again")).read_bytes())
    (weights.parent / "config.json").write_text(json.dumps(settings | {"width": 3}))
    with pytest.raises(ValueError, match="config.json"):
        load_run(weights.parent)


def interrupt() -> None:
    raise KeyboardInterrupt


def go_on(folder: Path) -> Path:
    return train(Trainer(make_config("smoke", steps=6, checkpoint_every=2), *data()), folder, progress=False)


CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
STARTS_ANEW = f"{CHECKPOINT} is damaged.*: delete it, and the training starts anew"
GOES_ON = f"{LOG}.*: delete it, and training goes on from its checkpoint"


@pytest.mark.parametrize(
    ("name", "change", "message", "first"),
    [
        (CHECKPOINT, lambda b: b[: len(b) // 2], STARTS_ANEW, 1),
        (LOG, lambda b: b[:-30], GOES_ON, 4),
        (LOG, lambda b: b[: b.index(b"\n") + 1], GOES_ON, 4),
        (LOG, lambda b: b.replace(b'"step"', b'"stop"'), GOES_ON, 4),
        (LOG, lambda b: b"", GOES_ON, 4),
    ],
)
def test_a_damaged_file_is_named_and_its_deletion_helps(tmp_path, half_trained, name, change, message, first) -> None:
    path = shutil.copytree(half_trained, tmp_path / "run") / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        go_on(path.parent)
    path.unlink()
    for _ in range(2):
        go_on(path.parent)
        assert [line["step"] for line in read_log(path.parent)] == list(range(first, 7))


def test_a_line_cut_after_the_checkpoint_is_made_again(tmp_path: Path, half_trained: Path) -> None:
    folder = shutil.copytree(half_trained, tmp_path / "run")
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "sec')
    temporary(folder / "checkpoint.safetensors").write_bytes(b"half")  # as a killed process leaves it
    go_on(folder)
    assert [line["step"] for line in read_log(folder)] == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "log.jsonl",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_a_damaged_run_is_not_loaded(tmp_path: Path, name: str) -> None:
    train(Trainer(make_config("smoke", steps=1), *data()), tmp_path, progress=False)
    load_run(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-5])
    with pytest.raises(ValueError, match=f"{name} is damaged or cut off.*: train the run again"):
        load_run(tmp_path)
    at = whole.index(b'"y_std": ') + 9 if name == "config.json" else len(whole) // 2
    (tmp_path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=f"{name} is .*: train the run again"):
        load_run(tmp_path)


def test_learning_rate_decays_linearly_to_zero() -> None:
    config = make_config("smoke", steps=100, decay_from=0.5)
    assert [decay(config, s) for s in (0, 49, 75, 100)] == [1.0, 1.0, 0.5, 0.0]


def test_generation_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    x, y = data()
    train(Trainer(make_config("smoke"), x, y), tmp_path, progress=False)
    run = load_run(tmp_path)
    whole = generate(run, x[:6], seed=3)
    parts = torch.cat([generate(run, x[:2], seed=3), generate(run, x[2:6], seed=3, first=2)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, generate(run, x[:6], seed=4))
    assert generate_repeats(run, x[:1], repeats=4).std(1).min() > 0


def test_subtomograms_are_scaled_batch_by_batch_and_not_copied() -> None:
    """Of a mapped file only the batch is to come into memory."""
    x, y = data()
    trainer = Trainer(make_config("smoke", preset="adapted"), x, y)
    assert trainer.y.data_ptr() == y.data_ptr()
    scaled = (y - y.mean()) / y.std()
    for volume in trainer.batch(0)[1][:, 0]:
        assert (scaled - volume).abs().amax((1, 2, 3)).min() < 1e-6


def rows_of(batch: torch.Tensor, versions: list[torch.Tensor]) -> list[tuple[int, int]]:
    """For each volume of a batch (B, 1, D, D, D), which of several versions (N, D, D, D) of the set it is, and of which
    particle.
    """
    every = torch.stack(versions)
    differences = [(every - volume).abs().amax((2, 3, 4)) for volume in batch[:, 0]]
    assert all(float(d.min()) < 1e-5 for d in differences)
    return [divmod(int(d.argmin()), every.shape[1]) for d in differences]


def test_every_epoch_shows_each_particle_once_in_another_order() -> None:
    trainer = Trainer(make_config("smoke", noise_level=0.0), *data())  # 12 particles, 4 a batch
    for domain, whole in ((0, trainer.scaling.x(trainer.x)), (1, trainer.scaling.y(trainer.y))):
        shown = [i for step in range(6) for _, i in rows_of(trainer.batch(step)[domain], [whole[:, 0]])]
        assert sorted(shown[:12]) == sorted(shown[12:]) == list(range(12)) and shown[:12] != shown[12:]


def test_the_pool_gives_back_an_older_volume_half_of_the_time() -> None:
    trainer = Trainer(make_config("smoke", pool=4), *data())
    given, returned = torch.arange(400.0).view(100, 4, 1, 1, 1, 1), []
    for trainer.steps_done, fakes in enumerate(given):
        returned.append(trainer._pooled("Y", fakes).flatten())
    assert torch.equal(returned[0], torch.arange(4.0)) and trainer.pools["Y"].numel() == 4
    later, fresh = torch.stack(returned[1:]), given[1:].flatten(1)
    assert float((later != fresh).float().mean()) == pytest.approx(0.5, abs=0.08) and (later <= fresh).all()
    # none is lost, none comes twice
    assert len(torch.cat([torch.cat(returned), trainer.pools["Y"].flatten()]).unique()) == 400


def test_a_step_takes_the_decayed_rate_and_moves_the_average_by_its_share() -> None:
    trainer = Trainer(
        make_config("smoke", steps=4, decay_from=0.0, ema=0.9, learning_rate=1e-3, critic_learning_rate=4e-3), *data()
    )
    for step in range(3):
        before = {k: v.clone() for k, v in trainer.ema.items()}
        trainer.step()
        for name, rate in (("generators", 1e-3), ("critics", 4e-3)):
            assert all(g["lr"] == pytest.approx(rate * (4 - step) / 4) for g in trainer.optimizers[name].param_groups)
        for key, value in trainer.networks["G"].state_dict().items():
            torch.testing.assert_close(trainer.ema[key], 0.9 * before[key] + 0.1 * value)


def test_as_many_particles_as_a_batch_train_and_fewer_are_refused_before_it_starts(tmp_path: Path) -> None:
    config, (x, y) = make_config("smoke", steps=2), data()
    with pytest.raises(ValueError, match=r"subtomograms have shape \(3, .*at least 4 .the batch."):
        Trainer(config, x, y[:3])
    train(Trainer(config, x, y[:4]), tmp_path, progress=False)
    assert generate(load_run(tmp_path), x[:1]).isfinite().all()


def test_data_that_do_not_fit_are_refused() -> None:
    x, y = data()
    with pytest.raises(ValueError, match="18\\^3"):
        Trainer(make_config("smoke"), x[:, :17, :17, :17], y)
    with pytest.raises(ValueError, match="z-score"):
        Trainer(make_config("smoke"), x, torch.zeros_like(y))
    with pytest.raises(FileNotFoundError, match="weights.safetensors"):
        load_run(Path("/nowhere"))
