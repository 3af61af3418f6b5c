"""Inverted lists of collections that store coarse codes only: lists are made from the vectors, not from their codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.ivf_collections import Float32, vectors_and_queries
from helpers.recall import recall
from qvec._kernels import Column, Lists
from qvec.codes.transforms import rotation_signs
from qvec.datasets import exact_knn
from qvec.index.ivf import dims_for, layout_of
from qvec.index.ivf_check import _block_heads
from qvec.rows.writer import Writer
from qvec.schema.fresh import FreshRows
from qvec.schema.layout import CENTROIDS, CODES, LIST_BLOCKS, LISTS, SLOTS

INDEX_COLUMNS = LIST_BLOCKS, LISTS, CENTROIDS, SLOTS


@pytest.fixture(scope="module")
def data() -> tuple[Float32, Float32]:
    return vectors_and_queries()


def opened(snap: Any) -> Lists:
    layout, columns = layout_of(snap.state.index), index_columns(snap)
    assert layout is not None
    return Lists(
        *(columns[name] for name in INDEX_COLUMNS), layout.dim, layout.metric,
        rotation_signs(layout.seed, dims_for(layout.dim)), layout.n_lists, snap.state.n, layout.n_blocks,
        layout.n_free, layout.free_block,
    )  # fmt: skip


def index_columns(snap: Any) -> dict[str, Column]:
    names = snap.state.column_names
    return {name: snap.columns[names.get(name, name)] for name in INDEX_COLUMNS}


def built(path: Path, x: Float32, parts: int = 1, **options: Any) -> qvec.Collection:
    given = {"metric": "l2", "code": "rabitq1", "index": qvec.IVF(), "originals": "none", **options}
    db = qvec.create(path, x.shape[1], **given)
    for part in np.array_split(x, parts):
        db.add(part)
    return db


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("code", ["rabitq1", "rabitq2", "ternary", "binary"])
@pytest.mark.parametrize("parts", [1, 3])
def test_lists_equal_those_of_a_collection_that_stores_originals(
    tmp_path: Path, data: tuple[Float32, Float32], metric: Any, code: str, parts: int
) -> None:
    base = data[0][:1200]
    made = []
    for originals in ("none", "f32"):
        path = tmp_path / f"{originals}.qvec"
        with built(path, base, parts, metric=metric, code=code, originals=originals) as db, db._store.read() as snap:
            assert db.verify() == []
            made.append([column.read_range(0, column.n_rows) for column in index_columns(snap).values()])
    for without, stored in zip(*made, strict=True):
        np.testing.assert_array_equal(without, stored)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("copies", [1, 2])
def test_decoded_entries_are_centroids_and_signs_nearest_to_the_vectors(
    path: Path, data: tuple[Float32, Float32], metric: Any, copies: int
) -> None:
    base = data[0]
    with built(path, base, metric=metric, index=qvec.IVF(copies=copies)) as db, db._store.read() as snap:
        lists, columns, rows = opened(snap), index_columns(snap), np.arange(len(base), dtype=np.uint32)
        y = lists.vectors(base).astype(np.float64)
        owner = _block_heads(columns[LIST_BLOCKS], 0, lists.n_blocks)[:, 1]
        centroids = columns[CENTROIDS].read_range(0, lists.n_lists)[:, : 4 * lists.dims].view("<f4").astype(np.float64)
        slots = columns[SLOTS].read(rows).view("<u4")[:, :copies]
        total, weights = np.zeros_like(y), np.zeros((len(y), 1))
        for copy in range(copies):
            center = centroids[owner[slots[:, copy] // 32]]
            residual = y - center
            amplitude = np.abs(residual).mean(axis=1, keepdims=True)
            loss = (residual**2).sum(axis=1, keepdims=True) - lists.dims * amplitude**2
            loss = np.maximum(loss, 1e-12)  # a list of one vector, which is its centroid
            total += (center + np.where(residual > 0, amplitude, -amplitude)) / loss
            weights += 1 / loss
        decoded = lists.center(lists.decode(rows)[0])
        np.testing.assert_allclose(decoded, total / weights, atol=2e-3 * np.abs(y).max())


def test_a_row_in_no_list_cannot_be_decoded(path: Path, data: tuple[Float32, Float32]) -> None:
    with built(path, data[0][:400]) as db:
        db.delete([7])
        with db._store.read() as snap, pytest.raises(ValueError, match="row 7 is in no list"):
            opened(snap).decode(np.array([3, 7], np.uint32))


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_lists_and_codes_together_find_more_than_a_scan_of_the_codes(
    path: Path, data: tuple[Float32, Float32], metric: Any
) -> None:
    base, queries = data
    with built(path, base, 12, metric=metric) as db:  # new centroids are chosen meanwhile
        truth = exact_knn(base, queries, 10, metric)[0]
        scan = recall(db.search(queries, 10, exact=True).ids, truth)
        assert recall(db.search(queries, 10, nprobe=db.stats().lists).ids, truth) > scan + 0.05
        assert db.verify() == []


def test_new_centroids_are_chosen_from_entries_of_the_old_lists(tmp_path: Path, data: tuple[Float32, Float32]) -> None:
    base = data[0]
    with built(tmp_path / "a.qvec", base, 12) as db, db._store.read() as snap:
        layout = layout_of(snap.state.index)
        assert layout is not None
        assert layout.clustered_at > len(base) // 12
        lists, rows = opened(snap), np.arange(len(base), dtype=np.uint32)
        error = ((lists.center(lists.decode(rows)[0]) - lists.vectors(base)) ** 2).sum(axis=1).mean()
        codes = lists.vectors(db.get(rows.tolist()).vectors)
        assert error < 0.6 * ((codes - lists.vectors(base)) ** 2).sum(axis=1).mean()


def test_moved_rows_keep_their_entries(path: Path, data: tuple[Float32, Float32]) -> None:
    base, queries = data
    with built(path, base) as db:
        gone = np.random.default_rng(1).choice(len(base), len(base) // 3, replace=False)
        kept = np.setdiff1d(np.arange(len(base)), gone)
        db.delete(gone.tolist())
        truth = kept[exact_knn(base[kept], queries, 10, "l2")[0]]
        before = recall(db.search(queries, 10, nprobe=db.stats().lists).ids, truth)
        db.optimize()
        with db._store.read() as snap:
            assert snap.state.n == len(kept)  # rows have moved
        assert recall(db.search(queries, 10, nprobe=db.stats().lists).ids, truth) == pytest.approx(before, abs=0.005)
        assert db.verify() == []


def test_vectors_whose_rows_were_reused_meanwhile_are_not_used(path: Path, data: tuple[Float32, Float32]) -> None:
    base = data[0]
    with built(path, base[:300]) as db, db._store.read() as snap:
        column, codec = snap.columns[CODES], db._access.active(snap).codes.codec  # type: ignore[union-attr]
        rows = np.arange(300, dtype=np.uint32)
        codes = column.read(rows)
        codes[[5, 9]] = codes[[6, 10]]
        fresh = FreshRows(base[:300], rows, codes).still_in(column, codec.stride - codec.spare_bytes)
        assert set(rows) - set(fresh.rows) == {5, 9}
        np.testing.assert_array_equal(fresh.read(np.array([8, 4])), base[[8, 4]])
        beyond = FreshRows(base[:2], np.array([1, 5000], np.uint32), codes[[1, 1]])
        assert beyond.still_in(column, codec.stride - codec.spare_bytes).rows.tolist() == [1]


def test_verify_reports_entries_of_other_rows(path: Path, data: tuple[Float32, Float32]) -> None:
    with built(path, data[0]) as db:
        assert db.verify() == []
        with db._store.write() as txn:
            column: Column = Writer(txn, db._access).columns[CODES]
            rows = np.arange(column.n_rows, dtype=np.uint32)
            column.put(rows, column.read(np.random.default_rng(2).permutation(rows)))
        assert any("mean cosine" in finding for finding in db.verify())
