"""The recall function: ties, missing and repeated hits; recall of vectors, codes and datasets agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.codes.registry import make_config, train
from qvec.datasets import Workload, exact_knn
from qvec.quality.recall import TIE_TOLERANCE, distances_to, make_problem, recall, recall_of_rows, recalls_by_code

METRICS = ("l2", "ip", "cosine")
TRUTH = np.array([[1.0, 2.0, 3.0]])


def duplicated(copies: int, distinct: int = 40, dim: int = 16) -> np.ndarray[Any, Any]:
    """Some random vectors, ``copies`` times each: row i is a copy of row i % distinct."""
    return np.tile(np.random.default_rng(1).normal(size=(distinct, dim)).astype(np.float32), (copies, 1))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([1.0, 2.0, 3.0], 1),
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 3.0, 3.0], 1),  # another row at the distance of the third
        ([1.0, 2.0, 3.0 * (1 + TIE_TOLERANCE / 2)], 1),
        ([1.0, 2.0, 3.0 * (1 + 3 * TIE_TOLERANCE)], 2 / 3),
        ([1.0, 2.0, 4.0], 2 / 3),
        ([1.0, np.inf, np.inf], 1 / 3),
        ([1.0, 2.0, 3.0, 3.0, 3.0], 1),  # never above 1
        ([], 0),
    ],
)
def test_a_hit_as_near_as_the_kth_neighbor_is_right(found: list[float], expected: float) -> None:
    assert recall(np.array([found]), TRUTH).tolist() == [pytest.approx(expected)]


def test_fewer_true_neighbors_than_k_are_all_that_is_wanted() -> None:
    truth = np.array([[1.0, 2.0, np.inf], [np.inf, np.inf, np.inf]])
    found = np.array([[2.0, 1.0, np.inf], [np.inf, np.inf, np.inf]])
    assert recall(found, truth).tolist() == [1.0, 0.0]
    assert recall(found[:, :1], truth).tolist() == [0.5, 0.0]


def test_negative_distances_have_the_same_tolerance() -> None:
    truth = np.array([[-3.0, -2.0]])
    assert recall(np.array([[-3.0, -2.0 + TIE_TOLERANCE]]), truth) == [1.0]
    assert recall(np.array([[-3.0, -1.99]]), truth) == [0.5]


def test_the_chance_of_a_hit_weighs_it() -> None:
    found = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert recall(found, TRUTH, np.array([[1.0, 0.5, 0.5, 1.0]])) == [pytest.approx(2 / 3)]


@pytest.mark.parametrize("metric", METRICS)
def test_copies_of_the_true_neighbors_are_right(metric: Any) -> None:
    base, queries = duplicated(copies=7), np.random.default_rng(2).normal(size=(20, 16)).astype(np.float32)
    truth = exact_knn(base, queries, 3, metric)[0]  # of seven copies, the three with the smallest row numbers
    copies = truth + 120
    assert not np.isin(copies, truth).any()
    assert recall_of_rows(copies, truth, queries, base, metric).tolist() == [1.0] * 20
    assert recall_of_rows(np.repeat(copies[:, :1], 3, axis=1), truth, queries, base, metric) == pytest.approx(1 / 3)
    assert recall_of_rows(np.full_like(copies, -1), truth, queries, base, metric).tolist() == [0.0] * 20
    workload = Workload("copies", metric, base, queries, truth)
    assert workload.recall(copies, 3) == 1.0
    assert workload.recall(copies[:4].tolist(), 2) == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_the_public_ones(metric: Any) -> None:
    rng = np.random.default_rng(3)
    base, queries = (rng.normal(size=(n, 16)).astype(np.float32) for n in (200, 7))
    rows, distances = exact_knn(base, queries, 5, metric)
    assert distances_to(queries, base, rows, metric) == pytest.approx(distances, rel=1e-5, abs=1e-6)
    assert np.isinf(distances_to(queries, base, np.full((7, 2), -1), metric)).all()
    assert distances_to(queries, base, np.zeros((7, 2), np.int64), metric)[:, 1].tolist() == [np.inf] * 7


@pytest.mark.parametrize("code", ["f32", "int8", "int4"])
def test_recall_by_code_counts_copies(code: str) -> None:
    base = duplicated(copies=6)
    queries = base[:10] + np.random.default_rng(4).normal(size=(10, 16)).astype(np.float32)
    problem = make_problem(base, queries, np.full(10, -1), np.zeros(0, np.int64), 9, "l2")
    quantizer = train(base, "l2", make_config(code))
    codes = quantizer.encode(base)
    order = np.argsort(quantizer.codec.score(quantizer.prepare(queries), codes), axis=1, kind="stable")
    exact = ((queries[:, None].astype(np.float64) - base) ** 2).sum(axis=2)
    limits = np.sort(exact, axis=1)[:, 8:9] * (1 + 1e-5)
    by_depth = recalls_by_code(quantizer, codes, problem, [9, 20])
    for depth, found in by_depth.items():
        near = (np.take_along_axis(exact, order[:, :depth], axis=1) <= limits).sum(axis=1)
        assert found == pytest.approx(np.minimum(near, 9) / 9)
    if code == "f32":
        assert by_depth[9].tolist() == [1.0] * 10  # which six copies are taken is not told


def test_evaluation_and_tuning_of_copies_reach_full_recall(tmp_path: Path) -> None:
    base = duplicated(copies=25)
    with qvec.create(tmp_path / "a", 16, metric="l2", code="f32") as db:
        db.add(base)
        report = db.evaluate(codes=["f32"], k=5, n=40, oversamples=(1,))
        assert [row.recall for row in report.rows] == [1.0]
        curves = db.tune(ks=(5,))
    assert max(point.recall for curve in curves.curves for point in curve.points) == 1.0
