"""Texts in place of vectors: a function that embeds them (``embed=`` of :func:`qvec.create` and :func:`qvec.open`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import ArrayLike, NDArray, Payload
from qvec.schema.payloads import listed
from qvec.schema.validation import as_payloads

BATCH = 256  # texts of one call of the function
TEXT = "text"  # key of a payload that holds the text, unless there is exactly one text field


class Embed(Protocol):
    """A function that returns a vector for each text: array-like [n, dim].

    It may have the attributes ``model``, a tag that is recorded and checked, and ``embed_query``, the same for queries.
    """

    def __call__(self, texts: list[str], /) -> ArrayLike: ...


class Embedding:
    """A function of the caller that embeds texts, in batches of BATCH."""

    def __init__(self, function: Embed, batch: int = BATCH) -> None:
        """Raises InputError if ``function`` cannot be called, or its tag is not a string."""
        if not callable(function):
            raise InputError(f"embed must be a callable of a list of texts, got {type(function).__name__}")
        self.model: str | None = getattr(function, "model", None)
        if self.model is not None and not isinstance(self.model, str):
            raise InputError(f"embed.model is the tag of the model, a string; got {self.model!r}")
        self._batch = batch
        self._documents: Any = function
        self._queries: Any = getattr(function, "embed_query", function)

    def documents(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return the vectors of texts to store, [n, dim]."""
        return _embedded(self._documents, texts, self._batch)

    def queries(self, texts: Sequence[str]) -> NDArray[Any]:
        """Return the vectors of texts to search for, [n, dim]."""
        return _embedded(self._queries, texts, self._batch)


def _embedded(function: Any, texts: Sequence[str], batch: int) -> NDArray[Any]:
    parts = []
    for start in range(0, len(texts), batch):
        part = list(texts[start : start + batch])
        found = np.asarray(function(part))
        if found.ndim != 2 or len(found) != len(part):
            raise InputError(f"embed returned shape {found.shape} for {len(part)} texts: return a vector for each")
        parts.append(found)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def checked_texts(texts: object, name: str) -> list[str]:
    """Return texts as a list. Raises InputError naming the first that is not a string."""
    given = listed(texts)
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise InputError(f"{name} must be a list of strings, got {type(texts).__name__}")
    for i, text in enumerate(given):
        if not isinstance(text, str):
            raise InputError(f"{name}[{i}] is {text!r}, which is not a string")
    return list(given)


def with_texts(payloads: object, texts: Sequence[str], key: str) -> list[Payload]:
    """Return the payloads with each text under a key. Raises InputError for a payload with another text there."""
    made = []
    for i, (payload, text) in enumerate(zip(as_payloads(payloads, len(texts)), texts, strict=True)):
        if payload is not None and payload.get(key, text) != text:
            raise InputError(f"payload[{i}][{key!r}] is not the text of texts[{i}], which is stored there")
        made.append({**(payload or {}), key: text})
    return made


def rows_of_texts(
    embedding: Embedding | None, fields: Mapping[str, str], texts: object, payloads: object
) -> tuple[NDArray[Any], list[Payload]]:
    """Return the vectors of texts, and payloads with the texts. ``fields``: their types. Raises InputError."""
    if texts is None:
        raise InputError("vectors and texts: give one of them")
    if embedding is None:
        raise no_function("texts=")
    given = checked_texts(texts, "texts")
    names = [name for name, kind in fields.items() if kind == "text"]
    held = with_texts(payloads, given, names[0] if len(names) == 1 else TEXT)
    return embedding.documents(given), held


def query_vectors(embedding: Embedding | None, query: Any) -> Any:
    """Return the vector of a text, or the vectors of a list of texts; another query as it is. Raises InputError."""
    is_one = isinstance(query, str)
    if not is_one and not (isinstance(query, list | tuple) and query and isinstance(query[0], str)):
        return query
    if embedding is None:
        raise no_function("queries: a text")
    vectors = embedding.queries([query] if is_one else checked_texts(query, "query"))
    return vectors[0] if is_one else vectors


def no_function(what: str) -> InputError:
    """Return the error to raise for a text without a function that embeds it."""
    return InputError(f"{what} needs a function that embeds texts: open the collection with embed=")
