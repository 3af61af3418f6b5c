"""Repair removes deleted rows from a graph: no list names them, the tree reaches all other rows, and recall holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from test_graph import coded, column, graph_columns

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec._kernels import Column
from qvec.index import CodeColumn
from qvec.index.base import IndexInput
from qvec.index.graph import Graph
from qvec.index.graph_build import GraphBuild
from qvec.index.graph_repair import Repair
from qvec.maintenance.optimize import REPAIRED_PER_DELETED
from qvec.schema.bitmaps import bitmap_of, mark, words_for

pytestmark = pytest.mark.simd

PINNED, EMPTY = np.uint32(1 << 31), np.uint32(0xFFFFFFFF)
DIM, N = 16, 1500
Rows = npt.NDArray[np.int64]


def built(x: npt.NDArray[np.float32]) -> tuple[CodeColumn, dict[str, Column], Graph]:
    what, columns, graph = coded(x), graph_columns(len(x)), Graph()
    columns["removing"] = column("removing", 8, words_for(len(x)))
    GraphBuild(IndexInput(columns, what, len(x)), graph, 40, 2).run(np.arange(len(x), dtype=np.uint32))
    return what, columns, graph


def repaired(
    what: CodeColumn, columns: dict[str, Column], graph: Graph, n: int, gone: Rows, threads: int = 1, limit: int = 10**9
) -> None:
    """Delete rows, and repair in steps of ``limit`` lists."""
    mark(columns["deleted"], gone, True)
    steps = 0
    while steps == 0 or graph.repair_cursor is not None:
        Repair(IndexInput(columns, what, n), graph, threads).run(limit)
        steps += 1


def assert_whole(columns: dict[str, Column], graph: Graph, n: int, live: Rows) -> None:
    """Only live rows are linked, and tree edges connect all of them."""
    assert graph.indexed == len(live)
    lists = columns["adjacency"].read_range(0, n).view("<u4").reshape(n, -1)[live]
    named = lists[lists != EMPTY]
    assert np.isin(named & ~PINNED, live).all()
    assert not any((row & ~PINNED == own).any() for row, own in zip(lists, live, strict=True))
    parents = np.repeat(live, lists.shape[1]).reshape(lists.shape)[(lists & PINNED > 0) & (lists != EMPTY)]
    children = lists[(lists & PINNED > 0) & (lists != EMPTY)] & ~PINNED
    assert len(set(children.tolist())) == len(children) == len(live) - 1  # one parent each, but the root
    below = dict(zip(children.tolist(), parents.tolist(), strict=True))
    assert graph.root not in below
    for row in live.tolist():
        seen = 0
        while row != graph.root:
            row, seen = below[row], seen + 1
            assert seen <= len(live)
    assert graph.root in graph.entries
    assert np.isin(graph.entries, live).all()


def region(x: npt.NDArray[np.float32], share: float) -> Rows:
    """The rows nearest to the first one."""
    return np.sort(np.argsort(((x - x[0]) ** 2).sum(axis=1))[: int(share * len(x))])


def scattered(n: int, share: float) -> Rows:
    return np.sort(np.random.default_rng(5).choice(n, int(share * n), replace=False))


@pytest.mark.parametrize("limit", [1, 400, 10**9])
@pytest.mark.parametrize("case", ["a tenth", "half", "all but a few", "a region", "the root", "duplicates", "all"])
def test_the_remaining_graph_is_connected_and_names_no_deleted_row(case: str, limit: int) -> None:
    x = clustered(np.random.default_rng(1), N, DIM)
    if case == "duplicates":
        x = np.repeat(x[:3], N // 3, axis=0)
    gone = {
        "a tenth": scattered(N, 0.1),
        "half": scattered(N, 0.5),
        "all but a few": scattered(N, 0.995),
        "a region": region(x, 0.4),
        "the root": np.zeros(1, np.int64),
        "duplicates": scattered(N, 0.5),
        "all": np.arange(N),
    }[case]
    what, columns, graph = built(x)
    repaired(what, columns, graph, N, gone, limit=limit)
    live = np.setdiff1d(np.arange(N), gone)
    if len(live):
        assert_whole(columns, graph, N, live)
    else:
        assert (graph.indexed, graph.tombstones) == (0, 0)


def test_a_repair_does_not_depend_on_the_number_of_threads() -> None:
    x, lists = clustered(np.random.default_rng(1), N, DIM), []
    for threads in (1, 2, 5):
        what, columns, graph = built(x)
        repaired(what, columns, graph, N, scattered(N, 0.3), threads)
        lists.append(columns["adjacency"].read_range(0, N))
    np.testing.assert_array_equal(lists[0], lists[1])
    np.testing.assert_array_equal(lists[0], lists[2])


def test_the_next_repair_handles_rows_added_and_deleted_during_a_repair() -> None:
    x, rng = clustered(np.random.default_rng(1), 2 * N, DIM), np.random.default_rng(2)
    what, columns = coded(x), graph_columns(2 * N)
    columns["removing"] = column("removing", 8, words_for(2 * N))
    graph, fresh = Graph(), iter(range(N, 2 * N))
    mark(columns["deleted"], np.arange(N, 2 * N), True)
    GraphBuild(IndexInput(columns, what, 2 * N), graph, 40, 1).run(np.arange(N, dtype=np.uint32))
    live = set(range(N))
    for _ in range(60):
        gone = rng.choice(sorted(live), 12, replace=False)
        mark(columns["deleted"], gone, True)
        live -= set(gone.tolist())
        Repair(IndexInput(columns, what, 2 * N), graph, 1).run(REPAIRED_PER_DELETED * 12)
        new = np.array([next(fresh) for _ in range(12)], np.uint32)
        mark(columns["deleted"], new, False)
        GraphBuild(IndexInput(columns, what, 2 * N), graph, 40, 1).run(new)
        live |= set(new.tolist())
    for _ in range(2):  # the running repair, and one for rows that were deleted meanwhile
        repaired(what, columns, graph, 2 * N, np.zeros(0, np.int64))
    assert_whole(columns, graph, 2 * N, np.array(sorted(live)))


def self_found(db: qvec.Collection, x: npt.NDArray[np.float32], ids: Rows) -> float:
    return float((db.search(x[ids], 1, ef=100).ids[:, 0] == ids).mean())


@pytest.mark.slow
def test_single_deletes_repair_the_graph_in_steps(path: Path, rng: np.random.Generator) -> None:
    x = clustered(rng, N, DIM)
    with qvec.create(path, DIM, metric="l2", index=qvec.HNSW(m=8, ef_construction=60)) as db:
        db.add(x)
        most, order = 0.0, rng.permutation(N)
        for count, i in enumerate(order[: N // 2]):
            db.delete([i])
            with db._store.read() as snap:
                most = max(most, snap.state.index.tombstones / snap.state.live)
            if count % 100 == 0:
                assert db.verify() == []
        assert 0.1 < most < 0.2
        assert self_found(db, x, order[N // 2 :]) > 0.99
    with qvec.open(path) as db:
        assert db.verify() == []


@pytest.mark.parametrize("code", ["int8", "f16"])
@pytest.mark.slow
def test_packed_nodes_follow_their_lists_through_repairs_and_reuse(
    path: Path, rng: np.random.Generator, code: qvec.common.types.CodeKind
) -> None:
    x = clustered(rng, 900, 48)
    with qvec.create(path, 48, metric="l2", code=code, index=qvec.HNSW(layout="packed")) as db:
        db.add(x[:500])
        for start in range(0, 400, 40):
            db.delete(range(start, start + 40))
            db.add(x[500 + start : 540 + start], range(500 + start, 540 + start))
            assert db.verify() == []  # every node against its list and codes
        with db._store.read() as snap:
            assert snap.state.n < 650
        assert self_found(db, x, np.arange(500, 900)) > 0.99


@pytest.mark.slow
def test_a_churned_graph_has_the_recall_of_a_fresh_one(path: Path, rng: np.random.Generator) -> None:
    x, n = clustered(rng, 12_000, DIM, centroids=200, spread=1.0), 2000
    queries = clustered(rng, 1000, DIM, centroids=200, spread=1.0)
    index = qvec.HNSW(m=8, ef_construction=60)
    with (
        qvec.create(path, DIM, metric="l2", index=index) as db,
        qvec.create(path.with_name("fresh"), DIM, metric="l2", index=index) as fresh,
    ):
        db.add(x[:n])
        live = set(range(n))
        for start in range(n, len(x), n // 10):
            gone = rng.choice(sorted(live), n // 10, replace=False)
            db.delete(gone)
            new = range(start, start + n // 10)
            db.add(x[new], new)
            live = (live - set(gone.tolist())) | set(new)
        ids = np.array(sorted(live))
        fresh.add(x[ids], ids)
        exact = db.search(queries, 10, exact=True).ids
        found, freshly = (recall(one.search(queries, 10, ef=40).ids, exact) for one in (db, fresh))
        assert found > freshly - 0.01
        assert db.verify() == []
        assert db.stats().deleted < n // 5


def test_bitmaps_of_tests_are_those_of_the_columns() -> None:
    columns = graph_columns(100)
    mark(columns["linked"], np.array([3, 70]), True)
    assert columns["linked"].read_range(0, 2).view("<u8").reshape(-1).tolist() == bitmap_of([3, 70], 100).tolist()
