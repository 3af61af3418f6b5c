"""Rows that expire, against a model with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import qvec
from helpers.vectors import clustered
from qvec import Collection, InputError
from qvec.rows import expiry

START = datetime(2030, 1, 1, tzinfo=UTC)
INDEXES = ("flat", "hnsw", "packed", qvec.IVF(nlist=4))
OPTIONS: dict[str, Any] = {
    "fields": {"until": "datetime", "kind": "keyword", "text": "text"},
    "expires": "until",
    "durability": "relaxed",
}


class Clock:
    """The time that collections see."""

    def __init__(self) -> None:
        self.hours = 0.0

    def __call__(self) -> int:
        return int((START + timedelta(hours=self.hours)).timestamp() * 1_000_000) * 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(expiry, "clock", made)
    return made


def at(hours: float | None) -> datetime | None:
    return None if hours is None else START + timedelta(hours=hours)


def payload(hours: float | None, kind: str = "a") -> dict[str, Any]:
    return {"until": at(hours), "kind": kind, "text": f"words of {kind}"}


@pytest.fixture(params=INDEXES, ids=str)
def db(request: pytest.FixtureRequest, path: Path, clock: Clock) -> Iterator[Collection]:
    with qvec.create(path, 8, index=request.param, metric="l2", **OPTIONS) as made:
        x = clustered(np.random.default_rng(1), 400, 8)
        made.add(x, payloads=[payload(i / 10 if i % 4 else None, "ab"[i % 2]) for i in range(400)])
        yield made


def visible(hours: float) -> list[int]:
    return [i for i in range(400) if i % 4 == 0 or i / 10 > hours]


@pytest.mark.parametrize("hours", [0.0, 0.1, 7.25, 39.9])
def test_expired_rows_appear_in_no_result(db: Collection, clock: Clock, hours: float) -> None:
    x = db.get(range(0, 400, 4)).vectors
    query = x[50]
    clock.hours = hours
    ids = set(visible(hours))
    assert db.ids().tolist() == sorted(ids)
    assert (len(db), db.count(), db.stats().count, db.stats().expired) == (*[len(ids)] * 3, 400 - len(ids))
    assert db.count({"kind": "a"}) == len([i for i in ids if i % 2 == 0])
    assert db.count({"text": {"$match": "words"}}) == len(ids)
    assert db.count({"$or": [{"kind": "b"}, {"until": {"$exists": True}}]}) == len([i for i in ids if i % 2 or i % 4])
    assert [i for records in db.scan() for i in records.ids.tolist()] == sorted(ids)
    assert db.get(where={}).ids.tolist() == sorted(ids)
    assert sum(db.facets("kind").values()) == len(ids)
    for options in ({}, {"exact": True}, {"where": {"kind": "a"}}, {"mmr": 0.5}, {"ids_in": range(400)}):
        found = db.search(query, 50, **options)  # type: ignore[call-overload]
        assert len(found) == 50
        assert set(found.ids.tolist()) <= ids
    assert set(db.search(np.stack([query, query]), 400).ids.reshape(-1).tolist()) - {-1} <= ids
    assert set(db.search(text="words", k=400).ids.tolist()) - {-1} == ids
    assert set(db.search(query, 400, text="words").ids.tolist()) - {-1} <= ids
    assert set(db.search_groups(query, 2, group_by="kind", group_size=150).ids.tolist()) - {-1} <= ids
    assert set(db.search_by_id(0, 100).ids.tolist()) - {-1} <= ids
    gone = sorted(set(range(400)) - ids)
    if gone:
        assert gone[0] not in db
        assert len(db.get(gone, missing="ignore")) == 0
        for call in (db.get, db.search_by_id):
            with pytest.raises(qvec.MissingIdError):
                call([gone[0]])
        with pytest.raises(qvec.MissingIdError):
            db.update_payloads(gone[:1], {"kind": "c"})
    assert db.verify() == []


def test_time_that_goes_back_shows_rows_again(db: Collection, clock: Clock) -> None:
    for hours in (30.0, 2.0, 35.0, 0.0, 2.05, 2.0999):
        clock.hours = hours
        assert db.ids().tolist() == visible(hours)
        assert set(db.search(np.zeros(8), 400, exact=True).ids.tolist()) - {-1} == set(visible(hours))


def test_an_id_can_be_added_again_after_its_row_has_expired(db: Collection, clock: Clock) -> None:
    clock.hours = 5.0
    result = db.add(np.ones((2, 8)), [1, 1000], [payload(100), payload(None)])
    assert (result.added, result.replaced, result.skipped) == (2, 0, 0)
    result = db.add(np.ones((2, 8)), [2, 3], [payload(100)] * 2, on_conflict="skip")
    assert (result.added, result.replaced, result.skipped) == (2, 0, 0)
    with pytest.raises(qvec.DuplicateIdError, match="= 399 is stored"):
        db.add(np.ones((2, 8)), [5, 399], [None, None])
    result = db.upsert(np.ones((2, 8)), [6, 399], [payload(100)] * 2)
    assert (result.added, result.replaced) == (1, 1)
    assert sorted(db.get([1, 2, 3, 6, 1000, 399]).ids.tolist()) == [1, 2, 3, 6, 399, 1000]
    assert db.verify() == []


def test_a_deletion_counts_only_what_is_visible(db: Collection, clock: Clock) -> None:
    clock.hours = 5.0
    with pytest.raises(qvec.MissingIdError):
        db.delete([1], missing="error")
    assert db.delete([1, 2, 399]) == 1
    assert db.delete(where={"kind": "b"}) == len([i for i in visible(5.0) if i % 2 and i != 399])
    clock.hours = 0.0
    assert db.count({"kind": "b"}) == 0


def test_a_snapshot_stays_as_it_was(db: Collection, clock: Clock) -> None:
    clock.hours = 5.0
    with db.snapshot() as held:
        clock.hours = 30.0
        assert held.ids().tolist() == visible(5.0)
        assert db.ids().tolist() == visible(30.0)
        assert set(held.search(np.zeros(8), 400, exact=True).ids.tolist()) - {-1} == set(visible(5.0))
        with held.snapshot() as same, db.snapshot() as later:
            assert (len(same), len(later)) == (len(visible(5.0)), len(visible(30.0)))


def test_a_transaction_sees_its_own_changes_and_no_expired_rows(db: Collection, clock: Clock) -> None:
    clock.hours = 5.0
    with db.transaction():
        db.add(np.ones((1, 8)), [5000], [payload(6)])
        db.update_payloads([399], {"until": at(1)})
        assert db.ids().tolist() == [i for i in visible(5.0) if i != 399] + [5000]
        clock.hours = 6.0
        assert 5000 not in db
        assert 5000 not in db.search(np.ones(8), 5).ids


def test_optimize_reclaims_and_erase_overwrites(path: Path, clock: Clock) -> None:
    with qvec.create(path, 8, ids="str", **OPTIONS) as db:
        x = clustered(np.random.default_rng(2), 3000, 8)
        db.add(x, [f"id{i}" for i in range(3000)], [payload(i, f"secret-{i}-") for i in range(3000)])
        clock.hours = 1500.0
        assert (len(db), db.stats().expired, db.stats().deleted) == (1499, 1501, 0)
        db.optimize()
        assert (len(db), db.stats().expired, db.stats().deleted) == (1499, 0, 0)
        clock.hours = 2000.0
        assert db.erase(expired=True) == 500
        assert (len(db), db.stats().expired) == (999, 0)
        assert db.erase(["id2999"], expired=True) == 1
        clock.hours = 0.0
        assert (len(db), db.verify()) == (998, [])
    data = path.read_bytes()
    assert b"secret-2500-" in data
    for i in (3, 1400, 1999, 2000, 2999):
        assert f"secret-{i}-".encode() not in data


def test_the_field_is_checked_and_kept(path: Path, clock: Clock) -> None:
    for expires, fields in (("until", {}), ("kind", {"kind": "keyword"}), ("d", {"d": "datetime[]"})):
        with pytest.raises(InputError, match="expires must name a field of type datetime"):
            qvec.create(path, 2, fields=fields, expires=expires)  # type: ignore[arg-type]
        assert not path.exists()
    with qvec.create(path, 2, **OPTIONS) as db:
        db.add([[1, 2]], payloads=[payload(1)])
        with pytest.raises(InputError, match="cannot be dropped"):
            db.drop_field("until")
        with pytest.raises(InputError, match="datetime"):
            db.add([[1, 2]], payloads=[{"until": 7}])
    clock.hours = 2.0
    with qvec.open(path, "r") as db:
        assert len(db) == 0
        assert len(db.search([1, 2], 3)) == 0
    with qvec.create(path, 2, exist_ok=True, **OPTIONS) as db:
        assert len(db) == 0
    with pytest.raises(InputError, match="was created with expires='until'"):
        qvec.create(path, 2, exist_ok=True, durability="relaxed")


def test_the_wall_clock_is_used(path: Path) -> None:
    now = datetime.now(UTC)
    with qvec.create(path, 2, **OPTIONS) as db:
        held = [{"until": now - timedelta(seconds=1)}, {"until": now + timedelta(hours=1)}]
        db.add(np.ones((2, 2)), payloads=held)
        assert db.ids().tolist() == [1]


IDS = st.integers(0, 25)
HOURS = st.none() | st.integers(0, 20)


class Expiring(RuleBasedStateMachine):
    """Adds, deletes, changes, snapshots and moves of the clock; after each, a comparison with a dict."""

    folder: Path

    @initialize(index=st.sampled_from(INDEXES))
    def begin(self, index: Any) -> None:
        self.clock = Clock()
        self.real = expiry.clock
        expiry.clock = self.clock
        self.db = qvec.create(":memory:", 4, index=index, metric="l2", **OPTIONS)
        self.model: dict[int, tuple[float, int | None]] = {}
        self.held: list[tuple[Collection, list[int]]] = []

    def teardown(self) -> None:
        for snapshot, _ in self.held:
            snapshot.close()
        self.db.close()
        expiry.clock = self.real

    def live(self) -> list[int]:
        return sorted(i for i, (_, hours) in self.model.items() if hours is None or hours > self.clock.hours)

    @rule(hours=st.integers(-1, 21) | st.floats(0, 20))
    def move(self, hours: float) -> None:
        self.clock.hours = hours

    @rule(
        rows=st.dictionaries(IDS, HOURS, min_size=1, max_size=6), conflict=st.sampled_from(["error", "skip", "replace"])
    )
    def add(self, rows: dict[int, int | None], conflict: Any) -> None:
        known = set(self.live()) & rows.keys()
        x = np.array([[i + 1, i, 0, 1] for i in rows], np.float32)
        held = [payload(hours) for hours in rows.values()]
        if conflict == "error" and known:
            with pytest.raises(qvec.DuplicateIdError):
                self.db.add(x, list(rows), held)
            return
        result = self.db.add(x, list(rows), held, on_conflict=conflict)
        skipped = known if conflict == "skip" else set()
        assert (result.added, result.skipped) == (len(rows) - len(known), len(skipped))
        self.model |= {i: (i, hours) for i, hours in rows.items() if i not in skipped}

    @rule(ids=st.sets(IDS, min_size=1, max_size=5))
    def delete(self, ids: set[int]) -> None:
        assert self.db.delete(sorted(ids)) == len(ids & set(self.live()))
        for i in ids:
            self.model.pop(i, None)

    @rule(id=IDS, hours=HOURS)
    def change(self, id: int, hours: int | None) -> None:
        found = self.db.update_payloads([id], {"until": at(hours)}, missing="ignore")
        assert found == (id in self.live())
        if found:
            self.model[id] = (id, hours)

    @rule()
    def optimize(self) -> None:
        self.db.optimize()
        self.model = {i: row for i, row in self.model.items() if i in self.live()}

    @rule()
    def erase(self) -> None:
        if not self.held:
            assert self.db.erase(expired=True) == len(self.model) - len(self.live())
            self.model = {i: row for i, row in self.model.items() if i in self.live()}

    @precondition(lambda self: len(self.held) < 3)
    @rule()
    def take(self) -> None:
        self.held.append((self.db.snapshot(), self.live()))

    @invariant()
    def agrees(self) -> None:
        live = self.live()
        assert (sorted(self.db.ids().tolist()), len(self.db), self.db.count({"kind": "a"})) == (live, *[len(live)] * 2)
        assert [i for i in range(26) if i in self.db] == live
        assert self.db.facets("kind") == ({"a": len(live)} if live else {})
        for options in ({"exact": True}, {}, {"where": {"kind": "a"}}):
            found = self.db.search([1, 2, 3, 4], 30, **options)  # type: ignore[call-overload]
            assert sorted(found.ids[: len(found)].tolist()) == live
        found = self.db.search(text="words", k=30)
        assert sorted(found.ids[: len(found)].tolist()) == live
        for snapshot, ids in self.held:
            assert sorted(snapshot.ids().tolist()) == ids
            found = snapshot.search([1, 2, 3, 4], 30)
            assert sorted(found.ids[: len(found)].tolist()) == ids


TestExpiring = Expiring.TestCase
TestExpiring.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


@pytest.mark.nightly
def test_expiring_rows_in_many_orders() -> None:
    case = type(
        "Many", (Expiring.TestCase,), {"settings": settings(max_examples=1000, stateful_step_count=25, deadline=None)}
    )
    case("runTest").runTest()
