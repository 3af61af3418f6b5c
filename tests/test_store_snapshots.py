"""Snapshots: each shows one whole commit, regardless of later commits; close() waits for them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import lmdb  # noqa: TID251 - copies are made behind the store's back
import numpy as np
import pytest

from helpers.store_files import CODES, LISTS, change_rows, contents, fill, make_store, run_python, same
from qvec.common.errors import ClosedError, CorruptError, MapFullError
from qvec.storage import transaction
from qvec.storage.stats import collect
from qvec.storage.store import Store


def test_a_snapshot_keeps_its_bytes_through_300_commits(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 3000)
        before = {name: rows.copy() for name, rows in written.items()}
        rng = np.random.default_rng(5)
        with store.read() as pinned:
            early = pinned.columns[LISTS].read_range(0, 1500)
            for _ in range(300):
                change_rows(store, written, rng, 5)
            assert same(contents(store), written)
            assert np.array_equal(early, before[LISTS][:1500])
            for name, rows in before.items():
                assert np.array_equal(pinned.columns[name].read_range(0, 3000), rows)
            assert collect(store).commits_held == 300
        assert same(contents(store), written)


def test_an_unpinned_view_is_patched_and_a_pinned_one_is_copied(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 500)
        with store.read() as first:
            column = first.columns[LISTS]
        change_rows(store, written, np.random.default_rng(0), 3)
        with store.read() as second:
            assert second.columns[LISTS] is column
            change_rows(store, written, np.random.default_rng(1), 3)
            with store.read() as third:
                assert third.columns[LISTS] is not column
                assert third.txn_id == second.txn_id + 1


def test_derived_objects_live_as_long_as_their_commit(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        with store.read() as snap:
            snap.derived["engine"] = 1
        with store.read() as snap:
            assert snap.derived == {"engine": 1}
            with store.write() as txn:
                txn.state["n"] = 0
            with store.read() as other:
                assert other.derived == {}
            assert snap.derived == {"engine": 1}


def test_threads_that_read_while_one_writes_see_whole_commits(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        with store.write() as txn:
            txn.columns[LISTS].resize(310)
            txn.columns[LISTS].write(0, np.zeros((310, 128), np.uint8))
        torn, stop, versions_read = [], threading.Event(), []

        def look() -> None:
            while not stop.is_set():
                with store.read() as snap:
                    rows = snap.columns[LISTS].read_range(0, 310)
                    version = snap.state.get("version", 0)
                if not (rows == version).all():
                    torn.append(version)
                versions_read.append(version)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in range(1, 150):
            with store.write() as txn:
                txn.columns[LISTS].write(0, np.full((310, 128), version, np.uint8))
                txn.state["version"] = version
        stop.set()
        for thread in threads:
            thread.join(10)
        assert torn == []
        assert len(set(versions_read)) > 5


def test_close_waits_for_other_threads_and_ends_its_own(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    written = fill(store, 100)
    started, finish, seen = threading.Event(), threading.Event(), []

    def reader() -> None:
        with store.read() as snap:
            started.set()
            finish.wait(10)
            seen.append(np.array_equal(snap.columns[CODES].read_range(0, 100), written[CODES]))

    thread = threading.Thread(target=reader)
    thread.start()
    started.wait(10)
    mine = store.begin()
    closer = threading.Thread(target=store.close)
    closer.start()
    while not store.closed:
        time.sleep(0.001)
    with pytest.raises(ClosedError):
        store.begin()
    with pytest.raises(ClosedError):
        store.begin_write()
    store.end(mine)
    assert closer.is_alive()
    finish.set()
    closer.join(10)
    thread.join(10)
    assert seen == [True]
    store.close()


def test_close_ends_the_snapshots_and_the_transaction_of_its_own_thread(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    fill(store, 10)
    snapshot, txn = store.begin(), store.begin_write()
    txn.state["n"] = 9
    store.close()
    with pytest.raises(ClosedError):
        snapshot.record(1, 1)
    with pytest.raises(ClosedError):
        txn.put_record(1, 1, 1)
    with Store.open(tmp_path / "a.qvec") as again, again.read() as snap:
        assert snap.state == {"n": 10}


def test_one_handle_of_several_can_be_closed(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 100)
        reader = Store.open(tmp_path / "a.qvec", "r")
        with reader.read():
            pass
        reader.close()
        assert same(contents(store), written)
        change_rows(store, written, np.random.default_rng(0), 3)
        with Store.open(tmp_path / "a.qvec", "r") as other:
            assert same(contents(other), written)


def test_a_compacted_copy_is_read_by_key_until_a_commit_rewrites_its_directory(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        for seed in range(3):
            written = fill(store, 3000, seed)
    path = tmp_path / "b.qvec"
    with lmdb.open(str(tmp_path / "a.qvec"), subdir=False, readonly=True) as env:
        env.copy(str(path), compact=True)
    with Store.open(path, "r") as copy:
        assert same(contents(copy), written)
    with Store.open(path) as copy, Store.open(path, "r") as reader:
        change_rows(copy, written, np.random.default_rng(0), 20)
        assert same(contents(copy), written)
        assert same(contents(reader), written)
        with reader.read() as snap:
            assert list(snap.check()) == []
            assert not snap.view.relocated


def test_a_full_map_grows_and_loses_nothing_of_the_transaction(tmp_path: Path) -> None:
    make_store(tmp_path).close()
    with Store.open(tmp_path / "a.qvec", map_size=1 << 17) as store:
        assert collect(store).map_bytes == 1 << 17
        reader = Store.open(tmp_path / "a.qvec", "r")
        contents_before = collect(reader).commits
        with store.write() as txn:
            txn.put_record(1, 1, "x" * 300_000)
            txn.put_ids([b"%d" % i for i in range(5000)], range(5000))
            txn.put_record(1, 2, "y" * 600_000)
        written = fill(store, 3000)
        for seed in range(20):
            change_rows(store, written, np.random.default_rng(seed), 100)
        for handle in (store, reader):
            assert same(contents(handle), written)
            with handle.read() as snap:
                assert snap.record(1, 1) == "x" * 300_000
                assert snap.record(1, 2) == "y" * 600_000
                assert snap.rows_of([b"0", b"4999"]).tolist() == [0, 4999]
                assert list(snap.check()) == []
        assert contents_before == 1
        reader.close()


@pytest.mark.parametrize("map_size", [1 << 20, 1 << 30])
def test_a_large_commit_is_stored_whole_whether_its_memory_is_given_back_early_or_not(
    tmp_path: Path, map_size: int
) -> None:
    make_store(tmp_path).close()
    with Store.open(tmp_path / "a.qvec", map_size=map_size) as store:
        for rows in (50_000, 70_000):
            written = fill(store, rows, rows)  # 18 and 34 MiB
            assert same(contents(store), written)
            with store.read() as snap:
                assert list(snap.check()) == []


def test_a_map_that_is_full_after_all_costs_a_large_commit_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_FREE_MAP_FACTOR", 0)
    make_store(tmp_path).close()
    with Store.open(tmp_path / "a.qvec", map_size=1 << 20) as store:
        written = fill(store, 100)
        with pytest.raises(MapFullError, match="map"):
            fill(store, 70_000)
        assert same(contents(store), written)
        monkeypatch.undo()
        written = fill(store, 70_000)
        assert same(contents(store), written)
    with Store.open(tmp_path / "a.qvec", "r") as reader:
        assert same(contents(reader), written)


def test_a_full_map_is_an_error_while_a_snapshot_is_open_and_the_store_goes_on(tmp_path: Path) -> None:
    make_store(tmp_path).close()
    with Store.open(tmp_path / "a.qvec", map_size=1 << 17) as store:
        written = fill(store, 100)
        with store.read() as snap:
            with (
                pytest.raises(MapFullError, match="1 snapshots of this process are open"),
                store.write() as txn,
            ):
                txn.put_record(1, 1, "x" * 300_000)
            assert np.array_equal(snap.columns[CODES].read_range(0, 100), written[CODES])
        with store.write() as txn:
            txn.put_record(1, 1, "x" * 300_000)
        assert same(contents(store), written)


def test_a_map_that_another_process_outgrew_is_enlarged(tmp_path: Path) -> None:
    make_store(tmp_path).close()
    with Store.open(tmp_path / "a.qvec", "r", map_size=1 << 17) as reader:
        with reader.read() as snap:
            assert snap.state == {}
        run_python(
            """
            with Store.open(sys.argv[1]) as store, store.write() as txn:
                for column in txn.columns.values():
                    column.resize(5000)
                txn.state["n"] = 5000
            """,
            tmp_path / "a.qvec",
        )
        assert not contents(reader)[CODES].any()


@pytest.mark.unsanitized
def test_address_space_that_cannot_be_had_is_asked_for_in_halves(tmp_path: Path) -> None:
    make_store(tmp_path).close()
    code = """
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    with Store.open(sys.argv[1]) as store:
        print(collect(store).map_bytes)
    """
    assert 1 << 20 <= int(run_python(code, tmp_path / "a.qvec")) < 4 << 30


def test_a_damaged_directory_is_reported_again_at_each_try(tmp_path: Path) -> None:
    make_store(tmp_path).close()
    with lmdb.open(str(tmp_path / "a.qvec"), subdir=False) as env, env.begin(write=True) as txn:
        txn.delete(b"\x04" + bytes(6) + b"\x01")
    for _ in range(2):
        with pytest.raises(CorruptError, match="state record is missing"):
            Store.open(tmp_path / "a.qvec")
