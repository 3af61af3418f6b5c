"""Plots in one style: of evaluations, curves, drift, stores and benchmarks. Needs matplotlib.

The colors are close to those of Okabe and Ito (2008), which readers with color blindness can tell apart, and have a
contrast of at least 3 with white and with the dark ground of the pages. Each has a marker of its own, so that they
differ in print as well.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qvec.common.extras import find, require

COLORS = ("#0072b2", "#d55e00", "#009e73", "#c46d9d", "#b08000", "#3a96d0", "#a8644e", "#848992")
MARKERS = "osD^vP*Xh<>p"
SIZE = (5.6, 3.5)  # inches
INK = "#7d828c"  # of texts and lines that stand on a white or on a dark ground
DPI = 130
Draw = Callable[[Any], object]
"""Draws on the axes of a figure."""


def style(number: int, *, own: bool = True) -> dict[str, Any]:
    """Return color, marker and line of a series. ``own``: others have thin dashed lines."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[(number % len(COLORS) + number // len(COLORS)) % len(MARKERS)],
        "linestyle": "-" if own else "--",
        "linewidth": 2.0 if own else 1.2,
        "markersize": 5,
    }


def figure(panels: int = 1, size: tuple[float, float] = SIZE) -> tuple[Any, Sequence[Any]]:
    """Return a figure and its axes, side by side. Raises MissingExtraError without matplotlib."""
    made = require("matplotlib.figure").Figure(figsize=size, layout="constrained")
    found: Sequence[Any] = made.subplots(1, panels, squeeze=False)[0]
    for axes in found:
        axes.grid(alpha=0.3, which="both")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return made, found


def log_scale(axes: Any, *names: str) -> None:
    """Make axes, "x" or "y", logarithmic, with numbers such as 2,000 in place of powers of ten."""
    ticker = require("matplotlib.ticker")
    for name in names:
        axis = getattr(axes, f"{name}axis")
        getattr(axes, f"set_{name}scale")("log")
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def bars(axes: Any, values: Mapping[str, float], label: str) -> None:
    """Draw a bar for each value, the first on top. ``label``: what the values are."""
    axes.barh(list(values), list(values.values()), color=COLORS[0])
    axes.set(xlabel=label)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def histogram(axes: Any, values: Sequence[float], label: str, counted: str) -> None:
    """Draw how often values occur. ``label``: what they are; ``counted``: what has them."""
    axes.hist(values, bins=40, color=COLORS[0])
    axes.set(xlabel=label, ylabel=counted)


def save(draw: Draw, path: str | os.PathLike[str]) -> None:
    """Write a plot to a PNG file. Raises MissingExtraError without matplotlib."""
    made, (axes,) = figure()
    draw(axes)
    made.savefig(path, format="png", dpi=DPI)


def as_html(draw: Draw, title: str) -> str:
    """Return a plot as an image in HTML; "" if matplotlib is not installed. ``title``: what it shows, in words."""
    import base64  # late, to keep `import qvec` fast
    from html import escape

    if find("matplotlib.figure") is None:
        return ""
    with io.BytesIO() as image:
        made, (axes,) = figure()
        draw(axes)
        _paint(axes, INK)
        made.savefig(image, format="png", dpi=DPI, transparent=True)
        data = base64.b64encode(image.getvalue()).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}"/>'


def _paint(axes: Any, ink: str) -> None:
    """Give texts and lines of a plot a color that suits any ground."""
    axes.tick_params(which="both", colors=ink)
    legend = axes.get_legend()
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts, *(legend.get_texts() if legend else ())):
        text.set_color(ink)
    if legend:
        legend.get_title().set_color(ink)
        legend.get_frame().set(facecolor="none", edgecolor=ink)
    for spine in axes.spines.values():
        spine.set_color(ink)
