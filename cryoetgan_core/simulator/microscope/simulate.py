"""A tilt-series microscope: projections of a specimen in, subtomograms with a true missing wedge out.

Three stateless steps on tensors, in the order of nature: `projection.project` makes the exit projections of a specimen
in its pose, at every tilt; `record` gives each the transfer of its optics and dose; noise is added; `reconstruct`
weights and back-projects. The beam runs along z and meets the specimen's smallest z first: a particle of larger z lies
deeper and has more underfocus.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from . import transfer
from .back_projection import back_project
from .tilt_scheme import recording_order, tilt_angles, tilt_matrices

CORRECTIONS = ("none", "phase_flip", "wiener")
RANGES = {  # what a field may be, ends included
    "tilt_error_deg": (0, 10), "shift_error_A": (0, 1000), "voltage_kV": (60, 1200),
    "cs_mm": (0, 10),
    "amplitude_contrast": (0, 1), "phase_shift_deg": (-180, 180), "defocus_um": (-50, 50), "defocus_spread_um": (0, 20),
    "astigmatism_um": (0, 5), "astigmatism_angle_deg": (-180, 180), "ice_thickness_A": (0, 1e5), "field_A": (0, 1e6),
    "total_dose_e_A2": (0, 1000), "b_factor_A2": (0, 1e5), "camera_pixel_A": (0, 100), "point_spread_px": (0, 10),
    "detected": (0.01, 1),
    "inelastic_mean_free_path_A": (0, 1e5), "wiener_regularisation": (0, 1e3),
}  # fmt: skip


@dataclass(frozen=True)
class Microscope:
    """How a tilt series is recorded and reconstructed; the tilt axis is y. Angles in degrees, lengths as named."""

    tilt_min_deg: float = -60.0
    tilt_max_deg: float = 60.0
    tilt_step_deg: float = 3.0
    scheme: str = (
        "dose_symmetric"  # order of the tilts: "dose_symmetric" or "bidirectional" (`tilt_scheme.recording_order`)
    )
    # standard deviation of the true tilts from those assumed in the reconstruction, one draw a tilt and tomogram
    tilt_error_deg: float = 0.0
    shift_error_A: float = 0.0  # standard deviation of what alignment leaves, each axis, one draw a tilt and tomogram
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift_deg: float = 0.0  # of a phase plate
    defocus_um: float = 6.0  # mean, positive is underfocus
    defocus_spread_um: float = 0.5  # half width of the uniform spread between tomograms
    astigmatism_um: float = 0.0  # half the difference of the principal defoci
    astigmatism_angle_deg: float = 0.0  # of the larger one, from the x axis
    ice_thickness_A: float = 1500.0  # particles lie anywhere in it: their height adds to the defocus
    field_A: float = 8000.0  # side of the tomogram: distance from the tilt axis adds to the defocus of tilted images
    total_dose_e_A2: float = 100.0  # shared equally by the tilts
    b_factor_A2: float = 500.0  # envelope exp(-B q^2 / 4) of coherence and drift
    camera_pixel_A: float = 0.0  # the detector's own pixel at the specimen, for its MTF; 0: a perfect detector
    point_spread_px: float = 0.3  # standard deviation of its charge spread, in its own pixels
    detected: float = 0.85  # fraction of electrons that it counts (counting noise)
    inelastic_mean_free_path_A: float = (
        0.0  # energy filter: what scatters inelastically is lost (counting noise); 0: nothing is
    )
    correction: str = "none"  # of the CTF in the reconstruction: "none", "phase_flip" or "wiener"
    wiener_regularisation: float = 0.1  # 1 / SNR of one image in the Wiener filter
    dose_weighting: bool = False  # weigh the tilts by the dose filter of Grant & Grigorieff 2015 in the reconstruction
    protein: str = "bright"  # contrast of the reconstruction: "bright" or "dark" protein

    def __post_init__(self) -> None:
        for name, allowed in (("correction", CORRECTIONS), ("protein", ("bright", "dark"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Microscope: {name} {getattr(self, name)!r}; expected one of {', '.join(allowed)}.")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"Microscope: {name} is {getattr(self, name)}; expected {low:g} to {high:g}.")
        recording_order(self.angles_deg, self.scheme)

    @property
    def angles_deg(self) -> torch.Tensor:
        """Tilt angles (T,) from the lowest to the highest."""
        return tilt_angles(self.tilt_min_deg, self.tilt_max_deg, self.tilt_step_deg)

    @property
    def pre_exposure_e_A2(self) -> torch.Tensor:
        """Dose (T,) in e/A^2 that the specimen received before each tilt, in the order of `angles_deg`."""
        return recording_order(self.angles_deg, self.scheme) * (self.total_dose_e_A2 / len(self.angles_deg))


# S1 and S2 are the sets of the paper's Table 1. Optics of S1: those of the released simulator; tilts of Guo et al. 2018
# (doi 10.1016/j.cell.2017.12.030).
# S2: tilts of Noble et al. 2018 (doi 10.7554/eLife.34257); optics typical of single-particle tomography, they differ
# between its entries.
# modern: what a 300 kV microscope with an energy filter and a counting detector records today.
MICROSCOPES = {
    "S1": Microscope(-50.0, 70.0, 3.0, "bidirectional", defocus_um=6.0),
    "S2": Microscope(-60.0, 60.0, 3.0, "bidirectional", defocus_um=4.0, defocus_spread_um=1.0, b_factor_A2=300.0),
    "modern": Microscope(
        -60.0, 60.0, 3.0, "dose_symmetric", tilt_error_deg=0.1, shift_error_A=3.0, defocus_um=3.5,
        defocus_spread_um=1.5,
        total_dose_e_A2=120.0, b_factor_A2=100.0, camera_pixel_A=1.5, inelastic_mean_free_path_A=3000.0,
        correction="phase_flip",
        dose_weighting=True,
    ),
}  # fmt: skip


class Recordings(NamedTuple):
    """What differs between the recordings of n particles."""

    tomogram: torch.Tensor  # (n,) index of the tomogram
    position_A: torch.Tensor  # (n, 3) zyx, in the tomogram, from its centre
    defocus_um: torch.Tensor  # (T, n) at the particle, in each tilt
    tilts: torch.Tensor  # (T, n, 3, 3) true rotations of the specimen, acting on xyz
    shift_error_A: torch.Tensor  # (T, n, 2) yx, of the images

    def __getitem__(self, part: slice) -> "Recordings":  # type: ignore[override]
        return Recordings(
            self.tomogram[part],
            self.position_A[part],
            self.defocus_um[:, part],
            self.tilts[:, part],
            self.shift_error_A[:, part],
        )


def draw_recordings(microscope: Microscope, n: int, tomograms: int, generator: torch.Generator) -> Recordings:
    """Where `n` particles lie in `tomograms` tomograms, and how each of their tilts was recorded.

    Defocus, tilt errors and shift errors are drawn once a tomogram. A tilt error turns the particle; that it also moves
    particles far from the axis counts as part of the shift error. The defocus of a particle in a tilt is its tomogram's
    plus its depth there: x sin(tilt) + z cos(tilt), with x its distance from the tilt axis.
    """
    angles, kind = microscope.angles_deg.double(), dict(generator=generator, dtype=torch.float64)
    tomogram = torch.randint(tomograms, (n,), generator=generator)
    extent = torch.tensor([microscope.ice_thickness_A, microscope.field_A, microscope.field_A], dtype=torch.float64)
    position = extent * (torch.rand(n, 3, **kind) - 0.5)
    defocus = microscope.defocus_um + microscope.defocus_spread_um * (2 * torch.rand(tomograms, **kind) - 1)
    true = angles[:, None] + microscope.tilt_error_deg * torch.randn(len(angles), tomograms, **kind)
    shift = microscope.shift_error_A * torch.randn(len(angles), tomograms, 2, **kind)
    tilts = tilt_matrices(true)[:, tomogram]
    depth = (tilts[:, :, 2] * position.flip(-1)).sum(-1)
    return Recordings(tomogram, position, (defocus[tomogram] + depth / 1e4).float(), tilts, shift[:, tomogram].float())


def transfer_function(
    microscope: Microscope, defocus_um: torch.Tensor, image_shape: tuple[int, int], voxel_size_A: float
) -> torch.Tensor:
    """CTF, envelope, detector and dose decay of each tilt image, (T, B, h, w // 2 + 1), for defoci (T, B)."""
    q = transfer.frequencies(image_shape, voxel_size_A, defocus_um.device)
    dose = microscope.pre_exposure_e_A2.to(q.device)[:, None, None]
    envelope = transfer.b_factor_envelope(microscope.b_factor_A2, q) * transfer.dose_filter(
        dose, q, microscope.voltage_kV
    )
    if microscope.camera_pixel_A > 0:
        envelope = envelope * transfer.detector_mtf(q, microscope.camera_pixel_A, microscope.point_spread_px)
    return _ctf(microscope, defocus_um, image_shape, voxel_size_A) * envelope[:, None]


def record(
    projections: torch.Tensor, microscope: Microscope, defocus_um: torch.Tensor, voxel_size_A: float
) -> torch.Tensor:
    """Noise-free images (T, B, n, n) of exit projections (T, B, n, n), in their units, at defoci (T, B)."""
    shape = tuple(projections.shape[-2:])
    return torch.fft.irfft2(
        torch.fft.rfft2(projections) * transfer_function(microscope, defocus_um, shape, voxel_size_A), s=shape
    )


def reconstruct(
    images: torch.Tensor, microscope: Microscope, defocus_um: torch.Tensor, voxel_size_A: float, box: int
) -> torch.Tensor:
    """Subtomograms (B, box, box, box) from images (T, B, n, n): CTF correction, dose weighting, weighted
    back-projection, sign.

    Phase flipping gives every image the sign of its CTF. The Wiener filter is sum(h F) / (sum(h^2) + regularisation)
    with h the CTF, times the dose filter where dose weighting is on. Dose weighting alone filters every image by its
    dose, over the root mean square of the filters, which keeps the level of white noise (Grant & Grigorieff 2015, eq.
    9).
    """
    flip, wiener = microscope.correction == "phase_flip", microscope.correction == "wiener"
    dose = microscope.pre_exposure_e_A2.to(images.device)[:, None, None, None]

    def gain(shape: tuple[int, int], rfft: bool) -> torch.Tensor:
        """What an image is multiplied by, for the (r)FFT of `shape`."""
        factor = torch.ones((), device=images.device)
        if flip or wiener:
            curve = _ctf(microscope, defocus_um, shape, voxel_size_A, rfft)
            factor = torch.sign(curve) if flip else curve
        if microscope.dose_weighting:
            left = transfer.dose_filter(
                dose, transfer.frequencies(shape, voxel_size_A, images.device, rfft), microscope.voltage_kV
            )
            factor = factor * (left if wiener else left / left.square().mean(0).sqrt())
        return factor

    if flip or wiener or microscope.dose_weighting:
        shape = tuple(images.shape[-2:])
        images = torch.fft.irfft2(torch.fft.rfft2(images) * gain(shape, True), s=shape)
    volumes = back_project(
        images,
        microscope.angles_deg,
        box,
        weights=(lambda shape: gain(shape, False).square()) if wiener else None,
        regularisation=microscope.wiener_regularisation if wiener else 0.0,
    )
    return volumes if microscope.protein == "bright" else -volumes


def _ctf(
    microscope: Microscope, defocus_um: torch.Tensor, shape: tuple[int, int], voxel_size_A: float, rfft: bool = True
) -> torch.Tensor:
    return transfer.ctf(
        defocus_um, shape, voxel_size_A, voltage_kV=microscope.voltage_kV, cs_mm=microscope.cs_mm, rfft=rfft,
        amplitude_contrast=microscope.amplitude_contrast, phase_shift_deg=microscope.phase_shift_deg,
        astigmatism_um=microscope.astigmatism_um, astigmatism_angle_deg=microscope.astigmatism_angle_deg,
    )  # fmt: skip
