"""Recall against queries/s, build time and memory, with hnswlib in one run: `qvec bench` on the sets of sets.py.

    python benchmarks/bench_search.py [--set NAME] [--indexes hnsw packed] [--peers hnswlib rabitqlib] [--json FILE]

Each contestant has its own process; trials are interleaved at each point, and the best of --rounds counts. Queries/s at
a recall are interpolated log-linearly between the points of a curve. Builds use --threads threads.
"""

from __future__ import annotations

import report
import sets

from qvec import bench
from qvec.bench.table import print_points, print_summary


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--codes", nargs="*", default=["int8"])
    parser.add_argument("--indexes", nargs="*", default=["hnsw"])
    parser.add_argument("--peers", nargs="*", default=["hnswlib"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    settings = bench.Settings(build_threads=args.threads, rounds=args.rounds)
    for name in args.set:
        data = sets.workload(name)
        own, unfit = bench.own_contestants(args.codes, args.indexes, data.base.shape[1], data.metric)
        peers, skipped = bench.choose_peers(args.peers, data.metric)
        result = bench.run(data, [*own, *peers], settings, skipped=unfit | skipped)
        print_points(result)
        print_summary(result)
        if args.json:
            bench.write_lines(result, args.json)


if __name__ == "__main__":
    main()
