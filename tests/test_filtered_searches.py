"""Filtered searches find the nearest matching vectors with each strategy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.filter_model import matches
from helpers.vectors import clustered
from qvec._kernels import SearchParams
from qvec.index import make_index
from qvec.search.strategy import choose_strategy

GRAPHS = [qvec.HNSW(m=8, ef_construction=60), qvec.HNSW(m=16, ef_construction=60, layout="packed")]


@pytest.mark.parametrize("walks", ["where they are faster", "always"])
@pytest.mark.parametrize("index", ["flat", *GRAPHS, qvec.IVF(nlist=80)])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.slow
def test_filtered_searches_find_the_nearest_that_match(
    path: Path, metric: Any, index: Any, walks: str, monkeypatch: Any
) -> None:
    if walks == "always":  # at every share, of few rows too
        monkeypatch.setattr("qvec.search.strategy.BYTES_PER_SLOT", 0)
        monkeypatch.setattr("qvec.search.strategy.PROBE_COST_IN_ROWS", 0)
    rng = np.random.default_rng(9)
    x = clustered(rng, 6000, 16)
    near = np.argsort(((x - x[0]) ** 2).sum(axis=1)).argsort()  # 0: the nearest to the first
    payload = [{"random": int(rng.integers(1000)), "place": int(place)} for place in near]
    with qvec.create(path, 16, metric=metric, index=index, fields={"random": "int", "place": "int"}) as db:
        db.add(x, payloads=payload)
        db.delete(list(range(0, 6000, 7)))
        queries, found, wanted = x[1:41], 0, 0
        filters = [{"random": {"$lt": limit}} for limit in (500, 100, 10, 1)]
        filters += [{"place": {"$gte": 3000}}, {"place": {"$lt": 600}}, {"place": {"$gte": 5990}}]
        for where in filters:
            hits, exact = db.search(queries, 10, where=where), db.search(queries, 10, where=where, exact=True)
            count = min(10, db.count(where))
            assert (hits.counts == count).all()
            assert (exact.counts == count).all()
            for row, true in zip(hits.ids, exact.ids, strict=True):
                assert all(matches(payload[i], where) and i % 7 for i in row[:count].tolist())
                found += len(set(row[:count].tolist()) & set(true[:count].tolist()))
                wanted += count
        assert found / wanted >= 0.97


def test_explanations_name_the_strategy_of_a_filtered_search(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("qvec.search.strategy.BYTES_PER_SLOT", 1000)
    x = clustered(np.random.default_rng(9), 6000, 16)
    with qvec.create(path, 16, index=qvec.HNSW(m=8, ef_construction=40), fields={"n": "int"}) as db:
        db.add(x, payloads=[{"n": i} for i in range(6000)])
        few = db.search(x[0], where={"n": {"$lt": 50}}, include=("payloads", "explanation")).explanation
        most = db.search(x[0], where={"n": {"$gte": 500}}, include=("payloads", "explanation")).explanation
        nothing = db.search(x[0], where={"n": -1}, include=("payloads", "explanation")).explanation
        exact = db.search(x[0], where={"n": {"$lt": 50}}, exact=True, include=("payloads", "explanation")).explanation
    assert few is not None
    assert (few.strategy, few.matching, few.evaluations, few.hops) == ("brute_force", 50, 50, 0)
    assert most is not None
    assert (most.strategy, most.matching) == ("filtered_walk", 5500)
    assert 0 < most.evaluations < 3000
    assert nothing is not None
    assert exact is not None
    assert (nothing.strategy, exact.strategy, exact.evaluations) == ("empty", "exact", 50)


def test_a_loose_filter_over_inverted_lists_scans_lists_and_not_every_match(path: Path) -> None:
    x = clustered(np.random.default_rng(9), 6000, 16)
    with qvec.create(path, 16, index=qvec.IVF(nlist=80), fields={"n": "int"}) as db:
        db.add(x, payloads=[{"n": i} for i in range(6000)])
        most = db.search(x[0], where={"n": {"$gte": 500}}, include=("payloads", "explanation")).explanation
        few = db.search(x[0], where={"n": {"$lt": 50}}, include=("payloads", "explanation")).explanation
    assert most is not None
    assert few is not None
    assert (most.strategy, most.matching) == ("filtered_probe", 5500)
    assert most.evaluations < 5500
    assert (few.strategy, few.evaluations) == ("brute_force", 50)


@pytest.mark.parametrize(("code_size", "dim", "ef", "walked", "scored"), [
    (448, 384, 64, 12_000, 6_000),  # int8
    (208, 384, 64, 12_000, 6_000),  # int4 is fetched sooner, and unpacked later
    (208, 384, 100, 12_000, 6_000),
    (848, 784, 64, 6_000, 3_000),
    (408, 784, 64, 6_000, 3_000),
    (408, 784, 100, 6_000, 3_000),
])  # fmt: skip
def test_the_faster_strategy_is_chosen_in_measured_cases(
    code_size: int, dim: int, ef: int, walked: int, scored: int
) -> None:
    """Matches of 60,000 rows among which the walk, or scoring each, took less time (docs/adr/0009)."""
    quantizer = SimpleNamespace(code_size=code_size, codec=SimpleNamespace(dim=dim))
    engine: Any = SimpleNamespace(index=make_index(qvec.HNSW()), n_lists=0, live=60_000, quantizer=quantizer)
    for name, count in (("filtered_walk", walked), ("brute_force", scored)):
        selected: Any = SimpleNamespace(count=count, strategies={}, filtered_walk=None, brute_force=None)
        assert choose_strategy(engine, SearchParams(10, ef=ef, candidates=10), selected).name == name
