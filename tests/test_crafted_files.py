"""Files with valid checksums and wrong content raise an error that names the wrong part, and never kill the
process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb  # noqa: TID251 - files are crafted with it
import msgpack  # noqa: TID251 - ... and what no record may hold
import numpy as np
import pytest

import qvec
from helpers.store_files import resize_rows
from helpers.vectors import clustered
from qvec._kernels import Codec, Column, Searcher, ids_of_rows
from qvec.common.plain_state import encode
from qvec.schema.layout import CODES, DELETED, IDS, QUANTIZER, ROW, TUNING, VECTORS
from qvec.schema.state import InactiveCodes
from qvec.storage import header, keys, records
from qvec.storage.store import Store, Transaction

DIM, N = 8, 60
X = clustered(np.random.default_rng(1), N, DIM)
INDEXES: dict[str, Any] = {
    "flat": "flat", "hnsw": qvec.HNSW(m=4, ef_construction=30), "ivf": qvec.IVF(nlist=2),
    "packed": qvec.HNSW(m=16, ef_construction=40, layout="packed"),
}  # fmt: skip


def make(path: Path, index: str = "hnsw", ids: Any = "int64") -> None:
    names: list[Any] = [f"x{i}" for i in range(N)] if ids == "str" else list(range(N))
    with qvec.create(path, DIM, metric="l2", code="int8", index=INDEXES[index], ids=ids, fields={"a": "int"}) as db:
        db.add(X, names, [{"a": i} for i in range(N)])


def craft(path: Path, change: Callable[[Transaction], object]) -> None:
    with Store.open(path) as store, store.write() as txn:
        change(txn)


def with_state(**fields: Any) -> Callable[[Transaction], object]:
    return lambda txn: txn.state.update(fields)


def with_index(**fields: Any) -> Callable[[Transaction], object]:
    return lambda txn: txn.state.update(index=txn.state["index"] | fields)


def with_pending(**fields: Any) -> Callable[[Transaction], object]:
    pending = {"number": 1, "relink": False, "built": encode(InactiveCodes())}
    return with_state(pending=pending | fields)


def with_inactive(**fields: Any) -> Callable[[Transaction], object]:
    return with_generation(inactive=encode(InactiveCodes()) | fields)


def with_fusion(**fields: Any) -> Callable[[Transaction], object]:
    sound = {"inputs": ["vector", "text"], "method": "weighted", "weights": [0.6, 0.4], "depth": 100, "measure": "mrr"}
    sound |= {"k": 10, "n_queries": 50, "gain": 0.1, "low": 0.05, "high": 0.15}
    return with_state(fusions=[sound | fields])


def with_reembedding(**fields: Any) -> Callable[[Transaction], object]:
    sound = {"stage": "copying", "field": "text", "copied": "", "next_change": 0, "first_change": 0}
    return with_state(reembedding=sound | fields)


def with_generation(**fields: Any) -> Callable[[Transaction], object]:
    return lambda txn: txn.state.update(generations=[txn.state["generations"][0] | fields])


@pytest.mark.parametrize("column", [CODES, VECTORS, IDS, DELETED, "adjacency", "linked", "field 0"])
def test_a_column_with_too_few_rows_is_refused_by_name(path: Path, column: str) -> None:
    make(path)
    craft(path, lambda txn: txn.columns[column].resize(0))
    with pytest.raises(qvec.CorruptError, match=f"column '{column}' holds"):
        qvec.open(path)


@pytest.mark.parametrize("column", ["adjacency", "linked", "removing", "slots", "lists", "list_blocks", "centroids"])
def test_an_index_without_one_of_its_columns_is_refused_by_name(path: Path, column: str) -> None:
    make(path, "hnsw" if column in ("adjacency", "linked", "removing") else "ivf")
    craft(path, lambda txn: txn.drop_column(column))
    with pytest.raises(qvec.CorruptError, match=f"'{column}' is missing"):
        qvec.open(path)


def test_ids_that_are_strings_without_a_record_for_each_are_refused(path: Path) -> None:
    make(path, ids="str")
    craft(path, with_state(records=0))
    with pytest.raises(qvec.CorruptError, match=f"'records' is 0: each of {N} vectors has one"):
        qvec.open(path)


def test_a_configuration_with_another_kind_of_ids_is_refused(path: Path) -> None:
    make(path)
    craft(
        path,
        lambda txn: txn.txn.put(
            keys.CONFIG, header.pack({**header.unpack(txn.txn.get(keys.CONFIG), ""), "ids": "str"}, 4096)
        ),
    )
    with pytest.raises(qvec.CorruptError, match="ids are strings, which column 'ids' does not hold"):
        qvec.open(path)


@pytest.mark.parametrize(("change", "message"), [
    (with_state(n=-1), "'n' must be an integer from 0"),
    (with_state(n=2**32), "'n' must be an integer from 0 to 2147418112, got 4294967296"),
    (with_state(n=True), "'n' must be an integer"),
    (with_state(live=N + 1), f"'live' must be an integer from 0 to {N}"),
    (with_state(records="3"), "'records' must be an integer"),
    (with_state(active=7), "'active'"),
    (with_state(active=None), "'active' is nil"),
    (with_state(column_names={"codes": "nowhere"}), "'column_names' names the column 'nowhere'"),
    (with_state(column_names=[]), "'column_names' must map"),
    (with_state(column_names={"codes": 5}), "'codes' must be a string"),
    (with_state(fields=[]), "'fields' must map"),
    (with_state(fields={"a": [9, "int"]}), "a must be a mapping, got list"),
    (with_state(fields={"a": {"number": 9, "type": "int", "postings": None}}), "number 9, which was never given out"),
    (with_state(fields={"a": {"number": 0, "type": "decimal", "postings": None}}), "'type' must be one of keyword"),
    (with_state(pending={"number": 0}), "pending: field 'built' is missing"),
    (with_pending(number=0), "'pending' is of generation 0"),
    (with_pending(number=0, relink=1), "'relink' must be one of True, False, auto; got 1"),
    (with_pending(number=0, built={}), "built: field 'column_names' is missing"),
    (with_state(surplus=1), "'surplus' is unknown"),
    (with_state(erasing=0), "'erasing' must be true or false"),
    (with_reembedding(stage="done"), "'stage' must be"),
    (with_reembedding(first_change=3, next_change=2), "'first_change' must be an integer from 0 to 2"),
    (with_state(fusions=[{}]), "fusions: field 'depth' is missing"),
    (with_fusion(inputs=["vector"]), "'inputs' must be a list of 2 to 3 items"),
    (with_fusion(inputs=["vector", "title"]), "'inputs' must be one of vector, text, sparse; got 'title'"),
    (with_fusion(inputs=["text", "text"]), "'fusions' must name each input"),
    (with_fusion(weights=[0.5]), "'weights' must have 2 weights"),
    (with_fusion(weights=[0.0, 0.0]), "'weights' must have 2 weights, not all zero"),
    (with_fusion(weights=[float("nan"), 1.0]), "'weights' must be a finite number"),
    (with_fusion(method="rrf"), "'weights' must have 0 weights"),
    (with_fusion(method="sum"), "'method' must be one of rrf, weighted"),
    (with_fusion(depth=0), "'depth' must be an integer from 1"),
    (with_fusion(low=2), "'low' must be from -1 to 1"),
    (with_state(tuned={"generation": 0, "index": 5, "n": 3}), "'index' must be a string"),
    (with_state(oversample={"generation": 0, "factor": 0}), "'factor' must be an integer from 1"),
    (lambda txn: txn.state.pop("live"), "field 'live' is missing"),
    (with_generation(code_size=4), "column 'codes' holds .* of .* bytes"),
    (with_inactive(rows=10**6), "generation 0 has 1000000 rows"),
    (with_inactive(rows=1, indexed_rows=N + 1), f"'indexed_rows' must be an integer from 0 to {N}"),
    (with_inactive(rows=N, index={"kind": "hnsw"}), "index: field 'entries' is missing"),
    (with_generation(number=1), "'generations' must have numbers below 1"),
    (with_generation(code={"kind": "magic"}), "magic"),
    (with_index(kind="ivf"), "index: field 'lists' is missing"),
    (with_state(index={"kind": "ivf", "lists": None}), "'kind' of the index must be one of flat, hnsw"),
    (with_state(index={"kind": "tree"}), "'kind' must be one of flat, hnsw, ivf; got 'tree'"),
    (with_index(root=N), f"'root' must be an integer from 0 to {N - 1}, got {N}"),
    (with_index(indexed=N + 1), "'indexed' must be an integer"),
    (with_index(entries=b"\xff" * 8), f"'entries' names a row that is not below {N}"),
    (with_index(entries=b"123"), "'entries' must hold"),
    (with_index(repair_cursor=2**40), "\'repair_cursor\' must be an integer"),
    (with_index(pending_rows=b"\xff" * 4), "\'pending_rows\' names a row that is not below"),
    (with_index(pending_rows=7), "\'pending_rows\' must hold"),
    (
        with_index(pending_rows=b"\1\0\0\0", pending_in_sweep=2),
        "'pending_in_sweep' must be an integer from 0 to 1, got 2",
    ),
    (with_index(reverse_edge_cursor=-1), "\'reverse_edge_cursor\' must be an integer"),
])  # fmt: skip
def test_an_inconsistent_state_is_refused_by_the_name_of_the_field(
    path: Path, change: Callable[[Transaction], object], message: str
) -> None:
    make(path)
    craft(path, change)
    with pytest.raises(qvec.CorruptError, match=f"the state of the collection is damaged: .*{message}"):
        qvec.open(path, "r")


@pytest.mark.parametrize(("fields", "message"), [
    ({"n_lists": 10**9}, "lists do not fit"),
    ({"n_lists": 0}, "'n_lists' must be an integer from 1"),
    ({"n_free": 10**6}, "'n_free'"),
    ({"dim": 4}, "lists are of 4 dimensions"),
    ({"extra": 1}, "'extra' is unknown"),
])  # fmt: skip
def test_inconsistent_lists_are_refused_by_the_name_of_the_field(path: Path, fields: Any, message: str) -> None:
    make(path, "ivf")
    craft(path, lambda txn: txn.state.update(index={"kind": "ivf", "lists": txn.state["index"]["lists"] | fields}))
    with pytest.raises(qvec.CorruptError, match=message), qvec.open(path, "r") as db:
        db.search(X[0])


def test_a_calibration_of_another_dimension_is_refused(path: Path, tmp_path: Path) -> None:
    make(path)
    with qvec.create(tmp_path / "other", 2 * DIM, metric="l2", code="int8") as other:
        other.add(np.tile(X, 2))
        with other._store.read() as snap:
            foreign = snap.record(QUANTIZER, 0)
    craft(path, lambda txn: txn.put_record(QUANTIZER, 0, foreign))
    with qvec.open(path) as db:
        with pytest.raises(qvec.CorruptError, match=r"generation 0 is of \(dim, metric, code size\) = \(16"):
            db.search(X[0])
        assert "16 dimensions" in db.verify()[0]


@pytest.mark.parametrize("record", [None, [], {"payload": 3}, {}, {"payload": None, "id": 7}, {"payload": {}}])
@pytest.mark.parametrize("ids", ["int64", "str"])
def test_a_malformed_record_of_a_row_is_an_error(path: Path, ids: str, record: Any) -> None:
    make(path, ids=ids)
    craft(path, lambda txn: txn.put_record(ROW, 3, record))
    with qvec.open(path) as db:
        if record == {"payload": {}} and ids == "int64":  # a payload like any other, but the index of the field
            assert db.get([3]).payloads == [{}]
        else:
            with pytest.raises(qvec.CorruptError, match="row 3"):
                db.get(["x3" if ids == "str" else 3])
        assert db.verify() != []


@pytest.mark.parametrize("record", [{"n": []}, {"n": float("inf"), "queries": b""}, {"n": -1, "queries": b""}, [], 3])
def test_malformed_stored_queries_are_an_error(path: Path, record: Any) -> None:
    make(path)
    with qvec.open(path) as db:
        db.tune(X[:20], ks=(5,))
    craft(path, lambda txn: txn.put_record(TUNING, 1, record))
    with qvec.open(path) as db:
        with pytest.raises(qvec.FormatError, match=r"queries|'n' must be"):
            db.requantize("f16", threads=1)
        assert db.search(X[3], 1).ids.tolist() == [3]


@pytest.mark.parametrize("row", [N, 10**6, 2**31 - 1])
def test_an_id_of_a_row_beyond_the_last_is_an_error(path: Path, row: int) -> None:
    make(path)
    key = (7).to_bytes(8, "big")
    craft(path, lambda txn: (txn.delete_ids([key]), txn.put_ids([key], [row])))
    calls: list[Callable[[qvec.Collection], object]] = [
        lambda db: db.get([7]), lambda db: db.delete([7]), lambda db: db.upsert(X[:1], [7]),
        lambda db: db.update_payloads([7], {"a": 1}), lambda db: db.search_by_id(7),
    ]  # fmt: skip
    with qvec.open(path) as db:
        for call in calls:
            with pytest.raises(qvec.CorruptError, match=f"an id leads to row {row} of {N}"):
                call(db)


def test_a_searcher_refuses_columns_with_too_few_rows() -> None:
    codec = Codec("f32", "l2", 4)

    def column(rows: int, stride: int) -> Column:
        made = Column("c", 1, 0, stride, 10, 1, 4096, writable=True)
        made.resize(rows)
        return made

    full = column(100, codec.stride)
    Searcher(codec, full, 100, None, codec, full)
    for vectors in (column(50, codec.stride), column(100, 8)):
        with pytest.raises(ValueError, match=r"exceeds the rows|stride"):
            Searcher(codec, full, 100, None, codec, vectors)


def test_ids_are_read_of_rows_that_their_column_has() -> None:
    ids = Column("ids", 1, 0, 8, 10, 1, 4096, writable=True)
    ids.resize(20)
    ids.write(0, np.arange(100, 120).view(np.uint8).reshape(20, 8))
    assert ids_of_rows(ids, np.array([[3, -1], [19, 0]])).tolist() == [[103, -1], [119, 100]]
    wide = Column("ids", 1, 0, 16, 10, 1, 4096, writable=True)
    for column, rows in ((ids, np.array([20])), (ids, np.array([1], np.int32)), (wide, np.array([1]))):
        with pytest.raises(ValueError, match=r"rows must be|is not below the 20"):
            ids_of_rows(column, rows)


def test_an_untrusted_file_is_checked_before_it_is_mapped(path: Path) -> None:
    make(path)
    sound = path.read_bytes()
    with qvec.open(path, "r", untrusted=True) as db:
        assert db.search(X[7], 1).ids.tolist() == [7]
    refused = 0
    for page in range(2, len(sound) // 4096):
        path.write_bytes(sound[: 4096 * page] + bytes(4096) + sound[4096 * (page + 1) :])
        try:
            with qvec.open(path, "r", untrusted=True) as db:
                assert db.search(X[7], 1).ids.tolist() == [7]
        except qvec.CorruptError:
            refused += 1
    assert refused > 5


def test_an_untrusted_file_is_read_to_its_last_byte(path: Path) -> None:
    make(path)
    craft(path, lambda txn: txn.columns[CODES].write(3, txn.columns[CODES].read([4])))
    qvec.open(path, "r").close()
    with pytest.raises(qvec.CorruptError, match="the code of row 3 is not that of its vector; 1 problems"):
        qvec.open(path, "r", untrusted=True)


def test_a_packed_graph_without_its_nodes_is_found_by_verify(path: Path) -> None:
    with qvec.create(path, DIM, metric="l2", code="int8", index=qvec.HNSW(m=16, layout="packed")) as db:
        db.add(X)
        db.requantize("f16")
        db.drop_generation(0)
    craft(path, lambda txn: txn.state["column_names"].pop("nodes"))
    with qvec.open(path, "r") as db:
        assert db.verify() == ["the packed nodes of the graph are missing"]


def with_columns(path: Path, change: Callable[[dict[Any, Any]], object]) -> None:
    """Change the state record's entries about columns directly in the file."""
    with lmdb.open(str(path), subdir=False, map_size=1 << 30) as env, env.begin(write=True) as txn:
        payload = records.unseal(keys.STATE, txn.get(keys.STATE))
        change(payload["columns"])
        txn.put(keys.STATE, records.seal_bytes(keys.STATE, msgpack.packb(payload)))


