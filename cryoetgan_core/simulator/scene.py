"""A slab of ice with many molecules, its tilt series, and the tomogram that is reconstructed from it.

Volumes are ``(Z, Y, X)``, images ``(T, Y, X)``; even sizes, centres at index ``n // 2``. The beam runs along z, the
tilt axis is y. Positions are those of `volumes.table`: angstrom from the first voxel.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ..volumes.poses import pose_to_relion_angles, random_rotations, rotate_volume, rotations_of
from ..volumes.table import ANGLE_COLUMNS, CENTRED_COLUMNS, POSITION_COLUMNS, particle_table
from .microscope.noise import contrast_per_unit, count_electrons, electrons_per_pixel, noise_scale
from .microscope.projection import project
from .microscope.simulate import Microscope, record
from .microscope.tilt_scheme import tilt_matrices
from .sets import RESOLUTION_VOXELS
from .specimen.crowding import OVERLAP, radius_A
from .surroundings import Placed, add_to, stand, turned_out

TRIES = 500  # random places for a molecule before it is said that there is no room
CHUNK = 32  # molecules projected or turned at a time
PROJECTED = 32  # rows of a slab projected at a time
SHAPE_OF = 0.3  # density above which a voxel is a molecule's


@dataclass(frozen=True)
class TiltSeries:
    """Images of a slab, (T, Y, X) float32, protein dark as on a detector, and how they were recorded."""

    images: np.ndarray
    angles_deg: np.ndarray  # (T,), from the lowest
    defocus_um: float  # of the slab's centre
    pre_exposure_e_A2: np.ndarray  # (T,)
    microscope: Microscope
    voxel_size_A: float


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """A shape (Z, Y, X) of even sizes, or a ValueError."""
    if len(shape) != 3 or any(n < 2 or n % 2 for n in shape):
        raise ValueError(f"A tomogram of {' x '.join(map(str, shape))} voxels; expected three even sizes z, y, x.")
    return tuple(int(n) for n in shape)


def place(
    references: Mapping[str, torch.Tensor],
    counts: Mapping[str, int],
    shape: Sequence[int],
    voxel_size_A: float,
    generator: torch.Generator,
    tomogram: str = "scene",
    placed: Placed | None = None,
) -> pd.DataFrame:
    """Molecules in random poses at random places of a slab, none over another or over its edge: a table, a row each.

    Each is a ball of the radius that holds its density (`crowding.radius_A`); two centres come as near as OVERLAP of
    the sum of both radii. Where the slab has surroundings (`placed`), the molecules that stand in membranes come first;
    the others lie in the ice, off membranes and beads. The largest are placed first.

    Raises ValueError for a class without a reference, or where a molecule finds no place; the message says how many
    did.
    """
    shape = check_shape(shape)
    standing = [name for name, n in (placed.order.in_membranes if placed else {}).items() for _ in range(n)]
    unknown = sorted({*counts, *standing} - set(references))
    if unknown:
        raise ValueError(f"place: no density of {', '.join(unknown)}; there are {', '.join(references)}.")
    radius = {name: radius_A(references[name], voxel_size_A) for name in {*counts, *standing}}
    extent = np.array(shape) * voxel_size_A
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    most = sum(counts.values()) + len(standing)
    centres, radii, names, normals = np.empty((most, 3)), np.empty(most), [], []
    for n, name in enumerate(standing):
        found = stand(placed, radius[name], rng, centres[:n], radii[:n])
        if found is None:
            raise ValueError(f"place: room for {n} of {len(standing)} molecules in membranes: ask for fewer.")
        centres[n], radii[n] = found[0], radius[name]
        normals.append(found[1])
        names.append(name)
    for name in sorted(counts, key=lambda k: -radius[k]):
        r = radius[name]
        if (extent < 2 * r).any():
            raise ValueError(
                f"place: {name} is {2 * r:.0f} A wide and the tomogram {' x '.join(f'{e:.0f}' for e in extent)} A "
                "(z, y, x): make it larger."
            )
        if placed and 0 < placed.order.ice_A < 2 * r:
            raise ValueError(
                f"place: {name} is {2 * r:.0f} A wide and the ice {placed.order.ice_A:g} A: make it thicker."
            )
        for k in range(counts[name]):
            n = len(names)
            for _ in range(TRIES):
                centre = r + rng.random(3) * (extent - 2 * r)
                apart = np.square(centres[:n] - centre).sum(1)
                if (apart >= np.square(OVERLAP * (radii[:n] + r))).all() and (
                    placed is None or placed.leaves_room(centre, r)
                ):
                    break
            else:
                raise ValueError(
                    f"place: room for {k} of {counts[name]} {name} beside {n - k} others: ask for fewer, or for a "
                    "larger tomogram."
                )
            centres[n], radii[n] = centre, r
            names.append(name)
    rotations = random_rotations(len(names), generator)
    rotations[: len(normals)] = turned_out(np.array(normals).reshape(-1, 3), rng)
    angles = dict(zip(ANGLE_COLUMNS, (a.numpy() for a in pose_to_relion_angles(rotations)), strict=True))
    x_y_z = centres[:, ::-1]
    places = dict(zip(POSITION_COLUMNS, x_y_z.T, strict=True))
    centred = dict(zip(CENTRED_COLUMNS, (x_y_z - extent[::-1] / 2).T, strict=True))
    shifts = {f"shift_{axis}_A": np.zeros(len(names)) for axis in "xyz"}
    return particle_table(
        len(names), class_name=names, particle=[f"{i:06d}" for i in range(len(names))], tomogram=tomogram, **angles,
        **places, **shifts,
    ).assign(**centred)  # fmt: skip


def _turned(
    references: Mapping[str, torch.Tensor], table: pd.DataFrame, shape: tuple[int, int, int], voxel_size_A: float
) -> Iterator[tuple[int, np.ndarray, tuple[slice, ...], tuple[slice, ...]]]:
    """Of every molecule: its row, its density (d, d, d) in its pose and place, and what of both lies in the slab."""
    rotations = rotations_of(table)
    voxels = table[list(POSITION_COLUMNS[::-1])].to_numpy(float) / voxel_size_A  # zyx
    whole = np.round(voxels).astype(int)
    shifts = torch.from_numpy((voxels - whole) * voxel_size_A)
    for name, reference in references.items():
        rows = np.flatnonzero(table["class_name"] == name)
        for part in np.array_split(rows, math.ceil(len(rows) / CHUNK)) if len(rows) else ():
            for row, density in zip(
                part, rotate_volume(reference, rotations[part], shifts[part], voxel_size_A), strict=True
            ):
                first = whole[row] - len(reference) // 2
                low, high = np.maximum(first, 0), np.minimum(first + len(reference), shape)
                there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
                here = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
                yield row, density.numpy(), there, here


def specimen(
    references: Mapping[str, torch.Tensor],
    table: pd.DataFrame,
    shape: Sequence[int],
    voxel_size_A: float,
    placed: Placed | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slab without a microscope, (Z, Y, X) each: density (float32); which class a voxel is of (uint8; 0 none, else
    1, 2, ... in the order of the sorted names, then membrane and gold of `placed`); which molecule (int32; 0 none, else
    its row + 1).
    """
    shape = check_shape(shape)
    density = np.zeros(shape, np.float32)
    classes, molecules = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
    numbers = {name: k + 1 for k, name in enumerate(sorted(set(table["class_name"])))}
    for row, volume, there, here in _turned(references, table, shape, voxel_size_A):
        part = volume[here]
        density[there] += part
        inside = part > SHAPE_OF
        classes[there][inside] = numbers[table["class_name"].iloc[row]]
        molecules[there][inside] = row + 1
    if placed is not None:
        add_to(density, classes, placed, voxel_size_A, RESOLUTION_VOXELS * voxel_size_A, len(numbers) + 1)
    return density, classes, molecules


