"""The page of results and its plots, made from the JSON lines of `qvec bench` and bench_search.py.

    python benchmarks/results_page.py

writes benchmarks/RESULTS.md, one section for each machine, the sentence of the README with the figures of its plot, and
docs/assets/recall_qps-{light,dark}.svg. Of each data set, number of neighbors and contestant the run that was started
last counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
README = ROOT / "README.md"
SENTENCE = re.compile(r"(?<=<!-- figures -->\n).*?(?=\n<!-- -->)", re.DOTALL)
RECALLS = (0.90, 0.95, 0.98, 0.99)
PLOTTED = {"qvec packed": "packed", "qvec": "hnsw", "SymphonyQG": "rabitqlib-symqg", "hnswlib": "hnswlib"}
PLOTTED_SETS = ("wiki-minilm-384", "fashion-mnist-784")


@dataclass
class Curve:
    """The points of one contestant in one run."""

    contestant: str
    started: str
    machine: dict[str, Any]
    simd: str
    memory: int
    build_seconds: float
    commit: str
    command: str
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
Groups = dict[Group, dict[str, Curve]]


def read(folder: Path = RESULTS) -> Groups:
    """The newest curve of each contestant, by file, data set and number of neighbors."""
    groups: Groups = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            if "contestant" in record and "qps" in record:
                _add(groups.setdefault((file.stem, record["dataset"], record["k"]), {}), record)
    return groups


def _add(curves: dict[str, Curve], record: dict[str, Any]) -> None:
    name = record["contestant"]
    if name not in curves or record["started"] > curves[name].started:
        known = (record[key] for key in ("contestant", "started", "machine", "simd"))
        memory = record["memory"].get("anonymous") or record["memory"]["pss"]
        origin = (record.get("commit", "-"), record.get("command", ""))
        curves[name] = Curve(*known, memory, record["build_s"], *origin)
    if record["started"] == curves[name].started:
        curves[name].points.append((record["recall"], record["qps"]))


def level(curve: Curve) -> str:
    """The SIMD level of qvec in a run, for titles."""
    return "with AVX-512" if curve.simd == "avx512" else f"without AVX-512 ({curve.simd})"


def table(curves: dict[str, Curve]) -> Iterator[str]:
    yield "| contestant | " + " | ".join(f"{recall:.2f}" for recall in RECALLS) + " | MB | build, s | date | commit |"
    yield "|---" * (len(RECALLS) + 5) + "|"
    for curve in sorted(curves.values(), key=lambda curve: -(curve.rate(0.95) or 0)):
        rates = [curve.rate(recall) for recall in RECALLS]
        cells = ["-" if rate is None else f"{rate:,.0f}" for rate in rates]
        end = [f"{curve.memory / 1e6:,.0f}", f"{curve.build_seconds:.1f}", curve.started[:10], curve.commit]
        yield "| " + " | ".join([f"`{curve.contestant}`", *cells, *end]) + " |"


def commands(groups: Groups, file: str) -> list[str]:
    """The commands of a machine's runs, oldest first; runs before commands were recorded have none."""
    curves = [curve for (name, _, _), group in groups.items() if name == file for curve in group.values()]
    named = dict.fromkeys(curve.command for curve in sorted(curves, key=lambda curve: curve.started) if curve.command)
    return ["", "```sh", *named, "```"] if named else []


def page(groups: Groups) -> str:
    lines = [
        "# Results",
        "",
        "Made by `python benchmarks/results_page.py` from `benchmarks/results`. Queries per second of single calls on",
        "one thread at a given recall@k; `-`: not reached. MB: private memory of the process. Contestants of one date",
        "ran interleaved: their ratios are comparable. The commit is that of qvec. Runs before 2026-12-01 did not",
        "record it; their command was `python benchmarks/bench_search.py --set SET --indexes ... --peers ...`.",
    ]
    machine = ""
    for (file, dataset, k), curves in sorted(groups.items()):
        if file != machine:
            machine = file
            about = next(iter(curves.values()))
            lines += ["", f"## {file}: {level(about)}", "", f"{about.machine['cpu']}, {about.machine['cores']} cores."]
            lines += commands(groups, file)
        lines += ["", f"### {dataset}, k = {k}", "", *table(curves)]
    return "\n".join(lines) + "\n"


def chosen(curves: dict[str, Curve]) -> dict[str, Curve]:
    """The curves of the plot: of several variants of one kind, the fastest at recall 0.95 of the newest run."""
    found: dict[str, Curve] = {}
    for label, kind in PLOTTED.items():
        fitting = [curve for name, curve in curves.items() if kind in name.split() and "int4" not in name]
        newest = max((curve.started[:10] for curve in fitting), default="")
        if fitting:
            same_day = [curve for curve in fitting if curve.started[:10] == newest]
            found[label] = max(same_day, key=lambda curve: curve.rate(0.95) or 0)
    return found


def plotted_machine(groups: Groups) -> str:
    """The machine whose curves the README shows: that of the newest run for ten neighbors."""
    return max((curve.started, file) for (file, _, k), group in groups.items() if k == 10 for curve in group.values())[
        1
    ]


def sentence(groups: Groups, file: str) -> str:
    """The figures of the plot in words, for the README."""
    curves = chosen(groups[file, PLOTTED_SETS[0], 10])
    own, peer = curves["qvec packed"], curves["hnswlib"]
    rates = [curve.rate(0.95) for curve in (own, peer)]
    shown = ["not reached" if rate is None else f"{rate:,.0f}" for rate in rates]
    machine = f"{own.machine['cores']} cores of {own.machine['cpu']} {level(own)}"
    return (
        f"**{shown[0]} queries/s at a recall@10 of 0.95** on 60,000 passages (hnswlib: {shown[1]}): one thread,\n"
        f"single queries from Python, {machine}, {own.started[:10]}."
    )


def main() -> None:
    from results_plot import plot

    groups = read()
    file = plotted_machine(groups)
    PAGE.write_text(page(groups))
    README.write_text(SENTENCE.sub(lambda found: sentence(groups, file), README.read_text()))
    for dark in (False, True):
        plot({name: chosen(groups[file, name, 10]) for name in PLOTTED_SETS if (file, name, 10) in groups}, dark)


if __name__ == "__main__":
    main()
