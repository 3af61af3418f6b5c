"""One process that commits batches of 64 and four that search, by tests/reliability/writer_readers.py.

    python benchmarks/bench_processes.py [--rows 60000] [--seconds 20] [--json FILE]

Latency of searches with k = 10: one reader; four readers without a writer; four readers with the writer. With fewer
cores than processes, compare the third figure with the second.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import report

import qvec

sys.path.insert(0, str(Path(report.ROOT) / "tests" / "reliability"))

import writer_readers

PHASES = {"one reader": (1, 0), "four readers": (4, 0), "four readers and a writer": (4, 1)}


def prepare(path: Path, rows: int, dim: int) -> int:
    """Make a collection of whole batches; returns their number."""
    batches = rows // writer_readers.BATCH
    noise = np.random.default_rng(0).normal(size=(batches, writer_readers.BATCH, dim)).astype(np.float32)
    x = np.stack([writer_readers.center(batch, dim) for batch in range(batches)])[:, None] + np.float32(0.1) * noise
    payload = [{"batch": i // writer_readers.BATCH} for i in range(batches * writer_readers.BATCH)]
    with qvec.create(path, dim, metric="l2", code="int8", index="hnsw") as db:
        db.add(x.reshape(-1, dim), payloads=payload)
    return batches


def measure(path: Path, batches: int, seconds: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, (readers, writers) in PHASES.items():
        results = writer_readers.run(path, seconds, batches, readers=readers, writers=writers, checked=1)
        seen = results[writers:]
        times = np.concatenate([found["search_us"] for found in seen])
        figures |= {f"{name}: searches": len(times)} | report.quantiles(f"{name}: us", times.tolist())
        figures[f"{name}: half-seen batches"] = sum(found["half_seen"] for found in seen)
        figures[f"{name}: errors"] = sum(len(found["errors"]) for found in seen)
    figures["checks for half a batch"] = sum(found["checks"] for found in seen)
    figures["commits of 64"] = results[0]["commits"]
    figures |= report.quantiles("commit of 64, ms", results[0]["commit_ms"])
    loaded = figures["four readers and a writer: us, p99"]
    figures["p99 with a writer / p99 of one reader"] = loaded / figures["one reader: us, p99"]
    figures["p99 with a writer / p99 of four readers"] = loaded / figures["four readers: us, p99"]
    return figures


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "processes.qvec"
        figures = measure(path, prepare(path, args.rows, args.dim), args.seconds)
        with qvec.open(path) as db:
            figures["verify problems"] = len(db.verify())
    report.publish("processes", {"rows": args.rows, "dim": args.dim, "seconds": args.seconds, **figures}, args.json)
    faults = [value for name, value in figures.items() if "half-seen" in name or "errors" in name]
    return int(any(faults) or figures["verify problems"] > 0)


if __name__ == "__main__":
    sys.exit(main())
