"""Figure 1: both cycles as a scheme with the losses on their arrows, and the loss curves of a run."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .artefacts import PAGE_WIDTH_IN
from .panels import _show


def overview(run: dict, found: dict) -> Figure:
    """Figure 1: both cycles as a scheme with the losses on their arrows, and the loss curves of a run.

    Parameters
    ----------
    run : result of the run, for its losses.
    found : result of `spread` of the same run, for its volumes.
    """
    slices, config = found["slices"], run["config"]
    k = found["classes"].index("ribosome") if "ribosome" in found["classes"] else 0
    figure = plt.figure(figsize=(PAGE_WIDTH_IN, 4.6))
    width, height = figure.get_size_inches()
    side, lefts, tops = 0.85, (0.75, 3.0, 5.25), (0.5, 1.95)
    chains = (
        (("x", "x: density"), ("generated", "G(x)"), ("cycled", "F(G(x))")),
        (("real", "y: subtomogram"), ("restored", "F(y)"), ("cycled_y", "G(F(y))")),
    )
    at = {}
    for top, chain in zip(tops, chains, strict=True):
        for left, (name, text) in zip(lefts, chain, strict=True):
            place = (left / width, (height - top - side) / height, side / width, side / height)
            is_density = name in ("x", "cycled", "restored")
            _show(figure.add_axes(place), slices[name][k], None if is_density else (-3.0, 3.0))
            figure.text(
                (left - 0.06) / width, (height - top - side / 2) / height, text, ha="right", va="center", fontsize=6.5,
                rotation=90,
            )  # fmt: skip
            at[name] = (left, height - top - side)

    def arrow(start: tuple[float, float], end: tuple[float, float], **options: object) -> None:
        style = {"arrowstyle": "-|>", "color": "0.2", "lw": 1.0, "shrinkA": 0, "shrinkB": 0} | options
        ends = [(x / width, y / height) for x, y in (end, start)]
        figure.add_artist(
            plt.Annotation("", *ends, xycoords="figure fraction", textcoords="figure fraction", arrowprops=style)
        )

    def note(x: float, y: float, text: str, **options: object) -> None:
        figure.text(x / width, y / height, text, **{"ha": "center", "va": "center", "fontsize": 6.5} | options)

    for names, steps in ((("x", "generated", "cycled"), "GF"), (("real", "restored", "cycled_y"), "FG")):
        for a, b, step in zip(names, names[1:], steps, strict=False):
            (x0, y0), (x1, _) = at[a], at[b]
            arrow((x0 + side + 0.05, y0 + side / 2), (x1 - 0.25, y0 + side / 2))
            note((x0 + side + x1 - 0.2) / 2, y0 + side / 2 + 0.12, step, fontsize=8, fontweight="bold")
    cycles = ((tops[0], 1, "x", "cycled", "|F(G(x)) − x|", "cycle_x"),)
    cycles += ((tops[1], -1, "real", "cycled_y", "|G(F(y)) − y|", "cycle_y"),)
    for _, up, a, b, text, key in cycles:
        edge = side + 0.03 if up > 0 else -0.03
        (x0, y0), (x1, _) = at[a], at[b]
        used = bool(config[key])
        colour = "C0" if used else "0.65"
        start, end = (x1 + side / 2, y0 + edge), (x0 + side / 2, y0 + edge)
        arrow(start, end, color=colour, arrowstyle="<|-|>", connectionstyle=f"bar,fraction={0.04 * up}")
        weight = f"cycle loss: {config[key]:g} {text}" if used else f"cycle loss {text}: weight 0 with these settings"
        note((x0 + x1 + side) / 2, y0 + edge + 0.28 * up, weight, color=colour)
    for critic, a, b, share, text in (
        ("$D_Y$", "generated", "real", 0.62, "real or\ngenerated?"),
        ("$D_X$", "x", "restored", 0.62, "density\nor F(y)?"),
    ):
        (x0, y0), (x1, y1) = at[a], at[b]
        start = (x0 + (0 if a == "generated" else side), y0 - 0.02)
        end = (x1 + (side if a == "generated" else 0), y1 + side + 0.02)
        arrow(start, end, color="C1", arrowstyle="-", ls="--")
        x, y = (s + share * (e - s) for s, e in zip(start, end, strict=True))
        note(x, y, critic, bbox={"boxstyle": "circle,pad=0.25", "fc": "white", "ec": "C1"})
        note(x + (-0.55 if a == "generated" else 0.55), y - 0.02, text, color="C1", fontsize=5.5)
    log = pd.DataFrame(run["log"])
    labels = {"critic": "$D_{}$", "adversarial": "against $D_{}$", "cycle": "{}"}
    panels = (("critic loss", "critic"), ("generator loss", "adversarial"), ("cycle loss", "cycle"))
    for i, (title, prefix) in enumerate(panels):
        axis = figure.add_axes((0.075 + 0.325 * i, 0.095, 0.245, 0.17))
        for column in (c for c in log if c.startswith(prefix)):
            smooth, name = log[column].rolling(5, min_periods=1).mean(), column.split("_")[-1]
            label = f"|F(G({name})) − {name}|" if prefix == "cycle" else labels[prefix].format(name)
            axis.plot(log["step"], smooth, lw=0.9, label=label)
        axis.set(xlabel="step", title=title + (" (s.d. of x)" if prefix == "cycle" else " (score units)"))
        if prefix == "cycle":
            axis.axhline(run["constant_cycle"], color="0.5", ls="--", lw=0.8, label="best constant in place of F(G(x))")
        low, high = axis.get_ylim()
        axis.set_ylim(low - (0.8 if prefix == "cycle" else 0.45) * (high - low), high)  # room for the legend
        axis.legend(frameon=False, loc="lower center", ncols=1 if prefix == "cycle" else 2, fontsize=5.5)
    return figure
