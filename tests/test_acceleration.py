"""Accelerated steps compute what plain ones do; bfloat16 stays out of what needs float32; a CUDA graph could record a
step; the benchmark runs.
"""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cryoetgan_core import training
from cryoetgan_core.config import PRESETS, make_config
from cryoetgan_core.engine.acceleration import WARM_UP, Acceleration, Recorded, autocast
from cryoetgan_core.layers.convolution import Conv, InstanceNorm
from cryoetgan_core.paper import benchmark
from cryoetgan_core.training import Trainer

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
PAPERS = [name for name, preset in PRESETS.items() if preset.get("generator") != "physics"]


def trainer(
    preset: str = "released",
    use: Acceleration = Acceleration(),  # noqa: B008
    device: str = "cpu",
    **changes: object,
) -> Trainer:
    rng = torch.Generator().manual_seed(7)
    x, y = (torch.randn(12, 18, 18, 18, generator=rng) for _ in "xy")
    config = make_config("smoke", "S1", preset, **{"steps": 12} | changes)
    return Trainer(config, x, y, device, acceleration=use)


def losses(made: Trainer, steps: int) -> torch.Tensor:
    return torch.tensor([list(made.step().values()) for _ in range(steps)])


@pytest.mark.parametrize("use", [Acceleration(channels_last=True), Acceleration(fused=True)], ids=str)
def test_an_accelerated_step_equals_the_plain_one(use: Acceleration) -> None:
    changes = dict(width=3, critic_width=3)  # channels last is another order only where there are channels
    torch.testing.assert_close(
        losses(trainer(use=use, **changes), 3), losses(trainer(**changes), 3), rtol=2e-4, atol=1e-5
    )
    assert str(Acceleration()) == "none" and str(use) in ("channels_last", "fused")


class Replayed:
    """Stands in for a CUDA graph: playing it again is to call the function on the memory that was recorded."""

    made: list["Replayed"] = []

    def __init__(self) -> None:
        self.warm, self.recorded, self.played = 0, 0, 0
        Replayed.made.append(self)

    def warm_up(self, function: object, inputs: object) -> object:
        self.warm += 1
        return function(inputs)

    def record(self, function: object, inputs: object) -> object:
        self.function, self.inputs, self.recorded = function, inputs, self.recorded + 1
        self.outputs = None
        return self  # nothing is computed yet

    def replay(self) -> None:
        self.played += 1
        self.outputs = self.function(self.inputs)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    class Standing(Recorded):
        def __call__(self, inputs: object) -> object:
            out = super().__call__(inputs)
            return out.outputs if isinstance(out, Replayed) else out

    Replayed.made = []
    monkeypatch.setattr(training, "Recorded", partial(Standing, recorder=Replayed))
    monkeypatch.setattr(Acceleration, "check", lambda *_: None)
    return Replayed.made


@pytest.mark.parametrize("preset", ["released", "adapted"])
def test_a_recorded_step_gets_new_inputs_and_learning_rates(graphs: list[Replayed], preset: str) -> None:
    """The pool of earlier fakes, the falling learning rate, the random draws: nothing of them may be frozen by
    recording.
    """
    changes = dict(preset=preset, decay_from=0.0, pool=6)
    recorded, plain = trainer(use=Acceleration(graphs=True), **changes), trainer(**changes)
    torch.testing.assert_close(losses(recorded, 7), losses(plain, 7), rtol=2e-4, atol=1e-5)
    assert [(g.warm, g.recorded, g.played) for g in graphs] == [(WARM_UP, 1, 7 - WARM_UP)] * 2
    for key, value in plain.tensors().items():
        torch.testing.assert_close(recorded.tensors()[key], value, rtol=2e-3, atol=2e-5)


def test_a_resumed_step_is_recorded_anew(graphs: list[Replayed]) -> None:
    plain, recorded = trainer(), trainer(use=Acceleration(graphs=True))
    losses(plain, 5)
    losses(recorded, 5)
    recorded.load_tensors({k: v.clone() for k, v in plain.tensors().items()}, 5)  # as from a file
    torch.testing.assert_close(losses(recorded, 5), losses(plain, 5), rtol=2e-4, atol=1e-5)
    assert len(graphs) == 4 and all(g.recorded == 1 for g in graphs)


def test_a_step_resumes_in_the_memory_order_of_its_weights() -> None:
    """A fused optimiser reads its moments as the weights lie; a checkpoint has them in plain order."""
    use = Acceleration(channels_last=True, fused=True)
    plain, resumed = (trainer("adapted", use, width=3, critic_width=3) for _ in "ab")
    losses(plain, 3)
    resumed.load_tensors({k: v.clone() for k, v in plain.tensors().items()}, 3)
    for optimizer in resumed.optimizers.values():
        for parameter, kept in optimizer.state.items():
            assert all(v.stride() == parameter.stride() for v in kept.values() if v.dim())
    assert torch.equal(losses(resumed, 3), losses(plain, 3))


