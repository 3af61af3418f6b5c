"""Erased data is in no byte of the file: not in rows, records or entries, nor in free pages and gaps."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.collection_model import Model, assert_hits_are_exact, assert_same_content
from helpers.vectors import clustered
from qvec.storage.zero_free_pages import PageEraser

DIM, N = 64, 600
GONE = list(range(100, 160))
INDEXES: dict[str, Any] = {
    "flat": "flat",
    "hnsw": qvec.HNSW(m=8, ef_construction=40),
    "packed": qvec.HNSW(layout="packed"),
    "ivf": qvec.IVF(nlist=8),
}
KILLED = """
import os, sys
import qvec, qvec.maintenance.optimize, qvec.storage.zero_free_pages
qvec.maintenance.optimize.REPAIRED_ROWS = 100
point, path = sys.argv[2], sys.argv[1]

def die(*_, **__):
    os.kill(os.getpid(), 9)

if point == "wiped":
    qvec.maintenance.optimize.zero_free_pages = die
elif point == "zeroing":
    zero, calls = qvec.storage.zero_free_pages.PageEraser._zero, []

    def some(self, start, stop):
        calls.append(start)
        return die() if len(calls) == 40 else zero(self, start, stop)

    qvec.storage.zero_free_pages.PageEraser._zero = some
elif point == "deleted":
    qvec.maintenance.optimize.Maintenance.remove_tombstones = die
elif point == "repaired":
    qvec.maintenance.optimize.Reclaim.zero_unused_rows = die
with qvec.open(path) as db:
    db.erase(list(range(100, 160)))
