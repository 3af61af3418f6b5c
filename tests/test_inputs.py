"""Accepted input: vectors, ids, payloads and options of many libraries (docs/inputs.md)."""

from __future__ import annotations

import enum
import gc
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
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


def from_pandas(x: Any) -> Any:
    return pytest.importorskip("pandas").Series(list(x))


def from_pandas_lists(x: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame({"v": x.tolist()})["v"]


def from_nullable_frame(x: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(x).astype("Float64")


def from_polars(x: Any) -> Any:
    return pytest.importorskip("polars").Series(x.tolist())


def from_polars_array(x: Any) -> Any:
    pl = pytest.importorskip("polars")
    return pl.Series(x.tolist(), dtype=pl.Array(pl.Float32, DIM))


def from_arrow_list(x: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.array(x.tolist(), pa.list_(pa.float32()))


def from_arrow_large_list(x: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.array(x.tolist(), pa.large_list(pa.float64()))


def from_arrow_fixed(x: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), DIM)


def from_arrow_chunks(x: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.chunked_array([from_arrow_fixed(x[:1]), from_arrow_fixed(x[1:])])


def from_arrow_halves(x: Any) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1).astype(np.float16)), DIM)


def from_arrow_tensors(x: Any) -> Any:
    return pytest.importorskip("pyarrow").FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))


def from_ml_dtypes(x: Any) -> Any:
    return x.astype(pytest.importorskip("ml_dtypes").bfloat16)


def from_torch(x: Any) -> Any:
    return pytest.importorskip("torch").tensor(x, requires_grad=True)


def from_torch_bfloat16(x: Any) -> Any:
    torch = pytest.importorskip("torch")
    return torch.tensor(x, dtype=torch.bfloat16, requires_grad=True)


def from_torch_rows(x: Any) -> Any:
    return [pytest.importorskip("torch").tensor(row, requires_grad=True) for row in x]


