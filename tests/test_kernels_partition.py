"""The build of graphs by partitions: its kernels against NumPy at each SIMD level, and a whole small build."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers.vectors import clustered
from qvec._kernels import Codec, Column, PartitionLinker, first_equals, pair_keys, reachable, simd_levels
from qvec.common.parallel import for_each
from qvec.schema.bitmaps import count
from qvec.storage.store import block_geometry

pytestmark = pytest.mark.simd

LEVELS = simd_levels()
DEGREE, ALPHA = 32, 1.1
OPTIONS: dict[str, Any] = {"fanout": 8, "leaf_fanout": 2, "nearest": 5, "n_leaders": 12, "seed": 1}


def column(stride: int, rows: int) -> Column:
    rows_per_block, pages = block_geometry(stride, 4096, 1, 16)
    made = Column("column", 1, 0, stride, rows_per_block, pages, 4096, writable=True)
    made.resize(rows)
    return made


def vectors(n: int, dim: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return clustered(np.random.default_rng(seed), n, dim)


def steps(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return codes.astype(np.float64) - 128


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dim", [3, 64, 100, 384])
@pytest.mark.parametrize("n", [1, 2, 5, 16, 17, 95, 130])
def test_pairs_have_the_distances_of_their_codes(level: str, metric: str, dim: int, n: int) -> None:
    codec = Codec("int8", metric, dim, simd=level)
    rows = codec.encode(vectors(n, dim, n))
    keys, whole, leaf = pair_keys(codec, rows, 5)
    factors = rows[:, codec.data_size : codec.data_size + 8].copy().view(np.float32)
    scale, norm2 = factors[:, 0], factors[:, 1]
    k = steps(rows[:, : codec.data_size])
    both = scale[:, None] * scale[None]
    expected = np.maximum((norm2[:, None] + norm2[None]) - (both + both) * (k @ k.T).astype(np.float32), 0)
    np.testing.assert_array_equal(keys, expected)
    order = np.argsort(keys, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(whole[:, : min(n, 5)], order)
    assert (whole[:, min(n, 5) :] == -1).all()
    others = keys.copy()
    np.fill_diagonal(others, np.inf)
    order = np.argsort(others, axis=1, kind="stable")[:, : min(n - 1, 5)]
    np.testing.assert_array_equal(leaf[:, : min(n - 1, 5)], order)
    assert (leaf[:, max(n - 1, 0) :] == -1).all()


@pytest.mark.parametrize("level", LEVELS)
def test_ties_are_in_the_order_of_rows(level: str) -> None:
    codec = Codec("int8", "l2", 64, simd=level)
    rows = codec.encode(np.repeat(vectors(4, 64), 30, axis=0))
    _, whole, leaf = pair_keys(codec, rows, 7)
    first = np.repeat(np.arange(4) * 30, 30)
    np.testing.assert_array_equal(whole, first[:, None] + np.arange(7))
    own = np.arange(120)[:, None]
    expected = first[:, None] + np.arange(7)
    np.testing.assert_array_equal(
        leaf, np.where((own - first[:, None] < 7) & (expected >= own), expected + 1, expected)
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [1e-30, 1e18, 3e38])
def test_extreme_lengths_give_no_wild_neighbors(level: str, value: float) -> None:
    codec = Codec("int8", "l2", 64, simd=level)
    x = (np.sign(vectors(50, 64)) * value).astype(np.float32)
    _, whole, leaf = pair_keys(codec, codec.encode(x), 5)
    assert ((whole >= -1) & (whole < 50) & (leaf >= -1) & (leaf < 50)).all()


def build(
    codec: Codec, rows: npt.NDArray[np.uint8], threads: int = 1, **options: Any
) -> tuple[npt.NDArray[np.uint32], Column, Column]:
    """The lists of a build of all rows, uint32 [n, degree], with tree edges marked."""
    n = len(rows)
    codes, adjacency = column(codec.stride, n), column(DEGREE * 4, n)
    codes.write(0, rows)
    all_rows = np.arange(n, dtype=np.uint32)
    linker = PartitionLinker(codec, codes, adjacency, n, all_rows, 0, ALPHA, 0.0, **(OPTIONS | options))
    for_each(linker.assign, range(linker.n_assign), threads)
    linker.group()
    for_each(linker.cluster, range(linker.n_clusters), threads)
    for_each(linker.prune, range(linker.n_parts), threads)
    linker.reverse()
    for_each(linker.write, range(linker.n_parts), threads)
    linker.tree(np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    np.testing.assert_array_equal(linker.changed, all_rows)
    return adjacency.read_range(0, n).view("<u4"), codes, adjacency


def pruned(keys: npt.NDArray[np.float32], row: int, candidates: list[int], limit: int) -> list[int]:
    """Robust pruning by the distances of all pairs."""
    kept: list[int] = []
    for candidate in sorted(candidates, key=lambda c: (keys[row, c], c)):
        if all(np.float32(ALPHA) * keys[near, candidate] > keys[row, candidate] for near in kept):
            kept.append(candidate)
    return kept[:limit]


@pytest.mark.parametrize("level", LEVELS)
def test_a_build_of_one_leaf_is_that_of_an_oracle(level: str) -> None:
    n, codec = 400, Codec("int8", "l2", 48, simd=level)
    rows = codec.encode(np.random.default_rng(3).normal(size=(n, 48)).astype(np.float32))
    lists, _, _ = build(codec, rows, fanout=2, n_leaders=2, nearest=12)  # both clusters hold all rows, in one leaf each
    keys, _, leaf = pair_keys(codec, rows, 12)
    near = [set(found.tolist()) for found in leaf]
    candidates = [
        sorted(near[i] | {j for j in range(n) if i in near[j]}, key=lambda c: keys[i, c])[:48] for i in range(n)
    ]
    out = [pruned(keys, i, candidates[i], DEGREE) for i in range(n)]
    for i in range(n):
        joined = out[i] + [j for j in range(n) if i in out[j] and j not in out[i]]
        expected = pruned(keys, i, joined, DEGREE) if len(joined) > DEGREE else joined
        found = lists[i][lists[i] != 0xFFFFFFFF] & 0x7FFFFFFF
        assert set(found.tolist()) == set(expected)


@pytest.mark.parametrize(("metric", "dim"), [("l2", 24), ("cosine", 130)])
@pytest.mark.slow
def test_builds_do_not_depend_on_threads_and_instruction_sets(metric: str, dim: int) -> None:
    x = vectors(6000, dim)
    lists: list[npt.NDArray[np.uint32]] = []
    for level in LEVELS:
        codec = Codec("int8", metric, dim, simd=level)
        lists += [build(codec, codec.encode(x), threads)[0] for threads in (1, 3)]
    for other in lists[1:]:
        np.testing.assert_array_equal(lists[0], other)


def shapes() -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {
        "clusters": vectors(5000, 16),
        "one cluster": rng.normal(size=(5000, 16)).astype(np.float32) * 1e-3 + 1,
        "line": np.arange(5000, dtype=np.float32)[:, None] * np.ones((1, 16), np.float32),
        "copies": np.repeat(vectors(3, 16), 1700, axis=0),
        "far": (rng.normal(size=(5000, 16)) + 1e4 * rng.integers(0, 5, (5000, 1))).astype(np.float32),
    }


@pytest.mark.parametrize("shape", shapes())
def test_the_tree_reaches_every_row(shape: str) -> None:
    x = shapes()[shape]
    codec = Codec("int8", "l2", 16)
    _, codes, adjacency = build(codec, codec.encode(x), 2)
    root = np.zeros(1, np.uint32)
    assert count(reachable(codec, codes, adjacency, len(x), root, 0, tree_only=True)) == len(x)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_equal_rows_are_those_with_equal_codes(metric: str) -> None:
    x = vectors(500, 30)
    order = np.random.default_rng(1).integers(0, 500, 3000)
    codec = Codec("int8", metric, 30)
    codes = column(codec.stride, 3000)
    codes.write(0, codec.encode(x[order]))
    found = first_equals(codec, codes, np.arange(3000, dtype=np.uint32))
    expected = [np.flatnonzero(order == one)[0] for one in order]
    np.testing.assert_array_equal(found, expected)


def test_arguments_that_do_not_fit_are_refused() -> None:
    codec = Codec("int8", "l2", 16)
    codes, adjacency = column(codec.stride, 50), column(DEGREE * 4, 50)
    rows = np.arange(50, dtype=np.uint32)

    def linker(codec: Codec, rows: npt.NDArray[np.uint32], **options: Any) -> PartitionLinker:
        return PartitionLinker(codec, codes, adjacency, 50, rows, 0, ALPHA, 0.0, **(OPTIONS | options))

    with pytest.raises(ValueError, match="cannot be linked by partitions"):
        linker(Codec("int8", "ip", 16), rows)
    with pytest.raises(ValueError, match="51 leaders of 50 rows"):
        linker(codec, rows, n_leaders=51)
    with pytest.raises(ValueError, match="fan-outs 17, 2 and 5 neighbors"):
        linker(codec, rows, fanout=17)
    with pytest.raises(ValueError, match="row 50 is not below 50"):
        linker(codec, rows + 1)
    with pytest.raises(ValueError, match="unit 12 of 12"):
        linker(codec, rows).cluster(12)
