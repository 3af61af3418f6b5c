"""Plots of the Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qvec.bench.figures import TARGETS, at_recall, curve, front, index_memory
from qvec.bench.records import Entry, Result
from qvec.bench.table import title
from qvec.common import plots

MIN_SHOWN_RECALL = 0.5  # the axis begins at this recall
MIN_MISSED = 1e-4  # 1 - recall at the end of the axis
RECALL_TICKS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


def plot_recall(result: Result, file: Path) -> None:
    """Plot queries/s of single queries against recall: the front of each contestant."""
    figure, (axes,) = plots.figure(1, (11, 6.5))
    best = MIN_SHOWN_RECALL
    for entry, style in _styled(result):
        points = [point for point in front(curve(entry)) if point[0] >= MIN_SHOWN_RECALL]
        if points:
            axes.plot(*zip(*points, strict=True), label=entry.contestant, **style)
            best = max(best, points[-1][0])
    axes.set_xscale("function", functions=(recall_to_axis, axis_to_recall))
    shown = [recall for recall in RECALL_TICKS if recall_to_axis(recall) <= recall_to_axis(best) + 0.1]
    axes.set_xticks(shown, [f"{recall:g}" for recall in shown])
    axes.set(xlabel=f"recall@{result.settings['k']}", ylabel="queries/s, single queries, one thread")
    plots.log_scale(axes, "y")
    figure.legend(fontsize=8, loc="outside right center")
    _save(figure, result, file)


def plot_bytes(result: Result, file: Path, targets: Sequence[float] = TARGETS) -> None:
    """Plot queries/s against the memory of the index per vector at each recall, with the front of both.

    Contestants without memory figures are left out.
    """
    figure, panels = plots.figure(len(targets), (4.2 * len(targets), 4.6))
    n = result.dataset["n"]
    for axes, target in zip(panels, targets, strict=True):
        reached = []
        for entry, style in _styled(result):
            rate, size = at_recall(curve(entry), target), index_memory(entry, n)
            if rate is not None and size is not None and size > 0:
                axes.plot(size, rate, label=entry.contestant, **{**style, "linestyle": "none", "markersize": 8})
                reached.append((-size, rate))
        best = [(-size, rate) for size, rate in front(reached)]
        axes.plot(*(zip(*best, strict=True) if best else ((), ())), color="0.6", zorder=0)
        axes.set(title=f"recall {target:g}", xlabel="bytes of index in memory per vector")
        plots.log_scale(axes, "x", "y")
        panels[0].set_ylabel("queries/s, single queries, one thread")
    labels = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), fontsize=8, loc="outside lower center", ncols=5)
    _save(figure, result, file)


def recall_to_axis(recall: Any) -> Any:
    """Map a recall to its position on an axis that is logarithmic in 1 - recall."""
    return -np.log10(np.maximum(1 - np.asarray(recall, float), MIN_MISSED))


def axis_to_recall(place: Any) -> Any:
    """Map a position on that axis to its recall."""
    return 1 - 10.0 ** -np.asarray(place, float)


def _styled(result: Result) -> list[tuple[Entry, dict[str, Any]]]:
    """Each contestant with its color and marker; qvec has thick lines, peers have dashed ones."""
    return [(entry, plots.style(number, own=entry.own)) for number, entry in enumerate(result.entries)]


def _save(figure: Any, result: Result, file: Path) -> None:
    figure.suptitle(title(result), fontsize=9)
    figure.savefig(file, dpi=plots.DPI)
