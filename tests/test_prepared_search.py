"""Prepared searches: single float32 queries get the hits of the general path, which all other queries take."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec._kernels import SearchParams
from qvec.collection.reading import ReadableCollection
from qvec.search.engine import search_parallel
from qvec.search.run import Run

DIM = 24
X = np.random.default_rng(5).standard_normal((400, DIM)).astype(np.float32)
Q = np.random.default_rng(6).standard_normal((40, DIM)).astype(np.float32)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[qvec.Collection]:
    with qvec.create(tmp_path / "a.qvec", DIM, metric="cosine", code="int8", index="hnsw") as made:
        made.add(X)
        yield made


def n_prepared(db: qvec.Collection) -> int:
    """The number of prepared searches of the last commit."""
    with db._store.read() as snap:
        engine = snap.derived.get("engine")
        return 0 if engine is None else len(snap.derived.get("prepared", ()))


class SearchCounter:
    """Counts the searches that a prepared search completed alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prepared = self.general = 0
        search, run = ReadableCollection.search, Run.hits

        def counted_search(db: ReadableCollection, *args: Any, **options: Any) -> Any:
            before = self.general
            hits = search(db, *args, **options)
            self.prepared += self.general == before
            return hits

        def counted_run(one: Run) -> qvec.Hits:
            self.general += 1
            return run(one)

        monkeypatch.setattr(ReadableCollection, "search", counted_search)
        monkeypatch.setattr(Run, "hits", counted_run)


@pytest.fixture
def watch(db: qvec.Collection, monkeypatch: pytest.MonkeyPatch) -> SearchCounter:
    return SearchCounter(monkeypatch)


def same(one: qvec.Hits, other: qvec.Hits) -> None:
    for name in ("ids", "distances"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert (one.counts, one.included, one.zero_score) == (other.counts, other.included, other.zero_score)
    assert one.to_list() == other.to_list()


@pytest.mark.parametrize("code", ["int8", "int4", "f32"])
@pytest.mark.parametrize("index", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_prepared_searches_find_what_the_general_path_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: Any, index: Any, metric: Any
) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, metric=metric, code=code, index=index) as db:
        db.add(X)
        db.delete(range(0, 400, 7))
        watch = SearchCounter(monkeypatch)
        for options in ({"k": 10}, {"k": 3, "exact": True}, {"k": 500}, {"k": 5, "include": ()}):
            general = [db.search(q.astype(np.float64), **options) for q in Q]
            for query, hits in zip(Q, general, strict=True):
                same(db.search(query, **options), hits)
        assert watch.prepared >= 4 * (len(Q) - 3)


def test_hits_of_a_prepared_search_are_copied_and_changed_like_others(db: qvec.Collection) -> None:
    db.search(Q[0])
    hits = db.search(Q[0])
    for other in (copy.copy(hits), copy.deepcopy(hits)):
        assert type(other) is qvec.Hits
        same(other, hits)
    hits.ids[0] = -5
    assert db.search(Q[0]).ids[0] != -5


@pytest.mark.parametrize(
    ("code", "index"), [("int8", qvec.HNSW(layout="packed")), ("rabitq1", "ivf"), ("mixed", "hnsw")]
)
def test_prepared_searches_by_other_codes_find_what_the_general_path_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: Any, index: Any
) -> None:
    test_prepared_searches_find_what_the_general_path_finds(tmp_path, monkeypatch, code, index, "cosine")


def test_searches_see_every_commit(db: qvec.Collection, watch: SearchCounter) -> None:
    for i in range(5):
        db.search(Q[0])
        db.search(Q[0])
        db.add(Q[0] * (1 + i), ids=[1000 + i])
        assert 1000 + i in db.search(Q[0]).ids
        db.delete([1000 + i])
        assert 1000 + i not in db.search(Q[0]).ids
    assert watch.prepared >= 5


def test_searches_see_what_another_handle_commits(db: qvec.Collection, watch: SearchCounter) -> None:
    with qvec.open(db._store.path, "r") as reader:
        for _ in range(3):
            reader.search(Q[1])
        assert watch.prepared
        db.add(Q[1], ids=[7000])
        assert reader.search(Q[1]).ids[0] == 7000


