"""Rules of a state machine with one collection, a reading handle and the model: storing, reading and searching."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import qvec
from helpers.collection_model import (
    Model,
    assert_hits_are_exact,
    assert_hits_are_sound,
    assert_same_content,
    assert_vector,
)
from helpers.drawn_values import SEED, DrawnValues, one_of
from helpers.filter_model import FIELDS, filters, payloads
from helpers.vectors import clustered

DIM = 6
POOLED = min(5 * int(os.environ.get("QVEC_EXAMPLES", "20")), 500)  # examples per process
POOL = clustered(np.random.default_rng(11), 400, DIM)
POOL[:40] = POOL[0]  # many equal vectors
RECALL = 0.9
CODES = ["f32", "f16", "int8", "binary"]

IDS = st.integers(0, 60)
ROWS = st.integers(0, len(POOL) - 1)
FREE = st.dictionaries(
    st.sampled_from("abc"), st.none() | st.booleans() | st.integers() | st.text(max_size=3), max_size=2
).filter(lambda payload: all(not isinstance(v, int) or -(2**63) <= v < 2**64 for v in payload.values()))
FREE_AND_FIELDS = st.tuples(FREE, payloads.map(lambda held: held or {})).map(lambda pair: {**pair[0], **pair[1]})
PAYLOADS = DrawnValues(st.none() | FREE_AND_FIELDS, POOLED)
PAYLOAD = one_of(PAYLOADS)
ITEMS = st.lists(st.tuples(IDS, ROWS, PAYLOAD), min_size=1, max_size=40, unique_by=lambda item: item[0])
BATCHES, FILTERS = DrawnValues(ITEMS, POOLED), DrawnValues(filters, POOLED)
BATCH, FILTER, NONEMPTY_FILTER = one_of(BATCHES), one_of(FILTERS), one_of(FILTERS, nonempty=True)


class Machine(RuleBasedStateMachine):
    """Rules of what is stored, read and searched."""

    snapshots: list[tuple[qvec.Collection, Model]]

    @initialize(
        metric=st.sampled_from(["cosine", "ip", "l2"]),
        code=st.sampled_from(CODES),
        index=st.sampled_from(
            ["flat", qvec.HNSW(m=4, ef_construction=30), qvec.HNSW(m=16, ef_construction=40), qvec.IVF()]
        ),
        strings=st.booleans(),
    )
    def create(self, metric: Any, code: str, index: Any, strings: bool) -> None:
        note(f"QVEC_SEED={SEED}")
        self.folder = tempfile.TemporaryDirectory(prefix="qvec-")
        self.database = qvec.Database(self.folder.name)
        self.path = Path(self.folder.name) / "state.qvec"
        self.model, self.strings, self.snapshots = Model(DIM, metric), strings, []
        options: dict[str, Any] = {"metric": metric, "code": code, "index": index, "sample": POOL, "fields": FIELDS}
        options |= {"durability": "relaxed", "ids": "str" if strings else "int64"}
        self.db = self.database.create("state", DIM, **options)
        self.reader = self.database.open("state", "r")

    def name(self, i: int) -> int | str:
        return f"id {i}" if self.strings else i

    def names(self, ids: list[int]) -> list[int | str]:
        return [self.name(i) for i in ids]

    @rule(batch=BATCH, on_conflict=st.sampled_from(["error", "skip", "replace"]))
    def add(self, batch: list[tuple[int, int, Any]], on_conflict: Any) -> None:
        names, rows, payload = (
            self.names([i for i, _, _ in batch]),
            [r for _, r, _ in batch],
            [p for _, _, p in batch],
        )
        try:
            expected = self.model.add(POOL[rows], names, payload, on_conflict)
        except KeyError:
            with pytest.raises(qvec.DuplicateIdError):
                self.db.add(POOL[rows], names, payload, on_conflict=on_conflict)
            return
        found = self.db.add(POOL[rows], names, payload, on_conflict=on_conflict)
        assert (found.ids.tolist(), found.added, found.replaced, found.skipped) == expected

    @precondition(lambda self: not self.strings)
    @rule(rows=st.lists(ROWS, min_size=1, max_size=70))
    def add_numbered(self, rows: list[int]) -> None:
        expected = self.model.add(POOL[rows])
        found = self.db.add(POOL[rows])
        assert (found.ids.tolist(), found.added, found.replaced, found.skipped) == expected

    @rule(ids=st.lists(IDS, max_size=40))
    def delete(self, ids: list[int]) -> None:
        assert self.db.delete(self.names(ids)) == self.model.delete(self.names(ids))

    @rule()
    def delete_everything(self) -> None:
        assert self.db.delete(list(self.model.rows)) == self.model.delete(list(self.model.rows))

    @rule(ids=st.lists(IDS, max_size=20, unique=True), payload=PAYLOAD, merge=st.booleans())
    def update_payloads(self, ids: list[int], payload: Any, merge: bool) -> None:
        names = self.names(ids)
        expected = self.model.update_payloads(names, payload, merge)
        assert self.db.update_payloads(names, payload, merge=merge, missing="ignore") == expected

    @rule(where=NONEMPTY_FILTER)
    def delete_matching_rows(self, where: dict[str, Any]) -> None:
        gone = list(self.model.matching(where).rows)
        assert self.db.delete(where=where) == self.model.delete(gone)

    @rule(where=FILTER, rows=st.lists(ROWS, min_size=1, max_size=3), k=st.integers(1, 20), reader=st.booleans())
    def search_exactly_matching_rows(self, where: dict[str, Any], rows: list[int], k: int, reader: bool) -> None:
        db, some = self.reader if reader else self.db, self.model.matching(where)
        assert_hits_are_exact(some, POOL[rows], k, db.search(POOL[rows], k, exact=True, where=where))
        assert_hits_are_sound(some, POOL[rows], k, db.search(POOL[rows], k, where=where, **self.reranked()))
        assert db.count(where) == len(some.rows)
        assert set(db.get(where=where).ids.tolist()) == set(some.rows)

    @rule(row=ROWS, bad=st.sampled_from(["nan", "payload", "late payload"]))
    def add_something_bad(self, row: int, bad: str) -> None:
        x, payload = POOL[[row, row, row]].copy(), [{"a": 1}, None, {"a": 2}]
        if bad == "nan":
            x[1, 2] = np.nan
        else:
            payload[0 if bad == "payload" else 2] = {"a": object()}  # type: ignore[dict-item]
        before = self.unmoved()
        with pytest.raises(qvec.InputError):
            self.db.upsert(x, self.names([1, 2, 3]), payload)
        assert self.unmoved() == before

    def unmoved(self) -> qvec.Stats:
        """The counts of a collection, without the time that snapshots have been open."""
        return dataclasses.replace(self.db.stats(), snapshots=())

    @rule(rows=st.lists(ROWS, min_size=1, max_size=5), k=st.integers(1, 20), reader=st.booleans())
    def search_exactly(self, rows: list[int], k: int, reader: bool) -> None:
        hits = (self.reader if reader else self.db).search(POOL[rows], k, exact=True)
        assert_hits_are_exact(self.model, POOL[rows], k, hits)

    @rule(row=ROWS, k=st.integers(1, 20), reader=st.booleans())
    def search(self, row: int, k: int, reader: bool) -> None:
        db = self.reader if reader else self.db
        lists = db.stats().lists
        effort: dict[str, Any] = {"nprobe": lists} if lists else {"ef": 200}
        hits = db.search(POOL[row], k, **effort, **self.reranked())
        assert_hits_are_sound(self.model, POOL[row], k, hits)
        true = sorted(self.model.distances(POOL[row]).values())[:k]
        assert hits.counts == len(true)
        if true:
            limit = true[-1] + 1e-4 * abs(true[-1]) + self.model.tolerance(POOL[row])
            assert (hits.distances[: len(true)] <= limit).mean() >= RECALL - 1 / len(true)

    def reranked(self) -> dict[str, Any]:
        return {} if self.code() == "f32" else {"oversample": 30}

    def code(self) -> str:
        """The kind of the active code."""
        active = [generation.code for generation in self.db.generations() if generation.active]
        return active[0] if active else ""

    @rule(ids=st.lists(IDS, min_size=1, max_size=5), reader=st.booleans())
    def get(self, ids: list[int], reader: bool) -> None:
        db, names = self.reader if reader else self.db, self.names(ids)
        if any(name not in self.model.rows for name in names):
            with pytest.raises(qvec.MissingIdError):
                db.get(names)
            return
        records = db.get(names)
        assert records.payloads == [self.model.rows[name][1] for name in names]
        for name, vector in zip(names, records.vectors, strict=True):
            assert_vector(vector, self.model.rows[name][0])

    @rule(reader=st.booleans())
    def scan(self, reader: bool) -> None:
        assert_same_content(self.reader if reader else self.db, self.model)

    @rule(ids=st.lists(IDS, min_size=1, max_size=10))
    def scan_across_a_delete(self, ids: list[int]) -> None:
        batches = self.reader.scan(batch_size=3)
        first = next(batches, None)
        seen = [] if first is None else first.ids.tolist()
        before = set(self.model.rows)
        self.delete(ids)
        seen += [name for batch in batches for name in batch.ids.tolist()]
        assert set(seen) == before

    @rule()
    def verify(self) -> None:
        assert self.db.verify() == []

    @invariant()
    def lengths_agree(self) -> None:
        if hasattr(self, "db"):
            assert len(self.db) == len(self.reader) == len(self.model.rows)

    def teardown(self) -> None:
        if hasattr(self, "db"):
            for snapshot, _ in self.snapshots:
                snapshot.close()
            self.database.close()
            self.folder.cleanup()