FORMS: list[Callable[[Any], Any]] = [
    from_pandas,
    from_pandas_lists,
    from_nullable_frame,
    from_polars,
    from_polars_array,
    from_arrow_list,
    from_arrow_large_list,
    from_arrow_fixed,
    from_arrow_chunks,
    from_arrow_halves,
    from_arrow_tensors,
    from_ml_dtypes,
    from_torch,
    from_torch_bfloat16,
    from_torch_rows,
    np.ma.array,
    lambda x: x.astype(np.float16),
    lambda x: x.astype(np.int8),
    list,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_vectors_of_every_form_are_stored_and_searched(db: Collection, form: Callable[[Any], Any]) -> None:
    db.add(form(X))
    assert np.array_equal(db.get([0, 1, 2]).vectors, X)
    assert db.search(form(X), 1).ids[:, 0].tolist() == [0, 1, 2]
    if form is not from_nullable_frame:  # its [1] is a column
        assert db.search(form(X)[1], 1).ids.tolist() == [1]


@pytest.mark.parametrize("form", FORMS)
def test_calibration_samples_may_have_every_form(path: Path, form: Callable[[Any], Any]) -> None:
    x = (np.arange(300 * DIM) % 100 + 1).astype(np.float32).reshape(300, DIM)
    with qvec.create(path, DIM, metric="l2", code=qvec.Int8(scale="per_dim"), sample=form(x)) as made:
        assert made.generations()


def with_null(rows: list[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"list": rows}
    pa, pd, pl = (pytest.importorskip(name) for name in ("pyarrow", "pandas", "polars"))
    arrow = pa.array(rows, pa.list_(pa.float32()))
    fixed = pa.array(rows, pa.list_(pa.float32(), DIM))
    return made | {
        "pandas": pd.Series(rows, dtype=object),
        "polars": pl.Series(rows),
        "arrow": arrow,
        "fixed": fixed,
        "chunks": pa.chunked_array([arrow]),
    }


@pytest.mark.parametrize("form", ["list", "pandas", "polars", "arrow", "fixed", "chunks"])
def test_nulls_among_vectors_are_named_by_row(db: Collection, form: str) -> None:
    with pytest.raises(InputError, match=r"vectors\[1\] is (null|None)"):
        db.add(with_null([[1.0] * DIM, None, [2.0] * DIM])[form])
    with pytest.raises(InputError, match=r"vectors\[1, 2\] is (null|nan)|vectors\[1\].*dtype object"):
        db.add(with_null([[1.0] * DIM, [1.0, 2.0, None, 4.0]])[form])
    assert len(db) == 0


def test_columns_of_ragged_lists_are_named_by_row(db: Collection) -> None:
    pa = pytest.importorskip("pyarrow")
    rows = [[1.0] * DIM, [2.0] * DIM, [3.0] * (DIM - 1)]
    for ragged in (rows, pa.array(rows), pytest.importorskip("pandas").Series(rows)):
        with pytest.raises(InputError, match=r"ragged.*vectors\[2\]"):
            db.add(ragged)


def test_masked_values_are_refused_by_place(db: Collection) -> None:
    with pytest.raises(InputError, match=r"vectors\[1, 2\] is masked"):
        db.add(np.ma.array(X, mask=np.arange(12).reshape(3, DIM) == 6))
    with pytest.raises(InputError, match=r"ids\[2\] is masked"):
        db.add(X, ids=np.ma.array([1, 2, 3], mask=[0, 0, 1]))
    with pytest.raises(InputError, match=r"queries\[0\] is masked"):
        db.search(np.ma.array(X[0], mask=[1, 0, 0, 0]))


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
@pytest.mark.slow
def test_narrow_matrices_are_stored_without_a_float32_copy(path: Path, dtype: Any) -> None:
    import tracemalloc

    x = np.ones((20_000, 1024), dtype)
    x[:, 0] = np.arange(20_000) % 100
    with qvec.create(path, 1024, metric="l2", code="int8", originals="none", index="flat") as db:
        db.add(x[:1000])
        tracemalloc.start()
        db.add(x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < x.size * 2  # ids, keys, rows and codes of parts; a float32 copy would take twice as much


# --- ids ---


class Color(str, enum.Enum):  # noqa: UP042 - str() of a StrEnum is its value, of this its name
    RED = "red"
    BLUE = "blue"


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
    }
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
def test_add_takes_a_table(named: Collection, library: str) -> None:
    table = table_of(library, {"key": ["a", "b", "c"], "embedding": X.tolist(), "n": [1, 2, 3]})
    named.add(table, vector="embedding", id="key")
    assert np.array_equal(named.get(["b"]).vectors, X[1:2])
    assert named.get(["a", "c"]).payloads == [{"n": 1}, {"n": 3}]


def test_tables_are_refused_by_column(db: Collection) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"v": X.tolist(), "k": [1, 2, 3]})
    with pytest.raises(InputError, match=r"vector='w'.*no such column.*v, k"):
        db.add(frame, vector="w")
    with pytest.raises(InputError, match="give vector and id, or ids"):
        db.add(frame, ids=[1, 2, 3], vector="v")
    with pytest.raises(InputError, match="name the column of vectors"):
        db.add(frame, id="k")
    with pytest.raises(InputError, match=r"columns of a table.*ndarray"):
        db.add(X, vector="v")
    with pytest.raises(InputError, match="two columns 'k'"):
        db.add(X, payloads=pd.DataFrame([[1, 2]] * 3, columns=["k", "k"]))
    with pytest.raises(InputError, match="column 0 is called 0"):
        db.add(X, payloads=pd.DataFrame([[1, 2]] * 3))
    with pytest.raises(InputError, match=r"payload\[1\]\['d'\].*date"):
        db.add(X, payloads=pd.DataFrame({"d": [None, MOMENT.date(), None]}))


# --- limits ---


def test_norms_are_limited_so_that_distances_are_finite(path: Path) -> None:
    with qvec.create(path, 400, metric="l2") as db:
        with pytest.raises(InputError, match=r"vectors\[1\] has the norm 1\.98e\+19; the limit is 1e\+18"):
            db.add(np.stack([np.ones(400), np.full(400, 9.9e17)]))
        largest = np.zeros((2, 400), np.float32)
        largest[:, 3] = [1e18, -1e18]
        db.add(largest)
        found = db.search(largest[0], 2)
        assert found.ids.tolist() == [0, 1]
        assert np.isfinite(found.distances).all()
        with pytest.raises(InputError, match=r"queries\[0\] has the norm"):
            db.search(np.full(400, 9.9e17, np.float32))


@pytest.mark.parametrize("index", [qvec.IVF(nlist=2), qvec.HNSW(), "flat"])
@pytest.mark.parametrize("code", ["f32", "int8", "rabitq4", qvec.Int8(scale="per_dim")])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_the_largest_vectors_are_stored_searched_and_verified(path: Path, index: Any, code: Any, metric: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (600, 400)) * 0.999e18 / 20
    with qvec.create(path, 400, metric=metric, code=code, index=index) as db:
        db.add(x)
        db.add(x[:512])
        db.add(np.tile(x[:1], (512, 1)))
        found = db.search(x[5], 3)
        assert {5, 605} <= set(found.ids.tolist())
        assert np.isfinite(found.distances).all()
        assert not db.verify()
        db.drift()
    with qvec.open(path, untrusted=True) as db:
        assert len(db) == 1624