def test_a_transaction_reads_what_it_wrote(db: qvec.Collection, watch: SearchCounter) -> None:
    db.search(Q[0])
    with db.transaction():
        db.add(Q[0], ids=[9000])
        assert db.search(Q[0]).ids[0] == 9000
        assert db.search(Q[0]).ids[0] == 9000
    assert db.search(Q[0]).ids[0] == 9000
    assert watch.prepared == 4


def test_options_of_another_type_are_not_the_same(db: qvec.Collection, watch: SearchCounter) -> None:
    for _ in range(2):
        db.search(Q[0], 1, ef=20, oversample=1)
    assert (watch.prepared, n_prepared(db)) == (2, 1)
    for bad in (
        {"k": True, "ef": 20},
        {"k": 1.0, "ef": 20},
        {"k": 1, "ef": 20.0},
        {"k": 1, "ef": 20, "oversample": True},
    ):
        with pytest.raises(qvec.InputError):
            db.search(Q[0], **{"oversample": 1} | bad)
    db.search(Q[0], np.int64(1), ef=20, oversample=1)
    assert n_prepared(db) == 2


def test_equal_numbers_that_are_other_objects_are_the_same(db: qvec.Collection, watch: SearchCounter) -> None:
    for ef in ("300", "300", "300"):
        db.search(Q[0], ef=int(ef), oversample=float("2.5"))
    assert (watch.prepared, n_prepared(db)) == (3, 1)


@pytest.mark.parametrize("bad", ["nan", "inf", "zero", "short", "long", "huge"])
def test_bad_queries_are_refused_by_name(db: qvec.Collection, bad: str) -> None:
    for _ in range(3):
        db.search(Q[0])
    query = {"nan": Q[0].copy(), "inf": Q[0].copy(), "zero": Q[0] * 0, "short": Q[0][:-1].copy(), "huge": Q[0].copy()}
    query["long"] = np.concatenate([Q[0], Q[0][:1]])
    query["nan"][3], query["inf"][5], query["huge"][7] = np.nan, np.inf, 1e19
    for _ in range(2):
        with pytest.raises(qvec.InputError, match="queries"):
            db.search(query[bad])


def test_queries_of_other_kinds_take_the_general_path(db: qvec.Collection, watch: SearchCounter) -> None:
    expected = db.search(Q[0])
    wide = np.zeros((DIM, 2), np.float32)
    wide[:, 0] = Q[0]
    for query in (Q[0].tolist(), Q[0].astype(np.float64), wide[:, 0], Q[0].astype(">f4")):
        np.testing.assert_array_equal(db.search(query).ids, expected.ids)
    assert db.search(Q[:1]).ids.shape == (1, 10)
    assert watch.prepared == 1


def test_a_list_of_parts_may_change_between_searches(db: qvec.Collection, watch: SearchCounter) -> None:
    parts: list[Any] = []
    for _ in range(2):
        assert db.search(Q[0], include=parts).included == ()
    parts.append("payloads")
    assert db.search(Q[0], include=parts).payloads == [None] * 10
    assert n_prepared(db) == 0


def test_payloads_are_read(db: qvec.Collection, watch: SearchCounter) -> None:
    for _ in range(2):
        assert db.search(Q[0]).payloads == [None] * 10
    db.add(Q[0], ids=[5000], payloads={"a": 1})
    for _ in range(2):
        payloads = db.search(Q[0]).payloads
        assert payloads[0] == {"a": 1}
    assert watch.prepared == 4


def test_filtered_searches_take_the_general_path(db: qvec.Collection, watch: SearchCounter) -> None:
    for _ in range(3):
        assert set(db.search(Q[0], ids_in=[1, 2, 3]).ids[:3].tolist()) == {1, 2, 3}
    assert watch.prepared == 0


def test_the_newest_prepared_searches_of_a_commit_are_kept(db: qvec.Collection) -> None:
    for k in range(1, 30):
        db.search(Q[0], k)
    with db._store.read() as snap:
        assert [search.raw[0] for search in snap.derived["prepared"]] == list(range(29, 21, -1))
    db.add(Q[0])
    assert n_prepared(db) == 0