class Waits(TorchDispatchMode):
    """Refuses what makes the CPU wait for a GPU, which a CUDA graph cannot record."""

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        name = str(function)
        assert not any(f in name for f in ("_local_scalar_dense", "nonzero", "unique", "masked_select")), (
            f"{name} waits for the device"
        )
        indexed_by = args[1] if name.startswith("aten.index.") else []
        assert not any(t is not None and t.dtype == torch.bool for t in indexed_by), (
            "a mask as an index waits for the device"
        )
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", PAPERS)
def test_nothing_in_a_step_waits_for_the_device(preset: str) -> None:
    made = trainer(preset)
    losses(made, 1)  # what is made once and kept
    for optimizer in made.optimizers.values():  # on a GPU "capturable" ones do not wait either
        optimizer.step = lambda: None
    inputs, mix = made._inputs()
    with Waits():
        out = made._update_generators(inputs)
        reals = {"D_Y": inputs["y"], "D_X": inputs["x"]}
        made._update_critics({"real": reals, "fake": out["fakes"], "mix": mix})
    with pytest.raises(AssertionError, match="waits"), Waits():
        float(torch.ones(()))
    with pytest.raises(AssertionError, match="mask"), Waits():
        torch.ones(3)[torch.tensor([True, False, True])]


@pytest.mark.parametrize("preset", ["released", "adapted"])
def test_bfloat16_is_near_float32_and_keeps_weights_in_float32(preset: str) -> None:
    """One step from the same weights: losses to a few hundredths, and Adam's or RMSProp's state, weights and scores in
    float32.
    """
    made, exact = trainer(preset, compute_dtype="bfloat16"), trainer(preset)
    found, wanted = losses(made, 1), losses(exact, 1)
    assert not torch.equal(found, wanted) and found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.02)
    assert all(v.dtype in (torch.float32, torch.float64) for v in made.tensors().values())


def test_norms_and_singular_values_are_float32_within_bfloat16() -> None:
    rng = torch.Generator().manual_seed(0)
    norm, layer = InstanceNorm(4), Conv(4, 5, 3, spectral=True)
    x = 100 + torch.randn(2, 4, 6, 6, 6, generator=rng)  # which bfloat16 knows to 0.5
    exact, sigma = norm(x), layer.spectral_norm()
    with autocast("bfloat16", torch.device("cpu")):
        assert torch.equal(norm(x), exact) and torch.equal(layer.spectral_norm(), sigma)
        assert layer(x).dtype == torch.bfloat16
    with autocast("float32", torch.device("cpu")):
        assert layer(x).dtype == torch.float32


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(ValueError, match="CUDA graphs need a GPU"):
        trainer("adapted", Acceleration(graphs=True))
    gpu = torch.device("cuda")
    with pytest.raises(ValueError, match="one process"):
        Acceleration(graphs=True).check(gpu, 2)
    Acceleration(graphs=True).check(gpu, 1)
    assert Acceleration.automatic(torch.device("cpu")) == Acceleration()
    assert Acceleration.automatic(gpu) == Acceleration(channels_last=True, graphs=True, fused=True)
    assert Acceleration.automatic(gpu, 2) == Acceleration(channels_last=True, fused=True)
    with pytest.raises(ValueError, match="'compute_dtype' is 'float16'"):
        make_config("smoke", compute_dtype="float16")


def test_the_benchmark_measures_every_row_in_one_call(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "seconds_per_call", lambda *_: 1.0)  # the smoke profile measures
    benchmark.main(["--small", "--output", str(tmp_path / "table.csv")])
    printed = capsys.readouterr().out
    for label, *_ in benchmark.TRICKS:
        assert label in printed
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + len(benchmark.TRICKS) + 1 + 2  # header, tricks, another batch, generation
    assert torch.cuda.is_available() or "CUDA graphs need a GPU" in printed


@GPU
@pytest.mark.parametrize("preset", PAPERS)
def test_cuda_graphs_equal_eager_steps(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # whose rounding differs from kernel to kernel
    changes = dict(preset=preset, device="cuda", width=8, critic_width=8, decay_from=0.0)
    eager, recorded = trainer(**changes), trainer(use=Acceleration(graphs=True, fused=True), **changes)
    torch.testing.assert_close(losses(recorded, WARM_UP + 2), losses(eager, WARM_UP + 2), rtol=5e-3, atol=1e-3)


@GPU
def test_a_gpu_computes_what_the_cpu_does() -> None:
    use = dataclasses.replace(Acceleration(), channels_last=True)
    first = [losses(trainer("released", use, device), 1) for device in ("cpu", "cuda")]
    assert torch.allclose(*(f[:, :4] for f in first), rtol=0.3)  # random numbers differ between devices
