"""Searches of a shared map of the file, compared with copies in memory; warm, in one run.

    python benchmarks/bench_memory.py [--set NAME] [--indexes hnsw packed] [--json FILE]

Each has its own process and builds the same index; trials are interleaved.
"""

from __future__ import annotations

import report
import sets

from qvec import bench
from qvec.common.console import print_table

WAYS = "mmap", "index", "ram"
COLUMNS = ("set, code, index", "point", "recall", *(f"q/s {each}" for each in WAYS), "mmap by ram", "of medians")


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
            ways = [f"{index}{',' if ':' in index else ':'}memory={each}" for each in WAYS]
            contestants, _ = bench.own_contestants([args.code], ways, data.base.shape[1], data.metric)
            result = bench.run(data, contestants, bench.Settings(rounds=args.rounds))
            if result.failed:
                raise SystemExit(str(result.failed))
            for points in zip(*(entry.points for entry in result.entries), strict=True):
                mapped, copied = points[0], points[-1]
                point = " ".join(f"{key}={value}" for key, value in mapped.search.items())
                ratios = mapped.qps / copied.qps, mapped.qps_median / copied.qps_median
                figures = (
                    f"{mapped.recall:.4f}",
                    *(f"{each.qps:,.0f}" for each in points),
                    *(f"{r:.3f}" for r in ratios),
                )
                rows.append((f"{name} {args.code} {index}", point, *figures))
            if args.json:
                bench.write_lines(result, args.json)
    print_table("the map against copies, single queries, one thread", COLUMNS, rows)


if __name__ == "__main__":
    main()
