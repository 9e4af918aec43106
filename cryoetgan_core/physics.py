"""The second generator: a microscope operator with learned parts. Not in the paper.

y = A (M T FT[x'] c + sqrt(l + (1 - l) M) N FT[e] a): the density x, its structure varied and deformed to x', passes a transfer function T and the missing wedge M of the
tilt series, with a contrast c; noise e gets the colour N and an amplitude a; A is the amplitude that each voxel has. T and N are tables over spatial frequency,
tilt and angle to the tilt axis (`fourier_grid`), or T is the CTF formula of each particle times a learned envelope. Volumes are ``(B, 1, D, H, W)``.
"""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch_ctf import calculate_ctf_1d

from .convolution import HalvingConv, ThinConv
from .fourier_grid import (
    AXIS_ANGLES,
    CORNER,
    FINE_RADII,
    RADII,
    TILTS,
    between,
    coordinates,
    estimate_tilt_range,
    lookup,
    wedge,
    window,
    windowed_power,
)
from .microscope.back_projection import transform_size
from .microscope.simulate import Microscope
from .microscope.transfer import dose_filter
from .seeds import stream

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
NEIGHBOURS, TRIES, LIBRARY = 3, 4, 32  # most neighbours of a particle; places tried for each; densities kept to draw them from
GATE_TEMPERATURE = 0.3  # of the relaxed choice whether a neighbour is there (Maddison et al. 2017)
STARTING = 160  # generations by which the tables are started
AMPLITUDE_NODES = 9  # a side, of the voxel amplitude


@dataclass(frozen=True)
class Acquisition:
    """What is known of how the training subtomograms were recorded; all but the voxel size may be unknown.

    Attributes
    ----------
    tilt_range_deg : lowest and highest tilt; None: estimated from the subtomograms.
    microscope : optics and doses, for a generator with the CTF formula.
    defocus_um, off_axis_A : (N,) of the particles: defocus at zero tilt, and distance from the tilt axis (0 where unknown).
    """

    voxel_size_A: float
    tilt_range_deg: tuple[float, float] | None = None
    microscope: Microscope | None = None
    defocus_um: torch.Tensor | None = None
    off_axis_A: torch.Tensor | None = None

    @property
    def record(self) -> dict:
        """All but the particles' own values, as JSON types."""
        return {
            "voxel_size_A": self.voxel_size_A,
            "tilt_range_deg": self.tilt_range_deg and list(self.tilt_range_deg),
            "microscope": self.microscope and asdict(self.microscope),
        }

    @classmethod
    def from_record(cls, record: dict) -> "Acquisition":
        """What `record` told."""
        tilts, microscope = record["tilt_range_deg"], record["microscope"]
        return cls(record["voxel_size_A"], tilts and tuple(tilts), microscope and Microscope(**microscope))