@pytest.mark.parametrize(("at", "value"), [
    *((at, value) for at in range(6) for value in (-1, 1 << 16, 1 << 31, 1 << 40, (1 << 64) - 1, 1.5, None, "x")),
    (6, b""), (6, b"\0" * 13), (6, b"\0" * 24), (6, None),
])  # fmt: skip
def test_a_column_whose_line_in_the_state_is_impossible_is_refused(path: Path, at: int, value: object) -> None:
    make(path)
    with_columns(path, lambda columns: columns[CODES].__setitem__(at, value))
    with pytest.raises(qvec.CorruptError, match=r"column|damaged or not the one"):
        qvec.open(path)


@pytest.mark.parametrize("change", [
    lambda columns: columns.update({b"codes": columns.pop("codes")}),
    lambda columns: columns.update(other=columns["codes"]),
    lambda columns: columns.pop(IDS),
    lambda columns: columns.pop(VECTORS),
])  # fmt: skip
def test_columns_that_are_lost_or_named_otherwise_or_twice_are_refused(
    path: Path, change: Callable[[dict[Any, Any]], object]
) -> None:
    make(path)
    with_columns(path, change)
    with pytest.raises(qvec.CorruptError, match=r"b'codes'|same id and generation|'(ids|vectors)' is missing"):
        qvec.open(path, "r")


