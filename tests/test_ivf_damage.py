"""Inverted lists: bad options and damaged lists."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.ivf_collections import DIM, Float32, N, build, lists_of, vectors_and_queries
from qvec._kernels import Codec, Column, Lists, list_block_bytes
from qvec.codes.transforms import rotation_signs
from qvec.schema.layout import LIST_BLOCKS, LISTS, SLOTS
from qvec.schema.state import ListsState


@pytest.fixture(scope="module")
def data() -> tuple[Float32, Float32]:
    return vectors_and_queries()


@pytest.mark.parametrize("nlist", [0, -1, 2**20 + 1, 1.5, "many", None])
def test_a_number_of_lists_out_of_range_is_refused(nlist: Any) -> None:
    with pytest.raises(qvec.InputError, match="nlist"):
        qvec.IVF(nlist=nlist)


def test_there_are_at_most_as_many_lists_as_vectors_and_more_later(path: Path, data: tuple[Float32, Float32]) -> None:
    with qvec.create(path, DIM, metric="l2", index=qvec.IVF(nlist=101)) as db:
        db.add(data[0][:30])
        assert lists_of(db) == 30
        db.add(data[0][30:120])
        assert lists_of(db) == 101
        assert not db.verify()


def test_probes_out_of_range_or_of_another_index_are_refused(
    path: Path, tmp_path: Path, data: tuple[Float32, Float32]
) -> None:
    with build(path, data[0][:1000], metric="l2", index=qvec.IVF(nlist=10)) as db:
        for nprobe in (0, -1, 1.5, "all", 11):
            with pytest.raises(qvec.InputError, match="nprobe"):
                db.search(data[1], nprobe=nprobe)  # type: ignore[arg-type]
        with pytest.raises(qvec.InputError, match="give nprobe"):
            db.search(data[1], ef=100)
    for index in ("flat", "hnsw"):
        refusal = pytest.raises(qvec.InputError, match=f"nprobe is for inverted lists.*{index}")
        with build(tmp_path / f"{index}.qvec", data[0][:100], index=index) as db, refusal:
            db.search(data[1], nprobe=3)


def test_too_many_dimensions_for_a_block_are_refused(path: Path) -> None:
    with pytest.raises(qvec.InputError, match=r"16,192 dimensions"):
        qvec.create(path, 16_193, code="binary", originals="none", index="ivf")
    assert not path.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_lists", 0), ("n_lists", 10**9), ("n_blocks", 10**9), ("n_free", 10**9), ("n_free", 3), ("n_blocks", 2)],
)
def test_counts_that_differ_from_the_columns_are_damage(
    path: Path, data: tuple[Float32, Float32], field: str, value: int
) -> None:
    with build(path, data[0], metric="l2") as db:
        with db._store.write() as txn:
            lists = replace(txn.state.index.lists, **{field: value})
            txn.state = replace(txn.state, index=ListsState(lists=lists))
        with contextlib.suppress(qvec.CorruptError):
            assert db.verify() != []
        with contextlib.suppress(qvec.CorruptError):
            db.search(data[1], 10, nprobe=5)


@pytest.mark.parametrize(
    ("column", "place", "value"),
    [
        (LISTS, 0, 2**32 - 1),  # head
        (LISTS, 0, 2**31),
        (LISTS, 1, 2**32 - 1),  # entries
        (LISTS, 1, 1),
        (LIST_BLOCKS, 0, 2**32 - 2),  # next
        (LIST_BLOCKS, 1, 10**6),  # list
        (LIST_BLOCKS, 16, 2**31),  # a row
        (LIST_BLOCKS, 17, 0),
        (LIST_BLOCKS, 50, 0x7FC00000),  # a factor: NaN
        (LIST_BLOCKS, 200, 12345),  # codes
        (SLOTS, 0, 10**9),
        (SLOTS, 1, 7),
    ],
)
def test_damaged_lists_are_found_by_verify_and_crash_nothing(
    path: Path, data: tuple[Float32, Float32], column: str, place: int, value: int
) -> None:
    base, queries = data
    with build(path, base, metric="l2") as db:
        with db._store.write() as txn:
            rows = range(10, 40) if column != LIST_BLOCKS else range(20, 60)
            for row in rows:
                content = txn.columns[column].read([row]).view("<u4")
                content[0, place] = value
                txn.columns[column].write(row, content.view(np.uint8))
        assert db.verify() != []
        for nprobe in (1, 10, lists_of(db)):
            try:
                hits = db.search(queries, 10, nprobe=nprobe)
            except qvec.CorruptError:
                continue
            assert ((hits.ids >= -1) & (hits.ids < N)).all()
        for call in (lambda: db.delete(np.arange(100)), lambda: db.add(base[:100])):
            with contextlib.suppress(qvec.CorruptError):
                call()


def test_columns_that_do_not_go_together_are_refused() -> None:
    def column(stride: int, rows: int) -> Column:
        made = Column("c", 1, 0, stride, 1, 64, 4096, writable=True)
        made.resize(rows)
        return made

    dims = 64
    stride = Codec("f32", "l2", dims).stride
    good = [column(list_block_bytes(dims), 4), column(16, 4), column(stride, 4), column(8, 4)]
    signs = rotation_signs(0, dims)
    Lists(*good, 64, "l2", signs, 3, 4, 4, 0, 0)
    for i, wrong in enumerate((column(100, 4), column(8, 4), column(64, 4), column(12, 4))):
        columns = [*good[:i], wrong, *good[i + 1 :]]
        with pytest.raises(qvec.CorruptError):
            Lists(*columns, 64, "l2", signs, 3, 4, 4, 0, 0)
    for counts in ((4, 4, 4, 0), (0, 4, 4, 0), (3, 5, 4, 0), (3, 4, 5, 0), (3, 4, 4, 5)):
        with pytest.raises(qvec.CorruptError):
            Lists(*good, 64, "l2", signs, *counts, 0)
