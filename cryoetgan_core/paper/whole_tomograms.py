"""Transfer function and noise of generated tomograms, beside those of the simulated tomograms whose particles the
generator was estimated from.

A tomogram holds spatial frequencies far below the lowest of a particle's box. There nothing is measured: signal and
noise are extrapolated.
"""

import dataclasses
import math
from functools import partial

import numpy as np
import torch

from ..config import DATASETS, RunConfig
from ..physics.any_size import recorded
from ..reproducibility import paths
from ..reproducibility.provenance import array_hash
from ..simulator import scene
from . import picker
from .case import Case
from .picking import estimated, seen_by_tilts
from .proof import proof_config
from .record import described

NO_NOISE = 1e12  # signal-to-noise ratio
WIDTH = 1 / 160  # cycles a voxel, of a shell
UNCORRECTED = {"transfer": "uncorrected"}
TOLD = (0.1, 0.5)  # cycles a voxel between which the noise in the wedge is compared
EDGE_deg = 3.0  # of the wedge, which is left out then


def make_whole_tomograms(config: RunConfig, many: int = picker.TRAINED_ON) -> dict:
    """`Shells.curves` of each of the simulator's tomograms that the particles were cut from ("simulator"), and of the
    generator's tomograms of the same specimens ("generator").

    The generator's noise is that of boxes without a molecule, where there are enough of them. "frequency" is that of
    the curves, and "of_a_box" the lowest of a particle's box, in cycles a voxel.
    """
    references, _, voxel = picker.what_is_picked(config)
    noisy, _ = picker.recorded_tomograms(config, many, 0)
    clean, _ = picker.recorded_tomograms(dataclasses.replace(config, snr=NO_NOISE), many, 0)
    folder = paths.runs(config.profile) / "whole_tomograms" / f"{config.dataset}_seed{config.seed}"
    run, noise_power = estimated(config, noisy, references, voxel, folder)
    scope = DATASETS[config.dataset].microscope
    shells = Shells(picker.SHAPE, scope.tilt_min_deg, scope.tilt_max_deg)
    empty, simulated, generated = float(run.scaling.x(torch.zeros(()))), [], []
    for k, ((tomogram, table), (signal, _)) in enumerate(zip(noisy, clean, strict=True)):
        density = scene.specimen(references, table, picker.SHAPE, voxel)[0]
        simulated.append(shells.curves(density, signal, tomogram - signal))
        scaled = run.scaling.x(torch.from_numpy(density)).numpy()
        told = dict(name=f"{k}", noise_power=noise_power)
        with_noise, alone = (
            recorded(run.G, scaled, empty, config.seed, noisy=n, **told)[0] * run.scaling.y_std for n in (True, False)
        )
        generated.append(shells.curves(density, alone, with_noise - alone))
    return {
        "frequency": shells.frequency.tolist(),  # cycles a voxel
        "of_a_box": 1 / config.box,  # the lowest frequency of a particle's box but zero
        "simulator": simulated,
        "generator": generated,
        "told": TOLD,
        "voxel_size_A": voxel,
        "noise_of_empty_boxes": noise_power is not None,
        "data_hash": array_hash(*(volume for volume, _ in (*noisy, *clean))),
    } | described(config, "paper.whole_tomograms")


class Shells:
    """Shells of spatial frequency of tomograms of one shape, outside of the wedge that tilts between two angles miss.

    `frequency` is that of the middle of each shell, in cycles a voxel, below half.
    """

    def __init__(self, shape: tuple[int, int, int], lowest_deg: float, highest_deg: float):
        each = *(torch.fft.fftfreq(n) for n in shape[:2]), torch.fft.rfftfreq(shape[2])
        radius = sum(f.square() for f in torch.meshgrid(*each, indexing="ij")).sqrt()
        self.frequency = np.arange(1, round(0.5 / WIDTH)) * WIDTH
        shell = (radius / WIDTH).round().long() - 1
        seen = seen_by_tilts(shape, lowest_deg, highest_deg) > 0
        self.kept = seen & (shell >= 0) & (shell < len(self.frequency))
        self.shell = shell[self.kept]
        # the edge of the wedge is left out
        wider = seen_by_tilts(shape, lowest_deg - EDGE_deg, highest_deg + EDGE_deg) > 0
        told = (radius > TOLD[0]) & (radius < TOLD[1])
        self.inside, self.outside = told & seen, told & ~wider
        lines = (torch.hann_window(n + 2, periodic=False)[1:-1] for n in shape)
        self.window = math.prod(torch.meshgrid(*lines, indexing="ij"))

    def _mean(self, values: torch.Tensor) -> np.ndarray:
        """Mean over each shell of values at the voxels of an rfft."""
        total = torch.bincount(self.shell, values[self.kept].double(), len(self.frequency))
        return (total / torch.bincount(self.shell, minlength=len(self.frequency))).numpy()

    def curves(self, density: np.ndarray, signal: np.ndarray, noise: np.ndarray) -> dict:
        """From a density, the signal made of it and the noise beside it, (Z, Y, X) each: "transfer", the transfer
        function by shell; "noise", the power of the noise by shell; "in_wedge", the power of the noise in the missing
        wedge over that outside.
        """
        x, y, e = (torch.fft.rfftn(torch.from_numpy(v), norm="ortho") for v in (density, signal, noise))
        windowed = torch.fft.rfftn(torch.from_numpy(noise) * self.window).abs().square()  # does not leak into the wedge
        return {
            "transfer": (self._mean((y * x.conj()).real) / self._mean(x.abs().square())).tolist(),
            "noise": self._mean(e.abs().square()).tolist(),
            "in_wedge": float(windowed[self.outside].mean() / windowed[self.inside].mean()),
        }


def planned(profile: str, seed: int) -> dict[str, Case]:
    """The results by name."""
    small = dict(many=1) if profile == "smoke" else {}
    # what the generator is told of the CTF
    told = {f"{name}{kind}": told for name in DATASETS for kind, told in (("", {}), ("_uncorrected", UNCORRECTED))}
    return {
        f"whole_tomograms_{name}_seed{seed}": Case(
            proof_config(profile, name[:2], picker.SNR, seed, **changes), partial(make_whole_tomograms, **small)
        )
        for name, changes in told.items()
    }