# --- float16 ---


@pytest.mark.parametrize("options", [{"code": "f16"}, {"code": "int8", "originals": "f16"}])
@pytest.mark.parametrize("size", [1e-17, 1e-9, 1e-5, 1.0, 7e4, 1e12, 1e17])
def test_float16_keeps_cosine_vectors_of_every_size(path: Path, options: dict[str, Any], size: float) -> None:
    x = (clustered(np.random.default_rng(3), 200, 16) * size).astype(np.float32)
    with qvec.create(path, 16, **options) as db:
        db.add(x)
        stored = db.get(range(200)).vectors
        assert np.abs(stored - x).max() <= 2.0**-11 * np.abs(x).max()
        assert (np.abs(stored - x).max(axis=1) <= 2.0**-11 * np.abs(x).max(axis=1)).all()
        found = db.search(x, 1)
        assert found.ids[:, 0].tolist() == list(range(200))
        assert not db.verify()


@pytest.mark.parametrize("options", [{"code": "f16"}, {"code": "int8", "originals": "f16"}])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_float16_refuses_what_it_would_change(path: Path, options: dict[str, Any], metric: Any) -> None:
    with qvec.create(path, 2, metric=metric, **options) as db:
        for _ in range(2):  # with and without a trained code
            with pytest.raises(InputError, match=r"vectors\[1, 0\] is 70000.0: float16 ends at 65504"):
                db.add([[1.0, 1.0], [70000.0, 1.0]])
            with pytest.raises(InputError, match=r"vectors\[2\] would be the zero vector in float16.*is 1\.99"):
                db.add([[1.0, 1.0], [0.0, 0.0], [1e-9, 2e-9]])
            db.add([[1.0, 1.0], [0.0, 0.0], [65504.0, 1e-9]])


def test_requantizing_to_float16_refuses_what_it_would_change(path: Path) -> None:
    with qvec.create(path, 2, metric="l2") as db:
        db.add([[1.0, 1.0], [70000.0, 1.0]])
        with pytest.raises(InputError, match="float16 ends at 65504"):
            db.requantize("f16")
        assert db.code == "int8"


# --- distances ---


def test_cosine_distances_lie_between_0_and_2(path: Path) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((500, 300)).astype(np.float32)
    with qvec.create(path, 300, code="f32") as db:
        db.add(np.concatenate([x, -x]))
        for queries in (x, x[0]):
            distances = db.search(queries, 1000).distances
            assert distances.min() >= 0
            assert distances.max() <= 2


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("originals", ["f32", "f16"])
def test_a_largest_distance_of_zero_finds_the_query_itself(path: Path, metric: Any, originals: Any) -> None:
    x = clustered(np.random.default_rng(5), 300, 100)
    with qvec.create(path, 100, metric=metric, originals=originals) as db:
        db.add(x)
        found = db.search(x, 5, max_distance=0)
        assert found.ids[:, 0].tolist() == list(range(300))
        assert (found.counts == 1).all()


# --- options ---


def test_numpy_scalars_are_options(path: Path) -> None:
    index = qvec.IVF(nlist=np.int64(2), seed=np.int32(3))
    with qvec.create(
        path, np.int64(DIM), metric="l2", code=qvec.Int8(dims=np.int8(3)), index=index, seed=np.uint8(1)
    ) as db:
        db.add(X, threads=np.int16(1))
        hits = db.search(X[0], np.int32(3), nprobe=np.int64(2), offset=np.int8(0))
        near = db.search(X[0], k=3, max_distance=hits.distances[1], oversample=np.float32(2), exact=np.bool_(True))
        assert near.ids.tolist()[:2] == hits.ids.tolist()[:2]
        assert db.search(X[0], 2, mmr=np.float64(0.5)).counts == 2
        assert len(db.get(where={}, limit=np.int64(2), offset=np.int64(1))) == 2
    with qvec.open(path) as db:
        assert db.dim == DIM
        assert type(db.dim) is int


@pytest.mark.parametrize(
    ("given", "hint"), [("euclidean", "l2"), ("dot", "ip"), ("inner_product", "ip"), ("angular", "cosine")]
)
def test_other_names_of_metrics_are_refused_with_the_name_here(path: Path, given: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"metric='{hint}'"):
        qvec.create(path, DIM, metric=given)  # type: ignore[arg-type]


