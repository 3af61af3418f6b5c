"""Bad input raises the right error, which names the bad value and the limit; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import Collection

DIM = 8
X = clustered(np.random.default_rng(1), 30, DIM)
GOOD = X[:2]
NAN, INF = float("nan"), float("inf")


def with_value(value: float, row: int = 1, column: int = 3) -> np.ndarray[Any, Any]:
    x = GOOD.astype(np.float64)
    x[row, column] = value
    return x


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def huge(rows: int) -> np.ndarray[Any, Any]:
    """An array of more rows than memory can hold, by strides of zero."""
    return np.broadcast_to(GOOD[0], (rows, DIM))


VECTORS: dict[str, tuple[Any, str]] = {
    "too few dimensions": (np.ones((2, DIM - 1)), r"\(n, 8\).*\(2, 7\)"),
    "too many dimensions": (np.ones((2, DIM + 1)), r"\(n, 8\).*\(2, 9\)"),
    "one short vector": (np.ones(DIM - 1), r"\(n, 8\).*\(7,\)"),
    "a number": (1.0, r"\(n, 8\).*\(\)"),
    "rows of no values": (np.ones((5, 0)), r"\(n, 8\).*\(5, 0\)"),
    "three dimensions": (np.ones((2, 2, DIM)), r"\(n, 8\).*\(2, 2, 8\)"),
    "three dimensions without a row": (np.ones((2, 0, DIM)), r"\(n, 8\).*\(2, 0, 8\)"),
    "a ragged list": ([[1.0] * DIM, [1.0] * (DIM - 1)], "ragged"),
    "none": (None, "texts: give one of them"),
    "a string": ("vector", "dtype <U6"),
    "strings": (np.full((2, DIM), "1"), "dtype <U1"),
    "bytes": (b"vector", "dtype"),
    "a dict": ({"x": 1}, "dtype object"),
    "objects": (np.full((2, DIM), 1.0, object), "dtype object"),
    "booleans": (np.ones((2, DIM), bool), "dtype bool"),
    "complex numbers": (np.ones((2, DIM), complex), "dtype complex128"),
    "dates": (np.zeros((2, DIM), "M8[s]"), "dtype datetime64"),
    "records": (np.zeros((2, DIM), [("x", "f4")]), "dtype"),
    "nan": (with_value(NAN), r"\[1, 3\] is nan.*1e\+18"),
    "infinity": (with_value(INF), r"\[1, 3\] is inf.*1e\+18"),
    "minus infinity": (with_value(-INF, 0, 0), r"\[0, 0\] is -inf.*1e\+18"),
    "above the largest value": (with_value(2.0**61), r"\[1, 3\] is 2.*1e\+18"),
    "above float32": (with_value(1e300), r"\[1, 3\] is inf.*1e\+18"),
    "nan in the last value": (with_value(NAN, 1, DIM - 1), r"\[1, 7\] is nan"),
    "the zero vector": (np.array([X[0], np.zeros(DIM)]), r"\[1\] is the zero vector.*cosine"),
    "the negative zero vector": (np.array([-np.zeros(DIM)]), r"\[0\] is the zero vector.*cosine"),
    "a vector that float32 rounds to zero": (np.full((1, DIM), 1e-300), r"\[0\] is the zero vector"),
}
QUERIES = {name: case for name, case in VECTORS.items() if name != "none"} | {
    "a string": ("vector", "open the collection with embed="),
    "an empty list": ([], r"\(n, 8\).*\(0,\)"),
    "one nan": (with_value(NAN)[1].astype(np.float32), r"\[0, 3\] is nan"),
    "one infinity": (with_value(INF)[1].astype(np.float32), r"\[0, 3\] is inf"),
    "one value too large": (with_value(3 * 2.0**60)[1].astype(np.float32), r"\[0, 3\] is 3.*1e\+18"),
    "one zero vector": (np.zeros(DIM, np.float32), r"\[0\] is the zero vector"),
}
INT_IDS: dict[str, tuple[Any, str]] = {
    "negative": ([7, -1], r"ids\[1\] is -1.*0 and 9223372036854775807"),
    "2^63": ([7, 2**63], r"ids\[1\] is 9223372036854775808.*0 and 9223372036854775807"),
    "2^64": ([2**64, 7], r"ids\[0\] is 18446744073709551616.*0 and 9223372036854775807"),
    "negative in an array": (np.array([7, -1]), r"ids\[1\] is -1"),
    "2^63 in an array": (np.array([7, 2**63], np.uint64), r"ids\[1\] is 9223372036854775808"),
    "strings": (["7", "8"], r"ids\[0\] is '7'.*integers"),
    "a string": ("78", r"ids\[0\] is '78'.*integers"),
    "bytes": ([b"7", b"8"], r"ids\[0\] is b'7'.*integers"),
    "booleans": ([True, False], r"ids\[0\] is True.*integers"),
    "booleans in an array": (np.array([True, False]), "integers.*bool"),
    "floats": ([7, 8.0], r"ids\[1\] is 8.0.*integers"),
    "floats in an array": (np.array([7.0, 8.0]), "integers.*float64"),
    "objects in an array": (np.array([7, "8"], object), r"ids\[1\] is '8'.*integers"),
    "nothing in the list": ([7, None], r"ids\[1\] is None.*integers"),
    "lists": ([[7], [8]], r"ids\[0\] is \[7\].*integers"),
    "a generator": ((i for i in (7, 8)), "list or an array.*generator"),
}
STR_IDS: dict[str, tuple[Any, str]] = {
    "integers": ([7, 8], r"ids\[0\] is 7.*strings"),
    "an integer": (7, "list or an array.*int"),
    "integers in an array": (np.array([7, 8]), r"ids\[0\] is 7.*strings"),
    "bytes": ([b"x", b"y"], r"ids\[0\] is b'x'.*strings"),
    "nothing in the list": (["x", None], r"ids\[1\] is None.*strings"),
    "the empty string": (["x", ""], r"ids\[1\] takes 0 bytes.*1 and 480"),
    "one byte too long": (["x", "y" * 481], r"ids\[1\] takes 481 bytes.*1 and 480"),
    "too long in utf-8": (["x", "ż" * 241], r"ids\[1\] takes 482 bytes.*1 and 480"),
    "10 megabytes": (["x", "y" * 10_000_000], r"ids\[1\] takes 10000000 bytes.*480"),
    "a lone surrogate": (["x", "\ud800"], r"ids\[1\].*surrogate"),
}
BATCH_IDS: dict[str, tuple[Any, str]] = {
    "too few": ([7], "1 ids for 2 vectors"),
    "too many": ([7, 8, 9], "3 ids for 2 vectors"),
    "one twice": ([7, 7], r"ids\[1\] repeats 7 of ids\[0\]"),
    "one that is stored": ([7, 1], r"ids\[1\] = 1 is stored"),
}
PAYLOADS: dict[str, tuple[Any, str]] = {
    "too few": ([{}], "1 payloads for 2 vectors"),
    "too many": ([{}, {}, {}], "3 payloads for 2 vectors"),
    "a string": ("ab", "list of dicts.*str"),
    "an integer": (7, "list of dicts.*int"),
    "a list within": ([{}, [1]], r"payload\[1\].*list"),
    "a string within": (["a", {}], r"payload\[0\].*str"),
    "one for two": ({"x": 1}, "one dict for 2 vectors: give a list"),
    "a set": ([{}, {"x": {1}}], r"payload\[1\].*'x'.*set.*: make it a list"),
    "an object": ([{"x": object()}, {}], r"payload\[0\].*'x'.*object"),
    "a class": ([{"x": [1, dict]}, {}], r"payload\[0\].*'x'.*type"),
    "an array": ([{}, {"x": np.ones(2)}], r"payload\[1\].*'x'.*ndarray.*: take its .tolist"),
    "a complex number of numpy": ([{}, {"x": np.complex64(1)}], r"payload\[1\].*'x'.*complex64.*: take its .item"),
    "a day": ([{}, {"x": date(2024, 5, 1)}], r"payload\[1\].*'x'.*date.*: make it a datetime"),
    "an integer beyond 64 bits": ([{}, {"x": 2**64}], r"payload\[1\].*'x'.*64"),
    "a key that is no string": ([{}, {7: 1}], r"payload\[1\].*7"),
    "a nested key that is no string": ([{}, {"x": [{b"y": 1}]}], r"payload\[1\].*'x'.*b'y'"),
    "a lone surrogate": ([{}, {"x": "\ud800"}], r"payload\[1\]"),
    "a lone surrogate as a key": ([{}, {"\ud800": 1}], r"payload\[1\]"),
    "too deep": ([{}, {"x": nested(100)}], r"payload\[1\].*64"),
    "far too deep": ([{}, {"x": nested(100_000)}], r"payload\[1\].*64"),
    "65 megabytes": ([{}, {"x": "y" * (65 << 20)}], r"payload\[1\].*67108864"),
}
SEARCHES: dict[str, tuple[dict[str, Any], str]] = {
    "k of zero": ({"k": 0}, "k must .*from 1 to"),
    "k below zero": ({"k": -3}, "k must .*from 1 to.*-3"),
    "k far too large": ({"k": 2**31}, "k must .*from 1 to.*2147483648"),
    "k beyond 64 bits": ({"k": 2**70}, "k must .*from 1 to"),
    "k of nothing": ({"k": None}, "k must be an integer.*None"),
    "k a float": ({"k": 3.0}, r"k must be an integer.*3\.0"),
    "k a boolean": ({"k": True}, "k must be an integer.*True"),
    "k a string": ({"k": "3"}, "k must be an integer.*'3'"),
    "ef of zero": ({"ef": 0}, "ef must .*from 1 to"),
    "ef a float": ({"ef": 64.0}, r"ef must be an integer.*64\.0"),
    "threads of zero": ({"threads": 0}, "threads must .*from 1 to 1024"),
    "too many threads": ({"threads": 10_000}, "threads must .*from 1 to 1024"),
    "oversample below one": ({"oversample": 0.5}, "oversample must .*between 1 and.*0.5"),
    "oversample not a number": ({"oversample": NAN}, "oversample must .*nan"),
    "oversample infinite": ({"oversample": INF}, "oversample must .*inf"),
    "oversample of nothing": ({"oversample": None}, "oversample must .*None"),
    "oversample a word": ({"oversample": "lots"}, "oversample must .*'lots'"),
    "oversample a flag": ({"oversample": True}, "oversample must .*True"),
    "oversample below zero": ({"oversample": -1}, "oversample must .*-1"),
    "mmr of three parts": ({"mmr": (0.5, 20, 1)}, "mmr must be a weight"),
}
CREATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "dim of zero": ({"dim": 0}, "dim .*1 .*65536.*0"),
    "dim below zero": ({"dim": -8}, "dim .*1 .*65536.*-8"),
    "dim too large": ({"dim": 65_537}, "dim .*1 .*65536.*65537"),
    "dim a float": ({"dim": 8.0}, r"dim .*8\.0"),
    "dim a string": ({"dim": "8"}, "dim .*'8'"),
    "dim a boolean": ({"dim": True}, "dim .*True"),
    "an unknown metric": ({"metric": "euclid"}, "metric='euclid' is called l2"),
    "a metric of nothing": ({"metric": None}, "metric .*None"),
    "an unknown code": ({"code": "int7"}, "int8.*'int7'"),
    "a code of the wrong type": ({"code": 8}, "int8.*8"),
    "an unknown index": ({"index": "tree"}, "index .*hnsw.*'tree'"),
    "an unknown kind of id": ({"ids": "uuid"}, "ids .*int64.*'uuid'"),
    "an unknown originals": ({"originals": "all"}, "originals .*f32.*'all'"),
    "an unknown durability": ({"durability": "none"}, "durability .*full.*'none'"),
    "a seed below zero": ({"seed": -1}, "seed .*-1"),
    "a seed too large": ({"seed": 2**64}, "seed .*18446744073709551616"),
    "a model tag that is no string": ({"model": 7}, "model .*7"),
    "a map size of zero": ({"map_size": 0}, "map_size .*0"),
    "a map size below zero": ({"map_size": -1}, "map_size .*-1"),
    "a map size that is no integer": ({"map_size": "1GB"}, "map_size .*'1GB'"),
    "a sample of another dimension": ({"sample": np.ones((300, 7))}, r"sample .*\(n, 8\)"),
    "a sample with nan": ({"sample": with_value(NAN)}, r"sample\[1, 3\] is nan"),
    "a sample too small to calibrate on": (
        {"code": qvec.Int8(scale="per_dim"), "sample": X},
        "30.*256|256.*30",
    ),
}


@pytest.fixture
def db(path: Path) -> Iterator[Collection]:
    with qvec.create(path, DIM) as db:
        db.add(X[:5], payloads=[{"row": i} for i in range(5)])
        yield db


@pytest.fixture
def named(tmp_path: Path) -> Iterator[Collection]:
    with qvec.create(tmp_path / "named.qvec", DIM, ids="str") as db:
        db.add(X[:5], [f"x{i}" for i in range(5)])
        yield db


def trace(db: Collection) -> tuple[Any, ...]:
    """State that a refused call must not change: the commit number, the length, every answer."""
    hits = db.search(X, 3)
    return db.stats(), len(db), hits.ids.tolist(), hits.distances.tolist(), hits.payloads


def assert_refused(
    db: Collection, call: Callable[[], object], error: type[Exception], builtin: type[Exception], message: str
) -> None:
    before = trace(db)
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, qvec.QvecError)
    assert isinstance(caught.value, builtin)
    assert trace(db) == before
    assert db.verify() == []


def cases(table: dict[str, tuple[Any, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("value", "message"), list(table.values()), ids=list(table))


@cases(VECTORS)
def test_vectors_that_are_refused(db: Collection, value: Any, message: str) -> None:
    assert_refused(db, lambda: db.add(value), qvec.InputError, ValueError, "vectors.*" + message)
    assert_refused(db, lambda: db.upsert(value, [1, 2]), qvec.InputError, ValueError, "vectors.*" + message)


@cases(QUERIES)
def test_queries_that_are_refused(db: Collection, value: Any, message: str) -> None:
    assert_refused(db, lambda: db.search(value), qvec.InputError, ValueError, "queries.*" + message)


def test_a_search_for_nothing_is_refused(db: Collection) -> None:
    assert_refused(db, lambda: db.search(None), qvec.InputError, ValueError, "give query, text or sparse")


@pytest.mark.parametrize("rows", [2**31 - 2**16 + 1, 2**31, 2**40])
def test_too_many_rows_are_refused_before_they_are_copied(db: Collection, rows: int) -> None:
    for call in (lambda: db.add(huge(rows)), lambda: db.search(huge(rows))):
        assert_refused(db, call, qvec.InputError, ValueError, f"{rows} rows.*{2**31 - 2**16}")


@cases(INT_IDS)
def test_integer_ids_that_are_refused(db: Collection, value: Any, message: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: db.add(GOOD, value),
        lambda: db.delete(value),
        lambda: db.get(value),
    ]
    for call in calls:
        assert_refused(db, call, qvec.InputError, ValueError, message)


@cases(STR_IDS)
def test_string_ids_that_are_refused(named: Collection, value: Any, message: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: named.add(GOOD, value),
        lambda: named.delete(value),
        lambda: named.get(value),
    ]
    for call in calls:
        assert_refused(named, call, qvec.InputError, ValueError, message)


@cases(BATCH_IDS)
def test_ids_that_do_not_fit_their_batch(db: Collection, value: Any, message: str) -> None:
    assert_refused(db, lambda: db.add(GOOD, value), qvec.InputError, ValueError, message)


def test_string_ids_cannot_be_numbered_automatically(named: Collection) -> None:
    assert_refused(named, lambda: named.add(GOOD), qvec.InputError, ValueError, "ids are required.*strings")


@pytest.mark.parametrize("value", [-1, 2**63, "0", None, 0.0, True, [0], b"0"])
def test_a_value_that_cannot_be_an_id_is_not_in_a_collection(db: Collection, value: object) -> None:
    before = trace(db)
    assert value not in db
    assert trace(db) == before


@cases(PAYLOADS)
def test_payloads_that_are_refused(db: Collection, value: Any, message: str) -> None:
    assert_refused(db, lambda: db.add(GOOD, [7, 8], value), qvec.InputError, ValueError, message)
    assert 7 not in db


def test_a_payload_of_ten_megabytes_is_stored_whole(db: Collection) -> None:
    value = {"text": "ż" * 5_000_000}
    db.add(GOOD[0], [7], [value])
    assert db.get([7]).payloads == [value]
    assert db.verify() == []


@cases(SEARCHES)
def test_search_options_that_are_refused(db: Collection, value: dict[str, Any], message: str) -> None:
    assert_refused(db, lambda: db.search(GOOD, **value), qvec.InputError, ValueError, message)
    assert_refused(db, lambda: db.search(GOOD[0], **value), qvec.InputError, ValueError, message)


@cases(SEARCHES)
def test_search_options_are_refused_by_an_empty_collection_too(path: Path, value: dict[str, Any], message: str) -> None:
    with qvec.create(path, DIM) as db, pytest.raises(qvec.InputError, match=message):
        db.search(GOOD, **value)


@pytest.mark.parametrize(("call", "message"), [
    (lambda db: db.add(GOOD, on_conflict="merge"), "on_conflict .*'merge'"),
    (lambda db: db.add(GOOD, on_conflict=None), "on_conflict .*None"),
    (lambda db: db.add(GOOD, threads=0), "threads .*1 to 1024.*0"),
    (lambda db: db.add(GOOD, threads=1.5), r"threads .*1\.5"),
    (lambda db: db.delete([0], missing="warn"), "missing .*'warn'"),
    (lambda db: list(db.scan(batch_size=0)), "batch_size .*0"),
    (lambda db: list(db.scan(batch_size="all")), "batch_size .*'all'"),
])  # fmt: skip
def test_other_options_that_are_refused(db: Collection, call: Callable[[Collection], object], message: str) -> None:
    assert_refused(db, lambda: call(db), qvec.InputError, ValueError, message)


@pytest.mark.parametrize("call", [lambda db: db.get([0, 99]), lambda db: db.delete([0, 99], missing="error")])
def test_ids_that_are_not_stored_are_named(db: Collection, call: Callable[[Collection], object]) -> None:
    assert_refused(db, lambda: call(db), qvec.MissingIdError, KeyError, "99")


@cases(CREATIONS)
def test_creations_that_are_refused_leave_no_file(path: Path, value: dict[str, Any], message: str) -> None:
    with pytest.raises(qvec.InputError, match=message) as caught:
        qvec.create(path, **({"dim": DIM} | value))
    assert isinstance(caught.value, ValueError)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(("options", "message"), [
    ({"m": 1}, "HNSW.m .*2 .*64.*1"),
    ({"m": 65}, "HNSW.m .*64.*65"),
    ({"m": 16.0}, r"HNSW.m .*16\.0"),
    ({"ef_construction": 5}, "HNSW.ef_construction .*16 .*4096.*5"),
])  # fmt: skip
def test_index_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        qvec.HNSW(**options)


def test_the_first_batch_of_a_code_that_is_trained_must_be_large_enough(path: Path) -> None:
    with qvec.create(path, DIM, code=qvec.Binary(center=True)) as db:
        before = db.stats()
        with pytest.raises(qvec.InputError, match=r"30.*100|100.*30"):
            db.add(X)
        assert db.stats() == before
        assert len(db) == 0


CALLS: dict[str, Callable[[Collection], object]] = {
    "add": lambda db: db.add(GOOD),
    "upsert": lambda db: db.upsert(GOOD, [0, 1]),
    "delete": lambda db: db.delete([0]),
    "get": lambda db: db.get([0]),
    "search": lambda db: db.search(GOOD),
    "search of one": lambda db: db.search(GOOD[0]),
    "scan": lambda db: list(db.scan()),
    "stats": lambda db: db.stats(),
    "verify": lambda db: db.verify(),
    "len": len,
    "in": lambda db: 0 in db,
    "with": lambda db: db.__enter__(),
}


@pytest.mark.parametrize("call", list(CALLS.values()), ids=list(CALLS))
def test_a_closed_handle_raises_closed_error(db: Collection, call: Callable[[Collection], object]) -> None:
    db.close()
    with pytest.raises(qvec.ClosedError, match="closed") as caught:
        call(db)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("call", [CALLS["add"], CALLS["upsert"], CALLS["delete"]])
def test_a_read_only_handle_writes_nothing(db: Collection, path: Path, call: Callable[[Collection], object]) -> None:
    with qvec.open(path, "r") as reader:
        assert_refused(db, lambda: call(reader), qvec.ReadOnlyError, PermissionError, "mode='r'|read-only")
