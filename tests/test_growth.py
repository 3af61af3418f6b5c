"""Adds of many rows store them first, and add them to the index afterwards: others search and write meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import qvec
from helpers.collection_model import Model, assert_hits_are_exact, assert_same_content
from helpers.recall import search_recall
from helpers.state_machine import BATCHES, FILTERS, PAYLOADS
from helpers.state_machine_maintenance import FullMachine
from helpers.vectors import clustered
from qvec.collection import writing
from qvec.common.types import Float32Array
from qvec.index import hnsw, ivf
from qvec.maintenance import index_aside
from qvec.maintenance.growth import ActiveIndex, Growth
from qvec.maintenance.state_check import state_codec
from qvec.maintenance.stats import collect
from qvec.rows import writer
from qvec.schema.state import State

DIM, N = 16, 2000
INDEXES: dict[str, Any] = {
    "compact": qvec.HNSW(m=8, ef_construction=40),
    "packed": qvec.HNSW(m=16, ef_construction=40, layout="packed"),
    "ivf": qvec.IVF(),
    "two copies": qvec.IVF(copies=2),
}
STEPS = ["_build", "_add_columns", "_store_columns", "_store_nodes", "_finish"]


class Dying(Exception):
    pass


def small_limits(patch: pytest.MonkeyPatch, rows: int = 200) -> None:
    """Defer adds of more than ``rows`` rows, and store an index in several transactions."""
    for module, name in ((hnsw, "LINKED_ROWS"), (ivf, "LISTED_ROWS"), (ivf, "CLUSTERED_ROWS")):
        patch.setattr(module, name, rows)
    patch.setattr(index_aside, "STORED_BYTES", 1 << 16)


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    small_limits(monkeypatch)


@pytest.fixture
def x() -> Float32Array:
    return clustered(np.random.default_rng(2), 2 * N, DIM)


@contextlib.contextmanager
def no_growth() -> Iterator[None]:
    """Leave deferred rows as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Growth, "run", lambda *_: False)
        yield


def state_of(db: qvec.Collection) -> State:
    with db._store.read() as snap:
        state: State = snap.state
        return state


def widest(db: qvec.Collection) -> dict[str, Any]:
    """Options of a search that finds nearly everything that the index can find."""
    lists = getattr(state_of(db).index, "lists", None)
    return {"ef": 1000} if state_of(db).index.kind == "hnsw" else {"nprobe": 1 if lists is None else lists.n_lists}


def columns_of(db: qvec.Collection) -> set[str]:
    return set(collect(db._store).column_bytes)


@pytest.mark.simd
@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_deferred_rows_are_found_like_others(path: Path, x: Float32Array, index: str, metric: Any) -> None:
    model = Model(DIM, metric)
    with qvec.create(path, DIM, metric=metric, index=INDEXES[index], fields={"i": "int"}, originals="f32") as db:
        payloads = [{"i": i % 7} for i in range(len(x))]
        for start, stop in ((0, 150), (150, 1000)):  # the first are in the index
            model.add(x[start:stop], payloads=payloads[start:stop])
            with no_growth():
                db.add(x[start:stop], payloads=payloads[start:stop])
        assert db.stats().unindexed == 850
        for names in (range(100, 300), [999]):
            assert db.delete(list(names)) == model.delete(list(names))
        names = list(range(290, 320))
        model.add(x[1000:1030], names, payloads[:30], "replace")
        db.upsert(x[1000:1030], names, payloads=payloads[:30])
        wide = widest(db)
        assert_hits_are_exact(model, x[:40], 10, db.search(x[:40], 10, **wide))
        for remainder in (0, 3):
            hits = db.search(x[500:540], 5, where={"i": remainder}, **wide)
            exact = db.search(x[500:540], 5, where={"i": remainder}, exact=True)
            np.testing.assert_array_equal(hits.ids, exact.ids)
        assert db.verify(deep=True) == []
        db.optimize()
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []
        assert_same_content(db, model)
        assert_hits_are_exact(model, x[:40], 10, db.search(x[:40], 10, **widest(db)))


@pytest.mark.parametrize("index", INDEXES)
def test_a_call_with_many_rows_ends_with_all_of_them_in_the_index(path: Path, x: Float32Array, index: str) -> None:
    done: list[tuple[int, int]] = []
    with qvec.create(path, DIM, index=INDEXES[index]) as db:
        db.add(x[:N], progress=lambda now, total: done.append((now, total)))
        assert done[-1] == (N, N)
        assert state_of(db).unindexed == 0
        assert not state_of(db).indexing
        assert db.verify(deep=True) == []
        assert search_recall(db, x[N : N + 100]) > 0.9
        before = columns_of(db)
        db.add(x[N : N + 500])
        assert state_of(db).unindexed == 0
        assert len(columns_of(db)) == len(before)  # the columns of the old index are gone
        assert db.verify(deep=True) == []


