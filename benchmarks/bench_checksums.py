"""Cost of checksums: searches with and without them, and the first access to all blocks of a file.

    python benchmarks/bench_checksums.py [--n 100000] [--dim 128] [--json FILE]

Searches alternate between two handles, checksums=True and checksums=False; so do openings of the file that access each
block once. Prints the median share of time that checksums take, and ms per 100 MB accessed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import report

import qvec

ROUNDS, QUERIES = 15, 2000


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(args.n, args.dim)).astype(np.float32)
    queries = x[:QUERIES] + np.float32(0.1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qvec"
        with qvec.create(path, args.dim, index=qvec.HNSW(m=16, ef_construction=60), durability="relaxed") as db:
            db.add(x)
        figures: dict[str, Any] = {"n": args.n, "dim": args.dim, "file MB": round(path.stat().st_size / 1e6, 1)}
        figures |= searches(path, queries) | touches(path)
    report.publish("checksums", figures, args.json)
    return 0


def searches(path: Path, queries: Any) -> dict[str, Any]:
    """Time single queries on handles that have checked all blocks before."""
    times: dict[bool, list[float]] = {True: [], False: []}
    handles = {checksums: qvec.open(path, "r", checksums=checksums) for checksums in times}
    for i in range(2 * ROUNDS + 2):
        checked = bool(i % 2)
        start = time.perf_counter()
        for query in queries:
            handles[checked].search(query, 10)
        if i > 1:
            times[checked].append((time.perf_counter() - start) / len(queries))
    for db in handles.values():
        db.close()
    ratios = [with_sums / without - 1 for with_sums, without in zip(times[True], times[False], strict=True)]
    return {
        "search us, checked": round(1e6 * min(times[True]), 2),
        "search us, unchecked": round(1e6 * min(times[False]), 2),
        "share of a search": round(statistics.median(ratios), 4),
    }


def touches(path: Path) -> dict[str, Any]:
    """Time the first access to all blocks after an open, from the page cache."""
    times: dict[bool, list[float]] = {True: [], False: []}
    size = 0
    for i in range(2 * ROUNDS):
        checked = bool(i % 2)
        with qvec.open(path, "r", checksums=checked) as db, db._store.read() as snap:
            size = sum(column.n_blocks * column.pages * 4096 for column in snap.columns.values())
            start = time.perf_counter()
            for column in snap.columns.values():
                step = column.rows_per_block
                rows = np.arange(0, column.n_rows, step)
                column.read(rows)
            times[checked].append(time.perf_counter() - start)
    cost = min(times[True]) - min(times[False])
    return {"MB touched": round(size / 1e6, 1), "checksums, ms per 100 MB": round(1e3 * cost / (size / 1e8), 2)}


if __name__ == "__main__":
    sys.exit(main())
