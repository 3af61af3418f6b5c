"""Rules that change the file or its codes, group several calls, or read snapshots while others write."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

import qvec
from helpers.collection_model import Model, assert_hits_are_exact, assert_same_content
from helpers.state_machine import BATCH, CODES, DIM, FILTER, IDS, PAYLOAD, POOL, ROWS, Machine
from qvec.schema.layout import CODES as CODE_COLUMN
from qvec.schema.state import GenerationRecord, State
from qvec.schema.validation import as_ids, id_keys
from qvec.storage import environment

MEMORY_MODES = st.sampled_from(["mmap", "index", "ram"])
OPERATION = st.one_of(
    st.tuples(st.just("put"), BATCH),
    st.tuples(st.just("delete"), st.lists(IDS, max_size=10)),
    st.tuples(st.just("update"), st.tuples(st.lists(IDS, max_size=5, unique=True), PAYLOAD, st.booleans())),
)
MOST = 5  # generations
REFUSED = re.compile("needs|empty|originals|learns nothing")  # errors that requantize and calibrate may raise


class UndoneError(Exception):
    """Raised inside a transaction."""


class FullMachine(Machine):
    """All rules."""

    @initialize()
    def begin(self) -> None:
        environment.PATIENCE = 0.001
        self.others: dict[str, Model] = {}

    # --- the file ---

    @rule(memory=MEMORY_MODES)
    def reopen(self, memory: Any) -> None:
        self.end_snapshots()
        self.db.close()
        self.db = self.database.open("state", memory=memory)

    @rule(memory=MEMORY_MODES)
    def reopen_reader(self, memory: Any) -> None:
        self.reader.close()
        self.reader = self.database.open("state", "r", memory=memory)

    @rule()
    def optimize(self) -> None:
        self.db.optimize()
        assert self.db.stats().deleted == 0

    @contextlib.contextmanager
    def refused_while_pinned(self) -> Iterator[None]:
        with pytest.raises(qvec.LockedError) if self.snapshots else contextlib.nullcontext():
            yield

    @rule()
    def compact(self) -> None:
        with self.refused_while_pinned():
            self.db.compact()

    @rule(ids=st.lists(IDS, max_size=10))
    def erase(self, ids: list[int]) -> None:
        gone = [name for name in dict.fromkeys(self.names(ids)) if name in self.model.rows]
        marks = [np.float32(self.model.rows[name][0]).tobytes() for name in gone]
        deleted = self.model.delete(self.names(ids))
        with self.refused_while_pinned():
            assert self.db.erase(self.names(ids)) == deleted
        if self.snapshots:
            return
        left = {np.float32(vector).tobytes() for vector, _ in self.model.rows.values()}
        data = self.path.read_bytes()
        assert not [mark for mark in marks if mark in data and mark not in left and any(mark)]

    @rule()
    def backup(self) -> None:
        copy = self.path.with_name("copy.qvec")
        self.db.backup(copy)
        with qvec.open(copy) as restored:
            assert_same_content(restored, self.model)
            assert restored.verify() == []
        for made in copy.parent.glob("copy.qvec*"):
            made.unlink()

    @precondition(lambda self: self.model.rows)
    @rule(which=st.integers(0, 60), what=st.sampled_from(["id", "codes"]))
    def damage_and_repair(self, which: int, what: str) -> None:
        name = list(self.model.rows)[which % len(self.model.rows)]
        (key,) = id_keys(as_ids([name], "str" if self.strings else "int64"))
        with self.db._store.write() as txn:
            row = int(txn.rows_of([key])[0])
            column = txn.columns.get(txn.state.column_names.get(CODE_COLUMN, CODE_COLUMN))
            if what == "id":
                txn.delete_ids([key])
            elif column is not None and self.code() != "f32":
                column.write(row, ~column.read_range(row, row + 1))
        if what == "id" or self.code() != "f32":
            assert self.db.verify() != []
            assert self.db.repair() != []
        assert self.db.verify() == []
        assert self.db.repair() == []

    # --- transactions and snapshots ---

    @rule(operations=st.lists(OPERATION, min_size=1, max_size=4), end=st.sampled_from(["commit", "raise", "catch"]))
    def transaction(self, operations: list[tuple[str, Any]], end: str) -> None:
        work, before = self.model.copy(), len(self.model.rows)
        with contextlib.suppress(UndoneError), self.aborted(end == "catch"), self.db.transaction():
            for operation in operations:
                self.change(work, *operation)
                assert len(self.db) == len(work.rows)
                assert len(self.reader) == before
            assert_hits_are_exact(work, POOL[:2], 3, self.db.search(POOL[:2], 3, exact=True))
            if end == "raise":
                raise UndoneError
            with contextlib.suppress(UndoneError), self.db.transaction():
                self.change(work, *operations[0])
                if end == "catch":
                    raise UndoneError
        if end == "commit":
            self.model = work

    @contextlib.contextmanager
    def aborted(self, expected: bool) -> Iterator[None]:
        with pytest.raises(qvec.AbortedError) if expected else contextlib.nullcontext():
            yield

    def change(self, model: Model, kind: str, what: Any) -> None:
        if kind == "put":
            names, rows, payload = self.names([i for i, _, _ in what]), [r for _, r, _ in what], [p for _, _, p in what]
            model.add(POOL[rows], names, payload)
            self.db.upsert(POOL[rows], names, payload)
        elif kind == "delete":
            assert self.db.delete(self.names(what)) == model.delete(self.names(what))
        else:
            ids, payload, merge = what
            expected = model.update_payloads(self.names(ids), payload, merge)
            assert self.db.update_payloads(self.names(ids), payload, merge=merge, missing="ignore") == expected

    @precondition(lambda self: len(self.snapshots) < 2)
    @rule()
    def take_snapshot(self) -> None:
        self.snapshots.append((self.db.snapshot(), self.model.copy()))

    @precondition(lambda self: self.snapshots)
    @rule(which=st.integers(0, 1), row=ROWS, where=FILTER)
    def read_snapshot(self, which: int, row: int, where: dict[str, Any]) -> None:
        snapshot, model = self.snapshots[which % len(self.snapshots)]
        assert_same_content(snapshot, model)
        assert_hits_are_exact(model, POOL[row], 7, snapshot.search(POOL[row], 7, exact=True))
        assert snapshot.count(where) == len(model.matching(where).rows)
        with pytest.raises(qvec.ReadOnlyError):
            snapshot.delete([])

    @precondition(lambda self: self.snapshots)
    @rule(which=st.integers(0, 1))
    def end_snapshot(self, which: int) -> None:
        snapshot, _ = self.snapshots.pop(which % len(self.snapshots))
        snapshot.close()

    def end_snapshots(self) -> None:
        while self.snapshots:
            self.snapshots.pop()[0].close()

    # --- codes ---

    @contextlib.contextmanager
    def maybe_refused(self) -> Iterator[None]:
        try:
            yield
        except qvec.InputError as error:
            if not REFUSED.search(str(error)):
                raise
        for generation in self.db.generations()[:-MOST]:
            if not generation.active:
                self.db.drop_generation(generation.number)

    @rule(code=st.sampled_from([*CODES, qvec.Int8(scale="per_dim")]), relink=st.sampled_from(["auto", True]))
    def requantize(self, code: Any, relink: Any) -> None:
        with self.maybe_refused():
            assert self.db.requantize(code, relink=relink).active

    @rule(code=st.sampled_from([qvec.Int8(scale="per_dim"), "binary"]), activate=st.booleans())
    def calibrate(self, code: Any, activate: bool) -> None:
        with self.maybe_refused():
            self.db.calibrate(POOL, code=code, activate=activate)

    @precondition(lambda self: any(not generation.active for generation in self.db.generations()))
    @rule(which=st.integers(0, MOST), drop=st.booleans())
    def return_to_a_generation(self, which: int, drop: bool) -> None:
        inactive = [generation.number for generation in self.db.generations() if not generation.active]
        number = inactive[which % len(inactive)]
        if drop:
            self.db.drop_generation(number)
            assert number not in [generation.number for generation in self.db.generations()]
            return
        with self.maybe_refused():
            served = self.generation(number).was_active
            assert (self.db.rollback(number) if served else self.db.requantize(generation=number)).active

    def generation(self, number: int) -> GenerationRecord:
        with self.db._store.read() as snap:
            state: State = snap.state
            return state.generation(number)

    @precondition(lambda self: self.code() not in ("", "f32", "f16"))
    @rule(form=st.sampled_from(["json", "msgpack"]))
    def export_and_import(self, form: Any) -> None:
        active = next(generation for generation in self.db.generations() if generation.active)
        assert self.db.import_calibration(self.db.export_calibration(format=form)).id == active.id

    @precondition(lambda self: len(self.model.rows) >= 20)
    @rule(row=ROWS)
    def tune_and_search(self, row: int) -> None:
        self.db.tune(n=10, ks=(5,))
        found = self.db.search(POOL[row], 5, recall=0.1).ids.tolist()
        assert len(set(found)) == 5
        assert set(found) <= self.model.rows.keys()

    @precondition(lambda self: len(self.model.rows) >= 20)
    @rule()
    def evaluate(self) -> None:
        assert self.db.evaluate(k=3, n=10, codes=["int8"]) is not None
        assert self.db.drift().level in ("none", "warning", "alarm")

    # --- fields, and other collections of the directory ---

    @rule()
    def declare_and_forget_a_field(self) -> None:
        self.db.add_field("later", "int")
        assert self.db.count({"later": {"$exists": True}}) == 0
        self.db.drop_field("later")
        assert "later" not in self.db.fields

    @rule(name=st.sampled_from(["a", "b"]), batch=BATCH)
    def write_to_another(self, name: str, batch: list[tuple[int, int, Any]]) -> None:
        model = self.others.setdefault(name, Model(DIM, "l2"))
        with self.database.create(name, DIM, metric="l2", durability="relaxed", exist_ok=True) as db:
            ids, rows, payload = [i for i, _, _ in batch], [r for _, r, _ in batch], [p for _, _, p in batch]
            model.add(POOL[rows], ids, payload)
            db.upsert(POOL[rows], ids, payload)
            assert_same_content(db, model)
        assert self.database.list() == sorted(["state", *self.others])

    @rule(name=st.sampled_from(["a", "b"]))
    def drop_another(self, name: str) -> None:
        with contextlib.nullcontext() if name in self.others else pytest.raises(qvec.NotFoundError):
            self.database.drop(name)
        self.others.pop(name, None)
        assert self.database.list() == sorted(["state", *self.others])
