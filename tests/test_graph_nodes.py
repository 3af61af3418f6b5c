"""The packed layout of a graph: its nodes, its walk, and collections that use it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import qvec
from helpers.packed_graphs import clustered, linked
from helpers.recall import recall
from qvec import _kernels
from qvec._kernels import (
    PackedFinder,
    Packer,
    Searcher,
    SearchParams,
    Selection,
    node_shape,
    simd_levels,
    transform,
)
from qvec.codes.transforms import rotation_signs
from qvec.index import graph_nodes, hnsw
from qvec.maintenance import index_aside
from qvec.storage.store import Transaction

pytestmark = pytest.mark.simd

Floats = NDArray[np.float32]
PACKED = qvec.HNSW(layout="packed")
N = 2000


def distances(metric: str, q: Floats, x: Floats) -> NDArray[np.float64]:
    y, z = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return np.asarray(((y[:, None] - z[None]) ** 2).sum(-1))
    if metric == "cosine":
        y, z = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (y, z))
    return float(metric == "cosine") - y @ z.T


CASES = [("cosine", 7, 0.97), ("cosine", 64, 0.95), ("cosine", 100, 0.95), ("cosine", 384, 0.95), ("cosine", 784, 0.95)]
CASES += [("l2", 7, 0.97), ("l2", 64, 0.95), ("l2", 384, 0.95), ("l2", 784, 0.95), ("ip", 7, 0.9), ("ip", 64, 0.9)]


@pytest.mark.parametrize(("metric", "dim", "floor"), CASES)
@pytest.mark.slow
def test_a_packed_search_finds_what_brute_force_finds(path: Path, metric: Any, dim: int, floor: float) -> None:
    x, q = clustered(N, dim), clustered(40, dim, 1)
    with qvec.create(path, dim, metric=metric, code="int8", index=PACKED) as db:
        db.add(x)
        hits = db.search(q, 10, ef=200)
        assert db.verify() == []
    true = np.argsort(distances(metric, q, x), axis=1)[:, :10]
    assert recall(hits.ids, true) >= floor
    exact = np.take_along_axis(distances(metric, q, x), hits.ids, 1)
    np.testing.assert_allclose(hits.distances, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("code", ["int8", "int4", "rabitq4", "rabitq8", qvec.Int8(scale="per_dim")])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_vectors_far_from_the_origin_are_found_with_every_code(path: Path, code: Any, metric: Any) -> None:
    x = clustered(2200, 64) + 8
    base, queries = x[:2000], x[2000:]
    with qvec.create(path, 64, metric=metric, code=code, index=qvec.HNSW(layout="packed")) as db:
        db.add(base)
        found = db.search(queries, 10, ef=64).ids
    true = np.argsort(distances(metric, queries, base), axis=1)[:, :10]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]) >= 0.97


def test_nodes_updated_one_by_one_equal_rebuilt_nodes(path: Path) -> None:
    x = clustered(400, 48)
    with qvec.create(path, 48, metric="l2", code="int8", index=PACKED) as db:
        db.add(x[:250])
        for i in range(250, 300):
            db.add(x[i : i + 1])
        db.add(x[300:])
        assert db.verify() == []  # every node against its list and codes
        assert (db.search(x, 1, ef=100).ids[:, 0] == np.arange(400)).mean() > 0.99


def test_nodes_do_not_depend_on_threads_and_verify_sees_a_changed_byte() -> None:
    coded, adjacency, nodes, _ = linked(clustered(600, 40))
    made = nodes.read_range(0, 600)
    packer = Packer(coded.codec, coded.column, adjacency, nodes, 600, rotation_signs(graph_nodes.ROTATION_SEED, 64))
    packer.begin(np.arange(600, dtype=np.uint32))
    packer.run()
    np.testing.assert_array_equal(nodes.read_range(0, 600), made)
    assert len(graph_nodes.wrong_nodes(coded, adjacency, nodes, 600, 600)) == 0
    made[7, 100] ^= 1
    nodes.write(7, made[7:8])
    np.testing.assert_array_equal(graph_nodes.wrong_nodes(coded, adjacency, nodes, 600, 600), [7])


@pytest.mark.parametrize(("dim", "coded"), [(40, 64), (384, 384), (512, 464), (784, 576), (1536, 736)])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_a_node_is_its_definition(dim: int, coded: int, metric: str) -> None:
    x = clustered(300, dim)
    made, adjacency, nodes, _ = linked(x, metric)
    rotated, stride = node_shape(made.codec, 32)
    decoded = np.pad(made.codec.decode(made.column.read_range(0, 300)), ((0, 0), (0, rotated - dim)))
    y = transform(decoded, rotated, False, None, rotation_signs(graph_nodes.ROTATION_SEED, rotated)).astype(np.float64)
    places = np.array([2 * v if v < 8 else 2 * (v - 8) + 1 for v in range(16)])
    for u in (0, 7, 299):
        node = nodes.read_range(u, u + 1)[0]
        rows = adjacency.read_range(u, u + 1).view(np.uint32)[0] & 0x7FFF_FFFF
        lines = node[: 4 * coded].reshape(-1, 4, 16)[..., places].swapaxes(1, 2)  # line, vector, group of four dims
        nibbles = np.stack([lines & 15, lines >> 4]).reshape(2, -1, 16, 4)[:, :, :, :, None] >> np.arange(4) & 1
        signs = nibbles.transpose(0, 2, 1, 3, 4).reshape(32, coded) - 0.5
        at = 4 * coded
        assert node[at : at + 128].view(np.uint32).tolist() == [
            row if row < 300 else 0xFFFF_FFFF for row in rows.tolist()
        ]
        add, rescale = node[at + 128 : at + 256].view(np.float16).reshape(2, 32).astype(np.float64)
        code = made.column.read_range(u, u + 1)[0, : made.codec.data_size + 8]
        end = at + 256 + len(code)
        np.testing.assert_array_equal(node[at + 256 : end], code)
        units = np.frombuffer(node[-(-end // 4) * 4 :][:8].tobytes(), np.float32)
        held = rows < 300
        r = y[rows[held]] - y[u]
        np.testing.assert_array_equal(signs[held], (r[:, :coded] > 0) - 0.5)
        scale = (r**2).sum(1) / (r[:, :coded] * signs[held]).sum(1)
        along = signs[held] @ y[u, :coded]
        factor = 2 if metric == "l2" else 1
        base = (r**2).sum(1) if metric == "l2" else -(r @ y[u])
        added = base + factor * scale * along
        np.testing.assert_allclose(add[held] * units[0], added, rtol=2e-3, atol=1e-3 * abs(added).max())
        np.testing.assert_allclose(rescale[held] * units[1], -factor * scale, rtol=2e-3)
        assert np.isinf(add[~held]).all()
    assert stride == nodes.stride


@pytest.mark.parametrize("ef", [10, 24, 64, 192, 512])
def test_every_level_takes_the_same_steps(ef: int) -> None:
    x, q = clustered(1500, 48), clustered(30, 48, 1)
    found = []
    for level in simd_levels():
        coded, _, nodes, entries = linked(x, simd=level)
        walker = graph_nodes.node_finder(coded, nodes, 32, len(x), entries)
        searcher = Searcher(coded.codec, coded.column, len(x), walker)
        rows, distances, _ = searcher.search(q, SearchParams(10, ef=ef), Selection(len(x), len(x)))
        found.append((rows.tolist(), distances.tolist(), searcher.hops, searcher.evaluations))
    assert all(one == found[0] for one in found)


def test_hostile_nodes_give_rows_of_the_collection_or_nothing() -> None:
    n, x = 800, clustered(800, 48)
    coded, _, nodes, _ = linked(x)
    rng = np.random.default_rng(1)
    entries = np.array([5, 2**31, 2**32 - 1, n], np.uint32)
    for garbage in (
        rng.integers(0, 256, (n, nodes.stride), np.uint8),
        np.full((n, nodes.stride), 255, np.uint8),
        np.zeros((n, nodes.stride), np.uint8),
    ):
        nodes.write(0, garbage)
        walker = PackedFinder(coded.codec, coded.column, nodes, n, 32, rotation_signs(1, 64), entries)
        searcher = Searcher(coded.codec, coded.column, n, walker)
        ids, _, counts = searcher.search(x[:20], SearchParams(10, ef=64), Selection(n, n))
        assert ((ids >= 0) & (ids < n)).all()
        assert (counts == 10).all()


@pytest.mark.parametrize("memory", ["mmap", "ram"])
def test_deletes_string_ids_and_a_reopened_file(path: Path, memory: Any) -> None:
    x = clustered(900, 32)
    names = [f"v{i}" for i in range(900)]
    with qvec.create(path, 32, metric="cosine", code="int8", index=PACKED, ids="str", originals="f16") as db:
        db.add(x, names)
        db.delete(names[:300])
    with qvec.open(path, mode="r", memory=memory) as db:
        hits = db.search(x[:100], 10, ef=200)
        assert (hits.counts == 10).all()
        assert not set(hits.ids.ravel()) & set(names[:300])
        true = np.argsort(distances("cosine", x[:100], x[300:]), axis=1)[:, :10] + 300
        found = [[int(name[1:]) for name in row] for row in hits.ids]
        assert recall(found, true) >= 0.93


def test_k_hits_are_returned_when_nearly_all_rows_are_deleted(path: Path) -> None:
    x = clustered(600, 32)
    with qvec.create(path, 32, metric="l2", code="int8", index=PACKED) as db:
        db.add(x)
        db.delete(range(12, 600))
        assert (db.search(x[:20], 10).counts == 10).all()


@pytest.mark.slow
def test_new_codes_have_nodes_of_their_own(path: Path) -> None:
    x = clustered(1200, 64)
    with qvec.create(path, 64, metric="cosine", code="int8", index=PACKED) as db:
        db.add(x)
        db.requantize("int4", relink=False)
        assert db.verify() == []
        db.add(clustered(100, 64, 5))
        assert db.verify() == []
        db.rollback(0)
        assert db.verify() == []
        assert len(db.evaluate(x[:20], codes=["int8", "binary"], n=20).rows) > 0
        with pytest.raises(qvec.InputError, match="at least 4 bits per dimension, not binary"):
            db.requantize("binary")
        assert db.verify() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"m": 8}, "16, 32, 48 or 64"), ({"m": 24}, "16, 32, 48 or 64"), ({"layout": "tight"}, "HNSW.layout")],
)
def test_a_layout_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        qvec.HNSW(**{"layout": "packed", **options})


@pytest.mark.parametrize(("code", "dim"), [("binary", 64), ("ternary", 64), ("rabitq1", 64), ("int8", 5000)])
def test_codes_and_dimensions_that_packed_nodes_do_not_support_are_refused_before_a_write(
    path: Path, code: Any, dim: int
) -> None:
    with pytest.raises(qvec.InputError, match="index='packed'"):
        qvec.create(path, dim, metric="l2", code=code, index=PACKED)
    assert not path.exists()


@pytest.mark.skipif("avx2" not in simd_levels(), reason="looks for the instruction of x86")
def test_the_extension_contains_its_prefetch_instructions() -> None:
    """Compilers remove functions that only prefetch. prefetcht1 is 0f 18 /2."""
    code = Path(_kernels.__file__).read_bytes()
    assert len(re.findall(rb"\x0f\x18[\x10-\x17\x50-\x57\x90-\x97]", code)) >= 10


def test_the_nodes_of_a_first_batch_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private: list[int] = []
    commit, n = Transaction.commit, 6144

    def watched(self: Transaction) -> None:
        private.extend(column.private_bytes for name, column in self.view.columns.items() if name.startswith("nodes"))
        commit(self)

    monkeypatch.setattr(Transaction, "commit", watched)
    monkeypatch.setattr(hnsw, "LINKED_ROWS", 1000)
    monkeypatch.setattr(index_aside, "STORED_BYTES", 1 << 18)
    with qvec.create(tmp_path / "a.qvec", 64, code=qvec.Int8(), index=PACKED) as db:
        db.add(clustered(n, 64))
        assert not db.verify(deep=True)
        with db._store.read() as snap:
            whole = n * snap.columns[snap.state.column_names["nodes"]].stride
    assert len(private) >= 3
    assert 0 < max(private) < 0.5 * whole
