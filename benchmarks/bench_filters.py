"""Filtered queries/s at a recall, beside other libraries in one run.

    python benchmarks/bench_filters.py [--set NAME] [--peers faiss ...] [--share 0.5 ...] [--recall 0.95] [--json FILE]

Each filter is a range of an integer column that a share of the rows falls into: `random`, of no relation to the
vectors, or `near`, the rank of a row by its distance from a query. Queries of kind "near" are those nearest to that
query, "other" those farthest from it. Each library is taken at its least effort that reaches the recall; then all take
turns, single calls on one thread, the best of --rounds counts. Truth: each row that matches is compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sets
from filter_peers import ALL, Columns, Contestant, K, folder, installed

from qvec.datasets import exact_knn

SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
Search = Callable[[npt.NDArray[np.float32]], Any]


def columns_of(data: sets.Set) -> Columns:
    """A permutation of the rows, and their ranks by distance from the first query."""
    n = len(data.base)
    order = exact_knn(data.base, data.queries[:1], n, data.metric)[0][0]
    near = np.empty(n, np.int64)
    near[order] = np.arange(n)
    return {"random": np.random.default_rng(1).permutation(n), "near": near}


def questions(data: sets.Set, kind: str, count: int) -> npt.NDArray[np.float32]:
    """Queries of a kind, drawn or chosen by their distance from the first."""
    order = exact_knn(data.queries, data.queries[:1], len(data.queries), data.metric)[0][0]
    chosen = {"random": np.arange(count), "near": order[:count], "other": order[-count:]}[kind]
    return data.queries[chosen]


def recall(search: Search, queries: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
    found = [len(np.intersect1d(search(q), true)) for q, true in zip(queries, truth, strict=True)]
    return float(np.mean(found)) / truth.shape[1]


def least(
    contestant: Contestant, column: str, limit: int, queries: Any, truth: Any, target: float
) -> tuple[Search | None, int, float]:
    """A search of the least effort that reaches the target, its effort and recall; None: the most does not."""
    reached = 0.0
    for effort in contestant.efforts:
        search = contestant.prepare(column, limit, effort)
        reached = recall(search, queries, truth)
        if reached >= target:
            return search, effort, reached
    return None, contestant.efforts[-1], reached


def race(searches: dict[str, Search], queries: npt.NDArray[np.float32], rounds: int) -> dict[str, float]:
    """Queries/s of each, in turns; the best round of each."""
    best = dict.fromkeys(searches, 0.0)
    for _ in range(rounds):
        for name, search in searches.items():
            start = time.perf_counter()
            for query in queries:
                search(query)
            best[name] = max(best[name], len(queries) / (time.perf_counter() - start))
    return best


def compare(data: sets.Set, contestants: dict[str, Contestant], columns: Columns, args: argparse.Namespace) -> Any:
    for share in args.share:
        for kind in ("random", "near", "other"):
            column, limit = "random" if kind == "random" else "near", max(1, round(share * len(data.base)))
            match = np.flatnonzero(columns[column] < limit)
            queries = questions(data, kind, min(args.queries, len(data.queries)))
            truth = match[exact_knn(data.base[match], queries, min(K, len(match)), data.metric)[0]]
            made = {n: least(c, column, limit, queries, truth, args.recall) for n, c in contestants.items()}
            searches = {name: search for name, (search, _, _) in made.items() if search is not None}
            rates = race(searches, queries, args.rounds)
            shown = [
                f"{n} {rates[n]:,.0f}/s ({e}: {r:.3f})" if n in rates else f"{n} not reached ({r:.3f})"
                for n, (_, e, r) in made.items()
            ]
            print(f"{data.name} {share:7.2%} {kind:6} {len(match):>6} match: " + ", ".join(shown), flush=True)
            efforts = {name: [effort, reached] for name, (_, effort, reached) in made.items()}
            yield {"set": data.name, "share": share, "kind": kind, "qps": rates, "effort, recall": efforts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--peers", nargs="*", default=list(ALL), choices=ALL)
    parser.add_argument("--share", nargs="*", type=float, default=list(SHARES))
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append the figures to this file, one JSON object a line")
    args = parser.parse_args()
    kinds = installed(["qvec", *args.peers])
    for name in args.set:
        data = sets.load(name)
        columns = columns_of(data)
        with folder() as place:
            contestants = {}
            for kind in kinds:
                own = Path(place) / kind.module
                own.mkdir()
                contestants[kind.name] = kind(data, columns, own)
            for line in compare(data, contestants, columns, args):
                if args.json:
                    with args.json.open("a") as out:
                        out.write(json.dumps({"bench": "filters", **line}) + "\n")


if __name__ == "__main__":
    main()
