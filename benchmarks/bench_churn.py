"""Recall and file size after many deletes and adds, and the cost of single changes and of batches of upserts.

    python benchmarks/bench_churn.py [--set NAME] [--rows 50000] [--rounds 50] [--index hnsw packed] [--json FILE]

Five sixths of the set's rows are stored. Each round deletes a random tenth of the stored rows and adds as many others,
with new ids. Recall@10 is measured against brute force over the rows stored at that time, with the default ef and with
--ef. For comparison, recall and file size of a collection built from the same rows at once are printed.

Then, on all rows: single durable upserts and deletes, and batches of 1,000 upserts of stored ids,
interleaved with hnswlib's marking and replacing of deleted elements, on one thread each. qvec's changes are durable,
those of hnswlib are in memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import report
import sets

import qvec
from qvec.datasets import Workload, exact_knn

K = 10
BATCH = 1000
CHURN = 0.1
INDEXES: dict[str, Any] = {"hnsw": "hnsw", "packed": qvec.HNSW(layout="packed"), "ivf": "ivf", "flat": "flat"}


def seconds(task: Callable[[], Any]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


class Churned:
    """A collection under churn, and which row of the set each id stands for."""

    def __init__(self, data: Workload, index: Any, path: Path, rng: np.random.Generator) -> None:
        self.data, self.index, self.path, self.rng = data, index, path, rng
        self.order = rng.permutation(len(data.base))  # the stored rows come first
        self.n = len(data.base) * 5 // 6
        self.row_of = dict(enumerate(self.order[: self.n].tolist()))
        self.next_id = self.n
        self.db = self._make(path, self.order[: self.n], np.arange(self.n))

    def _make(self, path: Path, rows: Any, ids: Any) -> qvec.Collection:
        data = self.data
        db = qvec.create(path, data.base.shape[1], metric=data.metric, index=self.index)
        db.add(data.base[rows], ids)
        return db

    def round(self) -> None:
        """Delete a tenth, add as many."""
        count = round(CHURN * self.n)
        gone = self.rng.choice(list(self.row_of), count, replace=False).tolist()
        waiting = np.setdiff1d(self.order, list(self.row_of.values()))
        come = self.rng.choice(waiting, count, replace=False)
        self.db.delete(gone)
        for name in gone:
            del self.row_of[name]
        ids = np.arange(self.next_id, self.next_id + count)
        self.db.add(self.data.base[come], ids)
        self.row_of |= zip(ids.tolist(), come.tolist(), strict=True)
        self.next_id += count

    def compare(self, folder: Path, ef: int | None) -> dict[str, Any]:
        """Figures next to those of a collection that is built at once."""
        data, ids = self.data, np.array(list(self.row_of))
        rows = np.array(list(self.row_of.values()))
        stored = replace(data, base=data.base[rows])
        stored = replace(stored, truth=exact_knn(stored.base, stored.queries, K, stored.metric)[0])
        places = np.full(ids.max() + 1, -1)
        places[ids] = np.arange(len(ids))
        path = folder / "fresh.qvec"
        path.unlink(missing_ok=True)
        figures: dict[str, Any] = {}
        with self._make(path, rows, ids) as fresh:
            for name, db in (("churned", self.db), ("fresh", fresh)):
                for label, options in (("", {}), (f" at ef={ef}", {"ef": ef}))[: 1 if ef is None else 2]:
                    found = db.search(data.queries, K, include=(), **options).ids
                    figures[f"recall@10{label}, {name}"] = round(stored.recall(places[found], K), 4)
        figures["file, times a fresh one"] = self.path.stat().st_size / path.stat().st_size
        figures["deleted rows, %"] = 100 * self.db.stats().deleted / len(ids)
        figures["verify problems"] = len(self.db.verify())
        return figures


def singles(db: qvec.Collection, data: Workload, ids: Any, count: int) -> dict[str, float]:
    """One commit each."""
    rng = np.random.default_rng(2)
    chosen = rng.choice(ids, count, replace=False).tolist()
    upserts = [
        1000 * seconds(partial(db.upsert, data.queries[i % len(data.queries)], [j])) for i, j in enumerate(chosen)
    ]
    deletes = [1000 * seconds(partial(db.delete, [j])) for j in chosen]
    return report.quantiles("one durable upsert, ms", upserts) | report.quantiles("one durable delete, ms", deletes)


def batches(data: Workload, folder: Path, index: Any, count: int) -> dict[str, float]:
    """Upserts of stored ids in batches of 1,000, interleaved with hnswlib."""
    base, rng = data.base, np.random.default_rng(3)
    n = len(base)
    peer = hnswlib.Index(data.metric, base.shape[1])
    peer.init_index(n, ef_construction=200, M=16, allow_replace_deleted=True)
    peer.add_items(base, np.arange(n))
    labels, fresh = np.arange(n), n
    own, other = [], []

    def replace(gone: Any, x: Any, new: Any) -> None:
        for label in gone.tolist():
            peer.mark_deleted(label)
        peer.add_items(x, new, num_threads=1, replace_deleted=True)

    with qvec.create(folder / "batches.qvec", base.shape[1], metric=data.metric, index=index) as db:
        db.add(base, np.arange(n))
        for _ in range(count):
            at = rng.choice(n, BATCH, replace=False)
            x = base[rng.choice(n, BATCH, replace=False)]
            own.append(seconds(partial(db.upsert, x, at, threads=1)))
            other.append(seconds(partial(replace, labels[at], x, np.arange(fresh, fresh + BATCH))))
            labels[at] = np.arange(fresh, fresh + BATCH)
            fresh += BATCH
        figures = {
            "upserts by 1,000: qvec, rows/s": BATCH / float(np.median(own)),
            "upserts by 1,000: qvec, mean, rows/s": BATCH / float(np.mean(own)),
            "upserts by 1,000: hnswlib replace_deleted, rows/s": BATCH / float(np.median(other)),
            "upserts by 1,000: ratio of the means": float(np.mean(other) / np.mean(own)),
        }
        return figures | singles(db, data, np.arange(n), 200)


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", default=sets.names()[-1])
    parser.add_argument("--rows", type=int, default=50_000, help="stored; a fifth more wait outside")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--index", nargs="*", default=["hnsw"], choices=INDEXES)
    parser.add_argument("--ef", type=int, default=64)
    parser.add_argument("--batches", type=int, default=10)
    args = parser.parse_args()
    data = sets.load(args.set, args.rows * 6 // 5)
    for name in args.index:
        with tempfile.TemporaryDirectory() as folder:
            churned = Churned(data, INDEXES[name], Path(folder) / "churned.qvec", np.random.default_rng(1))
            ef = None if name in ("ivf", "flat") else args.ef
            with churned.db:
                times = []
                for done in range(1, args.rounds + 1):
                    times.append(seconds(churned.round))
                    if done % max(1, args.rounds // 5) == 0 and done < args.rounds:
                        print(f"after {done} rounds: {churned.compare(Path(folder), ef)}", flush=True)
                figures = {"set": args.set, "rows": churned.n, "index": name, "rounds": args.rounds}
                figures |= {"one round, s": float(np.median(times)), **churned.compare(Path(folder), ef)}
            if args.batches:
                figures |= batches(data, Path(folder), INDEXES[name], args.batches)
        report.publish("churn", figures, args.json)


if __name__ == "__main__":
    main()
