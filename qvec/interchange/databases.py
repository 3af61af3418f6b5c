"""Tables of other embedded vector databases, read with their own packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.common.types import IdKind, Metric, Payload
from qvec.datasets.files import named_part
from qvec.interchange.arrow import ArrowSource
from qvec.interchange.base import Batch, Matrix, Source, checked_dim, runs, slices

LANCE = ".lance"  # suffix of the directory of a table
ROWS_PER_SAMPLE_CALL = 1024


class ChromaSource(Source):
    """A collection of a persistent Chroma directory. Payloads are its metadata and the document.

    document: the payload key of the document. InputError names a row whose metadata has the same key.
    """

    id_kind: IdKind | None = "str"

    def __init__(self, path: Path, table: str | None = None, document: str = "document") -> None:
        client = require("chromadb").PersistentClient(str(path))
        name = named_part(path, "collection", "table", sorted(found.name for found in client.list_collections()), table)
        self._collection = client.get_collection(name, embedding_function=None)
        self.name, self._document = f"{path}[{name}]", document
        self.rows = self._collection.count()
        self.metric = _space(self._collection)
        self.dim = checked_dim(self._get(1, 0).vectors.shape[1], self.name) if self.rows else 0
        if not self.rows:
            raise InputError(f"{self.name} is empty: its dimension is unknown")

    def batches(self, size: int) -> Iterator[Batch]:
        for part in slices(self.rows, size):
            yield self._get(part.stop - part.start, part.start)

    def sample(self, size: int) -> Matrix:
        parts = runs(self.rows, size, ROWS_PER_SAMPLE_CALL)
        return np.concatenate([self._get(part.stop - part.start, part.start).vectors for part in parts])[:size]

    def _get(self, limit: int, offset: int) -> Batch:
        found = self._collection.get(limit=limit, offset=offset, include=["embeddings", "metadatas", "documents"])
        columns = zip(found["ids"], found["metadatas"], found["documents"], strict=True)
        payloads = [self._payload(*row) for row in columns]
        return Batch(np.asarray(found["embeddings"], np.float32), list(found["ids"]), payloads)

    def _payload(self, id: str, metadata: Any, document: str | None) -> Payload | None:
        if document is None:
            return None if metadata is None else dict(metadata)
        if metadata and self._document in metadata:
            raise InputError(
                f"{self.name}: the metadata of {id!r} has the key {self._document!r}, which the document would "
                f"replace: name another key for documents with document="
            )
        return {**(metadata or {}), self._document: document}


def lance_source(path: Path, table: str | None = None, **columns: Any) -> ArrowSource:
    """Open a table of a LanceDB directory, or the directory of a table. For columns see :class:`ArrowSource`."""
    if path.suffix == LANCE:
        path, table = path.parent, path.stem if table is None else table
    db = require("lancedb").connect(str(path))
    name = named_part(path, "table", "table", sorted(found.stem for found in path.glob(f"*{LANCE}")), table)
    opened = db.open_table(name)

    def batches(size: int) -> Iterator[Any]:
        return iter(opened.search().to_batches(size))

    return ArrowSource(f"{path}[{name}]", opened.schema, opened.count_rows(), batches, batches, **columns)


def _space(collection: Any) -> Metric | None:
    """The metric of a Chroma collection: in its configuration or, of older versions, in its metadata."""
    configuration = (getattr(collection, "configuration", None) or {}).get("hnsw") or {}
    space = configuration.get("space") or (collection.metadata or {}).get("hnsw:space")
    return cast(Metric, space) if space in ("cosine", "ip", "l2") else None
