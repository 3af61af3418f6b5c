"""Searching a shared map of the file against a copy in memory, warm, in one run.

    python benchmarks/bench_residency.py [--set NAME] [--indexes hnsw packed] [--json FILE]

Each in a process of its own, in turns; both build the same index.
"""

from __future__ import annotations

import report
import sets

from qvec import bench
from qvec.console import print_table

COLUMNS = ("set, code, index", "point", "recall", "q/s mmap", "q/s ram", "ratio", "of medians")


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--code", default="int8")
    parser.add_argument("--indexes", nargs="*", default=["hnsw"], help="as of qvec bench")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rows = []
    for name in args.set:
        data = sets.workload(name)
        for index in args.indexes:
            both = [f"{index}{',' if ':' in index else ':'}residency={each}" for each in ("mmap", "ram")]
            contestants = bench.own_contestants([args.code], both, data.base.shape[1], data.metric)
            result = bench.run(data, contestants, bench.Settings(rounds=args.rounds))
            if result.failed:
                raise SystemExit(str(result.failed))
            mapped, copied = result.entries
            for one, other in zip(mapped.points, copied.points, strict=True):
                point = " ".join(f"{key}={value}" for key, value in one.search.items())
                ratios = one.qps / other.qps, one.qps_median / other.qps_median
                figures = f"{one.recall:.4f}", f"{one.qps:,.0f}", f"{other.qps:,.0f}", *(f"{r:.3f}" for r in ratios)
                rows.append((f"{name} {args.code} {index}", point, *figures))
            if args.json:
                bench.write_lines(result, args.json)
    print_table("mmap against ram, single queries, one thread", COLUMNS, rows)


if __name__ == "__main__":
    main()
