"""Searches of stores larger than memory: budgets, originals read alone, lists from disk, and the order of the file."""

from __future__ import annotations

import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.storage import keys
from qvec.storage.pages import Pages

DIM, N = 64, 3000
KINDS: dict[str, dict[str, Any]] = {
    "graph": {"code": "int4", "index": qvec.HNSW(m=8, ef_construction=40)},
    "lists": {"code": "rabitq1", "index": qvec.IVF(nlist=16)},
}
EVERYTHING = 1 << 30


def make(path: Path, kind: str, n: int = N) -> np.ndarray:
    x = clustered(np.random.default_rng(3), n, DIM)
    with qvec.create(path, DIM, metric="l2", originals="f16", **KINDS[kind]) as db:
        for start in range(0, n, 1000):
            db.add(x[start : start + 1000])
    return x


def copied_bytes(db: Any) -> dict[str, int]:
    with db._store.read() as snap:
        return {name: column.resident_bytes for name, column in snap.columns.items() if column.resident}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_budget_is_kept_and_answers_are_the_same(path: Path, kind: str) -> None:
    x = make(path, kind)
    with qvec.open(path, "r") as mapped, qvec.open(path, "r", memory=EVERYTHING) as copied:
        wanted = mapped.search(x[:50], 5)
        copied.search(x[0])
        whole = copied_bytes(copied)
        assert {"vectors", "ids"} < set(whole)
        assert copied.stats().memory == EVERYTHING
        assert copied.stats().resident == sum(whole.values())
        assert (mapped.stats().memory, mapped.stats().resident) == ("mmap", 0)
    total = sum(whole.values())
    for budget in (1, whole["ids"], total // 8, total // 2, total - 1, total):
        with qvec.open(path, "r", memory=np.int64(budget)) as db:
            hits = db.search(x[:50], 5)
            assert db.stats().resident <= budget
            assert (hits.ids.tolist(), hits.distances.tolist()) == (wanted.ids.tolist(), wanted.distances.tolist())
            assert (db.stats().resident > budget / 2) == (budget > 1)


def test_a_budget_is_spent_on_ids_index_and_codes_before_originals(path: Path) -> None:
    make(path, "graph")
    with qvec.open(path, "r", memory=EVERYTHING) as db:
        db.search(np.ones(DIM))
        whole = copied_bytes(db)
    order = ["ids", "adjacency", "codes", "vectors"]
    assert sorted(whole) == sorted(order)
    for n in range(1, len(order) + 1):
        with qvec.open(path, "r", memory=sum(whole[name] for name in order[:n])) as db:
            db.search(np.ones(DIM))
            assert copied_bytes(db) == {name: whole[name] for name in order[:n]}


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops a file from the page cache")
@pytest.mark.parametrize("memory", ["index", EVERYTHING])
def test_copies_are_the_same_from_the_disk_and_from_the_cache(path: Path, memory: Any) -> None:
    x = make(path, "graph")
    found = []
    for is_cached in (True, False):
        if not is_cached:
            drop_from_cache(path)
        with qvec.open(path, "r", memory=memory) as db:
            hits = db.search(x[:50], 5)
            found.append((hits.ids.tolist(), hits.distances.tolist(), copied_bytes(db)))
    assert found[0] == found[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drops a file from the page cache")
def test_a_flipped_bit_is_reported_when_a_copy_is_read_from_the_disk(path: Path) -> None:
    x = make(path, "graph")
    flip(path, position_of(path, x[1234]))
    drop_from_cache(path)
    with qvec.open(path, "r", memory=EVERYTHING) as db, pytest.raises(qvec.CorruptError, match="vectors"):
        db.search(x[0])


def test_a_budget_is_not_exceeded_when_commits_follow(path: Path) -> None:
    x = make(path, "graph")
    with qvec.open(path, memory=EVERYTHING) as db:
        db.search(x[0])
        before = db.stats().resident
    with qvec.open(path, memory=before // 2) as db:
        for i in range(3):
            db.search(x[0])
            db.add(x[i : i + 1])
            assert db.search(x[i], 2).distances.tolist() == [0.0, 0.0]
            assert 0 < db.stats().resident <= before // 2


@pytest.mark.parametrize("memory", [0, -1, True, 1.5, "disk", None, (1 << 46) + 1, b"mmap"])
def test_other_values_of_memory_are_refused_by_name(path: Path, memory: Any) -> None:
    make(path, "lists", 100)
    with pytest.raises(qvec.InputError, match=r"memory must be one of mmap, index, ram, or a number of bytes.*; got"):
        qvec.open(path, "r", memory=memory)


def position_of(path: Path, x: np.ndarray) -> int:
    """Where the original of a vector is in the file: f16 values times a power of two."""
    content = path.read_bytes()
    unit = 2.0 ** np.arange(-20, 20)
    with np.errstate(over="ignore", under="ignore"):
        found = {content.find((x / u).astype(np.float16).tobytes()[:64]) for u in unit} - {-1}
    assert len(found) == 1
    return found.pop()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("memory", ["mmap", "index", 200_000, EVERYTHING])
def test_a_flipped_bit_in_an_original_that_a_search_reads_is_reported(path: Path, kind: str, memory: Any) -> None:
    x = make(path, kind)
    flip(path, position_of(path, x[1234]) + 10)
    with qvec.open(path, "r", memory=memory) as db:
        with pytest.raises(qvec.CorruptError, match="column 'vectors'"):
            db.search(x[1234], 3)
        if memory != EVERYTHING:  # which reads all originals
            far = int(np.argmax(((x - x[1234]) ** 2).sum(1)))
            assert db.search(x[far], 1)[0].id == far
        assert any("vectors" in str(finding) for finding in db.verify())


def test_lists_answer_from_the_disk_as_from_memory(path: Path) -> None:
    x = make(path, "lists")
    rng = np.random.default_rng(8)
    queries = (x[:60] + 0.2 * rng.standard_normal((60, DIM))).astype(np.float32)
    exact = np.argsort(((queries[:, None] - x[None]) ** 2).sum(2), axis=1, kind="stable")[:, :10]
    with qvec.open(path, "r") as warm:
        for query in np.repeat(x[:70], 3, axis=0):
            warm.search(query)  # in the page cache: later searches do not rank entries before they read originals
        from_memory = np.array([warm.search(query, 10, nprobe=16).ids for query in queries])
    for i, query in enumerate(queries):
        with qvec.open(path, "r") as cold:  # the first searches of a handle read from the disk
            from_disk = cold.search(query, 10, nprobe=16)
            assert recall(from_disk.ids[None], from_memory[i][None]) >= 0.9
            assert recall(from_disk.ids[None], exact[i][None]) >= 0.9
            some = cold.search(query, 5, nprobe=2, ids_in=exact[i][::2].tolist())
            assert some.ids.tolist() == exact[i][::2].tolist()


@pytest.mark.parametrize("memory", ["mmap", 100_000])
def test_threads_verify_the_rows_of_a_handle_together(path: Path, memory: Any) -> None:
    x = make(path, "graph")
    with qvec.open(path, "r") as db:
        wanted = [db.search(query, 5).ids.tolist() for query in x[:200]]
    with qvec.open(path, "r", memory=memory) as cold, ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda query: cold.search(query, 5).ids.tolist(), x[:200])
        assert list(found) == wanted


def test_compact_writes_the_blocks_of_a_column_one_behind_the_other(path: Path) -> None:
    make(path, "graph")
    with qvec.open(path) as db:
        psize = db._store.env.psize
        assert _runs(path, psize) > 5  # columns that grow together are mixed
        db.compact()
    assert _runs(path, psize) == 0


def _runs(path: Path, psize: int) -> int:
    """How often the blocks of a column are interrupted by blocks of another, in the order of the file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        pages = Pages(fd, psize)
        waiting, blocks = [pages.roots()[1]], []
        while waiting:
            page, _ = pages.tree_page(waiting.pop())
            for node in page.nodes:
                if page.is_branch:
                    waiting.append(node.page)
                elif node.key[:1] == keys.block(0, 0, 0)[:1] and node.page:
                    blocks.append((node.page, node.key[:4], node.key[4:]))
    finally:
        os.close(fd)
    ordered = [(key, number) for _, key, number in sorted(blocks)]
    columns = [key for key, _ in ordered]
    changes = sum(a != b for a, b in itertools.pairwise(columns))
    assert len(set(columns)) > 3
    mixed = changes - (len(set(columns)) - 1)
    return mixed + sum(a > b for a, b in itertools.pairwise(ordered))
