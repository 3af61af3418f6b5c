"""Inverted lists compared with those of peers, at equal recall after re-ranking, with single queries on one thread.

    python benchmarks/bench_ivf.py [--set NAME ...] [--grow N] [--codes int8 rabitq1] [--json FILE]

Each contestant has its own process; trials are interleaved. rabitq1 is the smallest layout: only the lists are read.
"""

from __future__ import annotations

import report
import sets

from qvec import bench
from qvec.bench.figures import at_recall, curve
from qvec.bench.records import Result
from qvec.common.console import print_table

PEERS = ("faiss-ivf-pqfs", "faiss-ivf-rabitq", "scann")
COPIES = ("ivf:copies=2", "ivf:copies=1")
RECALLS = (0.9, 0.95, 0.99)


def cells(result: Result) -> list[tuple[str, ...]]:
    """A line for each contestant: queries/s at the recalls, build time, and bytes a vector."""
    lines = []
    for entry in result.entries:
        rates = [at_recall(curve(entry), recall) for recall in RECALLS]
        shown = ["not reached" if rate is None else f"{rate:,.0f}" for rate in rates]
        size = "-" if entry.file_bytes is None else f"{entry.file_bytes / result.dataset['n']:,.0f}"
        lines.append((str(entry.contestant), *shown, f"{entry.build_s:.1f}", size))
    return lines


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--grow", type=int, help="measure on this many mixtures of each set's vectors")
    parser.add_argument("--codes", nargs="*", default=["int8", "rabitq1"])
    parser.add_argument("--indexes", nargs="*", default=COPIES, help="as of qvec bench")
    parser.add_argument("--peers", nargs="*", default=PEERS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name in args.set:
        data = sets.workload(name) if args.grow is None else sets.grown(name, args.grow)
        own, unfit = bench.own_contestants(args.codes, args.indexes, data.base.shape[1], data.metric)
        peers, skipped = bench.choose_peers(args.peers, data.metric)
        result = bench.run(
            data, [*own, *peers], bench.Settings(rounds=args.rounds), skipped=unfit | skipped, notice=print
        )
        columns = ("contestant", *(f"q/s @{recall:g}" for recall in RECALLS), "build s", "file B/vector")
        print_table(f"{name}: {result.dataset['n']:,} vectors", columns, cells(result))
        if args.json:
            bench.write_lines(result, args.json)


if __name__ == "__main__":
    main()
