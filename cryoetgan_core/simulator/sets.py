"""The built-in data: domain X (density maps in known poses) and domain Y (simulated subtomograms), unpaired.

X and Y are drawn from separate random streams, so no instance of one shares its pose with the other; train and test
halves are separate streams too. Everything follows from the seed.
"""

import math
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..volumes.poses import rotations_of
from ..volumes.table import ParticleSet, particle_table
from .microscope.noise import contrast_per_unit, count_electrons, electrons_per_pixel, noise_scale
from .microscope.projection import project
from .microscope.simulate import Microscope, Recordings, draw_recordings, reconstruct, record
from .microscope.transfer import wavelength_A
from .specimen import ASSEMBLIES, pose_to_relion_angles, random_rotations, random_shifts, reference_map, rotate_volume
from .specimen.crowding import LEAST_DENSITY, Crowding, Neighbours, place_neighbours
from .specimen.render import parse_source

RESOLUTION_VOXELS = 2.2  # density maps are low-passed to this resolution, so that nothing is left at Nyquist
MARGIN = 0.25  # the tilt images reach this fraction of the subtomogram's box beyond it on each side
UPSAMPLE = 2  # Fourier upsampling before a reference is turned: 2 to 3 % relative error
MAX_SHIFT = 0.06  # particles sit off centre by up to this fraction of the box, as picks do
TOMOGRAMS = 8  # tomograms that the particles of a half come from
PILOT = 8  # particles of each class whose noise-free reconstructions set the noise level and tell the class's SNR
CHUNK = 16  # particles simulated at a time


def image_size(box: int) -> int:
    """Pixels a side of the tilt images around a subtomogram of `box` voxels: more than its diagonal in the plane of the
    tilts.
    """
    return box + 2 * math.ceil(MARGIN * box)


def class_references(
    classes: tuple[str, ...],
    box: int,
    voxel_size_A: float,
    maps: Mapping[str, str | Path] | None = None,
    resolution_voxels: float = RESOLUTION_VOXELS,
) -> dict[str, torch.Tensor]:
    """Reference density (d, d, d) of each class, centred, protein interior about 1, d as small as holds the molecule in
    every pose.

    A membrane is a disc wider than the diagonal of the box: it crosses the box from face to face in every pose.

    Parameters
    ----------
    maps
        class name to source (atomic model, density map or database entry, as `specimen.render.parse_source` reads it)
        in place of the built-in model.
    resolution_voxels
        to which the maps are low-passed.

    Raises
    ------
    ValueError
        If `maps` names a class that is not among `classes`, or a file cannot be read as what its name says.
    """
    unknown = set(maps or {}) - set(classes)
    if unknown:
        raise ValueError(f"A density is given for {sorted(unknown)}; the classes are {', '.join(classes)}.")
    return {
        name: _class_reference((maps or {}).get(name, name), name, box, voxel_size_A, resolution_voxels)
        for name in classes
    }


def _class_reference(
    source: str | Path, name: str, box: int, voxel_size_A: float, resolution_voxels: float
) -> torch.Tensor:
    source, options = parse_source(str(source))
    grid = {"voxel_size_A": voxel_size_A, "resolution_A": resolution_voxels * voxel_size_A} | options
    make = _embedded if source in ASSEMBLIES else reference_map
    if name != "membrane":
        made = make(source, **grid).clone()
        if not (made > LEAST_DENSITY).any():
            raise ValueError(
                f"{source}: too small for voxels of {voxel_size_A:g} A, which show nothing of it. If its header is "
                "wrong, give its voxel size behind its name, as in FILE@13.68."
            )
        return made
    rim = 3  # voxels over which the disc fades
    radius = math.sqrt(3) * (box / 2 + MAX_SHIFT * box) + rim
    disc = make(source, **grid, box=2 * math.ceil(radius))
    axis = torch.arange(len(disc)) - len(disc) // 2
    distance = (axis[:, None] ** 2 + axis**2).sqrt()
    return disc * (((radius - distance) / rim).clamp(0, 1) * math.pi / 2).sin() ** 2