"""


def name_of(i: int, strings: bool) -> Any:
    return f"person number {i} of them" if strings else 7_000_000_000_000_000 + i * 1_000_003


def payload_of(i: int) -> dict[str, Any]:
    return {"word": f"keyword-{i}-secret", "long": f"{i} tells a secret " * 20, "other": f"undeclared {i} secret"}


def filled(path: Path, rng: np.random.Generator, index: Any, strings: bool) -> tuple[qvec.Collection, Model]:
    x, model = clustered(rng, N, DIM), Model(DIM, "l2")
    fields: Any = {"word": "keyword", "long": "keyword"}
    db = qvec.create(path, DIM, metric="l2", index=index, ids="str" if strings else "int64", fields=fields)
    names, payload = [name_of(i, strings) for i in range(N)], [payload_of(i) for i in range(N)]
    for start in range(0, N, 200):  # several commits: pages are freed and used again in between
        part = slice(start, start + 200)
        for changed in (db, model):
            changed.add(x[part], names[part], payload[part])  # type: ignore[attr-defined]
    return db, model


def traces(db: qvec.Collection, strings: bool, gone: list[int]) -> dict[str, bytes]:
    """Bytes that occur in the file only because of the vectors to be erased."""
    names = [name_of(i, strings) for i in gone]
    found = {}
    with db._store.read() as snap:
        rows = snap.rows_of(qvec.schema.validation.id_keys(names if strings else np.array(names)))
        for column in ("codes", "vectors"):
            for i, data in zip(gone, snap.columns[column].read(rows), strict=True):
                found[f"{column} of {i}"] = data[: DIM if column == "codes" else 4 * DIM].tobytes()
        for i, name in zip(gone, names, strict=True):
            found[f"id {i}"] = name.encode() if strings else name.to_bytes(8, "little")
            found[f"key {i}"] = name.encode() if strings else name.to_bytes(8, "big")
            for key, text in payload_of(i).items():
                found[f"{key} of {i}"] = text.encode()
    return found


def still_there(path: Path, marks: dict[str, bytes]) -> list[str]:
    data = path.read_bytes()
    return [name for name, mark in marks.items() if mark in data]


@pytest.mark.parametrize("index", list(INDEXES))
@pytest.mark.parametrize("strings", [False, True])
def test_no_byte_of_erased_data_is_left(path: Path, rng: np.random.Generator, index: str, strings: bool) -> None:
    db, model = filled(path, rng, INDEXES[index], strings)
    with db:
        marks = traces(db, strings, GONE)
        names = [name_of(i, strings) for i in GONE]
        moved = names[:5]  # stored twice: what an upsert leaves behind goes too
        for changed in (db, model):
            changed.add(np.ones((5, DIM)), moved, [payload_of(i) for i in GONE[:5]], on_conflict="replace")  # type: ignore[attr-defined]
        assert len(still_there(path, marks)) == len(marks)
        where = {"word": {"$in": [payload_of(i)["word"] for i in GONE[5:]]}}
        assert db.erase(names[5:], where=where) + db.erase(names) == len(names) == model.delete(names)
        assert still_there(path, marks) == []
        assert db.verify() == []
        assert_same_content(db, model)
        queries = np.array([vector for vector, _ in list(model.rows.values())[:20]])
        assert_hits_are_exact(model, queries, 5, db.search(queries, 5, exact=True))
        assert db.count({"word": payload_of(GONE[0])["word"]}) == 0
        for i in range(5):  # so that no page buffer of LMDB holds erased bytes
            for changed in (db, model):
                changed.add(np.full((1, DIM), i), [name_of(9000 + i, strings)], [{"word": "new"}])  # type: ignore[attr-defined]
        assert still_there(path, marks) == []
    with qvec.open(path) as again:
        assert_same_content(again, model)
        assert again.verify() == []


def test_moved_rows_and_other_generations_leave_nothing(path: Path, rng: np.random.Generator) -> None:
    db, model = filled(path, rng, INDEXES["hnsw"], False)
    with db:
        marks = traces(db, False, GONE)
        db.requantize("int4")
        marks |= {f"int4 {name}": mark for name, mark in traces(db, False, GONE).items()}
        for changed in (db, model):
            changed.delete([name_of(i, False) for i in range(50)])  # type: ignore[attr-defined]
        db.optimize()  # moves the last rows, those that are to go among them or not
        names = [name_of(i, False) for i in GONE]
        assert db.erase(names) == model.delete(names)
        assert still_there(path, marks) == []
        assert db.verify() == []
        assert_same_content(db, model)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["deleted", "repaired", "wiped", "zeroing"])
@pytest.mark.parametrize("index", ["hnsw", "ivf"])
def test_a_process_that_dies_half_way_has_deleted_and_the_next_one_overwrites(
    path: Path, rng: np.random.Generator, index: str, point: str
) -> None:
    db, model = filled(path, rng, INDEXES[index], False)
    with db:
        marks = traces(db, False, GONE)
    killed = [name_of(i, False) for i in GONE]
    script = KILLED.replace("list(range(100, 160))", repr(killed))
    assert subprocess.run([sys.executable, "-c", script, str(path), point], check=False).returncode == -9
    assert still_there(path, marks) != []
    model.delete(killed)
    with qvec.open(path, "r") as reader:
        assert_same_content(reader, model)
    with qvec.open(path) as again:
        assert still_there(path, marks) == []
        assert_same_content(again, model)
        assert again.verify() == []


def test_erased_data_stays_in_open_snapshots(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvec.storage.environment.PATIENCE", 0.05)
    db, model = filled(path, rng, "flat", False)
    with db:
        marks = traces(db, False, GONE)
        names = [name_of(i, False) for i in GONE]
        with db.snapshot() as snapshot:
            with pytest.raises(qvec.LockedError, match="snapshots"):
                db.erase(names)
            assert names[0] not in db
            assert_same_content(snapshot, model)
        model.delete(names)
        assert still_there(path, marks) != []
        assert db.erase([]) == 0
        assert still_there(path, marks) == []
        assert_same_content(db, model)


def test_another_process_that_reads_an_earlier_commit_is_awaited_and_not_harmed(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, model = filled(path, rng, "flat", False)
    code = """
