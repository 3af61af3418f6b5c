"""Results, iterators and handles in any order of closing: a valid copy or ClosedError, never a crash."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from child import run

import qvec

DIM = 32
X = np.random.default_rng(1).normal(size=(2000, DIM)).astype(np.float32)


def collection(path: str, n: int = 500) -> qvec.Collection:
    db = qvec.create(path, DIM, metric="l2", index="hnsw")
    db.add(X[:n], payloads=[{"row": i} for i in range(n)])
    return db


def results_outlive_the_handle(path: str) -> None:
    db = collection(path)
    hits, records, batch = db.search(X[:50], 5), db.get(np.arange(50)), next(db.scan(batch_size=50))
    copies = hits.ids.copy(), hits.distances.copy(), records.vectors.copy(), batch.vectors.copy()
    db.delete(np.arange(400))
    db.add(X[500:], np.arange(10_000, 11_500))
    db.close()
    Path(path).unlink()
    del db
    gc.collect()
    for found, copy in zip((hits.ids, hits.distances, records.vectors, batch.vectors), copies, strict=True):
        assert found.tolist() == copy.tolist()
        assert found.flags.writeable
    assert records.vectors.tolist() == X[:50].tolist()
    assert hits.payloads is not None
    assert hits.payloads[3][0] == records.payloads[3] == {"row": 3}


def scan_goes_on_across_writes(path: str) -> None:
    with collection(path) as db:
        batches = db.scan(batch_size=100)
        seen = [next(batches).ids]
        for i in range(20):
            db.delete(np.arange(25 * i, 25 * i + 25))
            db.add(X[500 + i])
        seen += [batch.ids for batch in batches]
        assert np.concatenate(seen).tolist() == list(range(500))
        assert len(db) == 20


def scan_ends_with_the_handle(path: str) -> None:
    db = collection(path)
    batches = db.scan(batch_size=100)
    next(batches)
    db.close()
    with pytest.raises(qvec.ClosedError):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


def scan_that_is_dropped_holds_nothing(path: str) -> None:
    db = collection(path)
    next(db.scan(batch_size=1))
    batches = db.scan(batch_size=1)
    next(batches)
    batches.close()
    db.close()
    with qvec.open(path) as again:
        assert len(again) == 500


def scan_that_never_began(path: str) -> None:
    db = collection(path)
    batches = db.scan()
    db.close()
    with pytest.raises(qvec.ClosedError):
        next(batches)


def scan_is_dropped_after_the_handle(path: str) -> None:
    db = collection(path)
    batches = db.scan(batch_size=100)
    next(batches)
    db.close()
    del db
    gc.collect()
    del batches
    gc.collect()


def closing_twice(path: str) -> None:
    db = collection(path)
    db.close()
    db.close()
    with pytest.raises(qvec.ClosedError):
        db.search(X[0])
    with qvec.open(path) as again:
        again.close()
    assert len(qvec.open(path)) == 500


def a_dropped_handle_gives_the_lock_back(path: str) -> None:
    db = collection(path)
    db.search(X[0])
    del db
    gc.collect()
    with qvec.open(path) as again:
        assert len(again) == 500


def closing_one_of_two_handles(path: str) -> None:
    with collection(path) as db:
        reader = qvec.open(path, "r")
        hits = reader.search(X[3], 1)
        reader.close()
        assert db.search(X[3], 1).ids.tolist() == hits.ids.tolist() == [3]
        db.add(X[500])
        reader = qvec.open(path, "r")
    assert reader.search(X[500], 1).ids.tolist() == [500]  # the writer is closed by now
    reader.close()


def closing_while_threads_search(path: str) -> None:
    for turn in range(5):
        db = collection(f"{path}-{turn}")
        ends: list[object] = []
        threads = [threading.Thread(target=search_until_closed, args=(db, ends)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        db.close()
        for thread in threads:
            thread.join(10)
        assert [type(end) for end in ends] == [qvec.ClosedError] * 4, ends


def search_until_closed(db: qvec.Collection, ends: list[object]) -> None:
    try:
        while True:
            assert int(db.search(X[7], 1).ids[0]) == 7
            db.search(X[:64], 5, threads=2)
    except BaseException as error:
        ends.append(error)


def closing_while_a_thread_writes(path: str) -> None:
    db = collection(path)
    acknowledged: list[int] = []

    def write() -> None:
        with contextlib.suppress(qvec.ClosedError):
            for i in range(500, 2000):
                db.add(X[i], [i])
                acknowledged.append(i)

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.1)
    db.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(acknowledged) < 1500  # it was closed in the middle
    with qvec.open(path) as again:
        assert len(again) == 500 + len(acknowledged)
        assert again.verify() == []


def growing_the_map_under_readers(path: str) -> None:
    with qvec.create(path, DIM, metric="l2", index="flat", map_size=1 << 16) as db, qvec.open(path, "r") as reader:
        kept = []
        for start in range(0, 2000, 100):
            db.add(X[start : start + 100])
            kept.append(reader.search(X[: start + 100 : 50], 1))
        assert len(reader) == 2000
        for hits in kept:
            assert hits.ids[:, 0].tolist() == list(range(0, 50 * len(hits.ids), 50))
            assert (hits.distances == 0).all()


def one_file_unlinked_while_it_is_open(path: str) -> None:
    db = collection(path)
    Path(path).unlink()
    with qvec.create(path, DIM) as other:
        assert db.search(X[7], 1).ids.tolist() == [7]
        other.add(X[:3])
        db.close()
        assert len(other) == 3


def exit_without_closing(path: str) -> None:
    db = collection(path)
    db.search(X[0])
    globals()["held"] = db, db.scan(batch_size=1)
    next(globals()["held"][1])


CASES = [results_outlive_the_handle, scan_goes_on_across_writes, scan_ends_with_the_handle, exit_without_closing,
         scan_that_is_dropped_holds_nothing, scan_that_never_began, scan_is_dropped_after_the_handle, closing_twice,
         a_dropped_handle_gives_the_lock_back, closing_one_of_two_handles, closing_while_threads_search,
         closing_while_a_thread_writes, growing_the_map_under_readers, one_file_unlinked_while_it_is_open]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.slow
def test_handles_and_results_end_in_any_order(path: Path, case: Callable[[str], None]) -> None:
    run(case, str(path))
