"""Filtered queries/s at a recall, compared with other libraries in one run.

    python benchmarks/bench_filters.py [--set NAME] [--peers faiss ...] [--share 0.5 ...] [--recall 0.95] [--json FILE]

Each filter is a range of an integer column that a given share of the rows matches. The column `random` is unrelated to
the vectors; `near` is the rank of a row by its distance from a query. Queries of kind "near" are those nearest to that
query, "other" those farthest from it. For each library, the smallest search parameter that reaches the recall is found;
then the trials of all libraries are interleaved, with single calls on one thread; the best of --rounds counts. The
truth is a scan of all matching rows. Slow libraries get fewer queries, at least 20. A library whose parameter is not
found within --seconds is cut off, which its line says.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sets
from filter_peers import ALL, Columns, Contestant, K, folder, installed

from qvec.datasets import Workload, exact_knn

KINDS = ("random", "near", "other")
LEAST_ASKED = 20
SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
Search = Callable[[npt.NDArray[np.float32]], Any]


def columns_of(data: Workload) -> Columns:
    """A permutation of the rows, and their ranks by distance from the first query."""
    n = len(data.base)
    order = exact_knn(data.base, data.queries[:1], n, data.metric)[0][0]
    near = np.empty(n, np.int64)
    near[order] = np.arange(n)
    return {"random": np.random.default_rng(1).permutation(n), "near": near}


def questions(data: Workload, kind: str, count: int) -> npt.NDArray[np.float32]:
    """Queries of a kind, drawn or chosen by their distance from the first."""
    order = exact_knn(data.queries, data.queries[:1], len(data.queries), data.metric)[0][0]
    chosen = {"random": np.arange(count), "near": order[:count], "other": order[-count:]}[kind]
    return data.queries[chosen]


class Found(NamedTuple):
    """The search of the least effort that reached the target (``search`` is None if no search did), and its recall."""

    search: Search | None
    effort: int
    recall: float
    asked: int
    cut: bool  # time was up

    def shown(self, rate: float | None) -> str:
        told = f"effort {self.effort}, recall {self.recall:.3f}, {self.asked} queries"
        if rate is None:
            return ("cut off" if self.cut else "not reached") + f" ({told})"
        return f"{rate:,.0f}/s ({told})"


def recall_within(search: Search, task: Workload, seconds: float) -> tuple[float, int]:
    """Recall over the queries that the time limit allows, and their number."""
    start, found = time.perf_counter(), []
    for query in task.queries:
        ids = np.asarray(search(query))
        found.append(np.pad(ids, (0, max(0, K - len(ids))), constant_values=-1)[:K])
        if len(found) >= LEAST_ASKED and time.perf_counter() - start > seconds:
            break
    return task.recall(found, min(K, task.truth.shape[1])), len(found)


def least(contestant: Contestant, column: str, limit: int, task: Workload, target: float, seconds: float) -> Found:
    """Try efforts in ascending order, each for at most a quarter of the time, until one reaches the target."""
    start, found = time.perf_counter(), Found(None, 0, 0.0, 0, True)
    for effort in contestant.efforts:
        search = contestant.prepare(column, limit, effort)
        reached, asked = recall_within(search, task, seconds / 4)
        if reached >= target:
            return Found(search, effort, reached, asked, False)
        found = Found(None, effort, reached, asked, effort != contestant.efforts[-1])
        if time.perf_counter() - start > seconds:
            break
    return found


def race(made: dict[str, Found], queries: Any, rounds: int, seconds: float) -> dict[str, float]:
    """Queries/s of each contestant that reached the target, interleaved; the best round of each within its time
    limit."""
    best = {name: 0.0 for name, found in made.items() if found.search is not None}
    for _ in range(rounds):
        for name in best:
            search, asked, start = made[name].search, 0, time.perf_counter()
            for query in queries[: made[name].asked]:
                search(query)
                asked += 1
                if time.perf_counter() - start > seconds / rounds:
                    break
            best[name] = max(best[name], asked / (time.perf_counter() - start))
    return best


def compare(data: Workload, contestants: dict[str, Contestant], columns: Columns, args: argparse.Namespace) -> Any:
    for share in args.share:
        for kind in args.kind:
            column, limit = "random" if kind == "random" else "near", max(1, round(share * len(data.base)))
            match = np.flatnonzero(columns[column] < limit)
            queries = questions(data, kind, min(args.queries, len(data.queries)))
            truth = match[exact_knn(data.base[match], queries, min(K, len(match)), data.metric)[0]]
            task = replace(data, queries=queries, truth=truth)
            print(f"{data.name} {share:.2%} {kind}, {len(match)} match", flush=True)
            made = {}
            for name, contestant in contestants.items():
                made[name] = least(contestant, column, limit, task, args.recall, args.seconds)
            rates = race(made, queries, args.rounds, args.seconds)
            for name, found in made.items():
                print(f"  {name:20} {found.shown(rates.get(name))}", flush=True)
            efforts = {name: [found.effort, found.recall, found.asked] for name, found in made.items()}
            yield {"set": data.name, "share": share, "kind": kind, "qps": rates, "effort, recall, queries": efforts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--peers", nargs="*", default=list(ALL), choices=ALL)
    parser.add_argument("--share", nargs="*", type=float, default=list(SHARES))
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--kind", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seconds", type=float, default=8, help="for a contestant to find its effort, and to race")
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
                start = time.perf_counter()
                contestants[kind.name] = kind(data, columns, own)
                print(f"{name}: {kind.name} built in {time.perf_counter() - start:.0f} s", flush=True)
            for line in compare(data, contestants, columns, args):
                if args.json:
                    with args.json.open("a") as out:
                        out.write(json.dumps({"bench": "filters", **line}) + "\n")


if __name__ == "__main__":
    main()
