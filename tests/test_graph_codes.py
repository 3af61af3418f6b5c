"""Large batches are linked by int8 copies in memory if codes are slow to compare; the graph is as good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.codes.configs import CodeConfig, Int4, Mixed, RaBitQ, Ternary
from qvec.common.types import Metric
from qvec.datasets import exact_knn
from qvec.index import graph_build, graph_codes

pytestmark = pytest.mark.simd

DIM, N, QUERIES = 40, 3000, 100
Float32 = npt.NDArray[np.float32]
CODES: list[CodeConfig] = [Int4(), Ternary(), RaBitQ(1), RaBitQ(4), Mixed(bits=2)]


def vectors(seed: int = 5) -> Float32:
    return clustered(np.random.default_rng(seed), N + QUERIES, DIM, centroids=60, spread=0.6)


def far_away(x: Float32) -> Float32:
    """Vectors in one direction from the origin, with one dimension of a range that dominates the others."""
    moved = x + np.float32(30)
    moved[:, 0] *= 40
    return moved


SHAPES: dict[str, Callable[[Float32], Float32]] = {
    "far": far_away,
    "lengths": lambda x: x * np.exp(np.random.default_rng(1).normal(0, 0.5, (len(x), 1))).astype(np.float32),
}


def built(path: Path, x: Float32, metric: Metric, code: CodeConfig, **options: Any) -> qvec.Collection:
    db = qvec.create(path, DIM, metric=metric, code=code, index=options.pop("index", qvec.HNSW()), **options)
    db.add(x[:N], threads=2)
    return db


def walked(db: qvec.Collection, queries: Float32, truth: Any) -> float:
    """Recall@10 of walks that re-rank all candidates: the recall of the graph, not of the codes."""
    found = db.search(queries, 10, ef=80, oversample=8).ids
    return recall(found, truth)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of copied rows of each batch for which rows were copied."""
    counts: list[int] = []
    copies = graph_codes._int8_copies

    def count(source: Any, rows: Any, *rest: Any) -> Any:
        counts.append(len(rows))
        return copies(source, rows, *rest)

    monkeypatch.setattr(graph_codes, "_int8_copies", count)
    return counts


@pytest.mark.parametrize(("code", "shape"), [*((code, "clusters") for code in CODES), *((Int4(), s) for s in SHAPES)])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.slow
def test_graphs_linked_by_copies_are_as_good_as_those_linked_by_stored_codes(
    tmp_path: Path,
    copied: list[int],
    monkeypatch: pytest.MonkeyPatch,
    code: CodeConfig,
    metric: Metric,
    shape: str,
) -> None:
    x = vectors() if shape == "clusters" else SHAPES[shape](vectors())
    queries = x[N:]
    truth, _ = exact_knn(x[:N], queries, 10, metric)
    with built(tmp_path / "a.qvec", x, metric, code) as db:
        fast = walked(db, queries, truth)
    assert copied == [N]
    monkeypatch.setattr(graph_build, "batch_codes", lambda data, *rest: data.codes)
    with built(tmp_path / "b.qvec", x, metric, code) as db:
        exact = walked(db, queries, truth)
    assert fast >= exact - 0.01


@pytest.mark.parametrize("layout", ["compact", "packed"])
@pytest.mark.parametrize("originals", ["f32", "f16", "none"])
@pytest.mark.slow
def test_graphs_do_not_depend_on_the_threads(tmp_path: Path, copied: list[int], layout: Any, originals: Any) -> None:
    x, lists = vectors(), []
    for threads in (1, 3):
        path = tmp_path / f"{threads}.qvec"
        options: Any = {"code": Int4(), "index": qvec.HNSW(layout=layout), "originals": originals}
        with qvec.create(path, DIM, metric="l2", **options) as db:
            db.add(x[:N], threads=threads)
            assert not db.verify(deep=True)
            with db._store.read() as snap:
                lists.append(snap.columns["adjacency"].read(np.arange(N)))
    np.testing.assert_array_equal(*lists)
    assert copied == [N, N]


def test_only_large_batches_are_copied(tmp_path: Path, copied: list[int]) -> None:
    x = vectors()
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", code=Int4(), index=qvec.HNSW()) as db:
        db.add(x[:2000])
        db.add(x[2000:2050])
        db.delete(range(500))
        db.add(x[: graph_codes.MIN_BATCH_ROWS])
        assert copied[0] == 2000
        assert len(copied) == 2
        assert copied[1] <= 2050 + graph_codes.MIN_BATCH_ROWS
        assert not db.verify(deep=True)
        found = db.search(x[1100:1900], 1, ef=64).ids[:, 0]  # rows without a duplicate
        assert (found == np.arange(1100, 1900)).mean() > 0.99


@pytest.mark.parametrize("code", ["int8", "f32", Int4(centroids=0)], ids=repr)
def test_codes_that_are_quick_to_compare_are_not_copied(tmp_path: Path, copied: list[int], code: Any) -> None:
    with built(tmp_path / "a.qvec", vectors(), "cosine", code) as db:
        assert len(db) == N
    assert not copied
