"""search(recall=): curves are measured, stored and measured again, and hold on queries outside the measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.common.types import Float32Array
from qvec.search.curves import Curve, Curves, Point, outdated

DIM, N = 24, 4000


@pytest.fixture
def x() -> Float32Array:
    rng = np.random.default_rng(5)
    return clustered(rng, N + 1200, DIM, 200) + rng.normal(size=(N + 1200, DIM)).astype(np.float32)


def nearest(base: Float32Array, q: Float32Array, k: int) -> np.ndarray[Any, Any]:
    rows, queries = base.astype(np.float64), q.astype(np.float64)
    distances = (rows**2).sum(axis=1) - 2 * queries @ rows.T  # but for what all rows of a query share
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


@pytest.mark.slow
@pytest.mark.parametrize("code", ["int8", "rabitq1"])
@pytest.mark.parametrize("index", ["hnsw", "flat", "ivf"])
def test_a_tuned_recall_holds_on_other_queries(tmp_path: Path, x: Float32Array, code: str, index: str) -> None:
    base, asked, others = x[:N], x[N : N + 600], x[N + 600 :]
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", code=code, index=index) as db:
        db.add(base)
        curves = db.tune(asked, ks=(10, 50))
        assert [curve.k for curve in curves.curves] == [10, 50]
        spent = []
        true = nearest(base, others, 30)
        for k in (1, 10, 30):
            for target in (0.8, 0.9, 0.97):
                assert recall(db.search(others, k, recall=target).ids, true[:, :k]) >= target - 0.015
                spent.append(curves.at(k).reaching(target).cost)
        assert spent[0] <= spent[1] <= spent[2]
    with qvec.open(tmp_path / "a.qvec", "r") as db:  # the curves are in the file
        assert recall(db.search(others, recall=0.9).ids, nearest(base, others, 10)) >= 0.885


def test_rows_stand_in_for_queries_and_do_not_find_themselves(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", index="hnsw") as db:
        db.add(x[:N])
        curves = db.tune(ks=(1,), n=500)
        assert curves.source == "rows"
        assert curves.curves[0].points[0].recall < 1  # a row that found itself would always be right
        assert curves.curves[0].points[-1].recall > 0.99


@pytest.mark.slow
def test_curves_are_measured_again_when_the_codes_change_or_the_collection_grows(
    tmp_path: Path, x: Float32Array
) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", code="int8", index="hnsw") as db:
        db.add(x[:1500])
        first = db.tune(x[N : N + 300])
        db.add(x[1500:2000])
        assert stored(db) == first
        db.add(x[2000:2600])
        grown = stored(db)
        assert (grown.n, grown.n_queries, grown.source) == (2600, 300, "queries")
        db.requantize("int4")
        assert stored(db).generation == 1
        assert recall(db.search(x[N:], recall=0.9).ids, nearest(x[:2600], x[N:], 10)) >= 0.885


def stored(db: qvec.Collection) -> Curves:
    with db._store.read() as snap:
        assert not outdated(snap.state)
        return Curves.from_state(snap.record(4, 0))


@pytest.mark.slow
def test_a_recall_that_is_too_high_or_was_not_measured_is_refused(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", code="binary", index="hnsw") as db:
        with pytest.raises(qvec.InputError, match="more vectors"):
            db.tune(x[:10])
        db.add(x[:2000])
        with pytest.raises(qvec.InputError, match=r"call tune\(queries\)"):
            db.search(x[0], recall=0.9)
        db.tune(x[N : N + 200], ks=(10,))
        for options, message in [
            ({"recall": 0}, "between 0 and 1"),
            ({"recall": 1.0}, "exact=True"),
            ({"recall": "high"}, "between 0 and 1"),
            ({"recall": 0.9, "ef": 40}, "chooses ef"),
            ({"recall": 0.9, "oversample": 3}, "chooses oversample"),
            ({"recall": 0.9, "exact": True}, "chooses exact"),
            ({"recall": 0.9, "k": 11}, "k up to 10"),
            ({"recall": 0.999999}, "the highest measured recall"),
        ]:
            with pytest.raises(qvec.InputError, match=message):
                db.search(x[0], **options)
        for options, message in [
            ({"ks": ()}, "one k or more"),
            ({"ks": (0,)}, "ks"),
            ({"n": 0}, "n"),
            ({"queries": np.zeros((0, DIM))}, "one query or more"),
            ({"queries": np.zeros((5, DIM + 1))}, str(DIM)),
        ]:
            with pytest.raises(qvec.InputError, match=message):
                db.tune(**options)


def test_without_originals_there_is_nothing_to_measure_against(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", code="int8", originals="none") as db:
        db.add(x[:1000])
        with pytest.raises(qvec.InputError, match="originals='none'"):
            db.tune(x[N:])


def test_a_curve_keeps_the_pareto_optimal_points() -> None:
    points = [
        Point(10, 0, 10, 0.8, 0.78, 100.0),
        Point(12, 0, 20, 0.79, 0.77, 120.0),
        Point(14, 0, 10, 0.9, 0.88, 130.0),
    ]
    curve = Curve.best_of(10, points)
    assert curve.points == (points[0], points[2])
    assert curve.reaching(0.78) == points[0]
    assert curve.reaching(0.8) == points[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version"),
        ({"n": -1}, "'n'"),
        ({"source": "guess"}, "source"),
        ({"curves": []}, "curves"),
        ({"curves": [{"k": 10, "points": [[1, 2, 3]]}]}, "point"),
        ({"curves": [{"k": 10, "points": [[1, 2, -3, 0.5, 0.5, 1.0]]}]}, "'candidates' must be an integer from 0"),
        ({"curves": [{"k": 10, "points": [[1, 2, 3, float("nan"), 0.5, 1.0]]}]}, "'recall' must be a finite number"),
        ({"curves": [{"k": 10, "points": [[2**31 - 1, 2, 3, 0.5, 0.5, 1.0]]}]}, "'ef' must be an integer from 0"),
        ({"curves": [{"k": 0, "points": []}]}, "'k'"),
    ],
)
def test_damaged_curves_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    curves = Curves(0, "hnsw", 10, "rows", 5, (Curve(10, (Point(10, 0, 10, 0.8, 0.7, 5.0),)),))
    assert Curves.from_state(curves.state()) == curves
    with pytest.raises(qvec.FormatError, match=message):
        Curves.from_state(curves.state() | change)
