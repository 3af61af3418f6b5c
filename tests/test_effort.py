"""Search effort per query: the kernels' stages against plain searches and NumPy; policies; recall= with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec._kernels import MAX_STAGES, N_FEATURES, EffortTable, SearchParams
from qvec.common.types import Float32Array
from qvec.quality.effort import Measured, last_stages, policies
from qvec.search.curves import Policy
from qvec.search.engine import Engine

DIM, N, K = 32, 4000, 10
INDEXES = {"hnsw": qvec.HNSW(), "packed": qvec.HNSW(layout="packed"), "ivf": qvec.IVF()}


@pytest.fixture(scope="module")
def x() -> Float32Array:
    rng = np.random.default_rng(7)
    return clustered(rng, N + 1200, DIM, 150) + rng.normal(size=(N + 1200, DIM)).astype(np.float32)


def engine_of(db: qvec.Collection) -> tuple[Any, Engine]:
    snap = db._store.begin()
    engine = db._searches.engine(snap)
    assert engine is not None
    return snap, engine


def table(widths: list[int], last: int) -> EffortTable:
    """Every query ends after stage ``last``."""
    go_on = np.zeros((len(widths), N_FEATURES), np.float32)
    go_on[:last, 0] = 1
    return EffortTable(K, widths, go_on, np.zeros_like(go_on))


def params(engine: Engine, width: int, candidates: int = 0, effort: EffortTable | None = None) -> SearchParams:
    if engine.n_lists:
        return SearchParams(K, nprobe=min(width, engine.n_lists), candidates=candidates, effort=effort)
    return SearchParams(K, ef=width, candidates=candidates, effort=effort)


@pytest.mark.simd
@pytest.mark.parametrize("index", INDEXES)
def test_one_stage_finds_what_a_search_of_its_width_finds(tmp_path: Path, x: Float32Array, index: str) -> None:
    with qvec.create(tmp_path / "a", DIM, metric="l2", index=INDEXES[index]) as db:
        db.add(x[:N])
        snap, engine = engine_of(db)
        for width in (12, 40):
            plain = engine.search(x[N:], params(engine, width, 12))
            rows, distances, counts, _, features = engine.trace(x[N:], params(engine, width, 12, table([width], 0)))
            for one, other in zip(plain, (rows, distances, counts), strict=True):
                assert np.array_equal(one, other)
            assert (features[:, N_FEATURES] == 0).all()
        db._store.end(snap)


@pytest.mark.simd
@pytest.mark.parametrize("index", INDEXES)
def test_features_are_those_of_the_nearest_rows(tmp_path: Path, x: Float32Array, index: str) -> None:
    widths = [10, 20, 40]
    with qvec.create(tmp_path / "a", DIM, metric="l2", index=INDEXES[index]) as db:
        db.add(x[:N])
        snap, engine = engine_of(db)
        before = np.zeros((1200, 0), np.int64)
        for last in range(3):
            hops = engine.work[0]
            found = engine.trace(x[N:], params(engine, 40, 0, table(widths, last)))
            hops = engine.work[0] - hops
            rows, keys, features = found[0], found[1].astype(np.float64), found[4]
            assert (features[:, 0] == 1).all()
            assert (features[:, N_FEATURES] == last).all()
            new = [K - len(np.intersect1d(a, b)) for a, b in zip(rows, before, strict=True)]
            assert index == "packed" or np.allclose(features[:, 1] * K, new)
            if index == "packed" and last < 2:  # a node that was on its way is expanded after the decision
                assert (features[:, 2] >= keys[:, -1] - 1e-4).all()
                assert np.isclose(features[:, 2], keys[:, -1]).mean() > 0.2
                before = rows
                continue
            assert np.allclose(features[:, 2], keys[:, -1])
            span = keys[:, -1] - keys[:, 0]
            assert np.allclose(features[:, 4], np.log(span), atol=1e-4)
            assert np.allclose(features[:, 5], (keys[:, -1] - keys[:, K // 2]) / span, atol=1e-3)
            assert np.allclose(features[:, 7], keys[:, 0])
            assert (features[:, 3] >= np.log(1e-3 * span) - 1e-3).all()  # the frontier lies beyond the hits
            if not engine.n_lists:
                work = widths[last] * np.exp(features[:, 6].astype(np.float64)) - 1
                assert work.sum() == pytest.approx(hops, rel=0.02)
            before = rows
        db._store.end(snap)


@pytest.mark.parametrize("index", INDEXES)
def test_later_stages_find_nearly_what_wider_searches_find(tmp_path: Path, x: Float32Array, index: str) -> None:
    widths = [10, 13, 17, 22, 29, 38, 50]
    with qvec.create(tmp_path / "a", DIM, metric="l2", index=INDEXES[index]) as db:
        db.add(x[:N])
        snap, engine = engine_of(db)
        true = engine.search(x[N:], SearchParams(K, exact=True))[0]
        for last in (6,) if index == "packed" else (2, 6):  # packed searches expand more than ef nodes; stages do not
            plain = engine.search(x[N:], params(engine, widths[last], 12))[0]
            staged = engine.trace(x[N:], params(engine, 50, 12, table(widths, last)))[0]
            assert recall(staged, true) >= recall(plain, true) - 0.01
        db._store.end(snap)


def test_bad_tables_are_refused() -> None:
    good = np.zeros((2, N_FEATURES), np.float32)
    for widths, weights in [
        ([10, 10], good), ([20, 10], good), ([0, 10], good), ([10], good), ([], good[:0]),
        (range(1, MAX_STAGES + 2), np.zeros((MAX_STAGES + 1, N_FEATURES))), ([1, 2], good + np.nan),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match="an effort table"):
            EffortTable(K, list(widths), weights, good)
    with pytest.raises(ValueError, match="1 to 1024 hits"):
        EffortTable(0, [1, 2], good, good)
    assert (
        EffortTable(K, [1, 2], good, good) == EffortTable(K, [1, 2], good, good) != EffortTable(K, [1, 3], good, good)
    )


def simulated(rng: np.random.Generator, n: int) -> Measured:
    """Queries of different hardness, which the second feature tells."""
    hardness = rng.uniform(0, 1, n)
    stages = np.arange(1, 9)[:, None]
    recalls = np.clip(1 - hardness * np.exp(-stages / 3) + rng.normal(0, 0.02, (8, n)), 0, 1)
    features = np.zeros((8, n, N_FEATURES))
    features[..., 0], features[..., 1] = 1, hardness + rng.normal(0, 0.05, n)
    return Measured(features, recalls, np.broadcast_to(2.0**stages, (8, n)).copy())


def test_a_policy_spends_effort_on_hard_queries(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    taught, tested = simulated(rng, 600), simulated(rng, 4000)
    fixed = tested.recalls.mean(axis=1), tested.costs.mean(axis=1)
    gains = []
    for policy in policies(taught, 0):
        ends = last_stages(policy.go_on.astype(np.float64), tested)
        queries = np.arange(4000)
        found, cost = tested.recalls[ends, queries], tested.costs[ends, queries].mean()
        assert policy.recalls.mean() == pytest.approx(found.mean(), abs=0.02)
        if 0.8 < found.mean() < 0.97:
            gains.append(np.interp(found.mean(), *fixed) / cost)
        expected = (tested.features[ends, queries] * policy.recall[ends]).sum(axis=1)
        assert expected.mean() == pytest.approx(found.mean(), abs=0.02)
    assert max(gains) > 1.2
    assert min(gains) > 0.97


@pytest.mark.parametrize("index", INDEXES)
def test_recall_holds_on_other_queries_with_calibrated_estimates(tmp_path: Path, x: Float32Array, index: str) -> None:
    asked, others = x[N : N + 600], x[N + 600 :]
    with qvec.create(tmp_path / "a", DIM, metric="l2", index=INDEXES[index], fields={"group": "int"}) as db:
        db.add(x[:N], payloads=[{"group": i % 2} for i in range(N)])
        curves = db.tune(asked, ks=(K,))
        assert curves.curves[0].policies
        for where in (None, {"group": 1}):
            true = db.search(others, K, exact=True, where=where).ids
            for goal in (0.9, 0.95, (0.9, 0.5, 0.05)):
                hits = db.search(others, K, recall=goal, where=where)
                mean = recall(hits.ids, true)
                assert mean >= (goal if isinstance(goal, float) else goal[0]) - 0.015
                assert hits.expected_recall.shape == (600,)
                assert hits.expected_recall.mean() == pytest.approx(mean, abs=0.03 if where is None else 0.08)
                one = db.search(others[0], K, recall=goal, where=where)
                assert one.expected_recall == hits[0].expected_recall == hits.expected_recall[0]
                assert np.array_equal(one.ids, hits[0].ids)
    with qvec.open(tmp_path / "a", "r") as db:  # policies are in the file
        assert recall(db.search(others, recall=0.9).ids, db.search(others, exact=True).ids) >= 0.885
        with pytest.raises(qvec.InputError, match="search with recall="):
            _ = db.search(others[0]).expected_recall


def test_a_tail_bound_is_kept_or_refused(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, metric="l2", index="hnsw") as db:
        db.add(x[:N])
        db.tune(x[N : N + 600], ks=(K,))
        true = db.search(x[N + 600 :], exact=True).ids
        found = db.search(x[N + 600 :], recall=(0.85, 0.8, 0.04)).ids
        hits = np.array([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)])
        assert (hits < 0.8 - 1e-9).mean() <= 0.06
        for wrong, message in [
            ((0.9, 0.8), "mean, floor, share"),
            ((0.9, 1.2, 0.1), "floor"),
            ((0.9, 0.5, -1.0), "share"),
            ((1.0, 0.5, 0.1), "between 0 and 1"),
            ((0.9, 1.0, 0.0), "is not reached"),
        ]:
            with pytest.raises(qvec.InputError, match=message):
                db.search(x[0], recall=wrong)


def test_policies_with_wrong_shapes_are_damage() -> None:
    weights = np.zeros(N_FEATURES, np.float32)
    policy = Policy((10, 20), N_FEATURES, weights, weights, 10, 0.9, 0.89, 100.0, (0.0,) * 10)
    with pytest.raises(qvec.FormatError, match="2 stages have 8 weights"):
        policy.effort(K, 1.0)
    weights = np.zeros(2 * N_FEATURES, np.float32)
    policy = Policy((20, 10), 2 * N_FEATURES, weights, weights, 10, 0.9, 0.89, 100.0, (0.0,) * 10)
    with pytest.raises(qvec.FormatError, match="ascending width"):
        policy.effort(K, 1.0)
