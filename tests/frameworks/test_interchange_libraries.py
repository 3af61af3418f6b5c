"""Imports from other libraries: faiss, hnswlib, Chroma, LanceDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.interchange_samples import DIM, N, X, copied
from qvec import interchange

FAISS = {
    "Flat": 0.0,
    "IDMap2,Flat": 0.0,
    "HNSW8,Flat": 0.0,
    "IVF4,Flat": 0.0,
    "IDMap,IVF4,Flat": 0.0,
    "IVF4,SQ8": 0.1,
    "IDMap2,HNSW8,SQ8": 0.1,
    "IVF4,PQ4x4fs,RFlat": 0.0,
    "PCA8,IVF4,Flat": 5.0,
}


@pytest.mark.parametrize("description", FAISS)
def test_faiss_indexes_give_their_vectors(tmp_path: Path, description: str) -> None:
    faiss = pytest.importorskip("faiss")
    metric = "ip" if "HNSW" in description else "l2"
    index = faiss.index_factory(DIM, description, {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric])
    index.train(X)
    ids = np.arange(N) * 5 + 2
    named = "IDMap" in description
    index.add_with_ids(X, ids) if named else index.add(X)
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    source = interchange.open_source(tmp_path / "x.faiss")
    exact = FAISS[description] == 0
    assert (source.rows, source.metric, bool(source.note)) == (N, metric, not exact)
    with copied(source, tmp_path / "a.qvec") as db:
        found = db.get(ids if named else np.arange(N)).vectors
        assert np.abs(found - X).max() <= FAISS[description]
    assert 60 < len(source.sample(100)) <= 100


def test_a_faiss_index_that_cannot_give_vectors_back_is_refused(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(DIM, "PCA8,IVF4,Flat")
    index.train(X)
    index.add_with_ids(X, np.arange(N) * 5)  # ids that its own reconstruction does not support
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    with pytest.raises(qvec.InputError, match="cannot reconstruct its vectors"):
        interchange.open_source(tmp_path / "x.faiss")
    (tmp_path / "y.faiss").write_bytes(b"no index")
    with pytest.raises(qvec.InputError, match=r"y\.faiss is not an index"):
        interchange.open_source(tmp_path / "y.faiss")


def hnswlib_index(path: Path, space: str = "l2") -> None:
    index = pytest.importorskip("hnswlib").Index(space, DIM)
    index.init_index(2 * N, M=5)
    index.add_items(X, np.arange(N) * 2)
    index.mark_deleted(4)
    index.save_index(str(path))


def test_an_hnswlib_index_is_imported_without_hnswlib(tmp_path: Path) -> None:
    hnswlib_index(tmp_path / "x.bin")
    source = interchange.open_source(tmp_path / "x.bin", "hnswlib")
    assert (source.rows, source.dim) == (N - 1, DIM)
    with copied(source, tmp_path / "a.qvec", metric="l2") as db:
        rows = np.delete(np.arange(N), 2)
        np.testing.assert_array_equal(db.get(rows * 2).vectors, X[rows])
        assert 4 not in db


def test_an_hnswlib_index_under_cosine_contains_unit_vectors(tmp_path: Path) -> None:
    hnswlib_index(tmp_path / "x.bin", "cosine")
    (batch,) = interchange.open_source(tmp_path / "x.bin", "hnswlib").batches(N)
    rows = np.delete(np.arange(N), 2)
    np.testing.assert_allclose(batch.vectors, X[rows] / np.linalg.norm(X[rows], axis=1, keepdims=True), rtol=1e-5)


def test_a_damaged_hnswlib_index_is_refused(tmp_path: Path) -> None:
    hnswlib_index(tmp_path / "x.bin")
    whole = (tmp_path / "x.bin").read_bytes()
    damaged = [whole[:50], whole[:5000], b"\xff" * 8 + whole[8:]]
    damaged += [whole[: 8 * i] + b"\xff" * 8 + whole[8 * i + 8 :] for i in (2, 3, 4, 5)]
    for data in damaged:
        (tmp_path / "x.bin").write_bytes(data)
        with pytest.raises(qvec.InputError, match="hnswlib index"):
            interchange.open_source(tmp_path / "x.bin", "hnswlib")


@pytest.mark.filterwarnings("ignore")
def test_a_chroma_collection_is_imported(tmp_path: Path) -> None:
    chromadb = pytest.importorskip("chromadb")
    client = chromadb.PersistentClient(str(tmp_path / "c"))
    made = client.create_collection("docs", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)
    names = [f"id{i}" for i in range(N)]
    metadatas = [{"page": i} for i in range(N)]
    made.add(names, X, metadatas, [f"text {i}" for i in range(N)])
    source = interchange.open_source(tmp_path / "c")
    assert (source.rows, source.dim, source.metric, source.id_kind) == (N, DIM, "cosine", "str")
    with copied(source, tmp_path / "a.qvec") as db:
        found = db.get(names)
        np.testing.assert_allclose(found.vectors, X, rtol=1e-6)  # Chroma's own rounding
        assert found.payloads == [{"page": i, "document": f"text {i}"} for i in range(N)]
    client.create_collection("more", embedding_function=None)
    with pytest.raises(qvec.InputError, match="2 collections; name one with table=: docs, more"):
        interchange.open_source(tmp_path / "c")


@pytest.mark.filterwarnings("ignore")
def test_a_lancedb_table_is_imported(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    rows = [{"id": f"id{i}", "vector": X[i], "page": i} for i in range(N)]
    lancedb.connect(str(tmp_path / "l")).create_table("docs", rows)
    source = interchange.open_source(tmp_path / "l", table="docs")
    assert (source.rows, source.dim, source.id_kind) == (N, DIM, "str")
    with copied(source, tmp_path / "a.qvec") as db:
        found = db.get([f"id{i}" for i in range(N)])
        np.testing.assert_array_equal(found.vectors, X)
        assert found.payloads == [{"page": i} for i in range(N)]
    assert len(source.sample(50)) == 50
    assert interchange.open_source(tmp_path / "l" / "docs.lance").name == source.name


@pytest.mark.parametrize("metric", ["METRIC_L1", "METRIC_Linf"])
def test_a_faiss_index_of_another_metric_is_refused(tmp_path: Path, metric: str) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlat(DIM, getattr(faiss, metric))
    index.add(X)
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    with pytest.raises(qvec.InputError, match=f"has the metric {metric}"):
        interchange.open_source(tmp_path / "x.faiss")


def test_a_faiss_index_that_crashes_faiss_is_refused(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(DIM, "IVF4,PQ4x4fs")
    index.train(X)
    index.add(X)
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    with pytest.raises(qvec.InputError, match=r"x\.faiss"):
        interchange.open_source(tmp_path / "x.faiss")


def test_a_faiss_index_without_some_of_its_ids_is_read_or_refused(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    for description in ("IDMap2,Flat", "IDMap2,IVF4,Flat"):
        index = faiss.index_factory(DIM, description)
        index.train(X)
        index.add_with_ids(X, np.arange(N) * 5)
        index.remove_ids(np.arange(10) * 10)
        faiss.write_index(index, str(tmp_path / "x.faiss"))
        if "IVF" in description:
            with pytest.raises(qvec.InputError, match="no longer knows which row has which id"):
                interchange.open_source(tmp_path / "x.faiss")
        else:
            (batch,) = interchange.open_source(tmp_path / "x.faiss").batches(N)
            assert len(batch.vectors) == N - 10
            np.testing.assert_array_equal(batch.vectors, X[batch.ids // 5])
