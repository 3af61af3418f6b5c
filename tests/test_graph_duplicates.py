"""Equal vectors in a graph: as many as there are, they are all found and hide no other vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import qvec
from helpers.vectors import clustered
from qvec.common.findings import damages
from qvec.common.types import Metric
from qvec.datasets import exact_knn
from qvec.index import graph_build

DIM = 32
Float32 = npt.NDArray[np.float32]


def vectors(copies: int, groups: int = 1, others: int = 8000) -> tuple[Float32, Float32]:
    """Groups of equal vectors followed by clustered ones, and queries like these."""
    x = clustered(np.random.default_rng(3), others + 200, DIM, centroids=100, spread=0.6)
    equal = np.repeat(x[:groups] + np.float32(0.5), copies // groups, axis=0)
    return np.concatenate([equal, x[:others]]), x[others:]


def added(path: Path, x: Float32, sizes: list[int], metric: Metric = "l2", code: Any = None) -> Any:
    db = qvec.create(path, DIM, metric=metric, code=code or qvec.Int8(), index=qvec.HNSW())
    for part in np.split(x, np.cumsum(sizes)):
        if len(part):
            db.add(part)
    return db


def recall_by_distance(db: Any, x: Float32, queries: Float32, metric: Metric) -> float:
    """Share of the ten found that are no farther than the tenth nearest: equal vectors stand for each other."""
    _, distances = exact_knn(x, queries, 10, metric)
    found = db.search(queries, 10, ef=40, oversample=4).distances
    return float(np.mean(found <= distances[:, -1:] + 1e-4 * np.abs(distances[:, -1:]) + 1e-5))


@pytest.mark.parametrize("sizes", [[], [1500], [1000] * 9], ids=["at once", "in two parts", "in batches"])
@pytest.mark.parametrize(("copies", "groups"), [(1500, 1), (6000, 12), (1500, 30)])
@pytest.mark.parametrize(("metric", "code"), [("l2", None), ("cosine", None), ("l2", qvec.Int4()), ("ip", None)])
@pytest.mark.slow
def test_copies_at_the_start_cost_no_recall(
    tmp_path: Path, sizes: list[int], copies: int, groups: int, metric: Metric, code: Any
) -> None:
    x, queries = vectors(copies, groups)
    recalls: list[float] = []
    for order in (np.arange(len(x)), np.random.default_rng(1).permutation(len(x))):
        with added(tmp_path / f"{len(recalls)}.qvec", x[order], sizes, metric, code) as db:
            assert not db.verify(deep=True)
            recalls.append(recall_by_distance(db, x, queries, metric))
    assert recalls[0] >= recalls[1] - 0.005


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("step", [1, 20], ids=["singly", "by twenty"])
@pytest.mark.parametrize("groups", [1, 10])
@pytest.mark.slow
def test_copies_that_are_added_a_few_at_a_time_cost_no_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: Metric, step: int, groups: int
) -> None:
    monkeypatch.setattr(graph_build, "MAX_HASHED_PER_ROW", 0)  # as if the graph were large: codes are not read
    x, queries = vectors(400, groups, others=2000)
    order = np.concatenate([np.arange(400, 600), np.arange(400), np.arange(600, 2400)])
    recalls: list[float] = []
    for rows in (order, np.random.default_rng(1).permutation(order)):
        path = tmp_path / f"{len(recalls)}.qvec"
        with qvec.create(path, DIM, metric=metric, code=qvec.Int8(), index=qvec.HNSW(), durability="relaxed") as db:
            db.add(x[rows[:200]])
            for start in range(200, 600, step):
                db.add(x[rows[start : start + step]])
            for start in range(600, 2400, 20):
                db.add(x[rows[start : start + 20]])
            assert not db.verify(deep=True)
            recalls.append(recall_by_distance(db, x, queries, metric))
            found = db.search(x[0], 400, ef=600) if metric != "ip" else None
            assert found is None or np.mean(found.distances <= found.distances[0] + 1e-4) == 1 / groups
    assert recalls[0] >= recalls[1] - 0.005


@pytest.mark.slow
def test_all_copies_are_found(tmp_path: Path) -> None:
    x, _ = vectors(1500)
    for sizes in ([], [1000] * 9):
        with added(tmp_path / f"{len(sizes)}.qvec", x, sizes) as db:
            found = db.search(x[0], 1500, ef=1600)
            assert set(found.ids.tolist()) == set(range(1500))


def test_copies_may_be_deleted_and_others_take_their_place(tmp_path: Path) -> None:
    x, queries = vectors(1500)
    with added(tmp_path / "a.qvec", x, []) as db:
        db.delete(np.arange(0, 1400))
        assert not damages(db.verify(deep=True))
        db.optimize()
        assert not db.verify(deep=True)
        assert recall_by_distance(db, x[1400:], queries, "l2") > 0.99


FIRST = np.arange(0, 1)
DROPPED = [FIRST, np.arange(0, 1499), np.arange(700, 1500), np.arange(0, 1500)]


@pytest.mark.parametrize("sizes", [[], [1000] * 9], ids=["at once", "in batches"])
@pytest.mark.parametrize("dropped", DROPPED, ids=["first", "all but one", "second half", "all"])
@pytest.mark.slow
def test_copies_that_are_left_after_deletes_cost_no_recall(
    tmp_path: Path, sizes: list[int], dropped: npt.NDArray[np.int64]
) -> None:
    x, queries = vectors(1500)
    recalls: list[float] = []
    for order in (np.arange(len(x)), np.random.default_rng(1).permutation(len(x))):
        with added(tmp_path / f"{len(recalls)}.qvec", x[order], sizes) as db:
            db.delete(np.flatnonzero(np.isin(order, dropped)))
            db.optimize()
            db.add(x[:20])
            assert not db.verify(deep=True)
            left = np.concatenate([np.delete(x, dropped, axis=0), x[:20]])
            recalls.append(recall_by_distance(db, left, queries, "l2"))
    assert recalls[0] >= recalls[1] - 0.005


@pytest.mark.slow
def test_optimize_builds_a_graph_that_copies_have_spoiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, queries = vectors(1500)
    none = graph_build.NO_ROWS
    monkeypatch.setattr(graph_build.GraphBuild, "_duplicates", lambda *_: (none, none, none))  # as of earlier versions
    monkeypatch.setattr(graph_build, "MIN_PARTITION_ROWS", len(x) + 1)
    with added(tmp_path / "a.qvec", x, []) as db:
        (finding,) = db.verify(deep=True)
        assert finding.kind == "advice"
        assert "rows with equal codes are not attached below one of them" in finding
        assert not db.verify(deep=False)
        assert not db.repair()
        qvec.open(tmp_path / "a.qvec", mode="r", untrusted=True).close()
        generation = db.stats().generation
        monkeypatch.undo()
        db.optimize()
        assert db.stats().generation > generation
        assert not db.verify(deep=True)
        assert recall_by_distance(db, x, queries, "l2") > 0.99
