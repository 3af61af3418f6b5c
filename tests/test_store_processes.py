"""A store used by several processes and by forked children."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.store_files import CODES, LISTS, change_rows, contents, fill, in_child, make_store, run_python, same
from qvec.common.errors import ClosedError, ForkedError, InputError, LockedError, ReadOnlyError
from qvec.storage.store import Store

pytestmark = pytest.mark.alone

WRITER = """
import numpy as np
with Store.open(sys.argv[1]) as store:
    for version in range(1, int(sys.argv[2]) + 1):
        with store.write() as txn:
            txn.columns["lists"].write(0, np.full((310, 128), version, np.uint8))
            txn.state["version"] = version
"""


def test_a_reader_follows_a_writer_in_another_process(tmp_path: Path) -> None:
    with make_store(tmp_path) as store, store.write() as txn:
        txn.columns[LISTS].resize(310)
        txn.state["version"] = 0
    with Store.open(tmp_path / "a.qvec", "r") as reader:
        script = "import sys\nfrom qvec.storage.store import Store\n" + WRITER
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "a.qvec"), "100"], cwd=Path(__file__).parent.parent
        ) as writer:
            seen = set()
            while writer.poll() is None:
                with reader.read() as snap:
                    version = snap.state["version"]
                    assert (snap.columns[LISTS].read_range(0, 310) == version).all()
                    seen.add(version)
            assert writer.returncode == 0
        with reader.read() as snap:
            assert snap.state["version"] == 100
            assert (snap.columns[LISTS].read_range(0, 310) == 100).all()
        assert len(seen) > 3


def test_an_exclusive_handle_excludes_writers_of_this_process_and_of_others(tmp_path: Path) -> None:
    with make_store(tmp_path, exclusive=True) as store:
        with pytest.raises(LockedError, match=r"a\.qvec: process \d+ .* has the file open exclusively"):
            Store.open(tmp_path / "a.qvec", exclusive=True, timeout=0)
        with Store.open(tmp_path / "a.qvec", timeout=0.1) as other, pytest.raises(LockedError, match="exclusively"):
            other.begin_write()
        code = """
        try:
            Store.open(sys.argv[1], timeout=0.1).begin_write()
        except LockedError as error:
            print(error)
        """
        said = run_python(code, tmp_path / "a.qvec")
        assert f"process {os.getpid()} has the file open exclusively since" in said
        assert len(fill(store, 10)) == 2
    with Store.open(tmp_path / "a.qvec", exclusive=True, timeout=0):
        pass


def test_a_killed_writer_leaves_its_last_commit_and_no_lock(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 400)
    code = """
    import os, signal
    txn = Store.open(sys.argv[1]).begin_write()
    txn.columns["codes"].resize(9000)
    txn.put_record(1, 1, "x" * 100000)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    with pytest.raises(AssertionError, match=f"status -{int(signal.SIGKILL)}"):
        run_python(code, tmp_path / "a.qvec")
    with Store.open(tmp_path / "a.qvec") as store:
        assert same(contents(store), written)
        change_rows(store, written, np.random.default_rng(0), 5)
        assert same(contents(store), written)


def test_a_link_leads_to_the_same_lock_and_the_same_environment(tmp_path: Path) -> None:
    with make_store(tmp_path, exclusive=True) as store:
        written = fill(store, 50)
        (tmp_path / "link").symlink_to(tmp_path / "a.qvec")
        with pytest.raises(LockedError):
            Store.open(tmp_path / "link", exclusive=True, timeout=0)
        with Store.open(tmp_path / "link", "r") as reader:
            assert same(contents(reader), written)
    assert not (tmp_path / "link-lock").exists()


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="needs a user who may not write")
def test_a_file_that_may_not_be_written_can_be_read(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 50)
    (tmp_path / "a.qvec").chmod(0o444)
    (tmp_path / "a.qvec-lock").unlink()
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    tmp_path.chmod(0o555)

    def read_as_another_user() -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        with Store.open(tmp_path / "a.qvec", "r") as store:
            assert same(contents(store), written)
        with pytest.raises(ReadOnlyError, match=r"no permission to write .*a\.qvec;"):
            Store.open(tmp_path / "a.qvec")

    in_child(read_as_another_user)
    tmp_path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="needs a user who may not write")
