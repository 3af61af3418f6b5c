"""Fields that are added and dropped in steps, while others write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.maintenance import field_steps

DIM, ROWS = 4, 200
KINDS: dict[str, Any] = {"tag": "keyword", "year": "int", "score": "float", "marks": "int[]"}


class Stop(Exception):
    """A process that ends."""


def _note(steps: list[tuple[int, int]], done: int, total: int) -> None:
    steps.append((done, total))


def payload(i: int) -> dict[str, Any]:
    return {"tag": f"t{i % 7}", "year": i % 11, "score": i / 3, "marks": [i % 5, i % 3], "i": i}


def vectors(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, DIM)).astype(np.float32)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[qvec.Collection]:
    monkeypatch.setattr(field_steps, "INDEXED_ROWS", 16)
    monkeypatch.setattr(field_steps, "DROPPED_ENTRIES", 2)
    with qvec.create(tmp_path / "a.qvec", DIM, index="hnsw") as opened:
        opened.add(vectors(ROWS), payloads=[payload(i) for i in range(ROWS)])
        yield opened


def check(db: qvec.Collection, name: str) -> None:
    """Compare what filters find with the payloads."""
    assert db.verify() == []
    assert db.fields[name] == KINDS[name]
    records = {int(i): p for part in db.scan() for i, p in zip(part.ids, part.payloads, strict=True)}
    for wanted in ("t3", "t9") if name == "tag" else (0, 2, 5):
        where = {name: {"$contains": wanted}} if name == "marks" else {name: wanted}
        same = [i for i, p in records.items() if p and wanted in (p[name] if name == "marks" else [p.get(name)])]
        assert sorted(db.get(where=where).ids.tolist()) == sorted(same)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_field_is_indexed_in_steps_while_others_write(db: qvec.Collection, name: str) -> None:
    chance, seen = np.random.default_rng(1), []

    def write(done: int, total: int) -> None:
        seen.append(done)
        with pytest.raises(qvec.InputError, match="not a declared field"):
            db.count({name: 1 if name != "tag" else "a"})
        assert name not in db.fields
        live = [int(i) for part in db.scan() for i in part.ids]
        old = chance.choice(live, 6, replace=False).tolist()
        db.delete(old[:2])
        db.upsert(vectors(2), old[2:4], [payload(1000 + i) for i in old[2:4]])
        db.update_payloads(old[4:], [payload(2000 + i) for i in old[4:]], merge=False)
        db.add(vectors(3), payloads=[payload(3000 + i) for i in range(3)])
        if len(seen) == 5:
            db.delete(live[:50])
            db.optimize()  # moves rows below the cursor, and behind it

    db.add_field(name, KINDS[name], progress=lambda done, total: write(done, total) if done < total else None)
    assert len(seen) > 8
    check(db, name)


def test_a_field_that_a_process_left_unfinished_is_continued_or_dropped(db: qvec.Collection) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 64:
            raise Stop

    for kind in ("continue", "drop", "reopen"):
        with pytest.raises(Stop):
            db.add_field("tag", "keyword", progress=stop)
        assert db.verify() == []
        assert db.fields == {}
        with pytest.raises(qvec.InputError, match="declared already"):
            db.add_field("tag", "int")
        with pytest.raises(qvec.InputError, match=r"payload\[0\]\['tag'\] is 5"):
            db.add(vectors(1), payloads=[{"tag": 5}])
        if kind == "drop":
            db.drop_field("tag")
            assert db.verify() == []
        steps: list[tuple[int, int]] = []
        with qvec.open(db.path) as other:
            other.add_field("tag", "keyword", progress=partial(_note, steps))
        assert steps[0] == (16 if kind == "drop" else 80, ROWS)
        check(db, "tag")
        db.drop_field("tag")
        assert db.verify() == []


def test_a_wrong_stored_value_withdraws_the_field_and_is_no_obstacle_before(db: qvec.Collection) -> None:
    db.update_payloads([150, 151, 152, 153], {"year": "wrong"})
    changed: list[int] = []

    def change(done: int, total: int) -> None:
        if not changed:
            changed.append(1)
            db.delete([150])
            db.update_payloads([151], {"year": 4})
            db.update_payloads([152], {"tag": "other"})  # its year stays wrong
            db.optimize()

    with pytest.raises(qvec.InputError, match=r"the payload of id 152\['year'\] is 'wrong'"):
        db.add_field("year", "int", progress=change)
    assert changed
    assert db.fields == {}
    assert db.verify() == []
    db.delete([152, 153])
    db.add_field("year", "int")
    check(db, "year")


def test_in_a_transaction_a_field_is_added_and_dropped_at_once(db: qvec.Collection) -> None:
    with suppress(Stop), db.transaction():
        db.add_field("tag", "keyword")
        assert db.count({"tag": "t1"})
        raise Stop
    assert db.fields == {}
    with db.transaction():
        db.add_field("tag", "keyword")
    check(db, "tag")
    with suppress(Stop), db.transaction():
        db.drop_field("tag")
        raise Stop
    check(db, "tag")


def test_a_repair_drops_a_field_that_was_being_added(db: qvec.Collection) -> None:
    db.add_field("year", "int")
    with pytest.raises(Stop):
        db.add_field("tag", "keyword", progress=lambda done, total: (_ for _ in ()).throw(Stop()))
    with db._store.write() as txn:
        first = next(iter(txn.entries(b"\x00", b"\xff" * 300)))[0]
        txn.put_entries([(first, None)])
    assert db.repair()
    assert db.verify() == []
    check(db, "year")
    db.add_field("tag", "keyword")
    check(db, "tag")
