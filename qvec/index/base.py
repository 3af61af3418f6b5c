"""The interface of an index, and the input that an index is built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from qvec._kernels import Codec, Column, Finder
from qvec.codes.registry import Quantizer
from qvec.common.types import Bitmap, Float32Array, NDArray
from qvec.common.workspace import DEFAULT_WORKSPACE, Workspace
from qvec.schema.bitmaps import complement, read_bitmap, rows_in
from qvec.schema.layout import CODES, DELETED
from qvec.schema.quantizers import Quantizers, VectorReader
from qvec.schema.state import IndexState, Rows
from qvec.storage.store import ColumnSpec

Progress = Callable[[int, int], object]
"""Called with (done, total) rows."""


@dataclass(frozen=True)
class CodeColumn:
    """A column of codes and the codec that scores them."""

    codec: Codec
    column: Column


@dataclass(frozen=True)
class IndexInput:
    """The input that an index is built from: n rows of the collection's columns, under their own names.

    ``codes``: the codes that score rows. ``vectors``: reads the vectors; an index that is built from codes does not
    need them. Deleted rows can be reused for other vectors when the index no longer refers to them. ``workspace``: of a
    build. ``lists_only``: packed nodes are not built. ``former``: an index that is replaced, with its state.
    """

    columns: Mapping[str, Column]
    codes: CodeColumn
    n: int
    vectors: VectorReader | None = None
    workspace: Workspace = DEFAULT_WORKSPACE
    lists_only: bool = False
    former: tuple[IndexInput, IndexState] | None = None

    def read_vectors(self, rows: NDArray[Any]) -> Float32Array:
        """Return the vectors of the rows, float32 [n, dim]."""
        assert self.vectors is not None
        return self.vectors.read(rows)

    @classmethod
    def of_codes(cls, quantizers: Quantizers, columns: Mapping[str, Column], n: int) -> Self:
        """Return the input for searches and checks, which score rows by their codes."""
        codes = CodeColumn(quantizers.codes.codec, columns[CODES])
        return cls(columns, codes, n, quantizers.vector_reader(columns))

    @cached_property
    def deleted(self) -> Bitmap:
        """The deleted rows, as of the first access."""
        return read_bitmap(self.columns[DELETED], self.n)

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """The rows that are not deleted, ascending."""
        return rows_in(complement(self.n, self.deleted))


class Index(Protocol):
    """Finds candidates. An index object has no state: what it must remember is in the collection's state."""

    kind: ClassVar[str]
    empty: ClassVar[IndexState]
    """Return the state of an index without rows."""
    built_from_codes: ClassVar[bool]
    """Whether the index is derived from the codes, so that it must be rebuilt for other codes."""

    def columns(self, quantizer: Quantizer) -> dict[str, ColumnSpec]:
        """Return the columns that the index adds to the collection. Raises InputError if the codes do not suit it."""
        ...

    def extend(
        self, data: IndexInput, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        """Add stored live rows to the index. They ascend and are not indexed yet. Return the new state."""
        ...

    def max_rows(self, state: IndexState, live: int, dim: int) -> int | None:
        """Return how many rows one transaction may pass to `extend`, so that it takes about a second at most.

        None: any number. ``live``: the number of live rows, with those that are added.
        """
        ...

    def defer(self, data: IndexInput, state: IndexState, rows: Rows) -> None:
        """Prepare the columns of an index that is not empty for new rows, which `extend` adds later."""
        ...

    def unindexed_rows(self, data: IndexInput, state: IndexState) -> Rows:
        """Return the live rows that the index does not contain, ascending."""
        ...

    def drop(self, data: IndexInput, state: IndexState, rows: Rows, threads: int) -> IndexState:
        """Process deleted rows, which ascend: remove them, or count them as tombstones for `repair`.

        Rows that are not indexed are ignored. Return the new state.
        """
        ...

    def repair_due(self, state: IndexState) -> bool:
        """Whether `repair` should be called now."""
        ...

    def repair(self, data: IndexInput, state: IndexState, limit: int, threads: int) -> IndexState:
        """Remove tombstones: visit about ``limit`` rows of the index, and return the new state.

        The calls that visit all rows remove all tombstones that existed at the first of these calls.
        """
        ...

    def referenced_rows(self, data: IndexInput, state: IndexState) -> Bitmap | None:
        """Return the rows to which the index refers, including tombstones: they keep their codes.

        None: only live rows.
        """
        ...

    def move(self, data: IndexInput, state: IndexState, old: Rows, new: Rows) -> bool:
        """Replace indexed rows by unused ones, which get the same vectors, if the index can. Return whether it did."""
        ...

    def unused_rows(self, data: IndexInput, state: IndexState) -> dict[str, NDArray[np.int64]]:
        """Return the unused rows of each column of the index."""
        ...

    def n_lists(self, state: IndexState) -> int:
        """Return the number of inverted lists that a search can probe; 0 if the index has none."""
        ...

    def finder(self, data: IndexInput, state: IndexState) -> Finder | None:
        """Return the finder of candidates among the indexed rows, of any codes. None: searches scan the codes.

        Columns contain packed nodes (:data:`qvec.schema.layout.NODES`) only if ``data`` has the codes of the nodes.
        """
        ...

    def check(self, data: IndexInput, state: IndexState, deep: bool) -> list[str]:
        """Find problems in the index. ``deep``: also recompute its data from vectors and codes, and compare."""
        ...