@lru_cache(64)  # a notebook and its tests ask for the same ones again and again
def _embedded(name: str, **grid: float) -> torch.Tensor:
    """`reference_map` of a built-in class, not to be changed."""
    return reference_map(name, **grid)


# Fields of the microscope that every particle's row carries
RECORDED = (
    "tilt_min_deg", "tilt_max_deg", "tilt_step_deg", "scheme", "voltage_kV", "cs_mm",
    "amplitude_contrast", "phase_shift_deg",
    "astigmatism_um", "astigmatism_angle_deg", "b_factor_A2", "tilt_error_deg", "shift_error_A", "correction",
    "dose_weighting", "protein",
)  # fmt: skip
Poses = tuple[torch.Tensor, torch.Tensor]  # rotations (N, 3, 3) on xyz, shifts (N, 3) zyx in angstrom


def poses_of(table: pd.DataFrame, repeats: int = 1) -> Poses:
    """The poses that a table of `density_maps` or `subtomograms` tells, each `repeats` times."""
    shifts = torch.tensor(table[["shift_z_A", "shift_y_A", "shift_x_A"]].to_numpy(copy=True))
    return rotations_of(table).repeat_interleave(repeats, 0), shifts.repeat_interleave(repeats, 0)


def _posed(
    classes: tuple[str, ...],
    per_class: int,
    box: int,
    voxel_size_A: float,
    generator: torch.Generator,
    poses: Poses | None = None,
) -> tuple[pd.DataFrame, torch.Tensor, torch.Tensor]:
    """Poses, random unless given, of `per_class` instances of each class, class after class: table, rotations (N, 3,
    3), shifts (N, 3).
    """
    n = per_class * len(classes)
    if poses is None:
        poses = random_rotations(n, generator), random_shifts(n, MAX_SHIFT * box * voxel_size_A, generator)
    rotations, shifts = poses
    rot, tilt, psi = (angle.numpy() for angle in pose_to_relion_angles(rotations))
    table = particle_table(
        n, class_name=np.repeat(classes, per_class), particle=[f"{i:06d}" for i in range(n)], rot_deg=rot,
        tilt_deg=tilt, psi_deg=psi,
        shift_z_A=shifts[:, 0].numpy(), shift_y_A=shifts[:, 1].numpy(), shift_x_A=shifts[:, 2].numpy(),
    )  # fmt: skip
    return table, rotations, shifts


def density_maps(
    references: Mapping[str, torch.Tensor],
    per_class: int,
    box: int,
    voxel_size_A: float,
    generator: torch.Generator,
    poses: Poses | None = None,
) -> ParticleSet:
    """Domain X: `per_class` poses, random unless given, of every class's reference, (N, box, box, box), class after
    class.
    """
    table, rotations, shifts = _posed(tuple(references), per_class, box, voxel_size_A, generator, poses)
    volumes = [
        rotate_volume(
            reference, rotations[i : i + per_class], shifts[i : i + per_class], voxel_size_A, box=box, upsample=UPSAMPLE
        )
        for reference, i in zip(references.values(), range(0, len(table), per_class), strict=True)
    ]
    return ParticleSet(torch.cat(volumes).float().numpy(), table, voxel_size_A)


def densities_of(
    table: pd.DataFrame, references: Mapping[str, torch.Tensor], box: int, voxel_size_A: float
) -> torch.Tensor:
    """Density maps (N, D, D, D) of the classes and poses of a table."""
    rotations, shifts = poses_of(table)
    out = torch.empty(len(table), box, box, box)
    for name, reference in references.items():
        own = torch.from_numpy((table["class_name"] == name).to_numpy(copy=True))
        if own.any():
            out[own] = rotate_volume(
                reference, rotations[own], shifts[own], voxel_size_A, box=box, upsample=UPSAMPLE
            ).float()
    return out


