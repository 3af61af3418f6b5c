"""Accepted ids, payloads and tables of many libraries (docs/inputs.md)."""

from __future__ import annotations

import enum
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import qvec
from qvec import Collection, InputError

DIM = 4
X = np.arange(1, 13, dtype=np.float32).reshape(3, DIM)


@pytest.fixture
def db(path: Path) -> Iterator[Collection]:
    with qvec.create(path, DIM, metric="l2", code="f32") as made:
        yield made


@pytest.fixture
def named(path: Path) -> Iterator[Collection]:
    with qvec.create(path, DIM, metric="l2", code="f32", ids="str") as made:
        yield made


# --- ids ---


class Color(str, enum.Enum):  # noqa: UP042 - str() of a StrEnum is its value, of this its name
    RED = "red"
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1


def test_ids_of_enumerations_are_their_values(named: Collection) -> None:
    named.add(X[:2], ids=[Color.RED, Color.BLUE])
    assert named.get(["red", "blue"]).ids.tolist() == ["red", "blue"]
    assert named.get(Color.RED).ids.tolist() == ["red"]


def test_names_of_enumerations_are_fields_and_keys(path: Path) -> None:
    with qvec.create(path, DIM, fields={Color.RED: "int"}) as db:
        db.add(X[:2], payloads=[{Color.RED: 1}, {"red": 2}])
        assert dict(db.fields) == {"red": "int"}
        assert db.count({"red": 1}) == 1
        assert db.get(0).payloads == [{"red": 1}]


def test_uuids_are_stored_as_text(named: Collection) -> None:
    ids = [uuid.UUID(int=i) for i in range(3)]
    named.add(X, ids=ids)
    assert named.get(ids[1]).ids.tolist() == [str(ids[1])]
    assert ids[2] in named
    assert named.delete([ids[0]]) == 1
    assert named.search_by_id(ids[1], 1).ids.tolist() == [str(ids[2])]


def test_ids_may_be_columns(db: Collection) -> None:
    pd, pa, pl = (pytest.importorskip(name) for name in ("pandas", "pyarrow", "polars"))
    columns = [pd.Series([1, 2, 3]), pd.Series([4, 5, 6], dtype="Int64"), pa.array([7, 8, 9]), pl.Series([10, 11, 12])]
    for i, ids in enumerate(columns):
        assert db.add(X, ids=ids).ids.tolist() == [3 * i + 1, 3 * i + 2, 3 * i + 3]
    assert db.get(pa.scalar(9)).ids.tolist() == [9]
    assert all(one in db for one in (pa.scalar(9), np.array(9), np.int8(9), pd.Series([9])[0]))
    assert not any(none in db for none in (np.array([9]), np.array(99), pa.scalar("a"), None))
    for ids in (pd.Series([20, None, 21], dtype="Int64"), pa.array([20, None, 21])):
        with pytest.raises(InputError, match=r"ids\[1\] is null"):
            db.add(X, ids=ids)


# --- payloads ---

MOMENT = datetime(2024, 5, 1, 12, 30, 0, 123456, tzinfo=UTC)


def test_numpy_values_and_mappings_are_stored_as_plain_data(db: Collection) -> None:
    pd = pytest.importorskip("pandas")
    payload = MappingProxyType(
        {
            "int": np.int64(2**60 + 1),
            "float": np.float32(0.1),
            "flag": np.bool_(True),
            "text": np.str_("a"),
            "nested": OrderedDict(x=[np.int8(3), {"y": np.float64(0.5)}]),
            "moment": pd.Timestamp(MOMENT),
            "date": np.datetime64("2024-05-01T12:30:00.123456"),
            "nothing": pd.NaT,
            "color": Color.RED,
            "number": Number.ONE,
        }
    )
    db.add(X[0], payloads=payload)
    stored = db.get(0).payloads[0]
    assert stored == {
        "int": 2**60 + 1,
        "float": float(np.float32(0.1)),
        "flag": True,
        "text": "a",
        "nested": {"x": [3, {"y": 0.5}]},
        "moment": MOMENT,
        "date": MOMENT,
        "nothing": None,
        "color": "red",
        "number": 1,
    }
    assert type(stored["color"]) is str
    assert type(stored["number"]) is int
    assert type(stored["int"]) is int
    assert type(stored["flag"]) is bool
    db.update_payloads([0], MappingProxyType({"int": np.int32(7)}))
    assert db.get(0).payloads[0]["int"] == 7


