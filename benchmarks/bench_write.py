"""Durable single changes, and bulk adds compared with hnswlib with the same threads.

    python benchmarks/bench_write.py [--set NAME] [--rows 60000] [--threads 2] [--json FILE]

Single adds, upserts and deletes are committed one by one with durability="full"; bytes are wchar of /proc/self/io.
Bulk: five sixths of the rows are added to an empty index, then the remaining sixth.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import report
import sets

import qvec
from qvec.datasets import Workload

SPACES = {"cosine": "cosine", "l2": "l2", "ip": "ip"}


def seconds(task: Callable[[], Any]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def written() -> int:
    """Bytes that this process has passed to write(2) and similar calls."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def singles(db: qvec.Collection, x: sets.Float32, first: int) -> dict[str, Any]:
    """One commit each: adds, upserts of what was added, deletes."""
    figures: dict[str, Any] = {}
    ids = np.arange(first, first + len(x))
    for name, change in (
        ("add", lambda i: db.add(x[i], [ids[i]])),
        ("upsert", lambda i: db.upsert(x[-1 - i], [ids[i]])),
        ("delete", lambda i: db.delete([ids[i]])),
    ):
        before = written()
        times = [1000 * seconds(partial(change, i)) for i in range(len(x))]
        figures |= report.quantiles(f"one durable {name}, ms", times)
        figures[f"one durable {name}, KiB written, mean"] = (written() - before) / 1024 / len(x)
    return figures


def bulk(data: Workload, path: Path, threads: int) -> dict[str, Any]:
    """Rows per second of both libraries, interleaved."""
    x, cut = data.base, len(data.base) * 5 // 6
    peer = hnswlib.Index(SPACES[data.metric], x.shape[1])
    peer.init_index(len(x), ef_construction=200, M=16)
    with qvec.create(path, x.shape[1], metric=data.metric, code="int8", index="hnsw") as db:
        rates: dict[str, Any] = {}
        for name, rows in (
            (f"{cut} into an empty index", slice(0, cut)),
            (f"{len(x) - cut} into {cut}", slice(cut, None)),
        ):
            own = seconds(partial(db.add, x[rows], threads=threads))
            other = seconds(partial(peer.add_items, x[rows], num_threads=threads))
            count = len(x[rows])
            rates[f"{name}: qvec, rows/s"] = count / own
            rates[f"{name}: hnswlib, rows/s"] = count / other
            rates[f"{name}: ratio"] = other / own
    return rates


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", default=sets.names()[-1])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--singles", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    data = sets.load(args.set, args.rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "write.qvec"
        figures = bulk(data, path, args.threads)
        with qvec.open(path) as db:
            figures |= singles(db, data.queries[: args.singles], len(data.base))
            figures["file, MiB"] = path.stat().st_size / 2**20
            figures["verify problems"] = len(db.verify())
    report.publish("write", {"set": args.set, "rows": len(data.base), "threads": args.threads, **figures}, args.json)


if __name__ == "__main__":
    main()