def tilt_series(
    references: Mapping[str, torch.Tensor],
    table: pd.DataFrame,
    shape: Sequence[int],
    voxel_size_A: float,
    microscope: Microscope,
    generator: torch.Generator,
    *,
    placed: Placed | None = None,
    snr: float | None = 0.1,
) -> TiltSeries:
    """Images of a slab at every tilt, protein dark.

    Each molecule is projected, and passes the optics at its own defocus: the slab's, plus its depth in each tilt, so
    that the defocus changes over a tilted image. The images show what is in the slab, and nothing beside it.

    Parameters
    ----------
    placed
        membranes and beads, which are projected together, at the defocus of the slab's centre.
    snr
        variance of the tomogram of the molecules, without noise, over that of the noise, of all voxels; None: electrons
        are counted.

    Raises ValueError for an SNR that is not positive.
    """
    shape = check_shape(shape)
    if snr is not None and not snr > 0:
        raise ValueError(f"tilt_series: snr is {snr}; expected a positive ratio, or None to count electrons.")
    angles = microscope.angles_deg
    kind = dict(generator=generator, dtype=torch.float64)
    true = angles.double() + microscope.tilt_error_deg * torch.randn(len(angles), **kind)
    moved = microscope.shift_error_A * torch.randn(len(angles), 2, **kind)  # yx, what alignment leaves
    defocus = microscope.defocus_um + microscope.defocus_spread_um * float(2 * torch.rand(1, **kind) - 1)
    tilts = tilt_matrices(true)
    centre = torch.tensor(shape[::-1], dtype=torch.float64) / 2 * voxel_size_A
    places = torch.from_numpy(table[list(POSITION_COLUMNS)].to_numpy(float, copy=True)) - centre  # xyz
    turned = (tilts[:, None] @ places[:, :, None])[..., 0]  # (T, N, 3)
    rotations, pixels = rotations_of(table), (turned[..., :2].flip(-1) + moved[:, None]) / voxel_size_A  # yx
    images = np.zeros((len(angles), *shape[1:]), np.float32)
    for name, reference in references.items():
        rows, d = np.flatnonzero(table["class_name"] == name), len(reference)
        for part in np.array_split(rows, math.ceil(len(rows) / CHUNK)) if len(rows) else ():
            whole = pixels[:, part].round()
            flat = project(reference, tilts[:, None] @ rotations[part], pixels[:, part] - whole, 2 * d)
            depth = (defocus + turned[:, part, 2] / 1e4).float()
            flat = record(flat, microscope, depth, voxel_size_A).numpy()
            corner = whole.long().numpy() + np.array(shape[1:]) // 2 - d  # of an image of 2 d pixels
            for t in range(len(angles)):
                for i in range(len(part)):
                    low = np.maximum(corner[t, i], 0)
                    high = np.minimum(corner[t, i] + 2 * d, shape[1:])
                    if (high <= low).any():
                        continue
                    y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
                    v, u = (slice(a, b) for a, b in zip(low - corner[t, i], high - corner[t, i], strict=True))
                    images[t, y, x] += flat[t, i, v, u]
    beside = np.zeros_like(images)
    if placed is not None and not placed.empty:
        slab = specimen(references, table, shape, voxel_size_A, placed)[0]
        slab -= specimen(references, table, shape, voxel_size_A)[0]
        flat = project_slab(slab, true.numpy(), moved.numpy() / voxel_size_A)[:, None]
        at = torch.full((len(angles), 1), defocus)
        beside = record(flat, microscope, at, voxel_size_A)[:, 0].numpy()
    if snr is None:
        images += beside
        ice_A = (placed.order.ice_A if placed else 0) or shape[0] * voxel_size_A
        electrons = electrons_per_pixel(
            microscope.total_dose_e_A2, angles, voxel_size_A, detected=microscope.detected,
            ice_thickness_A=ice_A, inelastic_mean_free_path_A=microscope.inelastic_mean_free_path_A,
        )  # fmt: skip
        contrast = contrast_per_unit(microscope.voltage_kV, voxel_size_A)
        images = count_electrons(torch.from_numpy(images)[:, None], electrons, contrast, generator)[:, 0].numpy()
    else:
        noise = torch.randn(images.shape, generator=generator).numpy()
        clean, alone = (torch.from_numpy(tomogram(i, angles.numpy(), shape[0]))[None] for i in (images, noise))
        images += beside + noise_scale(clean, alone, snr) * noise
    dose = microscope.pre_exposure_e_A2.numpy()
    return TiltSeries(-images, angles.numpy(), defocus, dose, microscope, voxel_size_A)


