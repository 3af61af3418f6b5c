"""The page of results and its plots, made from the JSON lines of `qvec bench` and bench_search.py.

    python benchmarks/results_page.py

writes benchmarks/RESULTS.md, one section for each machine, and docs/assets/recall_qps-{light,dark}.svg. Of each data
set, number of neighbors and contestant the run that was started last counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
ASSETS = HERE.parent / "docs" / "assets"
RECALLS = (0.90, 0.95, 0.98, 0.99)
PLOTTED = {  # the best of each kind, and the marker of its curve
    "qvec packed": ("packed", "o", "#4c72e0"),
    "qvec": ("hnsw", "s", "#3a9d5d"),
    "SymphonyQG": ("rabitqlib-symqg", "^", "#e07b39"),
    "hnswlib": ("hnswlib", "D", "#c44e52"),
}


@dataclass
class Curve:
    """The points of one contestant in one run."""

    contestant: str
    options: dict[str, Any]
    started: str
    machine: dict[str, Any]
    simd: str
    memory: int
    build_seconds: float
    points: list[tuple[float, float]] = field(default_factory=list)

    def rate(self, recall: float) -> float | None:
        """Queries/s at a recall, interpolated log-linearly on the Pareto front. None: the recall is not reached."""
        front = list(self.front())
        recalls, rates = (np.array(values) for values in zip(*front, strict=True))
        if recall > recalls[-1]:
            return None
        return float(np.exp(np.interp(recall, recalls, np.log(rates))))

    def front(self) -> Iterator[tuple[float, float]]:
        """The points that no other point beats in both recall and queries/s, by recall."""
        best, kept = 0.0, []
        for recall, rate in sorted(self.points, reverse=True):
            if rate > best:
                best = rate
                kept.append((recall, rate))
        return reversed(kept)


Group = tuple[str, str, int]
"""Name of the results file, data set, k."""


def read() -> dict[Group, dict[str, Curve]]:
    groups: dict[Group, dict[str, Curve]] = {}
    for file in sorted((HERE / "results").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if "contestant" not in record or "qps" not in record:
                continue
            curves = groups.setdefault((file.stem, record["dataset"], record["k"]), {})
            name = record["contestant"]
            if name not in curves or record["started"] > curves[name].started:
                known = (record[key] for key in ("contestant", "options", "started", "machine", "simd"))
                memory = record["memory"].get("anonymous") or record["memory"]["pss"]
                curves[name] = Curve(*known, memory, record["build_s"])
            if record["started"] == curves[name].started:
                curves[name].points.append((record["recall"], record["qps"]))
    return groups


def table(curves: dict[str, Curve]) -> Iterator[str]:
    yield "| contestant | " + " | ".join(f"{recall:.2f}" for recall in RECALLS) + " | private MB | build, s | date |"
    yield "|---" * (len(RECALLS) + 4) + "|"
    for curve in sorted(curves.values(), key=lambda curve: -(curve.rate(0.95) or 0)):
        rates = [curve.rate(recall) for recall in RECALLS]
        cells = ["-" if rate is None else f"{rate:,.0f}" for rate in rates]
        end = [f"{curve.memory / 1e6:,.0f}", f"{curve.build_seconds:.1f}", curve.started[:10]]
        yield "| " + " | ".join([f"`{curve.contestant}`", *cells, *end]) + " |"


def page(groups: dict[Group, dict[str, Curve]]) -> str:
    lines = [
        "# Results",
        "",
        "Made by `python benchmarks/results_page.py` from `benchmarks/results`. Queries per second of single calls on",
        "one thread at a given recall@k; `-`: not reached. Contestants of one date ran interleaved: their ratios are",
        "comparable. The command: `python benchmarks/bench_search.py --set SET --indexes ... --peers ... --json FILE`.",
    ]
    machine = ""
    for (file, dataset, k), curves in sorted(groups.items()):
        if file != machine:
            machine = file
            about = next(iter(curves.values()))
            level = "with AVX-512" if about.simd == "avx512" else f"without AVX-512 ({about.simd})"
            lines += ["", f"## {file}: {level}", "", f"{about.machine['cpu']}, {about.machine['cores']} cores."]
        lines += ["", f"### {dataset}, k = {k}", "", *table(curves)]
    return "\n".join(lines) + "\n"


def chosen(curves: dict[str, Curve]) -> dict[str, Curve]:
    """The curves of the plot: of several variants of one kind, the fastest at recall 0.95."""
    found: dict[str, Curve] = {}
    for label, (kind, _, _) in PLOTTED.items():
        fitting = [curve for name, curve in curves.items() if kind in name.split() and "int4" not in name]
        if fitting:
            found[label] = max(fitting, key=lambda curve: curve.rate(0.95) or 0)
    return found


def plot(groups: dict[Group, dict[str, Curve]], file: str, dark: bool) -> None:
    ink = "#d0d0d0" if dark else "#404040"
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "qvec", "font.family": "sans-serif", "font.size": 10})
    mpl.rcParams.update(
        dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), ink)
    )
    names = [name for name in ("wiki-minilm-384", "fashion-mnist-784") if (file, name, 10) in groups]
    drawn, panels = plt.subplots(1, len(names), figsize=(8.4, 3.4), layout="constrained", squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        for label, curve in chosen(groups[file, name, 10]).items():
            points = [point for point in curve.front() if point[0] >= 0.8]
            _, marker, color = PLOTTED[label]
            axes.plot(*zip(*points, strict=True), marker=marker, color=color, ms=4, lw=1.6, label=label)
        axes.set(title=name, xlabel="recall@10", yscale="log", xlim=(0.8, 1.001))
        axes.grid(color=ink, alpha=0.2, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("queries/s, one thread")
    panels[0][0].legend(frameon=False, loc="lower left")
    kind = "dark" if dark else "light"
    drawn.savefig(ASSETS / f"recall_qps-{kind}.svg", transparent=True, metadata={"Date": None})
    plt.close(drawn)


def main() -> None:
    groups = read()
    (HERE / "RESULTS.md").write_text(page(groups))
    newest = max(
        (curve.started, file) for (file, _, k), curves in groups.items() if k == 10 for curve in curves.values()
    )
    for dark in (False, True):
        plot(groups, newest[1], dark)


if __name__ == "__main__":
    main()
