"""A volume viewer for notebooks: three orthogonal slices of a particle, sets one below the other, real beside
generated.
"""

import io
from collections.abc import Mapping

import ipywidgets as widgets
import matplotlib.image
import numpy as np

from ..volumes.table import ParticleSet

EVERY = "all classes"
PLANES = ("xy", "xz", "yz")  # shown at the z, y and x that the sliders say
SIDE_PX = 220


class VolumeViewer(widgets.VBox):
    """Look through sets of particles.

    Sliders choose the particle and the place (z, y, x) of the slices, in voxels; contrast is a range of percentiles of
    the particle's grey values; the class is chosen once for all sets, which show their own particle of that number.
    Volumes on disk are read one at a time.

    Parameters
    ----------
    sets
        particles by name, drawn from top to bottom; one box for all.

    Raises
    ------
    ValueError
        When there is no set, one is empty, or boxes differ.
    """

    def __init__(self, sets: Mapping[str, ParticleSet]):
        boxes = {name: particles.volumes.shape[-1] for name, particles in sets.items()}
        if not sets or len(set(boxes.values())) != 1 or not all(len(p) for p in sets.values()):
            raise ValueError(f"VolumeViewer: sets {boxes}; expected one set or more, of particles in one box.")
        self.sets, self.box = dict(sets), next(iter(boxes.values()))
        classes = sorted({c for p in sets.values() for c in p.table["class_name"] if c})
        self.class_name = widgets.Dropdown(options=[EVERY, *classes], description="class")
        self.particle = widgets.IntSlider(description="particle", min=0, max=0, continuous_update=False)
        self.place = {
            axis: widgets.IntSlider(
                description=axis, min=0, max=self.box - 1, value=self.box // 2, layout=widgets.Layout(width="260px")
            )
            for axis in "zyx"
        }
        self.contrast = widgets.FloatRangeSlider(description="contrast %", min=0, max=100, step=0.5, value=(0.5, 99.5))
        self.images, self.captions, rows = {}, {}, []
        for name in self.sets:
            self.captions[name] = widgets.HTML()
            layout = widgets.Layout(width=f"{SIDE_PX}px", height=f"{SIDE_PX}px")
            self.images[name] = {plane: widgets.Image(format="png", layout=layout) for plane in PLANES}
            for image in self.images[name].values():
                image.add_class("cryoetgan-slice")
            rows.append(widgets.VBox([self.captions[name], widgets.HBox(list(self.images[name].values()))]))
        pixels = widgets.HTML("<style>.cryoetgan-slice {image-rendering: pixelated;}</style>")
        choices = widgets.HBox([self.class_name, self.particle, self.contrast])
        super().__init__([pixels, choices, widgets.HBox(list(self.place.values())), *rows])
        self.class_name.observe(lambda change: self._choose_class(), "value")
        for control in (self.particle, self.contrast, *self.place.values()):
            control.observe(lambda change: self.draw(), "value")
        self._choose_class()

    def _rows(self, name: str) -> np.ndarray:
        """Indices of a set's particles of the chosen class."""
        labels = self.sets[name].table["class_name"].to_numpy()
        return (
            np.arange(len(labels))
            if self.class_name.value == EVERY
            else np.flatnonzero(labels == self.class_name.value)
        )

    def _choose_class(self) -> None:
        self.particle.max = max(max(len(self._rows(name)) for name in self.sets) - 1, 0)
        self.draw()

    def draw(self) -> None:
        """Draw the slices that the controls ask for."""
        z, y, x = (self.place[axis].value for axis in "zyx")
        for name, particles in self.sets.items():
            rows = self._rows(name)
            if len(rows) == 0:
                self.captions[name].value = f"<b>{name}</b>: none of this class"
                for image in self.images[name].values():
                    image.value = _png(np.zeros((self.box, self.box)), 0.0, 1.0)
                continue
            i = int(rows[min(self.particle.value, len(rows) - 1)])
            volume, row = np.asarray(particles.volumes[i]), particles.table.iloc[i]
            low, high = np.percentile(volume, self.contrast.value)
            told = [str(row["class_name"] or "no class"), str(row["particle"]), str(row["tomogram"])]
            width = f"{self.box * particles.voxel_size_A:.0f} Å wide; planes {', '.join(PLANES)}"
            self.captions[name].value = f"<b>{name}</b>: {', '.join(filter(None, told))}; {width}"
            for plane, cut in zip(PLANES, (volume[z], volume[:, y], volume[:, :, x]), strict=True):
                self.images[name][plane].value = _png(cut, float(low), float(max(high, low + 1e-12)))


def _png(image: np.ndarray, low: float, high: float) -> bytes:
    """A grey picture, one pixel a voxel, its first row at the bottom."""
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, image, vmin=low, vmax=high, cmap="gray", origin="lower", format="png")
    return buffer.getvalue()
