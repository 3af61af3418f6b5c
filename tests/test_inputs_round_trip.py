"""Tables and JSON as payloads: equal in value and type when they are read, or refused by row before any write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import qvec
from helpers.drawn_tables import FAST, JSON, NIGHTLY, REFUSED, same, tables


def check_stored(folder: Path, payloads: Any, expected: list[dict[str, Any]], refused: bool) -> None:
    path = folder / "t.qvec"
    path.unlink(missing_ok=True)
    with qvec.create(path, 2, code="f32", durability="relaxed") as db:
        x = np.ones((len(expected), 2))
        if refused:
            with pytest.raises(qvec.InputError, match=r"payload\[\d+\]|column"):
                db.add(x, payloads=payloads)
            assert len(db) == 0
            return
        db.add(x, payloads=payloads)
        stored = db.get(range(len(expected))).payloads
        assert same(stored, expected), (stored, expected)


FORMS = ("pandas", "objects", "polars", "arrow", "records")


def as_table(form: str, columns: dict[str, list[Any]], kinds: dict[str, str]) -> Any:
    if form == "polars":
        pl = pytest.importorskip("polars")
        return pl.DataFrame(
            {name: pl.Series(values, dtype=polars_type(pl, kinds[name])) for name, values in columns.items()}
        )
    if form == "arrow":
        pa = pytest.importorskip("pyarrow")
        arrays = [pa.array(values, arrow_type(pa, kinds[name])) for name, values in columns.items()]
        return pa.table(arrays, names=list(columns))
    pd = pytest.importorskip("pandas")
    if form == "objects":
        return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    dtypes = {"int": "Int64", "bool": "boolean", "str": "string", "datetime": "datetime64[us, UTC]"}
    return pd.DataFrame(
        {name: pd.Series(values, dtype=dtypes.get(kinds[name], object)) for name, values in columns.items()}
    )


def arrow_type(pa: Any, kind: str) -> Any:
    return {
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "str": pa.string(),
        "datetime": pa.timestamp("us", "UTC"),
        "bytes": pa.binary(),
        "list": pa.list_(pa.int64()),
        "texts": pa.list_(pa.string()),
        "date": pa.date32(),
        "delta": pa.duration("us"),
    }[kind]


def polars_type(pl: Any, kind: str) -> Any:
    return {
        "int": pl.Int64,
        "float": pl.Float64,
        "bool": pl.Boolean,
        "str": pl.String,
        "datetime": pl.Datetime("us", "UTC"),
        "bytes": pl.Binary,
        "list": pl.List(pl.Int64),
        "texts": pl.List(pl.String),
        "date": pl.Date,
        "delta": pl.Duration("us"),
    }[kind]


def round_trip(folder: Path, form: str, table: tuple[dict[str, list[Any]], dict[str, str]]) -> None:
    columns, kinds = table
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if form in ("pandas", "objects"):  # in a data frame, NaN is a missing value
        rows = [{name: None if type(v) is float and math.isnan(v) else v for name, v in row.items()} for row in rows]
    refused = any(kinds[name] in REFUSED and any(v is not None for v in columns[name]) for name in columns)
    check_stored(folder, rows if form == "records" else as_table(form, columns, kinds), rows, refused)


def json_round_trip(folder: Path, payload: dict[str, Any]) -> None:
    parsed = json.loads(json.dumps(payload))
    check_stored(folder, [parsed], [parsed], False)


@pytest.mark.parametrize("form", FORMS)
@FAST
@given(table=tables())
@pytest.mark.slow
def test_tables_are_stored_as_they_are_or_refused(tmp_path: Path, form: str, table: Any) -> None:
    round_trip(tmp_path, form, table)


@FAST
@given(payload=JSON)
def test_json_is_stored_as_it_is(tmp_path: Path, payload: dict[str, Any]) -> None:
    json_round_trip(tmp_path, payload)


@pytest.mark.nightly
@pytest.mark.parametrize("form", FORMS)
@NIGHTLY
@given(table=tables())
def test_2000_tables_are_stored_as_they_are_or_refused(tmp_path: Path, form: str, table: Any) -> None:
    round_trip(tmp_path, form, table)


@pytest.mark.nightly
@NIGHTLY
@given(payload=JSON)
def test_2000_json_objects_are_stored_as_they_are(tmp_path: Path, payload: dict[str, Any]) -> None:
    json_round_trip(tmp_path, payload)
