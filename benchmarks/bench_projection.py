"""Codes of projections against codes of all dimensions: CPU time of a query at a recall, and bytes a vector.

    QVEC_DATA=FOLDER python benchmarks/bench_projection.py [--set NAME...] [--codes int8 int4:projection=256 ...]
        [--indexes hnsw packed] [--rows N] [--grow N] [--queries 200] [--rounds 3] [--learn] [--json FILE]

Single queries through Python on one thread, k = 10, float16 originals. Each point is an `ef` and an oversampling; the
points of all collections are interleaved, and the least of the rounds counts. A line gives the fastest point that
reaches a recall, and its ratio to the fastest collection without a projection. --learn: projections are also learned
for the queries that are not searched for. --grow: N mixtures of the rows, in place of the rows.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import report
import sets

import qvec
from qvec.cli.codes import as_code
from qvec.codes.configs import projection_of
from qvec.datasets import Workload

K = 10
EFS = (12, 16, 20, 28, 40, 56, 80, 112, 160, 224)
OVERSAMPLES = (1, 1.5, 2, 3, 4)
TARGETS = (0.9, 0.95, 0.98, 0.99)
CODES = ("int8", "int8:projection=auto", "int4:projection=auto,centroids=0")


@dataclass
class Contestant:
    """``bytes``: a vector, of codes and index; ``all_bytes``: with the original. ``points``: recall and time of each
    (ef, oversample)."""

    name: str
    db: Any
    projected: bool
    bytes: float
    all_bytes: float
    points: dict[tuple[int, float], tuple[float, float]] = field(default_factory=dict)

    def run(self, data: Workload, queries: Any, ef: int, oversample: float) -> None:
        """Search for all queries once."""
        found = np.empty((len(queries), K), np.int64)
        start = time.thread_time()
        for i, query in enumerate(queries):
            found[i] = self.db.search(query, K, ef=ef, oversample=oversample).ids
        took = (time.thread_time() - start) / len(queries) * 1e6
        recall = self.points[ef, oversample][0] if (ef, oversample) in self.points else data.recall(found, K)
        least = min(took, self.points.get((ef, oversample), (0, np.inf))[1])
        self.points[ef, oversample] = recall, least

    def fastest(self, target: float) -> tuple[float, tuple[int, float]] | None:
        """The least time with which the target is reached, and the point."""
        return min(((us, point) for point, (recall, us) in self.points.items() if recall >= target), default=None)


def built(data: Workload, code: str, index: str, folder: str, learn: Any) -> Contestant:
    """Build a collection, and open it in memory."""
    config, name = as_code(code), f"{code} {index}"
    options: dict[str, Any] = {"metric": data.metric, "code": config, "index": index, "originals": "f16"}
    projected = projection_of(config) is not None
    if projected and len(learn):
        options |= {"sample": data.base, "queries": learn}
    path = Path(folder) / name
    start = time.process_time()
    with qvec.create(path, data.base.shape[1], durability="relaxed", **options) as db:
        db.add(data.base, threads=1)
        sizes, code_size = db.stats(), db.generations()[0].code_size
    index_bytes = (sizes.codes_bytes + sizes.graph_bytes) / len(data.base)
    if index == "packed":  # walks read nodes, which contain the codes, and no lists
        index_bytes -= code_size + 128
    print(f"{name}: {time.process_time() - start:.1f} s of CPU time, {code_size} bytes a code", flush=True)
    both = index_bytes + sizes.vectors_bytes / len(data.base)
    return Contestant(name, qvec.open(path, "r", memory="ram"), projected, index_bytes, both)


def compare(data: Workload, found: list[Contestant], queries: Any, rounds: int) -> list[dict[str, Any]]:
    """Measure all points, and return a row for each recall and collection."""
    for ef in EFS:
        for oversample in OVERSAMPLES:
            if K * oversample > ef:
                continue
            for turn in range(rounds):
                for one in found[:: 1 if turn % 2 else -1]:
                    one.run(data, queries, ef, oversample)
    rows = []
    for target in TARGETS:
        base = min((best[0] for one in found if not one.projected and (best := one.fastest(target))), default=np.nan)
        for one in found:
            best = one.fastest(target)
            row = {"set": data.name, "recall": target, "collection": one.name, "index bytes": round(one.bytes)}
            row |= {"with originals": round(one.all_bytes)}
            if best is not None:
                row |= {"us": round(best[0], 1), "speed": round(base / best[0], 2), "point": str(best[1])}
            rows.append(row)
    return rows


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--codes", nargs="*", default=list(CODES))
    parser.add_argument("--indexes", nargs="*", default=["hnsw", "packed"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--grow", type=int)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--learn", action="store_true")
    args = parser.parse_args()
    for name in args.set:
        data = sets.load(name, args.rows) if args.grow is None else sets.grown(name, args.grow)
        learn = data.queries[args.queries :] if args.learn else ()
        with tempfile.TemporaryDirectory() as folder:
            found = [built(data, code, index, folder, learn) for index in args.indexes for code in args.codes]
            for row in compare(data, found, data.queries[: args.queries], args.rounds):
                print("  ".join(f"{key} {value}" for key, value in row.items()))
                report.append("projection", row, args.json)


if __name__ == "__main__":
    main()
