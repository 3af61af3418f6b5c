"""A Haystack document store on a collection, and its retrievers (extra ``haystack``).

    store = QvecDocumentStore("docs.qvec", dim=384, fields={"lang": "keyword", "year": "int"})
    store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)
    retriever = QvecEmbeddingRetriever(store, top_k=5)
    retriever.run(query_embedding, filters={"field": "meta.year", "operator": ">=", "value": 2020})

A document is a vector under its id. Its meta are keys of the payload; its content and other attributes are under keys
that begin with an underscore. Filters refer to declared meta fields. A document without an embedding is stored, counted
and filtered as any other, but no search by embedding finds it. With ``fields={"content": "text"}``, documents are found
by the words of their content, too: :class:`QvecBM25Retriever`, :class:`QvecHybridRetriever`.
"""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils.filters import document_matches_filter

from qvec.collection.open import create
from qvec.common.errors import DuplicateIdError, InputError
from qvec.common.types import OnConflict
from qvec.integrations.haystack_filters import EMBEDDED, names_attribute, where_of

DOCUMENT, CONTENT = "_document", "content"
POLICIES: dict[DuplicatePolicy, OnConflict] = {
    DuplicatePolicy.NONE: "error",
    DuplicatePolicy.FAIL: "error",
    DuplicatePolicy.SKIP: "skip",
    DuplicatePolicy.OVERWRITE: "replace",
}


