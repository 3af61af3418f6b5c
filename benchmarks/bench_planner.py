"""Whether filtered searches choose the faster strategy: scoring all matches, or the index, over a grid of shares and k.

    python benchmarks/bench_planner.py [--set NAME] [--index hnsw ivf] [--code int8 int4] [--queries N] [--json FILE]

Both strategies run one after the other, timed by the thread's clock; the best of --rounds counts. A choice is good if
it takes at most 1.3 times the better strategy's time. The truth of both recalls is a scan of the originals.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import report
import sets

import qvec
from qvec._kernels import SearchParams, Selection
from qvec.quality.recall import recall
from qvec.search.options import SearchOptions
from qvec.search.plan import plan_search
from qvec.search.row_selection import selector_of
from qvec.search.strategy import choose_strategy

SHARES = (0.9, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.001)
KS = (1, 10, 50)
GOOD = 1.3


def microseconds(
    engine: Any, queries: Any, params: SearchParams, selection: Selection, rounds: int
) -> tuple[float, Any]:
    """Time of one query, by the thread's clock, and the hits of all."""
    best, found = np.inf, []
    for _ in range(rounds):
        start = time.thread_time_ns()
        found = [engine.search(q, params, 1, selection) for q in queries]
        best = min(best, (time.thread_time_ns() - start) / len(queries) / 1000)
    return best, distances_of(found)


def distances_of(found: Any) -> Any:
    """Exact distances of hits, float32 [queries, k]; infinite where there are fewer."""
    return np.array([np.where(ids >= 0, distances, np.inf) for ids, distances, _ in found])


def cell(db: qvec.Collection, queries: Any, share: float, k: int, rounds: int) -> dict[str, Any]:
    """Measure both strategies at one point of the grid, and the choice."""
    with db._store.read() as snap:
        engine = db._searches.engine(snap)
        assert engine is not None
        where = {"random": {"$lt": max(1, round(share * engine.live))}}
        selected = selector_of(snap).select(snap, where, None, "int64")
        params = plan_search(snap, engine, SearchOptions(k, include=()), k)
        chosen = choose_strategy(engine, params, selected)
        index = chosen
        if chosen.name == "brute_force":  # the strategy of a larger selection
            nprobe = min(max(1, round(params.nprobe / share)), engine.n_lists)
            wider = params.replace(ef=params.ef * 3 // 2, nprobe=nprobe)
            selection = selected.post_filter if engine.n_lists else selected.filtered_walk
            index = replace(chosen, params=wider, selection=selection)
        assert index.selection is not None
        exact = SearchParams(k, ef=1, exact=True)
        truth = distances_of([engine.search(q, exact, 1, selected.brute_force) for q in queries])
        scored, by_score = microseconds(engine, queries, params, selected.brute_force, rounds)
        indexed, by_index = microseconds(engine, queries, index.params, index.selection, rounds)
    taken = scored if chosen.name == "brute_force" else indexed
    return {
        "share": share, "k": k, "chosen": chosen.name, "scored us": scored, "index us": indexed,
        "scored recall": recall(by_score, truth).mean(), "index recall": recall(by_index, truth).mean(),
        "times the better": taken / min(scored, indexed),
    }  # fmt: skip


def measure(name: str, index: Any, code: str, n_queries: int, rounds: int) -> list[dict[str, Any]]:
    data = sets.load(name)
    payload = [{"random": int(i)} for i in np.random.default_rng(1).permutation(len(data.base))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qvec"
        fields: dict[str, Any] = {"random": "int"}
        with qvec.create(path, data.base.shape[1], metric=data.metric, code=code, index=index, fields=fields) as db:
            db.add(data.base, payloads=payload)
            cells = []
            for share in SHARES:
                for k in KS:
                    made = cell(db, data.queries[:n_queries], share, k, rounds)
                    print(", ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in made.items()))
                    cells.append(made)
            return cells


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--index", nargs="*", default=["hnsw", "ivf"], choices=["hnsw", "ivf"])
    parser.add_argument("--code", nargs="*", default=["int8", "int4"])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for name, index, code in product(args.set, args.index, args.code):
        cells = measure(name, index, code, args.queries, args.rounds)
        good = sum(made["times the better"] <= GOOD for made in cells)
        figures = {
            "set": name,
            "index": index,
            "code": code,
            "cells": len(cells),
            f"choices within {GOOD} times the better, %": 100 * good / len(cells),
            "worst choice, times the better": max(made["times the better"] for made in cells),
        }
        report.publish("planner", figures, args.json)


if __name__ == "__main__":
    main()
