"""Routed writes, snapshots and rebalancing of a set of shards, against models; writers that die at any moment."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import shards
from qvec.shards import committing
from qvec.shards.log import Batch, Log, pack

DIM, SHARDS = 8, 8
RNG = np.random.default_rng(6)
X = clustered(RNG, 800, DIM)


def built(folder: Path, partition: str, kind: str = "int64") -> Path:
    """A set of 8 shards with the rows of X, 100 in each by block."""
    options: dict[str, Any] = {"shards": SHARDS, "sample": X} if partition == "cluster" else {}
    shards.create(folder, DIM, metric="l2", ids=kind, partition=partition, **options)  # type: ignore[arg-type]
    blocks = [
        shards.write_block(folder, f"b{i}", X[rows], named(kind, rows), [{"i": int(row)} for row in rows])
        for i in range(SHARDS)
        for rows in [np.arange(100 * i, 100 * i + 100)]
    ]
    if partition == "cluster":
        blocks = [shards.merge(folder, number, blocks) for number in range(SHARDS)]
    shards.commit(folder, blocks)
    return folder


def named(kind: str, rows: Any) -> Any:
    return np.asarray(rows) if kind == "int64" else [f"n{row}" for row in rows]


class Model:
    """What a set should contain: id -> (vector, payload)."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Any, Any]] = {i: (x, {"i": i}) for i, x in enumerate(X)}

    def check(self, index: shards.ShardSet, kind: str) -> None:
        ids = sorted(self.rows)
        assert len(index) == len(ids)
        got = index.get(named(kind, ids))
        np.testing.assert_array_equal(got.vectors, [self.rows[i][0] for i in ids])
        assert got.payloads == [self.rows[i][1] for i in ids]
        stored = [id for shard in index.shards() for id in shard.ids().tolist()]
        assert sorted(stored) == sorted(named(kind, ids) if kind == "str" else ids)
        queries = clustered(np.random.default_rng(len(ids)), 5, DIM)
        vectors = np.array([self.rows[i][0] for i in ids], np.float64)
        far = ((queries[:, None] - vectors[None]) ** 2).sum(axis=2)
        expected = np.array(named(kind, ids), object)[np.argsort(far, axis=1, kind="stable")[:, :5]]
        assert index.search(queries, 5, exact=True).ids.tolist() == expected.tolist()


def changed(index: shards.ShardSet, model: Model, kind: str, rng: np.random.Generator, steps: int) -> int:
    """Random upserts, deletes and new payloads; how many ids were changed."""
    total = 0
    for step in range(steps):
        ids = rng.choice(1200, rng.integers(1, 40), replace=False).tolist()
        total += len(ids)
        known = [i for i in ids if i in model.rows]
        action = rng.choice(["upsert", "upsert", "delete", "payloads"])
        if action == "upsert":
            x, payloads = clustered(rng, len(ids), DIM), [{"step": step}] * len(ids)
            result = index.upsert(x, named(kind, ids), payloads)
            assert (result.added, result.replaced) == (len(ids) - len(known), len(known))
            model.rows |= {i: (row, {"step": step}) for i, row in zip(ids, x, strict=True)}
        elif action == "delete":
            assert index.delete(named(kind, ids)) == len(known)
            for i in known:
                del model.rows[i]
        else:
            assert index.update_payloads(named(kind, ids), {"p": step}, missing="ignore") == len(known)
            model.rows |= {i: (model.rows[i][0], {**(model.rows[i][1] or {}), "p": step}) for i in known}
    return total


CASES = [("block", "int64"), ("cluster", "int64"), ("cluster", "str"), ("block", "str")]


@pytest.mark.parametrize(("partition", "kind"), CASES)
def test_routed_changes_reach_the_shard_of_each_id(tmp_path: Path, partition: str, kind: str) -> None:
    model, rng = Model(), np.random.default_rng(1)
    with shards.open(built(tmp_path / "s", partition, kind)) as index:
        for _ in range(2):
            changed(index, model, kind, rng, 8)
            model.check(index, kind)
        assert index.verify() == []
        assert list((tmp_path / "s" / "log").iterdir()) == []
        with pytest.raises(qvec.MissingIdError, match="no shard has the id"):
            index.delete(named(kind, [0, 5000]), missing="error")
        with pytest.raises(qvec.DuplicateIdError):
            index.upsert(X[:2], named(kind, [1, 1]))
        with pytest.raises(qvec.InputError, match="payload"):
            index.upsert(X[:2], named(kind, [1, 2]), [{"x": object()}, None])
        model.check(index, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("partition", "kind"), CASES[:2])
