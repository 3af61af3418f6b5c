"""A Haystack document store on a collection, and its retriever (extra ``haystack``).

    store = QvecDocumentStore("docs.qvec", dim=384, fields={"lang": "keyword", "year": "int"})
    store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)
    retriever = QvecEmbeddingRetriever(store, top_k=5)
    retriever.run(query_embedding, filters={"field": "meta.year", "operator": ">=", "value": 2020})

A document is a vector under its id. Its meta are keys of the payload; its content and other attributes are under keys
that begin with an underscore. Filters refer to declared meta fields. A document without an embedding is stored, counted
and filtered as any other, but no search by embedding finds it.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

import numpy as np
from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils.filters import document_matches_filter

from qvec.collection.open import create
from qvec.common.errors import DuplicateIdError, InputError
from qvec.common.types import OnConflict

DOCUMENT, EMBEDDED = "_document", "_embedded"
POLICIES: dict[DuplicatePolicy, OnConflict] = {
    DuplicatePolicy.NONE: "error",
    DuplicatePolicy.FAIL: "error",
    DuplicatePolicy.SKIP: "skip",
    DuplicatePolicy.OVERWRITE: "replace",
}
COMPARISONS = {"==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
ATTRIBUTES = ("id", "content", "blob", "score", "embedding")
NOTHING: dict[str, Any] = {EMBEDDED: {"$in": []}}


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
        plain = _names_attribute(filters)  # a collection filters by payload fields only
        where = None if plain else _where(filters)
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
        payloads = [_payload(document) for document in documents]
        ids = [document.id for document in documents]
        try:
            result = self.collection.add(vectors, ids, payloads, on_conflict=POLICIES[policy])
        except DuplicateIdError as error:
            raise DuplicateDocumentError(str(error)) from error
        return result.added + result.replaced

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete by id; ids that are not stored are ignored."""
        self.collection.delete(document_ids)

    def search(self, embedding: list[float], top_k: int, filters: dict[str, Any] | None = None) -> list[Document]:
        """The documents nearest to an embedding, with their scores."""
        ids_in = None
        if _names_attribute(filters):
            ids_in, filters = [document.id for document in self.filter_documents(filters)], None
        conditions = [part for part in (_where(filters), self._embedded()) if part]
        where = {"$and": conditions} if conditions else None
        hits = _refusing(
            lambda: self.collection.search(
                np.asarray(embedding, np.float32), top_k, where=where, ids_in=ids_in, include=("payloads", "vectors")
            )
        )
        return [_document(hit.id, hit.vector, hit.payload, hit.score) for hit in hits]

    def _embedded(self) -> dict[str, Any] | None:
        """The condition that a document has an embedding; None if all have one."""
        without = self.collection.get(where={EMBEDDED: False}, limit=1)
        return {EMBEDDED: True} if len(without) else None


@component
class QvecEmbeddingRetriever:
    """Retrieves the documents of a :class:`QvecDocumentStore` that are nearest to an embedding."""

    def __init__(
        self, document_store: QvecDocumentStore, filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> None:
        self.document_store, self.filters, self.top_k = document_store, filters, top_k

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """``documents``: the nearest, with scores. filters, top_k: in place of the retriever's own."""
        chosen = self.filters if filters is None else filters
        return {"documents": self.document_store.search(query_embedding, top_k or self.top_k, chosen)}

    def to_dict(self) -> dict[str, Any]:
        """The options of the retriever, for :meth:`from_dict`."""
        store = self.document_store.to_dict()
        return dict(default_to_dict(self, document_store=store, filters=self.filters, top_k=self.top_k))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> QvecEmbeddingRetriever:
        """The retriever that :meth:`to_dict` described."""
        parameters = data["init_parameters"]
        store = QvecDocumentStore.from_dict(parameters["document_store"])
        return cls(store, parameters["filters"], parameters["top_k"])


def _placeholder(dim: int) -> list[float]:
    """A vector that is valid under every metric, stored for a document without an embedding."""
    return [1.0] + [0.0] * (dim - 1)


def _payload(document: Document) -> dict[str, Any]:
    if reserved := {DOCUMENT, EMBEDDED} & document.meta.keys():
        raise InputError(f"the meta key {min(reserved)!r} is the store's own; choose another")
    own = document.to_dict(flatten=False)
    rest = {key: value for key, value in own.items() if key not in ("id", "meta", "embedding", "score")}
    return {**document.meta, DOCUMENT: rest, EMBEDDED: document.embedding is not None}


def _document(id: str, vector: Any, payload: dict[str, Any] | None, score: float | None = None) -> Document:
    meta = dict(payload or {})
    rest, embedded = meta.pop(DOCUMENT, {}), meta.pop(EMBEDDED, True)
    embedding = vector.tolist() if embedded else None
    return Document.from_dict({**rest, "id": id, "meta": meta, "embedding": embedding, "score": score})


def _names_attribute(filters: dict[str, Any] | None) -> bool:
    """Whether a filter refers to an attribute of documents itself, such as ``id`` or ``content``."""
    if not filters:
        return False
    return filters.get("field") in ATTRIBUTES or any(map(_names_attribute, filters.get("conditions", ())))


def _refusing(call: Any) -> Any:
    """The result of a call, with InputError replaced by Haystack's FilterError."""
    try:
        return call()
    except InputError as error:
        raise FilterError(str(error)) from error


def _where(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Haystack's filters in the collection's language."""
    if not filters:
        return None
    if "operator" not in filters:
        raise FilterError(f"'operator' is missing in {filters}")
    operator = filters["operator"]
    if operator in ("AND", "OR", "NOT"):
        if "conditions" not in filters:
            raise FilterError(f"'conditions' is missing in {filters}")
        inner = [_where(condition) or {} for condition in filters["conditions"]]
        if not inner:  # as in Haystack: AND of no conditions is true, OR is false
            return None if operator == "AND" else NOTHING
        return {"$not": {"$and": inner}} if operator == "NOT" else {f"${operator.lower()}": inner}
    for key in ("field", "value"):
        if key not in filters:
            raise FilterError(f"{key!r} is missing in {filters}")
    return _comparison(filters["field"].removeprefix("meta."), operator, filters["value"])


def _comparison(field: str, operator: str, value: Any) -> dict[str, Any]:
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"{operator} takes a list, got {value!r}")
        return {field: {"$in" if operator == "in" else "$nin": value}}
    if operator not in COMPARISONS:
        raise FilterError(f"unknown operator {operator!r}; known are {', '.join(COMPARISONS)}, in, not in")
    if operator in ("==", "!="):
        return {field: {"$exists": operator == "!="} if value is None else {COMPARISONS[operator]: value}}
    if value is None:  # a comparison with None never matches
        return NOTHING
    if isinstance(value, list) or (isinstance(value, str) and not _is_date(value)):
        raise FilterError(f"{operator} compares numbers and dates, got {value!r}")
    return {field: {COMPARISONS[operator]: value}}


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
