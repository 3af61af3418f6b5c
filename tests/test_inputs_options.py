"""Accepted options, and the forms of results (docs/inputs.md)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import Collection, InputError, interchange
from qvec.datasets import exact_knn

DIM = 4
X = np.arange(1, 13, dtype=np.float32).reshape(3, DIM)


@pytest.fixture
def db(path: Path) -> Iterator[Collection]:
    with qvec.create(path, DIM, metric="l2", code="f32") as made:
        yield made


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


def test_progress_true_shows_a_bar_of_files_and_neighbors(db: Collection, tmp_path: Path, capsys: Any) -> None:
    db.add(X)
    interchange.export(db, tmp_path / "x.npy", progress=True)
    interchange.add_from(db, interchange.open_source(tmp_path / "x.npy"), progress=True)
    exact_knn(X, X, 2, "l2", progress=True)
    shown = capsys.readouterr().err
    assert all(label in shown for label in ("export", "import", "exact neighbors"))
    for call in (
        lambda: interchange.export(db, tmp_path / "y.npy", progress=3),  # type: ignore[arg-type]
        lambda: interchange.add_from(db, interchange.open_source(tmp_path / "x.npy"), progress=3),  # type: ignore[arg-type]
        lambda: exact_knn(X, X, 2, "l2", progress=3),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="progress must be"):
            call()
    assert len(db) == 6
    assert not (tmp_path / "y.npy").exists()


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
            assert db._measurements.generations._agreement(snap, snap.state.active, snap.state.column_names) > 0.99
