"""The second generator: a microscope whose curves are estimated from the particles. Not in the paper.

y = A (FT^-1[ M S T FT[x] + N FT[e] ]) + b

x is the density, M the missing wedge of the tilt series, T the transfer function, S <= 1 a cap on the signal
(`support`), e white noise, N the amplitude of the noise over Fourier space, A the amplitude at each voxel of the box,
and b sets the mean to zero. With empty boxes of the user's tomograms, y = A FT^-1[ M S T FT[x] ] + e' + b, where e' is
one of them. If the training particles were normalised one by one, so is each y. `physics.estimate` estimates all this.
Volumes are ``(B, 1, D, H, W)``, indexed zyx; the beam runs along z and the tilt axis along y.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch_ctf import calculate_ctf_1d

from ..simulator.microscope.simulate import Microscope
from ..simulator.microscope.transfer import dose_filter
from .acquisition import TRANSFERS, Acquisition
from .fourier_grid import CORNER, FINE_RADII, RADII, TILTS, between, coloured, finer, lookup, wedge

REMEMBERED = 64  # training particles whose defocus, distance from the tilt axis and tilt range are kept, to draw from
ORIENTATIONS = ((), (1,), (0, 2), (0, 1, 2))  # axes of an empty box that are flipped: these leave the wedge in place
LEAST_WEDGE = 0.02  # share of the noise amplitude that stays in a missing wedge, where tilt ranges differ


class PhysicsGenerator(nn.Module):
    """Density map to subtomogram by a microscope whose curves are estimated from the particles.

    Parameters
    ----------
    box : int
        Voxels a side of the volumes.
    acquisition : Acquisition
        Voxel size, and what is known of the recording.
    transfer : str
        One of TRANSFERS. "table": T over spatial frequency, its sign too, as the particles show it. "uncorrected": the
        same, but the sign changes where the size of T has its first minimum, since nobody corrected the CTF.
        "corrected": T has one sign (phases flipped, Wiener filter, deconvolution). "ctf": each particle's CTF
        (torch-ctf) and dose decay times an estimated envelope, which needs `acquisition.microscope` and defoci.
    backgrounds : int
        Empty boxes of the user's tomograms that take the place of N FT[e]; 0 for none.

    Raises
    ------
    ValueError
        For an unknown transfer, or a CTF without its metadata.
    """

    def __init__(self, box: int, acquisition: Acquisition, *, transfer: str = "table", backgrounds: int = 0):
        super().__init__()
        if transfer not in TRANSFERS:
            raise ValueError(f"PhysicsGenerator: transfer {transfer!r}; expected one of {', '.join(TRANSFERS)}.")
        if transfer == "ctf" and acquisition.microscope is None:
            raise ValueError(
                "PhysicsGenerator: transfer 'ctf' needs the optics of the microscope and the defocus of each particle."
            )
        self.box, self.acquisition, self.transfer = box, acquisition, "ctf" if transfer == "ctf" else "table"
        self.corrected = {"uncorrected": False, "corrected": True}.get(transfer)  # the CTF; None: not known
        half = box // 2 + 1
        self.register_buffer("T", torch.ones(RADII))  # at each spatial frequency; with a CTF its size is the envelope
        self.register_buffer("noise_power", torch.ones(box, box, half))  # measured, at each voxel of the box's rfft
        self.register_buffer("background", torch.zeros(backgrounds, box, box, box, dtype=torch.float16))
        self.register_buffer("trust", torch.ones(RADII))  # by which T was lowered: 0 where no signal is seen
        self.register_buffer("support", torch.ones(box, box, half))  # share of T that the measured power allows
        self.register_buffer("A", torch.ones(box, box, box))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("signal_power", torch.ones(()))  # mean over particles, for one_snr
        # 1 or 0: how the files were made, found from the particles
        self.register_buffer("wraps", torch.zeros(()))  # volumes wrap round at the faces of their box
        self.register_buffer("one_snr", torch.zeros(()))  # noise in proportion to each particle's signal
        self.register_buffer("standardised", torch.zeros(()))  # each volume has mean 0 and the same variance
        low, high = acquisition.tilt_range_deg or (-90.0, 90.0)
        # defocus (um), distance from the tilt axis (A), lowest and highest tilt (degrees)
        self.register_buffer("recordings", torch.tensor([0.0, 0.0, low, high]).repeat(REMEMBERED, 1))
        self._padded: dict[str, tuple] = {}  # what `_in_padded_box` made

    @property
    def padded(self) -> int:
        """Side of the box that noise and signal are made in: a third larger, so that nothing wraps round."""
        return self.box if self.wraps else 2 * math.ceil(2 * self.box / 3)

    @property
    def tilt_range_deg(self) -> tuple[float, float]:
        """Lowest and highest tilt, in degrees: the mean over recordings."""
        low, high = self.recordings[:, 2:].mean(0).tolist()
        return low, high

    def sample_noise(self, x: torch.Tensor, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Draw what differs between two generations from `x` (B, 1, D, D, D): a recording (B,), and noise.

        Noise is white, (B, P, P, P); or the number of an empty box and of one of its four orientations, (B, 2).
        """
        size, p, on = len(x), self.padded, {"generator": generator, "device": x.device}
        if len(self.background):
            which = torch.stack(
                [torch.randint(most, (size,), **on) for most in (len(self.background), len(ORIENTATIONS))], 1
            )
            return {"empty": which, "recording": torch.randint(REMEMBERED, (size,), **on)}
        noise = torch.randn((size, p, p, p), dtype=x.dtype, **on)
        return {"noise": noise, "recording": torch.randint(REMEMBERED, (size,), **on)}

    def transfer_table(
        self, recording: torch.Tensor, microscope: Microscope | None = None, defocus_um: torch.Tensor | None = None
    ) -> torch.Tensor:
        """T over spatial frequency: (1, RADII) of a table; over it and the tilt, (B, FINE_RADII, TILTS), of the CTF
        formula.

        Parameters
        ----------
        recording : Tensor (B,)
            What `sample_noise` drew.
        microscope, defocus_um
            In place of those of the training particles, with a CTF; defocus at zero tilt, (B,), in micrometres.
        """
        if self.transfer == "table":
            return self.T[None]
        scope = microscope or self.acquisition.microscope
        defocus, off_axis = self.recordings[recording, :2].unbind(1)
        defocus = defocus if defocus_um is None else defocus_um.to(defocus)
        tilt = torch.linspace(-90, 90, TILTS + 1, device=defocus.device)[:-1]
        at_tilt = defocus[:, None] + off_axis[:, None] * torch.sin(torch.deg2rad(tilt)) / 1e4  # (B, TILTS)
        voxel_A = self.acquisition.voxel_size_A
        curve = calculate_ctf_1d(
            defocus=at_tilt, voltage=scope.voltage_kV, spherical_aberration=scope.cs_mm,
            amplitude_contrast=scope.amplitude_contrast,
            phase_shift=scope.phase_shift_deg, pixel_size=voxel_A * 0.5 / CORNER, n_samples=FINE_RADII,
            oversampling_factor=1,
        )  # fmt: skip
        curve = curve.abs() if scope.correction == "phase_flip" else curve
        order = scope.angles_deg.argsort()
        angles, dose = scope.angles_deg[order], scope.pre_exposure_e_A2[order]
        nearest = (tilt.cpu()[:, None] - angles).abs().argmin(1)
        q = torch.linspace(0, CORNER, FINE_RADII, device=defocus.device) / voxel_A
        decay = dose_filter(dose[nearest].to(q)[:, None], q, scope.voltage_kV)  # (TILTS, FINE_RADII)
        sign = 1 if scope.protein == "bright" else -1
        return sign * (curve * decay).mT * self.envelope_curve()[:, None]

    def envelope_curve(self) -> torch.Tensor:
        """Amplitude (FINE_RADII,) that the estimated envelope leaves of a CTF."""
        place = torch.linspace(0, CORNER / 0.5 * (RADII - 1), FINE_RADII, device=self.T.device)
        index, weight = between(place, RADII, periodic=False)
        return (self.T.abs().clamp(min=1e-6).log()[index] * weight).sum(-1).exp()

    def wedges(self, recording: torch.Tensor, microscope: Microscope | None = None) -> torch.Tensor:
        """Share (B, V) of each voxel of the padded box's rfft that the tilt series of each recording reaches; (1, V)
        where all are alike.
        """
        ranges = self.recordings[:, 2:]
        if microscope is not None:
            ranges = ranges.new_tensor([[microscope.tilt_min_deg, microscope.tilt_max_deg]])
        kinds, kind = ranges.unique(dim=0, return_inverse=True)
        masks = torch.stack(
            [wedge(self.padded, low, high, device=recording.device).flatten() for low, high in kinds.tolist()]
        )
        return masks if len(masks) == 1 else masks[kind[recording]]

    def _in_padded_box(self, name: str) -> torch.Tensor:
        """The support of T, or for "noise_power" N, whose noise has the measured power in the box; (V,), at the voxels
        of the padded box's rfft.

        Made anew when what it follows from changes.
        """
        values = getattr(self, name)
        key = (values._version, values.data_ptr(), self.padded)
        if name not in self._padded or self._padded[name][0] != key:
            made = (coloured if name == "noise_power" else finer)(values.cpu(), self.padded)
            self._padded[name] = key, made.flatten().to(values.device)
        return self._padded[name][1]

    def forward(
        self,
        x: torch.Tensor,
        drawn: dict[str, torch.Tensor],
        microscope: Microscope | None = None,
        defocus_um: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Subtomograms (B, 1, D, D, D) from densities `x` and what `sample_noise` drew; the same draws give the same
        volumes.

        Parameters
        ----------
        microscope
            With a CTF: optics, doses and tilt range in place of those of the training particles. The noise changes as
            one over the root of the dose, as counted electrons do.
        defocus_um
            With a CTF: (B,) defocus at zero tilt in place of the training particles'.

        Raises
        ------
        ValueError
            When a microscope or defocus is asked of a generator whose T is a table.
        """
        if self.transfer == "table" and (microscope is not None or defocus_um is not None):
            raise ValueError(
                "This generator estimated its transfer function as a table: make one with transfer 'ctf' to set the "
                "microscope."
            )
        n, p = self.box, self.padded
        before = p // 2 - n // 2
        seen = self.wedges(drawn["recording"], microscope)
        signal = self.signal_spectrum(x, drawn, microscope, defocus_um, seen)
        strength = torch.ones(len(x), device=x.device)
        if self.one_snr:
            strength = (mean_square(signal) / self.signal_power).sqrt()
        if microscope is not None:
            strength = strength * (self.acquisition.microscope.total_dose_e_A2 / microscope.total_dose_e_A2) ** 0.5
        strength = strength[:, None, None, None]
        if "noise" in drawn:
            noise = torch.fft.rfftn(drawn["noise"] * strength, dim=(-3, -2, -1))
            signal = signal + scaled(noise, self._noise_amplitude(seen))
        inner = slice(before, before + n)
        volumes = torch.fft.irfftn(signal, s=(p, p, p), dim=(-3, -2, -1))[:, inner, inner, inner] * self.A
        if "empty" in drawn:
            turned = [self.background[i].flip(ORIENTATIONS[k]) for i, k in drawn["empty"].tolist()]
            volumes = volumes + strength * torch.stack(turned).to(volumes)
        volumes = (volumes + self.offset)[:, None]
        if self.standardised:
            axes = (1, 2, 3, 4)
            volumes = (volumes - volumes.mean(axes, keepdim=True)) / volumes.std(axes, keepdim=True, correction=0)
        return volumes

    def _noise_amplitude(self, seen: torch.Tensor) -> torch.Tensor:
        """N (V,) or, where tilt ranges differ, (B, V), for what `wedges` gave: the power measured is the mean over
        them.
        """
        amplitude = self._in_padded_box("noise_power")
        if len(seen) == 1:
            return amplitude
        kinds, count = self.recordings[:, 2:].unique(dim=0, return_counts=True)
        masks = [wedge(self.padded, low, high, device=self.T.device).flatten().square() for low, high in kinds.tolist()]
        mean = (torch.stack(masks) * (count / count.sum())[:, None]).sum(0)
        return amplitude * ((seen.square() + LEAST_WEDGE**2) / (mean + LEAST_WEDGE**2)).sqrt()

    def signal_spectrum(
        self,
        x: torch.Tensor,
        drawn: dict[str, torch.Tensor],
        microscope: Microscope | None = None,
        defocus_um: torch.Tensor | None = None,
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Transform (B, P, P, P // 2 + 1) of the noise-free subtomograms in the padded box; arguments as in `forward`,
        `seen` from `wedges`.
        """
        n, p = self.box, self.padded
        before = p // 2 - n // 2
        specimen = x[:, 0] if p == n else F.pad(x, [before, p - n - before] * 3, mode="replicate")[:, 0]
        seen = self.wedges(drawn["recording"], microscope) if seen is None else seen
        table = self.transfer_table(drawn["recording"], microscope, defocus_um).flatten(1)
        T = lookup(p, "radius" if self.transfer == "table" else "fine tilt", x.device)(table)
        support = self._in_padded_box("support")
        return scaled(torch.fft.rfftn(specimen, dim=(-3, -2, -1)), T * (seen * support))


def mean_square(spectrum: torch.Tensor) -> torch.Tensor:
    """Mean square (B,) of the volumes whose rfft is `spectrum` (B, P, P, P // 2 + 1)."""
    p = spectrum.shape[1]
    # all but two planes stand for their mirror images too
    weight = torch.full((p // 2 + 1,), 2.0, device=spectrum.device)
    weight[0] = 1
    if p % 2 == 0:
        weight[-1] = 1
    return (spectrum.abs().square() * weight).sum((1, 2, 3)) / p**6


def scaled(spectrum: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Spectra (B, P, P, P // 2 + 1) times real factors (B, V), (1, V) or (V,) of their voxels.

    As a product of real numbers: autograd would make the factor complex.
    """
    parts = torch.view_as_real(spectrum)
    return torch.view_as_complex(parts * factor.view(-1, *spectrum.shape[1:])[..., None])