@pytest.mark.parametrize("lock", ["missing", "of another user"])
def test_a_file_whose_lock_file_may_not_be_written_can_be_read(tmp_path: Path, lock: str) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 50)
    (tmp_path / "a.qvec").chmod(0o666)
    (tmp_path / "a.qvec-lock").chmod(0o444)
    if lock == "missing":
        (tmp_path / "a.qvec-lock").unlink()
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    tmp_path.chmod(0o555 if lock == "missing" else 0o777)

    def read_as_another_user() -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        with Store.open(tmp_path / "a.qvec", "r") as store:
            assert same(contents(store), written)
        with pytest.raises(ReadOnlyError, match=r"no permission to write .*a\.qvec-lock"):
            Store.open(tmp_path / "a.qvec")

    in_child(read_as_another_user)
    tmp_path.chmod(0o755)


@pytest.mark.parametrize("call", ["fcntl", "flock"])
@pytest.mark.parametrize("mode", ["r", "rw"])
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, call: str
) -> None:
    make_store(tmp_path).close()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(f"fcntl.{call}", fail)
        with pytest.raises(InputError, match=r"a\.qvec is on a file system without locks \(No locks available\)"):
            Store.open(tmp_path / "a.qvec", mode)
    Store.open(tmp_path / "a.qvec", mode).close()


def test_a_clock_that_is_set_back_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    monkeypatch.setattr("qvec.storage.write_queue.time.time", lambda: now[0])
    with make_store(tmp_path, timeout=0.05) as store, Store.open(tmp_path / "a.qvec", timeout=0.05) as other:
        for jump in (-1e9, 1e9, 4e9, -1.5e9):  # 1995 to 2150
            with store.write(), ThreadPoolExecutor(1) as pool:
                now[0] += jump
                with pytest.raises(LockedError, match="writes since"):
                    pool.submit(other.begin_write).result()
            other.begin_write().commit()