def project_slab(slab: np.ndarray, angles_deg: np.ndarray, shifts: np.ndarray) -> torch.Tensor:
    """Sums (T, Y, X) of a slab (Z, Y, X) along the beam at every tilt about y; images are moved by `shifts` (T, 2), yx
    pixels. Outside of the slab there is nothing.
    """
    depth, height, width = slab.shape
    along = torch.arange(math.ceil(math.hypot(depth, width)), dtype=torch.float64)
    along, u = torch.meshgrid(along - len(along) // 2, torch.arange(width, dtype=torch.float64), indexing="ij")
    images = torch.empty(len(angles_deg), height, width)
    for first in range(0, height, PROJECTED):
        rows = _finer(torch.from_numpy(slab[:, first : first + PROJECTED]).movedim(1, 0))[None]  # (1, rows, 2 Z, 2 X)
        for k, (angle, right) in enumerate(zip(np.deg2rad(angles_deg), shifts[:, 1], strict=True)):
            c, s = math.cos(angle), math.sin(angle)
            at = u - width // 2 - right
            x, z = at * c + along * s, along * c - at * s
            # of grid_sample: -1 and 1 are the edges; a voxel's two samples lie at it and half a voxel after it
            where = torch.stack([(2 * x + 0.5) / width, (2 * z + 0.5) / depth], -1)[None].float()
            summed = torch.nn.functional.grid_sample(rows, where, align_corners=False)[0].sum(1)
            images[k, first : first + PROJECTED] = summed
    f = torch.fft.fftfreq(height, dtype=torch.float64)[None, :, None]
    moved = torch.exp(-2j * math.pi * f * torch.from_numpy(np.asarray(shifts[:, 0], float))[:, None, None])
    return torch.fft.ifft(torch.fft.fft(images, dim=1) * moved.to(torch.complex64), dim=1).real


def _finer(slices: torch.Tensor) -> torch.Tensor:
    """Slices (B, Z, X) at twice the sampling: bilinear interpolation then blurs them little."""
    _, depth, width = slices.shape
    spectrum = torch.fft.fftshift(torch.fft.fft2(slices), dim=(1, 2))
    padded = torch.nn.functional.pad(spectrum, (width // 2, width // 2, depth // 2, depth // 2))
    return 4 * torch.fft.ifft2(torch.fft.ifftshift(padded, dim=(1, 2))).real


def tomogram(images: np.ndarray, angles_deg: np.ndarray, depth: int, rows: int = 64) -> np.ndarray:
    """Weighted back-projection (depth, Y, X) of images (T, Y, X), in their units a voxel; `rows` of y at a time.

    The ramp filter is exact for continuous angles; each image counts as the angle between its neighbours.
    """
    t, height, width = images.shape
    angles = torch.deg2rad(torch.as_tensor(np.asarray(angles_deg, float)))
    share = torch.gradient(angles)[0].abs() if t > 1 else torch.ones(1, dtype=torch.float64)
    padded = 2 * width
    ramp = torch.fft.rfftfreq(padded).abs()
    z = torch.arange(depth, dtype=torch.float64)[:, None] - depth // 2
    x = torch.arange(width, dtype=torch.float64) - width // 2
    out = np.empty((depth, height, width), np.float32)
    for start in range(0, height, rows):
        part = torch.from_numpy(np.ascontiguousarray(images[:, start : start + rows], np.float32))
        filtered = torch.fft.irfft(torch.fft.rfft(part, n=padded) * ramp, n=padded)[..., :width]
        lines = torch.nn.functional.pad(filtered.mT, (0, 0, 0, 2)).contiguous()  # (T, X + 2, rows); the last two are 0
        total = torch.zeros(depth * width, part.shape[1])
        for k in range(t):
            u = x * angles[k].cos() - z * angles[k].sin() + width // 2
            inside = (u >= 0) & (u <= width - 1)
            left = torch.where(inside, u.floor(), width).long().flatten()
            weight = torch.where(inside, u - u.floor(), 0.0).float().flatten()[:, None]
            total += float(share[k]) * ((1 - weight) * lines[k, left] + weight * lines[k, left + 1])
        out[:, start : start + rows] = total.view(depth, width, -1).movedim(-1, 1).numpy()
    return out


def halves(series: TiltSeries, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Tomograms (depth, Y, X) of every other image, from the first and from the second on: noise of their own, for
    denoisers of the Noise2Noise kind.
    """
    return tuple(tomogram(series.images[k::2], series.angles_deg[k::2], depth) for k in (0, 1))
