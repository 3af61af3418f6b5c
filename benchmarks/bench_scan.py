"""Flat scans of codes, compared with the memory bandwidth of one thread of this machine.

    python benchmarks/bench_scan.py [--codes int8 rabitq1 binary] [--dim 768] [--megabytes 400] [--json FILE]

Codes of random vectors, many times larger than the caches, without originals: a single query reads each code once.
Bandwidth is measured between the scans: the best of a plain loop of vector loads and of NumPy's sum and dot.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import bandwidth
import numpy as np
import report

import qvec
from qvec.common.console import print_table

BLOCK = 20_000
COLUMNS = ("code", "memory", "rows", "MB of codes", "ms a query", "codes/s, M", "GB/s", "share")


def fill(path: Path, code: str, dim: int, size: int) -> None:
    """A collection whose codes take about ``size`` bytes."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((BLOCK, dim), np.float32)
    with qvec.create(path, dim, metric="cosine", code=code, index="flat", originals="none") as db:
        while db.stats().codes_bytes < size:
            signs = rng.choice(np.array([-1, 1], np.float32), dim)  # other codes, and quicker than other numbers
            db.add(signs * np.roll(block, int(rng.integers(dim)), axis=1))


def measure(path: Path, code: str, memory: Any, traffic: bandwidth.Memory, dim: int, rounds: int) -> dict[str, Any]:
    """The best scan of some, single queries on one thread."""
    queries = np.random.default_rng(1).standard_normal((rounds + 1, dim), np.float32)
    with qvec.open(path, "r", memory=memory) as db:
        db.search(queries[-1], 10)
        best = np.inf
        for query in queries[:rounds]:
            start = time.perf_counter()
            db.search(query, 10)
            best = min(best, time.perf_counter() - start)
            traffic.read()
        stats = db.stats()
    size = stats.count * stats.code_size
    return {
        "code": code, "memory": memory, "rows": stats.count, "bytes": size, "ms": 1e3 * best,
        "codes_per_s": stats.count / best, "gb_per_s": size / best / 1e9,
    }  # fmt: skip


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--codes", nargs="+", default=["int8", "rabitq1", "binary"])
    parser.add_argument("--memory", nargs="+", default=["mmap", "ram"], choices=["mmap", "ram"])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--megabytes", type=int, default=400, help="of codes; several times the last cache")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    memory = bandwidth.Memory()
    found = []
    for code in args.codes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.qvec"
            fill(path, code, args.dim, args.megabytes << 20)
            found += [measure(path, code, each, memory, args.dim, args.rounds) for each in args.memory]
    rows = []
    for figures in found:
        figures |= {"dim": args.dim, "bandwidth": memory.gigabytes, "share": figures["gb_per_s"] / memory.gigabytes}
        report.append("scan", figures, args.json)
        rates = f"{figures['ms']:.2f}", f"{figures['codes_per_s'] / 1e6:,.1f}", f"{figures['gb_per_s']:.2f}"
        sizes = f"{figures['rows']:,}", f"{figures['bytes'] / 1e6:,.0f}"
        rows.append((figures["code"], figures["memory"], *sizes, *rates, f"{figures['share']:.2f}"))
    ways = ", ".join(f"{name} {rate:.2f}" for name, rate in memory.best.items())
    title = f"flat scans of {args.dim} dimensions, one thread, {qvec.simd_level()}; memory reads at {ways} GB/s"
    print_table(title, COLUMNS, rows)


if __name__ == "__main__":
    main()
