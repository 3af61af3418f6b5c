"""Microseconds of a single search that are spent in Python, around the kernels.

python benchmarks/bench_facade.py [--set NAME] [--code int8] [--json FILE]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import report
import sets

import qvec


def facade_costs(db: qvec.Collection, queries: sets.Float32) -> list[float]:
    """Microseconds of each search that are not spent inside the kernels."""
    costs = []
    for query in queries:
        db.search(query, 10, ef=40)  # the same query again: its rows are in the cache, the kernels' time is steady
        before = kernel_ns(db)
        start = time.perf_counter_ns()
        db.search(query, 10, ef=40)
        elapsed = time.perf_counter_ns() - start
        costs.append((elapsed - (kernel_ns(db) - before)) / 1000)
    return costs


def kernel_ns(db: qvec.Collection) -> int:
    """Nanoseconds that searches of this view have spent inside the kernels."""
    with db._store.read() as snap:
        return int(snap.derived["engine"].work[2])


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--code", default="int8")
    args = parser.parse_args()
    for name in args.set:
        data = sets.load(name, 10_000)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "facade.qvec"
            with qvec.create(path, data.base.shape[1], metric=data.metric, code=args.code, index="hnsw") as db:
                db.add(data.base)
                costs = facade_costs(db, data.queries)
        figures = {"set": name, "code": args.code, **report.quantiles("Python around a search, us", costs)}
        figures["Python around a search, us, min"] = float(np.min(costs))
        report.publish("facade", figures, args.json)


if __name__ == "__main__":
    main()
