"""Recall against queries/s, build time and memory, with hnswlib in one run: `qvec bench` on the sets of sets.py.

    python benchmarks/bench_search.py [--set NAME] [--k 10 100] [--indexes hnsw packed] [--peers hnswlib rabitqlib]
        [--json FILE]

Each contestant has its own process and is built once, with --threads threads. Trials are interleaved at each point, and
the best of --rounds counts. Queries/s at a recall are interpolated log-linearly between the points of a curve. --json
appends the points with the commit and this command; `python benchmarks/results_page.py` makes the page and plots.
"""

from __future__ import annotations

import report
import sets

from qvec import bench
from qvec.bench.table import print_points, print_summary


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--k", nargs="*", type=int, default=[10])
    parser.add_argument("--codes", nargs="*", default=["int8"])
    parser.add_argument("--indexes", nargs="*", default=["hnsw"])
    parser.add_argument("--peers", nargs="*", default=["hnswlib"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="limit of the single queries of a trial")
    args = parser.parse_args()
    settings = bench.Settings(build_threads=args.threads, rounds=args.rounds, trial_seconds=args.seconds)
    for name in args.set:
        data = sets.workload(name)
        own, unfit = bench.own_contestants(args.codes, args.indexes, data.base.shape[1], data.metric)
        peers, skipped = bench.choose_peers(args.peers, data.metric)
        for result in bench.run_each(data, [*own, *peers], settings, args.k, skipped=unfit | skipped):
            print_points(result)
            print_summary(result)
            if args.json:
                bench.write_lines(result, args.json, report.origin())


if __name__ == "__main__":
    main()
