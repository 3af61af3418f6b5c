"""A LlamaIndex vector store on a collection (extra ``llamaindex``).

    store = QvecVectorStore.create("docs.qvec", dim=384, fields={"lang": "keyword"})
    index = VectorStoreIndex.from_documents(documents, storage_context=StorageContext.from_defaults(vector_store=store))

A node is a vector under its id. The payload holds its metadata and the data from which LlamaIndex restores the node.
Metadata filters refer to declared fields. ``ref_doc_id`` is always declared, because deleting a document needs it. With
``fields={"text": "text"}``, the payload holds the text of each node under ``text``, and the query modes TEXT_SEARCH,
SPARSE and HYBRID search for its words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from qvec.collection.collection import Collection
from qvec.collection.open import create
from qvec.collection.open import open as open_collection
from qvec.common.errors import InputError
from qvec.rows.results import Records

REF_DOC = "ref_doc_id"
TEXT = "text"
NODE = "_node_content"  # LlamaIndex's key of a whole node
IMPORTED_TEXTS = ("text", "document")  # payload keys of texts that come from other programs
BY_TEXT = (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
MODES = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR, VectorStoreQueryMode.HYBRID, *BY_TEXT)
OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.ANY: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$contains",
}


class QvecVectorStore(BasePydanticVectorStore):
    """Nodes in a collection whose ids are strings. Similarities are the collection's scores: larger is nearer."""

    stores_text: bool = True
    flat_metadata: bool = False
    _collection: Collection = PrivateAttr()

    def __init__(self, collection: Collection) -> None:
        super().__init__(stores_text=True)
        if collection.stats().ids != "str":
            raise InputError('nodes have string ids: create the collection with ids="str"')
        self._collection = collection

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], dim: int, fields: dict[str, Any] | None = None, **options: Any
    ) -> QvecVectorStore:
        """Create a collection. fields: metadata to filter by. fields and options: of :func:`qvec.create`."""
        declared = {**(fields or {}), REF_DOC: "keyword"}
        chosen: dict[str, Any] = {"ids": "str", "fields": declared} | options
        return cls(create(path, dim, **chosen))

    @classmethod
    def open(cls, path: str | os.PathLike[str], **options: Any) -> QvecVectorStore:
        """Open a collection. options: of :func:`qvec.open`."""
        return cls(open_collection(path, **options))

    @classmethod
    def class_name(cls) -> str:
        return "QvecVectorStore"

    @property
    def client(self) -> Collection:
        """The collection."""
        return self._collection

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with embeddings in one commit, replacing stored nodes with the same ids; the ids."""
        ids = [node.node_id for node in nodes]
        if nodes:
            vectors = [node.get_embedding() for node in nodes]
            payloads = [self._payload(node) for node in nodes]
            self._collection.upsert(vectors, ids, payloads)
        return ids

    def _payload(self, node: BaseNode) -> dict[str, Any]:
        is_indexed = self._collection.fields.get(TEXT) == "text"
        if is_indexed and TEXT in node.metadata:
            raise InputError(f"the metadata key {TEXT!r} is where the text is stored; choose another")
        payload: dict[str, Any] = node_to_metadata_dict(node, remove_text=is_indexed)
        return payload | {TEXT: node.get_content(MetadataMode.NONE)} if is_indexed else payload

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document."""
        self._collection.delete(where={REF_DOC: ref_doc_id})

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by filters, or by both."""
        self._collection.delete(node_ids, where=where_of(filters))

    def clear(self) -> None:
        """Delete every node."""
        for records in list(self._collection.scan()):
            self._collection.delete(records.ids)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Stored nodes: by id, in that order; by filters, in the order of storing; all without either."""
        if node_ids is not None:
            found = [self._collection.get(node_ids, missing="ignore")]
            if filters is not None:
                matching = {id for records in self._collection.scan(where=where_of(filters)) for id in records.ids}
                return [node for records in found for node in _nodes(records) if node.node_id in matching]
        else:
            found = list(self._collection.scan(where=where_of(filters)))
        return [node for records in found for node in _nodes(records)]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to an embedding, a diverse selection of them (MMR), those with words of ``query_str``
        (TEXT_SEARCH, SPARSE), or both (HYBRID).

        ``alpha``: weight of the embedding in HYBRID, from 0 to 1; None: the collection's fusion. ``sparse_top_k``,
        ``hybrid_top_k``: number of nodes in these modes, ``similarity_top_k`` by default.
        kwargs: of :meth:`qvec.Collection.search`; ``mmr_threshold`` is its ``mmr``, 0.5 by default.
        """
        if query.mode not in MODES:
            raise InputError(f"the store has no mode {query.mode.value!r}; it has {', '.join(m.value for m in MODES)}")
        options: dict[str, Any] = {"include": ("payloads", "vectors"), **kwargs}
        threshold = options.pop("mmr_threshold", query.mmr_threshold)
        if query.mode == VectorStoreQueryMode.MMR:
            options.setdefault("mmr", 0.5 if threshold is None else threshold)
        options |= _of_text(query)
        where = where_of(query.filters, query.doc_ids)
        allowed = query.node_ids or None  # retrievers pass an empty list for "any"
        vector = None if query.mode in BY_TEXT else np.asarray(_embedding(query), np.float32)
        hits = self._collection.search(vector, _count(query), where=where, ids_in=allowed, **options)
        nodes = [_node(hit.id, hit.payload, hit.vector) for hit in hits]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[hit.score for hit in hits], ids=[hit.id for hit in hits]
        )


def _embedding(query: VectorStoreQuery) -> list[float]:
    if query.query_embedding is None:
        raise InputError("the query has no embedding")
    return query.query_embedding


def _of_text(query: VectorStoreQuery) -> dict[str, Any]:
    """The options of a search by the query's text."""
    if query.mode not in (*BY_TEXT, VectorStoreQueryMode.HYBRID):
        return {}
    if query.query_str is None:
        raise InputError(f"the mode {query.mode.value!r} needs query_str")
    if query.mode in BY_TEXT or query.alpha is None:
        return {"text": query.query_str}
    return {"text": query.query_str, "fusion": {"vector": query.alpha, "text": 1 - query.alpha}}


