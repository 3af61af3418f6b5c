"""Handles across os.fork: new ones work in the child, the parent's are refused there, and the parent is unharmed."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from child import run
from fork_helpers import X, assert_unharmed, collection

import qvec
from helpers.store_files import in_child

pytestmark = pytest.mark.alone


def search_in_child(path: str) -> None:
    with collection(path) as db:
        hits = db.search(X[:20], 5)

        def child() -> None:
            again = db.search(X[:20], 5)
            assert again.ids.tolist() == hits.ids.tolist()
            assert again.payloads == hits.payloads
            assert db.get([3]).vectors.tolist() == X[3:4].tolist()
            assert len(list(db.scan(batch_size=50))) == 4

        for _ in range(3):
            in_child(child)
            assert_unharmed(db)
            db.delete(np.arange(200, 300))


def child_follows_parent(path: str) -> None:
    with collection(path) as db, qvec.open(path, "r") as reader:
        reader.search(X[0])
        ready, go = os.pipe()

        def child() -> None:
            assert reader.search(X[7], 1).ids.tolist() == [7]
            os.read(ready, 1)
            assert reader.search(X[250], 1).ids.tolist() == [777]

        timer = threading.Timer(0.3, lambda: (db.add(X[250], [777]), os.write(go, b"x")))
        timer.start()
        in_child(child)
        timer.join()
        assert_unharmed(db)


def write_in_child(path: str) -> None:
    with collection(path, exclusive=True, timeout=0.1) as db:

        def child() -> None:
            with pytest.raises(qvec.LockedError):
                db.add(X[200])
            with pytest.raises(qvec.LockedError):
                db.delete([0])
            assert db.search(X[7], 1).ids.tolist() == [7]

        in_child(child)
        assert_unharmed(db)
    with qvec.open(path) as db:
        assert len(db) == 210


def write_in_child_after_the_parent_closed(path: str) -> None:
    parent = collection(path)
    closed, close = os.pipe()

    def close_parent() -> None:
        parent.close()
        os.write(close, b"x")

    timer = threading.Timer(0.3, close_parent)

    def child() -> None:
        os.read(closed, 1)
        parent.add(X[200:210])
        assert len(parent) == 210
        parent.close()

    timer.start()
    in_child(child)
    timer.join()
    with qvec.open(path) as db:
        assert len(db) == 210
        assert db.verify() == []


def scan_across_fork(path: str) -> None:
    with collection(path) as db:
        batches = db.scan(batch_size=60)
        first = next(batches)

        def child() -> None:
            with pytest.raises(qvec.ForkedError):
                next(batches)
            batches.close()
            assert len(db) == 200

        in_child(child)
        assert [len(first.ids), *(len(batch.ids) for batch in batches)] == [60, 60, 60, 20]
        assert_unharmed(db)


def fork_inside_an_add(path: str) -> None:
    with collection(path, timeout=0.3) as db:

        def child() -> None:
            with pytest.raises(qvec.LockedError):
                db.add(X[200])
            assert len(db) == 200

        forked: list[int] = []

        def progress(done: int, total: int) -> None:
            if not forked:
                forked.append(done)
                in_child(child)

        db.add(X[200:300], progress=progress)
        assert forked
        assert len(db) == 300
        assert db.verify() == []


def leave_in_child(path: str) -> None:
    with collection(path) as db:
        in_child(db.close)
        assert_unharmed(db)
        in_child(gc.collect)
        in_child(lambda: db.__exit__())
        pid = os.fork()
        if pid == 0:
            raise SystemExit  # through every finalizer and atexit hook, as a worker ends
        os.waitpid(pid, 0)
        db.add(X[210:220])
        assert db.verify() == []


def close_in_child_is_final_there(path: str) -> None:
    with collection(path) as db:

        def child() -> None:
            db.close()
            with pytest.raises(qvec.ClosedError):
                db.search(X[0])

        in_child(child)
        assert_unharmed(db)


def fork_of_a_fork(path: str) -> None:
    with collection(path) as db:

        def grandchild() -> None:
            assert db.search(X[7], 1).ids.tolist() == [7]

        def child() -> None:
            assert db.search(X[8], 1).ids.tolist() == [8]
            in_child(grandchild)
            assert db.search(X[9], 1).ids.tolist() == [9]

        in_child(child)
        assert_unharmed(db)


def fork_inside_a_transaction(path: str) -> None:
    with collection(path, timeout=0.3) as db:

        def child() -> None:
            assert len(db) == 200
            assert db.search(X[203], 1).ids.tolist() != [203]
            with pytest.raises(qvec.LockedError):
                db.add(X[200])

        with db.transaction():
            db.add(X[200:205])
            in_child(child)
            db.add(X[205:210])
        assert len(db) == 210
        assert db.verify() == []


def fork_with_a_snapshot(path: str) -> None:
    with collection(path) as db, db.snapshot() as snapshot:
        db.delete(range(100))

        def child() -> None:
            with pytest.raises(qvec.ForkedError):
                snapshot.search(X[7], 1)
            assert len(db) == 100
            snapshot.close()

        in_child(child)
        assert snapshot.search(X[7], 1).ids.tolist() == [7]
        assert len(snapshot) == 200


def fork_while_codes_are_made_anew(path: str) -> None:
    with collection(path, exclusive=True, timeout=0.1) as db:

        def child() -> None:
            assert db.search(X[7], 1).ids.tolist() == [7]
            with pytest.raises(qvec.LockedError):
                db.delete([7])

        forked: list[int] = []

        def progress(done: int, total: int) -> None:
            if not forked:
                forked.append(done)
                in_child(child)

        db.requantize("f16", relink=True, progress=progress)
        assert forked
        assert_unharmed(db)


def compact_and_erase_beside_a_child(path: str) -> None:
    """The child has no entry in the reader table of the parent's file, and opens the file that replaced it."""
    with collection(path) as db:
        ready, go = os.pipe()

        def child() -> None:
            os.read(ready, 1)
            assert db.search(X[150], 1).ids.tolist() == [150]
            assert 7 not in db

        def change() -> None:
            db.erase(range(100))
            db.compact()
            os.write(go, b"x")

        timer = threading.Timer(0.2, change)
        timer.start()
        in_child(child)
        timer.join()
        assert len(db) == 100
        assert db.verify() == []