class QvecDocumentStore:
    """Documents in a collection, which is created if it does not exist."""

    def __init__(
        self, path: str | os.PathLike[str], dim: int, fields: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """fields: meta fields to filter by. fields and options: of :func:`qvec.create`."""
        self._arguments = {"path": os.fspath(path), "dim": dim, "fields": fields, **options}
        declared = {**(fields or {}), EMBEDDED: "bool"}
        chosen: dict[str, Any] = {"ids": "str", "fields": declared, "exist_ok": True} | options
        self.collection = create(path, dim, **chosen)

    def to_dict(self) -> dict[str, Any]:
        """The path and the options of the store, for :meth:`from_dict`."""
        return dict(default_to_dict(self, **self._arguments))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QvecDocumentStore:
        """The store that :meth:`to_dict` described."""
        made: QvecDocumentStore = default_from_dict(cls, data)
        return made

    def count_documents(self) -> int:
        """The number of stored documents."""
        return len(self.collection)

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Documents that match filters, in the order in which they were stored."""
        plain = names_attribute(filters)  # a collection filters by payload fields only
        where = None if plain else where_of(filters)
        found: list[Document] = []
        for records in _refusing(lambda: list(self.collection.scan(where=where))):
            found.extend(_document(*record) for record in records)
        if filters is None or not plain:
            return found
        return [document for document in found if document_matches_filter(filters, document)]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Store documents, all or none of them; the number written. The policy NONE is the policy FAIL.

        If one id occurs twice, SKIP stores the first document and OVERWRITE the last.
        """
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise ValueError("documents must be a list of haystack.Document")
        if not documents:
            return 0
        if policy in (DuplicatePolicy.SKIP, DuplicatePolicy.OVERWRITE):
            order = documents if policy == DuplicatePolicy.OVERWRITE else documents[::-1]
            last = {document.id: document for document in order}
            documents = [last[id] for id in dict.fromkeys(document.id for document in documents)]
        vectors = [_placeholder(self.collection.dim) if d.embedding is None else d.embedding for d in documents]
        is_indexed = CONTENT in self.collection.fields
        payloads = [_payload(document, is_indexed) for document in documents]
        ids = [document.id for document in documents]
        try:
            result = self.collection.add(vectors, ids, payloads, on_conflict=POLICIES[policy])
        except DuplicateIdError as error:
            raise DuplicateDocumentError(str(error)) from error
        return result.added + result.replaced

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete by id; ids that are not stored are ignored."""
        self.collection.delete(document_ids)

    def search(
        self, embedding: list[float] | None, top_k: int, filters: dict[str, Any] | None = None, **options: Any
    ) -> list[Document]:
        """The documents nearest to an embedding, or those with words of ``text``, or both, with their scores.

        options: of :meth:`qvec.Collection.search`.
        """
        ids_in = None
        if names_attribute(filters):
            ids_in, filters = [document.id for document in self.filter_documents(filters)], None
        embedded = None if embedding is None else self._embedded()
        conditions = [part for part in (where_of(filters), embedded) if part]
        where = {"$and": conditions} if conditions else None
        query = None if embedding is None else np.asarray(embedding, np.float32)
        chosen: dict[str, Any] = {"include": ("payloads", "vectors")} | options
        hits = _refusing(lambda: self.collection.search(query, top_k, where=where, ids_in=ids_in, **chosen))
        return [_document(hit.id, hit.vector, hit.payload, hit.score) for hit in hits]

    def check_has_text(self) -> None:
        """Raise InputError unless documents are found by words."""
        if "text" not in self.collection.fields.values():
            raise InputError("the store has no text field: create it with fields={'content': 'text'}")

    def _embedded(self) -> dict[str, Any] | None:
        """The condition that a document has an embedding; None if all have one."""
        without = self.collection.get(where={EMBEDDED: False}, limit=1)
        return {EMBEDDED: True} if len(without) else None


class _Retriever:
    """Options that all retrievers have, and their form in a pipeline's file."""

    def __init__(
        self, document_store: QvecDocumentStore, filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> None:
        self.document_store, self.filters, self.top_k = document_store, filters, top_k

    def _find(
        self, embedding: list[float] | None, filters: dict[str, Any] | None, top_k: int | None, **options: Any
    ) -> dict[str, list[Document]]:
        chosen = self.filters if filters is None else filters
        return {"documents": self.document_store.search(embedding, top_k or self.top_k, chosen, **options)}

    def _options(self) -> dict[str, Any]:
        return {"filters": self.filters, "top_k": self.top_k}

    def to_dict(self) -> dict[str, Any]:
        """The options of the retriever, for :meth:`from_dict`."""
        return dict(default_to_dict(self, document_store=self.document_store.to_dict(), **self._options()))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The retriever that :meth:`to_dict` described."""
        parameters = dict(data["init_parameters"])
        store = QvecDocumentStore.from_dict(parameters.pop("document_store"))
        return cls(store, **parameters)


@component
class QvecEmbeddingRetriever(_Retriever):
    """Retrieves the documents of a :class:`QvecDocumentStore` that are nearest to an embedding."""

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """``documents``: the nearest, with scores. filters, top_k: in place of the retriever's own."""
        return self._find(query_embedding, filters, top_k)


@component
class QvecBM25Retriever(_Retriever):
    """Retrieves the documents of a :class:`QvecDocumentStore` that are best by BM25 for the words of a query."""

    def __init__(
        self, document_store: QvecDocumentStore, filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> None:
        document_store.check_has_text()
        _Retriever.__init__(self, document_store, filters, top_k)  # component makes a new class: super() fails

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """``documents``: those with words of the query, with scores. filters, top_k: as of all retrievers."""
        return self._find(None, filters, top_k, text=query)


@component
class QvecHybridRetriever(_Retriever):
    """Retrieves documents by an embedding and by the words of a query, and fuses both lists.

    fusion: of :meth:`qvec.Collection.search`; None: the fusion that the collection's ``tune_fusion`` stored, or "rrf".
    Documents without an embedding are not found.
    """

    def __init__(
        self,
        document_store: QvecDocumentStore,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        fusion: str | dict[str, float] | None = None,
    ) -> None:
        document_store.check_has_text()
        _Retriever.__init__(self, document_store, filters, top_k)  # component makes a new class: super() fails
        self.fusion = fusion

    def _options(self) -> dict[str, Any]:
        return {"filters": self.filters, "top_k": self.top_k, "fusion": self.fusion}

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """``documents``: the best of both lists, with fused scores. filters, top_k: as of all retrievers."""
        return self._find(query_embedding, filters, top_k, text=query, fusion=self.fusion)


def _placeholder(dim: int) -> list[float]:
    """A vector that is valid under every metric, stored for a document without an embedding."""
    return [1.0] + [0.0] * (dim - 1)


def _payload(document: Document, is_indexed: bool) -> dict[str, Any]:
    """``is_indexed``: the content is a key of the payload itself."""
    own_keys = {DOCUMENT, EMBEDDED, CONTENT} if is_indexed else {DOCUMENT, EMBEDDED}
    if reserved := own_keys & document.meta.keys():
        raise InputError(f"the meta key {min(reserved)!r} is the store's own; choose another")
    own = document.to_dict(flatten=False)
    rest = {key: value for key, value in own.items() if key not in ("id", "meta", "embedding", "score")}
    indexed = {CONTENT: rest.pop(CONTENT)} if is_indexed and document.content is not None else {}
    return {**document.meta, **indexed, DOCUMENT: rest, EMBEDDED: document.embedding is not None}


def _document(id: str, vector: Any, payload: dict[str, Any] | None, score: float | None = None) -> Document:
    meta = dict(payload or {})
    rest, embedded = meta.pop(DOCUMENT, {}), meta.pop(EMBEDDED, True)
    if CONTENT not in rest and isinstance(meta.get(CONTENT), str):  # an indexed content
        rest = {**rest, CONTENT: meta.pop(CONTENT)}
    embedding = vector.tolist() if embedded else None
    return Document.from_dict({**rest, "id": id, "meta": meta, "embedding": embedding, "score": score})


def _refusing(call: Any) -> Any:
    """The result of a call, with InputError replaced by Haystack's FilterError."""
    try:
        return call()
    except InputError as error:
        raise FilterError(str(error)) from error
