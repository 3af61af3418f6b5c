"""A batch of 1,000 queries on two threads against one.

    python benchmarks/bench_batch.py [--set NAME] [--indexes hnsw packed] [--threads 2] [--json FILE]

Both use one index in one process. Their runs are interleaved; the best of --rounds counts.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import report
import sets
from built import built

import qvec
from qvec.bench.adapters.own import Own
from qvec.bench.timing import undisturbed
from qvec.common.console import print_table
from qvec.datasets import Workload

BATCH = 1000
COLUMNS = ("set, code, index", "point", "recall", "1 thread, q/s", "threads", "q/s", "ratio", "of medians")


def seconds(db: qvec.Collection, queries: sets.Float32, threads: int, point: dict[str, Any]) -> float:
    with undisturbed():
        start = time.perf_counter()
        db.search(queries, 10, threads=threads, **point)
        return time.perf_counter() - start


def measure(adapter: Own, data: Workload, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Figures of each point."""
    queries = np.resize(data.queries, (BATCH, data.queries.shape[1]))
    found = []
    for point in adapter.points(10, {}):
        recall = data.recall(adapter.db.search(data.queries, 10, threads=1, **point).ids, 10)
        trials = [[seconds(adapter.db, queries, n, point) for n in (1, threads)] for _ in range(rounds)]
        one, more = np.array(trials).T
        found.append(
            {
                "point": point, "recall": recall, "threads": threads,
                "qps_one": BATCH / one.min(), "qps_threads": BATCH / more.min(),
                "ratio": one.min() / more.min(), "ratio_of_medians": float(np.median(one) / np.median(more)),
            }
        )  # fmt: skip
    return found


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--code", default="int8")
    parser.add_argument("--indexes", nargs="*", default=["hnsw"], help="as of qvec bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rows = []
    for name in args.set:
        data = sets.load(name)
        for text in args.indexes:
            with built(data, args.code, text, args.threads) as adapter:
                adapter.finish()
                figures = measure(adapter, data, args.threads, args.rounds)
                adapter.db.close()
            for found in figures:
                report.append("batch", {"set": name, "code": args.code, "index": text, **found}, args.json)
                point = " ".join(f"{key}={value}" for key, value in found["point"].items())
                rates = f"{found['qps_one']:,.0f}", found["threads"], f"{found['qps_threads']:,.0f}"
                ratios = f"{found['ratio']:.3f}", f"{found['ratio_of_medians']:.3f}"
                rows.append((f"{name} {args.code} {text}", point, f"{found['recall']:.4f}", *rates, *ratios))
    print_table(f"a batch of {BATCH:,} on {args.threads} threads against one", COLUMNS, rows)


if __name__ == "__main__":
    main()