def exit_projections(
    references: Mapping[str, torch.Tensor],
    names: list[str],
    rotations: torch.Tensor,
    shifts_A: torch.Tensor,
    neighbours: Neighbours,
    recordings: Recordings,
    size: int,
    voxel_size_A: float,
) -> torch.Tensor:
    """Tilt images (T, B, size, size) of particles and what lies around them, before the optics: sums of density along
    the beam.

    Parameters
    ----------
    names, rotations, shifts_A
        kind (B), pose (B, 3, 3) on xyz and shift (B, 3) zyx from the box's centre of every particle.
    neighbours
        their `owner` counts these B particles.
    """
    device = next(iter(references.values())).device
    images = torch.zeros(recordings.tilts.shape[0], len(names), size, size, device=device)
    for kind, (name, reference) in enumerate(references.items()):
        own = torch.tensor([i for i, n in enumerate(names) if n == name], dtype=torch.long)
        near = neighbours.kind == kind
        owner = torch.cat([own, neighbours.owner[near]])
        if len(owner) == 0:
            continue
        turns = torch.cat([rotations[own], neighbours.rotations[near]])
        centres = torch.cat([shifts_A[own], neighbours.shifts_A[near]]).flip(-1)
        tilts = recordings.tilts[:, owner]
        # (T, B, 2) yx
        on_detector = (tilts[:, :, :2] @ centres[:, :, None])[..., 0].flip(-1) + recordings.shift_error_A[:, owner]
        images.index_add_(1, owner.to(device), project(reference, tilts @ turns, on_detector / voxel_size_A, size))
    return images


def _check_noise(microscope: Microscope, snr: float | None, noise_std: float | None) -> None:
    """Raise ValueError for noise that cannot be: before anything is simulated."""
    if snr is not None and not snr > 0:
        raise ValueError(
            f"subtomograms: snr is {snr}; expected a positive ratio, or None to count electrons at the microscope's "
            "dose."
        )
    if snr is None and not microscope.total_dose_e_A2 > 0:
        raise ValueError(
            "subtomograms: snr is None, so electrons are counted, but total_dose_e_A2 is 0; give the microscope a dose."
        )
    if noise_std is not None and not noise_std > 0:
        raise ValueError(f"subtomograms: noise_std is {noise_std}; expected a positive level.")


def _check_margin(microscope: Microscope, box: int, voxel_size_A: float) -> None:
    """Warn where the CTF carries signal farther than the margin round the box: it would come back in on the other
    side.
    """
    defocus_A = (
        1e4 * (abs(microscope.defocus_um) + microscope.defocus_spread_um)
        + microscope.ice_thickness_A / 2
        + microscope.field_A / 2
    )
    reach_A = wavelength_A(microscope.voltage_kV) * defocus_A / (2 * voxel_size_A)
    margin_A = (image_size(box) - box) / 2 * voxel_size_A
    if reach_A > margin_A:
        warnings.warn(
            f"At {voxel_size_A:g} A the CTF of {microscope.defocus_um:g} um carries signal {reach_A:.0f} A sideways, "
            f"the margin round a box of {box} is "
            f"{margin_A:.0f} A: choose a larger box, and crop.",
            stacklevel=3,
        )


