"""The store in one process: committed changes are read back, aborted changes are not."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from helpers.store_files import CODES, COLUMNS, LISTS, change_rows, contents, fill, make_store, random_rows, same
from qvec.common.errors import ClosedError, DuplicateIdError, ExistsError, InputError, NotFoundError, ReadOnlyError
from qvec.storage.copies import compact, copy_to
from qvec.storage.records import pack_each
from qvec.storage.stats import collect
from qvec.storage.store import ColumnSpec, Store, Transaction


def test_committed_data_is_read_after_reopening(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 2000)
        with store.write() as txn:
            txn.state["entry"] = 7
            txn.put_record(3, 9, {"text": "x"})
            txn.put_ids([b"b", b"a"], [1, 0])
    for mode in ("r", "rw"):
        with Store.open(tmp_path / "a.qvec", mode) as store, store.read() as snap:
            assert dict(store.config) == {"dim": 384}
            assert snap.state == {"n": 2000, "entry": 7}
            assert snap.record(3, 9) == {"text": "x"}
            assert snap.record(3, 10) is None
            assert [snap.row_of(name) for name in (b"a", b"b", b"c")] == [0, 1, None]
            assert snap.rows_of([b"c", b"b"]).tolist() == [-1, 1]
            assert list(snap.iter_ids()) == [(b"a", 0), (b"b", 1)]
            assert same(contents(store), written)
            assert list(snap.check()) == []


def test_a_new_file_is_empty_and_shows_its_first_state(tmp_path: Path) -> None:
    with make_store(tmp_path, state={"n": 0}) as store, store.read() as snap:
        assert snap.state == {"n": 0}
        assert {name: column.n_rows for name, column in snap.columns.items()} == {LISTS: 0, CODES: 0}
        assert list(snap.check()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.qvec", "a.qvec-lock"]


def test_create_refuses_existing_files_and_bad_options(tmp_path: Path) -> None:
    make_store(tmp_path).close()
    with pytest.raises(ExistsError, match=r"a\.qvec"):
        make_store(tmp_path)
    with pytest.raises(NotFoundError, match="no such directory"):
        make_store(tmp_path / "missing")
    with pytest.raises(InputError, match="same id"):
        Store.create(tmp_path / "b", {"x": ColumnSpec(1, 8), "y": ColumnSpec(1, 8)}, {})
    with pytest.raises(InputError, match=r"payload\['x'\]"):
        Store.create(tmp_path / "c", {}, {"x": object()})
    with pytest.raises(InputError, match="null character"):
        Store.create("a\0b", {}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.qvec", "a.qvec-lock"]


def change_everything(txn: Transaction) -> None:
    """Make every kind of change, then raise an exception."""
    txn.columns[LISTS].write(0, np.zeros((100, 128), np.uint8))
    txn.columns[CODES].resize(5000)
    txn.add_column("more", ColumnSpec(9, 16))
    txn.drop_column(CODES)
    txn.put_record(1, 1, [1])
    txn.put_ids([b"x"], [1])
    txn.state["n"] = 5 // 0


def test_an_exception_in_the_block_undoes_everything(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 500)
        before = collect(store).commits
        with pytest.raises(ZeroDivisionError), store.write() as txn:
            change_everything(txn)
        with store.read() as snap:
            assert snap.state == {"n": 500}
            assert snap.record(1, 1) is None
            assert snap.row_of(b"x") is None
            assert snap.columns.keys() == {LISTS, CODES}
        assert same(contents(store), written)
        assert collect(store).commits == before
        change_rows(store, written, np.random.default_rng(0), 10)
        assert same(contents(store), written)


def test_a_state_that_cannot_be_stored_undoes_the_transaction(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        with pytest.raises(InputError, match=r"\['n'\] is a numpy.int64"), store.write() as txn:
            txn.state["n"] = np.int64(1)
        with store.write() as txn:
            assert txn.state == {}
            txn.state["n"] = 1
        with store.read() as snap:
            assert snap.state == {"n": 1}


def test_random_commits_equal_a_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    with make_store(tmp_path) as store, Store.open(tmp_path / "a.qvec", "r") as follower:
        model = {LISTS: np.zeros((0, 128), np.uint8), CODES: np.zeros((0, 384), np.uint8)}
        for step in range(300):
            draft = {name: rows.copy() for name, rows in model.items()}
            txn = store.begin_write()
            if step % 5 == 0:
                n = max(0, len(model[LISTS]) + int(rng.integers(-1500, 2500)))
                for name, column in txn.columns.items():
                    keep = draft[name][:n]
                    column.resize(n)
                    draft[name] = np.zeros((n, column.stride), np.uint8)
                    draft[name][: len(keep)] = keep
                    column.write(0, draft[name])
                txn.state["n"] = n
            for name, column in txn.columns.items():
                for at in rng.integers(0, max(1, len(draft[name])), min(10, len(draft[name]))):
                    draft[name][at] = random_rows(rng, 1, column.stride)[0]
                    column.write(int(at), draft[name][at : at + 1])
            if rng.random() < 0.2:
                txn.abort()
            else:
                txn.commit()
                model = draft
            assert step % 7 or same(contents(follower), model) or not model[LISTS].size
            with store.read() as snap:
                rows = rng.integers(0, max(1, len(model[CODES])), min(50, len(model[CODES])))
                assert np.array_equal(snap.columns[CODES].read(rows), model[CODES][rows])
        with follower.read() as snap:
            assert list(snap.check()) == []
    with Store.open(tmp_path / "a.qvec", "r") as store:
        assert same(contents(store), model)


def test_a_column_can_be_replaced_by_its_next_generation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with make_store(tmp_path) as store, Store.open(tmp_path / "a.qvec", "r") as reader:
        fill(store, 3000)
        contents(reader)
        used = sum(collect(store).column_bytes.values())
        rows = random_rows(rng, 3000, 96)
        with store.write() as txn:
            txn.drop_column(CODES)
            column = txn.add_column(CODES, ColumnSpec(2, 96, generation=1))
            column.resize(3000)
            column.write(0, rows)
        with reader.read() as snap:
            assert snap.columns[CODES].generation == 1
            assert np.array_equal(snap.columns[CODES].read_range(0, 3000), rows)
            assert list(snap.check()) == []
        assert collect(store).column_bytes[CODES] < used
        assert collect(store).other_bytes < 64 * 4096
        with pytest.raises(InputError, match="exists already"), store.write() as txn:
            txn.add_column("again", ColumnSpec(2, 8, generation=1))
        with pytest.raises(InputError, match="no column 'nothing'"), store.write() as txn:
            txn.drop_column("nothing")


def test_a_column_that_is_dropped_and_created_again_has_the_new_rows(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        fill(store, 3000)
        with store.write() as txn:
            txn.drop_column(LISTS)
            txn.add_column(LISTS, COLUMNS[LISTS]).resize(40)
        with store.read() as snap:
            assert snap.columns[LISTS].n_rows == 62
            assert not snap.columns[LISTS].read_range(0, 62).any()
            assert list(snap.check()) == []


@pytest.mark.parametrize("append", [True, False])
def test_a_duplicate_id_is_named_and_nothing_of_the_batch_is_put(tmp_path: Path, append: bool) -> None:
    with make_store(tmp_path) as store:
        with store.write() as txn:
            txn.put_ids([b"a", b"c"], [0, 1], append=append)
            with pytest.raises(DuplicateIdError, match=r"id 1 \(b'c'\) is already stored, as row 1"):
                txn.put_ids([b"b", b"c", b"d"], [2, 3, 4], append=append)
            with pytest.raises(DuplicateIdError, match=r"id 2 \(b'x'\) repeats id 0 of the batch"):
                txn.put_ids([b"x", b"y", b"x"], [2, 3, 4], append=append)
            txn.put_ids([b"b"], [2], append=append)
            txn.delete_ids([b"a", b"none"])
        with store.read() as snap:
            assert list(snap.iter_ids()) == [(b"b", 2), (b"c", 1)]


@pytest.mark.parametrize("stored", [[], [2], [4], [0, 5, 9], [3, 4, 5, 6, 7]])
def test_records_in_bulk_replace_those_that_exist(tmp_path: Path, stored: list[int]) -> None:
    with make_store(tmp_path) as store:
        with store.write() as txn:
            for i in stored:
                txn.put_record(3, i, ["old" * 700, i])
        with store.write() as txn:
            txn.put_records(3, np.arange(3, 8, dtype=np.uint32), [*pack_each(range(3, 8), str)])
        with store.read() as snap:
            expected = {i: ["old" * 700, i] for i in stored} | {i: i for i in range(3, 8)}
            assert {i: snap.record(3, i) for i in range(10) if snap.record(3, i) is not None} == expected
            assert list(snap.check()) == []  # also the number of records and the sum of their checksums


@pytest.mark.unsanitized
def test_a_large_batch_of_ids_is_put_in_parts(tmp_path: Path) -> None:
    ids = [i.to_bytes(8, "big") for i in range(60_000)]
    with make_store(tmp_path) as store:
        with store.write() as txn:
            tracemalloc.start()
            txn.put_ids(ids, np.arange(len(ids), dtype=np.uint32), append=True)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert most < 100 * len(ids)
        with store.read() as snap:
            assert snap.rows_of(ids).tolist() == list(range(len(ids)))
            assert list(snap.check()) == []


def test_ids_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with make_store(tmp_path) as store, store.write() as txn:
        txn.put_ids([b"x" * 510], [0])
        with pytest.raises(InputError, match="id 1 has 511 bytes, not 1 to 510"):
            txn.put_ids([b"ok", b"x" * 511], [1, 2])
        with pytest.raises(InputError, match="id 0 has 0 bytes"):
            txn.put_ids([b""], [1])
        with pytest.raises(InputError, match="row -1"):
            txn.put_ids([b"ok"], [-1])
        with pytest.raises(InputError, match="kind 256"):
            txn.put_record(256, 0, None)
        assert txn.rows_of([b"x" * 510, b"ok"]).tolist() == [0, -1]


def test_records_can_be_replaced_and_deleted(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        for payload in ({"a": 1}, {"b": "x" * 100_000}):
            with store.write() as txn:
                txn.put_record(3, 1, payload)
                assert txn.record(3, 1) == payload
        with store.write() as txn:
            txn.delete_record(3, 1)
            txn.delete_record(3, 2)
        with store.read() as snap:
            assert snap.record(3, 1) is None


def test_transactions_do_not_nest_in_a_thread_and_queue_between_threads(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        seen = []

        def writer() -> None:
            with store.write() as txn:
                seen.append(txn.state["n"])

        with store.write() as txn:
            with pytest.raises(InputError, match="transaction open already"):
                store.begin_write()
            thread = threading.Thread(target=writer)
            thread.start()
            txn.state["n"] = 5
            assert seen == []
        thread.join(10)
        assert seen == [5]


def test_a_transaction_belongs_to_its_thread(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        txn, failures = store.begin_write(), []

        def intruder() -> None:
            try:
                txn.put_record(1, 1, 1)
            except InputError as error:
                failures.append(str(error))

        thread = threading.Thread(target=intruder)
        thread.start()
        thread.join(10)
        txn.abort()
        assert len(failures) == 1
        assert "only be used by the thread or task that began it" in failures[0]


def test_ended_transactions_and_snapshots_raise_errors(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        with store.write() as txn:
            txn.state["n"] = 1
        with pytest.raises(ClosedError, match="has ended"):
            txn.put_record(1, 1, 1)
        txn.abort()
        with store.read() as snap:
            store.end(snap)
            with pytest.raises(ClosedError, match="has ended"):
                snap.record(1, 1)
        assert collect(store).commits_held == 0


def test_a_garbage_collected_store_releases_its_lock(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    written = fill(store, 10)
    snapshot = store.begin()
    assert snapshot.state == {"n": 10}
    del store, snapshot
    gc.collect()
    with Store.open(tmp_path / "a.qvec") as again:
        assert same(contents(again), written)


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    make_store(tmp_path).close()
    with Store.open(tmp_path / "a.qvec", "r") as store, pytest.raises(ReadOnlyError, match="mode='r'"):
        store.begin_write()


@pytest.mark.parametrize("option", [{"mode": "w"}, {"memory": "disk"}])
def test_options_are_checked_by_name(tmp_path: Path, option: dict[str, str]) -> None:
    make_store(tmp_path).close()
    ((name, value),) = option.items()
    with pytest.raises(InputError, match=f"{name} must be one of .*'{value}'"):
        Store.open(tmp_path / "a.qvec", **option)  # type: ignore[arg-type]


def test_resident_rows_follow_commits(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 4000)
        with Store.open(tmp_path / "a.qvec", "r", memory="ram") as resident:
            with resident.read() as snap:
                snap.reside(snap.columns.values())
                assert all(column.resident for column in snap.columns.values())
            assert same(contents(resident), written)
            for seed in range(5):
                change_rows(store, written, np.random.default_rng(seed), 50)
                assert same(contents(resident), written)


def test_relaxed_commits_are_read_back(tmp_path: Path) -> None:
    with make_store(tmp_path, durability="relaxed") as store:
        written = fill(store, 100)
        with Store.open(tmp_path / "a.qvec", "r") as reader:
            assert same(contents(reader), written)
    with Store.open(tmp_path / "a.qvec") as store:
        assert same(contents(store), written)


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_all_handles_of_a_file_have_the_durability_that_is_stored_in_it(tmp_path: Path, durability: str) -> None:
    with make_store(tmp_path, durability=durability) as store:
        assert store.env.durable == store.env.lmdb.flags()["sync"] == (durability == "full")
        copy_to(store, tmp_path / "b.qvec")
        compact(store)
        assert store.env.lmdb.flags()["sync"] == (durability == "full")
    for name in ("a.qvec", "b.qvec"):
        with Store.open(tmp_path / name) as store:
            assert store.env.lmdb.flags()["sync"] == (durability == "full")
            assert dict(store.config) == {"dim": 384}


def test_a_copy_is_smaller_whole_and_leaves_the_original_alone(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 3000)
        fill(store, 3000, seed=1)
        written = fill(store, 3000, seed=2)
        copy_to(store, tmp_path / "b.qvec")
        with pytest.raises(ExistsError):
            copy_to(store, tmp_path / "b.qvec")
        with Store.open(tmp_path / "b.qvec") as copy:
            assert same(contents(copy), written)
            with copy.read() as snap:
                assert list(snap.check()) == []
            assert collect(copy).used_bytes < collect(store).used_bytes
            change_rows(copy, written, np.random.default_rng(0), 10)
            assert same(contents(copy), written)
        assert not same(contents(store), written)
    assert not list(tmp_path.glob("*.new*"))