def _count(query: VectorStoreQuery) -> int:
    special = query.hybrid_top_k if query.mode == VectorStoreQueryMode.HYBRID else None
    if query.mode in BY_TEXT:
        special = query.sparse_top_k
    return query.similarity_top_k if special is None else special


def where_of(filters: MetadataFilters | None, doc_ids: list[str] | None = None) -> dict[str, Any] | None:
    """LlamaIndex's filters in the collection's language; None: no condition."""
    parts = [{REF_DOC: {"$in": doc_ids}}] if doc_ids else []
    if filters is not None and filters.filters:
        parts.append(_group(filters))
    return {"$and": parts} if len(parts) > 1 else parts[0] if parts else None


def _group(filters: MetadataFilters) -> dict[str, Any]:
    inner = [_group(part) if isinstance(part, MetadataFilters) else _condition(part) for part in filters.filters]
    if filters.condition == FilterCondition.NOT:
        return {"$not": {"$or": inner}}
    return {"$or" if filters.condition == FilterCondition.OR else "$and": inner}


def _condition(part: MetadataFilter) -> dict[str, Any]:
    if part.operator == FilterOperator.IS_EMPTY:
        return {part.key: {"$empty": True}}
    if part.operator == FilterOperator.ALL and isinstance(part.value, list):
        return {"$and": [{part.key: {"$contains": value}} for value in part.value]}
    if part.operator not in OPERATORS:
        raise InputError(f"the operator {part.operator.value!r} has no counterpart in a collection's filters")
    return {part.key: {OPERATORS[part.operator]: part.value}}


def _nodes(records: Records) -> list[BaseNode]:
    columns = zip(records.ids.tolist(), records.payloads, records.vectors, strict=True)
    return [_node(id, payload, vector) for id, payload, vector in columns]


def _node(id: str, payload: Any, vector: Any) -> BaseNode:
    data = dict(payload or {})
    node: BaseNode
    text = next((str(data[key]) for key in IMPORTED_TEXTS if key in data), "")
    if NODE in data:
        stored = json.loads(data[NODE])
        node = metadata_dict_to_node(data, text=text if text and not stored.get("text") else None)
    else:  # not written by LlamaIndex
        metadata = {key: value for key, value in data.items() if key not in IMPORTED_TEXTS}
        node = TextNode(id_=id, text=text, metadata=metadata)
    node.embedding = vector.tolist()
    return node