class PhysicsGenerator(nn.Module):
    """Density map to subtomogram by a microscope operator with learned parts.

    Parameters
    ----------
    box : voxels a side of the volumes.
    acquisition : voxel size, and what is known of the recording.
    transfer : "table", a learned T; or "ctf", each particle's CTF (torch-ctf) and dose decay times a learned envelope, which needs `acquisition.microscope`
        and defoci.
    without : names of INGREDIENTS that are switched off.

    Raises
    ------
    ValueError
        For an unknown ingredient or transfer, or a CTF without its metadata.
    """

    def __init__(self, box: int, acquisition: Acquisition, *, transfer: str = "table", without: tuple[str, ...] = ()):
        super().__init__()
        unknown = set(without) - set(INGREDIENTS)
        if unknown:
            raise ValueError(f"PhysicsGenerator: unknown ingredient {', '.join(sorted(unknown))}; known are {', '.join(INGREDIENTS)}.")
        if transfer not in ("table", "ctf"):
            raise ValueError(f"PhysicsGenerator: transfer {transfer!r}; expected 'table' or 'ctf'.")
        if transfer == "ctf" and acquisition.microscope is None:
            raise ValueError("PhysicsGenerator: transfer 'ctf' needs the optics of the microscope and the defocus of each particle.")
        self.box, self.acquisition, self.transfer, self.parts = box, acquisition, transfer, set(INGREDIENTS) - set(without)
        self.padded = 2 * math.ceil(2 * box / 3)  # a third larger: nothing wraps round
        self.T = nn.Parameter(torch.ones(RADII, TILTS))  # over its level at the start, so that all of it learns at one rate
        self.T_spread = nn.Parameter(torch.zeros(RADII, TILTS))
        self.envelope = nn.Parameter(torch.linspace(-1.2, -2.5, RADII))  # log amplitude, with a CTF
        self.N = nn.Parameter(torch.zeros(RADII, TILTS))  # log amplitude
        self.N_axis = nn.Parameter(torch.zeros(RADII, AXIS_ANGLES))
        self.leak = nn.Parameter(torch.tensor(-7.0))  # logit of the noise power left in the wedge
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
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("level", torch.full((RADII,), 0.3))  # of T at the start
        self.register_buffer("library", torch.zeros(LIBRARY, box, box, box))  # densities of training particles, background 0
        self.register_buffer("tilt_range_deg", torch.tensor(acquisition.tilt_range_deg or (-90.0, 90.0)))
        self.register_buffer("remembered", torch.zeros(REMEMBERED, 2))  # defocus in micrometres, distance from the tilt axis in angstrom

    def tables(self) -> list[nn.Parameter]:
        """Tables over Fourier space and spreads, which learn at a higher rate than the rest."""
        return [self.T, self.T_spread, self.envelope, self.N, self.N_axis, self.leak, self.spread, self.deformation, self.gate]

    @torch.no_grad()
    def start_from(self, densities: torch.Tensor, subtomograms: torch.Tensor) -> None:
        """Set the wedge (where it is not known), N, the level of T, A and the spread of the noise from densities and subtomograms (N, D, D, D) in network units.

        Defoci of the particles are remembered.
        """
        acquisition, y, n = self.acquisition, subtomograms.cpu(), self.box
        if acquisition.tilt_range_deg is None:
            self.tilt_range_deg.copy_(torch.tensor(estimate_tilt_range(y)))
        if self.transfer == "ctf":
            if acquisition.defocus_um is None or not torch.isfinite(acquisition.defocus_um).all():
                raise ValueError(
                    "PhysicsGenerator: transfer 'ctf' needs the defocus of each particle; some have none. Use transfer 'table'."
                )
            chosen = torch.linspace(0, len(acquisition.defocus_um) - 1, REMEMBERED).round().long()
            off_axis = torch.zeros_like(acquisition.defocus_um) if acquisition.off_axis_A is None else acquisition.off_axis_A
            self.remembered.copy_(torch.stack([acquisition.defocus_um[chosen], off_axis[chosen]], 1))
        radius, power, x = coordinates(n)[0].flatten(), mean_power(y).clamp(min=1e-8), densities.cpu()
        reached = self._reached(n)
        keep = reached & (radius <= 0.5)
        self.library.copy_(self._compact(x))
        level, sure = self._first_level(x, y, power, reached)
        self.N.fill_(0.5 * float(power[keep].mean().log()))
        few = x[torch.linspace(0, len(x) - 1, min(STARTING, len(x))).round().long(), None]
        wanted = torch.sub(*self._centre_and_corners(y))
        for _ in range(3):
            # what the generator makes now, signal and noise apart, seen as the subtomograms are
            self.level.copy_(level), self.envelope.copy_(level.abs().clamp(min=1e-6).log())
            both, signal = [], []
            for i, part in enumerate(few.split(16)):
                drawn = self.sample_noise(part, stream(0, "start", i))
                both.append(self(part, drawn)[:, 0])
                signal.append(self(part, drawn | {"noise": torch.zeros_like(drawn["noise"])})[:, 0])
            signal_power, noise_power = (mean_power(v) for v in (torch.cat(signal), torch.cat(both) - torch.cat(signal)))
            ratio = (power - signal_power).clamp(min=0.1 * power) / noise_power.clamp(min=1e-12)
            if "noise_colour" in self.parts:
                self._add_to_noise(0.5 * ratio.log(), keep)
            else:
                self.N += 0.5 * float(ratio[keep].mean().log())
            made = torch.sub(*self._centre_and_corners(torch.cat(signal)))
            self.offset.sub_(torch.cat(both).mean())
            level = level * ((wanted / made.clamp(min=1e-12)).clamp(0.1, 10).sqrt() ** sure)
        white = torch.fft.rfftn(y, dim=(-3, -2, -1), norm="ortho").abs().square().flatten(1)[:, reached & (radius > 0.3) & (radius <= 0.5)]
        excess = float((white.mean(1) / white.mean()).var()) - 1 / white.shape[1]  # beyond that of finite numbers
        self.spread[1] = 0.5 * math.log(max(excess / 4, 1e-5))
        if "voxel_amplitude" in self.parts:
            self.A.copy_(self._corner_amplitude(y).log())

    def _reached(self, size: int) -> torch.Tensor:
        """Whether the tilt series reaches each voxel (V,) of an rfft of `size`^3; all of them where the wedge is no ingredient."""
        mask = wedge(size, *self.tilt_range_deg.tolist(), transform_size(size, size)).flatten() > 0.99
        return mask if "wedge" in self.parts else torch.ones_like(mask)

    def _compact(self, densities: torch.Tensor) -> torch.Tensor:
        """LIBRARY of the densities (N, D, D, D) that do not reach the faces of their box, less their background; zeros where none does."""
        faces = torch.stack([densities.select(axis, end) for axis in (1, 2, 3) for end in (0, -1)], 1).flatten(1)
        background = faces.median(1).values
        height = densities.flatten(1).amax(1) - background
        compact = torch.where(faces.amax(1) - background < 0.3 * height)[0]
        if len(compact) == 0:
            return torch.zeros_like(self.library)
        chosen = compact[torch.linspace(0, len(compact) - 1, LIBRARY).round().long()]
        return densities[chosen] - background[chosen, None, None, None]

    def _draw_neighbours(self, x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """What `crowd` takes for `x` (B, ...): uniform numbers for which and whether, and for each try one for the distance and three normal ones for the direction."""
        size = (len(x), NEIGHBOURS)
        kind = dict(generator=generator, device=x.device, dtype=x.dtype)
        uniform = torch.rand((*size, 2 + TRIES), **kind)
        places = torch.cat([uniform[..., 2:, None], torch.randn((*size, TRIES, 3), **kind)], -1)
        return torch.cat([uniform[..., :2], places.flatten(2)], -1)

    def crowd(self, x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Densities of neighbours (B, P, P, P) around `x` (B, 1, D, D, D) in the padded box, from `drawn` (B, NEIGHBOURS, 2 + 4 TRIES).

        Each is one of the library, there with the learned probability, at the first of TRIES random places in the ball round the box where it does not overlap the particle; left out
        where there is none. The gradient of whether it is there is that of the choice's relaxation.
        """
        n, p = self.box, self.padded
        before = (p - n) // 2
        body = x[:, 0] - x.flatten(1).median(1).values[:, None, None, None]
        body = body > 0.3 * body.flatten(1).amax(1)[:, None, None, None]
        which = (drawn[..., 0] * LIBRARY).long().clamp(max=LIBRARY - 1).tolist()
        tries = drawn[..., 2:].unflatten(-1, (TRIES, 4))
        far = 3**0.5 / 2 * n * tries[..., 0] ** (1 / 3)
        starts = (
            far[..., None] * tries[..., 1:] / tries[..., 1:].norm(dim=-1, keepdim=True)
        ).round().long() + before  # of its box in the padded one
        canvas = x.new_zeros(len(x), NEIGHBOURS, p, p, p)
        for i, places in enumerate(starts.tolist()):
            for k, candidates in enumerate(places):
                density = self.library[which[i][k]]
                for start in candidates:
                    to = tuple(slice(max(s, 0), min(s + n, p)) for s in start)
                    if any(t.stop <= t.start for t in to):
                        break  # out of sight: it overlaps nothing
                    canvas[(i, k, *to)] = density[tuple(slice(t.start - s, t.stop - s) for t, s in zip(to, start, strict=True))]
                    inner = canvas[i, k, before : before + n, before : before + n, before : before + n]
                    if float(inner[body[i]].sum()) <= 0.02 * float(density.sum()):
                        break
                    canvas[i, k] = 0
        u = drawn[..., 1].clamp(1e-6, 1 - 1e-6)
        relaxed = torch.sigmoid((self.gate + u.log() - (1 - u).log()) / GATE_TEMPERATURE)
        there = (relaxed > 0.5).to(x) + relaxed - relaxed.detach()
        return (there[..., None, None, None] * canvas).sum(1)

    def _first_level(
        self, x: torch.Tensor, y: torch.Tensor, power: torch.Tensor, reached: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Level (RADII,) of T that densities `x` and subtomograms `y` of a `power` (V,) tell, where `reached` (V,), and the weight (RADII,) in it of the second of two estimates.

        First: the mean of all subtomograms against the mean of all densities, both centred and of uniform poses; it has the sign, and serves at low spatial frequencies. Second: the power that half a box
        has in the centre beyond that in the corners, subtomograms against densities; noise is the same in both places. The two are weighed by their errors.
        """
        radial, mask, power_x = lookup(self.box, "radius"), window(self.box), windowed_power(x).flatten()
        mean_x, mean_y = (torch.fft.rfftn(v.mean(0) * mask, dim=(-3, -2, -1), norm="ortho").flatten() for v in (x, y))

        def shells(values: torch.Tensor) -> torch.Tensor:
            weighed = (values[:, None] * radial.weight)[reached]
            return torch.zeros(RADII).index_add_(0, radial.index[reached].flatten(), weighed.flatten())

        below = shells(mean_x.abs().square()).clamp(min=1e-12)
        by_mean = shells((mean_y * mean_x.conj()).real) / below
        noise_error = shells(mean_x.abs().square() * power / len(y)) / below.square()
        few_poses = by_mean.square() * shells(power_x / len(x)) / below  # the mean density is itself a finite sample
        (inner_x, outer_x), (inner_y, outer_y) = self._centre_and_corners(x), self._centre_and_corners(y)
        beyond_x = (inner_x - outer_x).clamp(min=1e-12)
        by_power = ((inner_y - outer_y) / beyond_x).clamp(1e-6, 1e2).sqrt()
        unsure = 0.01 * inner_y / beyond_x  # of by_power squared
        by_power_error = (0.1 * by_power).square() + (unsure / 2 / torch.maximum(by_power, unsure.sqrt())).square()
        resolved = torch.arange(RADII) > 2  # by half a box
        first, second = 1 / (noise_error + few_poses + 1e-8), resolved / (by_power_error + 1e-8)
        sign = 1.0 if float((by_mean * first).sum()) >= 0 else -1.0
        sure = second / (first + second)
        return (1 - sure) * by_mean + sure * sign * by_power, sure

    def _centre_and_corners(self, volumes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Power (RADII,) over spatial frequency of half a box in the centre, and the mean of those in the eight corners, seen through a window."""
        half = self.box // 2
        start, at = (self.box - half) // 2, lookup(half, "radius")
        weight = at.weight * self._reached(half)[:, None]
        count = torch.zeros(RADII).index_add_(0, at.index.flatten(), weight.flatten())

        def curve(power: torch.Tensor) -> torch.Tensor:
            total = torch.zeros(RADII).index_add_(0, at.index.flatten(), (power.flatten()[:, None] * weight).flatten())
            return total / count.clamp(min=1e-6)

        inner = slice(start, start + half)
        ends = (slice(0, half), slice(self.box - half, self.box))
        corners = torch.stack([windowed_power(volumes[:, i, j, k]) for i in ends for j in ends for k in ends]).mean(0)
        return curve(windowed_power(volumes[:, inner, inner, inner])), curve(corners)

    def _add_to_noise(self, log_amplitude: torch.Tensor, keep: torch.Tensor) -> None:
        """Add to N, by least squares, the log amplitude (V,) of the voxels that `keep` (V,) chooses."""
        nodes = RADII * TILTS
        design = torch.zeros(int(keep.sum()), nodes + RADII * AXIS_ANGLES, dtype=torch.float64)
        for offset, kind in ((0, "tilt"), (nodes, "axis")):
            at = lookup(self.box, kind)
            design.scatter_add_(1, at.index[keep] + offset, at.weight[keep].double())
        target = log_amplitude[keep].double()
        mean = target.mean()
        ridge = 0.3 * torch.eye(design.shape[1], dtype=torch.float64)  # what no voxel determines changes as the mean does
        fitted = torch.linalg.solve(design.T @ design + ridge, design.T @ (target - mean)).float()
        self.N += fitted[:nodes].view_as(self.N) + mean.float()
        self.N_axis += fitted[nodes:].view_as(self.N_axis)

    def _corner_amplitude(self, y: torch.Tensor) -> torch.Tensor:
        """Amplitude (AMPLITUDE_NODES, AMPLITUDE_NODES) of `y` over (z, x) outside the cylinder that every tilt sees, over that at its rim; 1 inside."""
        line = torch.arange(self.box, dtype=torch.float32) - (self.box - 1) / 2
        distance = (line[:, None] ** 2 + line**2).sqrt() / (self.box / 2)
        amplitude = y.square().mean((0, 2)).sqrt()
        amplitude = amplitude / amplitude[(distance > 0.8) & (distance < 1)].mean()
        amplitude = torch.where(distance > 1, (amplitude + amplitude.flip(0, 1)) / 2, torch.ones_like(amplitude))
        return F.adaptive_avg_pool2d(amplitude[None], AMPLITUDE_NODES)[0]

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
            drawn["structure"] = normal(1, n, n, n)
        if "deformation" in self.parts:
            drawn["deformation"] = normal(3, nodes, nodes, nodes)
        if "neighbours" in self.parts:
            drawn["neighbours"] = self._draw_neighbours(x, generator)
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

    def envelope_curve(self) -> torch.Tensor:
        """Amplitude (FINE_RADII,) that the learned envelope leaves of a CTF."""
        place = torch.linspace(0, CORNER / 0.5 * (RADII - 1), FINE_RADII, device=self.envelope.device)
        index, weight = between(place, RADII, periodic=False)
        return (self.envelope[index] * weight).sum(-1).exp()

    def noise_table(self) -> torch.Tensor:
        """N, amplitude of the noise over (radius, tilt), averaged over the angle to the tilt axis: (RADII, TILTS)."""
        return (self.N + self.N_axis.mean(1, keepdim=True)).exp()

    def deform(self, x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Displace the voxels of `x` (B, 1, D, D, D) smoothly, by `drawn` (B, 3, nodes, nodes, nodes) times the learned amplitude."""
        n = x.shape[-1]
        shift = F.interpolate(drawn, (n, n, n), mode="trilinear", align_corners=True) * (2 / n * self.deformation.exp())
        line = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) * 2 / n - 1
        z, y, x_axis = torch.meshgrid(line, line, line, indexing="ij")
        grid = torch.stack([x_axis, y, z], -1) + shift.permute(0, 2, 3, 4, 1)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

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
        parts, n, p = self.parts, self.box, self.padded
        if "neighbours" in parts:
            around = self.crowd(x, drawn["neighbours"])
        if "structure" in parts:
            x = x + self.structure(torch.cat([x, drawn["structure"]], 1))
        if "deformation" in parts:
            x = self.deform(x, drawn["deformation"])
        before = (p - n) // 2
        edge = (torch.arange(p, device=x.device) - before).clamp(0, n - 1)  # what reaches the border goes on
        specimen = x[:, 0][:, edge][:, :, edge][..., edge]
        if "neighbours" in parts:
            specimen = specimen + around
        signal = torch.fft.rfftn(specimen, dim=(-3, -2, -1))
        table = self.transfer_table(drawn["transfer"], microscope, defocus_um).flatten(1)
        transfer = lookup(p, "tilt" if self.transfer == "table" else "fine tilt", x.device)(table).view(-1, *signal.shape[1:])
        colour = lookup(p, "tilt", x.device)(self.N.flatten()) + lookup(p, "axis", x.device)(self.N_axis.flatten())
        colour = colour.view(signal.shape[1:]).exp()
        if "wedge" in parts:
            tilts = self.tilt_range_deg.tolist() if microscope is None else (microscope.tilt_min_deg, microscope.tilt_max_deg)
            reached = wedge(p, *tilts, transform_size(n, n), x.device)
            leak = torch.sigmoid(self.leak)
            transfer, colour = transfer * reached, colour * (leak + (1 - leak) * reached).sqrt()
        if "contrast" in parts:
            transfer = transfer * log_normal(drawn["contrast"], self.spread[0])[:, None, None, None]
        varied = "noise_amplitude" in parts
        amplitude = log_normal(drawn["amplitude"], self.spread[1]) if varied else torch.ones_like(drawn["amplitude"])
        if microscope is not None:
            amplitude = amplitude * (self.acquisition.microscope.total_dose_e_A2 / microscope.total_dose_e_A2) ** 0.5
        noise = torch.fft.rfftn(drawn["noise"], dim=(-3, -2, -1)) * colour
        volumes = torch.fft.irfftn(signal * transfer + noise * amplitude[:, None, None, None], s=(p, p, p), dim=(-3, -2, -1))
        inner = slice(before, before + n)
        volumes = volumes[:, inner, inner, inner]
        if "voxel_amplitude" in parts:
            volumes = volumes * self.voxel_amplitude()[:, None, :]
        return volumes[:, None] + self.offset


def mean_power(volumes: torch.Tensor) -> torch.Tensor:
    """Mean power (V,) of volumes (N, D, D, D) at the voxels of their rfft, without a window."""
    return torch.fft.rfftn(volumes, dim=(-3, -2, -1), norm="ortho").abs().square().mean(0).flatten()


def log_normal(drawn: torch.Tensor, log_spread: torch.Tensor) -> torch.Tensor:
    """Log-normal numbers of mean 1 from standard normal ones; the log has the standard deviation exp(log_spread)."""
    sigma = log_spread.exp()
    return (sigma * drawn - sigma.square() / 2).exp()


class Restorer(nn.Module):
    """The way back, subtomogram to density: a learned filter over (radius, tilt), then a small residual network. A denoiser."""

    def __init__(self, box: int, width: int = 8):
        super().__init__()
        self.box, self.padded = box, 2 * math.ceil(2 * box / 3)
        start = 0.5 * torch.exp(-((torch.arange(RADII) / RADII * 3) ** 2) / 2)  # a low-pass
        self.filter = nn.Parameter(start[:, None].repeat(1, TILTS))
        self.network = nn.Sequential(
            ThinConv(2, width, 3), nn.LeakyReLU(0.2), ThinConv(width, width, 3), nn.LeakyReLU(0.2), ThinConv(width, 1, 3),
        )  # fmt: skip
        nn.init.zeros_(self.network[-1].weight), nn.init.zeros_(self.network[-1].bias)

    def tables(self) -> list[nn.Parameter]:
        """Parameters that learn at the rate of the tables."""
        return [self.filter]

    def sample_noise(self, y: torch.Tensor, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Nothing: the way back is deterministic."""
        return {}

    def forward(self, y: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """Density (B, 1, D, D, D) in network units from subtomograms `y` (B, 1, D, D, D)."""
        n, p = self.box, self.padded
        spectrum = torch.fft.rfftn(F.pad(y[:, 0], [0, p - n] * 3), dim=(-3, -2, -1))
        spectrum = spectrum * lookup(p, "tilt", y.device)(self.filter.flatten()).view(spectrum.shape[1:])
        smooth = torch.fft.irfftn(spectrum, s=(p, p, p), dim=(-3, -2, -1))[:, None, :n, :n, :n]
        return smooth + self.network(torch.cat([smooth, y], 1))


class PatchCritic(nn.Module):
    """Score patches of a volume: three conv 4^3 of stride 2 (w, 2w, 4w) and one of 3^3, leaky ReLU 0.2, no norm."""

    def __init__(self, width: int = 16):
        super().__init__()
        channels = [1, width, 2 * width, 4 * width]
        layers = [m for a, b in zip(channels, channels[1:], strict=False) for m in (HalvingConv(a, b), nn.LeakyReLU(0.2))]
        self.layers = nn.Sequential(*layers, nn.Conv3d(channels[-1], 1, 3, padding=1))

    def power_iteration(self) -> None:
        """Nothing: no layer is spectrally normalised."""

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """Scores (B, 1, d, h, w) of the patches of `y` (B, 1, D, H, W), d = D/8."""
        return self.layers(y)
