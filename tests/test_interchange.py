"""Export and import: exports are read again unchanged, and files of other stores are imported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qvec
from helpers.interchange_samples import DIM, N, X, content, copied, payloads_of, store
from qvec import interchange
from qvec.cli import main
from qvec.common import tables
from qvec.common.errors import MissingExtraError

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=4)
)
payloads = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "", "id", "payload", "vector"]),
        st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=2), scalars, max_size=2)),
        max_size=4,
    ),
)


# --- payloads in columns ---


@settings(deadline=None, max_examples=300)
@given(st.lists(payloads, max_size=6))
@pytest.mark.slow
def test_payloads_split_into_columns_and_a_rest_are_restored(rows: list[Any]) -> None:
    kinds = tables.PayloadColumns(rows).kinds(("id", "vector"))
    assert {"id", "vector", "payload"}.isdisjoint(kinds)
    for row in rows:
        held, rest = tables.split(1, row, kinds)
        assert tables.merged({key: held.get(key) for key in kinds}, rest) == row


def test_a_value_of_another_type_than_its_column_is_in_the_rest() -> None:
    kinds = tables.PayloadColumns([{"a": 1}]).kinds(())
    held, rest = tables.split(1, {"a": "x"}, kinds)
    assert (kinds, held, rest) == ({"a": "int"}, {}, '{"a": "x"}')


def test_payloads_with_many_keys_have_a_limited_number_of_columns() -> None:
    rows = [{str(i): i} for i in range(2 * tables.MAX_COLUMNS)]
    assert len(tables.PayloadColumns(rows).kinds(())) == tables.MAX_COLUMNS


# --- round trips ---


@pytest.mark.parametrize("ids", ["int64", "str"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_an_arrow_export_is_imported_unchanged(tmp_path: Path, ids: str, suffix: str) -> None:
    pytest.importorskip("pyarrow")
    with store(tmp_path / "a.qvec", ids) as db:
        db.delete([db.get(["dok-9\n"] if ids == "str" else [27]).ids[0]])
        done = interchange.export(db, tmp_path / f"x{suffix}", batch_size=64)
        source = interchange.open_source(done.files[0])
        assert (done.rows, source.rows, source.dim, source.metric, source.id_kind) == (N - 1, N - 1, DIM, "l2", ids)
        with copied(source, tmp_path / "b.qvec") as other:
            assert other.stats().metric == "l2"
            assert content(other) == content(db)


def test_a_parquet_export_is_a_plain_table_to_others(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    with store(tmp_path / "a.qvec") as db:
        interchange.export(db, tmp_path / "x.parquet", batch_size=64)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), DIM)
    assert table.schema.names == ["id", "vector", "page", "lang", "tags", "payload"]  # a None under page is in payload
    assert table["id"].to_pylist() == [3 * i for i in range(N)]
    assert table["lang"][7].as_py() == "en"
    assert json.loads(table["payload"][7].as_py()) == {"mixed": 7, "deep": {"n": [7]}}
    assert json.loads(table["payload"][5].as_py()) == {"page": None, "more": 2**64 - 1}
    assert (table["page"][7].as_py(), table["page"][5].as_py()) == (7, None)
    assert parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups == -(-N // 64)


@pytest.mark.parametrize("ids", ["int64", "str"])
def test_an_npy_export_is_imported_unchanged(tmp_path: Path, ids: str) -> None:
    with store(tmp_path / "a.qvec", ids) as db:
        done = interchange.export(db, tmp_path / "x.npy", batch_size=64)
        names = ["x.npy", "x.ids.npy" if ids == "int64" else "x.ids.jsonl", "x.payload.jsonl"]
        assert [file.name for file in done.files] == names
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)
        vectors, id_file, payload_file = done.files
        source = interchange.open_source(vectors, ids=id_file, payloads=payload_file)
        with copied(source, tmp_path / "b.qvec", metric="l2") as other:
            assert content(other) == content(db)


def test_a_store_without_payloads_has_no_file_of_payloads(tmp_path: Path) -> None:
    with store(tmp_path / "a.qvec", payloads=False) as db:
        (tmp_path / "x.payload.jsonl").write_text("of an earlier export")
        done = interchange.export(db, tmp_path / "x.npy", overwrite=True)
        assert [file.name for file in done.files] == ["x.npy", "x.ids.npy"]
        assert not (tmp_path / "x.payload.jsonl").exists()


def test_an_export_can_be_filtered(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, fields={"page": "int"}) as db:
        db.add(X, payloads=[{"page": i} for i in range(N)])
        done = interchange.export(db, tmp_path / "x.npy", where={"page": {"$lt": 20}})
    assert done.rows == 20
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X[:20])


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_an_empty_store_exports_no_rows(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    with qvec.create(tmp_path / "a.qvec", DIM) as db:
        done = interchange.export(db, tmp_path / f"x{suffix}")
    source = interchange.open_source(done.files[0])
    assert (source.rows, source.dim, list(source.batches(10))) == (0, DIM, [])


def test_prequantized_codes_are_exported_and_imported_unchanged(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    codes = np.random.default_rng(1).integers(-127, 128, (40, DIM)).astype(np.int8)
    options: dict[str, Any] = {"code": qvec.Prequantized("int8"), "originals": "none", "metric": "cosine"}
    with qvec.create(tmp_path / "a.qvec", DIM, **options) as db:
        db.add(codes)
        source = interchange.open_source(interchange.export(db, tmp_path / "x.parquet").files[0])
        with copied(source, tmp_path / "b.qvec", **options) as other:
            np.testing.assert_array_equal(other.get(range(40)).vectors, codes)


def test_bytes_have_a_column_in_parquet_and_no_place_in_json(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with qvec.create(tmp_path / "a.qvec", DIM) as db:
        db.add(X[:2], payloads=[{"raw": b"\x00\xff"}, None])
        source = interchange.open_source(interchange.export(db, tmp_path / "x.parquet").files[0])
        with copied(source, tmp_path / "b.qvec") as other:
            assert content(other) == content(db)
        with pytest.raises(qvec.InputError, match="payload of 0 has bytes"):
            interchange.export(db, tmp_path / "x.npy")
        db.add(X[:1], payloads={"other": {"deep": b"x"}})
        with pytest.raises(qvec.InputError, match="payload of 2 has bytes"):
            interchange.export(db, tmp_path / "y.parquet")
        interchange.export(db, tmp_path / "y.parquet", payloads=False)
    assert sorted(file.name for file in tmp_path.glob("[xy]*")) == ["x.parquet", "y.parquet"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_declared_fields_and_datetimes_are_exported(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("pyarrow")
    at = [datetime(2024, 5, 1, 12, 0, 0, i, UTC) for i in range(3)]
    fields: dict[str, Any] = {"at": "datetime", "seen": "datetime[]", "lang": "keyword"}
    with qvec.create(tmp_path / "a.qvec", DIM, fields=fields) as db:
        db.add(X[:3], payloads=[{"at": at[0], "seen": at}, {"at": at[1], "lang": "en", "deep": {"at": at[2]}}, None])
        source = interchange.open_source(interchange.export(db, tmp_path / f"x{suffix}").files[0])
        assert repr(source).endswith(f"3 rows dim={DIM} metric=cosine ids=int64>")
        with copied(source, tmp_path / "b.qvec") as other:
            assert dict(other.fields) == fields
            assert other.search(X[0], where={"at": {"$lt": at[1]}}).payloads[0] == {"at": at[0], "seen": at}
            assert other.get([1]).payloads == [{"at": at[1], "lang": "en", "deep": {"at": at[2].isoformat()}}]
        interchange.export(db, tmp_path / "x.npy")  # JSON has them as text, which the field takes too
        lines = (tmp_path / "x.payload.jsonl").read_text().splitlines()
        assert db.add(X[:1], payloads=[json.loads(lines[0])]).added == 1
        assert db.count({"at": at[0]}) == 2


def test_damaged_fields_in_a_table_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for text in ("{", "[]", '{"a": "color"}'):
        schema = pa.schema({"id": pa.int64(), "v": pa.list_(pa.float32(), 2)}, metadata={"qvec.fields": text})
        parquet.write_table(schema.empty_table(), tmp_path / "x.parquet")
        with pytest.raises(qvec.InputError, match=r"x\.parquet: the declared fields in its metadata are damaged"):
            interchange.open_source(tmp_path / "x.parquet")


def test_an_export_does_not_replace_a_file_unless_told_to(tmp_path: Path) -> None:
    with store(tmp_path / "a.qvec") as db:
        (tmp_path / "x.ids.npy").write_text("dear")
        with pytest.raises(qvec.ExistsError, match=r"x\.ids\.npy exists already"):
            interchange.export(db, tmp_path / "x.npy")
        assert (tmp_path / "x.ids.npy").read_text() == "dear"
        assert sorted(file.name for file in tmp_path.glob("x*")) == ["x.ids.npy"]
        interchange.export(db, tmp_path / "x.npy", overwrite=True)
        assert len(np.load(tmp_path / "x.ids.npy")) == N


def test_the_format_of_a_path_is_given_or_detected(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text("")
    for path, options, message in [
        (tmp_path / "none.npy", {}, "no such file"),
        (tmp_path / "x.xyz", {}, r"unknown suffix '\.xyz'"),
        (tmp_path, {}, "neither Chroma's"),
        (tmp_path / "x.xyz", {"format": "xls"}, "format must be one of vectors, jsonl, csv, parquet"),
        (tmp_path, {"format": "hnswlib"}, "is a directory: it cannot have the format hnswlib"),
        (tmp_path / "x.xyz", {"format": "hnswlib", "key": "a"}, "key is not an option of format hnswlib"),
    ]:
        with pytest.raises((qvec.InputError, qvec.NotFoundError), match=message):
            interchange.open_source(path, **options)
    with (
        qvec.create(tmp_path / "a.qvec", DIM) as db,
        pytest.raises(qvec.InputError, match=r"unknown suffix '\.csv'; exports are \.npy"),
    ):
        interchange.export(db, tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "package", "wanted"), [("x.parquet", "pyarrow", "pyarrow"), ("x.faiss", "faiss", "faiss-cpu")]
)
def test_a_missing_package_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, wanted: str
) -> None:
    import sys

    for module in [found for found in sys.modules if found.partition(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / name).write_text("")
    with pytest.raises(MissingExtraError, match=f"{package} is not installed.*pip install '{wanted}'"):
        interchange.open_source(tmp_path / name)


def test_export_and_import_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "a.qvec", "str").close()
    assert main(["export", "a.qvec", "x.npy"]) == 0
    assert capsys.readouterr().out.startswith(f"x.npy: {N} rows, ")
    assert main(["export", "a.qvec", "x.npy"]) == 2
    assert "exists already" in capsys.readouterr().err
    files = ["x.npy", "--ids", "x.ids.jsonl", "--payloads", "x.payload.jsonl", "--metric", "l2"]
    assert main(["import", "b.qvec", *files]) == 0
    with qvec.open("a.qvec", "r") as a, qvec.open("b.qvec", "r") as b:
        assert content(a) == content(b)


def test_a_chroma_metadata_key_is_not_replaced_by_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stored:
        name, metadata = "docs", None

        def count(self) -> int:
            return 1

        def get(self, **_: Any) -> dict[str, Any]:
            return {"ids": ["a"], "embeddings": X[:1], "metadatas": [{"document": 7}], "documents": ["text"]}

    client = SimpleNamespace(list_collections=lambda: [Stored()], get_collection=lambda *_, **__: Stored())
    fake = SimpleNamespace(PersistentClient=lambda path: client)
    monkeypatch.setattr("qvec.interchange.databases.require", lambda *_: fake)
    (tmp_path / "chroma.sqlite3").touch()
    with pytest.raises(qvec.InputError, match="metadata of 'a' has the key 'document'"):
        interchange.open_source(tmp_path)
    assert payloads_of(tmp_path, document="text") == [{"document": 7, "text": "text"}]


def test_suffixes_can_be_in_upper_case(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "X.NPY")
    assert interchange.open_source(tmp_path / "X.NPY").rows == N
    with store(tmp_path / "a.qvec") as db:
        assert interchange.export(db, tmp_path / "y.NPY").rows == N


def test_an_hdf5_file_without_a_metric_is_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["deep/vectors"], file["other"] = X, X[:1]
    source = interchange.open_source(tmp_path / "x.h5", key="deep/vectors")
    assert (source.rows, source.metric) == (N, None)
    with copied(source, tmp_path / "a.qvec", metric="l2") as db:
        assert db.metric == "l2"
