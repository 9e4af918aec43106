"""Where the particles of a tomogram are: by their structure alone, or from a label volume."""

import numpy as np
import pandas as pd
import scipy
import torch


def find_candidates(
    volume: np.ndarray,
    voxel_size_A: float,
    n: int,
    min_distance_A: float,
    *,
    border: int = 0,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """(n, 3) zyx voxels at which a tomogram has most structure, `border` voxels or more inside it.

    Structure is the absolute band-passed density (difference of Gaussians of an eighth and a quarter of
    `min_distance_A`), averaged locally: membranes and large complexes stand out. A pick is a candidate, not a
    particle of a known kind.
    """
    if n < 1 or not min_distance_A > 0:
        raise ValueError(f"find_candidates: n {n} and distance {min_distance_A} A, expected positive numbers")
    sigma = max(min_distance_A / (8 * voxel_size_A), 0.7)
    density = volume.astype(np.float32)
    band = scipy.ndimage.gaussian_filter(density, sigma) - scipy.ndimage.gaussian_filter(density, 2 * sigma)
    strength = scipy.ndimage.gaussian_filter(np.abs(band), sigma)
    maxima = strength == scipy.ndimage.maximum_filter(strength, size=3)
    inner = np.zeros(volume.shape, bool)
    inner[tuple(slice(border, max(s - border, border)) for s in volume.shape)] = True
    points = np.argwhere(maxima & inner)
    points = points[np.argsort(-strength[tuple(points.T)], kind="stable")]
    wanted = n if generator is None else 4 * n
    chosen: list[np.ndarray] = []
    for point in points:
        near = chosen and (((np.array(chosen) - point) ** 2).sum(1) * voxel_size_A**2).min() < min_distance_A**2
        if not near:
            chosen.append(point)
        if len(chosen) == wanted:
            break
    if len(chosen) < n:
        raise ValueError(
            f"find_candidates: {len(chosen)} candidates {min_distance_A:.0f} A apart in a tomogram of "
            f"{volume.shape}, {n} asked for; ask for fewer, a smaller box or a shorter distance"
        )
    if generator is not None:
        order = torch.randperm(len(chosen), generator=generator)[:n].numpy()
        chosen = [chosen[i] for i in order]
    return np.array(chosen)


def find_empty(
    volume: np.ndarray,
    picks: np.ndarray,
    side: int,
    most: int,
    *,
    border: int,
    generator: torch.Generator,
    tries: int = 40,
) -> np.ndarray:
    """(M, 3) zyx voxels, at most `most`, around which a cube of `side` voxels holds background and no pick.

    Points are drawn evenly. Cubes of a pick and of a point do not overlap. Of the points left, the denser half goes
    (particles that nobody picked), and so do those whose variance is not within a factor of two of the median (gold,
    and what lies outside the ice).

    Parameters
    ----------
    volume
        (Z, Y, X), protein bright.
    picks
        (N, 3) zyx voxels of every particle that is known.
    border
        Voxels at least to the faces of the tomogram.
    """
    extent = np.array(volume.shape) - 2 * border
    if (extent < 1).any():
        return np.empty((0, 3), int)
    drawn = torch.rand((tries * most, 3), generator=generator, dtype=torch.float64).numpy()
    points = border + (drawn * extent).astype(int)
    points = points[scipy.spatial.cKDTree(picks).query(points, p=np.inf)[0] >= side]
    if not len(points):
        return points
    density = volume.astype(np.float32) - volume.mean(dtype=np.float64)
    mean, square = (scipy.ndimage.uniform_filter(v, side)[tuple(points.T)] for v in (density, density**2))
    variance = square - mean**2
    alike = (variance > np.median(variance) / 2) & (variance < np.median(variance) * 2)
    return points[alike & (mean <= np.median(mean[alike]))][:most]


def label_centres(labels: np.ndarray, min_voxels: int = 1) -> pd.DataFrame:
    """Connected components (of 26 neighbours) of each value > 0: label, z, y, x (centre), voxels."""
    rows = []
    for value in np.unique(labels[labels > 0]):
        components, count = scipy.ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
        centres = scipy.ndimage.center_of_mass(components > 0, components, range(1, count + 1))
        rows += [(int(value), *c, int(s)) for c, s in zip(centres, sizes, strict=True) if s >= min_voxels]
    return pd.DataFrame(rows, columns=["label", "z", "y", "x", "voxels"])
