"""Functions for ``embed=`` that embed texts with other libraries (extras ``sentence-transformers``, ``fastembed``).

with qvec.create("docs.qvec", 384, embed=SentenceTransformerEmbedder("all-MiniLM-L6-v2")) as db:
    db.add(texts=["..."])
    db.search("a question")
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.common.extras import require
from qvec.common.types import Float32Array


class SentenceTransformerEmbedder:
    """Embeds texts with a model of sentence-transformers. ``model``: its name, the tag of the collection."""

    def __init__(self, model: str | Any, name: str | None = None, **options: Any) -> None:
        """model: a name or path, loaded with ``options``, or a SentenceTransformer, with ``name`` as its tag."""
        library = require("sentence_transformers")
        self._model = library.SentenceTransformer(model, **options) if isinstance(model, str) else model
        self.model = name if name is not None else str(model) if isinstance(model, str) else None

    def __call__(self, texts: list[str]) -> Float32Array:
        """Return the vectors of documents, float32 [n, dim]."""
        return self._encoded(texts, "document")

    def embed_query(self, texts: list[str]) -> Float32Array:
        """Return the vectors of queries, float32 [n, dim]; with the model's prompt for queries, if it has one."""
        return self._encoded(texts, "query")

    def _encoded(self, texts: list[str], prompt: str) -> Float32Array:
        prompts = getattr(self._model, "prompts", None) or {}
        named = {"prompt_name": prompt} if prompts.get(prompt) else {}
        return np.asarray(self._model.encode(texts, show_progress_bar=False, **named), np.float32)


class FastEmbedEmbedder:
    """Embeds texts with a model of fastembed. ``model``: its name, the tag of the collection."""

    def __init__(self, model: str, **options: Any) -> None:
        """model: a name of ``fastembed.TextEmbedding``, loaded with ``options``."""
        self._model = require("fastembed").TextEmbedding(model, **options)
        self.model = model

    def __call__(self, texts: list[str]) -> Float32Array:
        """Return the vectors of documents, float32 [n, dim]."""
        return np.stack(list(self._model.passage_embed(texts))).astype(np.float32)

    def embed_query(self, texts: list[str]) -> Float32Array:
        """Return the vectors of queries, float32 [n, dim]."""
        return np.stack(list(self._model.query_embed(texts))).astype(np.float32)