def test_packed_is_the_name_of_an_index(path: Path) -> None:
    with qvec.create(path, DIM, index="packed") as db:
        db.add(X)
        assert db.search(X[0], 1).ids.tolist() == [0]
    with qvec.create(path, DIM, index=qvec.HNSW(layout="packed"), exist_ok=True):
        pass


def test_a_collection_in_memory_disappears_with_its_handle() -> None:
    with qvec.create(":memory:", DIM) as db, qvec.create(":memory:", DIM) as other:
        db.add(X)
        assert db.search(X[0], 1).ids.tolist() == [0]
        assert len(other) == 0
        place = Path(db.path)
        assert place.exists()
    assert not place.parent.exists()
    assert not Path(":memory:").exists()
    made = qvec.create(":memory:", DIM)
    place = Path(made.path)
    del made
    gc.collect()
    assert not place.parent.exists()


def test_lists_that_were_emptied_take_single_vectors(path: Path) -> None:
    x = clustered(np.random.default_rng(2), 50, DIM)
    with qvec.create(path, DIM, index=qvec.IVF(nlist=4)) as db:
        db.add(x)
        db.delete(list(range(50)))
        for i in range(6):
            db.add(x[i])
        assert db.search(x[3], 1, nprobe=4).counts == 1
        assert not db.verify()


def test_progress_true_shows_a_bar(db: Collection, capsys: Any) -> None:
    db.add(X, progress=True)
    db.requantize("int8", progress=True)
    shown = capsys.readouterr().err
    assert "3" in shown
    with pytest.raises(InputError, match="progress must be"):
        db.add(X, progress=3)  # type: ignore[arg-type]


# --- results ---


def test_data_frames_hold_the_stored_values(db: Collection) -> None:
    pytest.importorskip("pandas")
    payloads: list[dict[str, Any]] = [
        {"n": 2**60 + 1, "flag": True, "mixed": 2**60 + 1, "id": 7, "payload.id": 8, "x": 0.5, "big": 2**63},
        {"mixed": 0.5},
        {"n": 2**60 + 3, "flag": None, "mixed": "a", "score": 1, "x": 1.5},
    ]
    db.add(X, payloads=payloads)
    for frame in (db.get([0, 1, 2]).to_pandas(), db.search(X[0], 3).to_pandas()):
        rows = frame.sort_values("id").to_dict("list")
        assert rows["id"] == [0, 1, 2]
        assert rows["n"][0] == 2**60 + 1
        assert rows["n"][2] == 2**60 + 3
        assert rows["mixed"] == [2**60 + 1, 0.5, "a"]
        assert type(rows["mixed"][0]) is int
        assert rows["flag"][0] is True
        assert rows["big"][0] == 2**63
        assert rows["payload.id"][0] == 7
        assert rows["payload.payload.id"][0] == 8
        assert str(frame["n"].dtype) == "Int64"


@pytest.mark.slow
def test_results_have_short_texts_and_tables_for_notebooks(path: Path) -> None:
    x = clustered(np.random.default_rng(1), 600, DIM)
    with qvec.create(path, DIM) as db:
        db.add(x, payloads=[{"text": "<b>&"}] * 600)
        db.add(x)
        shown = [db.search(x[0], 20), db.search(x[:9], 20), db.get(range(20)), db.stats(), db.drift()]
        shown += [db.evaluate(codes=["f32", "int8"], n=20), db.tune(n=20, ks=(10,))]
    for result in shown:
        text = result._repr_html_()
        assert "<table>" in text
        assert "<b>&" not in text.replace("<b>&lt;", "")
        assert len(repr(result)) < 3000
        assert len(result._repr_html_()) < 200_000
    assert "&lt;b&gt;&amp;" in shown[0]._repr_html_()


def test_ties_count_wherever_recall_is_measured(path: Path) -> None:
    x = clustered(np.random.default_rng(1), 400, 16)
    x[:, 0] += np.arange(400) * 1e-3  # no vector equals another
    with qvec.create(path, 16, metric="l2", code="f32", index=qvec.HNSW()) as db:
        db.add(np.concatenate([x, x]))
        report = db.evaluate(codes=["f32"], n=100, oversamples=[1])
        assert 1 - report.rows[0].code_loss == 1
        assert report.rows[0].recall > 0.99
        assert db.tune(n=100, ks=(10,)).at(10).points[-1].recall > 0.99
        db.requantize("f32")
        with db._store.read() as snap:  # a scan and a walk may find either of two equal vectors
            assert db._generations._agreement(snap, snap.state.active, snap.state.column_names) > 0.99
