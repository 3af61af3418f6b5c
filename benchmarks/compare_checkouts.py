"""Queries/s at equal recall of two checkouts of qvec: single queries, one thread, in alternating passes.

    python benchmarks/compare_checkouts.py OTHER [--set NAME...] [--indexes hnsw packed] [--k 10] [--batch ROWS]

OTHER is another checkout whose kernels are compiled (`python setup.py build_ext --inplace`). Each checkout builds its
own collection in its own process, and answers all queries of a set once per pass. The passes of the two processes
alternate. A point is the least CPU time of --rounds passes. Queries/s at a recall are interpolated between the points.
The last column is the largest share of wall time that a pass waited for a core (schedstat): above 2 % the machine was
not quiet.
"""

from __future__ import annotations

import argparse
import inspect
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
EFS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640)
RECALLS = (0.90, 0.95, 0.98, 0.99)


class Worker:
    """A process that has built a collection with one checkout and answers one request at a time."""

    def __init__(self, checkout: Path, arguments: list[str], folder: Path) -> None:
        command = [sys.executable, __file__, "--worker", str(folder / checkout.name), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built = self.receive()

    def receive(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with code {self.process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def ask(self, ef: int) -> dict[str, float]:
        assert self.process.stdin is not None
        print(ef, file=self.process.stdin, flush=True)
        return self.receive()


def serve(folder: str, name: str, index: str, k: int, batch: int) -> None:
    """Build a collection of set ``name``; then read values of ef from stdin and write CPU time and recall to stdout."""
    import qvec

    data = Path(os.environ["QVEC_DATA"]) / name
    meta = json.loads((data / "meta.json").read_text())
    stored = data / "base.npy"
    base = np.load(stored) if stored.exists() else np.load(data / "base.npz")["base"]
    queries = np.load(data / "queries.npy").astype(np.float32)
    truth = np.load(data / "gt.npy")[:, :k]
    originals = "originals" if "originals" in inspect.signature(qvec.create).parameters else "keep"
    memory = "memory" if "memory" in inspect.signature(qvec.open).parameters else "residency"
    options: dict[str, Any] = {originals: "f16"}
    config = qvec.HNSW(layout="packed") if index == "packed" else index
    started = time.process_time()
    with qvec.create(folder, base.shape[1], metric=meta["metric"], code="int8", index=config, **options) as db:
        for start in range(0, len(base), batch or len(base)):
            db.add(base[start : start + (batch or len(base))].astype(np.float32), threads=2)
    seconds = time.process_time() - started
    db = qvec.open(folder, "r", **{memory: "index"})
    print(json.dumps({"seconds": seconds, "bytes": Path(folder).stat().st_size}), flush=True)
    for line in sys.stdin:
        ef = int(line)
        found = np.empty((len(queries), k), np.int64)
        waited, wall, cpu = _waited(), time.perf_counter(), time.thread_time()
        for i, query in enumerate(queries):
            found[i] = db.search(query, k, ef=ef).ids
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
        answer = {"rate": len(queries) / cpu, "recall": hits / truth.size, "waited": (_waited() - waited) / wall}
        print(json.dumps(answer), flush=True)


def _waited() -> float:
    """Seconds that this thread has waited for a core."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def curve(points: list[list[dict[str, float]]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Recalls, ascending, and the best rate that reaches each."""
    recalls = np.array([trials[0]["recall"] for trials in points])
    rates = np.array([max(trial["rate"] for trial in trials) for trials in points])
    return np.maximum.accumulate(recalls), rates


def at(recall: float, points: list[list[dict[str, float]]]) -> float:
    recalls, rates = curve(points)
    if not recalls[0] <= recall <= recalls[-1]:
        return float("nan")
    return float(np.exp(np.interp(recall, recalls, np.log(rates))))


def compare(other: Path, name: str, index: str, k: int, batch: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [name, index, str(k), str(batch)]
        workers = [Worker(checkout, arguments, Path(folder)) for checkout in (other, HERE)]
        points: list[list[list[dict[str, float]]]] = [[], []]
        for ef in (ef for ef in EFS if ef >= k):
            trials: list[list[dict[str, float]]] = [[], []]
            for turn in range(rounds):
                for side in (0, 1) if turn % 2 == 0 else (1, 0):
                    trials[side].append(workers[side].ask(ef))
            points[0].append(trials[0])
            points[1].append(trials[1])
        for worker in workers:
            worker.process.communicate()
    built = [f"{worker.built['seconds']:.1f} s, {worker.built['bytes'] / 1e6:.0f} MB" for worker in workers]
    waited = max(min(t["waited"] for t in trials) for side in points for trials in side)
    print(f"\n{name} {index} k={k}: built in CPU seconds {built[0]} and {built[1]}; core waited for: {waited:.1%}")
    print("recall   other q/s    this q/s   ratio")
    for recall in RECALLS:
        a, b = at(recall, points[0]), at(recall, points[1])
        print(f"  {recall:.2f}  {a:10,.0f}  {b:10,.0f}   {b / a:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--set", nargs="*", default=["wiki-minilm-384", "fashion-mnist-784"])
    parser.add_argument("--indexes", nargs="*", default=["hnsw", "packed"])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--batch", type=int, default=0, help="rows per add; 0: all rows in one add")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name in args.set:
        for index in args.indexes:
            compare(args.other.resolve(), name, index, args.k, args.batch, args.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(*sys.argv[2:5], *map(int, sys.argv[5:]))
    else:
        main()
