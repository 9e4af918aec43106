"""The second generator: a microscope operator with learned parts. Not in the paper.

y = A / w FT^-1 (M T FT[w x'] c + sqrt(l + (1 - l) W) N FT[w e] a): the density x, its structure varied, deformed and given neighbours to x', passes a transfer function T and the missing wedge M of the
tilt series, with a contrast c; noise e gets the power W that overlapping slices leave of white images, the colour N and an amplitude a; A is the amplitude that each voxel has, w the weight that a reconstruction by
Fourier insertion divides out. T and N are tables over spatial frequency,
tilt and angle to the tilt axis (`fourier_grid`), or T is the CTF formula of each particle times a learned envelope. Volumes are ``(B, 1, D, H, W)``.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch_ctf import calculate_ctf_1d

from .acquisition import Acquisition
from .convolution import ThinConv
from .fourier_grid import (
    AXIS_ANGLES,
    CORNER,
    FINE_RADII,
    RADII,
    TILTS,
    at_every_ky,
    between,
    coordinates,
    interpolation_weight,
    lookup,
    slice_noise,
    slice_transfer,
)
from .microscope.back_projection import transform_size
from .microscope.simulate import Microscope
from .microscope.transfer import dose_filter
from .neighbours import LIBRARY, crowd, draw_neighbours

INGREDIENTS = (
    "structure",  # a small residual network that also sees noise
    "deformation",  # smooth random displacements
    "neighbours",  # other particles beside this one
    "wedge",  # the missing wedge as a mask; without it T and N must learn it
    "transfer_spread",  # T differs from particle to particle (table), or the defocus does (CTF)
    "contrast",  # log-normal contrast of the particle
    "noise_colour",  # N over tilt and angle to the axis; without it one level for all frequencies
    "noise_amplitude",  # log-normal amplitude of the noise
    "voxel_amplitude",  # A: corners that not every tilt sees
)
SOURCES = {  # what differs between two generations from one density, as Figure 4 splits it
    "noise": ("noise", "amplitude"),
    "transfer": ("transfer", "contrast"),
    "structure": ("structure", "deformation"),
    "neighbours": ("neighbours",),
}
REMEMBERED = 64  # particles whose defocus and place a generator with a CTF keeps, to draw from
DEFORMATION_NODES = 4  # a side, of the random displacements
AMPLITUDE_NODES = 9  # a side, of the voxel amplitude


class PhysicsGenerator(nn.Module):
    """Density map to subtomogram by a microscope operator with learned parts.

    Parameters
    ----------
    box : voxels a side of the volumes.
    acquisition : voxel size, and what is known of the recording.
    transfer : "table", a learned T; or "ctf", each particle's CTF (torch-ctf) and dose decay times a learned envelope, which needs `acquisition.microscope`
        and defoci.
    without : names of INGREDIENTS that are switched off.
    periodic : subtomograms wrap round at the faces of their box, as a simulator's may that filters in it; recorded ones do not.
    one_snr : noise as strong as each particle's signal asks for one signal-to-noise ratio, as some simulators set it; in recorded ones all particles have the same.

    Raises
    ------
    ValueError
        For an unknown ingredient or transfer, or a CTF without its metadata.
    """

    def __init__(
        self,
        box: int,
        acquisition: Acquisition,
        *,
        transfer: str = "table",
        without: tuple[str, ...] = (),
        periodic: bool = False,
        one_snr: bool = False,
    ):
        super().__init__()
        unknown = set(without) - set(INGREDIENTS)
        if unknown:
            raise ValueError(f"PhysicsGenerator: unknown ingredient {', '.join(sorted(unknown))}; known are {', '.join(INGREDIENTS)}.")
        if transfer not in ("table", "ctf"):
            raise ValueError(f"PhysicsGenerator: transfer {transfer!r}; expected 'table' or 'ctf'.")
        if transfer == "ctf" and acquisition.microscope is None:
            raise ValueError("PhysicsGenerator: transfer 'ctf' needs the optics of the microscope and the defocus of each particle.")
        self.box, self.acquisition, self.transfer, self.parts = box, acquisition, transfer, set(INGREDIENTS) - set(without)
        self.periodic = periodic
        self.padded = box if periodic else 2 * math.ceil(2 * box / 3)  # a third larger: nothing wraps round
        self.samples = box if periodic else transform_size(box, box)  # of a reconstruction's transform, whose slices have this width
        self.one_snr = one_snr
        self.T = nn.Parameter(torch.ones(RADII, TILTS))  # over its level at the start, so that all of it learns at one rate
        self.T_spread = nn.Parameter(torch.zeros(RADII, TILTS))
        self.envelope = nn.Parameter(torch.linspace(-1.2, -2.5, RADII))  # log amplitude, with a CTF
        self.N = nn.Parameter(torch.zeros(RADII, TILTS))  # log amplitude
        self.N_axis = nn.Parameter(torch.zeros(RADII, AXIS_ANGLES))
        self.leak = nn.Parameter(torch.tensor(-9.0))  # logit of the noise power left in the wedge
        self.A = nn.Parameter(
            torch.zeros(AMPLITUDE_NODES, AMPLITUDE_NODES)
        )  # log amplitude over (z, x), coarse: a fine map would draw particles
        self.spread = nn.Parameter(torch.tensor([0.1, 0.05]).log())  # log s.d. of the log of contrast and of noise amplitude
        self.deformation = nn.Parameter(torch.tensor(0.2).log())  # log s.d. in voxels
        self.structure = nn.Sequential(
            ThinConv(2, 8, 3), nn.LeakyReLU(0.2), ThinConv(8, 8, 3), nn.LeakyReLU(0.2), ThinConv(8, 1, 3),
        )  # fmt: skip
        nn.init.zeros_(self.structure[-1].weight), nn.init.zeros_(self.structure[-1].bias)
        self.gate = nn.Parameter(torch.tensor(-1.1))  # logit of a neighbour's probability
        self.register_buffer(
            "offset", torch.zeros(())
        )  # so that the mean of all is 0: measured, since a critic sees no thousandth of a standard deviation
        self.register_buffer("level", torch.full((RADII,), 0.3))  # of T at the start
        self.register_buffer("signal_power", torch.ones(()))  # typical, at which the noise has the level that N says: for one_snr
        self.register_buffer("N_plane", torch.zeros(box, box))  # log amplitude over (kz, kx), finer than N: how slices overlap
        self.register_buffer("library", torch.zeros(LIBRARY, box, box, box))  # densities of training particles, background 0
        self.register_buffer("tilt_range_deg", torch.tensor(acquisition.tilt_range_deg or (-90.0, 90.0)))
        self.register_buffer("remembered", torch.zeros(REMEMBERED, 2))  # defocus in micrometres, distance from the tilt axis in angstrom

    def tables(self) -> list[nn.Parameter]:
        """Tables over Fourier space and spreads, which learn at a higher rate than the rest."""
        return [self.T, self.T_spread, self.envelope, self.N, self.N_axis, self.leak, self.spread, self.deformation, self.gate]

    def crowd(self, x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Densities of neighbours (B, P, P, P) around `x` (B, 1, D, D, D) in the padded box (`neighbours.crowd`)."""
        return crowd(x, drawn, self.library, self.gate, self.padded)

    def voxel_amplitude(self) -> torch.Tensor:
        """A over (z, x), (box, box): the same after half a turn about the tilt axis."""
        nodes = (self.A + self.A.flip(0, 1)) / 2
        return F.interpolate(nodes[None, None], (self.box, self.box), mode="bilinear", align_corners=False)[0, 0].exp()

    def sample_noise(self, x: torch.Tensor, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Draw all that differs between two generations from `x` (B, 1, D, D, D), by name; first dimension B."""
        b, n, p, nodes = len(x), self.box, self.padded, DEFORMATION_NODES

        def normal(*size: int) -> torch.Tensor:
            return torch.randn((b, *size), generator=generator, device=x.device, dtype=x.dtype)

        drawn = {"noise": normal(p, p, p), "amplitude": normal(), "contrast": normal(), "transfer": normal()}
        if self.transfer == "ctf":
            drawn["transfer"] = torch.randint(REMEMBERED, (b,), generator=generator, device=x.device)
        if "structure" in self.parts:
            drawn["structure"] = normal(1, *[-(-n // 2)] * 3)
        if "deformation" in self.parts:
            drawn["deformation"] = normal(3, nodes, nodes, nodes)
        if "neighbours" in self.parts:
            drawn["neighbours"] = draw_neighbours(x, generator)
        return drawn

    def transfer_table(
        self, drawn: torch.Tensor, microscope: Microscope | None = None, defocus_um: torch.Tensor | None = None
    ) -> torch.Tensor:
        """T over (radius, tilt): (B, RADII, TILTS) of a learned table, (B, FINE_RADII, TILTS) of the CTF formula.

        Parameters
        ----------
        drawn : (B,) what `sample_noise` drew as "transfer".
        microscope, defocus_um : in place of those of the training particles, with a CTF; defocus at zero tilt, (B,).
        """
        spread = "transfer_spread" in self.parts
        if self.transfer == "table":
            varied = self.T + (drawn[:, None, None] * self.T_spread if spread else torch.zeros_like(drawn)[:, None, None])
            return self.level[:, None] * varied
        scope = microscope or self.acquisition.microscope
        defocus, off_axis = self.remembered[drawn].unbind(1) if spread else self.remembered.mean(0).expand(len(drawn), 2).unbind(1)
        defocus = defocus if defocus_um is None else defocus_um.to(defocus)
        tilt = torch.linspace(-90, 90, TILTS + 1, device=defocus.device)[:-1]
        at_tilt = defocus[:, None] + off_axis[:, None] * torch.sin(torch.deg2rad(tilt)) / 1e4  # (B, TILTS)
        voxel_A = self.acquisition.voxel_size_A
        curve = calculate_ctf_1d(
            defocus=at_tilt, voltage=scope.voltage_kV, spherical_aberration=scope.cs_mm, amplitude_contrast=scope.amplitude_contrast,
            phase_shift=scope.phase_shift_deg, pixel_size=voxel_A * 0.5 / CORNER, n_samples=FINE_RADII, oversampling_factor=1,
        )  # fmt: skip
        curve = curve.abs() if scope.correction == "phase_flip" else curve
        order = scope.angles_deg.argsort()
        angles, dose = scope.angles_deg[order], scope.pre_exposure_e_A2[order]
        place = torch.searchsorted(angles, tilt.cpu()).clamp(1, len(angles) - 1)
        nearer = torch.where((tilt.cpu() - angles[place - 1]).abs() < (angles[place] - tilt.cpu()).abs(), place - 1, place)
        q = torch.linspace(0, CORNER, FINE_RADII, device=defocus.device) / voxel_A
        decay = dose_filter(dose[nearer].to(q)[:, None], q, scope.voltage_kV)  # (TILTS, FINE_RADII)
        sign = 1 if scope.protein == "bright" else -1
        return sign * (curve * decay).mT * self.envelope_curve()[:, None]

    def _transfer(self, drawn: torch.Tensor, microscope: Microscope | None, defocus_um: torch.Tensor | None) -> torch.Tensor:
        """T and wedge at the voxels of the padded box's transform, (B, V) or, where all particles have the same, (1, V); arguments as in `transfer_table`."""
        p, device = self.padded, self.T.device
        mask = torch.ones((), device=device)
        if "wedge" in self.parts:
            mask = slice_transfer(p, *self._tilts(microscope), self.samples, device).flatten()
        if self.transfer == "ctf":
            return lookup(p, "fine tilt", device)(self.transfer_table(drawn, microscope, defocus_um).flatten(1)) * mask
        at = lookup(p, "tilt", device)  # linear: of both tables, rather than of each particle's
        mean = at((self.level[:, None] * self.T).flatten()) * mask
        if "transfer_spread" not in self.parts:
            return mean[None]
        return mean + drawn[:, None] * (at((self.level[:, None] * self.T_spread).flatten()) * mask)

    def envelope_curve(self) -> torch.Tensor:
        """Amplitude (FINE_RADII,) that the learned envelope leaves of a CTF."""
        place = torch.linspace(0, CORNER / 0.5 * (RADII - 1), FINE_RADII, device=self.envelope.device)
        index, weight = between(place, RADII, periodic=False)
        return (self.envelope[index] * weight).sum(-1).exp()

    def _log_colour(self) -> torch.Tensor:
        """Log amplitude (P, P, P // 2 + 1) of the noise at the voxels of the padded box's transform, beyond what overlapping slices leave of white images."""
        p, device = self.padded, self.N.device
        if "noise_colour" not in self.parts:
            return self.N.mean().expand(p, p, p // 2 + 1)
        colour = lookup(p, "tilt", device)(self.N.flatten()) + lookup(p, "axis", device)(self.N_axis.flatten())
        return colour.view(p, p, -1) + at_every_ky(self.N_plane, p)

    def noise_table(self) -> torch.Tensor:
        """Amplitude of the noise over (radius, tilt), (RADII, TILTS), beyond what overlapping slices leave of white images: N with all its parts, geometric mean of the voxels about each node; NaN where there is none, near the origin."""
        p, device = self.padded, self.N.device
        at, inside = lookup(p, "tilt", device), (coordinates(p, device)[0] <= 0.5).flatten()
        weight, index = at.weight[inside].flatten(), at.index[inside].flatten()
        values = self._log_colour().flatten()[inside].repeat_interleave(at.weight.shape[1])
        total, share = (self.N.new_zeros(self.N.numel()).index_add_(0, index, v) for v in (weight * values, weight))
        return (total / share).exp().view_as(self.N)

    def deform(self, x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Displace the voxels of `x` (B, 1, D, D, D) smoothly, by `drawn` (B, 3, nodes, nodes, nodes) times the learned amplitude; to first order, which blurs nothing."""
        n = x.shape[-1]
        index, weight = between(torch.linspace(0, DEFORMATION_NODES - 1, n, device=x.device), DEFORMATION_NODES, periodic=False)
        rows = x.new_zeros(n, DEFORMATION_NODES).scatter_add_(1, index, weight.to(x))
        with torch.autocast(x.device.type, enabled=False):
            shift = torch.einsum("bcijk,zi,yj,xk->bczyx", drawn * self.deformation.exp(), rows, rows, rows)
        slopes = torch.gradient(x[:, 0], dim=(1, 2, 3))
        return x + sum(slope * shift[:, axis] for axis, slope in enumerate(slopes))[:, None]

    def vary(self, x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Add to `x` (B, 1, D, D, D) what the structure network makes of it and of noise `drawn` (B, 1, D / 2, D / 2, D / 2), at half the resolution."""
        coarse = F.avg_pool3d(x, 2, ceil_mode=True, count_include_pad=False)
        return x + F.interpolate(self.structure(torch.cat([coarse, drawn], 1)), x.shape[2:], mode="trilinear")

    def forward(
        self,
        x: torch.Tensor,
        drawn: dict[str, torch.Tensor],
        microscope: Microscope | None = None,
        defocus_um: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Subtomograms (B, 1, D, D, D) from densities `x` and what `sample_noise` drew; the same draws give the same volumes.

        Parameters
        ----------
        microscope : with a CTF: optics, doses and tilt range in place of those of the training particles. Noise is scaled as counted electrons are, by one over the root of the dose.
        defocus_um : with a CTF: (B,) defocus at zero tilt in place of the training particles'.

        Raises
        ------
        ValueError
            When a microscope or defocus is asked of a generator whose T is a table.
        """
        if self.transfer == "table" and (microscope is not None or defocus_um is not None):
            raise ValueError(
                "This generator learned its transfer function as a table: train one with transfer 'ctf' to set the microscope."
            )
        n, p = self.box, self.padded
        signal = self.signal_spectrum(x, drawn, microscope, defocus_um)
        colour = self._log_colour().exp()
        if "wedge" in self.parts:
            leak = torch.sigmoid(self.leak)
            colour = colour * (leak + (1 - leak) * slice_noise(p, *self._tilts(microscope), self.samples, x.device)).sqrt()
        amplitude = torch.ones_like(drawn["amplitude"])
        if "noise_amplitude" in self.parts:
            amplitude = log_normal(drawn["amplitude"], self.spread[1])
        if self.one_snr:
            amplitude = amplitude * (mean_square(signal) / self.signal_power).sqrt()
        if microscope is not None:
            amplitude = amplitude * (self.acquisition.microscope.total_dose_e_A2 / microscope.total_dose_e_A2) ** 0.5
        noise = torch.fft.rfftn(drawn["noise"] * self._weight(amplitude), dim=(-3, -2, -1))
        volumes = torch.fft.irfftn(signal + scaled(noise, colour.flatten()), s=(p, p, p), dim=(-3, -2, -1))
        before = p // 2 - n // 2
        inner = slice(before, before + n)
        return volumes[:, None, inner, inner, inner] * self.voxel_factor()[:, None, :] + self.offset

    def voxel_factor(self) -> torch.Tensor:
        """Factor (box, box) of each voxel over (z, x): A, over the weight of the reconstruction's interpolation."""
        factor = torch.ones(self.box, self.box, device=self.A.device)
        if "voxel_amplitude" in self.parts:
            factor = self.voxel_amplitude()
        return factor if self.periodic else factor / interpolation_weight(self.box, self.samples, factor.device)

    def signal_spectrum(
        self,
        x: torch.Tensor,
        drawn: dict[str, torch.Tensor],
        microscope: Microscope | None = None,
        defocus_um: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Transform (B, P, P, P // 2 + 1) of the noise-free subtomograms in the padded box; arguments as in `forward`."""
        parts, n, p = self.parts, self.box, self.padded
        if "neighbours" in parts:
            around = self.crowd(x, drawn["neighbours"])
        if "structure" in parts:
            x = self.vary(x, drawn["structure"])
        if "deformation" in parts:
            x = self.deform(x, drawn["deformation"])
        before = p // 2 - n // 2
        specimen = F.pad(x, [before, p - n - before] * 3, mode="replicate")[:, 0]  # what reaches the border goes on
        if "neighbours" in parts:
            specimen = specimen + around
        contrast = torch.ones_like(drawn["contrast"])
        if "contrast" in parts:
            contrast = log_normal(drawn["contrast"], self.spread[0])
        spectrum = torch.fft.rfftn(specimen * self._weight(contrast), dim=(-3, -2, -1))
        return scaled(spectrum, self._transfer(drawn["transfer"], microscope, defocus_um))

    def _weight(self, amplitude: torch.Tensor) -> torch.Tensor:
        """Factor, (B, P, 1, P) or (B, 1, 1, 1), of what enters the transform: the amplitudes (B,), and the weight that is divided out afterwards."""
        amplitude = amplitude[:, None, None, None]
        if self.periodic:
            return amplitude
        return amplitude * interpolation_weight(self.padded, self.samples, amplitude.device)[:, None]

    def _tilts(self, microscope: Microscope | None) -> tuple[float, float, float]:
        """Lowest and highest tilt and their step, of the training particles or of a microscope."""
        if microscope is not None:
            return microscope.tilt_min_deg, microscope.tilt_max_deg, microscope.tilt_step_deg
        low, high = self.tilt_range_deg.tolist()
        return low, high, self.acquisition.tilt_step_deg


def scaled(spectrum: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Complex numbers (B, P, Q, R) times real ones (V,) or (B or 1, V) of their voxels, flattened; four times as quick on a CPU as the product of both types."""
    both = torch.view_as_real(spectrum)
    return torch.view_as_complex((both.flatten(1) * factor.repeat_interleave(2, -1)).view_as(both))


def mean_square(spectrum: torch.Tensor) -> torch.Tensor:
    """Mean square (B,), about its mean, of real volumes whose rfft (B, P, P, P // 2 + 1) is given."""
    power = spectrum.real.square() + spectrum.imag.square()
    total = 2 * power.sum((1, 2, 3)) - power[..., 0].sum((1, 2)) - power[..., -1].sum((1, 2)) - power[:, 0, 0, 0]
    return total / spectrum.shape[1] ** 6


def log_normal(drawn: torch.Tensor, log_spread: torch.Tensor) -> torch.Tensor:
    """Log-normal numbers of mean 1 from standard normal ones; the log has the standard deviation exp(log_spread)."""
    sigma = log_spread.exp()
    return (sigma * drawn - sigma.square() / 2).exp()
