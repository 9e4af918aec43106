"""Look through particles in a notebook: three orthogonal slices, sets one below the other, real beside generated."""

import io
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import Dropdown, Image, IntSlider, VBox
from matplotlib.figure import Figure

from ..volumes.table import ParticleSet

EVERY = "all classes"


def slices(sets: Mapping[str, ParticleSet], class_name: str, particle: int, z: int, y: int, x: int) -> Figure:
    """The xy, xz and yz slices at voxel z, y, x of one particle of each set: the `particle`-th of its class.

    Grey runs from the 0.5th to the 99.5th percentile of each particle. Volumes on disk are read one at a time.
    """
    figure, axes = plt.subplots(len(sets), 3, figsize=(6, 2.1 * len(sets)), squeeze=False, layout="constrained")
    for row, (name, particles) in zip(axes, sets.items(), strict=True):
        of_class = np.flatnonzero((particles.table["class_name"] == class_name) | (class_name == EVERY))
        for axis in row:
            axis.set(xticks=[], yticks=[])
        if len(of_class) == 0:
            row[0].set_title(f"{name}: none of this class", loc="left", fontsize=8)
            continue
        i = int(of_class[min(particle, len(of_class) - 1)])
        volume, told = np.asarray(particles.volumes[i]), particles.table.iloc[i]
        low, high = np.percentile(volume, [0.5, 99.5])
        for axis, plane, cut in zip(row, ("xy", "xz", "yz"), (volume[z], volume[:, y], volume[:, :, x]), strict=True):
            axis.imshow(cut, cmap="gray", vmin=low, vmax=high, origin="lower")
            axis.set_xlabel(plane, fontsize=7)
        words = (told["class_name"], str(told["particle"]), str(told["tomogram"]))
        row[0].set_title(f"{name}: {', '.join(filter(None, words))}", loc="left", fontsize=8)
    return figure


def view(sets: Mapping[str, ParticleSet]) -> VBox:
    """A widget that shows `slices` of sets of particles, by name, with a slider for the particle and each coordinate.

    Raises ValueError when there is no set, one is empty, or boxes differ.
    """
    boxes = {name: particles.volumes.shape[-1] for name, particles in sets.items()}
    if not sets or len(set(boxes.values())) != 1 or not all(len(p) for p in sets.values()):
        raise ValueError(f"view: sets {boxes}; expected one set or more, of particles in one box.")
    classes = [EVERY, *sorted({c for p in sets.values() for c in p.table["class_name"] if c})]
    last = {"particle": max(len(p) for p in sets.values()) - 1} | dict.fromkeys("zyx", next(iter(boxes.values())) - 1)
    controls = {"class_name": Dropdown(options=classes, description="class")}
    for name, most in last.items():
        start = 0 if name == "particle" else (most + 1) // 2
        controls[name] = IntSlider(min=0, max=most, value=start, description=name, continuous_update=False)
    image = Image(format="png")

    def draw(change: object = None) -> None:
        figure, png = slices(sets, **{name: control.value for name, control in controls.items()}), io.BytesIO()
        figure.savefig(png, format="png")
        plt.close(figure)
        image.value = png.getvalue()

    for control in controls.values():
        control.observe(draw, "value")
    draw()
    return VBox([*controls.values(), image])
