"""Microseconds of a single search that are spent outside the kernels, with and without 10 payloads.

    python benchmarks/bench_facade.py [OTHER] [--set NAME...] [--code int8] [--rounds 6] [--json FILE]

OTHER is another checkout whose kernels are compiled: the passes of both then alternate, each checkout in its own
process, and each figure is followed by the ratio of this checkout to the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1]
KINDS = ("plain", "payloads")
ROWS, K, EF = 10_000, 10, 40


def serve(folder: str, name: str, code: str) -> None:
    """Build two collections of a set; for each line of stdin, write the costs of one pass over all queries."""
    import qvec

    data = Path(os.environ["QVEC_DATA"]) / name
    metric = json.loads((data / "meta.json").read_text())["metric"]
    stored = data / "base.npy"
    base = (np.load(stored) if stored.exists() else np.load(data / "base.npz")["base"])[:ROWS].astype(np.float32)
    queries = np.load(data / "queries.npy").astype(np.float32)
    opened: dict[str, Any] = {}
    for kind in KINDS:
        with qvec.create(f"{folder}/{kind}.qvec", base.shape[1], metric=metric, code=code, index="hnsw") as db:
            payloads = None if kind == "plain" else [{"n": i, "title": f"row {i}"} for i in range(len(base))]
            db.add(base, None, payloads)  # by position: other checkouts have other names
        opened[kind] = qvec.open(f"{folder}/{kind}.qvec", "r")
    print("{}", flush=True)
    for _ in sys.stdin:
        found = {kind: costs(opened[kind], queries, kind == "payloads") for kind in KINDS}
        print(json.dumps(found), flush=True)


def costs(db: Any, queries: Any, payloads: bool) -> list[float]:
    """Microseconds of each search that are not spent inside the kernels."""
    outside = []
    for query in queries:
        db.search(query, K, ef=EF)  # the same query again: its rows are in the cache, the kernels' time is steady
        before = kernel_ns(db)
        start = time.perf_counter_ns()
        hits = db.search(query, K, ef=EF)
        if payloads:
            _ = hits.payloads
        elapsed = time.perf_counter_ns() - start
        outside.append((elapsed - (kernel_ns(db) - before)) / 1000)
    return outside


def kernel_ns(db: Any) -> int:
    """Nanoseconds that searches of this view have spent inside the kernels."""
    with db._store.read() as snap:
        return int(snap.derived["engine"].work[2])


class Worker:
    """A process that measures one checkout, one pass for each request."""

    def __init__(self, checkout: Path, folder: Path, name: str, code: str) -> None:
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(folder), name, code],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.receive()

    def receive(self) -> dict[str, list[float]]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with code {self.process.wait()}")
        answer: dict[str, list[float]] = json.loads(line)
        return answer

    def measure(self) -> dict[str, list[float]]:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return self.receive()


def compare(checkouts: list[Path], name: str, code: str, rounds: int) -> dict[str, Any]:
    """Medians over all queries of the least cost of each query."""
    with tempfile.TemporaryDirectory() as folder:
        workers = [Worker(checkout, Path(folder) / str(i), name, code) for i, checkout in enumerate(checkouts)]
        passes: list[list[dict[str, list[float]]]] = [[] for _ in workers]
        for turn in range(rounds):
            for i in range(len(workers))[:: 1 if turn % 2 == 0 else -1]:
                passes[i].append(workers[i].measure())
        for worker in workers:
            worker.process.communicate()
    figures: dict[str, Any] = {"set": name, "code": code}
    for kind in KINDS:
        medians = [float(np.median(np.min([one[kind] for one in found], axis=0))) for found in passes]
        figures[f"{kind}, us"] = medians[0]
        if len(medians) > 1:
            figures |= {f"{kind}, us, other": medians[1], f"{kind}, ratio": medians[0] / medians[1]}
    return figures


def main() -> None:
    import report
    import sets

    parser = report.arguments(__doc__)
    parser.add_argument("other", nargs="?", type=Path)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--code", default="int8")
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    checkouts = [HERE] if args.other is None else [HERE, args.other.resolve()]
    for name in args.set:
        report.publish("facade", compare(checkouts, name, args.code, args.rounds), args.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(*sys.argv[2:5])
    else:
        main()