def test_a_writer_that_is_interrupted_while_it_waits_leaves_the_queue(tmp_path: Path) -> None:
    code = """
import signal, sys, time
from qvec.storage.store import Store
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell inherit that it is ignored
with Store.open(sys.argv[1], timeout=60) as store:
    print("ready", flush=True)
    begun = time.monotonic()
    try:
        store.begin_write()
    except KeyboardInterrupt:
        assert time.monotonic() - begun < 30
        print("interrupted", flush=True)
    sys.stdin.readline()
    store.begin_write().commit()
"""
    with make_store(tmp_path) as store:
        txn = store.begin_write()
        command = [sys.executable, "-c", code, str(tmp_path / "a.qvec")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as waiter:
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == "ready\n"
            time.sleep(0.3)
            waiter.send_signal(signal.SIGINT)
            assert waiter.stdout.readline() == "interrupted\n"
            txn.commit()
            store.begin_write().commit()  # nobody is in the queue
            waiter.communicate("\n")
        assert waiter.returncode == 0
        store.begin_write().commit()


def test_a_forked_child_reads_by_itself_and_does_not_write_by_an_exclusive_handle(tmp_path: Path) -> None:
    with make_store(tmp_path, exclusive=True, timeout=0.1) as store:
        written = fill(store, 1000)

        def child() -> None:
            assert same(contents(store), written)
            with pytest.raises(LockedError):
                store.begin_write()
            with pytest.raises(LockedError):
                Store.open(tmp_path / "a.qvec", exclusive=True, timeout=0)
            with Store.open(tmp_path / "a.qvec", "r") as other:
                assert same(contents(other), written)
            in_child(lambda: contents(store) and None)
            store.close()
            with pytest.raises(ClosedError):
                store.begin()

        in_child(child)
        in_child(lambda: None)
        change_rows(store, written, np.random.default_rng(0), 5)
        assert same(contents(store), written)
        with pytest.raises(LockedError):
            Store.open(tmp_path / "a.qvec", exclusive=True, timeout=0)


def test_a_forked_child_and_its_parent_write_in_turn(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 1000)

        def child() -> None:
            change_rows(store, written, np.random.default_rng(0), 5)

        in_child(child)
        change_rows(store, written, np.random.default_rng(0), 5)  # the same as the child
        assert same(contents(store), written)
        in_child(lambda: store.close())
        change_rows(store, written, np.random.default_rng(1), 5)
        assert same(contents(store), written)


def test_a_store_that_was_closed_before_the_fork_does_not_free_the_lock_of_another(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    closed = [make_store(tmp_path / name) for name in ("one", "two")]
    with make_store(tmp_path / "three", exclusive=True, timeout=0.1) as store:
        for other in closed:
            other.close()

        def child() -> None:
            with pytest.raises(LockedError):
                store.begin_write()
            for other in closed:
                with pytest.raises(ClosedError):
                    other.begin()

        in_child(child)


def test_a_child_sees_what_the_parent_commits_after_the_fork(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        fill(store, 1000)
        start_read, start_write = os.pipe()

        def child() -> None:
            contents(store)
            assert os.read(start_read, 1)
            assert (contents(store)[LISTS][:10] == 7).all()

        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child()
                code = 0
            finally:
                os._exit(code)
        with store.write() as txn:
            txn.columns[LISTS].write(0, np.full((10, 128), 7, np.uint8))
        os.write(start_write, b"x")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(start_read)
        os.close(start_write)


def test_snapshots_and_transactions_open_across_a_fork_are_the_parents(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 1000)
        snapshot, txn = store.begin(), store.begin_write()
        txn.columns[LISTS].write(0, np.zeros((1, 128), np.uint8))
        txn.put_record(1, 1, "kept")

        def child() -> None:
            for inherited in (snapshot, txn):
                with pytest.raises(ForkedError):
                    inherited.record(1, 1)
                with pytest.raises(ForkedError):
                    inherited.columns.keys()
            with pytest.raises(ForkedError):
                txn.commit()
            txn.abort()
            store.end(snapshot)
            assert same(contents(store), written)

        in_child(child)
        assert np.array_equal(snapshot.columns[LISTS].read_range(0, 1000), written[LISTS])
        store.end(snapshot)
        txn.commit()
        with store.read() as snap:
            assert snap.record(1, 1) == "kept"
            assert not snap.columns[LISTS].read([0]).any()


def test_a_child_that_exits_normally_leaves_the_parents_reader_slots_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.qvec"
    with make_store(tmp_path) as store:
        fill(store, 100)
    code = """
    import os
    store = Store.open(sys.argv[1])
    with store.read() as snap:
        pid = os.fork()
        if pid == 0:
            with store.read():
                pass
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        with store.write() as txn:
            txn.state["n"] = 1
        assert collect(store).commits_held == 1, collect(store)
    with store.read() as snap:
        print(snap.state)
    """
    assert run_python(code, path) == "{'n': 1}"


def test_the_lock_outlives_no_parent_although_children_live_on(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    wait_read, wait_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(wait_write)
        os.read(wait_read, 1)
        os._exit(0)
    os.close(wait_read)
    store.close()
    Store.open(tmp_path / "a.qvec").close()
    os.close(wait_write)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_fork_while_other_threads_read_and_write_does_not_hang(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        fill(store, 300)
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                contents(store)

        def write() -> None:
            while not stop.is_set():
                with store.write() as txn:
                    txn.columns[CODES].write(0, np.ones((5, 384), np.uint8))

        threads = [threading.Thread(target=action) for action in (read, write)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                in_child(lambda: contents(store) and None)
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
        with store.read() as snap:
            assert list(snap.check()) == []
