"""A full disk: calls raise a typed error, change nothing, and succeed when there is space again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child import run

import qvec
from qvec.common.findings import damages

DIM = 64
BATCH = 100
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MIB = 1 << 20
SLOW_LIMITS = ((2, "hnsw"), (8, "hnsw"), (3, "packed"))  # MiB
BUDGETS = 500
SEED = int(os.environ.get("QVEC_SEED", str(random.SystemRandom().randrange(2**31))))


def vectors(batch: int) -> Any:
    return np.random.default_rng(batch).normal(size=(BATCH, DIM)).astype(np.float32)


INDEXES: dict[str, Any] = {
    "hnsw": qvec.HNSW(m=8, ef_construction=40),
    "packed": qvec.HNSW(m=16, ef_construction=40, layout="packed"),
    "ivf": "ivf",
}


def create(path: str, index: str = "hnsw") -> qvec.Collection:
    return qvec.create(path, DIM, metric="l2", code="int8", index=INDEXES[index])


def fill(db: qvec.Collection, first: int, last: int) -> int:
    """Add batches until the disk is full; returns the number of batches stored."""
    done = first
    with pytest.raises(qvec.DiskFullError, match="bytes are free") as caught:  # noqa: PT012 - whichever add it is
        while done < last:
            add(db, done)
            done += 1
    assert isinstance(caught.value, OSError)
    return done


def add(db: qvec.Collection, batch: int) -> None:
    ids = np.arange(BATCH * batch, BATCH * (batch + 1))
    db.add(vectors(batch), ids, [{"batch": batch}] * BATCH, threads=1)


def assert_whole(db: qvec.Collection, batches: int) -> None:
    """Batches 0 to ``batches`` - 1 are stored, nothing else is, and searches find them."""
    assert len(db) == BATCH * batches
    for batch in {0, batches // 2, batches - 1}:
        ids = np.arange(BATCH * batch, BATCH * (batch + 1))
        records = db.get(ids)
        assert records.vectors.tolist() == vectors(batch).tolist()
        assert records.payloads == [{"batch": batch}] * BATCH
        assert db.search(vectors(batch), 1, exact=True).ids[:, 0].tolist() == ids.tolist()
    assert BATCH * batches not in db
    assert db.verify() == []


def work_on_a_full_disk(path: str, more_room: Any, index: str = "hnsw") -> dict[str, int]:
    """Fill, use, delete, make room, continue. Every state is checked in the handle that got the error and in a new
    one."""
    with create(path, index) as db:
        full = fill(db, 0, 10_000)
        assert full >= 1
        assert_whole(db, full)
        while (more := fill(db, full, 10_000)) > full:  # until it fails again, the same way: pages that were
            full = more  # freed by the last commits are used by the next but one
        assert_whole(db, full)
        with qvec.open(path, "r") as reader:
            assert_whole(reader, full)
    with qvec.open(path) as db:
        assert_whole(db, full)
        more_room()
        assert db.delete(np.arange(BATCH * (full - 1), BATCH * full)) == BATCH
        db.add(vectors(full - 1), np.arange(BATCH * (full - 1), BATCH * full), [{"batch": full - 1}] * BATCH)
        db.add(vectors(full), np.arange(BATCH * full, BATCH * (full + 1)), [{"batch": full}] * BATCH)
        assert_whole(db, full + 1)
    with qvec.open(path) as db:
        assert_whole(db, full + 1)
    return {"batches": full}


def under_a_limit_of_file_size(path: str, limit: int, index: str) -> dict[str, int]:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    return work_on_a_full_disk(path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)), index)


def on_a_small_disk(path: str, size: int) -> dict[str, int]:
    with small_disk(Path(path).parent, size):
        return work_on_a_full_disk(path, lambda: remount(Path(path).parent, 4 * size))


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of ``size`` bytes over a folder, seen by this process only; it goes with the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNS if os.geteuid() == 0 else CLONE_NEWNS | CLONE_NEWUSER
    called(libc.unshare(flags))
    called(libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None))  # MS_REC | MS_PRIVATE
    called(libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size}".encode()))
    yield


def remount(folder: Path, size: int) -> None:
    called(ctypes.CDLL(None, use_errno=True).mount(b"tmpfs", bytes(folder), b"tmpfs", 0x20, f"size={size}".encode()))


def called(result: int) -> None:
    if result != 0:
        raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def may_mount() -> bool:
    try:
        with small_disk(Path("/tmp"), MIB):
            return True
    except PermissionError:
        return False


@pytest.mark.parametrize(
    ("limit", "index"),
    [
        (MIB, "hnsw"),
        (2 * MIB, "ivf"),
        *(pytest.param(size * MIB, index, marks=pytest.mark.slow) for size, index in SLOW_LIMITS),
    ],
)
def test_a_limit_of_the_file_size_costs_nothing_that_was_stored(path: Path, limit: int, index: str) -> None:
    assert run(under_a_limit_of_file_size, str(path), limit, index)["batches"] >= 1
    assert path.stat().st_size >= limit


def delete_on_a_full_disk(path: str, limit: int, index: str, singly: int) -> int:
    """Fill every gap, then delete some vectors one by one, then all, without more space; returns the number of
    vectors."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with create(path, index) as db:
        ids = list(range(BATCH * fill(db, 0, 10_000)))
        with contextlib.suppress(qvec.DiskFullError):
            for i in range(10**6, 2 * 10**6):
                db.add(vectors(0)[:1], [i])
                ids.append(i)
        random.Random(limit).shuffle(ids)
        for i in ids[:singly]:
            assert db.delete([i]) == 1
        assert damages(db.verify()) == []  # there may be advice: the first of many equal vectors may be deleted
        assert db.delete(ids) == len(ids) - singly
        assert db.verify() == []
        add(db, 0)
        assert_whole(db, 1)
    return len(ids)


