"""The LlamaIndex store: nodes are stored, read, found, filtered and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec

pytest.importorskip("llama_index.core")

from llama_index.core import Document, MockEmbedding, Settings, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import node_to_metadata_dict

from qvec.integrations.llamaindex import QvecVectorStore

N, DIM = 60, 8
X = np.random.default_rng(3).normal(size=(N, DIM)).astype(np.float32)
FIELDS: dict[str, Any] = {"lang": "keyword", "year": "int", "tags": "keyword[]"}


def node(i: int) -> TextNode:
    metadata = {"lang": ["de", "en"][i % 2], "year": 2000 + i, "tags": ["a", "b"][: i % 3]}
    made = TextNode(id_=f"n{i}", text=f"text {i}", embedding=X[i].tolist(), metadata=metadata)
    made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc{i // 10}")
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QvecVectorStore]:
    store = QvecVectorStore.create(tmp_path / "s.qvec", DIM, FIELDS, metric="l2")
    assert store.add([node(i) for i in range(N)]) == [f"n{i}" for i in range(N)]
    yield store
    store.client.close()


def ask(i: int, k: int = 5, **options: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=X[i].tolist(), similarity_top_k=k, **options)


def only(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def test_a_query_finds_the_nearest_nodes_whole(store: QvecVectorStore) -> None:
    found = store.query(ask(7))
    nearest = np.argsort(((X - X[7]) ** 2).sum(axis=1))[:5]
    assert found.ids == [f"n{i}" for i in nearest]
    assert found.nodes is not None
    assert found.nodes[0].model_dump() == node(7).model_dump()
    assert found.similarities == sorted(found.similarities or [], reverse=True)


OPERATORS: list[tuple[str, Any, FilterOperator, Any]] = [
    ("lang", "de", FilterOperator.EQ, lambda m: m["lang"] == "de"),
    ("lang", "de", FilterOperator.NE, lambda m: m["lang"] != "de"),
    ("year", 2040, FilterOperator.GT, lambda m: m["year"] > 2040),
    ("year", 2040, FilterOperator.GTE, lambda m: m["year"] >= 2040),
    ("year", 2010, FilterOperator.LT, lambda m: m["year"] < 2010),
    ("year", 2010, FilterOperator.LTE, lambda m: m["year"] <= 2010),
    ("year", [2001, 2005], FilterOperator.IN, lambda m: m["year"] in (2001, 2005)),
    ("year", [2001, 2005], FilterOperator.NIN, lambda m: m["year"] not in (2001, 2005)),
    ("tags", "b", FilterOperator.CONTAINS, lambda m: "b" in m["tags"]),
    ("tags", ["a", "b"], FilterOperator.ALL, lambda m: {"a", "b"} <= set(m["tags"])),
    ("tags", ["a", "c"], FilterOperator.ANY, lambda m: "a" in m["tags"]),
    ("tags", None, FilterOperator.IS_EMPTY, lambda m: not m["tags"]),
]


@pytest.mark.parametrize(("key", "value", "operator", "holds"), OPERATORS)
def test_only_documents_that_match_metadata_filters_are_found(
    store: QvecVectorStore, key: str, value: Any, operator: Any, holds: Any
) -> None:
    expected = [f"n{i}" for i in range(N) if holds(node(i).metadata)]
    assert 0 < len(expected) < N
    filters = only(key, value, operator)
    assert [made.node_id for made in store.get_nodes(filters=filters)] == expected
    assert sorted(store.query(ask(0, N, filters=filters)).ids or []) == sorted(expected)


def test_conditions_combine(store: QvecVectorStore) -> None:
    two = [MetadataFilter(key="lang", value="de"), MetadataFilter(key="year", value=2003, operator=FilterOperator.LT)]
    for condition, expected in [
        (FilterCondition.AND, {0, 2}),
        (FilterCondition.OR, {0, 1, 2, *range(4, N, 2)}),
        (FilterCondition.NOT, set(range(N)) - {0, 1, 2, *range(4, N, 2)}),
    ]:
        filters = MetadataFilters(filters=list(two), condition=condition)
        assert {made.node_id for made in store.get_nodes(filters=filters)} == {f"n{i}" for i in expected}
    nested = MetadataFilters(filters=[two[0], MetadataFilters(filters=[two[1]], condition=FilterCondition.OR)])
    assert len(store.get_nodes(filters=nested)) == 2


def test_documents_and_nodes_limit_a_query(store: QvecVectorStore) -> None:
    assert set(store.query(ask(7, N, doc_ids=["doc3"])).ids or []) == {f"n{i}" for i in range(30, 40)}
    assert set(store.query(ask(7, N, node_ids=["n1", "n50"])).ids or []) == {"n1", "n50"}


def test_a_diverse_query_is_the_collections(store: QvecVectorStore) -> None:
    found = store.query(ask(7, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.2))
    assert found.ids == store.client.search(X[7], 5, mmr=0.2).ids.tolist()


def test_nodes_are_deleted_by_document_by_id_and_by_filter(store: QvecVectorStore) -> None:
    store.delete("doc2")
    assert len(store.client) == N - 10
    store.delete_nodes(["n0", "none"])
    assert "n0" not in store.client
    store.delete_nodes(filters=only("lang", "de"))
    assert {made.metadata["lang"] for made in store.get_nodes()} == {"en"}
    assert [made.node_id for made in store.get_nodes(["n3", "n2", "n1"])] == ["n3", "n1"]
    assert [made.node_id for made in store.get_nodes(["n3", "n1"], only("year", 2001))] == ["n1"]
    store.clear()
    assert store.get_nodes() == []


def test_unsupported_operations_raise_errors(store: QvecVectorStore, tmp_path: Path) -> None:
    with pytest.raises(qvec.InputError, match="no mode 'svm'"):
        store.query(ask(7, mode=VectorStoreQueryMode.SVM))
    with pytest.raises(qvec.InputError, match="no embedding"):
        store.query(VectorStoreQuery(query_str="text"))
    with pytest.raises(qvec.InputError, match="'text_match' has no counterpart"):
        store.get_nodes(filters=only("lang", "d", FilterOperator.TEXT_MATCH))
    with qvec.create(tmp_path / "i.qvec", DIM) as db, pytest.raises(qvec.InputError, match='ids="str"'):
        QvecVectorStore(db)
    with QvecVectorStore.open(store.client.stats().path, mode="r").client as again:
        assert len(again) == N


@pytest.fixture
def index(tmp_path: Path) -> Iterator[VectorStoreIndex]:
    Settings.llm = MockLLM()
    store = QvecVectorStore.create(tmp_path / "i.qvec", DIM, FIELDS)
    documents = [
        Document(text=f"text {i}", id_=f"doc{i}", metadata={"lang": ["de", "en"][i % 2], "year": 2000 + i})
        for i in range(20)
    ]
    context = StorageContext.from_defaults(vector_store=store)
    yield VectorStoreIndex.from_documents(documents, context, embed_model=MockEmbedding(embed_dim=DIM))
    store.client.close()


def test_retrievers_and_query_engines_find_nodes(index: VectorStoreIndex) -> None:
    assert len(index.as_retriever(similarity_top_k=4).retrieve("text 3")) == 4
    german = index.as_retriever(similarity_top_k=20, filters=only("lang", "de")).retrieve("text 3")
    assert {found.metadata["lang"] for found in german} == {"de"}
    assert len(german) == 10
    diverse = index.as_retriever(
        similarity_top_k=3, vector_store_query_mode="mmr", vector_store_kwargs={"mmr_threshold": 0.3}
    )
    assert len(diverse.retrieve("text 3")) == 3
    answer = index.as_query_engine(similarity_top_k=2, filters=only("year", 2007)).query("text 3")
    assert [found.node.ref_doc_id for found in answer.source_nodes] == ["doc7"]


def test_retrievers_and_query_engines_are_asynchronous(index: VectorStoreIndex) -> None:
    async def ask_both() -> tuple[Any, Any]:
        found = await index.as_retriever(similarity_top_k=4).aretrieve("text 3")
        return found, await index.as_query_engine(similarity_top_k=2).aquery("text 3")

    found, answer = asyncio.run(ask_both())
    assert (len(found), len(answer.source_nodes)) == (4, 2)


def test_a_deleted_document_is_not_retrieved(index: VectorStoreIndex) -> None:
    index.delete_ref_doc("doc7")
    found = index.as_retriever(similarity_top_k=20).retrieve("text 3")
    assert {node.node.ref_doc_id for node in found} == {f"doc{i}" for i in range(20) if i != 7}


def test_rows_that_other_programs_wrote_are_nodes(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, ids="str", fields={"ref_doc_id": "keyword"}) as db:
        apart = node_to_metadata_dict(node(1), remove_text=True, flat_metadata=False)
        db.add(X[:3], ["a", "n1", "c"], [{"document": "text a", "page": 1}, {**apart, "document": "text 1"}, None])
        found = {made.node_id: made for made in QvecVectorStore(db).get_nodes()}
        texts = {id: made.get_content() for id, made in found.items()}
        assert texts == {"a": "text a", "n1": "text 1", "c": ""}
        assert found["a"].metadata == {"page": 1}


@pytest.fixture
def articles(tmp_path: Path) -> Iterator[QvecVectorStore]:
    texts = ["apollo landed on the moon", "the moon is bright", "a cat sleeps", "apollo is a god", "cats and dogs"]
    store = QvecVectorStore.create(tmp_path / "text.qvec", DIM, {"text": "text", "lang": "keyword"})
    metadata = [{"lang": ["de", "en"][i % 2]} for i in range(5)]
    store.add([TextNode(id_=f"n{i}", text=texts[i], embedding=X[i].tolist(), metadata=metadata[i]) for i in range(5)])
    yield store
    store.client.close()


def test_modes_search_by_words_and_by_both(articles: QvecVectorStore) -> None:
    for mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE):
        found = articles.query(VectorStoreQuery(query_str="apollo moon", similarity_top_k=9, mode=mode))
        assert (found.ids or [])[0] == "n0"
        assert set(found.ids or []) == {"n0", "n1", "n3"}
        assert found.nodes is not None
        assert found.nodes[0].get_content() == "apollo landed on the moon"
    words = VectorStoreQuery(query_str="apollo", similarity_top_k=9, sparse_top_k=1, mode=mode)
    assert articles.query(words).ids == ["n3"]
    english = VectorStoreQuery(query_str="apollo", filters=only("lang", "en"), mode=mode)
    assert articles.query(english).ids == ["n3"]
    for alpha, fusion in ((None, None), (0.3, {"vector": 0.3, "text": 0.7})):
        both = ask(4, 3, query_str="apollo moon", mode=VectorStoreQueryMode.HYBRID, alpha=alpha)
        hits = articles.client.search(X[4], 3, text="apollo moon", fusion=fusion)
        found = articles.query(both)
        assert found.ids == hits.ids.tolist()
        np.testing.assert_allclose(found.similarities or [], hits.scores)
    assert (
        len(articles.query(ask(4, 3, query_str="moon", mode=VectorStoreQueryMode.HYBRID, hybrid_top_k=2)).ids or [])
        == 2
    )


def test_a_node_is_stored_once_and_restored_whole(articles: QvecVectorStore) -> None:
    (found,) = articles.get_nodes(["n2"])
    assert (found.get_content(), found.metadata) == ("a cat sleeps", {"lang": "de"})
    payload = articles.client.get(["n2"])[0].payload
    assert str(payload).count("a cat sleeps") == 1


def test_text_modes_need_a_text(articles: QvecVectorStore, store: QvecVectorStore) -> None:
    with pytest.raises(qvec.InputError, match="needs query_str"):
        articles.query(ask(0, mode=VectorStoreQueryMode.HYBRID))
    with pytest.raises(qvec.InputError, match="needs a text field"):
        store.query(ask(0, query_str="text", mode=VectorStoreQueryMode.HYBRID))
    with pytest.raises(qvec.InputError, match="no mode 'svm'"):
        store.query(ask(0, mode=VectorStoreQueryMode.SVM))
    with pytest.raises(qvec.InputError, match="metadata key 'text'"):
        articles.add([TextNode(text="a", embedding=X[0].tolist(), metadata={"text": "b"})])
