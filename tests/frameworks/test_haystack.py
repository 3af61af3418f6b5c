"""The Haystack store: Haystack's own suite for document stores, and the retriever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import qvec

pytest.importorskip("haystack")
standard = pytest.importorskip("haystack.testing.document_store")

from haystack import Document, Pipeline  # noqa: E402
from haystack.document_stores.errors import DuplicateDocumentError  # noqa: E402
from haystack.document_stores.types import DuplicatePolicy  # noqa: E402
from haystack.errors import FilterError  # noqa: E402

from qvec.integrations.haystack import (  # noqa: E402
    QvecBM25Retriever,
    QvecDocumentStore,
    QvecEmbeddingRetriever,
    QvecHybridRetriever,
)

FIELDS = {"number": "int", "name": "keyword", "page": "keyword", "chapter": "keyword", "date": "datetime"}
DIM = 8
X = np.random.default_rng(6).normal(size=(40, DIM)).astype(np.float32)


class TestStandard(standard.DocumentStoreBaseTests):
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> Iterator[QvecDocumentStore]:
        store = QvecDocumentStore(tmp_path / "s.qvec", 768, FIELDS, metric="ip")
        yield store
        store.collection.close()

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        """Compare documents; embeddings may differ by the rounding of float32."""
        assert len(received) == len(expected)
        for found, wanted in zip(received, expected, strict=True):
            assert (found.embedding is None) == (wanted.embedding is None)
            if found.embedding is not None:
                np.testing.assert_array_equal(found.embedding, np.asarray(wanted.embedding, np.float32))
            assert found.to_dict(flatten=False) | {"embedding": None} == wanted.to_dict(flatten=False) | {
                "embedding": None
            }

    def test_write_documents(self, document_store: Any) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QvecDocumentStore]:
    store = QvecDocumentStore(tmp_path / "s.qvec", DIM, {"lang": "keyword"}, metric="cosine")
    documents = [
        Document(id=f"d{i}", content=f"text {i}", meta={"lang": ["de", "en"][i % 2]}, embedding=X[i].tolist())
        for i in range(len(X))
    ]
    assert store.write_documents(documents) == len(X)
    yield store
    store.collection.close()


def test_a_retriever_finds_the_nearest_with_scores(store: QvecDocumentStore) -> None:
    retriever = QvecEmbeddingRetriever(store, top_k=4)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit[5]))
    found = retriever.run(X[5].tolist())["documents"]
    assert [document.id for document in found] == [f"d{i}" for i in nearest[:4]]
    np.testing.assert_allclose([document.score for document in found], (unit @ unit[5])[nearest[:4]], rtol=1e-4)
    filters = {"field": "meta.lang", "operator": "==", "value": "de"}
    only = retriever.run(X[5].tolist(), filters, top_k=30)["documents"]
    assert [document.id for document in only] == [f"d{i}" for i in nearest if i % 2 == 0]


def test_a_document_without_an_embedding_is_never_found_by_one(store: QvecDocumentStore) -> None:
    store.write_documents([Document(id="bare", content="no embedding")])
    assert store.count_documents() == len(X) + 1
    found = store.search([1.0] + [0.0] * (DIM - 1), 100)
    assert len(found) == len(X)
    assert "bare" not in {document.id for document in found}
    (bare,) = [document for document in store.filter_documents() if document.id == "bare"]
    assert (bare.content, bare.embedding) == ("no embedding", None)


def test_store_and_retriever_travel_as_dicts(store: QvecDocumentStore) -> None:
    pipeline = Pipeline()
    filters = {"field": "lang", "operator": "in", "value": ["en"]}
    pipeline.add_component("retriever", QvecEmbeddingRetriever(store, filters, 3))
    text = pipeline.dumps()
    store.collection.close()
    again = Pipeline.loads(text, allowed_modules=["qvec.integrations.haystack"])
    found = again.run({"retriever": {"query_embedding": X[3].tolist()}})["retriever"]["documents"]
    assert found[0].id == "d3"
    assert len(found) == 3
    again.get_component("retriever").document_store.collection.close()


def test_bad_arguments_are_refused(store: QvecDocumentStore) -> None:
    with pytest.raises(FilterError, match="color"):
        store.filter_documents({"field": "meta.color", "operator": "==", "value": "red"})
    with pytest.raises(FilterError, match="unknown operator '~'"):
        store.filter_documents({"field": "meta.lang", "operator": "~", "value": "red"})
    with pytest.raises(qvec.InputError, match="'_embedded' is the store's own"):
        store.write_documents([Document(id="x", content="x", meta={"_embedded": 1})], DuplicatePolicy.FAIL)


ID_FILTER = {"field": "id", "operator": "in", "value": ["d3", "d4", "none"]}


def test_filters_can_name_the_id_and_the_content(store: QvecDocumentStore) -> None:
    assert {document.id for document in store.filter_documents(ID_FILTER)} == {"d3", "d4"}
    content = {"field": "content", "operator": "==", "value": "text 7"}
    assert [document.id for document in store.filter_documents(content)] == ["d7"]
    both = {"operator": "AND", "conditions": [ID_FILTER, {"field": "meta.lang", "operator": "==", "value": "de"}]}
    assert [document.id for document in store.search(X[3].tolist(), 5, both)] == ["d4"]
    assert {document.id for document in store.search(X[3].tolist(), 5, ID_FILTER)} == {"d3", "d4"}


def test_filters_without_conditions_are_evaluated_as_by_haystack(store: QvecDocumentStore) -> None:
    counts = {"AND": len(X), "OR": 0, "NOT": 0}
    for operator, count in counts.items():
        empty = {"operator": operator, "conditions": []}
        assert len(store.filter_documents(empty)) == count
        assert len(store.search(X[3].tolist(), 100, empty)) == count
        inside = {"operator": "AND", "conditions": [empty]}
        assert len(store.filter_documents(inside)) == count


def test_an_id_can_occur_twice_in_a_call(store: QvecDocumentStore) -> None:
    first, second = (Document(id="x", content=text, embedding=X[0].tolist()) for text in ("first", "second"))
    with pytest.raises(DuplicateDocumentError):
        store.write_documents([first, second], DuplicatePolicy.FAIL)
    is_x = {"field": "id", "operator": "==", "value": "x"}
    assert store.write_documents([first, second], DuplicatePolicy.SKIP) == 1
    assert [document.content for document in store.filter_documents(is_x)] == ["first"]
    assert store.write_documents([first, second], DuplicatePolicy.OVERWRITE) == 1
    assert [document.content for document in store.filter_documents(is_x)] == ["second"]


def test_a_pipeline_of_yaml_has_a_writer_and_a_retriever_on_one_path(tmp_path: Path) -> None:
    path, fields = str(tmp_path / "s.qvec"), {"lang": "keyword"}
    store = {
        "type": "qvec.integrations.haystack.QvecDocumentStore",
        "init_parameters": {"path": path, "dim": DIM, "fields": fields},
    }
    components = {
        "writer": {
            "type": "haystack.components.writers.document_writer.DocumentWriter",
            "init_parameters": {"document_store": store, "policy": "NONE"},
        },
        "retriever": {
            "type": "qvec.integrations.haystack.QvecEmbeddingRetriever",
            "init_parameters": {"document_store": store, "filters": None, "top_k": 3},
        },
    }
    text = yaml.safe_dump({"components": components, "connections": [], "metadata": {}})
    pipeline = Pipeline.loads(text, allowed_modules=["qvec.integrations.haystack"])
    documents = [Document(id=f"d{i}", content=f"text {i}", embedding=X[i].tolist()) for i in range(len(X))]
    pipeline.get_component("writer").run(documents)
    found = pipeline.get_component("retriever").run(X[3].tolist())["documents"]
    assert (len(found), found[0].id) == (3, "d3")
    with pytest.raises(qvec.InputError, match="other"):
        QvecDocumentStore(path, DIM, {"lang": "int"})
    for name in ("writer", "retriever"):
        pipeline.get_component(name).document_store.collection.close()


@pytest.fixture
def articles(tmp_path: Path) -> Iterator[QvecDocumentStore]:
    texts = ["apollo landed on the moon", "the moon is bright", "a cat sleeps", "apollo is a god", "cats and dogs"]
    store = QvecDocumentStore(tmp_path / "s.qvec", DIM, {"content": "text", "lang": "keyword"})
    meta = [{"lang": ["de", "en"][i % 2]} for i in range(5)]
    made = [Document(id=f"d{i}", content=texts[i], embedding=X[i].tolist(), meta=meta[i]) for i in range(5)]
    store.write_documents([*made, Document(id="bare", content="no embedding of the moon")])
    yield store
    store.collection.close()


def test_documents_are_found_by_words(articles: QvecDocumentStore) -> None:
    retriever = QvecBM25Retriever(articles, top_k=5)
    found = retriever.run("apollo moon")["documents"]
    assert found[0].id == "d0"
    assert {document.id for document in found} == {"d0", "d1", "d3", "bare"}
    assert found[0].content == "apollo landed on the moon"
    assert found[0].meta == {"lang": "de"}
    assert found[0].score is not None
    english = {"field": "meta.lang", "operator": "==", "value": "en"}
    assert [document.id for document in retriever.run("apollo moon", english, top_k=1)["documents"]] == ["d3"]
    by_id = {"field": "id", "operator": "==", "value": "bare"}
    assert [document.id for document in retriever.run("moon", by_id)["documents"]] == ["bare"]


@pytest.mark.parametrize("fusion", [None, "weighted", {"vector": 0.2, "text": 0.8}])
def test_documents_are_found_by_words_and_embeddings(articles: QvecDocumentStore, fusion: Any) -> None:
    retriever = QvecHybridRetriever(articles, top_k=3, fusion=fusion)
    found = retriever.run("apollo moon", X[4].tolist())["documents"]
    where = {"_embedded": True}
    hits = articles.collection.search(X[4], 3, text="apollo moon", fusion=fusion, where=where)
    assert [(document.id, document.score) for document in found] == [(hit.id, hit.score) for hit in hits]


def test_retrievers_by_words_are_restored_from_a_pipeline(articles: QvecDocumentStore) -> None:
    pipeline = Pipeline()
    pipeline.add_component("bm25", QvecBM25Retriever(articles, top_k=2))
    pipeline.add_component("hybrid", QvecHybridRetriever(articles, top_k=4, fusion={"vector": 0.5, "text": 0.5}))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["qvec.integrations.haystack"])
    assert again.get_component("bm25").run("cat")["documents"][0].id == "d2"
    hybrid = again.get_component("hybrid")
    assert (hybrid.top_k, hybrid.fusion) == (4, {"vector": 0.5, "text": 0.5})
    assert hybrid.run("cat", X[2].tolist())["documents"][0].id == "d2"
    for name in ("bm25", "hybrid"):
        again.get_component(name).document_store.collection.close()


def test_retrievers_by_words_need_a_text_field(tmp_path: Path, articles: QvecDocumentStore) -> None:
    store = QvecDocumentStore(tmp_path / "plain.qvec", DIM)
    for retriever in (QvecBM25Retriever, QvecHybridRetriever):
        with pytest.raises(qvec.InputError, match="no text field"):
            retriever(store)
    store.collection.close()
    with pytest.raises(qvec.InputError, match="meta key 'content'"):
        articles.write_documents([Document(content="a", meta={"content": "b"})])
