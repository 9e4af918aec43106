"""Pictures of the specimen and the microscope: shell curves, and one particle through every stage."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from .artefacts import COLUMN_WIDTH_IN, PAGE_WIDTH_IN
from .panels import _grid, _scale_bar, _show, contact_sheet


def plane_spectrum(volume: torch.Tensor) -> np.ndarray:
    """Power (n, n) of a volume (n, n, n) over (kz, kx), mean over the ky along the tilt axis, zero frequency in the
    middle.
    """
    return torch.fft.fftshift(torch.fft.fftn(volume).abs().square().mean(1)).numpy()


def density_sheet(volumes: Mapping[str, torch.Tensor], voxel_size_A: float, columns: int = 11) -> Figure:
    """Slices across (xy) and along (xz) z of densities (n, n, n) by name, `columns` side by side."""
    names, groups = list(volumes), []
    for part in (names[i : i + columns] for i in range(0, len(names), columns)):
        cut = torch.stack([volumes[n] for n in part])
        middle = cut.shape[-1] // 2
        rows = [("xy", cut[:, None, middle].numpy(), True), ("xz", cut[:, None, :, middle].numpy(), True)]
        groups.append((part, voxel_size_A, rows))
    return contact_sheet(groups)


def shell_curves(
    curves: Mapping[str, np.ndarray], voxel_size_A: float, label: str = "Fourier shell correlation"
) -> Figure:
    """Curves (n // 2 + 1,) over shells of a box of n voxels, against resolution."""
    figure, axis = plt.subplots(figsize=(COLUMN_WIDTH_IN, 2.2), layout="constrained")
    for name, curve in curves.items():
        frequency = np.arange(len(curve)) / (2 * (len(curve) - 1) * voxel_size_A)
        axis.plot(frequency, curve, lw=1, label=name)
    axis.axhline(0.5, color="0.6", lw=0.6, ls=":")
    axis.set(xlabel="spatial frequency (1/Å)", ylabel=label, ylim=(-0.1, 1.03), xlim=(0, None))
    above = axis.secondary_xaxis("top", functions=(lambda q: q, lambda q: q))
    ticks = [r for r in (200, 100, 60, 40, 30) if 1 / r <= 0.5 / voxel_size_A]
    above.set_xticks([1 / r for r in ticks], [f"{r}" for r in ticks])
    above.set_xlabel("resolution (Å)")
    axis.legend(frameon=False, loc="lower left")
    return figure


def walk(
    atoms_zyx_A: torch.Tensor,
    density: torch.Tensor,
    projections: torch.Tensor,
    optics: torch.Tensor,
    noisy: torch.Tensor,
    clean_volume: torch.Tensor,
    noisy_volume: torch.Tensor,
    transfer: Sequence[tuple[str, np.ndarray, np.ndarray]],
    shown: Sequence[int],
    angles_deg: torch.Tensor,
    voxel_size_A: float,
) -> Figure:
    """One particle from atoms to subtomogram.

    Parameters
    ----------
    atoms_zyx_A
        (n, 3), in the particle's pose.
    density, clean_volume, noisy_volume
        (box, box, box): in the same pose, reconstructed without and with noise.
    projections, optics, noisy
        (T, m, m) tilt images: exit projections, after the optics, with noise.
    transfer
        (label, frequencies, factor) curves of tilt images.
    shown
        three indices of tilts.
    """
    cell, label, gap = 1.06, 0.4, 0.2
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, 4 * (cell + gap) + 0.12))
    width, height = figure.get_size_inches()
    middle = len(density) // 2

    def block(
        row: int,
        column: int,
        images: Sequence[np.ndarray],
        titles: Sequence[str],
        limits: tuple[float, float],
        **options: object,
    ) -> list:
        axes = _grid(figure, 1, len(images), label + column * cell, gap + row * (cell + gap), cell)[0]
        shown_images = [_show(axis, image, limits, **options) for axis, image in zip(axes, images, strict=True)]
        for axis, title in zip(axes, titles, strict=True):
            axis.set_title(title, fontsize=6, pad=2)
        if not options:
            _scale_bar(axes[0], voxel_size_A)
        return [axes, shown_images[-1]]

    def cuts(volume: torch.Tensor) -> list[np.ndarray]:
        return [volume[middle].numpy(), volume[:, middle].numpy()]

    def grey(values: torch.Tensor, deviations: float = 3.0) -> tuple[float, float]:
        return -deviations * float(values.std()), deviations * float(values.std())

    atoms = _grid(figure, 1, 1, label, gap, cell)[0, 0]
    step, half = max(1, len(atoms_zyx_A) // 4000), middle * voxel_size_A
    atoms.scatter(
        atoms_zyx_A[::step, 2],
        atoms_zyx_A[::step, 1],
        s=0.2,
        lw=0,
        c=atoms_zyx_A[::step, 0],
        cmap="viridis",
        rasterized=True,
    )
    atoms.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
    atoms.set_title("atoms, along the beam", fontsize=6, pad=2)
    tilts = [f"{float(angles_deg[i]):+.0f}°" for i in shown]
    block(0, 1, cuts(density), ["density, xy", "density, xz"], (0.0, float(density.max())))
    block(
        0,
        3,
        [projections[i].numpy() for i in shown],
        [f"projection, {t}" for t in tilts],
        (0.0, float(projections.max())),
    )
    y = height - gap - 2 * cell - gap + 0.32
    curve = figure.add_axes((label / width, y / height, 2.6 * cell / width, (cell - 0.32) / height))
    for name, q, factor in transfer:
        curve.plot(q, factor, lw=0.8, label=name)
    curve.axhline(0, color="0.7", lw=0.5)
    curve.set_xlabel("spatial frequency (1/Å)", fontsize=6, labelpad=1)
    curve.tick_params(labelsize=5, length=2, pad=1)
    curve.set_title("transfer of a tilt image: CTF, envelope, dose", fontsize=6, pad=2)
    curve.legend(frameon=False, fontsize=5, loc="lower left")
    block(1, 3, [optics[i].numpy() for i in shown], [f"after the optics, {t}" for t in tilts], grey(optics, 4.0))
    block(2, 3, [noisy[i].numpy() for i in shown], [f"recorded, {t}" for t in tilts], grey(noisy))
    volumes = (density, clean_volume, noisy_volume)
    powers = [np.log10(power / power.max() + 1e-8) for power in map(plane_spectrum, volumes)]
    titles = ("|F|², density", "|F|², no noise", "|F|², subtomogram")
    axes, image = block(2, 0, powers, titles, (-6.0, 0.0), cmap="magma")
    axes[0].set_ylabel("$k_z$ up, $k_x$ right", fontsize=6)
    block(3, 0, cuts(clean_volume), ["reconstructed, no noise, xy", "xz"], grey(clean_volume))
    block(3, 3, cuts(noisy_volume), ["subtomogram, xy", "subtomogram, xz"], grey(noisy_volume))
    x, y = (label + 2.15 * cell) / width, (height - 4 * (cell + gap)) / height
    bar = figure.colorbar(image, cax=figure.add_axes((x, y + 0.02 / height, 0.08 / width, 0.92 * cell / height)))
    bar.set_label("log₁₀ |F|² / max", fontsize=6)
    bar.ax.tick_params(labelsize=5, length=2)
    return figure
