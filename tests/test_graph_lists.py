"""Adjacency lists after any sequence of changes: no list names a row twice, its own row, or a row that is gone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qvec
from helpers.vectors import clustered
from qvec.index import graph_build

pytestmark = pytest.mark.simd

DIM, M = 16, 8
EMPTY, TREE_EDGE = 0xFFFFFFFF, 0x80000000
POOL = clustered(np.random.default_rng(4), 1500, DIM, centroids=25, spread=0.6)
BUILT_ROWS = 300  # adds of this many rows build the graph from partitions in these tests
STEP = st.one_of(
    st.tuples(st.just("add"), st.sampled_from([1, 7, 40, 120, BUILT_ROWS])),
    st.tuples(st.just("copies"), st.sampled_from([1, 30, 90])),
    st.tuples(st.just("delete"), st.sampled_from([0.02, 0.3, 0.9])),
    st.tuples(st.just("optimize"), st.just(0)),
)


@contextmanager
def small_builds() -> Iterator[None]:
    """Build graphs of few rows and dimensions from partitions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_build, "MIN_PARTITION_ROWS", BUILT_ROWS)
        patch.setattr(graph_build, "SMALL_ROWS", 0)
        yield


def lists_of(db: Any) -> npt.NDArray[np.uint32]:
    with db._store.read() as snap:
        found: npt.NDArray[np.uint32] = snap.columns["adjacency"].read_range(0, snap.state.n).view("<u4")
        return found


def repeated(lists: npt.NDArray[np.uint32]) -> list[int]:
    """Rows whose list names a row twice, or the row itself."""
    found = []
    for row, slots in enumerate(lists):
        named = slots[slots != EMPTY] & (TREE_EDGE - 1)
        if len(np.unique(named)) != len(named) or row in named:
            found.append(row)
    return found


def test_rows_of_a_batch_that_choose_each_other_take_one_slot(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, metric="l2", code=qvec.Int8(), index=qvec.HNSW()) as db:
        db.add(POOL)
        lists = lists_of(db)
    assert repeated(lists) == []
    assert (lists != EMPTY).sum() > 4 * len(POOL)


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEP, min_size=2, max_size=6), seed=st.integers(0, 1000), metric=st.sampled_from(["l2", "ip"]))
def test_no_list_names_a_row_twice(steps: list[tuple[str, float]], seed: int, metric: Any) -> None:
    rng = np.random.default_rng(seed)
    with (
        small_builds(),
        tempfile.TemporaryDirectory() as folder,
        qvec.create(Path(folder) / "a.qvec", DIM, metric=metric, code=qvec.Int8(), index=qvec.HNSW(m=M)) as db,
    ):
        ids = [*db.add(POOL[:60]).ids]
        for kind, size in steps:
            if kind == "add":
                ids += [*db.add(POOL[rng.choice(len(POOL), int(size), replace=False)]).ids]
            elif kind == "copies":
                ids += [*db.add(np.repeat(POOL[:1], int(size), axis=0)).ids]
            elif kind == "delete":
                dropped = rng.choice(len(ids), int(size * len(ids)), replace=False)
                db.delete(np.array(ids)[dropped])
                ids = [*np.delete(np.array(ids), dropped)]
            else:
                db.optimize()
            assert repeated(lists_of(db)) == []
        assert not [finding for finding in db.verify(deep=True) if finding.kind != "advice"]
