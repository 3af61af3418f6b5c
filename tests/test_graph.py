"""The search engine in C: scans, walks, re-ranking and linking over columns in memory, against NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from helpers.recall import recall
from qvec._kernels import (
    Codec,
    Column,
    GraphFinder,
    Linker,
    QueryMap,
    Searcher,
    SearchParams,
    Selection,
    reachable,
    simd_levels,
)
from qvec.codes.transforms import Transform
from qvec.index.base import CodeColumn, IndexInput
from qvec.index.graph import Graph
from qvec.index.graph_build import GraphBuild
from qvec.schema.bitmaps import count, words_for
from qvec.storage.store import block_geometry

pytestmark = pytest.mark.simd

PSIZE = 4096
DEGREE = 32


def column(name: str, stride: int, rows: int) -> Column:
    rows_per_block, pages = block_geometry(stride, PSIZE, 1, 16)
    made = Column(name, 1, 0, stride, rows_per_block, pages, PSIZE, writable=True)
    made.resize(rows)
    return made


def clustered(n: int, dim: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(max(n // 50, 1), dim))
    return (centroids[rng.integers(len(centroids), size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)


def coded(x: npt.NDArray[np.float32], kind: str = "int8", metric: str = "l2") -> CodeColumn:
    codec = Codec(kind, metric, x.shape[1])
    codes = column("codes", codec.stride, len(x))
    codes.write(0, codec.encode(x))
    return CodeColumn(codec, codes)


def graph_columns(n: int) -> dict[str, Column]:
    bitmaps = {name: column(name, 8, words_for(n)) for name in ("deleted", "linked")}
    return {"adjacency": column("adjacency", DEGREE * 4, n), **bitmaps}


def linked(what: CodeColumn, n: int, threads: int = 1, ef: int = 64) -> tuple[Column, npt.NDArray[np.uint32]]:
    columns, graph = graph_columns(n), Graph()
    GraphBuild(IndexInput(columns, what, n), graph, ef, threads).run(np.arange(n, dtype=np.uint32))
    return columns["adjacency"], graph.entries


def searched(
    searcher: Searcher, q: npt.NDArray[np.float32], k: int, ef: int, candidates: int = 0, *, exact: bool = False,
    n: int, excluded: npt.NDArray[np.uint64] | None = None, live: int | None = None,
    rows: npt.NDArray[np.uint32] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:  # fmt: skip
    """Search n rows without the excluded ones."""
    selection = Selection(n, n if live is None else live, excluded, rows)
    return searcher.search(q, SearchParams(k, ef=ef, candidates=candidates, exact=exact), selection)


def keys(what: CodeColumn, x: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return what.codec.score(what.codec.prepare(q), what.codec.encode(x))


def ordered(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    return np.lexsort((np.arange(scores.shape[1])[None].repeat(len(scores), 0), scores), axis=1)[:, :k]


@pytest.mark.parametrize("kind", ["f32", "f16", "int8", "binary"])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 500])
def test_a_scan_returns_the_smallest_keys_with_ties_by_row(kind: str, n: int) -> None:
    x, q = clustered(n, 40), clustered(7, 40, 1)
    what = coded(x, kind)
    ids, distances, counts = searched(Searcher(what.codec, what.column, n), q, 10, 10, n=n)
    scores, k = keys(what, x, q), min(n, 10)
    assert (counts == k).all()
    np.testing.assert_array_equal(ids[:, :k], ordered(scores, k))
    np.testing.assert_array_equal(distances[:, :k], np.take_along_axis(scores, ids[:, :k], 1))
    assert (ids[:, k:] == -1).all()
    assert np.isinf(distances[:, k:]).all()


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("queries", [1, 2, 7, 8, 9, 17])
def test_a_batch_is_scanned_as_its_queries_one_by_one(level: str, queries: int) -> None:
    n, x, q = 1500, clustered(1500, 40), clustered(queries, 40, 1)
    coarse, fine = (Codec(kind, "l2", 40, simd=level) for kind in ("int8", "f32"))
    columns = [column("codes", codec.stride, n) for codec in (coarse, fine)]
    for codec, rows in zip((coarse, fine), columns, strict=True):
        rows.write(0, codec.encode(x))
    searcher = Searcher(coarse, columns[0], n, rerank=fine, vectors=columns[1])
    excluded = np.zeros(24, np.uint64)
    excluded[::3] = 0x5555_0000_FFFF_0001
    live = n - int(np.unpackbits(excluded.view(np.uint8), bitorder="little")[:n].sum())
    for options in (
        {},
        {"excluded": excluded, "live": live},
        {"rows": np.arange(3, n, 7, dtype=np.uint32), "live": 214},
    ):
        for exact in (False, True):
            batch = searched(searcher, q, 10, 10, 20, exact=exact, n=n, **options)
            for i in range(queries):
                one = searched(searcher, q[i : i + 1], 10, 10, 20, exact=exact, n=n, **options)
                for whole, single in zip(batch, one, strict=True):
                    np.testing.assert_array_equal(whole[i], single[0])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("kept", [40, 33])
@pytest.mark.parametrize("width", [None, 19, 37])
def test_queries_are_mapped_in_place_as_a_transform_does_it(
    normalize: bool, seed: int | None, kept: int, width: int | None
) -> None:
    rng, q = np.random.default_rng(kept), clustered(17, 40, 1)
    matrix = None if width is None else rng.normal(size=(kept, width)).astype(np.float32)
    transform = Transform(40, normalize, rng.normal(size=kept).astype(np.float32), seed, kept, matrix)
    what = coded(transform.apply(clustered(300, 40)))
    mapped = Searcher(what.codec, what.column, 300, map=transform.of_queries)
    plain = Searcher(what.codec, what.column, 300)
    expected = searched(plain, transform.apply(q), 10, 10, n=300)
    for queries, found in ((q, expected), (q[3], [part[3] for part in expected])):
        for got, wanted in zip(searched(mapped, queries, 10, 10, n=300), found, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_map_that_does_not_fit_is_refused() -> None:
    what = coded(clustered(100, 40))
    with pytest.raises(ValueError, match="mapped to 39 values, the codec is of 40"):
        Searcher(what.codec, what.column, 100, map=QueryMap(39, 39, 39, False, None, None, None))
    searcher = Searcher(
        what.codec, what.column, 100, map=QueryMap(50, 40, 40, False, None, np.ones((100, 32), "f4"), None)
    )
    with pytest.raises(ValueError, match="queries have 49 values"):
        searched(searcher, clustered(1, 49), 10, 10, n=100)
    with pytest.raises(ValueError, match="dim 40, width 39 and padded 64 do not go together"):
        QueryMap(40, 39, 64, False, None, None, None)
    with pytest.raises(ValueError, match="panels must have 80 rows, not 40"):
        QueryMap(40, 39, 64, False, None, np.ones((40, 32), "f4"), None)


def test_excluded_rows_are_never_results_and_k_rows_are_returned_if_there_are_k() -> None:
    n, x, q = 3000, clustered(3000, 32), clustered(20, 32, 1)
    what = coded(x)
    adjacency, entries = linked(what, n)
    left = np.sort(np.random.default_rng(3).choice(n, 15, replace=False))
    bits = np.ones(3008, np.uint8)
    bits[left] = 0
    excluded = np.packbits(bits, bitorder="little").view(np.uint64)
    for finder in (None, GraphFinder(what.codec, what.column, adjacency, n, entries)):
        searcher = Searcher(what.codec, what.column, n, finder)
        ids, _, counts = searched(searcher, q, 10, 16, n=n, excluded=excluded, live=len(left))
        assert (counts == 10).all()
        np.testing.assert_array_equal(ids, left[ordered(keys(what, x[left], q), 10)])


@pytest.mark.parametrize("walk", [False, True])
def test_only_the_given_rows_are_scored(walk: bool) -> None:
    n, x, q = 3000, clustered(3000, 32), clustered(20, 32, 1)
    what, fine = coded(x), coded(x, "f32")
    adjacency, entries = linked(what, n)
    finder = GraphFinder(what.codec, what.column, adjacency, n, entries) if walk else None
    searcher = Searcher(what.codec, what.column, n, finder, rerank=fine.codec, vectors=fine.column)
    for size in (0, 1, 63, 64, 65, 500):
        rows = np.sort(np.random.default_rng(size).choice(n, size, replace=False))
        named = rows.astype(np.uint32)
        ids, _, counts = searched(searcher, q, 10, 16, 0, n=n, live=size, rows=named)
        k = min(size, 10)
        assert (counts == k).all()
        np.testing.assert_array_equal(ids[:, :k], rows[ordered(keys(what, x[rows], q), k)])
        exact, _, _ = searched(searcher, q, 10, 16, 0, exact=True, n=n, live=size, rows=named)
        np.testing.assert_array_equal(exact[:, :k], rows[ordered(keys(fine, x[rows], q), k)])


def test_a_selection_that_does_not_fit_is_refused() -> None:
    what = coded(clustered(100, 16))
    with pytest.raises(ValueError, match="bitmap of n bits"):
        Selection(100, 10, np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="below n"):
        Selection(100, 10, None, np.array([3, 100], np.uint32))
    searcher, q = Searcher(what.codec, what.column, 100), clustered(1, 16)
    with pytest.raises(ValueError, match="of 50 rows, the index of 100"):
        searched(searcher, q, 1, 1, n=50)


@pytest.mark.parametrize(
    ("kind", "metric"), [("int8", "l2"), ("int8", "cosine"), ("int8", "ip"), ("f32", "ip"), ("f16", "l2")]
)
def test_a_walk_finds_nearly_what_a_scan_finds(kind: str, metric: str) -> None:
    n, x = 4000, clustered(4000, 48)
    q = x[:50] + 0.5 * np.random.default_rng(1).normal(size=(50, 48)).astype(np.float32)
    what = coded(x, kind, metric)
    adjacency, entries = linked(what, n)
    searcher = Searcher(what.codec, what.column, n, GraphFinder(what.codec, what.column, adjacency, n, entries))
    found = searched(searcher, q, 10, 128, n=n)[0]
    true = ordered(keys(what, x, q), 10)
    assert recall(found, true) >= 0.97
    np.testing.assert_array_equal(searched(searcher, q, 10, n, n=n)[0], true)  # a pool of n visits all


def test_reranking_orders_by_the_originals() -> None:
    n, x, q = 2000, clustered(2000, 64), clustered(30, 64, 1)
    coarse, fine = coded(x, "binary"), coded(x, "f32")
    searcher = Searcher(coarse.codec, coarse.column, n, rerank=fine.codec, vectors=fine.column)
    ids, distances, _ = searched(searcher, q, 10, 10, n, n=n)
    exact = ((q[:, None].astype(float) - x[None]) ** 2).sum(2)
    np.testing.assert_array_equal(ids, np.argsort(exact, axis=1, kind="stable")[:, :10])
    np.testing.assert_allclose(distances, np.take_along_axis(exact, ids, 1), rtol=1e-5)
    np.testing.assert_array_equal(searched(searcher, q, 10, 10, exact=True, n=n)[0], ids)


def test_a_graph_does_not_depend_on_the_number_of_threads() -> None:
    n, what = 3000, coded(clustered(3000, 32))
    graphs = [linked(what, n, threads)[0].read_range(0, n) for threads in (1, 2, 5)]
    np.testing.assert_array_equal(graphs[0], graphs[1])
    np.testing.assert_array_equal(graphs[0], graphs[2])


@pytest.mark.parametrize("case", ["clusters", "duplicates", "line", "zeros and one", "far clusters"])
def test_every_row_is_reachable_for_any_data(case: str) -> None:
    rng = np.random.default_rng(0)
    x = {
        "clusters": clustered(2500, 16),
        "duplicates": np.repeat(clustered(3, 16), 900, axis=0),
        "line": np.arange(2500, dtype=np.float32)[:, None] * np.ones((1, 16), np.float32),
        "zeros and one": np.vstack([np.zeros((2000, 16)), np.ones((1, 16))]).astype(np.float32),
        "far clusters": (rng.normal(size=(2500, 16)) + 1e4 * rng.integers(0, 5, (2500, 1))).astype(np.float32),
    }[case]
    n, what = len(x), coded(x)
    adjacency, entries = linked(what, n, threads=2, ef=32)
    assert 0 in entries
    for tree_only in (False, True):
        assert count(reachable(what.codec, what.column, adjacency, n, entries, 0, tree_only)) == n


def test_rows_linked_one_by_one_are_all_reachable_and_found() -> None:
    x = clustered(600, 24)
    what = coded(x)
    columns, graph = graph_columns(len(x)), Graph()
    adjacency, source = columns["adjacency"], IndexInput(columns, what, len(x))
    order = np.random.default_rng(2).permutation(len(x)).astype(np.uint32)
    for i in range(len(x)):
        GraphBuild(source, graph, 40, 1).run(order[i : i + 1])
    entries = graph.entries
    assert graph.root == order[0]
    assert count(reachable(what.codec, what.column, adjacency, len(x), entries, graph.root, tree_only=True)) == len(x)
    searcher = Searcher(
        what.codec, what.column, len(x), GraphFinder(what.codec, what.column, adjacency, len(x), entries)
    )
    assert (searched(searcher, x, 1, 40, n=len(x))[0][:, 0] == np.arange(len(x))).mean() > 0.995


def test_hostile_neighbor_lists_give_rows_of_the_collection_or_nothing() -> None:
    n, x = 1000, clustered(1000, 16)
    what = coded(x)
    adjacency = column("adjacency", DEGREE * 4, n)
    rng = np.random.default_rng(1)
    for garbage in (rng.integers(0, 2**32, (n, DEGREE), np.uint32), np.zeros((n, DEGREE), np.uint32)):
        adjacency.write(0, garbage.view(np.uint8))
        entries = np.array([5, 2**31, 2**32 - 1, n], np.uint32)
        searcher = Searcher(what.codec, what.column, n, GraphFinder(what.codec, what.column, adjacency, n, entries))
        ids = searched(searcher, x[:20], 10, 64, n=n)[0]
        assert ((ids >= 0) & (ids < n)).all()
        reachable(what.codec, what.column, adjacency, n, entries, n + 5)


def test_columns_that_do_not_fit_the_codec_are_refused() -> None:
    what = coded(clustered(100, 16))
    with pytest.raises(ValueError, match="stride"):
        Searcher(Codec("f32", "l2", 16), what.column, 100)
    with pytest.raises(ValueError, match="rows"):
        Searcher(what.codec, what.column, 10**6)
    with pytest.raises(TypeError, match="uint32"):
        Linker(what.codec, what.column, column("adjacency", DEGREE * 4, 100), 0, np.zeros(1), 0, 1.0, 0.0)