@pytest.mark.parametrize(("index", "column", "strides"), [
    ("hnsw", "adjacency", (1, 31, 33, 64)), ("hnsw", "linked", (1, 16)), ("ivf", "slots", (4, 7, 16)),
    ("packed", "adjacency", (4, 64, 192)), ("packed", "nodes", (1, 704)),
])  # fmt: skip
def test_an_index_whose_columns_have_rows_of_another_size_is_refused(
    path: Path, index: str, column: str, strides: tuple[int, ...]
) -> None:
    make(path, index)
    sound = path.read_bytes()
    for stride in strides:
        path.write_bytes(sound)
        craft(path, lambda txn: resize_rows(txn, column, stride))  # noqa: B023 - called at once
        with pytest.raises(qvec.CorruptError, match=f"'{column}' holds|nodes have a stride"), qvec.open(path) as db:
            db.search(X[0])


@pytest.mark.parametrize("names", [
    {"nodes": "codes"}, {"adjacency": "linked", "linked": "adjacency"}, {"codes": "vectors"}, {"codes": "codes.1"},
])  # fmt: skip
def test_an_inactive_generation_with_columns_of_another_is_refused(path: Path, names: dict[str, str]) -> None:
    make(path)
    with qvec.open(path) as db:
        db.requantize("f16", relink=True)

    def change(txn: Transaction) -> None:
        first, second = txn.state["generations"]
        inactive = first["inactive"] | {"column_names": names}
        txn.state["generations"] = [first | {"inactive": inactive}, second]

    craft(path, change)
    with pytest.raises(qvec.CorruptError, match=r"which holds something else|generation 0 has"):
        qvec.open(path)


@pytest.mark.parametrize(
    "value",
    [
        {"ids": b"\1\0\0\0", "weights": "text"},
        {"ids": b"\1\0\0\0", "weights": b"\0\x3c\0\x3c"},
        {"ids": b"\1\0\0\0\0\0", "weights": b"\0\x3c\0"},
        {"ids": "text", "weights": b"\0\x3c"},
        "text",
        None,
    ],
)
def test_a_sparse_vector_that_is_malformed_is_refused_by_its_row(path: Path, value: Any) -> None:
    with qvec.create(path, DIM, fields={"lexical": "sparse"}) as db:
        db.add(X[:2], sparse={"lexical": [{1: 1.0}, {2: 1.0}]})
    craft(path, lambda txn: txn.put_record(ROW, 0, {"payload": {"lexical": value}}))
    with qvec.open(path) as db, pytest.raises(qvec.CorruptError, match="a sparse vector of row 0 is damaged"):
        db.search(sparse={1: 1.0}, k=1)
