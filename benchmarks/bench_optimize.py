"""Search latency while optimize() works, compared with that of the same collection at rest before and after.

    python benchmarks/bench_optimize.py [--set NAME] [--rows 100000] [--deleted 0.3] [--threads 1] [--json FILE]

A set smaller than --rows is grown to that size. A share of the rows is deleted; the repair that normally follows is
deferred, so that optimize() does all of it. One thread runs single queries; the figures are over all queries.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import report
import sets

import qvec


class Asker(threading.Thread):
    """Runs one query after another until it is stopped, or ``most`` queries are done."""

    def __init__(self, db: qvec.Collection, queries: sets.Float32, most: int | None = None) -> None:
        super().__init__()
        self.db, self.queries, self.most = db, queries, most
        self.ms: list[float] = []
        self.failures = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set() and (self.most is None or len(self.ms) < self.most):
            query = self.queries[len(self.ms) % len(self.queries)]
            start = time.perf_counter()
            try:
                self.failures += self.db.search(query, 10, include=()).counts != 10
            except qvec.QvecError as error:
                print(f"a search failed: {error}")
                self.failures += 1
            self.ms.append(1000 * (time.perf_counter() - start))


def at_rest(db: qvec.Collection, queries: sets.Float32, name: str, count: int) -> dict[str, Any]:
    asker = Asker(db, queries, count)
    asker.start()
    asker.join()
    return report.quantiles(f"search {name}, ms", asker.ms[count // 10 :])


def vectors(name: str, rows: int) -> tuple[Any, sets.Float32, Any]:
    found = sets.workload(name)
    if len(found.base) < rows:
        found = sets.grown(name, rows)
    return found.base[:rows], found.queries, found.metric


def measure(args: Any, path: Path) -> dict[str, Any]:
    base, queries, metric = vectors(args.set, args.rows)
    figures: dict[str, Any] = {"set": args.set, "rows": len(base), "threads": args.threads}
    with qvec.create(path, base.shape[1], metric=metric, index="hnsw") as db:
        db.add(base, np.arange(len(base)))
        gone = np.random.default_rng(1).choice(len(base), round(args.deleted * len(base)), replace=False)
        with mock.patch("qvec.maintenance.optimize.Maintenance.repair_index"):
            db.delete(gone)
        figures |= at_rest(db, queries, "before", args.queries)
        asker = Asker(db, queries)
        asker.start()
        start = time.perf_counter()
        db.optimize(threads=args.threads)
        figures["optimize, s"] = time.perf_counter() - start
        asker.stop.set()
        asker.join()
        figures |= report.quantiles("search meanwhile, ms", asker.ms) | {"searches meanwhile": len(asker.ms)}
        figures |= {"searches that failed": int(asker.failures), **at_rest(db, queries, "after", args.queries)}
        figures["p99 meanwhile, times that before"] = (
            figures["search meanwhile, ms, p99"] / figures["search before, ms, p99"]
        )
        before = path.stat().st_size
        figures |= {"deleted rows left": db.stats().deleted, "compact gave back, MiB": db.compact() / 2**20}
        figures |= {"file before compact, MiB": before / 2**20, "verify problems": len(db.verify())}
    return figures


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", default=sets.names()[-1])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--deleted", type=float, default=0.3, help="share of the rows")
    parser.add_argument("--threads", type=int, default=1, help="of optimize()")
    parser.add_argument("--queries", type=int, default=5_000, help="asked at rest")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report.publish("optimize", measure(args, Path(folder) / "a.qvec"), args.json)


if __name__ == "__main__":
    main()
