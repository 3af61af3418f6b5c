"""Recall that `search(recall=r)` reaches on queries not used for tuning, and its queries/s.

    python benchmarks/bench_recall.py [--set NAME] [--indexes hnsw packed ivf] [--splits 5] [--json FILE]

Half of a set's queries are used for tuning, the other half for searches; each split draws new halves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import report
import sets
from built import built

import qvec
from qvec.common.console import print_table
from qvec.datasets import Workload

TARGETS = (0.9, 0.95, 0.99)
ALLOWED = 0.005
COLUMNS = ("set, code, index", "recall asked for", "realized, mean", "least", "held", "q/s, one thread")


def realized(db: qvec.Collection, data: Workload, k: int, seed: int) -> Iterator[tuple[float, float, float]]:
    """The target, the recall on the half that was not used for tuning, and queries/s there."""
    order = np.random.default_rng(seed).permutation(len(data.queries))
    tuning, rest = np.array_split(order, 2)
    db.tune(data.queries[tuning], ks=(k,))
    held_out = replace(data, queries=data.queries[rest], truth=data.truth[rest])
    for target in TARGETS:
        start = time.perf_counter()
        ids = np.array([db.search(query, k, recall=target).ids for query in held_out.queries])
        elapsed = time.perf_counter() - start
        yield target, held_out.recall(ids, k), len(rest) / elapsed


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--code", default="int8")
    parser.add_argument("--indexes", nargs="*", default=["hnsw", "packed", "ivf"], help="as of qvec bench")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("-k", type=int, default=10)
    args = parser.parse_args()
    rows = []
    for name in args.set:
        data = sets.load(name)
        for text in args.indexes:
            with built(data, args.code, text, 2) as own, qvec.open(own.path) as db:
                found = [list(realized(db, data, args.k, seed)) for seed in range(args.splits)]
            for target, recalls, rates in (
                (at[0][0], *zip(*(x[1:] for x in at), strict=True)) for at in zip(*found, strict=True)
            ):
                held = sum(recall >= target - ALLOWED for recall in recalls)
                figures = {
                    "set": name,
                    "code": args.code,
                    "index": text,
                    "asked": target,
                    "realized": recalls,
                    "qps": rates,
                }
                report.append("recall", figures, args.json)
                shares = f"{np.mean(recalls):.4f}", f"{min(recalls):.4f}", f"{held}/{args.splits}"
                rows.append((f"{name} {args.code} {text}", f"{target:g}", *shares, f"{max(rates):,.0f}"))
    print_table(f"recall@{args.k} of search(recall=), on the queries that did not tune", COLUMNS, rows)


if __name__ == "__main__":
    main()
