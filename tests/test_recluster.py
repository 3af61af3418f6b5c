"""New centroids for inverted lists that have grown, while others write."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec.index import ivf
from qvec.index.ivf import IVFIndex
from qvec.maintenance.growth import ActiveIndex
from qvec.schema.state import ListLayout, ListsState

DIM, FIRST = 16, 150


def clustered_at(db: qvec.Collection) -> int:
    with db._store.read() as snap:
        return int(snap.state.index.lists.clustered_at)


def check(db: qvec.Collection, rng: np.random.Generator) -> None:
    assert db.verify() == []
    q = clustered(rng, 20, DIM)
    with db._store.read() as snap:
        n_lists = snap.state.index.lists.n_lists
    found, exact = db.search(q, 10, nprobe=n_lists), db.search(q, 10, exact=True)
    np.testing.assert_array_equal(np.sort(found.ids), np.sort(exact.ids))


def meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> list[int]:
    """Do something in another thread after centroids were chosen, before they are stored. Returns the calls."""
    build, calls = ActiveIndex._build, []

    def build_apart(self: ActiveIndex, *arguments: Any) -> Any:
        made = build(self, *arguments)
        calls.append(1)
        if len(calls) == 1:
            with ThreadPoolExecutor(1) as pool:  # in the same thread, additions would choose centroids again
                pool.submit(action).result()
        return made

    monkeypatch.setattr(ActiveIndex, "_build", build_apart)
    return calls


def grown(path: Path, rng: np.random.Generator, **options: Any) -> tuple[qvec.Collection, np.ndarray]:
    """A collection whose next vector makes the lists too few, and vectors to add."""
    x = clustered(rng, 8 * FIRST, DIM)
    db = qvec.create(path, DIM, index=qvec.IVF(), metric="l2", **options)
    db.add(x[:FIRST])
    for start in range(FIRST, 4 * FIRST - 1, FIRST // 3):
        db.add(x[start : min(start + FIRST // 3, 4 * FIRST - 1)])
    assert clustered_at(db) == FIRST
    return db, x


@pytest.mark.parametrize(
    "options", [{}, {"code": "binary"}, {"originals": "none"}, {"code": "f32"}], ids=["int8", "binary", "codes", "f32"]
)
def test_changes_made_meanwhile_are_in_the_new_lists(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    db, x = grown(path, rng, **options)
    with db:

        def change() -> None:
            db.delete(list(range(40)))
            db.add(x[700:720], ids=np.arange(5000, 5020))  # in rows of the deleted ones
            db.upsert(x[720:760], np.arange(100, 140))
            db.update_payloads([200], {"a": 1})
            db.add(x[760:1000])
            db.delete([500, 501, 5005])

        calls = meanwhile(monkeypatch, change)
        db.add(x[4 * FIRST : 4 * FIRST + 3])
        assert len(calls) == 1
        assert clustered_at(db) == 4 * FIRST + 2
        if options.get("code") != "binary" and "originals" not in options:
            check(db, rng)
        assert db.verify() == []


def test_rows_that_were_removed_at_the_end_meanwhile_leave_no_entries(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, x = grown(path, rng)
    with db:
        calls = meanwhile(monkeypatch, lambda: (db.delete(list(range(300, 600))), db._maintenance.move_rows(1, None)))
        db.add(x[:2])
        assert len(calls) == 1
        check(db, rng)
        assert clustered_at(db) == FIRST  # there are no longer too many rows
        with db._store.read() as snap:
            assert not snap.state.indexing
            assert not [name for name in snap.columns if "." in name]


def test_the_lists_of_another_process_that_was_faster_stay(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, x = grown(path, rng)
    with db:
        meanwhile(monkeypatch, lambda: db.add(x[: 20 * FIRST // 4]))  # enough for the add to choose centroids itself
        db.add(x[:1])
        assert clustered_at(db) > 4 * FIRST + 1
        check(db, rng)


def test_the_write_lock_is_free_meanwhile_and_in_a_transaction_nothing_is_chosen(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, x = grown(path, rng)
    with db:
        with db.transaction():
            db.add(x[:1])
        assert clustered_at(db) == FIRST

        def write() -> None:
            with qvec.open(path, timeout=0) as other:
                other.delete([0])

        calls = meanwhile(monkeypatch, write)
        db.optimize()
        assert len(calls) == 1
        assert clustered_at(db) > FIRST
        check(db, rng)


def test_an_error_while_centroids_are_chosen_leaves_the_old_lists(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, x = grown(path, rng)

    def fail() -> None:
        raise KeyboardInterrupt

    with db:
        with monkeypatch.context() as patch:
            meanwhile(patch, fail)
            with contextlib.suppress(KeyboardInterrupt):
                db.add(x[:1])
        assert len(db) == 4 * FIRST
        check(db, rng)
        db.add(x[:1])
        assert clustered_at(db) == 4 * FIRST + 1
        check(db, rng)


def test_one_transaction_adds_fewer_rows_to_many_lists() -> None:
    def limit(n_lists: int, dim: int = 384) -> int:
        layout = ListLayout(dim, "l2", 1, n_lists, n_lists * 100, n_lists * 100, 1)
        return IVFIndex(qvec.IVF()).max_rows(ListsState(lists=layout), n_lists * 100, dim)

    assert limit(4096) == ivf.LISTED_VALUES // 384
    assert limit(8192) == limit(4096) // 2
    assert limit(4096, 8) == ivf.LISTED_ROWS
    assert limit(1 << 20, 65_536) == 1