@pytest.mark.parametrize(
    ("limit", "index"),
    [
        (2 * MIB, "ivf"),
        (3 * MIB, "hnsw"),
        (3 * MIB, "packed"),
        (3_989_504, "hnsw"),  # copies of all pages of ids would not fit
    ],
)
@pytest.mark.slow
def test_vectors_are_deleted_on_a_full_disk(path: Path, limit: int, index: str) -> None:
    assert run(delete_on_a_full_disk, str(path), limit, index, 50 if limit % MIB else 100) >= BATCH


@pytest.mark.parametrize("ids", ["int64", "str"])
def test_a_delete_of_all_vectors_in_any_order_needs_few_pages(path: Path, ids: Any) -> None:
    names: list[Any] = list(range(3000)) if ids == "int64" else [f"name of vector {i}" for i in range(3000)]
    with qvec.create(path, DIM, index="flat", ids=ids) as db:
        db.add(np.ones((3000, DIM)), names, [{"text": "some words of a text"}] * 3000)
        db.compact()
        random.Random(1).shuffle(names)
        before = db._store.env.used_bytes()
        assert db.delete(names) == 3000
        assert db._store.env.used_bytes() - before < 32 * db._store.env.psize  # ids and records have 100 pages or more
        assert db.verify() == []


@pytest.mark.nightly
@pytest.mark.timeout(3 * 3600)
def test_vectors_are_deleted_on_a_full_disk_of_any_size(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for i in range(BUDGETS):
        index, limit = chance.choice(list(INDEXES)), 4096 * chance.randrange(300, 1000)
        assert run(delete_on_a_full_disk, str(tmp_path / f"{i}.qvec"), limit, index, 50) >= BATCH, f"QVEC_SEED={SEED}"
        (tmp_path / f"{i}.qvec").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2 * MIB, 10 * MIB])
def test_a_full_disk_costs_nothing_that_was_stored(path: Path, size: int) -> None:
    if not run(may_mount):
        pytest.skip("needs the right to mount a tmpfs")
    assert run(on_a_small_disk, str(path), size)["batches"] >= 1


def test_a_new_file_on_a_full_disk_is_removed(path: Path) -> None:
    run(create_without_room, str(path))
    assert os.listdir(path.parent) == []


def create_without_room(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(qvec.DiskFullError):
        create(path)


@pytest.mark.parametrize("map_size", [1 << 16, 1 << 20])
@pytest.mark.slow
def test_a_small_map_grows_with_the_data(path: Path, map_size: int) -> None:
    with qvec.create(path, DIM, metric="l2", code="int8", index="hnsw", map_size=map_size) as db:
        for batch in range(30):
            ids = np.arange(BATCH * batch, BATCH * (batch + 1))
            db.add(vectors(batch), ids, [{"batch": batch}] * BATCH, threads=1)
        assert path.stat().st_size > 2 * map_size
        assert_whole(db, 30)


def test_a_map_that_cannot_grow_under_a_scan_refuses_the_batch_and_grows_after_it(path: Path) -> None:
    with qvec.create(path, DIM, metric="l2", code="int8", index="flat", map_size=1 << 18) as db:
        db.add(vectors(0), np.arange(BATCH), [{"batch": 0}] * BATCH)
        batches = db.scan(batch_size=10)
        next(batches)
        before = db.stats()
        large = np.concatenate([vectors(batch) for batch in range(1, 30)])
        payload = [{"batch": batch} for batch in range(1, 30) for _ in range(BATCH)]
        with pytest.raises(qvec.MapFullError) as caught:
            db.add(large, np.arange(BATCH, 30 * BATCH), payload)
        assert isinstance(caught.value, OSError)
        assert db.stats() == before
        assert_whole(db, 1)
        assert sum(len(batch.ids) for batch in batches) == 90
        db.add(large, np.arange(BATCH, 30 * BATCH), payload)
        assert_whole(db, 30)


def under_a_limit_of_address_space(path: str) -> None:
    """Without space for a map of a tebibyte, a smaller map is used."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with create(path) as db:
        for batch in range(5):
            db.add(vectors(batch), np.arange(BATCH * batch, BATCH * (batch + 1)), [{"batch": batch}] * BATCH, threads=1)
        assert_whole(db, 5)


def test_little_address_space_is_enough(path: Path) -> None:
    run(under_a_limit_of_address_space, str(path))