@pytest.mark.parametrize("first", [0, 400])  # 2,000 rows are too many for the centroids of 400
@pytest.mark.parametrize("index", ["compact", "packed", "ivf"])
def test_others_read_and_write_while_an_index_is_built(path: Path, x: Float32Array, index: str, first: int) -> None:
    calls = 0
    with qvec.create(path, DIM, metric="l2", index=INDEXES[index]) as db, qvec.open(path, timeout=0.5) as other:
        if first:
            db.add(x[:first])
        build = ActiveIndex._build

        def build_slowly(self: ActiveIndex, snap: Any, progress: Any) -> Any:
            nonlocal calls
            made, calls = build(self, snap, progress), calls + 1
            if calls == 1:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(write).result()
            return made

        def write() -> None:
            other.delete(list(range(0, 300, 2)))
            other.upsert(x[N : N + 50], list(range(1, 101, 2)))
            other.add(x[N + 50 : N + 60])
            assert state_of(other).n == N + 60  # no row was reused
            other.add(x[N + 60 : N + 500])
            assert len(other) == N - 150 + 450

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ActiveIndex, "_build", build_slowly)
            db.add(x[first:N])
        assert calls >= 1
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []
        assert search_recall(db, x[400:500]) > 0.9
        hits = db.search(x[N : N + 450], 1)
        assert (hits.distances[:, 0] < 1e-2).mean() > 0.97
        other.add(x[:10])  # rows are reused again
        assert db.verify(deep=True) == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("index", ["compact", "packed", "ivf"])
@pytest.mark.parametrize("first", [0, 1000])
def test_rows_are_stored_if_their_index_could_not_be_built(
    path: Path, x: Float32Array, monkeypatch: pytest.MonkeyPatch, step: str, index: str, first: int
) -> None:
    def die(*_: object) -> bool:
        raise Dying

    with qvec.create(path, DIM, index=INDEXES[index], originals="f32") as db:
        if first:
            db.add(x[:first])
        n = 7 * first if index == "ivf" else N - first  # lists are only rebuilt when they are outgrown
        with monkeypatch.context() as patch, pytest.raises(Dying) if n <= N else contextlib.nullcontext():
            patch.setattr(ActiveIndex, step, die)
            db.add(x[first : first + min(n, N)] if n else x[:N])
        count = len(db)
        assert count > first
        wide = widest(db)
        np.testing.assert_array_equal(db.search(x[:count:50], 1, **wide).ids[:, 0], np.arange(0, count, 50))
        assert not state_of(db).indexing
        assert db.verify(deep=True) == []
    with qvec.open(path) as db:
        db.optimize()
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []
        assert search_recall(db, x[N : N + 100]) > 0.9


def test_a_build_whose_process_died_is_removed_and_repeated(path: Path, x: Float32Array) -> None:
    with pytest.MonkeyPatch.context() as patch, qvec.create(path, DIM, index=INDEXES["compact"]) as db:
        patch.setattr(Growth, "_discarding", lambda self: contextlib.nullcontext())

        def die(*_: object) -> bool:
            raise Dying

        patch.setattr(ActiveIndex, "_finish", die)
        with pytest.raises(Dying):
            db.add(x[:N])
        assert state_of(db).indexing
        db.delete(list(range(100)))
        with no_growth():
            db.add(x[:50], np.arange(9000, 9050))
            assert state_of(db).n == N + 50  # no row was reused
            db.delete(list(range(100, 1100)))  # too many unused rows to keep
            db.add(x[:50], np.arange(9050, 9100))
        assert state_of(db).n == N + 50
        assert not state_of(db).indexing
    with qvec.open(path) as db:
        db.add(x[1000:1800], np.arange(5000, 5800))
        assert state_of(db).unindexed == 0
        assert len([name for name in columns_of(db) if name.startswith("adjacency")]) == 1
        assert db.verify(deep=True) == []


