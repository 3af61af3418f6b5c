"""Forks while other threads of the process are inside calls: these threads do not exist in the child."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from child import run
from fork_helpers import DEADLINE, X, assert_unharmed, collection

import qvec
from helpers.store_files import in_child
from qvec.storage import open_checks
from qvec.storage.environment import Environment

pytestmark = pytest.mark.alone


def fork_while_threads_search_and_write(path: str) -> None:
    with collection(path) as db:
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                db.search(X[:40], 5, threads=2)

        def write() -> None:
            for i in range(10_000):
                if stop.is_set():
                    return
                db.upsert(X[i % 200], [i % 200])

        def child() -> None:
            assert db.search(X[7], 1, exact=True).distances.tolist() == [0.0]

        threads = [threading.Thread(target=task) for task in (search, search, write)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                in_child(child)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert len(db) == 200
        assert db.verify() == []


def stopped_at(target: object, name: str) -> tuple[threading.Event, threading.Event, Callable[[], None]]:
    """Make the next thread that calls a function of ``target`` stop there. Yields a wait for its arrival, a call that
    lets it continue, and a call that restores the function."""
    come, go_on, own = threading.Event(), threading.Event(), getattr(target, name)

    def stop(*args: Any) -> Any:
        come.set()
        assert go_on.wait(DEADLINE)
        return own(*args)

    setattr(target, name, stop)
    return come, go_on, lambda: setattr(target, name, own)


def find(path: str) -> None:
    with qvec.open(path, "r") as db:
        assert db.search(X[7], 1).ids.tolist() == [7]


def fork_while_another_thread_opens_the_file(path: str) -> None:
    collection(path).close()
    come, go_on, restore = stopped_at(Environment, "_locate")
    opening = threading.Thread(target=lambda: qvec.open(path, "r").close())
    opening.start()
    assert come.wait(DEADLINE)
    restore()
    in_child(lambda: find(path))
    go_on.set()
    opening.join()
    with qvec.open(path) as db:
        assert_unharmed(db)


def fork_while_another_thread_opens_it_anew_in_a_child(path: str) -> None:
    with collection(path) as db:

        def search() -> None:
            assert db.search(X[7], 1).ids.tolist() == [7]

        def child() -> None:
            come, go_on, restore = stopped_at(open_checks, "check")
            reviving = threading.Thread(target=search)
            reviving.start()
            assert come.wait(DEADLINE)
            restore()
            in_child(search)
            go_on.set()
            reviving.join()
            search()

        in_child(child)
        assert_unharmed(db)


CASES = [
    fork_while_threads_search_and_write,
    fork_while_another_thread_opens_the_file,
    fork_while_another_thread_opens_it_anew_in_a_child,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_forks_while_threads_run_are_harmless(path: Path, case: Callable[[str], None]) -> None:
    run(case, str(path))
