"""Searches of packed nodes for many results or by large pools: the walk by codes against a walk in NumPy."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import qvec
from helpers.packed_graphs import clustered, column, linked
from helpers.recall import recall
from qvec._kernels import (
    PackedFinder,
    Packer,
    Searcher,
    SearchParams,
    Selection,
    fastscan_sums,
    fastscan_table,
    node_shape,
    simd_levels,
    transform,
)
from qvec.codes.transforms import rotation_signs
from qvec.index import graph_nodes
from qvec.index.base import CodeColumn

pytestmark = pytest.mark.simd

Floats = NDArray[np.float32]
NO_ROW = 0xFFFF_FFFF
WIDE = 192  # the pool, and the number of results: 96 or more are found by codes


def with_start(coded: CodeColumn, entries: NDArray[np.uint32], n: int) -> tuple[CodeColumn, NDArray[np.uint8]]:
    """The codes and one more, the mean of the entries; and the node of that row, whose neighbors are the entries."""
    codec, degree = coded.codec, max(32, -(-len(entries) // 32) * 32)
    codes = column("codes", codec.stride, n + 1)
    codes.write(0, coded.column.read_range(0, n))
    codes.write(n, codec.encode(codec.decode(coded.column.read(entries)).mean(axis=0, keepdims=True)))
    dims, stride = node_shape(codec, degree)
    lists, nodes = column("adjacency", 4 * degree, n + 1), column("nodes", stride, n + 1)
    neighbors = np.full(degree, NO_ROW, np.uint32)
    neighbors[: len(entries)] = entries
    lists.write(n, neighbors.view(np.uint8)[None])
    packer = Packer(codec, codes, lists, nodes, n + 1, rotation_signs(graph_nodes.ROTATION_SEED, dims))
    packer.begin(np.array([n], np.uint32))
    packer.run()
    return CodeColumn(codec, codes), nodes.read_range(n, n + 1)[0]


@dataclass
class Oracle:
    """The walk by codes of one query. ``keys``: of all rows, and of the start node behind them."""

    nodes: NDArray[np.uint8]
    start: NDArray[np.uint8]
    keys: Floats
    table: NDArray[np.uint8]
    delta: np.float32
    coded: int
    code_bytes: int
    ef: int
    hops = evaluations = 0

    def stage(self, node: NDArray[np.uint8], key: np.float32) -> list[int]:
        """The neighbors that are scored: not scored before, and estimated below the pool's bound."""
        n, sign_bytes = len(self.keys) - 1, 4 * self.coded
        degree = next(d for d in (32, 64, 96, 128) if node_bytes(self.coded, d, self.code_bytes) == len(node))
        at = sign_bytes * degree // 32
        rows = node[at : at + 4 * degree].view(np.uint32)
        add, rescale = node[at + 4 * degree : at + 8 * degree].view(np.float16).reshape(2, degree).astype(np.float32)
        units = node[at + 8 * degree + self.code_bytes :][:8].copy().view(np.float32)
        groups = [node[i * sign_bytes : (i + 1) * sign_bytes] for i in range(degree // 32)]
        sums = np.concatenate([fastscan_sums(group, self.table, simd="scalar").ravel() for group in groups])
        with np.errstate(invalid="ignore"):
            estimates = (key + add * units[0]) + rescale * (units[1] * self.delta) * sums.astype(np.float32)
        bound = self.pool[-1][0] if len(self.pool) == self.ef else np.inf
        near = rows[(estimates < bound) & (rows < n)].tolist()
        staged = [row for row in dict.fromkeys(near) if row not in self.scored]
        self.scored.update(staged)
        self.evaluations += degree + len(staged)
        return staged

    def score(self, rows: list[int]) -> None:
        for row in rows:
            insort(self.pool, (float(self.keys[row]), row))
        del self.pool[self.ef :]

    def run(self) -> list[int]:
        self.pool: list[tuple[float, int]] = []
        self.scored: set[int] = set()
        expanded: set[int] = set()
        self.score(self.stage(self.start, self.keys[-1]))
        current, waiting = None, []
        while True:
            following = next((row for _, row in self.pool if row not in expanded), None)
            if following is None and current is None and not waiting:
                return [row for _, row in self.pool]
            if following is not None:
                expanded.add(following)
            staged = []
            if current is not None:
                staged = self.stage(self.nodes[current], self.keys[current])
                self.hops += 1
            self.score(waiting)
            current, waiting = following, staged


def node_bytes(coded: int, degree: int, code_bytes: int) -> int:
    return -(-(4 * coded * degree // 32 + 8 * degree + code_bytes + 8) // 64) * 64


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize(("metric", "dim", "coded"), [("l2", 48, 64), ("cosine", 100, 112), ("l2", 512, 464)])
def test_it_takes_the_steps_of_a_walk_in_numpy(metric: str, dim: int, coded: int, level: str) -> None:
    x, q, n = clustered(2500, dim), clustered(6, dim, 1), 2500
    made, _, nodes, entries = linked(x, metric, level)
    together, start = with_start(made, entries, n)
    rotated = node_shape(made.codec, 32)[0]
    signs = rotation_signs(graph_nodes.ROTATION_SEED, rotated)
    finder = PackedFinder(made.codec, made.column, nodes, n, 32, signs, entries)
    scan = Searcher(made.codec, together.column, n + 1)
    code_bytes = -(-(made.codec.data_size + 8) // 4) * 4
    for query in q:
        rows, keys, _ = scan.search(query, SearchParams(n + 1), Selection(n + 1, n + 1))
        table, delta = fastscan_table(transform(query[None], rotated, metric == "cosine", None, signs)[0, :coded])
        oracle = Oracle(
            nodes.read_range(0, n), start, keys[np.argsort(rows)], table, np.float32(delta), coded, code_bytes, WIDE
        )
        expected = oracle.run()
        searcher = Searcher(made.codec, made.column, n, finder)
        found = searcher.search(query, SearchParams(WIDE, ef=WIDE), Selection(n, n))[0]
        assert found.tolist() == expected
        assert (searcher.hops, searcher.evaluations) == (oracle.hops, oracle.evaluations)


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_a_pool_of_all_rows_finds_what_a_scan_finds(metric: str, level: str) -> None:
    n, x, q = 900, clustered(900, 40), clustered(20, 40, 1)
    made, _, nodes, entries = linked(x, metric, level)
    finder = graph_nodes.node_finder(made, nodes, 32, n, entries)
    params, everything = SearchParams(100, ef=n), Selection(n, n)
    found = Searcher(made.codec, made.column, n, finder).search(q, params, everything)
    scanned = Searcher(made.codec, made.column, n).search(q, params, everything)
    for one, other in zip(found, scanned, strict=True):
        np.testing.assert_array_equal(one, other)


def test_hostile_nodes_give_rows_of_the_collection_or_nothing() -> None:
    n, x = 800, clustered(800, 48)
    made, _, nodes, _ = linked(x)
    rng = np.random.default_rng(1)
    entries = np.array([5, 2**31, 2**32 - 1, n], np.uint32)
    noise = rng.integers(0, 256, (n, nodes.stride), np.uint8)
    for garbage in (noise, np.full_like(noise, 255), np.zeros_like(noise)):
        nodes.write(0, garbage)
        walker = PackedFinder(made.codec, made.column, nodes, n, 32, rotation_signs(1, 64), entries)
        found = Searcher(made.codec, made.column, n, walker).search(x[:20], SearchParams(100, ef=200), Selection(n, n))
        assert ((found[0] >= 0) & (found[0] < n)).all()
        assert (found[2] == 100).all()


@pytest.mark.slow
@pytest.mark.parametrize("code", ["int8", "int4", "f16"])
def test_many_results_are_found_with_deletes_and_filters(path: Path, code: Any) -> None:
    x, q = clustered(3000, 48), clustered(20, 48, 1)
    with qvec.create(path, 48, metric="l2", code=code, index=qvec.HNSW(layout="packed"), fields={"a": "int"}) as db:
        db.add(x, payloads=[{"a": i % 2} for i in range(3000)])
        db.delete(range(300))
        every, odd = db.search(q, 100, ef=200), db.search(q, 100, where={"a": 1})
    true = np.argsort(((q[:, None].astype(np.float64) - x[None, 300:]) ** 2).sum(-1), axis=1) + 300
    assert recall(every.ids, true[:, :100]) >= 0.98
    assert recall(odd.ids, np.stack([row[row % 2 == 1][:100] for row in true])) >= 0.95
