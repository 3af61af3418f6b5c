"""Search effort per query against the best fixed effort, on queries that were not used to tune.

    QVEC_DATA=/path/to/sets python benchmarks/bench_effort.py [--indexes compact packed ivf] [--noise 2] [set ...]

The queries are divided in two halves: tune() learns from one, and searches are measured with the other, and the other
way round. Fixed efforts are those of the recall curve. Single queries run through the kernels on one thread, in
alternating passes; the better of two passes of each setting counts. The ratio compares queries/s at the mean recall
that the search for a recall had, interpolated between fixed efforts. "below": share of queries with a recall below .8,
and that of the fixed effort. "error": expected minus mean recall, over all queries and over the tenth with the lowest
expected recall. --filter P: searches among P per cent of the rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sets

import qvec
from qvec._kernels import SearchParams
from qvec.datasets import Workload, with_noise
from qvec.quality.recall import recall
from qvec.search.row_selection import SelectedRows
from qvec.search.strategy import choose_strategy

TARGETS = (0.9, 0.95, 0.975, 0.99)
PASSES = 2
INDEXES = {"compact": qvec.HNSW(), "packed": qvec.HNSW(layout="packed"), "ivf": qvec.IVF()}


class Measuring:
    """Single searches of one engine, maybe among some rows."""

    def __init__(self, db: qvec.Collection, queries: Any, k: int, share: float | None) -> None:
        self.snap = db._store.begin()
        engine = db._searches.engine(self.snap)
        assert engine is not None
        self.engine, self.queries, self.k = engine, queries, k
        self.selected = None
        if share is not None:
            bits = np.packbits(np.random.default_rng(5).random(engine.n) < share, bitorder="little")
            words = np.zeros(-(-engine.n // 64) * 8, np.uint8)
            words[: len(bits)] = bits
            self.selected = SelectedRows(words.view(np.uint64), engine.n)
        found = self.search(SearchParams(k, exact=True))
        self.truth = found[1]

    def search(self, params: SearchParams) -> Any:
        strategy = choose_strategy(self.engine, params, self.selected)
        expected = None if params.effort is None else np.ones(len(self.queries), np.float32)
        found = self.engine.search(self.queries, strategy.params, 1, strategy.selection, expected=expected)
        return *found, expected

    def recalls(self, params: SearchParams) -> tuple[Any, Any]:
        found = self.search(params)
        return recall(found[1], self.truth), found[3]

    def seconds(self, params: SearchParams) -> float:
        strategy = choose_strategy(self.engine, params, self.selected)
        search = self.engine.search
        began = time.process_time()
        for query in self.queries:
            search(query, strategy.params, 1, strategy.selection)
        return (time.process_time() - began) / len(self.queries)


def fixed_params(curves: qvec.Curves, k: int, kind: str) -> list[SearchParams]:
    points = [p for p in curves.at(k).points if 0.85 < p.recall < 0.9985]
    return [SearchParams(k, ef=max(p.ef, k, p.candidates), nprobe=p.nprobe, candidates=p.candidates) for p in points]


def run(data: Workload, name: str, k: int, share: float | None, rows: dict[Any, list[Any]]) -> None:
    n = len(data.queries)
    order = np.random.default_rng(0).permutation(n)
    halves = order[: n // 2], order[n // 2 :]
    with (
        tempfile.TemporaryDirectory() as folder,
        qvec.create(
            Path(folder) / "a", data.base.shape[1], metric=data.metric, index=INDEXES[name], originals="f16"
        ) as db,
    ):
        db.add(np.ascontiguousarray(data.base, np.float32))
        for taught, tested in (halves, halves[::-1]):
            began = time.process_time()
            curves = db.tune(data.queries[taught], ks=(k,), threads=1)
            tuning = time.process_time() - began
            with qvec.open(Path(folder) / "a", "r", memory="index") as reader:
                own = Measuring(reader, np.ascontiguousarray(data.queries[tested]), k, share)
                compare(own, curves, k, name, rows, tuning)
                reader._store.end(own.snap)


def compare(own: Measuring, curves: qvec.Curves, k: int, name: str, rows: Any, tuning: float) -> None:
    fixed = fixed_params(curves, k, name)
    goals = []
    for target in TARGETS:
        # at equal mean recall: the policy whose mean, not its lower bound, is the target
        points = [p for p in (*curves.at(k).policies,) if p.recall >= target]
        if points:
            goals.append((target, min(points, key=lambda p: p.cost)))
    adaptive = []
    for target, found in goals:
        ef, nprobe = (0, found.widths[-1]) if name == "ivf" else (found.widths[-1], 0)
        effort = found.effort(k, curves.at(k).scanned)
        adaptive.append((target, SearchParams(k, ef=max(ef, found.candidates), nprobe=nprobe,
                                              candidates=found.candidates, effort=effort)))  # fmt: skip
    seconds = {}
    for _ in range(PASSES):
        for params in [*fixed, *(p for _, p in adaptive)]:
            seconds[params] = min(seconds.get(params, np.inf), own.seconds(params))
    means = []
    for params in fixed:
        recalls, _ = own.recalls(params)
        means.append((recalls.mean(), np.log(seconds[params]), (recalls < 0.8 - 1e-9).mean()))
    line = []  # the fastest fixed effort of each recall
    for mean in sorted(means, key=lambda m: m[1]):
        if not line or mean[0] > line[-1][0]:
            line.append(mean)
    x, y, below = (np.array(column) for column in zip(*line, strict=True))
    for target, params in adaptive:
        recalls, expected = own.recalls(params)
        mean = recalls.mean()
        ratio = np.exp(np.interp(mean, x, y)) / seconds[params] if x[0] <= mean <= x[-1] else np.nan
        hard = np.argsort(expected)[: len(expected) // 10]
        rows.setdefault((name, target), []).append(
            (mean, ratio, (recalls < 0.8 - 1e-9).mean(), np.interp(mean, x, below), expected.mean() - mean,
             expected[hard].mean() - recalls[hard].mean(), 1 / seconds[params], tuning)
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=sets.names())
    parser.add_argument("--indexes", nargs="*", default=list(INDEXES), choices=INDEXES)
    parser.add_argument("--noise", type=float)
    parser.add_argument("--filter", type=float)
    parser.add_argument("-k", type=int, default=10)
    args = parser.parse_args()
    for name in args.sets:
        data = sets.load(name)
        data = data if args.noise is None else with_noise(data, args.noise)
        for index in args.indexes:
            rows: dict[Any, list[Any]] = {}
            run(data, index, args.k, None if args.filter is None else args.filter / 100, rows)
            for (_, target), values in rows.items():
                mean, ratio, below, fixed, error, hard, rate, tuning = np.mean(values, axis=0)
                print(
                    f"{data.name}, k={args.k}, filter {args.filter} %, {index}, target {target}: recall {mean:.4f}, "
                    f"{rate:,.0f} queries/s, {ratio:.3f}x of a fixed effort; below .8: {below:.4f}, fixed "
                    f"{fixed:.4f}; error {error:+.4f}, of the hardest tenth {hard:+.4f}; tune {tuning:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
