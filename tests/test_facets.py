"""Counts by value and the order of records by a field, against counts and sorting of the payloads in Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qvec
from helpers.drawn_tables import FAST
from qvec import Collection, InputError
from qvec._kernels import CHUNK_ROWS
from qvec.filters import field_values

START = datetime(2024, 1, 1, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "shop": "keyword",
    "year": "int",
    "price": "float",
    "sold": "bool",
    "at": "datetime",
    "tags": "keyword[]",
    "sizes": "int[]",
    "text": "text",
}
LONG = ["x" * 300 + str(i) for i in range(3)]


def payload(i: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "shop": ["b", "a", "", LONG[i % 3]][i % 4],
        "year": [2**62, -5, 0, 1999][i % 4],
        "price": [1.5, -0.25, 0.0, 1e300][i % 4],
        "sold": i % 5 == 0,
        "at": START + timedelta(hours=i % 6),
        "tags": [f"t{j}" for j in range(i % 4)] + [LONG[0]] * (i % 2),
        "sizes": [i % 3, -7],
        "text": "some words",
    }
    return {key: value for j, (key, value) in enumerate(made.items()) if (i + j) % 7}


@pytest.fixture
def db(path: Path) -> Iterator[Collection]:
    with qvec.create(path, 2, code="f32", fields=FIELDS) as made:
        made.add(np.ones((200, 2)), payloads=[payload(i) for i in range(200)])
        made.delete(range(0, 200, 9))
        made.upsert([[1, 2]], [4], [payload(5)])
        yield made


def counted(db: Collection, field: str, keep: Any = lambda _: True) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for records in db.scan():
        for held in records.payloads:
            value = (held or {}).get(field)
            if value is not None and keep(held):
                found.update(set(value) if isinstance(value, list) else [value])
    return found


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "text"])
def test_facets_are_the_counts_of_the_values(db: Collection, field: str) -> None:
    found = db.facets(field)
    assert found == dict(counted(db, field))
    assert {type(value) for value in found} == {type(value) for value in counted(db, field)}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert list(db.facets(field, limit=2).items()) == list(found.items())[:2]
    expected = counted(db, field, lambda held: held.get("year") == 1999)
    assert db.facets(field, where={"year": 1999}) == dict(expected)
    assert db.facets(field, where={"year": 7}) == {}


def test_facets_of_a_transaction_include_its_changes(db: Collection) -> None:
    with db.transaction():
        before = db.facets("shop").get("a", 0)
        db.add([[1, 2]], payloads=[{"shop": "a"}])
        assert db.facets("shop")["a"] == before + 1


def test_an_empty_collection_has_no_facets(path: Path) -> None:
    with qvec.create(path, 2, fields=FIELDS) as db:
        assert all(db.facets(name) == {} for name in FIELDS if name != "text")
        assert len(db.get(where={}, order_by="year")) == 0


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("field", ["year", "price", "sold", "at", "name"])
def test_records_are_in_the_order_of_a_field(path: Path, field: str, direction: Any) -> None:
    with qvec.create(path, 2, code="f32", fields={**FIELDS, "name": "keyword"}) as db:
        names = ["", "b", "ab", "\u00e9", "a", "abc"]
        held = [payload(i) | ({"name": names[i % 6]} if i % 5 else {}) for i in range(90)]
        db.add(np.ones((90, 2)), payloads=held)
        db.delete([3, 14])
        live = [i for i in range(90) if i not in (3, 14)]
        valued = [i for i in live if held[i].get(field) is not None]
        key = (lambda i: held[i][field].encode()) if field == "name" else (lambda i: held[i][field])
        expected = sorted(valued, key=key, reverse=direction == "desc")
        expected += [i for i in live if held[i].get(field) is None]
        assert db.get(where={}, order_by=(field, direction)).ids.tolist() == expected
        part = db.get(where={}, order_by=(field, direction), offset=3, limit=5)
        assert part.ids.tolist() == expected[3:8]
        if direction == "asc":
            assert db.get(where={}, order_by=field).ids.tolist() == expected


def test_wrong_fields_and_directions_are_refused(db: Collection) -> None:
    for wrong, message in {
        "nope": "facets names a declared field, got 'nope'; declared are: shop",
        "text": "'text' is a text field",
        7: "facets names a declared field, got 7",
    }.items():
        with pytest.raises(InputError, match=message):
            db.facets(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="limit must be"):
        db.facets("shop", limit=0)
    for order, message in {
        "nope": "order_by names a declared field, got 'nope'",
        "tags": "'tags' is a list of values",
        "shop": "longer than 200 bytes",
        ("year", "down"): "order_by is a field, or a field with 'asc' or 'desc'",
    }.items():
        with pytest.raises(InputError, match=message):
            db.get(where={}, order_by=order)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="order_by need where"):
        db.get([1], order_by="year")


VALUES = st.none() | st.sampled_from(["a", "b", "c" * 250, "d" * 250, ""])


@FAST
@given(
    rows=st.lists(st.tuples(VALUES, st.lists(st.integers(-2, 2), max_size=3)), min_size=1, max_size=12), data=st.data()
)
def test_facets_are_counts_after_any_changes(tmp_path: Path, rows: Any, data: st.DataObject) -> None:
    path = tmp_path / "h.qvec"
    path.unlink(missing_ok=True)
    model = {i: {"k": k, "n": n} for i, (k, n) in enumerate(rows)}
    with qvec.create(path, 2, code="f32", durability="relaxed", fields={"k": "keyword", "n": "int[]"}) as db:
        db.add(np.ones((len(rows), 2)), payloads=list(model.values()))
        for id in data.draw(st.lists(st.sampled_from(sorted(model)), unique=True)):
            db.delete([id])
            del model[id]
        for id in data.draw(st.lists(st.sampled_from(sorted(model)), unique=True)) if model else ():
            model[id] = {"k": data.draw(VALUES), "n": [7]}
            db.update_payloads([id], [model[id]], merge=False)
        for where, keep in ((None, lambda p: True), ({"n": 7}, lambda p: 7 in p["n"])):
            kept = [held for held in model.values() if keep(held)]
            assert db.facets("k", where=where) == Counter(held["k"] for held in kept if held["k"] is not None)
            assert db.facets("n", where=where) == Counter(n for held in kept for n in set(held["n"]))


def test_facets_after_a_commit_read_only_the_bitmaps_of_changed_chunks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    fill = field_values.roaring_fill

    def counted(data: Any, chunk: int, number: int, values: Any) -> bool:
        read.append(chunk)
        return fill(data, chunk, number, values)

    monkeypatch.setattr(field_values, "roaring_fill", counted)
    rng = np.random.default_rng(8)
    n = 3 * CHUNK_ROWS + 500
    held: dict[int, dict[str, Any]] = {
        int(i): {"name": f"v{i % 13}", "year": int(i) % 3} for i in rng.choice(n, 900, replace=False)
    }

    def expected(field: str) -> dict[Any, int]:
        return dict(Counter(one[field] for one in held.values() if field in one))

    fields: dict[str, Any] = {"name": "keyword", "year": "int"}
    options: dict[str, Any] = {"code": "f32", "index": "flat", "metric": "l2", "durability": "relaxed"}
    with qvec.create(path, 1, fields=fields, **options) as db, qvec.open(path, "r") as reader:
        db.add(np.ones((n, 1), np.float32), payloads=[held.get(i) for i in range(n)])
        chunks_read: list[int] = []
        for turn in range(25):
            read.clear()
            assert reader.facets("name") == expected("name")
            chunks_read.append(len(set(read)))
            assert db.facets("year") == reader.facets("year") == expected("year")
            some = sorted(held)[rng.integers(len(held) - 3) :][:3]
            match turn % 5:
                case 0:
                    held |= {some[0]: {"name": f"v{turn}"}, n: {"name": "v1"}}
                    db.update_payloads([some[0]], held[some[0]], merge=False)
                    db.add([[1.0]], payloads=[held[n]])
                    n += 1
                case 1:
                    db.delete(some[:1])
                    del held[some[0]]
                case 2:
                    db.add([[2.0]])
                    n += 1
                case 3:
                    with db.transaction():
                        db.update_payloads(some[:1], {"name": "new"})
                        held[some[0]]["name"] = "new"
                        assert db.facets("name") == expected("name")
                case 4:
                    db.update_payloads(some[:1], None, merge=False)
                    held[some[0]] = {}
            order = db.get(where={"name": {"$exists": True}}, order_by="name").payloads
            names = [one["name"] for one in order if one]
            assert names == sorted(names)
        assert chunks_read[0] == 4
        assert max(chunks_read[turn] for turn in range(1, 25) if turn % 5 != 1) == 1  # turn 0 changes two chunks
        assert [chunks_read[turn] for turn in range(3, 25, 5)] == [0] * 5  # turn 2 adds a row without values
        with db.snapshot() as before:
            known = expected("name")
            db.update_payloads([min(held)], {"name": "last"})
            assert (before.facets("name"), db.facets("name")["last"], before.facets("name")) == (known, 1, known)
        db.compact()
        db.update_payloads([min(held)], {"name": "later"})
        assert "last" not in db.facets("name")
        db.repair()
        assert db.facets("name")["later"] == 1
        assert db.verify() == []
