"""Whether the code that is chosen holds its recall on fresh queries, and is the one that brute force would choose.

    QVEC_DATA=/path/to/sets python benchmarks/bench_choose.py [--trials 100] [--rows 20000] [--queries 400] [set ...]

Each trial draws queries afresh, chooses on them by the rule of ``choose``, and is judged on the set's other
queries. Brute force chooses the smallest code and oversampling whose recall over all queries meets the target. Recall
by code is computed once for each query and code, and trials draw from it: it is that of ``evaluate`` on a flat index.
"""

from __future__ import annotations

import argparse

import numpy as np
import sets

from qvec.errors import InputError
from qvec.evaluation.choose import Target, choose
from qvec.evaluation.evaluate import OVERSAMPLES
from qvec.evaluation.report import Report, Row
from qvec.measure import make_problem, recalls_by_code, wilson
from qvec.quantizers import CONFIGS, train

K = 10
TARGETS = (0.9, 0.95, 0.99)
Key = tuple[int, int, str]


def all_recalls(data: sets.Set) -> dict[Key, np.ndarray]:
    """Recall of every query by (bytes, oversampling, code)."""
    nq, none = len(data.queries), np.zeros(0, np.int64)
    problem = make_problem(data.base, data.queries, np.full(nq, -1), none, K, data.metric)
    found: dict[Key, np.ndarray] = {}
    for kind, config in CONFIGS.items():
        try:
            quantizer = train(data.base, data.metric, config())
        except InputError:
            continue
        by_depth = recalls_by_code(quantizer, quantizer.encode(data.base), problem, [K * o for o in OVERSAMPLES])
        found |= {(quantizer.code_size, depth // K, kind): recalls for depth, recalls in by_depth.items()}
    return found


def report_of(recalls: dict[Key, np.ndarray], drawn: np.ndarray) -> Report:
    rows = []
    for (size, oversample, kind), values in recalls.items():
        interval = wilson(values[drawn], K)
        rows.append(Row(kind, CONFIGS[kind](), size, oversample, *interval, 1 - interval.mean, 0.0, None, None))
    return Report(K, 0, len(drawn), False, "flat", rows, {})


def run(data: sets.Set, trials: int, n_queries: int) -> None:
    recalls, rng = all_recalls(data), np.random.default_rng(0)
    n = len(data.queries)
    for target in TARGETS:
        best = min(key for key, values in recalls.items() if values.mean() >= target)
        held = same_code = same = 0
        for _ in range(trials):
            order = rng.permutation(n)
            row = choose(report_of(recalls, order[:n_queries]), Target(target), None).row  # type: ignore[arg-type]
            if row is None:
                continue
            key = (row.bytes, row.oversample, row.code)
            held += recalls[key][order[n_queries:]].mean() >= target
            same_code += row.code == best[2]
            same += key == best
        truth = f"brute force: {best[2]} x{best[1]}, recall {recalls[best].mean():.4f}"
        print(f"{data.name} target {target}, of {trials}: held on fresh queries {held}, the best code {same_code}, "
              f"with its oversampling {same}; {truth}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=sets.names())
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--queries", type=int, default=500)
    args = parser.parse_args()
    for name in args.sets:
        run(sets.load(name, args.rows), args.trials, args.queries)


if __name__ == "__main__":
    main()
