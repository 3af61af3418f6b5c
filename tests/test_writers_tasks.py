"""Tasks that share a handle, threads and tasks that end in a transaction, and handles that close."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import qvec
from helpers.writers import make, process, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "a.qvec")


def test_a_task_does_not_write_into_the_transaction_of_another(path: Path) -> None:
    async def main() -> None:
        opened, go_on = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            with contextlib.suppress(ZeroDivisionError), db.transaction():
                db.add(rows(1))
                opened.set()
                await go_on.wait()
                assert len(db) == 9
                raise ZeroDivisionError

        task = asyncio.create_task(first())
        await opened.wait()
        assert len(db) == 8
        begun = time.monotonic()
        with pytest.raises(qvec.LockedError, match="the same thread would have to wait for itself"):
            db.add(rows(1))
        with pytest.raises(qvec.LockedError):
            with_block(db)
        assert time.monotonic() - begun < 1
        waiting = asyncio.create_task(asyncio.to_thread(db.add, rows(2)))
        await asyncio.sleep(0.05)
        go_on.set()
        await task
        await waiting
        assert len(db) == 10

    with qvec.open(path) as db:
        asyncio.run(main())


def with_block(db: qvec.Collection) -> None:
    with db.transaction():
        db.add(rows(1))


def test_a_task_that_a_block_starts_is_another_task(path: Path) -> None:
    async def add() -> None:
        db.add(rows(1))

    async def main() -> None:
        with db.transaction():
            db.add(rows(1))
            with pytest.raises(qvec.LockedError):
                await asyncio.create_task(add())
            await add()  # the same task

    with qvec.open(path) as db:
        asyncio.run(main())
        assert len(db) == 10


def test_a_context_manager_of_the_user_may_hold_the_block(path: Path) -> None:
    @contextlib.contextmanager
    def unit() -> Iterator[qvec.Collection]:
        with db.transaction():
            yield db

    with qvec.open(path) as db:
        with unit() as same:
            same.add(rows(1))
            with unit():
                db.add(rows(1))
        assert len(db) == 10


def test_blocks_of_generators_that_end_in_the_wrong_order_are_undone(path: Path) -> None:
    def block() -> Iterator[None]:
        with db.transaction():
            db.add(rows(1))
            yield
            db.add(rows(1))

    with qvec.open(path) as db:
        outer, inner = block(), block()
        next(outer)
        next(inner)
        with pytest.raises(qvec.AbortedError):
            next(outer)
        with pytest.raises(qvec.AbortedError):
            next(inner)
        assert len(db) == 8
        db.add(rows(1))
        assert len(db) == 9


# --- owners that end ---


def left_open(db: qvec.Collection) -> Any:
    """Two nested transactions, which outlive the thread that began them."""
    blocks: list[Any] = []

    def begin() -> None:
        for _ in range(2):
            blocks.append(db.transaction())
            blocks[-1].__enter__()
            db.add(rows(1))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    return blocks


@pytest.mark.parametrize("handles", [1, 2])
def test_a_thread_that_ends_in_a_transaction_does_not_block_others(path: Path, handles: int) -> None:
    with qvec.open(path, timeout=0.5) as db, qvec.open(path, timeout=0.5) as second:
        other = (db, second)[handles - 1]
        blocks = left_open(db)
        other.add(rows(1))
        with other.transaction():  # the end of the old blocks does not disturb a new one
            other.add(rows(1))
            for block in reversed(blocks):
                with pytest.raises(qvec.QvecError):
                    block.__exit__(None, None, None)
            other.add(rows(1))
        assert len(db) == len(other) == 11
        assert db.verify() == []


def test_a_thread_that_ends_in_a_transaction_does_not_block_other_processes(path: Path) -> None:
    code = "with qvec.open(path, timeout=5) as db: print(len(db.add(np.ones((1, 8))).ids), len(db))"
    with qvec.open(path) as db:
        blocks = left_open(db)
        with process(code, path) as other:
            assert other.communicate(timeout=60)[0] == "1 9\n"
        assert len(db) == 9
        assert len(blocks) == 2


def test_a_writer_that_waits_for_a_thread_goes_on_when_that_thread_ends(path: Path) -> None:
    go_on, opened, blocks = threading.Event(), threading.Event(), []
    with qvec.open(path, timeout=20) as db:

        def begin() -> None:
            blocks.append(db.transaction())
            blocks[0].__enter__()
            opened.set()
            go_on.wait()

        holder, waiting = threading.Thread(target=begin), threading.Thread(target=db.add, args=(rows(1),))
        holder.start()
        opened.wait()
        waiting.start()
        time.sleep(0.05)
        go_on.set()
        waiting.join(10)
        assert not waiting.is_alive()
        assert len(db) == 9


def test_a_task_that_ends_in_a_transaction_does_not_block_others(path: Path) -> None:
    blocks = []

    async def leave_open() -> None:
        blocks.append(db.transaction())
        blocks[0].__enter__()
        db.add(rows(1))

    async def main() -> None:
        await asyncio.create_task(leave_open())
        await asyncio.sleep(0)
        db.add(rows(1))
        await asyncio.to_thread(db.add, rows(1))

    with qvec.open(path, timeout=0.5) as db:
        asyncio.run(main())
        assert len(db) == 10
        with pytest.raises(qvec.QvecError):
            blocks[0].__exit__(None, None, None)
        assert db.verify() == []


# --- close ---


@pytest.mark.parametrize("thread", ["ended", "alive"])
@pytest.mark.parametrize("kind", ["snapshot", "scan", "scan of a snapshot"])
def test_close_ends_idle_reads_of_other_threads(path: Path, kind: str, thread: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        db = qvec.open(path)

        def begin() -> object:
            snapshot = db.snapshot() if "snapshot" in kind else db
            return read(snapshot) if "scan" in kind else snapshot

        def read(snapshot: qvec.Collection) -> object:
            batches = snapshot.scan(2)
            next(batches)
            return batches

        opened = pool.submit(begin).result()
        if thread == "ended":
            pool.shutdown()
        begun = time.monotonic()
        db.close()
        assert time.monotonic() - begun < 2
        with pytest.raises(qvec.ClosedError):
            len(opened) if kind == "snapshot" else next(opened)  # type: ignore[call-overload, arg-type]
    with qvec.open(path, exclusive=True, timeout=0) as again:
        again.compact()


def test_close_undoes_the_transaction_of_a_thread_that_has_ended(path: Path) -> None:
    db = qvec.open(path)
    blocks = []

    def begin() -> None:
        blocks.append(db.transaction())
        blocks[0].__enter__()
        db.add(rows(1))

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    db.close()
    with qvec.open(path, timeout=0.5) as other:
        other.add(rows(1))
        assert len(other) == 9
        assert other.verify() == []
    with contextlib.suppress(qvec.QvecError):
        blocks[0].__exit__(None, None, None)


def test_a_thread_with_the_number_of_one_that_has_ended_is_another_thread(path: Path) -> None:
    db, idents, blocks, errors = qvec.open(path, timeout=0.05), [], [], []
    is_same, ended = threading.Event(), threading.Event()

    def leave_open() -> None:
        idents.append(threading.get_ident())
        blocks.append(db.transaction())
        blocks[0].__enter__()
        db.add(rows(1))

    def write() -> None:
        if threading.get_ident() == idents[0]:
            try:
                db.add(rows(1))
            except qvec.QvecError as error:
                errors.append(error)
            is_same.set()
            ended.wait(30)

    first = threading.Thread(target=leave_open)
    first.start()
    first.join()
    for _ in range(50):
        second = threading.Thread(target=write)
        second.start()
        second.join(0.01)
        if is_same.wait(0 if not second.is_alive() else 10):
            break
    try:
        if not is_same.is_set():
            pytest.skip("the system gave no thread the number of the first")
        assert errors == []
        assert len(db) == 9  # the row of the second thread only
        db.close()  # while the second thread runs
    finally:
        ended.set()
        second.join()
    with qvec.open(path, timeout=1) as again:
        again.add(rows(1))
        assert again.verify() == []


def test_close_does_not_wait_for_an_idle_transaction_of_a_thread_which_gets_an_error(path: Path) -> None:
    db = qvec.open(path)
    opened, go_on, said = threading.Event(), threading.Event(), []

    def write() -> None:
        try:
            with db.transaction():
                db.add(rows(1))
                opened.set()
                go_on.wait()
                db.add(rows(1))
        except qvec.ClosedError as error:
            said.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    opened.wait()
    begun = time.monotonic()
    db.close()
    assert time.monotonic() - begun < 2
    go_on.set()
    thread.join()
    assert len(said) == 1
    with qvec.open(path, exclusive=True, timeout=0) as other:
        assert len(other) == 8


def test_close_waits_for_running_calls_and_names_those_that_take_too_long(path: Path) -> None:
    db = qvec.open(path)
    go_on, running = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        running.set()
        go_on.wait()

    with ThreadPoolExecutor(1, thread_name_prefix="worker") as pool:
        call = pool.submit(db.evaluate, rows(3), 2, ["f16"], progress=progress)
        running.wait()
        with pytest.raises(qvec.LockedError, match=r"still running after 0\.1 s: evaluate in thread worker_0"):
            db.close(timeout=0.1)
        with pytest.raises(qvec.ClosedError):
            db.add(rows(1))
        go_on.set()
        call.result()
        db.close()
    assert db.closed
    with qvec.open(path, exclusive=True, timeout=0):
        pass


def test_a_program_that_forgets_to_close_ends(path: Path) -> None:
    code = """
import asyncio
async def main():
    global s
    db = qvec.open(path)
    s = await asyncio.to_thread(db.snapshot)
    db.close()
asyncio.run(main())
print('ended')
"""
    with process(code, path) as other:
        assert other.communicate(timeout=30)[0] == "ended\n"


def test_a_program_written_as_for_sqlite3_runs_without_any_lock_handling(tmp_path: Path) -> None:
    from helpers import two_processes as program

    done = program.main(tmp_path)
    assert done["notes"] == program.NOTES - program.DELETES + program.BOOKMARKS
    assert (done["deleted"], done["edited"], done["problems"]) == (program.DELETES, program.EDITS, [])
    assert 0 < done["reads"] <= done["counted"]  # counts of deleted notes are gone with them
