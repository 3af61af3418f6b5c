"""Import of Arrow tables: their columns, types and errors."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.interchange_samples import DIM, N, X, payloads_of, store
from qvec import interchange
from qvec.cli import main


def write_table(path: Path, **columns: Any) -> Path:
    pa = pytest.importorskip("pyarrow")
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as out:
            out.write_table(table)
    return path


def test_columns_of_a_table_become_vectors_ids_and_payloads(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    day = datetime(2024, 5, 1, 12)  # no zone: UTC
    columns = {
        "key": pa.array(["a", "b"]),
        "emb": pa.array(X[:2].astype(float).tolist()),  # lists of any length, of float64
        "at": pa.array([day, None]),
        "ns": pa.array([1_714_564_800_000_000_000, None], pa.timestamp("ns", "Europe/Berlin")),
        "days": pa.array([[day.date()], None]),
        "json": pa.array(['{"x": 1}', None]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = interchange.open_source(tmp_path / "x.parquet", vector="emb", id="key", payload="json")
    (batch,) = source.batches(10)
    row = {"at": day, "ns": day.replace(tzinfo=UTC), "days": ["2024-05-01"], "x": 1}
    np.testing.assert_array_equal(np.asarray(batch.vectors, np.float32), X[:2])
    assert (batch.ids, batch.payloads) == (["a", "b"], [row, None])


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        ([[1.0, 2.0], [3.0]], [1, 2], "row 1 has 1 values, not 2"),
        ([[1.0, 2.0], None], [1, 2], "row 1 has no vector"),
        ([[1.0, 2.0], [None, 2.0]], [1, 2], "row 1 has a null in its vector"),
        ([[1.0, 2.0], [3.0, 2.0]], [1, None], "row 1 has no id"),
        ([[1.0, 2.0], [3.0, 2.0]], [1, -2], "row 1 has the id -2"),
        ([[1.0, 2.0], [3.0, 2.0]], [1.5, 2.5], "ids are integers or strings"),
    ],
)
def test_a_bad_row_of_a_table_is_named(tmp_path: Path, vectors: Any, ids: Any, message: str) -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"id": ids, "v": vectors}), tmp_path / "x.parquet")
    with pytest.raises(qvec.InputError, match=message):
        list(interchange.open_source(tmp_path / "x.parquet").batches(10))


def test_a_table_with_several_columns_of_vectors_asks_for_one(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [[1.0]], "b": [[1.0]]})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "x.parquet")
    with pytest.raises(qvec.InputError, match=r"2 columns of lists of numbers \(a, b\)"):
        interchange.open_source(tmp_path / "x.parquet")
    with pytest.raises(qvec.InputError, match="no column 'c'; its columns are a, b"):
        interchange.open_source(tmp_path / "x.parquet", vector="c")


def test_a_sample_of_a_table_is_spread_over_it(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with store(tmp_path / "a.qvec") as db:
        for suffix in (".parquet", ".arrow"):
            interchange.export(db, tmp_path / f"x{suffix}", batch_size=10)
            sample = interchange.open_source(tmp_path / f"x{suffix}").sample(64)
            rows = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in sample]
            assert len(set(rows)) == 64
            assert min(rows) < N // 10 < 9 * N // 10 < max(rows)


def test_a_table_whose_first_vector_is_null_is_refused_by_its_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    file = write_table(tmp_path / "x.parquet", vector=pa.array([None, [1.0, 2.0]], pa.list_(pa.float32())))
    source = interchange.open_source(file)
    assert source.dim == 2
    with pytest.raises(qvec.InputError, match="row 0 has no vector"):
        list(source.batches(10))
    file = write_table(tmp_path / "y.parquet", vector=pa.array([None, None], pa.list_(pa.float32())))
    with pytest.raises(qvec.InputError, match="row 0 has no vector"):
        interchange.open_source(file)


def test_two_columns_of_one_name_are_refused_or_left_out(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    columns = [pa.array(X[:2].tolist()), pa.array([1, 2]), pa.array([3, 4]), pa.array(["a", "b"])]
    table = pa.table(columns, names=["vector", "n", "n", "lang"])
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as out:
        out.write_table(table)
    with pytest.raises(qvec.InputError, match="2 columns named 'n'"):
        interchange.open_source(tmp_path / "x.arrow")
    assert payloads_of(tmp_path / "x.arrow", skip=["n"]) == [{"lang": "a"}, {"lang": "b"}]
    assert payloads_of(tmp_path / "x.arrow", columns=["lang"]) == [{"lang": "a"}, {"lang": "b"}]


def test_a_column_that_payloads_cannot_hold_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    price = [Decimal("1.10"), Decimal("2.20")]
    file = write_table(tmp_path / "x.parquet", vector=X[:2].tolist(), price=price, lang=["a", "b"])
    with pytest.raises(qvec.InputError, match=r"column 'price' is decimal.*skip=\['price'\]"):
        interchange.open_source(file)
    assert payloads_of(file, skip=["price"]) == [{"lang": "a"}, {"lang": "b"}]
    with pytest.raises(qvec.InputError, match="has no column 'prize'"):
        interchange.open_source(file, skip=["prize"])
    assert main(["import", str(tmp_path / "s.qvec"), str(file), "--skip", "price"]) == 0


def test_times_out_of_range_are_refused_by_row_and_column(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    for kind in (pa.timestamp("us"), pa.date32()):
        when = pa.array([0, 2**30 if kind == pa.date32() else 2**60], pa.int32() if kind == pa.date32() else pa.int64())
        file = write_table(tmp_path / "x.parquet", vector=X[:2].tolist(), when=when.cast(kind))
        with pytest.raises(qvec.InputError, match="row 1, column 'when'"):
            payloads_of(file)


def test_string_views_dictionaries_uuids_and_list_views_are_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    names = [uuid.UUID(int=i) for i in range(2)]
    view = pa.ListViewArray.from_arrays(pa.array([0, DIM], pa.int32()), pa.array([DIM, DIM], pa.int32()), X[:2].ravel())
    file = write_table(
        tmp_path / "x.arrow",
        vector=view,
        id=pa.array(["a", "b"], pa.string_view()),
        lang=pa.array(["de", "en"]).dictionary_encode(),
        name=pa.array([name.bytes for name in names], pa.uuid()),
        text=pa.array(["x", None], pa.string_view()),
    )
    (batch,) = interchange.open_source(file).batches(10)
    np.testing.assert_array_equal(batch.vectors, X[:2])
    assert batch.ids == ["a", "b"]
    first, second = batch.payloads or []
    assert first == {"lang": "de", "name": str(names[0]), "text": "x"}
    assert second == {"lang": "en", "name": str(names[1])}
    for column in ("lang", "name"):
        assert interchange.open_source(file, id=column).id_kind == "str"


def test_a_payload_column_that_is_not_json_is_refused_by_its_row(tmp_path: Path) -> None:
    for wrong in ("{", "[1]", "[" * 3000 + "]" * 3000):
        file = write_table(tmp_path / "x.parquet", vector=X[:2].tolist(), more=["{}", wrong])
        with pytest.raises(qvec.InputError, match="row 1, column 'more'"):
            payloads_of(file, payload="more")


def test_nanoseconds_are_refused_by_row_and_column(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    when = pa.array([1000, None, 1_700_000_000_000_000_001], pa.timestamp("ns"))
    file = write_table(tmp_path / "x.parquet", vector=X[:3].tolist(), when=when)
    with pytest.raises(qvec.InputError, match=r"row 2, column 'when' is 2023.*microseconds.*skip=\['when'\]"):
        payloads_of(file)
    assert payloads_of(write_table(tmp_path / "y.parquet", vector=X[:2].tolist(), when=when[:2])) == [
        {"when": datetime(1970, 1, 1, 0, 0, 0, 1)},
        None,
    ]


def test_columns_whose_values_become_text_are_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    days = pa.array([[1]], pa.list_(pa.date32()))
    file = write_table(tmp_path / "x.arrow", vector=X[:1].tolist(), day=pa.array([0], pa.date32()), days=days, n=[1])
    assert interchange.open_source(file).note == (
        "column 'day' is date32[day], its values become text; column 'days' is list<item: date32[day]>, its values "
        "become text"
    )
    assert payloads_of(file) == [{"day": "1970-01-01", "days": ["1970-01-02"], "n": 1}]
    assert interchange.open_source(file, skip=["day", "days"]).note == ""
