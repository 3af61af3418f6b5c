"""Recall against queries/s, build time and the cost of the Python facade, beside hnswlib in one run.

    python benchmarks/bench_search.py [--set NAME] [--ef 16 24 ...] [--json FILE]

Single queries, and all in one call, through the public calls of both libraries on one thread; the two take turns at
every point, the best of --rounds counts. Queries/s at
a recall are log-linear between the points of a curve. Builds use two threads, in turn too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import hnswlib
import numpy as np
import sets

import qvec

SPACES = {"cosine": "cosine", "l2": "l2", "ip": "ip"}
EFS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 400)


def build_qvec(data: sets.Set, path: Path, threads: int, code: str) -> tuple[qvec.Collection, float]:
    db = qvec.create(path, data.base.shape[1], metric=data.metric, code=code, index="hnsw")
    start = time.perf_counter()
    db.add(data.base, threads=threads)
    return db, time.perf_counter() - start


def build_hnswlib(data: sets.Set, threads: int) -> tuple[hnswlib.Index, float]:
    index = hnswlib.Index(SPACES[data.metric], data.base.shape[1])
    index.init_index(len(data.base), ef_construction=200, M=16)
    start = time.perf_counter()
    index.add_items(data.base, num_threads=threads)
    elapsed = time.perf_counter() - start
    index.set_num_threads(1)
    return index, elapsed


def run_qvec(db: qvec.Collection, data: sets.Set, ef: int, rescore: bool) -> tuple[float, float, float]:
    """Seconds of single calls, seconds of one batch on one thread, recall."""
    ids = np.empty((len(data.queries), 10), np.int64)
    start = time.perf_counter()
    for i, q in enumerate(data.queries):
        ids[i] = db.search(q, 10, ef=ef, rescore=rescore).ids
    single = time.perf_counter() - start
    start = time.perf_counter()
    db.search(data.queries, 10, ef=ef, rescore=rescore, threads=1)
    return single, time.perf_counter() - start, data.recall(ids)


def run_hnswlib(index: hnswlib.Index, data: sets.Set, ef: int) -> tuple[float, float, float]:
    index.set_ef(ef)
    ids = np.empty((len(data.queries), 10), np.int64)
    start = time.perf_counter()
    for i, q in enumerate(data.queries):
        ids[i] = index.knn_query(q, 10)[0][0]
    single = time.perf_counter() - start
    start = time.perf_counter()
    index.knn_query(data.queries, 10, num_threads=1)
    return single, time.perf_counter() - start, data.recall(ids)


def fastest(runs: list[tuple[float, float, float]], queries: int) -> tuple[float, float, float]:
    """Recall, queries/s of single calls and of a batch, the best of some runs."""
    return runs[0][2], queries / min(run[0] for run in runs), queries / min(run[1] for run in runs)


def at_recall(curve: list[tuple[float, float]], recall: float) -> float | None:
    """Queries/s at a recall, log-linear between points [(recall, qps)]; None where the curve does not reach it."""
    best = [(r, q) for r, q in sorted(curve) if q == max(p for s, p in curve if s >= r)]
    if best[-1][0] < recall:
        return None
    if best[0][0] >= recall:
        return best[0][1]
    r, q = zip(*best, strict=True)
    return float(np.exp(np.interp(recall, r, np.log(q))))


def against(rates: dict[str, float | None]) -> dict[str, float]:
    """Each rate over hnswlib's, where both were reached."""
    peer = rates["hnswlib"]
    return {t: round(rate / peer, 2) for t, rate in rates.items() if rate and peer and t != "hnswlib"}


def facade_cost(db: qvec.Collection, data: sets.Set) -> float:
    """Median microseconds of a search that are not spent inside the kernels."""
    costs = []
    for q in data.queries:
        db.search(q, 10, ef=40)  # the same query again: its rows are in the cache, the kernels' time is steady
        before = kernel_ns(db)
        start = time.perf_counter_ns()
        db.search(q, 10, ef=40)
        elapsed = time.perf_counter_ns() - start
        costs.append(elapsed - (kernel_ns(db) - before))
    return float(np.median(costs)) / 1000


def kernel_ns(db: qvec.Collection) -> int:
    """Nanoseconds that searches of this view have spent inside the kernels."""
    with db._store.read() as snap:
        return int(snap.derived["engine"].work[2])


def compare(name: str, efs: list[int], code: str, rounds: int) -> dict[str, object]:
    data = sets.load(name)
    with tempfile.TemporaryDirectory() as folder:
        index, peer_build = build_hnswlib(data, 2)
        db, own_build = build_qvec(data, Path(folder) / "bench.qvec", 2, code)
        with db:
            curves: dict[str, Curve] = {"codes alone": [], "re-ranked": [], "hnswlib": []}
            for ef in efs:
                turns = [
                    (run_qvec(db, data, ef, False), run_qvec(db, data, ef, True), run_hnswlib(index, data, ef))
                    for _ in range(rounds)
                ]
                for curve, runs in zip(curves.values(), zip(*turns, strict=True), strict=True):
                    curve.append(fastest(list(runs), len(data.queries)))
            return report(name, code, efs, curves, own_build, peer_build, facade_cost(db, data))


Curve = list[tuple[float, float, float]]


def report(
    name: str, code: str, efs: list[int], curves: dict[str, Curve], own_build: float, peer_build: float, facade: float
) -> dict[str, object]:
    print(f"\n{name}  code={code}  simd={qvec.simd_level()}")
    print(f"build, 2 threads: qvec {own_build:.2f} s, hnswlib {peer_build:.2f} s, ratio {own_build / peer_build:.2f}")
    print(f"facade: {facade:.2f} us a query")
    print("     " + "".join(f"{title:>29}" for title in curves))
    print("   ef" + f"{'recall':>11} {'q/s':>8} {'in batch':>8}" * len(curves))
    for ef, *points in zip(efs, *curves.values(), strict=True):
        print(f"{ef:>5}" + "".join(f"{r:>11.4f} {q:>8.0f} {b:>8.0f}" for r, q, b in points))
    ratios = {}
    for way, column in (("single queries", 1), ("in batch", 2)):
        for recall in (0.90, 0.95, 0.98, 0.99):
            rates = {title: at_recall([(p[0], p[column]) for p in curve], recall) for title, curve in curves.items()}
            ratios[f"{recall} {way}"] = against(rates)
            shown = ", ".join(f"{title} {rate or 0:.0f}" for title, rate in rates.items())
            print(f"recall {recall}, {way}: q/s {shown}; ratios {against(rates)}")
    return {
        "set": name, "code": code, "simd": qvec.simd_level(), "ef": efs, "curves": curves,
        "build_s": [own_build, peer_build], "facade_us": facade, "ratio_at_recall": ratios,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--ef", nargs="*", type=int, default=list(EFS))
    parser.add_argument("--code", default="int8")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [compare(name, args.ef, args.code, args.rounds) for name in args.set]
    if args.json:
        with args.json.open("a") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
