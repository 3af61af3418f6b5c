"""Prequantized embeddings are stored, searched and returned as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.prequantized import expected_distances, quantized
from helpers.recall import recall
from qvec.codes.configs import Prequantized
from qvec.codes.registry import from_state, train
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Metric, PrequantizedType

FORMS: list[PrequantizedType] = ["int8", "uint8", "binary", "ubinary"]
DIM = 72


@pytest.fixture
def embeddings() -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(4)
    return (rng.normal(size=(300, DIM)) + rng.normal(size=DIM)).astype(np.float32)


@pytest.mark.parametrize("index", ["flat", "hnsw"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("form", FORMS)
def test_a_search_returns_the_exact_distances_of_the_integers(
    tmp_path: Path, embeddings: Any, form: PrequantizedType, metric: Metric, index: str
) -> None:
    codes = quantized(embeddings, form)
    exact = np.sort(expected_distances(codes[:280], codes[280:], form, metric), axis=1)[:, :10]
    path = tmp_path / "a.qvec"
    with qvec.create(path, DIM, metric=metric, code=Prequantized(form), index=index) as db:
        db.add(codes[:280])
        assert db.stats().originals == "none"
        assert db.verify() == []
    with qvec.open(path, "r") as db:
        found = db.search(codes[280:], 10, ef=280).distances
        one = db.search(codes[280], 10, ef=280).distances
    assert np.allclose(found, exact, rtol=2e-6, atol=2e-6)
    assert np.array_equal(one, found[0])


@pytest.mark.parametrize("form", FORMS)
def test_stored_codes_are_returned_with_their_dtype(tmp_path: Path, embeddings: Any, form: PrequantizedType) -> None:
    codes = quantized(embeddings, form)
    with qvec.create(tmp_path / "a.qvec", DIM, code=Prequantized(form)) as db:
        assert db.get([]).vectors.dtype == codes.dtype
        assert db.get([]).vectors.shape == (0, codes.shape[1])
        db.add(codes[:200])
        db.add(codes[200:].tolist())  # as JSON gives them
        given = db.get([299, 0, 7]).vectors
        scanned = np.concatenate([batch.vectors for batch in db.scan(64)])
    assert given.dtype == scanned.dtype == codes.dtype
    assert np.array_equal(given, codes[[299, 0, 7]])
    assert np.array_equal(scanned, codes)


def test_int8_and_uint8_forms_of_an_embedding_have_the_same_distances(tmp_path: Path, embeddings: Any) -> None:
    found = []
    for form in FORMS[:2]:
        codes = quantized(embeddings, form)
        with qvec.create(tmp_path / f"{form}.qvec", DIM, metric="ip", code=Prequantized(form)) as db:
            db.add(codes)
            found.append(db.search(codes[:9], 5))
    assert np.array_equal(found[0].distances, found[1].distances)
    assert np.array_equal(found[0].ids, found[1].ids)


def test_float_queries_count_by_their_signs_against_bits(tmp_path: Path, embeddings: Any) -> None:
    codes = quantized(embeddings, "ubinary")
    with qvec.create(tmp_path / "a.qvec", DIM, code=Prequantized("ubinary")) as db:
        db.add(codes)
        by_bits, by_floats = db.search(codes[:5], 7), db.search(embeddings[:5], 7)
    assert np.array_equal(by_bits.ids, by_floats.ids)
    assert np.array_equal(by_bits.distances, by_floats.distances)


def test_float_queries_rank_integers_nearly_as_their_exact_products(tmp_path: Path, embeddings: Any) -> None:
    codes, queries = quantized(embeddings, "int8"), embeddings[:50]
    true = np.argsort(-(queries @ codes.astype(np.float32).T), axis=1)[:, :10]
    with qvec.create(tmp_path / "a.qvec", DIM, metric="ip", code=Prequantized("int8")) as db:
        db.add(codes)
        found = db.search(queries, 10).ids
    assert recall(found, true) > 0.95


@pytest.mark.parametrize(
    ("form", "value", "message"),
    [
        ("int8", np.zeros((2, DIM), np.float32), "vectors must hold integers.*int8 codes, got dtype float32"),
        ("int8", np.full((2, DIM), 128), r"vectors\[0, 0\] is 128: int8 codes lie in -128..127"),
        ("uint8", np.full((2, DIM), -1, np.int8), r"vectors\[0, 0\] is -1: uint8 codes lie in 0..255"),
        ("int8", np.zeros((2, DIM - 1), np.int8), r"shape \(n, 72\) or \(72,\), got \(2, 71\)"),
        ("ubinary", np.zeros((2, DIM), np.uint8), r"shape \(n, 9\) or \(9,\), got \(2, 72\)"),
        ("int8", np.zeros((2, DIM), np.int8), r"vectors\[0\] is the zero vector"),
        ("uint8", np.full((2, DIM), 128, np.uint8), r"vectors\[0\] is the zero vector"),
        ("int8", np.ones((2, DIM), bool), "got dtype bool"),
    ],
)
def test_other_vectors_are_refused_before_anything_is_written(
    tmp_path: Path, form: PrequantizedType, value: Any, message: str
) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, code=Prequantized(form)) as db:
        with pytest.raises(InputError, match=message):
            db.add(value)
        assert len(db) == 0


def test_queries_of_another_width_are_refused(tmp_path: Path, embeddings: Any) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, code=Prequantized("ubinary")) as db:
        db.add(quantized(embeddings, "ubinary"))
        with pytest.raises(InputError, match=r"queries must have shape \(n, 9\)"):
            db.search(np.zeros(DIM, np.uint8))
        with pytest.raises(InputError, match=r"queries must have shape \(n, 72\)"):
            db.search(np.zeros(9, np.float32))


def test_bits_need_whole_bytes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of 8 for ubinary embeddings, got 71"):
        qvec.create(tmp_path / "a.qvec", 71, code=Prequantized("ubinary"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"Prequantized\.dtype must be one of int8, uint8, binary, ubinary"):
        Prequantized("float32")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_a_state_gives_the_same_codes(embeddings: Any, form: PrequantizedType) -> None:
    codes = quantized(embeddings, form)
    made = train(codes, "l2", Prequantized(form))
    again = from_state(made.state())
    assert np.array_equal(again.encode(codes), made.encode(codes))
    assert np.array_equal(again.decode(again.encode(codes)), codes)
    assert np.array_equal(again.prepare(codes), made.prepare(codes))
    for field, bad in (("form", "float32"), ("dim", -1), ("transform", {}), ("metric", 3)):
        with pytest.raises(FormatError, match=field if field != "transform" else "transform"):
            from_state(made.state() | {field: bad})
    with pytest.raises(InputError, match="must be a"):
        made.encode(embeddings)
