"""Draw the figures of the documentation: python docs/assets/make_figures.py

The texts are gray and the background is transparent, so that each figure suits light and dark pages. The figures are
narrow, so that a phone shows their texts in a readable size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import qvec
from qvec.demo.corpus import load_corpus

HERE = Path(__file__).parent
GRAY, BLUE, ORANGE, GREEN = "#888888", "#4c72e0", "#e07b39", "#3a9d5d"


def figure(height: float = 2.8, columns: int = 1, rows: int = 1, width: float = 5.2) -> tuple[Any, Any]:
    colors = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), GRAY)
    # A fixed salt and no date: the same picture gives the same file.
    mpl.rcParams.update(
        {**colors, "svg.fonttype": "none", "svg.hashsalt": "qvec", "font.family": "sans-serif", "font.size": 11}
    )
    drawn, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained")
    for one in np.atleast_1d(axes):
        one.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def save(drawn: Any, name: str) -> None:
    drawn.savefig(HERE / f"{name}.svg", transparent=True, metadata={"Date": None})
    plt.close(drawn)


def levels() -> None:
    drawn, axes = figure()
    x = np.linspace(-2, 2, 400)
    step = 4 / 7
    rounded = np.round((x + 2) / step) * step - 2
    axes.plot(x, x, color=GRAY, lw=1, label="value")
    axes.step(x, rounded, color=BLUE, where="mid", label="decoded 3-bit code")
    axes.fill_between(x, x, rounded, color=ORANGE, alpha=0.35, label="error, at most half a step")
    axes.set(xlabel="value of one dimension", ylabel="decoded value")
    axes.legend(frameon=False)
    save(drawn, "levels")


def recall_bytes(folder: Path) -> None:
    corpus = load_corpus()
    truth = np.argsort(-corpus.queries @ corpus.vectors.T, axis=1, kind="stable")[:, :10]
    drawn, axes = figure(height=3.4)
    for code in ("binary", "rabitq1", "ternary", "rabitq2", "rabitq3", "int4", "rabitq4", "rabitq6", "int8", "f16"):
        with qvec.create(folder / f"{code}.qvec", 384, code=code, index="flat") as db:
            db.add(corpus.vectors)
            found = db.search(corpus.queries, k=10, oversample=0).ids
            size = db.stats().codes_bytes / len(db)
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)])
        axes.plot(size, recall, "o", color=BLUE)
        above = code in ("binary", "rabitq2", "int4")  # the others' names are below
        offset, side = ((-4, 6), "right") if above else ((5, -12), "left")
        axes.annotate(code, (size, recall), xytext=offset, textcoords="offset points", fontsize=10, ha=side)
    axes.set(
        xscale="log", xlabel="bytes per vector", ylabel="recall@10 of the codes", ylim=(0.58, 1.04), xlim=(40, 1300)
    )
    axes.set_xticks([50, 100, 200, 400, 800], labels=["50", "100", "200", "400", "800"])
    axes.minorticks_off()
    save(drawn, "recall_bytes")


def drift() -> None:
    drawn, axes = figure()
    x = np.linspace(-4, 6, 300)
    for center, color, label in ((0.0, BLUE, "sample"), (1.6, ORANGE, "later vectors")):
        axes.fill_between(x, np.exp(-((x - center) ** 2) / 2), color=color, alpha=0.4, label=label)
    for edge in (-2.6, 2.6):
        axes.axvline(edge, color=GRAY, ls="--", lw=1)
    axes.text(2.7, 0.85, "clipped")
    axes.set(xlabel="value of one dimension", yticks=[], ylabel="share of vectors")
    axes.legend(frameon=False, loc="upper left")
    save(drawn, "drift")


def indexes() -> None:
    drawn, (graph, lists) = figure(height=3.2, columns=2)
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 1, (60, 2))
    query = np.array([0.78, 0.72])
    near = np.argsort(((points[:, None] - points[None]) ** 2).sum(2), axis=1)[:, 1:5]
    for i, row in enumerate(near):
        for j in row:
            graph.plot(*points[[i, j]].T, color=GRAY, lw=0.4, alpha=0.6)
    walk = [int(np.argmin(points.sum(1)))]
    while True:
        best = min(near[walk[-1]], key=lambda j: ((points[j] - query) ** 2).sum())
        if ((points[best] - query) ** 2).sum() >= ((points[walk[-1]] - query) ** 2).sum():
            break
        walk.append(int(best))
    graph.plot(*points.T, "o", color=BLUE, ms=4)
    graph.plot(*points[walk].T, "-o", color=ORANGE, lw=2, ms=5)
    centers = points[rng.choice(60, 6, replace=False)]
    owner = np.argmin(((points[:, None] - centers[None]) ** 2).sum(2), axis=1)
    probed = np.argsort(((centers - query) ** 2).sum(1))[:2]
    for cell in range(6):
        color = ORANGE if cell in probed else BLUE
        lists.plot(*points[owner == cell].T, "o", color=color, ms=4)
        lists.plot(*centers[cell], "x", color=color, ms=9, mew=2)
    for axes, title in ((graph, "a walk in a graph"), (lists, "2 of 6 lists are scanned")):
        axes.plot(*query, "*", color=GREEN, ms=14)
        axes.set(xticks=[], yticks=[], title=title)
        axes.spines[:].set_visible(False)
    save(drawn, "indexes")


def packed() -> None:
    drawn, (compact, near) = figure(height=3.4, rows=2)
    for axes in (compact, near):
        axes.barh([1], [4], color=BLUE, alpha=0.6, height=0.6)
        axes.text(2, 1, "row numbers", ha="center", va="center", fontsize=10)
        axes.set(xticks=[], yticks=[], xlim=(-0.1, 16.1), ylim=(-0.8, 1.5))
        axes.spines[:].set_visible(False)
    for start, end in enumerate((1.0, 5.5, 9.0, 14.0)):
        compact.barh([0], [1.6], left=[end], color=ORANGE, alpha=0.6, height=0.6)
        compact.annotate("", (end + 0.8, 0.34), (start + 0.5, 0.66), arrowprops={"arrowstyle": "->", "color": GRAY})
    compact.text(0, -0.65, "codes of the neighbors, in different places of memory", va="center", fontsize=10)
    compact.set_title("compact layout")
    near.barh([1], [11.8], left=[4.2], color=ORANGE, alpha=0.6, height=0.6)
    near.text(10.1, 1, "one-bit codes of the neighbors", ha="center", va="center", fontsize=10, color="#222222")
    near.text(0, 0.3, "one block, read at once; all codes are scored together", va="center", fontsize=10)
    near.set(title="packed nodes", ylim=(0, 1.5))
    save(drawn, "packed")


def commits() -> None:
    drawn, axes = figure(height=2.2)
    axes.barh([1, 1], [2.2, 2.2], left=[1, 4.5], height=0.4, color=BLUE, alpha=0.6)
    axes.barh([0], [5.2], left=[2.4], height=0.4, color=GREEN, alpha=0.6)
    for time, name in ((0, "commit 7"), (3.2, "commit 8"), (6.7, "commit 9")):
        axes.axvline(time, color=ORANGE, ls="--", lw=1)
        axes.text(time + 0.08, 1.45, name, fontsize=10)
    axes.text(2.5, -0.07, "a snapshot reads commit 7", fontsize=10)
    axes.set(
        yticks=[0, 1], yticklabels=["reader", "writer"], xticks=[], xlabel="time", ylim=(-0.5, 1.8), xlim=(-0.2, 8.2)
    )
    save(drawn, "commits")


if __name__ == "__main__":
    import tempfile

    levels()
    drift()
    indexes()
    packed()
    commits()
    with tempfile.TemporaryDirectory() as temporary:
        recall_bytes(Path(temporary))