def subtomograms(
    references: Mapping[str, torch.Tensor],
    per_class: int,
    box: int,
    voxel_size_A: float,
    microscope: Microscope,
    generator: torch.Generator,
    *,
    snr: float | None,
    noise_std: float | None = None,
    crowding: Crowding | None = None,
    tomograms: int = TOMOGRAMS,
    prefix: str = "TS",
    poses: Poses | None = None,
) -> ParticleSet:
    """Domain Y: `per_class` simulated subtomograms of every class, (N, box, box, box), class after class.

    The table tells each particle's pose, tomogram, place in it, neighbours, defocus, dose, tilt range, noise level and
    its class's SNR. Projection, optics and reconstruction run on the device of the references; what is drawn is drawn
    by `generator`, on the CPU, and so is the same on any device.

    Parameters
    ----------
    snr
        signal-to-noise ratio of the reconstructions: variance over their voxels without noise, over that of the noise,
        mean over the set. One level of Gaussian noise serves the whole set, so that weakly scattering classes have the
        lower SNR, as in one tomogram. None: electrons are counted instead, at the microscope's dose.
    noise_std
        the level itself, a pixel of the tilt images, in place of the one that `snr` asks for: a test half shares its
        train half's.
    crowding
        neighbours and membranes beside the particles; default none. They count as signal in the SNR.
    tomograms, prefix
        how many the particles are spread over, and what their names start with.
    poses
        in place of random ones, class after class: what the microscope shows of densities in known poses.
    """
    _check_noise(microscope, snr, noise_std)
    _check_margin(microscope, box, voxel_size_A)
    table, rotations, shifts = _posed(tuple(references), per_class, box, voxel_size_A, generator, poses)
    n, size, device = len(table), image_size(box), next(iter(references.values())).device
    names = table["class_name"].tolist()
    recordings = draw_recordings(microscope, n, tomograms, generator)
    reach_A = math.sqrt(3) / 2 * box * voxel_size_A
    neighbours = place_neighbours(
        references, names, rotations, shifts, voxel_size_A, reach_A, crowding or Crowding(), generator
    )
    angles = microscope.angles_deg

    def images_of(index: torch.Tensor) -> torch.Tensor:
        """Noise-free tilt images of some particles."""
        position = torch.full((n,), -1).index_copy_(0, index, torch.arange(len(index)))
        mine = position[neighbours.owner] >= 0
        near = Neighbours(position[neighbours.owner[mine]], *(field[mine] for field in neighbours[1:]))
        chosen = [names[i] for i in index]
        exit_images = exit_projections(
            references, chosen, rotations[index], shifts[index], near, recordings[index], size, voxel_size_A
        )
        return record(exit_images, microscope, recordings.defocus_um[:, index].to(device), voxel_size_A)

    def volumes_of(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return reconstruct(images, microscope, recordings.defocus_um[:, index].to(device), voxel_size_A, box).cpu()

    contrast = contrast_per_unit(microscope.voltage_kV, voxel_size_A)
    electrons = electrons_per_pixel(
        microscope.total_dose_e_A2, angles, voxel_size_A, detected=microscope.detected,
        ice_thickness_A=microscope.ice_thickness_A,
        inelastic_mean_free_path_A=microscope.inelastic_mean_free_path_A,
    )  # fmt: skip
    # The pilot: what is signal and what is noise in the reconstructions of a few particles of each class.
    pilot = torch.cat([torch.arange(i, i + min(PILOT, per_class)) for i in range(0, n, per_class)])
    signal, noise = [], []
    for part in pilot.split(CHUNK):
        images = images_of(part)
        signal.append(volumes_of(images, part))
        white = torch.randn(images.shape, generator=generator)
        noise.append(
            volumes_of((white if snr else white / (contrast * electrons.sqrt())[:, None, None, None]).to(device), part)
        )
    signal, noise = torch.cat(signal), torch.cat(noise)
    level = noise_std or (noise_scale(signal, noise, snr) if snr else 1.0)
    volumes = []
    for part in torch.arange(n).split(CHUNK):
        images = images_of(part)
        if snr:
            images += level * torch.randn(images.shape, generator=generator).to(device)
        else:
            images = count_electrons(images.cpu(), electrons, contrast, generator).to(device)
        volumes.append(volumes_of(images, part))
    powers = [v.var((1, 2, 3), correction=0).view(len(references), -1).mean(1) for v in (signal, noise)]
    place = (
        recordings.position_A + torch.tensor([microscope.ice_thickness_A, microscope.field_A, microscope.field_A]) / 2
    )
    table = table.assign(
        tomogram=[f"{prefix}_{int(i) + 1:03d}" for i in recordings.tomogram],
        z_A=place[:, 0].numpy(), y_A=place[:, 1].numpy(), x_A=place[:, 2].numpy(),
        neighbours=torch.bincount(neighbours.owner, minlength=n).numpy(),
        defocus_um=recordings.defocus_um[angles.abs().argmin()].numpy(), dose_e_A2=microscope.total_dose_e_A2,
        snr=(powers[0] / (level**2 * powers[1])).repeat_interleave(per_class).numpy(),
        noise_std=level if snr else np.nan,
        **{name: getattr(microscope, name) for name in RECORDED},
    )  # fmt: skip
    return ParticleSet(torch.cat(volumes).numpy(), table, voxel_size_A)