def test_one_query_in_some_is_sampled_for_drift(db: qvec.Collection) -> None:
    for i in range(640):
        db.search(Q[i % len(Q)])
    assert 8 <= len(db._queries.rows) <= 12


def test_a_snapshot_answers_as_of_its_commit(db: qvec.Collection) -> None:
    with db.snapshot() as then:
        before = then.search(Q[0])
        db.add(Q[0], ids=[8000])
        for _ in range(3):
            assert db.search(Q[0]).ids[0] == 8000
            same(then.search(Q[0]), before)


def test_a_closed_handle_raises_closed_error(db: qvec.Collection) -> None:
    for _ in range(3):
        db.search(Q[0])
    db.close()
    with pytest.raises(qvec.ClosedError):
        db.search(Q[0])


def test_closing_waits_for_running_searches(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, index="hnsw") as made:
        made.add(X)
    for _ in range(20):
        db = qvec.open(tmp_path / "a.qvec")
        db.search(Q[0])
        begun, failed = threading.Barrier(4), []

        def search(db: qvec.Collection = db, begun: threading.Barrier = begun, failed: list[Any] = failed) -> None:
            begun.wait()
            try:
                while True:
                    hits = db.search(Q[0])
                    assert hits.counts == 10
            except qvec.ClosedError:
                pass
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        db.close()
        for thread in threads:
            thread.join(30)
        assert not failed
        assert not any(thread.is_alive() for thread in threads)


def test_files_are_replaced_between_searches(db: qvec.Collection) -> None:
    expected, stop, failed = db.search(Q[0]).ids.tolist(), threading.Event(), []

    def search() -> None:
        try:
            while not stop.is_set():
                assert db.search(Q[0]).ids.tolist() == expected
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        db.compact()
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not failed


def test_a_forked_child_opens_the_file_again(db: qvec.Collection) -> None:
    for _ in range(3):
        expected = db.search(Q[0]).ids.tolist()
    child = os.fork()
    if child == 0:
        try:
            found = [db.search(Q[0]).ids.tolist() for _ in range(3)]
            os._exit(0 if found == [expected] * 3 else 3)
        except BaseException:
            os._exit(4)
    assert os.waitpid(child, 0)[1] == 0
    assert db.search(Q[0]).ids.tolist() == expected


def test_damage_is_an_error_and_the_read_has_ended(tmp_path: Path) -> None:
    path, far = tmp_path / "a.qvec", np.full(DIM, 20, np.float32)
    vectors = np.concatenate([X + far] * 5 + [X - far] * 5).astype(np.float32)
    with qvec.create(path, DIM, metric="l2", code="int8", index="flat") as db:
        db.add(vectors)
    data = path.read_bytes()
    at = data.index(vectors[-1].tobytes())
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with qvec.open(path, "r") as db:
        for _ in range(2):
            db.search(vectors[0])
        assert n_prepared(db) == 1
        with pytest.raises(qvec.CorruptError, match="block"):
            db.search(vectors[-1])
        assert (len(db._store.open_snapshots), db._store.env.open_reads) == (0, 0)
        db.search(vectors[0])


class Failing:
    """A searcher that fails on a given thread at a given query."""

    def __init__(self, error: BaseException, on_main: bool) -> None:
        self.error, self.on_main, self.begun = error, on_main, 0
        self.both = threading.Barrier(2)

    def search_into(self, *args: Any) -> None:
        self.begun += 1
        if self.begun <= 2:
            self.both.wait(30)  # both threads have begun
        if self.begun >= 2 and (threading.current_thread() is threading.main_thread()) == self.on_main:
            raise self.error


@pytest.mark.parametrize("on_main", [True, False])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), qvec.CorruptError("block 3 is damaged")])
def test_an_error_on_one_thread_ends_the_whole_batch(error: BaseException, on_main: bool) -> None:
    searcher, before = Failing(error, on_main), threading.active_count()
    with pytest.raises(type(error)) as caught:
        search_parallel(searcher, np.zeros((100_000, 4), np.float32), SearchParams(10), None, 2)  # type: ignore[arg-type]
    assert caught.value is error
    assert threading.active_count() == before
    if on_main:
        assert searcher.begun < 100
