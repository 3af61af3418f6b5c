"""Payloads are exported to files and imported again: equal in value and type, or refused."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import qvec
from helpers.drawn_tables import FAST, JSON, NIGHTLY, REFUSED, same, tables
from qvec import interchange

SUFFIXES = (".parquet", ".arrow", ".npy")
OWN_COLUMNS = ("id", "vector", "payload")


def file_round_trip(folder: Path, suffix: str, payloads: list[Any]) -> None:
    """``payloads``: without None as a payload, which files do not tell from one without keys."""
    for old in folder.iterdir():
        old.unlink()
    x = np.arange(1, 1 + 2 * len(payloads), dtype=np.float32).reshape(-1, 2)
    with qvec.create(folder / "a.qvec", 2, code="f32", durability="relaxed") as db:
        db.add(x, payloads=payloads)
        stored = db.get(range(len(payloads))).payloads
        if any(has(value, bytes) for row in stored for value in (row if suffix == ".npy" else in_json(row)).values()):
            with pytest.raises(qvec.InputError, match=r"the payload of \d+ has bytes under '"):
                interchange.export(db, folder / f"f{suffix}")
            assert [file.name for file in folder.iterdir() if file.name.startswith("f")] == []
            return
        interchange.export(db, folder / f"f{suffix}")
    payload_file = folder / "f.payload.jsonl"
    options = {"ids": folder / "f.ids.npy", "payloads": payload_file} if suffix == ".npy" else {}
    source = interchange.open_source(folder / f"f{suffix}", **options)
    with interchange.create_for(source, folder / "b.qvec", code="f32", durability="relaxed") as db:
        interchange.add_from(db, source)
        found = db.get(range(len(payloads)))
    np.testing.assert_array_equal(found.vectors, x)
    expected = as_json(stored) if suffix == ".npy" else stored
    assert all(map(same_items, found.payloads, expected)), (found.payloads, expected)


def same_items(a: Any, b: Any) -> bool:
    """Whether payloads are equal in value and type; files do not keep the order of keys."""
    return same({key: a[key] for key in sorted(a)}, {key: b[key] for key in sorted(b)})


def has(value: Any, kind: type) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, kind) or any(has(item, kind) for item in inner)


def in_json(payload: dict[str, Any]) -> dict[str, Any]:
    """The values that Parquet and Arrow files have as JSON, because another column has the name of the key."""
    return {key: value for key, value in payload.items() if key in OWN_COLUMNS}


def as_json(value: Any) -> Any:
    """JSON has datetimes as ISO 8601 text."""
    return json.loads(json.dumps(value, default=datetime.isoformat))


def rows_of(table: tuple[dict[str, list[Any]], dict[str, str]]) -> list[dict[str, Any]]:
    columns = {name: values for name, values in table[0].items() if table[1][name] not in REFUSED}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] or [{"a": 1}]


def nulls_apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every second null as a key that a row does not have."""
    return [
        {key: value for j, (key, value) in enumerate(row.items()) if value is not None or (i + j) % 2}
        for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@FAST
@given(table=tables())
@pytest.mark.slow
def test_tables_are_exported_and_imported_as_they_are(tmp_path: Path, suffix: str, table: Any) -> None:
    file_round_trip(tmp_path, suffix, nulls_apart(rows_of(table)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@FAST
@given(payload=JSON)
def test_json_is_exported_and_imported_as_it_is(tmp_path: Path, suffix: str, payload: dict[str, Any]) -> None:
    file_round_trip(tmp_path, suffix, [payload, {**payload, "other": 1}, {}])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("key", OWN_COLUMNS)
def test_bytes_under_the_name_of_another_column_are_refused(tmp_path: Path, suffix: str, key: str) -> None:
    file_round_trip(tmp_path, suffix, [{"a": 1}, {key: b"x"}])
    with (
        qvec.open(tmp_path / "a.qvec") as db,
        pytest.raises(qvec.InputError, match=f"of 1 has .* under '{key}'"),
    ):
        interchange.export(db, tmp_path / f"g{suffix}")


@pytest.mark.nightly
@pytest.mark.parametrize("suffix", SUFFIXES)
@NIGHTLY
@given(table=tables())
def test_2000_tables_are_exported_and_imported_as_they_are(tmp_path: Path, suffix: str, table: Any) -> None:
    file_round_trip(tmp_path, suffix, nulls_apart(rows_of(table)))


@pytest.mark.nightly
@pytest.mark.parametrize("suffix", SUFFIXES)
@NIGHTLY
@given(payload=JSON)
def test_2000_json_objects_are_exported_and_imported_as_they_are(
    tmp_path: Path, suffix: str, payload: dict[str, Any]
) -> None:
    file_round_trip(tmp_path, suffix, [payload, {**payload, "other": 1}, {}])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("originals", ["f16", "u8"])
def test_text_and_sparse_fields_are_exported_and_imported(tmp_path: Path, suffix: str, originals: Any) -> None:
    fields: Any = {"body": "text", "lexical": qvec.Sparse(originals=originals)}
    rows: list[Any] = [{1: 1.0, 5: 0.25, 2**32 - 1: 3.7}, None, {5: 2.0}, {}, {9: 0.1}]
    with qvec.create(tmp_path / "a.qvec", 2, code="f32", fields=fields) as db:
        db.add(np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0]], payloads=[{"body": "a b"}] * 5, sparse={"lexical": rows})
        interchange.export(db, tmp_path / f"f{suffix}")
        stored, found = db.get(range(5)).payloads, db.search(sparse={5: 1.0, 9: 0.5}, k=5)
        assert len(db.get(range(5)).to_arrow()) == 5
    options = {"ids": tmp_path / "f.ids.npy", "payloads": tmp_path / "f.payload.jsonl"} if suffix == ".npy" else {}
    source = interchange.open_source(tmp_path / f"f{suffix}", **options)
    declared: Any = {"fields": fields} if suffix == ".npy" else {}
    with interchange.create_for(source, tmp_path / "b.qvec", code="f32", **declared) as db:
        interchange.add_from(db, source)
        assert db.declarations == fields | {"body": qvec.Text()}
        assert [*db.get(range(5)).payloads] == [*stored]
        again = db.search(sparse={5: 1.0, 9: 0.5}, k=5)
        assert again.ids.tolist() == found.ids.tolist()
        np.testing.assert_array_equal(again.scores, found.scores)
        assert db.count({"body": {"$match": "a"}}) == 5
        assert db.verify() == []
