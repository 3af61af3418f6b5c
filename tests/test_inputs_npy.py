"""NumPy files of every dtype, order and shape: imported equal in value, or refused by name before any write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import qvec
from helpers.drawn_tables import FAST, JSON, NIGHTLY, TEXT, same
from qvec import interchange

MAX_NORM = 1e18
FLOATS = ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8")
INTEGERS = ("i1", "u1", *(f"{order}{kind}{size}" for order in "<>" for kind in "iu" for size in (2, 4, 8)))
OTHERS = ("?", "<c8", "<U3", "S3", "<M8[s]")
SHAPES = st.sampled_from([(3, 2), (1, 1), (4, 3), (2, 0), (6,), (2, 2, 2), (), (0, 3)])
IDS = st.sampled_from(["none", "<i8", ">i8", "<u8", "i1", "str", "<f8"])


def values_of(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    if dtype.kind == "f":
        whole = st.floats(width=8 * dtype.itemsize)  # type: ignore[arg-type]
        usual = st.floats(-1000, 1000, width=8 * dtype.itemsize)  # type: ignore[arg-type]
        return st.one_of(usual, usual, usual, whole)
    if dtype.kind in "iu":
        return st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    return st.just(1)


@st.composite
def files(draw: st.DrawFn) -> tuple[NDArray[Any], Any, list[Any] | None]:
    """An array of vectors, an array of ids (or None), and payloads (or None)."""
    dtype = np.dtype(draw(st.sampled_from([*FLOATS, *INTEGERS, *FLOATS, *INTEGERS, *OTHERS])))
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    values = draw(st.lists(values_of(dtype), min_size=count, max_size=count))
    x = (np.array(values, dtype) if dtype.kind in "fiu" else np.array(values).astype(dtype)).reshape(shape)
    x = np.asarray(x, order=draw(st.sampled_from(["C", "F"])))  # type: ignore[call-overload]
    rows = shape[0] if shape else 1
    kind = draw(IDS)
    ids: Any = None
    if kind == "str":
        ids = np.array(draw(st.lists(TEXT, min_size=rows, max_size=rows)), dtype="<U8")
    elif kind != "none":
        limits = (-5, 100) if kind in ("i1", "<f8") else (-5 * (kind[1] == "i"), 2 ** (63 + (kind[1] == "u")) - 1)
        ids = np.array(draw(st.lists(st.integers(*limits), min_size=rows, max_size=rows)), dtype=kind)
    payloads = draw(st.none() | st.lists(st.none() | JSON, min_size=rows, max_size=rows))
    return x, ids, payloads


def refusal_of(x: NDArray[Any], ids: Any, metric: str) -> str | None:
    """What the message names, if the files are refused. None: they are accepted."""
    if x.ndim != 2 or x.dtype.kind not in "fiu" or x.shape[1] == 0:
        return "x.npy"
    with np.errstate(over="ignore"):
        stored = x.astype(np.float32).astype(np.float64)
    norms = np.sqrt(np.square(stored).sum(axis=1))
    if not (np.isfinite(stored).all() and (norms <= MAX_NORM).all()):
        return "vectors["
    if metric == "cosine" and (np.abs(stored).max(axis=1, initial=0) < 1e-18).any():
        return "vectors["
    return None if ids is None else refusal_of_ids(ids)


def refusal_of_ids(ids: NDArray[Any]) -> str | None:
    if ids.dtype.kind == "f":
        return "ids.npy"
    if ids.dtype.kind in "iu" and len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= 2**63):
        return "id"
    if ids.dtype.kind == "U" and any(not value for value in ids.tolist()):
        return "ids["
    return "repeats" if len(set(ids.tolist())) < len(ids) else None


def round_trip(folder: Path, metric: Any, drawn: tuple[NDArray[Any], Any, list[Any] | None]) -> None:
    for old in folder.iterdir():
        old.unlink()
    x, ids, payloads = drawn
    np.save(folder / "x.npy", x)
    options: dict[str, Any] = {}
    if ids is not None:
        np.save(folder / "ids.npy", ids)
        options["ids"] = folder / "ids.npy"
    if payloads is not None:
        (folder / "p.jsonl").write_text("".join(json.dumps(value) + "\n" for value in payloads))
        options["payloads"] = folder / "p.jsonl"
    wrong = refusal_of(x, ids, metric)
    if wrong is not None:
        with pytest.raises((qvec.InputError, qvec.DuplicateIdError)) as refusal:
            store(folder, metric, options)
        assert wrong in str(refusal.value) or "ids.npy" in str(refusal.value), (wrong, refusal.value)
        return
    with store(folder, metric, options) as db:
        names = list(range(len(x))) if ids is None else ids.tolist()
        found = db.get(names)
        assert (len(db), found.ids.tolist()) == (len(x), names)
    np.testing.assert_array_equal(found.vectors, x.astype(np.float32))
    if payloads is not None:
        assert same(found.payloads, payloads), (found.payloads, payloads)


def store(folder: Path, metric: Any, options: dict[str, Any]) -> qvec.Collection:
    """A collection with the rows of the files. After an InputError it was closed and found empty."""
    source = interchange.open_source(folder / "x.npy", **options)
    db = interchange.create_for(source, folder / "a.qvec", metric=metric, code="f32", durability="relaxed")
    try:
        interchange.add_from(db, source)
    except BaseException:
        assert len(db) == 0
        db.close()
        raise
    return db


@pytest.mark.parametrize("metric", ["l2", pytest.param("cosine", marks=pytest.mark.slow)])
@FAST
@given(drawn=files())
def test_numpy_files_are_imported_as_they_are_or_refused(tmp_path: Path, metric: str, drawn: Any) -> None:
    round_trip(tmp_path, metric, drawn)


@pytest.mark.nightly
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@NIGHTLY
@given(drawn=files())
def test_2000_numpy_files_are_imported_as_they_are_or_refused(tmp_path: Path, metric: str, drawn: Any) -> None:
    round_trip(tmp_path, metric, drawn)
