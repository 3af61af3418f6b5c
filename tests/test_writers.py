"""Several writers of one file: threads, handles and processes that wait for each other."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time
import weakref
from pathlib import Path

import pytest

import qvec
from helpers.writers import make, process, rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path / "a.qvec")


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
