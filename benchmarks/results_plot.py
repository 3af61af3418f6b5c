"""The plot of the README: recall against queries/s, for light and dark pages."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from results_page import ROOT, Curve

ASSETS = ROOT / "docs" / "assets"
STYLES = {  # marker, line and color of each curve
    "qvec packed": ("o", "-", "#4c72e0"),
    "qvec": ("s", "-", "#3a9d5d"),
    "SymphonyQG": ("^", "--", "#e07b39"),
    "hnswlib": ("D", ":", "#c44e52"),
}
LEAST_RECALL = 0.8


def plot(sets: dict[str, dict[str, Curve]], dark: bool, folder: Path = ASSETS) -> Path:
    """Draw a panel for each data set; returns the file."""
    ink = "#d0d0d0" if dark else "#404040"
    colors = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), ink)
    fonts = {"svg.fonttype": "none", "svg.hashsalt": "qvec", "font.family": "sans-serif", "font.size": 12}
    mpl.rcParams.update({**colors, **fonts})
    drawn, panels = plt.subplots(1, len(sets), figsize=(8.4, 3.8), layout="constrained", squeeze=False, sharey=True)
    for axes, (name, curves) in zip(panels[0], sets.items(), strict=True):
        for label, curve in curves.items():
            points = [point for point in curve.front() if point[0] >= LEAST_RECALL]
            marker, line, color = STYLES[label]
            axes.plot(*zip(*points, strict=True), marker=marker, ls=line, color=color, ms=5, lw=1.8, label=label)
        axes.set(title=name, xlabel="recall@10", yscale="log", xlim=(LEAST_RECALL, 1.002))
        axes.grid(color=ink, alpha=0.2, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("queries/s, one thread")
    panels[0][0].legend(frameon=False, loc="lower left", fontsize=11)
    file = folder / f"recall_qps-{'dark' if dark else 'light'}.svg"
    drawn.savefig(file, transparent=True, metadata={"Date": None})
    plt.close(drawn)
    return file