def test_an_erasure_ends_a_build_so_that_no_erased_row_returns(path: Path, x: Float32Array) -> None:
    build, calls = ActiveIndex._build, []
    with qvec.create(path, DIM, index=INDEXES["compact"]) as db, qvec.open(path) as other:

        def build_slowly(self: ActiveIndex, snap: Any, progress: Any) -> Any:
            calls.append(build(self, snap, progress))
            if len(calls) == 1:
                with other._store.write() as txn:
                    from qvec.maintenance.reclaim import Reclaim

                    Reclaim(other._access.writer(txn)).zero_unused_rows()
            return calls[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ActiveIndex, "_build", build_slowly)
            db.add(x[:N])
        assert len(calls) == 2
        assert db.verify(deep=True) == []


def test_a_transaction_of_several_calls_adds_its_rows_to_the_index(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, index=INDEXES["compact"]) as db:
        with db.transaction():
            db.add(x[:N])
            db.add(x[N : N + 500])
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []


def test_a_large_graph_waits_until_one_64th_more_rows_are_there(
    path: Path, x: Float32Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MIN_DEFERRED_ROWS", 8)
    with qvec.create(path, DIM, index=INDEXES["compact"]) as db:
        db.add(x[:1280])
        waiting = []
        for start in range(1280, 1344, 8):
            db.add(x[start : start + 8])
            waiting.append(state_of(db).unindexed)
        assert waiting[:4] == [8, 16, 0, 8]
        db.add(x[1344:1345])  # a single row is linked at once
        assert state_of(db).unindexed == waiting[-1]
        db.optimize()
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []


def test_another_generation_can_become_active_while_rows_wait(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, index=INDEXES["compact"]) as db:
        db.add(x[:N])
        db.requantize("int4", relink=False)  # shares the graph
        with no_growth():
            db.add(x[N : N + 500])
        assert state_of(db).unindexed == 500
        db.add(x[N + 500 : N + 1000])
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []
        db.rollback(0)
        assert db.code == "int8"
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []
        assert search_recall(db, x[N : N + 100]) > 0.9
        with no_growth():
            db.add(x[N + 1000 : N + 1500])
        db.requantize("rabitq4", relink=True)
        assert state_of(db).unindexed == 0
        assert db.verify(deep=True) == []


def test_a_state_with_more_indexed_rows_than_there_are_is_refused(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, index=INDEXES["compact"]) as db:
        db.add(x[:100])
        with db._store.read() as snap:
            codec = state_codec(db._config.to_dict())
            stored = codec.encode(snap.state)
            stored["live"] = 99
            with pytest.raises(qvec.CorruptError, match="the index has 100 live rows of 99"):
                codec.decode(stored, snap.columns)


class GrowingMachine(FullMachine):
    """Nearly every add is deferred."""


class TestSequencesWithDeferredRows(GrowingMachine.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        """Draw the shared values before the first example."""
        assert all(drawn.values for drawn in (PAYLOADS, BATCHES, FILTERS))
        cls.patch = pytest.MonkeyPatch()  # type: ignore[attr-defined]
        small_limits(cls.patch, 3)  # type: ignore[attr-defined]
        cls.patch.setattr(writer, "MAX_UNINDEXED_SHARE", 0.6)  # type: ignore[attr-defined]

    @classmethod
    def tearDownClass(cls) -> None:
        cls.patch.undo()  # type: ignore[attr-defined]


TestSequencesWithDeferredRows.settings = settings(
    max_examples=8,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)


def test_optimize_says_that_the_write_lock_is_taken_and_adds_all_rows_later(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, index="hnsw") as db, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Growth, "run", lambda *arguments, **options: False)
        db.add(x)
        patch.undo()
        assert db.stats().unindexed == len(x)
        with qvec.open(path, timeout=0.2) as other, db.transaction():
            db.add(x[:1])
            with ThreadPoolExecutor(1) as pool, pytest.raises(qvec.LockedError):
                pool.submit(other.optimize).result()
        db.optimize()
        assert db.stats().unindexed == 0


@pytest.mark.parametrize("rows", [writing.TRAINED_EARLY - 1, writing.TRAINED_EARLY])
def test_others_can_write_while_a_code_is_trained_on_many_rows(
    path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = clustered(np.random.default_rng(4), rows, DIM)
    with qvec.create(path, DIM, code="int8", index="flat") as db:
        train, nested = writer.train_code, []

        def watched(*arguments: Any) -> Any:
            if not nested and rows >= writing.TRAINED_EARLY:
                nested.append(1)
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(db.add, more[:100] + 1).result(timeout=20)
            return train(*arguments)

        monkeypatch.setattr(writer, "train_code", watched)
        db.add(more)
        assert len(db) == rows + 100 * (rows >= writing.TRAINED_EARLY)
        assert db.verify() == []
