"""Accepted vectors of many libraries (docs/inputs.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import Collection, InputError
from qvec.datasets import exact_knn

DIM = 4
X = np.arange(1, 13, dtype=np.float32).reshape(3, DIM)


@pytest.fixture
def db(path: Path) -> Iterator[Collection]:
    with qvec.create(path, DIM, metric="l2", code="f32") as made:
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
@pytest.mark.slow
def test_queries_to_measure_with_may_have_every_form(path: Path, form: Callable[[Any], Any]) -> None:
    x = clustered(np.random.default_rng(3), 60, DIM).round()
    with qvec.create(path, DIM, metric="l2", code="f32") as db:
        db.add(x)
        assert db.tune(form(x[:9]), ks=(3,)).n_queries == 9
        assert db.evaluate(form(x[:9]), 3, ["f32"]).n_queries == 9
        assert db.choose(0.5, 3, queries=form(x[:9]), codes=["f32"]).met
    np.testing.assert_array_equal(exact_knn(form(x), form(x[:9]), 3, "l2")[1], exact_knn(x, x[:9], 3, "l2")[1])


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
