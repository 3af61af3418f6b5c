"""A compacted file replaces the old one: completely or not at all, and only if no other process has it open."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.collection_model import Model, assert_same_content
from helpers.vectors import clustered
from qvec.storage.store import Store

DIM, N = 32, 1500
OTHER = """
import sys, qvec
with qvec.open(sys.argv[1], "r") as db:
    print("open", flush=True)
    sys.stdin.readline()
    print(len(db), flush=True)
"""


@pytest.fixture
def filled(path: Path, rng: np.random.Generator) -> Any:
    """A collection most of whose pages are free, and its model."""
    x, model = clustered(rng, N, DIM), Model(DIM, "l2")
    with qvec.create(path, DIM, metric="l2", index=qvec.HNSW(m=8, ef_construction=40)) as db:
        for changed in (db, model):
            changed.add(x, payloads=[{"i": i} for i in range(N)])  # type: ignore[attr-defined]
            changed.delete(range(200, N))  # type: ignore[attr-defined]
        yield db, model


def other_process(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OTHER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_compacted_file_is_smaller_and_has_the_same_content(filled: Any, path: Path) -> None:
    db, model = filled
    before = path.stat().st_size
    with qvec.open(path, "r") as reader:
        assert len(reader) == 200
        given_back = db.compact()
        assert given_back == before - path.stat().st_size > 0
        db.optimize()  # free rows lie between the others before
        db.compact()
        assert path.stat().st_size < before // 3
        for handle in (db, reader):  # both follow the file
            assert_same_content(handle, model)
            assert handle.verify() == []
        db.delete([5])
        model.delete([5])
        assert_same_content(reader, model)
    assert sorted(name.name for name in path.parent.iterdir()) == [path.name, path.name + "-lock"]
    with qvec.open(path.rename(path.with_name("moved")), "r") as moved:
        assert_same_content(moved, model)


def test_compact_is_refused_while_another_process_has_the_file_open(
    filled: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, model = filled
    size = path.stat().st_size
    monkeypatch.setattr(db._store, "timeout", 0.1)
    with other_process(path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(qvec.LockedError, match=f"another process has it open .*{other.pid}"):
            db.compact()
        assert path.stat().st_size == size
        db.delete([7])
        model.delete([7])
        assert other.communicate("\n")[0] == "199\n"
    assert_same_content(db, model)
    db.compact()
    assert_same_content(db, model)
    with other_process(path) as other:  # and who comes later finds the new file
        assert other.communicate("\n")[0] == "open\n199\n"


def test_compact_waits_until_other_processes_close_the_file(filled: Any, path: Path) -> None:
    db, model = filled
    with other_process(path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        ending = threading.Timer(0.3, lambda: print(file=other.stdin, flush=True))
        ending.start()
        db.compact()
        ending.join()
        assert other.communicate()[0] == "200\n"
    assert_same_content(db, model)


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_writers_go_on_while_compact_copies(
    filled: Any, path: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    db, model = filled
    copies = []

    def check(store: Store, draft: str) -> None:
        copies.append(draft)
        if len(copies) <= commits:
            db.delete([len(copies)])  # in the thread that compacts: it would fail at once if compact had the lock
            model.delete([len(copies)])
        with ThreadPoolExecutor(1) as pool:  # opening the file does not discard the copy
            pool.submit(lambda: qvec.open(path, timeout=0).close()).result()
        assert Path(draft).exists()

    monkeypatch.setattr("qvec.storage.copies._check", check)
    db.compact()
    assert len(copies) == commits + 1
    assert_same_content(db, model)
    assert db.verify() == []


def test_compact_waits_for_searches_and_is_refused_for_snapshots(
    filled: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, model = filled
    monkeypatch.setattr("qvec.storage.environment.PATIENCE", 0.1)
    with db.snapshot() as snapshot:
        with pytest.raises(qvec.LockedError, match="snapshots"):
            db.compact()
        assert_same_content(snapshot, model)
    stop, errors = threading.Event(), []

    def search() -> None:
        queries = np.ones((1, DIM), np.float32)
        try:
            while not stop.is_set():
                assert db.search(queries, 3).counts.tolist() == [3]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    monkeypatch.setattr("qvec.storage.environment.PATIENCE", 10.0)
    for thread in threads:
        thread.start()
    for i in range(5):
        db.delete([i])
        model.delete([i])
        db.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert_same_content(db, model)


def test_a_dead_process_s_copy_is_removed_and_a_failed_copy_does_not_change_the_file(
    filled: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, model = filled
    leftover = path.with_name(path.name + ".compact")

    def fail(*_: Any) -> None:
        assert leftover.exists()
        raise OSError("no more")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no more"):
            db.compact()
    assert not leftover.exists()
    assert_same_content(db, model)
    db.add(np.ones((1, DIM)), [9000])
    db.close()
    leftover.write_bytes(b"half a copy")
    with qvec.open(path) as again:
        assert not leftover.exists()
        assert 9000 in again
        assert again.verify() == []


def test_compact_is_refused_for_readers_and_inside_transactions(filled: Any, path: Path) -> None:
    db, _ = filled
    with qvec.open(path, "r") as reader, pytest.raises(qvec.ReadOnlyError):
        reader.compact()
    with db.transaction(), pytest.raises(qvec.InputError, match="transaction"):
        db.compact()


def test_a_backup_is_a_collection_of_its_own(filled: Any, path: Path) -> None:
    db, model = filled
    copy = path.with_name("backup.qvec")
    db.backup(copy)
    db.delete([1, 2, 3])
    with qvec.open(copy) as backup:
        assert_same_content(backup, model)
        assert backup.verify() == []
    with pytest.raises(qvec.ExistsError):
        db.backup(copy)
    with qvec.open(path, "r") as reader:  # readers may too
        reader.backup(path.with_name("another.qvec"))
