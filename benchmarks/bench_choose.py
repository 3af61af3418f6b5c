"""Whether the code chosen by ``choose`` reaches its recall on new queries, and is the one that brute force finds.

    QVEC_DATA=/path/to/sets python benchmarks/bench_choose.py [--trials 100] [--rows 20000] [set ...]

The collection is the first rows of a set. Each row is also a query, searched among the others, as in ``choose`` without
queries. A trial draws queries in random order and applies the rule of ``choose``, with 500 queries at first and
16,000 (or half of all) at most; the result is tested on the queries that were not drawn. Brute force takes the
smallest code, and its smallest oversampling, whose recall over all queries meets the target; of equally small ones,
that with the highest recall. "A smallest code" counts each choice with as few bytes whose recall over all queries meets
the target. The largest recall of any smaller choice tells how hard the decision was. Recall by code is that of
``evaluate`` on a flat index.
"""

from __future__ import annotations

import argparse

import numpy as np
import sets

from qvec.codes.configs import CodeConfig
from qvec.codes.registry import every_code, train
from qvec.common.errors import InputError
from qvec.datasets import Workload
from qvec.quality.choose import Measure, Target, choose
from qvec.quality.recall import OVERSAMPLES, make_problem, recalls_by_code, wilson
from qvec.quality.report import Report, Row, label_of

K = 10
N, MAX_N = 500, 16_000  # the defaults of choose
TARGETS = (0.9, 0.95, 0.975, 0.99)
Key = tuple[int, int, str]


def all_recalls(data: Workload) -> dict[Key, np.ndarray]:
    """Recall of every query by (bytes, oversampling, code)."""
    own, none = np.arange(len(data.base)), np.zeros(0, np.int64)
    problem = make_problem(data.base, data.base, own, none, K, data.metric)
    found: dict[Key, np.ndarray] = {}
    for config in every_code():
        try:
            quantizer = train(data.base, data.metric, config)
        except InputError:
            continue
        by_depth = recalls_by_code(quantizer, quantizer.encode(data.base), problem, [K * o for o in OVERSAMPLES])
        found |= {(quantizer.code_size, depth // K, label_of(config)): recalls for depth, recalls in by_depth.items()}
    return found


def measuring(recalls: dict[Key, np.ndarray], order: np.ndarray, most: list[int]) -> Measure:
    """What ``choose`` measures by: queries in an order; ``most`` keeps the largest number that was asked for."""

    named = {label_of(config): config for config in every_code()}

    def measure(configs: list[CodeConfig] | None, n: int, z: float) -> Report:
        most[0] = max(most[0], n)
        rows = []
        for (size, oversample, kind), values in recalls.items():
            if configs is None or named[kind] in configs:
                interval = wilson(values[order[:n]], K, z)
                rows.append(Row(kind, named[kind], size, oversample, *interval, 1 - interval.mean, 0.0, None, None))
        return Report(K, len(order), n, True, "flat", rows, {})

    return measure


def run(data: Workload, trials: int) -> None:
    recalls, rng = all_recalls(data), np.random.default_rng(0)
    n = len(data.base)
    for target in TARGETS:
        means = {key: values.mean() for key, values in sorted(recalls.items())}
        best = min((key for key, mean in means.items() if mean >= target), key=lambda key: (*key[:2], -means[key]))
        closest = max((mean for key, mean in means.items() if key[:2] < best[:2]), default=0.0)
        held = smallest = same_code = same = 0
        drawn = []
        for _ in range(trials):
            order, most = rng.permutation(n), [0]
            measure = measuring(recalls, order, most)
            chosen = choose(measure, Target(target), N, min(MAX_N, n // 2), None).row  # type: ignore[arg-type]
            drawn.append(most[0])
            if chosen is None:
                continue
            key = (chosen.bytes, chosen.oversample, chosen.code)
            held += recalls[key][order[most[0] :]].mean() >= target
            smallest += key[0] == best[0] and means[key] >= target
            same_code += chosen.code == best[2]
            same += key == best
        truth = f"brute force: {best[2]} x{best[1]}, recall {means[best]:.4f}; the nearest smaller {closest:.4f}"
        print(f"{data.name} target {target}, of {trials}: held on fresh queries {held}, a smallest code {smallest}, "
              f"the one with the highest recall {same_code}, with its oversampling {same}; "
              f"{np.mean(drawn):,.0f} queries drawn; {truth}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=sets.names())
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000)
    args = parser.parse_args()
    for name in args.sets:
        run(sets.load(name, args.rows), args.trials)


if __name__ == "__main__":
    main()