def test_ten_thousand_routed_changes_equal_a_model(tmp_path: Path, partition: str, kind: str) -> None:
    model, rng, total = Model(), np.random.default_rng(2), 0
    with shards.open(built(tmp_path / "s", partition, kind)) as index:
        while total < 10_000:
            total += changed(index, model, kind, rng, 50)
            model.check(index, kind)
        assert index.verify() == []


def test_a_wrong_payload_field_changes_no_shard(tmp_path: Path) -> None:
    shards.create(tmp_path / "s", DIM, metric="l2", fields={"n": "int"})
    made = [shards.write_block(tmp_path / "s", f"b{i}", X[i::2], np.arange(i, 800, 2)) for i in range(2)]
    shards.commit(tmp_path / "s", made)
    with shards.open(tmp_path / "s") as index:
        with pytest.raises(qvec.InputError, match="'n'"):
            index.upsert(X[:2] + 1, [0, 1], [{"n": 5}, {"n": "five"}])
        np.testing.assert_array_equal(index.get([0, 1]).vectors, X[:2])
        index.upsert(X[:2] + 1, [0, 1], [{"n": 5}, {"n": 6}])  # the log has no batch that cannot be applied
        np.testing.assert_array_equal(index.get([0, 1]).vectors, X[:2] + 1)


def test_a_batch_of_a_dead_writer_is_finished(tmp_path: Path) -> None:
    folder = built(tmp_path / "s", "block")
    batch = Batch("upsert", np.array([5, 105]), np.array([0, 1]), np.array([0, 1]), X[:2] + 1, [None, None])
    Log(folder).write(1, pack(batch))
    with shards.open(folder, "r", timeout=0.1) as index:
        assert index.verify() == ["batch 1 is not finished: open the set for writing"]
        with pytest.raises(qvec.LockedError, match="its writer has died"):
            index.snapshot()
    with pytest.raises(qvec.InputError, match="not finished"):
        shards.commit(folder, [shards.write_block(folder, "more", X[:1], [9999])])
    with shards.open(folder) as index:
        np.testing.assert_array_equal(index.get([5, 105]).vectors, X[:2] + 1)
        assert index.verify() == []
    Log(folder).write(2, pack(batch)[:-1])
    with pytest.raises(qvec.CorruptError, match=r"000000000002\.batch is damaged"):
        shards.open(folder)


def test_a_snapshot_has_each_batch_whole_or_not_at_all(tmp_path: Path) -> None:
    """Every batch gives the same number to one row of each shard."""
    folder, stop, seen = built(tmp_path / "s", "block"), threading.Event(), set()
    ids = np.arange(0, 800, 100)

    def write() -> None:
        with shards.open(folder) as index:
            number = 0
            while not stop.is_set():
                number += 1
                index.update_payloads(ids, {"number": number})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with shards.open(folder, "r") as index:
            for _ in range(20):
                with index.snapshot() as snapshot:
                    numbers = {(payload or {}).get("number") for payload in snapshot.get(ids).payloads}
                    assert len(numbers) == 1
                    assert snapshot.search(X[:3], 1).ids[:, 0].tolist() == [0, 1, 2]
                    seen |= numbers
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 3


def test_blocks_are_committed_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(tmp_path / "s", "block")
    more = clustered(RNG, 100, DIM)
    blocks = [shards.write_block(folder, f"m{i}", more, np.arange(2000 + i, 4000 + i, 20)) for i in range(2)]
    write_routes = committing.write_routes

    def slow(*args: Any) -> None:
        write_routes(*args)
        with shards.open(folder) as index:
            index.upsert(X[:3] + 1, [5, 9000, upserted])
            index.delete([7])

    monkeypatch.setattr(committing, "write_routes", slow)
    upserted = 2000
    with pytest.raises(qvec.DuplicateIdError, match="id 2000 of a block was stored by an upsert meanwhile"):
        shards.commit(folder, blocks)
    with shards.open(folder) as index:
        index.delete([2000])
    upserted = 9001
    monkeypatch.setattr(committing, "write_routes", write_routes)
    shards.commit(folder, blocks[:1])
    monkeypatch.setattr(committing, "write_routes", slow)
    shards.commit(folder, blocks[1:])
    with shards.open(folder) as index:
        assert index.verify() == []
        assert len(index) == 800 - 1 + 2 + 200
        np.testing.assert_array_equal(index.get([5, 9000, 9001]).vectors, X[:3] + 1)
    assert list((folder / "log").iterdir()) == []