import sys, qvec
with qvec.open(sys.argv[1], "r") as db, db.snapshot() as s:
    print("open", flush=True)
    sys.stdin.readline()
    print(sum(len(part.ids) for part in s.scan()), s.verify(), flush=True)
"""
    command = [sys.executable, "-c", code, str(path)]
    with db, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        marks = traces(db, False, GONE)
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        names = [name_of(i, False) for i in GONE]
        monkeypatch.setattr(db._store, "timeout", 0.1)
        with pytest.raises(qvec.LockedError, match=f"reads . earlier commits .*{other.pid}"):
            db.erase(names)
        monkeypatch.setattr(db._store, "timeout", 30.0)
        ending = threading.Timer(0.3, lambda: print(file=other.stdin, flush=True))
        ending.start()
        model.delete(names)
        db.erase([])  # waits for the other process
        ending.join()
        assert other.communicate()[0] == f"{N} []\n"
        assert still_there(path, marks) == []
        assert_same_content(db, model)


def test_searches_go_on_meanwhile(path: Path, rng: np.random.Generator) -> None:
    db, model = filled(path, rng, INDEXES["hnsw"], False)
    errors: list[BaseException] = []
    stop, queries = threading.Event(), clustered(rng, 4, DIM)

    def search() -> None:
        try:
            while not stop.is_set():
                assert (db.search(queries, 3, where={"word": {"$exists": True}}).counts == 3).all()
        except BaseException as error:
            errors.append(error)

    with db:
        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for i in range(0, 40, 10):
            names = [name_of(j, False) for j in range(i, i + 10)]
            assert db.erase(names) == model.delete(names)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert_same_content(db, model)


def test_erase_refuses_bad_calls(path: Path) -> None:
    with qvec.create(path, DIM) as db:
        assert db.erase([]) == 0
        with pytest.raises(qvec.MissingIdError):
            db.erase([3], missing="error")
        with db.transaction(), pytest.raises(qvec.InputError, match="outside"):
            db.erase([1])
        for nothing in ({}, {"where": {}}):
            with pytest.raises(qvec.InputError, match="give"):
                db.erase(**nothing)  # type: ignore[arg-type]
        with qvec.open(path, "r") as reader, pytest.raises(qvec.ReadOnlyError):
            reader.erase([1])


def test_others_write_and_read_between_the_steps_that_overwrite(
    path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qvec.storage.zero_free_pages._STEP_SECONDS", 0.0)
    db, model = filled(path, rng, "flat", False)
    other, errors = qvec.open(path), []
    stop, added = threading.Event(), []
    step, snapshots = PageEraser.step, []

    def write() -> None:
        try:
            while not stop.is_set():
                added.extend(other.add(np.ones((3, DIM)), ids=range(10**6 + len(added), 10**6 + len(added) + 3)).ids)
        except BaseException as error:
            errors.append(error)

    def step_and_read(self: PageEraser, oldest: int) -> bool:
        if len(snapshots) < 5:
            snapshots.append((other.snapshot(), len(snapshots)))
        return step(self, oldest)

    with db, other:
        marks = traces(db, False, GONE)
        names = [name_of(i, False) for i in GONE]
        monkeypatch.setattr(PageEraser, "step", step_and_read)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert db.erase(names) == model.delete(names)
        finally:
            stop.set()
            writer.join()
        assert errors == []
        assert len(snapshots) == 5
        assert added
        assert still_there(path, marks) == []
        for snapshot, _ in snapshots:  # begun between two steps
            assert snapshot.verify() == []
            assert sum(len(part.ids) for part in snapshot.scan()) == len(snapshot)
            snapshot.close()
        assert db.verify() == []
        model.add(np.ones((len(added), DIM)), [int(i) for i in added], [None] * len(added))
        assert_same_content(db, model)
