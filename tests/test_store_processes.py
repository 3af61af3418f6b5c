"""A store used by several processes and by forked children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from helpers.store_files import CODES, LISTS, change_rows, contents, fill, in_child, make_store, run_python, same
from qvec.common.errors import ClosedError, ForkedError, LockedError, ReadOnlyError
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
        with pytest.raises(ReadOnlyError, match=r"a\.qvec may not be written"):
            Store.open(tmp_path / "a.qvec")

    in_child(read_as_another_user)
    tmp_path.chmod(0o755)


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
