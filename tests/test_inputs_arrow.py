"""Arrow tables of every type: stored equal in value and type, or refused by row and column before any write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import qvec
from helpers.drawn_arrow import KINDS, arrow_table, arrow_tables
from helpers.drawn_tables import FAST, NIGHTLY, same
from qvec import interchange

pa = pytest.importorskip("pyarrow")
WAYS = ("add", ".parquet", ".arrow")
Drawn = tuple[dict[str, list[Any]], dict[str, str]]


def store(way: str, folder: Path, table: Any) -> qvec.Collection:
    """A collection with the rows of a table. Raises InputError after it was closed and found empty."""
    path = folder / "a.qvec"
    if way == "add":
        db = qvec.create(path, 2, code="f32", durability="relaxed")
    else:
        write(table, folder / f"t{way}")
        db = interchange.create_for(interchange.open_source(folder / f"t{way}"), path, code="f32", durability="relaxed")
    try:
        if way == "add":
            db.add(table, vector="vector", id="id")
        else:
            interchange.add_from(db, interchange.open_source(folder / f"t{way}"))
    except qvec.InputError:
        assert len(db) == 0
        db.close()
        raise
    return db


def write(table: Any, file: Path) -> None:
    if file.suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, str(file))
        return
    with pytest.importorskip("pyarrow.ipc").new_file(str(file), table.schema) as out:
        out.write_table(table)


def round_trip(folder: Path, way: str, drawn: Drawn) -> None:
    for old in folder.iterdir():
        old.unlink()
    columns, kinds = drawn
    if way == ".parquet":
        columns = {name: values for name, values in columns.items() if not KINDS[kinds[name]].only_in_memory}
    rows = len(next(iter(drawn[0].values())))
    x = np.arange(1, 1 + 2 * rows, dtype=np.float32).reshape(-1, 2)
    table = arrow_table(pa, columns, kinds, x)
    unfit = [name for name in columns if is_refused(way, kinds[name], columns[name])]
    if unfit:
        with pytest.raises(qvec.InputError) as refusal:
            store(way, folder, table)
        assert any(repr(name) in str(refusal.value) for name in unfit), refusal.value
        return
    with store(way, folder, table) as db:
        found = db.get(range(rows))
        assert db.verify() == []
    np.testing.assert_array_equal(found.vectors, x)
    expected = [expected_row(way, columns, kinds, i) for i in range(rows)]
    if way == "add" and not columns:
        expected = [None] * rows
    assert all(map(same, found.payloads, expected)), (found.payloads, expected)


def is_refused(way: str, kind: str, values: list[Any]) -> bool:
    """Files are refused by the type of a column, tables in memory by a value."""
    if way == "add":
        return KINDS[kind].stored is None and any(value is not None for value in values)
    return KINDS[kind].in_files is None


def expected_row(way: str, columns: dict[str, list[Any]], kinds: dict[str, str], i: int) -> dict[str, Any] | None:
    """A file does not tell a null from a key that is missing; a table in memory has the key with None."""
    row: dict[str, Any] = {}
    for name, values in columns.items():
        kind = KINDS[kinds[name]]
        form = kind.stored if way == "add" else kind.in_files
        if values[i] is not None:
            assert form is not None
            row[name] = form(values[i])
        elif way == "add":
            row[name] = None
    return row or None if way != "add" else row


@pytest.mark.parametrize("way", WAYS)
@FAST
@given(drawn=arrow_tables())
@pytest.mark.slow
def test_arrow_tables_are_stored_as_they_are_or_refused(tmp_path: Path, way: str, drawn: Drawn) -> None:
    round_trip(tmp_path, way, drawn)


@pytest.mark.nightly
@pytest.mark.parametrize("way", WAYS)
@NIGHTLY
@given(drawn=arrow_tables())
def test_2000_arrow_tables_are_stored_as_they_are_or_refused(tmp_path: Path, way: str, drawn: Drawn) -> None:
    round_trip(tmp_path, way, drawn)