def test_nanoseconds_are_refused_not_dropped(db: Collection) -> None:
    pd = pytest.importorskip("pandas")
    for moment in (pd.Timestamp("2024-01-01 00:00:00.000000001"), np.datetime64("2024-01-01T00:00:00.000000001")):
        with pytest.raises(InputError, match=r"payload\[1\]\['x'\].*microseconds"):
            db.add(X[:2], payloads=[{}, {"x": moment}])


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_are_payloads(db: Collection, library: str) -> None:
    rows = {"n": [1, 2, 2**60 + 1], "text": ["a", None, "c"], "tags": [["x"], [], ["y", "z"]], "at": [MOMENT] * 3}
    db.add(X, payloads=table_of(library, rows))
    assert db.get([0, 1, 2]).payloads == [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]


def table_of(library: str, columns: dict[str, Any]) -> Any:
    module = pytest.importorskip(library)
    return module.table(columns) if library == "pyarrow" else module.DataFrame(columns)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_add_and_upsert_take_a_table(named: Collection, library: str) -> None:
    table = table_of(library, {"key": ["a", "b", "c"], "embedding": X.tolist(), "n": [1, 2, 3]})
    named.add(table, vector="embedding", id="key")
    assert np.array_equal(named.get(["b"]).vectors, X[1:2])
    assert named.get(["a", "c"]).payloads == [{"n": 1}, {"n": 3}]
    changed = table_of(library, {"key": ["b", "d"], "embedding": X[:2].tolist(), "n": [4, 5]})
    done = named.upsert(changed, vector="embedding", id="key")
    assert (done.added, done.replaced) == (1, 1)
    assert np.array_equal(named.get(["b"]).vectors, X[:1])
    assert named.get(["b", "d"]).payloads == [{"n": 4}, {"n": 5}]


def test_upsert_needs_ids(db: Collection) -> None:
    with pytest.raises(InputError, match="give ids, or the name of a table's column"):
        db.upsert(X)
    with pytest.raises(InputError, match="give ids, or the name of a table's column"):
        db.upsert(pytest.importorskip("pandas").DataFrame({"v": X.tolist()}), vector="v")
    assert len(db) == 0


def test_columns_of_structs_are_payloads(db: Collection) -> None:
    pa, pl = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    for column in (pa.array(rows), pa.chunked_array([rows[:1], rows[1:]]), pl.Series(rows)):
        added = db.add(X[:2], payloads=column)
        assert db.get(added.ids).payloads == rows


def test_a_filter_takes_the_values_of_other_libraries(path: Path) -> None:
    pd, pa, pl = (pytest.importorskip(name) for name in ("pandas", "pyarrow", "polars"))
    with qvec.create(path, DIM, fields={"n": "int", "at": "datetime", "color": "keyword"}) as db:
        db.add(X, payloads=[{"n": 1, "at": MOMENT, "color": "red"}, {"n": 2}, {}])
        for values in (pd.Series([1, 9]), pa.array([1, 9]), pl.Series([1, 9]), np.array([1, 9]), range(2)):
            assert db.count({"n": {"$in": values}}) == 1
        for moment in (pd.Timestamp(MOMENT), np.datetime64(MOMENT.replace(tzinfo=None))):
            assert db.count({"at": moment}) == 1
        assert db.count({"color": Color.RED}) == 1
        assert db.count({"n": {"$exists": np.bool_(True)}}) == 2
        with pytest.raises(InputError, match=r"where\['at'\] is .*microseconds"):
            db.count({"at": pd.Timestamp("2024-01-01 00:00:00.000000001")})


def test_tables_are_refused_by_column(db: Collection) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"v": X.tolist(), "k": [1, 2, 3]})
    with pytest.raises(InputError, match=r"vector='w'.*no such column.*v, k"):
        db.add(frame, vector="w")
    with pytest.raises(InputError, match="give vector and id, or ids"):
        db.add(frame, ids=[1, 2, 3], vector="v")
    with pytest.raises(InputError, match="name the column of vectors"):
        db.add(frame, id="k")
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    for table in (frame, pl.DataFrame({"v": X.tolist(), "k": ["a"] * 3}), pa.table({"k": ["a"] * 3})):
        with pytest.raises(InputError, match="of a table, name the column of vectors with vector="):
            db.add(table)
    for options in ({"payloads": pl.LazyFrame({"k": [1, 2, 3]})}, {"vector": "k"}):
        with pytest.raises(InputError, match=r"LazyFrame.*collect\(\)"):
            db.add(X if "payloads" in options else pl.LazyFrame({"k": [1, 2, 3]}), **options)
    with pytest.raises(InputError, match=r"columns of a table.*ndarray"):
        db.add(X, vector="v")
    with pytest.raises(InputError, match="two columns 'k'"):
        db.add(X, payloads=pd.DataFrame([[1, 2]] * 3, columns=["k", "k"]))
    with pytest.raises(InputError, match="column 0 is called 0"):
        db.add(X, payloads=pd.DataFrame([[1, 2]] * 3))
    with pytest.raises(InputError, match=r"payload\[1\]\['d'\].*date"):
        db.add(X, payloads=pd.DataFrame({"d": [None, MOMENT.date(), None]}))
