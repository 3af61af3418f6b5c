"""Whether ``choose`` names the best combination of code, index and effort, compared with measuring all of them.

    QVEC_DATA=/path/to/sets python benchmarks/bench_choose_index.py [--rows 20000] [-n 500] [set ...]

Brute force measures every combination that reaches the target on the queries of the screening, with all queries. Cases
are sets, targets and limits: none, two limits of bytes (the median of the combinations and half of it), and the
smallest code with a limit of latency (twice the time of the fastest). A case is won if the chosen combination costs at
most 10 % more than the best of brute force: by time, or by bytes. Both times are those of brute force, whose
combinations alternate.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import sets

from qvec.codes.registry import every_code
from qvec.common.types import NDArray
from qvec.datasets import Workload
from qvec.quality import combinations
from qvec.quality.choose import Target
from qvec.quality.combinations import EVERY_INDEX, Combination, Limits, Search
from qvec.quality.recall import OVERSAMPLES, make_problem
from qvec.quality.trial import Trial
from qvec.schema.config import Config

K = 10
TARGETS = (0.9, 0.95, 0.99)


def search_of(data: Workload, n: int, target: float) -> Search:
    config = Config(data.base.shape[1], data.metric, "int64", "f32", every_code()[0], None, None, 0)
    queries = data.queries[np.random.default_rng(0).permutation(len(data.queries))[:n]]
    none: NDArray[np.int64] = np.zeros(0, np.int64)
    problem = make_problem(data.base, queries, np.full(len(queries), -1), none, K, data.metric)
    return Search(Trial(config, data.base, 1), problem, Limits(Target(target), False), {})


def limits_of(measured: list[Combination], target: float) -> list[Limits]:
    middle = int(np.median([one.bytes for one in measured]))
    fastest = min(measured, key=lambda one: one.mean_ms)
    return [
        Limits(Target(target), False),
        Limits(Target(target, max_bytes=middle), False),
        Limits(Target(target, max_bytes=middle // 2), False),
        Limits(Target(target, max_p99_ms=2 * fastest.p99_ms), True),
    ]


def chosen(search: Search, screened: list[Combination], limits: Limits) -> Combination | None:
    tried = sorted(replace(search, limits=limits).finals(screened), key=limits.cost)
    return next((one for one in tried if limits.admits(one)), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=sets.names())
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--targets", type=float, nargs="*", default=TARGETS)
    args = parser.parse_args()
    won = cases = 0
    for name in args.sets:
        data = sets.load(name, args.rows)
        trial = None
        for target in args.targets:
            search = search_of(data, args.n, target)
            search = search if trial is None else replace(search, trial=trial)
            trial = search.trial
            screened = search.screen(every_code(), EVERY_INDEX, OVERSAMPLES, None)
            slack, finalists = combinations.SLACK, combinations.FINALISTS
            combinations.SLACK, combinations.FINALISTS = np.inf, len(screened)
            measured = search.finals(screened)
            combinations.SLACK, combinations.FINALISTS = slack, finalists
            for limits in limits_of(measured, target):
                best = min(filter(limits.admits, measured), key=limits.cost, default=None)
                found = chosen(search, screened, limits)
                cases += 1
                if best is None or found is None:
                    ratio = 1.0 if best is found else np.inf
                else:
                    same = [one for one in measured if (one.code, one.index) == (found.code, found.index)]
                    ratio = limits.cost(same[0])[0] / limits.cost(best)[0] if same else np.inf
                won += ratio <= 1.1
                print(f"{name} target {target}{limits.target.within or ' no limit'}: {ratio:.3f} of the best cost; "
                      f"chosen {found}; best {best}", flush=True)  # fmt: skip
    print(f"within 10 % of the best in {won} of {cases} cases")


if __name__ == "__main__":
    main()
