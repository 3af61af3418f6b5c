"""Pending reverse edges of rows that are added a few at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.recall import recall
from qvec.index.graph import Graph
from qvec.index.graph_build import (
    IMMEDIATE_REVERSE_EDGES,
    LISTS_PER_ROW,
    MAX_STEPS_PER_SWEEP,
    ROWS_PER_SWEEP_STEP,
)

N, DIM = 4000, 16
STEP = max(LISTS_PER_ROW, -(-N // MAX_STEPS_PER_SWEEP))  # lists that a sweep visits for each row added


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(N + 200, DIM)).astype(np.float32)


@pytest.fixture(scope="module", params=["compact", "packed"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "a.qvec"
    index = qvec.HNSW(m=16, ef_construction=64, layout=request.param)
    with qvec.create(path, DIM, index=index) as made:
        made.add(vectors[:N])
    return path


@pytest.fixture
def db(built: Path, tmp_path: Path) -> Iterator[qvec.Collection]:
    with qvec.open(shutil.copy(built, tmp_path)) as opened:
        yield opened


def graph_of(db: qvec.Collection) -> Graph:
    with db._store.read() as snap:
        return Graph.of(snap.state.index)


def edges_to(db: qvec.Collection, row: int) -> set[int]:
    with db._store.read() as snap:
        lists = snap.columns["adjacency"].read_range(0, snap.state.n).view("<u4")
    return set(np.flatnonzero(((lists & 0x7FFFFFFF) == row).any(axis=1)).tolist())


def lists_of(db: qvec.Collection) -> np.ndarray:
    with db._store.read() as snap:
        return snap.columns["adjacency"].read_range(0, snap.state.n).view("<u4").copy()


def edges_from(db: qvec.Collection, row: int) -> set[int]:
    with db._store.read() as snap:
        own = snap.columns["adjacency"].read(np.array([row])).view("<u4")[0]
    return {int(r) & 0x7FFFFFFF for r in own if r != 0xFFFFFFFF}


def test_a_single_row_gets_reverse_edges_from_its_nearest_neighbors_only(
    db: qvec.Collection, vectors: np.ndarray
) -> None:
    db.add(vectors[N])
    assert graph_of(db).pending_rows.tolist() == [N]
    assert len(edges_to(db, N)) <= IMMEDIATE_REVERSE_EDGES + 1 < len(edges_from(db, N))  # and the edge of the tree
    assert db.search(vectors[N], 1).ids.tolist() == [N]
    assert db.verify() == []


def test_pending_reverse_edges_are_added_in_sweeps_over_all_lists(db: qvec.Collection, vectors: np.ndarray) -> None:
    db.add(vectors[N])
    first, added, sweeps = len(edges_to(db, N)), 1, 0
    assert graph_of(db).reverse_edge_cursor == 0
    while N in graph_of(db).pending_rows:
        before, start = lists_of(db), graph_of(db).reverse_edge_cursor
        db.add(vectors[N + added])
        changed, step = (
            np.flatnonzero((lists_of(db)[: len(before)] != before).any(axis=1)),
            graph_of(db).reverse_edge_cursor,
        )
        swept = changed >= start if step < start else np.zeros(len(changed), bool)
        swept |= (changed < step) if step < start else (changed >= start) & (changed < step)
        assert np.count_nonzero(~swept) <= IMMEDIATE_REVERSE_EDGES + 2  # immediate reverse edges, and two tree edges
        assert (step - start) % (N + added + 1) in (0, ROWS_PER_SWEEP_STEP * STEP)
        added, sweeps = added + 1, sweeps + (step < start)
    assert sweeps == 1  # over all of the lists
    assert abs(added - N / STEP) <= 2 * ROWS_PER_SWEEP_STEP
    assert len(edges_to(db, N)) > first
    assert db.verify() == []


def test_a_row_that_is_reused_is_pending_for_its_new_vector_only(db: qvec.Collection, vectors: np.ndarray) -> None:
    for i in range(4):
        db.add(vectors[N + i])
    graph = graph_of(db)
    graph.pending_in_sweep = 2
    graph.add_pending(np.array([N + 1, N + 9], np.uint32))
    assert (graph.pending_rows.tolist(), graph.pending_in_sweep) == ([N, N + 2, N + 3, N + 1, N + 9], 1)


@pytest.mark.parametrize("call", ["batch", "optimize"])
def test_a_batch_and_optimize_add_all_pending_reverse_edges(
    db: qvec.Collection, vectors: np.ndarray, call: str
) -> None:
    db.add(vectors[N])
    before = edges_to(db, N)
    if call == "batch":
        db.add(vectors[N + 1 : N + 60])
    else:
        db.optimize()
    assert not len(graph_of(db).pending_rows)
    assert edges_to(db, N) > before
    assert db.verify() == []


def test_deleted_and_truncated_rows_are_not_pending(db: qvec.Collection, vectors: np.ndarray) -> None:
    for i in range(3):
        db.add(vectors[N + i])
    db.delete([N, N + 2])
    db.optimize()  # releases the unused rows at the end
    assert not len(graph_of(db).pending_rows)
    assert db.verify() == []
    db.add(vectors[N : N + 1], [N])
    db.delete(list(range(N // 2)))
    db.add(vectors[:100])
    assert db.verify() == []
    assert db.search(vectors[N], 1).ids.tolist() == [N]


@pytest.mark.slow
def test_searches_find_single_rows_as_well_as_those_of_a_batch(tmp_path: Path, vectors: np.ndarray) -> None:
    found = []
    for name, step in (("single", 1), ("batch", 200)):
        with qvec.create(tmp_path / name, DIM, index=qvec.HNSW(m=16, ef_construction=64)) as made:
            made.add(vectors[:N])
            for i in range(N, N + 200, step):
                made.add(vectors[i : i + step])
            queries = vectors[N:] + np.float32(0.1)
            truth = made.search(queries, 10, exact=True, include=()).ids
            got = made.search(queries, 10, ef=32, include=()).ids
            found.append(recall(got, truth))
    assert found[0] > found[1] - 0.01