def test_a_snapshot_does_not_see_what_follows(tmp_path: Path) -> None:
    with shards.open(built(tmp_path / "s", "cluster")) as index:
        with index.snapshot() as snapshot:
            index.delete(np.arange(100))
            index.upsert(X[200:300] + 3, np.arange(200, 300))
            assert (len(snapshot), len(index)) == (800, 700)
            np.testing.assert_array_equal(snapshot.get(np.arange(800)).vectors, X)
            with pytest.raises(qvec.ReadOnlyError):
                snapshot.delete([5])
        with pytest.raises(qvec.ClosedError):
            snapshot.search(X[0])
        assert len(index) == 700


@pytest.mark.slow
@pytest.mark.parametrize("partition", ["block", "cluster"])
def test_a_rebalance_goes_on_while_others_write(tmp_path: Path, partition: str) -> None:
    folder, model, stop = built(tmp_path / "s", partition), Model(), threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with shards.open(folder, timeout=20) as index:
                while not stop.is_set():
                    changed(index, model, "int64", np.random.default_rng(len(model.rows)), 1)
        except BaseException as error:
            failed.append(error)

    with shards.open(folder, "r") as reader:
        old = reader.names
        thread = threading.Thread(target=write)
        thread.start()
        try:
            after = shards.rebalance(folder, 3, timeout=20)
        finally:
            stop.set()
            thread.join()
        assert failed == []
        assert len(after.shards) == 3
        rows, limit = [shard.rows for shard in after.shards], {"block": 1.05, "cluster": 2.5}[partition]
        assert max(rows) <= limit * np.mean(rows)
        model.check(reader, "int64")  # an open handle follows
        assert reader.verify() == []
        assert not {*old} & {path.name for path in folder.iterdir()}
        assert list((folder / "log").iterdir()) == []
        with pytest.raises(qvec.InputError, match=r"too few|need"):
            shards.rebalance(folder, 4000)
        model.check(reader, "int64")


# --- writers that die ---


def fork(work: Callable[[], None], kill_after: float | None = None) -> bool:
    """Do work in a forked child, which is killed after some seconds; whether the child ended its work."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status == 0


def build(folder: Path, partition: str) -> None:
    """A task that is retried after each death: three blocks, the commit, then two routed batches."""
    if not (folder / "manifest.qvm").exists():
        options: dict[str, Any] = {"shards": 2, "sample": X} if partition == "cluster" else {}
        shards.create(folder, DIM, metric="l2", partition=partition, **options)  # type: ignore[arg-type]
    with shards.open(folder, "r") as index:
        done = index.names != ()
    if not done:
        blocks = [shards.write_block(folder, f"b{i}", X[i:120:3], np.arange(i, 120, 3)) for i in range(3)]
        if partition == "cluster":
            blocks = [shards.merge(folder, number, blocks) for number in range(2)]
        shards.commit(folder, blocks)
    with shards.open(folder) as index:
        index.upsert(X[200:260], np.arange(90, 150))
        index.delete(np.arange(0, 150, 10))


def survive(folder: Path, partition: str, whole: float, rng: random.Random) -> int:
    """Kill the task at random moments until it ends; the number of kills. What it leaves is checked."""
    kills = 0
    while kills < 3 and not fork(lambda: build(folder, partition), rng.uniform(0, whole)):
        kills += 1
    assert fork(lambda: build(folder, partition))
    expected = {i: X[200 + i - 90] if i >= 90 else X[i] for i in range(150) if i % 10}
    with shards.open(folder, "r") as index:
        assert index.verify(deep=False) == []
        stored = [id for shard in index.shards() for id in shard.ids().tolist()]
        assert sorted(stored) == sorted(expected)
        np.testing.assert_array_equal(index.get([*expected]).vectors, [*expected.values()])
        listed = {*index.names, index.manifest.routes}
        assert {path.name for path in folder.glob("*.qvec")} >= listed
    assert shards.discard_staged(folder) >= 0
    assert {path.name for path in folder.glob("*.qvec")} == listed
    assert list((folder / "log").iterdir()) == []
    return kills


def kill(tmp_path: Path, wanted: int, partition: str) -> None:
    start = time.monotonic()
    assert fork(lambda: build(tmp_path / "first", partition))
    whole, rng, kills, number = time.monotonic() - start, random.Random(wanted), 0, 0
    while kills < wanted:
        number += 1
        kills += survive(tmp_path / f"s{number}", partition, whole, rng)


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("partition", ["block", "cluster"])
def test_killed_writers_lose_and_duplicate_nothing(tmp_path: Path, partition: str) -> None:
    kill(tmp_path, 20, partition)


@pytest.mark.alone
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("partition", ["block", "cluster"])
def test_writers_that_are_killed_a_thousand_times_lose_and_duplicate_nothing(tmp_path: Path, partition: str) -> None:
    kill(tmp_path, 1000, partition)
