"""The LangChain store: LangChain's own suite for vector stores, and cases that the suite does not cover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec

pytest.importorskip("langchain_core")
vectorstores = pytest.importorskip("langchain_tests.integration_tests.vectorstores")

from qvec.integrations.langchain import QvecVectorStore  # noqa: E402

pytestmark = pytest.mark.anyio  # whose plugin comes with LangChain: for the coroutines of its suite


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Hashed:
    """Embeds a text as normal numbers seeded by its characters: equal texts alike, others far apart."""

    def embed_query(self, text: str) -> list[float]:
        rng = np.random.default_rng(list(text.encode()) or [0])
        return [float(value) for value in rng.normal(size=16)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


class TestStandard(vectorstores.VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[Any]:
        store = QvecVectorStore.create(tmp_path / "s.qvec", self.get_embeddings())
        yield store
        store.collection.close()


@pytest.fixture(params=["cosine", "l2", "ip"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QvecVectorStore]:
    texts = [f"text {i}" for i in range(50)]
    metadatas = [{"page": i, "lang": ["de", "en"][i % 2]} for i in range(50)]
    options: dict[str, Any] = {"path": tmp_path / "s.qvec", "metric": request.param, "fields": {"lang": "keyword"}}
    store = QvecVectorStore.from_texts(texts, Hashed(), metadatas, ids=texts, **options)
    yield store
    store.collection.close()


def test_a_search_returns_documents_with_metadata_scores_and_relevance(store: QvecVectorStore) -> None:
    (first, score), *others = store.similarity_search_with_score("text 7", 5)
    assert (first.id, first.page_content, first.metadata) == ("text 7", "text 7", {"page": 7, "lang": "en"})
    assert all(other <= score for _, other in others)
    (_, relevance), *rest = store.similarity_search_with_relevance_scores("text 7", 5)
    assert all(0 <= other <= relevance <= 1 for _, other in rest)
    assert store.as_retriever(search_kwargs={"k": 2}).invoke("text 3")[0].id == "text 3"


def test_a_filter_is_a_where(store: QvecVectorStore) -> None:
    found = store.similarity_search("text 7", 20, filter={"lang": "de"})
    assert len(found) == 20
    assert {document.metadata["lang"] for document in found} == {"de"}


def test_diverse_documents_are_those_of_the_collection(store: QvecVectorStore) -> None:
    expected = store.collection.search(Hashed().embed_query("text 7"), 4, mmr=(0.3, 20)).ids.tolist()
    found = store.max_marginal_relevance_search("text 7", 4, lambda_mult=0.3)
    assert [document.id for document in found] == expected


def test_a_store_is_opened_again(store: QvecVectorStore) -> None:
    path = store.collection.stats().path
    with QvecVectorStore.open(path, Hashed(), mode="r").collection as again:
        assert len(again) == 50


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(qvec.InputError, match="path says where"):
        QvecVectorStore.from_texts(["a"], Hashed())
    with (
        qvec.create(tmp_path / "i.qvec", 16) as db,
        pytest.raises(qvec.InputError, match='ids="str"'),
    ):
        QvecVectorStore(db, Hashed())
    store = QvecVectorStore.create(tmp_path / "s.qvec", Hashed())
    with pytest.raises(qvec.InputError, match="1 ids and 2 metadatas for 2 texts"):
        store.add_texts(["a", "b"], [{}, {}], ids=["x"])
    with pytest.raises(qvec.InputError, match="key 'text' is where the text is stored"):
        store.add_texts(["a"], [{"text": "b"}])
    store.collection.close()


def test_metadata_can_be_missing_and_an_id_occur_twice(store: QvecVectorStore) -> None:
    assert store.add_texts(["a", "b", "c"], [None, {"page": 1}, None], ids=["x", "x", "y"]) == ["x", "x", "y"]
    found = {document.id: document for document in store.get_by_ids(["x", "y"])}
    assert (found["x"].page_content, found["x"].metadata) == ("b", {"page": 1})
    assert (found["y"].page_content, found["y"].metadata) == ("c", {})


def test_deleting_without_ids_deletes_all(store: QvecVectorStore) -> None:
    store.delete(where={"lang": "de"})
    assert len(store.collection) == 25
    assert store.delete(None)
    assert len(store.collection) == 0


def test_the_relevance_of_every_product_is_a_number(tmp_path: Path) -> None:
    class Long(Hashed):
        def embed_query(self, text: str) -> list[float]:
            return [1000.0 if text == "up" else -1000.0] * 16

    store = QvecVectorStore.from_texts(["up", "down"], Long(), path=tmp_path / "s.qvec", metric="ip")
    found = store.similarity_search_with_relevance_scores("up", 2)
    assert [(document.page_content, relevance) for document, relevance in found] == [("up", 1.0), ("down", 0.0)]
    store.collection.close()


def test_texts_that_were_imported_from_chroma_are_found(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "c.qvec", 16, ids="str") as db:
        db.add(Hashed().embed_documents(["one"]), ["a"], [{"document": "one", "page": 1}])
        (found,) = QvecVectorStore(db, Hashed()).similarity_search("one", 1)
        assert (found.page_content, found.metadata) == ("one", {"page": 1})


@pytest.fixture
def articles(tmp_path: Path) -> Iterator[QvecVectorStore]:
    texts = ["apollo landed on the moon", "the moon is bright", "a cat sleeps", "apollo is a god", "cats and dogs"]
    options: dict[str, Any] = {"path": tmp_path / "s.qvec", "fields": {"text": "text", "lang": "keyword"}}
    metadatas = [{"lang": ["de", "en"][i % 2]} for i in range(len(texts))]
    store = QvecVectorStore.from_texts(texts, Hashed(), metadatas, ids=list("abcde"), search_mode="hybrid", **options)
    yield store
    store.collection.close()


def test_texts_are_found_by_words_by_vectors_and_by_both(articles: QvecVectorStore) -> None:
    question = "apollo moon"
    by_words = [document.id for document in articles.similarity_search(question, 4, search_mode="text")]
    assert by_words[0] == "a"
    assert set(by_words) == {"a", "b", "d"}
    vector = Hashed().embed_query(question)
    nearest = [document.id for document in articles.similarity_search(question, 5, search_mode="vector")]
    assert nearest == articles.collection.search(np.asarray(vector, np.float32), 5).ids.tolist()
    both = articles.collection.search(np.asarray(vector, np.float32), 3, text=question)
    found = articles.similarity_search_with_score(question, 3)  # the store's own mode
    assert [(document.id, score) for document, score in found] == [(hit.id, hit.score) for hit in both]
    assert all(document.page_content for document, _ in found)
    assert articles.similarity_search(question, 1, search_mode="text", filter={"lang": "en"})[0].id in "bd"
    assert articles.max_marginal_relevance_search(question, 2, search_mode="text")[0].id == "a"
    retriever = articles.as_retriever(search_kwargs={"k": 1, "search_mode": "text"})
    assert retriever.invoke(question)[0].id == "a"
    by_vector = articles.similarity_search_by_vector(vector, 5)
    assert [document.id for document in by_vector] == nearest


def test_modes_that_cannot_be_are_refused(articles: QvecVectorStore, tmp_path: Path) -> None:
    with pytest.raises(qvec.InputError, match="no scale from 0 to 1"):
        articles.similarity_search_with_relevance_scores("moon")
    with pytest.raises(qvec.InputError, match="search_mode must be one of vector, text, hybrid"):
        articles.similarity_search("moon", search_mode="words")  # type: ignore[arg-type]
    with pytest.raises(qvec.InputError, match="needs a text field"):
        QvecVectorStore.create(tmp_path / "other.qvec", Hashed(), search_mode="text")
