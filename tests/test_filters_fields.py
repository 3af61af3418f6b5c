"""Declared fields, and stored records by a filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.filter_model import FIELDS
from helpers.vectors import clustered

DIM = 4
X = clustered(np.random.default_rng(3), 40, DIM)


def ids_where(db: qvec.Collection, where: dict[str, Any]) -> list[int]:
    found: list[int] = db.get(where=where).ids.tolist()
    return found


@pytest.fixture
def db(path: Path) -> Any:
    with qvec.create(path, DIM, metric="l2", fields=FIELDS) as collection:
        yield collection


def test_a_field_is_declared_indexed_and_dropped_while_rows_are_there(path: Path) -> None:
    with qvec.create(path, DIM, metric="l2") as db:
        db.add(X[:3], payloads=[{"year": 1}, {"year": "x"}, {"other": 5}])
        with pytest.raises(qvec.InputError, match=r"the payload of id 1.*'x'"):
            db.add_field("year", "int")
        assert db.fields == {}
        db.update_payloads([1], {"year": 2})
        calls: list[Any] = []
        db.add_field("year", "int", progress=lambda *step: calls.append(step))
        assert calls[-1] == (3, 3)
        assert ids_where(db, {"year": {"$gte": 1}}) == [0, 1]
        with pytest.raises(qvec.InputError, match="declared already, as int"):
            db.add_field("year", "float")
        db.drop_field("year")
        with pytest.raises(qvec.InputError, match="not a declared field"):
            db.count({"year": 1})
        with pytest.raises(qvec.InputError, match="there is no field 'year'"):
            db.drop_field("year")
        db.add_field("year", "float")
        assert ids_where(db, {"year": {"$lt": 1.5}}) == [0]
        assert db.verify() == []


@pytest.mark.parametrize(("fields", "message"), [
    ({"a": "words"}, "field 'a': the type must be one of keyword"),
    ({"a": int}, "the type must be one of"),
    ({"": "int"}, "non-empty"),
    ({"$a": "int"}, "does not begin with"),
    ({5: "int"}, "a field name must be a non-empty string"),
    ({"a" * 256: "int"}, "longer than 255 bytes"),
    (["a"], "fields must map names to types"),
    ({f"f{i}": "int" for i in range(257)}, "257 fields; the limit is 256"),
])  # fmt: skip
def test_fields_that_cannot_be_are_refused_before_there_is_a_file(path: Path, fields: Any, message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        qvec.create(path, DIM, fields=fields)
    assert not path.exists()


def test_exist_ok_wants_the_same_fields(path: Path) -> None:
    qvec.create(path, DIM, fields={"a": "int"}).close()
    qvec.create(path, DIM, exist_ok=True).close()
    qvec.create(path, DIM, exist_ok=True, fields={"a": "int"}).close()
    with pytest.raises(qvec.InputError, match="created with other fields"):
        qvec.create(path, DIM, exist_ok=True, fields={"a": "float"})


def test_get_by_where_pages_through_and_wants_one_of_the_two(db: qvec.Collection) -> None:
    db.add(X[:10], payloads=[{"year": i // 5} for i in range(10)])
    assert db.get(where={"year": 1}, limit=2, offset=1).ids.tolist() == [6, 7]
    assert db.get(where={"year": 1}, limit=0).vectors.shape == (0, DIM)
    assert [batch.ids.tolist() for batch in db.scan(3, where={"year": 0})] == [[0, 1, 2], [3, 4]]
    for bad in ({}, {"ids": [1], "where": {"year": 1}}, {"ids": [1], "limit": 3}):
        with pytest.raises(qvec.InputError, match=r"either ids or where|need where"):
            db.get(**bad)  # type: ignore[arg-type]


def test_ids_that_are_not_stored_are_named_or_left_out(db: qvec.Collection) -> None:
    db.add(X[:4], payloads=[{"year": i} for i in range(4)])
    for ids in ([3, 9, 1], np.array([3, 9, 1])):
        assert db.get(ids, missing="ignore").payloads == [{"year": 3}, {"year": 1}]
        with pytest.raises(qvec.MissingIdError, match="9"):
            db.get(ids)
    assert db.get([8, 9], missing="ignore").vectors.shape == (0, DIM)
    with pytest.raises(qvec.InputError, match="missing must be one of ignore, error"):
        db.get([1], missing="skip")  # type: ignore[arg-type]
