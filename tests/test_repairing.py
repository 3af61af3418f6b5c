"""repair() rebuilds damaged data that follows from other data, and refuses the rest."""

from __future__ import annotations

import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import lmdb  # noqa: TID251 - to lose ids and entries behind the store's back
import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec.cli import main
from qvec.schema.layout import CODES, DELETED, IDS, VECTORS
from qvec.storage import keys
from qvec.storage.store import Store

DIM, N = 16, 400
X = clustered(np.random.default_rng(4), N, DIM)
INDEXES: dict[str, Any] = {
    "flat": "flat",
    "hnsw": qvec.HNSW(m=8, ef_construction=60),
    "packed": qvec.HNSW(m=16, ef_construction=60, layout="packed"),
    "ivf": qvec.IVF(nlist=8),
}


def make(path: Path, index: str, ids: Any = "int64", **options: Any) -> None:
    if ids == "int64" and not options:
        path.write_bytes(plain(index))
    else:
        build(path, index, ids, **options)


@cache
def plain(index: str) -> bytes:
    """The file of a collection with integer ids."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "a.qvec", index, "int64")
        return (Path(folder) / "a.qvec").read_bytes()


def build(path: Path, index: str, ids: Any, **options: Any) -> None:
    names: list[Any] = [f"x{i}" for i in range(N)] if ids == "str" else list(range(N))
    options = {"metric": "l2", "code": "int8", "fields": {"a": "int", "t": "keyword"}, **options}
    with qvec.create(path, DIM, index=INDEXES[index], ids=ids, **options) as db:
        db.add(X, names, [{"a": i, "t": f"t{i % 3}"} for i in range(N)])
        db.delete(names[100:110])


def damage(path: Path, name: str) -> None:
    """Flip a bit in every stored block of a column, current and old."""
    with Store.open(path, "r") as store, store.read() as snap:
        column = snap.columns[name]
        wanted = column.id, column.generation
    content, hit = bytearray(path.read_bytes()), 0
    for at in range(0, len(content), 4096):
        kind, column_id, _, generation = struct.unpack_from("<4sBBH", content, at + 16)
        if kind == b"QVB1" and (column_id, generation) == wanted:
            content[at + 16 + 48 + 5] ^= 4
            hit += 1
    assert hit > 0
    path.write_bytes(content)


def assert_whole(db: qvec.Collection, ids: str = "int64") -> None:
    assert db.verify() == []
    live = [i for i in range(N) if not 100 <= i < 110]
    names: list[Any] = [f"x{i}" for i in live] if ids == "str" else live
    records = db.get(names)
    assert records.vectors.tolist() == X[live].tolist()
    assert records.payloads == [{"a": i, "t": f"t{i % 3}"} for i in live]
    found = db.search(X[live], 1, **({"nprobe": 8} if db.stats().lists else {"ef": 200}))
    assert np.mean([a == b for a, b in zip(found.ids[:, 0].tolist(), names, strict=True)]) > 0.99
    assert db.count({"t": "t1"}) == sum(i % 3 == 1 for i in live)
    assert db.count({"a": {"$gte": 200}}) == sum(i >= 200 for i in live)
    assert len(db) == len(live)


CASES = [
    *(("hnsw", column) for column in (CODES, "adjacency", "linked", "removing", DELETED, IDS, "field 0")),
    *(("packed", column) for column in (CODES, "nodes", "adjacency")),
    *(("ivf", column) for column in (CODES, "list_blocks", "lists", "centroids", "slots")),
    *(("flat", column) for column in (CODES, DELETED, IDS)),
]


@pytest.mark.parametrize(("index", "column"), CASES)
def test_a_damaged_column_is_rebuilt(path: Path, index: str, column: str) -> None:
    make(path, index)
    damage(path, column)
    with qvec.open(path) as db:
        assert any(f"column {column!r}" in problem for problem in db.verify())
        made = db.repair()
        assert len(made) >= 1
        assert_whole(db)
        assert db.repair() == []
    with qvec.open(path, "r", untrusted=True) as db:
        assert_whole(db)


def lose(path: Path, first: bytes, damaged: bool) -> None:
    """Remove or damage the tenth key and value from a given key on."""
    with lmdb.open(str(path), subdir=False, map_size=1 << 30) as env, env.begin(write=True) as txn:
        cursor = txn.cursor()
        assert cursor.set_range(first)
        for _ in range(9):
            if bytes(cursor.key()[:1]) == first and cursor.next() and bytes(cursor.key()[:1]) != first:
                cursor.prev()
        key, value = cursor.item()
        assert key[:1] == first
        if damaged:
            txn.put(key, value[:-1] + bytes([value[-1] ^ 1]))
        else:
            txn.delete(key)


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("kind", [keys.ID, keys.ENTRY])
def test_lost_and_damaged_ids_and_entries_are_rebuilt(path: Path, ids: str, damaged: bool, kind: bytes) -> None:
    make(path, "hnsw", ids)
    lose(path, kind, damaged)
    with qvec.open(path) as db:
        assert db.verify() != []
        (made,) = db.repair()
        assert ("id map" if kind == keys.ID else "indexes of 2 fields") in made
        assert_whole(db, ids)


@pytest.mark.parametrize("index", ["hnsw", "packed", "ivf"])
def test_wrong_codes_and_nodes_are_rebuilt(path: Path, index: str) -> None:
    make(path, index)
    name = {"hnsw": "adjacency", "packed": "nodes", "ivf": "list_blocks"}[index]
    with Store.open(path) as store, store.write() as txn:  # with valid checksums
        txn.columns[name].write(3, np.zeros((1, txn.columns[name].stride), np.uint8))
    with qvec.open(path) as db:
        assert db.verify() != []
        assert "the index" in db.repair()[0]
        assert_whole(db)


@pytest.mark.parametrize("index", ["flat", "hnsw", "packed", "ivf"])
def test_a_wrong_code_is_rewritten(path: Path, index: str) -> None:
    make(path, index)
    with Store.open(path) as store, store.write() as txn:  # with valid checksums
        column = txn.columns[CODES]
        column.write(3, ~column.read_range(3, 4))
    with qvec.open(path) as db:
        assert "the code of row 3 is not that of its vector" in db.verify()
        assert "the codes of 1 rows" in db.repair()
        assert_whole(db)


def test_a_damaged_generation_that_is_not_active_is_dropped(path: Path) -> None:
    make(path, "hnsw")
    with qvec.open(path) as db:
        db.requantize("f16")
    damage(path, CODES)
    with qvec.open(path) as db:
        assert "generation 0, which is not active" in db.repair()[0]
        assert_whole(db)
        assert [(g.number, g.rows) for g in db.generations()] == [(0, 0), (1, N)]


def test_active_codes_under_another_name_are_rebuilt(path: Path) -> None:
    make(path, "packed")
    with qvec.open(path) as db:
        db.requantize("f16")
        names = dict(db._store.begin().state.column_names)
    for name in (CODES, "nodes"):
        damage(path, names[name])
    with qvec.open(path) as db:
        assert len(db.repair()) == 2
        assert_whole(db)
        db.delete(list(range(50)))
        db.add(X[:50], list(range(50)), [{"a": i, "t": f"t{i % 3}"} for i in range(50)])
        assert_whole(db)


@pytest.mark.parametrize(("originals", "column"), [("f32", VECTORS), ("none", CODES)])
def test_originals_follow_from_nothing(path: Path, originals: str, column: str) -> None:
    make(path, "flat", originals=originals)
    damage(path, column)
    before = path.read_bytes()
    with (
        qvec.open(path) as db,
        pytest.raises(qvec.CorruptError, match=f"column '{column}' holds the originals.*backup"),
    ):
        db.repair()
    assert path.read_bytes() == before


def test_a_payload_follows_from_nothing(path: Path) -> None:
    make(path, "flat")
    lose(path, keys.RECORD_KIND, damaged=False)
    with qvec.open(path) as db, pytest.raises(qvec.CorruptError, match="records exist, the state says"):
        db.repair()


def test_the_command_line_repairs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(path, "hnsw")
    damage(path, "adjacency")
    assert main(["verify", str(path)]) == 1
    assert main(["repair", str(path)]) == 0
    assert "rebuilt: the index (hnsw) of 390 rows" in capsys.readouterr().out
    assert main(["verify", str(path), "--no-deep"]) == 0
