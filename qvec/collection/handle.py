"""An open collection: its file, its properties, and its end."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self
from weakref import WeakMethod

from qvec.codes.configs import code_name
from qvec.common.types import Durability, FieldType, Float32Array, Metric, Mode
from qvec.common.workspace import Workspace
from qvec.rows.access import RowAccess
from qvec.rows.visibility import Visibility
from qvec.schema.config import Config
from qvec.search.pipeline import Searches
from qvec.storage.store import TIMEOUT, Snapshot, Store

if TYPE_CHECKING:  # imported by the calls that need them, to keep `import qvec` fast
    from qvec.collection.embedding import Embedding
    from qvec.quality.query_sample import QuerySample
    from qvec.text.options import Sparse, Text


PRESENT = Visibility()


class CollectionHandle:
    """A collection that is open: what it is, and how it is closed."""

    def __init__(self, store: Store, build_memory: int | None = None, visibility: Visibility = PRESENT) -> None:
        self._store = store
        self._config = Config.from_dict(dict(store.config))
        folder = os.path.dirname(os.path.abspath(store.path))
        self._access = RowAccess(self._config, Workspace(build_memory, folder))
        self._finalizer: weakref.finalize[[], CollectionHandle] | None = None
        self._search_prepared = store.search_prepared  # the bound method, which saves two look-ups in each search
        self._visibility = visibility
        self._embedding: Embedding | None = None
        self._searches = self._new_searches()

    def _new_searches(self) -> Searches:
        take = WeakMethod(self._take_queries)  # a cycle would keep a dropped handle open
        return Searches(
            self._store, self._access, lambda queries: (sampled := take()) and sampled(queries), self._visibility
        )

    def close(self, timeout: float = TIMEOUT) -> None:
        """Release the file. Later calls raise ClosedError, also those of open snapshots and scans.

        timeout: seconds to wait for running calls in other threads. After that, LockedError names these calls; they
        continue, the handle accepts no more calls, and another `close` waits again. A transaction that another thread
        has open is undone at the end of its block.
        """
        self._store.close(timeout)
        if self._finalizer is not None:
            self._finalizer()

    def call_on_close(self, function: Callable[[], object]) -> None:
        """Call a function, once, after the collection is closed or when it is garbage-collected."""
        self._finalizer = weakref.finalize(self, function)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._store.closed

    def __enter__(self) -> Self:
        self._store.end(self._store.begin())  # raises ClosedError here and not at the first call
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        head = f"<qvec.Collection {self.path!r}"
        if self.closed:
            return f"{head} closed>"
        config = self._config
        kind = f"dim {config.dim}, {config.metric}, {self.code}, {self.index}, {self.mode}"
        return f"{head}: {len(self):,} vectors of {kind}>"

    # --- properties ---

    @property
    def path(self) -> str:
        """The path of the file."""
        path: str = os.fspath(self._store.path)
        return path

    @property
    def mode(self) -> Mode:
        """The mode: "rw" if this handle can write, else "r"."""
        return self._store.mode

    @property
    def durability(self) -> Durability:
        """Whether commits survive power loss ("full"), or only the death of the process ("relaxed")."""
        return "full" if self._store.source.env.durable else "relaxed"

    @property
    def timeout(self) -> float:
        """Seconds that a transaction of this handle waits for other writers."""
        return self._store.timeout

    @property
    def dim(self) -> int:
        """The number of values of a vector."""
        return self._config.dim

    @property
    def metric(self) -> Metric:
        """The metric: "cosine", "ip" or "l2"."""
        return self._config.metric

    @property
    def model(self) -> str | None:
        """The tag of the embedding model."""
        return self._config.model

    @property
    def embeds_text(self) -> bool:
        """Whether the collection was opened with a function that embeds texts (``embed=``)."""
        return self._embedding is not None

    @property
    def code(self) -> str:
        """The name of the active code, for example "int8"."""
        with self._store.read() as snap:
            state = snap.state
            return code_name(self._config.code if state.active is None else state.generation(state.active).code)

    @property
    def index(self) -> Literal["flat", "hnsw", "ivf"]:
        """The kind of the index: a scan, a graph or inverted lists. An "auto" index begins as a scan."""
        with self._store.read() as snap:
            kind: Literal["flat", "hnsw", "ivf"] = snap.state.index.kind
            return kind

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The declared fields, name -> type. Filters (``where=``) refer to them."""
        with self._store.read() as snap:
            return MappingProxyType({name: one.type for name, one in snap.state.complete_fields.items()})

    @property
    def declarations(self) -> dict[str, FieldType | Text | Sparse]:
        """The declared fields as :func:`qvec.create` takes them: text and sparse fields with their options."""
        from qvec.filters.schema import as_declared

        with self._store.read() as snap:
            return {name: as_declared(one) for name, one in snap.state.complete_fields.items()}

    def __len__(self) -> int:
        with self._reading() as snap:
            return int(snap.state.live)

    # --- parts ---

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Snapshot]:
        """Open the last commit, without the rows that have expired, for the ``with`` block."""
        with self._store.read() as snap:
            yield self._visibility.of(snap)

    def _take_queries(self, queries: Float32Array) -> None:
        self._queries.take(queries)

    @cached_property
    def _queries(self) -> QuerySample:
        from qvec.quality.query_sample import QuerySample

        return QuerySample(self._config.dim)
