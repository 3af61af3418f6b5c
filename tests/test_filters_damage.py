"""Indexes of fields that are damaged or do not match the payloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb  # noqa: TID251 - files that were tampered with are made with it
import numpy as np
import pytest
from pyroaring import BitMap

import qvec
from helpers.vectors import clustered
from qvec.maintenance.verify import _check_fields
from qvec.storage.records import seal_bytes

DIM = 4
X = clustered(np.random.default_rng(3), 40, DIM)


def damage(path: Path, change: Any) -> None:
    """Replace the bytes of entries, as in a file that was tampered with."""
    with lmdb.open(str(path), subdir=False, map_size=1 << 30, lib_version=0) as env, env.begin(write=True) as txn:
        found = [(bytes(key), bytes(value)) for key, value in txn.cursor() if bytes(key)[:1] == b"\x05"]
        for key, value in change(found):
            txn.put(key, value) if value is not None else txn.delete(key)


def flipped(entries: Any) -> Any:
    return [(key, value[:-1] + bytes([value[-1] ^ 1])) for key, value in entries]


def sealed(payload: bytes) -> Any:
    return lambda entries: [(key, seal_bytes(key, payload)) for key, _ in entries]


@pytest.mark.parametrize("change", [
    flipped,
    sealed(b"\x00"),
    sealed(b"\xff" * 5000),
    sealed(BitMap([3, 5_000_000]).serialize()),
    sealed(BitMap(range(10, 90)).serialize()),
], ids=["flipped", "short", "garbage", "beyond", "past the last row"])  # fmt: skip
def test_damaged_bitmaps_are_found_and_never_believed(path: Path, change: Any) -> None:
    with qvec.create(path, DIM, metric="l2", fields={"word": "keyword", "ok": "bool"}) as db:
        db.add(X[:5], payloads=[{"word": "a", "ok": True}] * 5)
    damage(path, change)
    with qvec.open(path) as db:
        assert db.verify() != []
        for where in ({"word": "a"}, {"ok": {"$exists": True}}):
            with pytest.raises(qvec.CorruptError):
                db.count(where)
        with pytest.raises(qvec.CorruptError):
            db.delete([0])
        assert len(db) == 5
        assert db.search(X[0], 1).ids.tolist() == [0]


@pytest.mark.parametrize(("change", "problem"), [
    (lambda entries: [(key, None) for key, _ in entries[:1]], "1 are missing"),
    (sealed(BitMap([0]).serialize()), "do not match the payloads"),
    (lambda entries: [(b"\x05\x00\x63" + entries[0][0][3:], seal_bytes(b"\x05\x00\x63" + entries[0][0][3:], b"x"))],
     "belong to undeclared fields"),
    (lambda entries: [(key, None) for key, _ in entries if key[3] == 0xFD], "1 chunks have no version"),
    (lambda entries: [(key, seal_bytes(key, b"short")) for key, _ in entries if key[3] == 0xFD], "1 of its bitmaps do"),
])  # fmt: skip
def test_verify_compares_the_indexes_with_the_payloads(path: Path, change: Any, problem: str) -> None:
    with qvec.create(path, DIM, metric="l2", fields={"word": "keyword"}) as db:
        db.add(X[:5], payloads=[{"word": "a"}] * 5)
        assert db.verify() == []
    damage(path, change)
    with qvec.open(path) as db, db._store.read() as snap:
        assert db.verify() != []  # the sums over all entries tell that something is wrong, and nothing else is asked
        assert any(problem in found for found in _check_fields(snap))
