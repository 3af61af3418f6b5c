"""Embeddings that come as bits and as integers: bits find candidates, integers re-rank them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.prequantized import expected_distances, quantized
from helpers.vectors import clustered
from qvec import InputError, Prequantized

DIM, N = 64, 1200
X = clustered(np.random.default_rng(6), N + 40, DIM)
X = 2 * X / np.abs(X).max()
INTEGERS: list[Any] = ["int8", "uint8"]
BITS: list[Any] = ["binary", "ubinary"]


def pair(bits: str = "ubinary", integers: str = "int8") -> tuple[Any, Any]:
    return quantized(X, bits), quantized(X, integers)  # type: ignore[arg-type]


@pytest.fixture
def db(path: Path) -> Any:
    with qvec.create(path, DIM, code=Prequantized("ubinary"), originals="int8") as made:
        yield made


@pytest.mark.parametrize("index", ["flat", "hnsw", qvec.IVF(nlist=4)])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("integers", INTEGERS)
@pytest.mark.parametrize("bits", BITS)
def test_hits_are_ranked_by_the_integers(path: Path, bits: Any, integers: Any, metric: Any, index: Any) -> None:
    codes, exact = pair(bits, integers)
    true = np.sort(expected_distances(exact[:N], exact[N:], integers, metric), axis=1)[:, :10]
    with qvec.create(path, DIM, metric=metric, code=Prequantized(bits), index=index, originals=integers) as db:
        db.add(codes[:600], originals=exact[:600])
        db.add(codes[600:N], originals=exact[600:N])
    with qvec.open(path, untrusted=True) as db:
        for queries in (exact[N:], exact[N:].astype(np.float32) - 128 * (integers == "uint8")):
            np.testing.assert_allclose(db.search(queries, 10, exact=True).distances, true, rtol=2e-6, atol=2e-6)
            effort = {"ef": N} if isinstance(index, str) else {"nprobe": 4}
            found = db.search(queries, 10, oversample=N / 10, **effort)
            assert np.isclose(found.distances, true, rtol=2e-6, atol=2e-6).mean() > 0.99
        near = db.search(exact[N:], 10)
        assert np.isclose(near.distances, true, rtol=2e-6, atol=2e-6).mean() > 0.7
        by_bits = db.search(exact[N:], 10, oversample=0)
        assert (by_bits.distances == np.round(by_bits.distances)).all()  # numbers of different bits


def test_the_integers_are_returned(db: Any) -> None:
    codes, exact = pair()
    assert db.get([]).vectors.dtype == np.int8
    db.add(codes[:N], originals=exact[:N].tolist(), payloads=[{"i": i} for i in range(N)])
    assert np.array_equal(db.get([3, 0]).vectors, exact[[3, 0]])
    hits = db.search(exact[7], 3, include=("payloads", "vectors"))
    assert hits.vectors.dtype == np.int8
    assert (hits.ids[0], hits.payloads[0]) == (7, {"i": 7})
    assert np.array_equal(hits.vectors[0], exact[7])
    assert 7 not in db.search_by_id(7, 3).ids
    assert db.search(exact[7], 3, mmr=0.5).counts == 3
    assert db.stats().originals == "int8"


def test_both_forms_are_changed_together(path: Path, db: Any) -> None:
    codes, exact = pair()
    db.add(codes[:N], originals=exact[:N])
    db.upsert(codes[N : N + 2], [5, N], originals=exact[N : N + 2])
    skipped = db.add(codes[:4], [N + 5, 1, N + 6, 2], originals=exact[:4], on_conflict="skip")
    assert (skipped.added, skipped.skipped) == (2, 2)
    db.delete(range(100, 400))
    db.optimize()
    assert db.verify() == []
    for i, row in {5: N, N: N + 1, N + 5: 0, N + 6: 2, 1: 1, 500: 500}.items():
        assert np.array_equal(db.get([i]).vectors[0], exact[row])
    found = db.search(exact[500:600], 1)
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)


def test_tables_have_a_column_of_each_form(db: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    codes, exact = pair()
    columns = {
        "bits": pa.FixedSizeListArray.from_arrays(pa.array(codes[:9].reshape(-1)), DIM // 8),
        "ints": pa.array(exact[:9].tolist(), pa.list_(pa.int8())),
        "key": [*range(9)],
        "text": ["a"] * 9,
    }
    db.upsert(pa.table(columns), vector="bits", originals="ints", id="key")
    assert np.array_equal(db.get([8]).vectors, exact[8:9])
    assert db.get([8]).payloads == [{"text": "a"}]
    with pytest.raises(InputError, match="originals='none': the table has no such column"):
        db.add(pa.table(columns), vector="bits", originals="none")


def test_recall_is_measured_and_no_other_codes_are_made(db: Any) -> None:
    codes, exact = pair()
    db.add(codes[:N], originals=exact[:N])
    assert db.tune(exact[N:], ks=(10,)).at(10).points
    assert db.tune(n=30, ks=(10,)).at(10).points
    assert {row.code for row in db.evaluate(exact[N:], codes=["int8", "binary"]).rows} == {"int8", "binary"}
    for call in (
        lambda: db.requantize("int8"),
        lambda: db.requantize(generation=0),
        lambda: db.calibrate(X, code=qvec.Int8(scale="per_dim")),
        lambda: db.choose(0.9),
    ):
        with pytest.raises(InputError, match="ubinary codes of this collection come with its vectors"):
            call()
    assert len(db.generations()) == 1
    assert db.verify() == []


def test_originals_that_do_not_fit_are_refused_before_anything_is_written(path: Path, db: Any) -> None:
    codes, exact = pair()
    zero = exact[:2].copy()
    zero[1] = 0
    for originals, message in (
        (None, "two forms: give the int8 vectors as originals"),
        (exact[:1], "1 originals for 2 vectors"),
        (zero, r"originals\[1\] is the zero vector"),
        (exact[:2].astype(np.int16) + 300, r"originals\[0, 0\] is \d+: int8 codes lie in -128..127"),
        (X[:2], "originals must hold integers.*float32"),
        (codes[:2], r"originals must have shape \(n, 64\)"),
    ):
        with pytest.raises(InputError, match=message):
            db.add(codes[:2], originals=originals)
    assert len(db) == 0
    with qvec.create(":memory:", DIM) as plain, pytest.raises(InputError, match="created with originals='int8'"):
        plain.add(X[:2], originals=exact[:2])


@pytest.mark.parametrize("code", ["int8", "binary", Prequantized("int8")])
def test_originals_that_are_integers_are_for_bits(path: Path, code: Any) -> None:
    with pytest.raises(InputError, match=r"originals='int8' is for embeddings that come in two forms"):
        qvec.create(path, DIM, code=code, originals="int8")
    assert not path.exists()


def test_damaged_bits_are_not_rebuilt_from_integers(path: Path) -> None:
    codes, exact = pair()
    with qvec.create(path, DIM, code=Prequantized("ubinary"), originals="int8") as db:
        db.add(codes[:N], originals=exact[:N])
    data = bytearray(path.read_bytes())
    bits = np.packbits(np.unpackbits(codes[N // 2]), bitorder="little").tobytes()
    at = data.index(bits)
    data[at] ^= 1
    path.write_bytes(data)
    with qvec.open(path) as db:
        assert db.verify()
        with pytest.raises(qvec.CorruptError, match="column 'codes' holds the originals"):
            db.repair()
