"""How queries/s, build time and memory grow with the number of vectors.

    python benchmarks/bench_growth.py [--set wiki-minilm-384] [--sizes 60000 ... 1000000] [--index packed] [--json FILE]

The sets are mixtures of the rows of a real set (qvec.datasets.grow). They are written to --folder the first time: 3 GB
and some minutes for the default sizes with 384 dimensions. Each size is built and searched in its own process.
"""

from __future__ import annotations

from pathlib import Path

import report
import sets

from qvec import bench
from qvec.bench.figures import at_recall, curve
from qvec.bench.records import Result
from qvec.common.console import print_table

SIZES = (60_000, 120_000, 250_000, 500_000, 1_000_000)
COLUMNS = ("rows", "q/s", "times the first", "build s", "peak / float32", "anonymous / float32", "file MB", "B/vector")


def cells(results: list[Result], recall: float, contestant: int) -> list[tuple[str, ...]]:
    """A row of the table for each size."""
    rows, first = [], None
    for result in results:
        entry, n, dim = result.entries[contestant], result.dataset["n"], result.dataset["dim"]
        rate = at_recall(curve(entry), recall)
        first = first or rate
        memory = entry.memory or {}
        shares = [None if size is None else size / (4 * n * dim) for size in (entry.peak_bytes, entry.peak_anonymous)]
        rows.append(
            (
                f"{n:,}",
                "not reached" if rate is None else f"{rate:,.0f}",
                "-" if rate is None or first is None else f"{rate / first:.2f}",
                f"{entry.build_s:.1f}",
                *("-" if share is None else f"{share:.2f}" for share in shares),
                "-" if entry.file_bytes is None else f"{entry.file_bytes / 1e6:,.0f}",
                f"{memory['rss'] / n:,.0f}" if memory else "-",
            )
        )
    return rows


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", default=sets.names()[-1])
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--code", default="int8")
    parser.add_argument("--index", nargs="+", default=["hnsw"], help="as of qvec bench: packed, ivf:nlist=4096, ...")
    parser.add_argument("--peers", nargs="*", default=[])
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=sets.GROWN)
    args = parser.parse_args()
    results = []
    for n in args.sizes:
        data = sets.grown(args.set, n, args.folder)
        own, unfit = bench.own_contestants([args.code], args.index, data.base.shape[1], data.metric)
        peers, skipped = bench.choose_peers(args.peers, data.metric)
        settings = bench.Settings(build_threads=args.threads, rounds=args.rounds)
        result = bench.run(data, [*own, *peers], settings, skipped=unfit | skipped, notice=print)
        if result.failed:
            raise SystemExit(f"{n:,} rows: {result.failed}")
        results.append(result)
        if args.json:
            bench.write_lines(result, args.json)
    for number, entry in enumerate(results[0].entries):
        heading = f"{entry.contestant} on mixtures of {args.set}: single queries at recall@10 {args.recall:g}"
        print_table(heading, COLUMNS, cells(results, args.recall, number))


if __name__ == "__main__":
    main()
