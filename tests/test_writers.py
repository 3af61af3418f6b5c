"""Several writers of one file: threads, tasks, handles and processes that wait for each other; handles that close."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import qvec

DIM = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.qvec"
    with qvec.create(path, DIM, index="flat") as db:
        db.add(rows(8))
    return path


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIM))


@contextlib.contextmanager
def process(code: str, path: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", f"import sys, time, numpy as np, qvec\npath = sys.argv[1]\n{code}", str(path)]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


HOLD = """
with qvec.open(path) as db, db.transaction():
    db.add(np.ones((1, 8)))
    print("holds", flush=True)
    sys.stdin.readline()
"""


def test_handles_of_one_process_write_in_turn(path: Path) -> None:
    with qvec.open(path) as one, qvec.open(path) as two:
        for _ in range(5):
            one.add(rows(1))
            two.add(rows(1))
        assert len(one) == len(two) == 18
        assert one.verify() == []


def test_automatic_ids_are_assigned_under_the_lock(path: Path) -> None:
    code = "db = qvec.open(path)\nfor _ in range(40): print(*db.add(np.random.rand(2, 8)).ids.tolist(), flush=True)"
    with process(code, path) as one, process(code, path) as two, qvec.open(path) as db:
        own = [i for _ in range(40) for i in db.add(rows(2)).ids.tolist()]
        said = [int(word) for other in (one, two) for word in other.communicate(timeout=60)[0].split()]
        assert len(said) == 160
        assert sorted(own + said) == list(range(8, 248))
        assert len(db) == 248
        assert db.verify() == []


def test_a_writer_that_waits_in_vain_is_told_which_process_writes_what_and_since_when(path: Path) -> None:
    with process(HOLD, path) as holder, qvec.open(path, timeout=0.3) as db:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        begun = time.monotonic()
        message = rf"process {holder.pid} is in a transaction since \d\d:\d\d:\d\d .* waited 0\.3 s"
        with pytest.raises(qvec.LockedError, match=message):
            db.add(rows(1))
        assert 0.3 <= time.monotonic() - begun < 2
        assert len(db) == 8


def test_a_process_that_is_killed_releases_the_lock_at_once(path: Path) -> None:
    with process(HOLD, path) as holder, qvec.open(path, timeout=20) as db:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        timer = threading.Timer(0.2, lambda: holder.send_signal(signal.SIGKILL))
        timer.start()
        begun = time.monotonic()
        db.add(rows(1))
        assert 0.1 < time.monotonic() - begun < 5
        assert len(db) == 9
        assert db.verify() == []


def test_writers_take_turns_in_the_order_in_which_they_asked(path: Path) -> None:
    order: list[int] = []
    with qvec.open(path, timeout=30) as one, qvec.open(path, timeout=30) as two:

        def write(number: int) -> None:
            (one, two)[number % 2].add(rows(1))
            order.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        with one.transaction():
            for thread in threads:
                thread.start()
                time.sleep(0.05)
        for thread in threads:
            thread.join()
        assert order == list(range(8))


def test_two_processes_share_the_lock_evenly(path: Path) -> None:
    code = "db = qvec.open(path)\nprint(flush=True)\nfor i in range(100000): db.add(np.ones((1, 8)), ids=[10**6 + i])"
    with process(code, path) as other, qvec.open(path) as db:
        assert other.stdout is not None
        other.stdout.readline()
        for _ in range(60):
            db.add(rows(1))
        theirs = sum(int(i) >= 10**6 for part in db.scan() for i in part.ids)
        assert 20 <= theirs <= 150


def test_an_exclusive_handle_keeps_the_lock_until_it_is_closed(path: Path) -> None:
    with qvec.open(path, timeout=0.1) as db:
        with qvec.open(path, exclusive=True) as sole:
            sole.add(rows(1))
            with pytest.raises(qvec.LockedError, match="has the file open exclusively"):
                db.add(rows(1))
            sole.compact()
            with pytest.raises(qvec.LockedError, match="has the file open exclusively"):
                db.add(rows(1))
        db.add(rows(1))
        assert len(db) == 10


def test_options_of_waiting_are_checked(path: Path) -> None:
    for timeout in (-1, float("nan"), "5", True, None):
        with pytest.raises(qvec.InputError, match="timeout must be"):
            qvec.open(path, timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(qvec.InputError, match="exclusive=True is for"):
        qvec.open(path, "r", exclusive=True)
    with qvec.open(path) as db, pytest.raises(qvec.InputError, match="timeout must be"):
        db.close(-1)


def test_two_processes_do_not_run_the_same_job(path: Path) -> None:
    code = """
db = qvec.open(path)
def stop(done, total):
    print("runs", flush=True)
    sys.stdin.readline()
db.requantize("f16", progress=stop)
"""
    with process(code, path) as other, qvec.open(path) as db:
        assert other.stdout is not None
        assert other.stdout.readline() == "runs\n"
        with pytest.raises(qvec.LockedError, match=rf"process {other.pid} requantizes since .* already"):
            db.requantize("int4")
        db.add(rows(1))  # the job holds no lock between its transactions
        other.kill()
        other.wait()
        db.requantize("int4")
        assert db.code == "int4"


def test_a_dropped_handle_releases_everything_without_the_garbage_collector(path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            db = qvec.open(path, exclusive=True, timeout=0)
            db.add(rows(3))
            db.search(rows(1)[0], 1)
            with db.transaction():
                db.add(rows(1))
            with contextlib.suppress(qvec.DuplicateIdError):
                db.add(rows(1), ids=[0])
            store = weakref.ref(db._store)
            del db
            assert store() is None
    finally:
        gc.enable()


def test_a_dropped_transaction_log_is_not_kept(path: Path) -> None:
    with qvec.open(path) as db:
        txn = db._store.begin_write()
        txn.put_record(200, 1, "x")
        assert txn._log
        txn.commit()
        assert not txn._log


# --- tasks ---


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
        assert "thread that has ended" in str(errors[0])
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