def workers_of_a_pool(path: str) -> None:
    """Data loaders: the parent has the file open; each worker opens its own handle or tries the parent's."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    global _shared
    with collection(path) as db:
        db.search(X[:40], 5)
        _shared = db
        for method in ("fork", "forkserver", "spawn"):
            with ProcessPoolExecutor(3, multiprocessing.get_context(method)) as pool:
                own = pool.map(_nearest, [path] * 60, range(60))
                inherited = pool.map(_nearest_by_the_parents, range(60)) if method == "fork" else range(60)
                assert list(own) == list(inherited) == list(range(60))
            assert len(db) == 200
        _shared = None
        assert_unharmed(db)


_shared: qvec.Collection | None = None


def _nearest(path: str, i: int) -> int:
    with qvec.open(path, "r") as db:
        return int(db.search(X[i], 1).ids[0])


def _nearest_by_the_parents(i: int) -> int:
    assert _shared is not None
    return int(_shared.search(X[i], 1).ids[0])


CASES = [
    fork_inside_a_transaction,
    fork_with_a_snapshot,
    fork_while_codes_are_made_anew,
    compact_and_erase_beside_a_child,
    workers_of_a_pool,
    search_in_child,
    child_follows_parent,
    write_in_child,
    write_in_child_after_the_parent_closed,
    scan_across_fork,
    fork_inside_an_add,
    leave_in_child,
    close_in_child_is_final_there,
    fork_of_a_fork,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_forks_are_harmless(path: Path, case: Callable[[str], None]) -> None:
    run(case, str(path))
