"""A LangChain vector store on a collection (extra ``langchain``).

    store = QvecVectorStore.create("docs.qvec", embedding, fields={"lang": "keyword"})
    store.add_texts(["..."], [{"lang": "en"}])
    store.similarity_search("a question", k=4, filter={"lang": "en"})

A document is a vector under its id, a string. The payload holds the text under the key ``text``, and the metadata.
``filter`` is the collection's ``where``, on declared fields. If ``text`` is declared as a text field, documents are
also found by their words:

    store = QvecVectorStore.create("docs.qvec", embedding, fields={"text": "text"}, search_mode="hybrid")
    store.similarity_search("a question")  # by embedding and by words; search_mode="text": by words only
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from qvec.collection.collection import Collection
from qvec.collection.open import create
from qvec.collection.open import open as open_collection
from qvec.common.errors import InputError
from qvec.common.types import check_choice

TEXT = "text"
IMPORTED_TEXT = "document"  # the key of a text that `qvec import` reads from Chroma
PROBE = "how long is a vector"

SearchMode = Literal["vector", "text", "hybrid"]


class QvecVectorStore(VectorStore):
    """Documents in a collection whose ids are strings. Its scores are the collection's: larger is nearer.

    search_mode: how texts are searched for: by their embedding ("vector"), by their words ("text") or both ("hybrid").
    Every search by a text takes ``search_mode=`` too.
    """

    def __init__(self, collection: Collection, embedding: Embeddings, search_mode: SearchMode = "vector") -> None:
        if collection.stats().ids != "str":
            raise InputError('documents have string ids: create the collection with ids="str"')
        self.collection = collection
        self._embedding = embedding
        self.search_mode: SearchMode = self._checked(search_mode)

    def _checked(self, mode: SearchMode) -> SearchMode:
        check_choice("search_mode", mode, get_args(SearchMode))
        if mode != "vector" and "text" not in self.collection.fields.values():
            raise InputError(
                f"search_mode={mode!r} needs a text field: create the collection with fields={{'text': 'text'}}"
            )
        return mode

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        embedding: Embeddings,
        dim: int | None = None,
        search_mode: SearchMode = "vector",
        **options: Any,
    ) -> Self:
        """Create a collection. dim: default, that of the embedding. options: of :func:`qvec.create`."""
        length = len(embedding.embed_query(PROBE)) if dim is None else dim
        chosen: dict[str, Any] = {"ids": "str"} | options
        return cls(create(path, length, **chosen), embedding, search_mode)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], embedding: Embeddings, search_mode: SearchMode = "vector", **options: Any
    ) -> Self:
        """Open a collection. options: of :func:`qvec.open`."""
        return cls(open_collection(path, **options), embedding, search_mode)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Self:
        """Create a collection at ``path`` with these texts. options: of :func:`qvec.create`."""
        if path is None:
            raise InputError("path says where the new collection is to be")
        store = cls.create(path, embedding, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings:
        """The embedding of texts."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any] | None] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts in one commit, replacing stored texts with the same ids; the ids.

        If one id occurs twice, the last of its texts is stored.
        """
        contents = list(texts)
        names = [name or str(uuid.uuid4()) for name in (ids or [None] * len(contents))]
        metas = metadatas or [None] * len(contents)
        if not len(contents) == len(names) == len(metas):
            raise InputError(f"{len(names)} ids and {len(metas)} metadatas for {len(contents)} texts")
        if contents:
            last = {name: i for i, name in enumerate(names)}
            payloads = [_payload(contents[i], metas[i]) for i in last.values()]
            vectors = self._embedding.embed_documents([contents[i] for i in last.values()])
            self.collection.upsert(vectors, list(last), payloads)
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete by id, or documents that match ``where=``; without either, all. Unknown ids are ignored."""
        if ids is None and kwargs.get("where") is None:
            for records in list(self.collection.scan()):
                self.collection.delete(records.ids)
        else:
            self.collection.delete(ids, **kwargs)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Stored documents, in the requested order; ids that are not stored are skipped."""
        records = self.collection.get(ids, missing="ignore")
        return [_document(record.id, record.payload) for record in records]

    def similarity_search(
        self, query: str, k: int = 4, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        """Documents nearest to a text; kwargs: ``search_mode``, and those of :meth:`qvec.Collection.search`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Documents nearest to a text, with their scores (higher is nearer), which are those of :class:`qvec.Hits`."""
        return self._search_text(query, k, filter, **kwargs)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        """Documents nearest to a vector."""
        return [document for document, _ in self._search(embedding, k, filter, **kwargs)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """A diverse selection of the ``fetch_k`` documents nearest to a text; ``lambda_mult`` 1: the nearest."""
        options = kwargs | {"mmr": (lambda_mult, max(k, fetch_k))}
        return [document for document, _ in self._search_text(query, k, filter, **options)]

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """As :meth:`max_marginal_relevance_search`, of a vector."""
        options = kwargs | {"mmr": (lambda_mult, max(k, fetch_k))}
        return [document for document, _ in self._search(embedding, k, filter, **options)]

    def _search_text(
        self, query: str, k: int, filter: dict[str, Any] | None, search_mode: SearchMode | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        chosen = self.search_mode if search_mode is None else self._checked(search_mode)
        vector = None if chosen == "text" else self._embedding.embed_query(query)
        given = kwargs if chosen == "vector" else {"text": query, **kwargs}
        return self._search(vector, k, filter, **given)

    def _search(
        self, vector: list[float] | None, k: int, filter: dict[str, Any] | None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        query = None if vector is None else np.asarray(vector, np.float32)
        hits = self.collection.search(query, k, where=filter, **kwargs)
        return [(_document(hit.id, hit.payload), hit.score) for hit in hits]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        if (mode := kwargs.get("search_mode") or self.search_mode) != "vector":
            raise InputError(
                f"scores of search_mode={mode!r} have no scale from 0 to 1: use similarity_search_with_score"
            )
        return super()._similarity_search_with_relevance_scores(query, k, **kwargs)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """From the score to a number from 0 to 1: (1 + cos) / 2, 1 / (1 + distance), or the logistic of the product."""
        metric = self.collection.metric
        if metric == "cosine":
            return lambda score: min(1.0, max(0.0, (1 + score) / 2))
        return (lambda score: 1 / (1 - score)) if metric == "l2" else _logistic


def _logistic(x: float) -> float:
    """1 / (1 + exp(-x)), without an overflow."""
    return (1 + math.tanh(x / 2)) / 2


def _payload(text: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
    if metadata and TEXT in metadata:
        raise InputError(f"the metadata key {TEXT!r} is where the text is stored; choose another")
    return {TEXT: text, **(metadata or {})}


def _document(id: str, payload: dict[str, Any] | None) -> Document:
    metadata = dict(payload or {})
    text = metadata.pop(TEXT if TEXT in metadata else IMPORTED_TEXT, "")
    return Document(id=id, page_content=text, metadata=metadata)
