"""What the collection asks of an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from qvec._kernels import Codec, Column, Finder
from qvec.codes.registry import Quantizer
from qvec.common.types import Bitmap, Float32Array, NDArray
from qvec.schema.bitmaps import complement, read_bitmap, rows_in
from qvec.schema.layout import CODES, DELETED, VECTORS
from qvec.storage.store import ColumnSpec

Progress = Callable[[int, int], object]
"""Called with (done, total) rows."""

Rows = NDArray[np.uint32]
IndexState = dict[str, Any]
"""Plain data: "kind"; "tombstones", deleted rows that the index still points at; and what the kind remembers."""


@dataclass(frozen=True)
class CodeColumn:
    """Rows of codes and what scores them."""

    codec: Codec
    column: Column


@dataclass(frozen=True)
class VectorReader:
    """Vectors as exactly as they are stored: originals, or what their codes stand for where none are kept."""

    quantizer: Quantizer
    column: Column

    def read(self, rows: NDArray[Any]) -> Float32Array:
        """float32 [n, dim] of the rows."""
        codes, quantizer = self.column.read(rows), self.quantizer
        return quantizer.codec.decode(codes) if quantizer.transform is None else quantizer.decode(codes)


def vector_reader(
    quantizer: Quantizer, original_quantizer: Quantizer | None, columns: Mapping[str, Column]
) -> VectorReader:
    """The reader of the most exact vectors that are stored: the originals, else the codes."""
    if original_quantizer is None:
        return VectorReader(quantizer, columns[CODES])
    return VectorReader(original_quantizer, columns[VECTORS])


@dataclass(frozen=True)
class IndexInput:
    """What an index is over: the collection's columns by their own names, n rows of them, and codes to go by.

    ``stored``: the vectors themselves; None serves an index that is made of codes. Rows are not all in use: those that
    are deleted may be given to other vectors once nothing points at them.
    """

    columns: Mapping[str, Column]
    codes: CodeColumn
    n: int
    vectors: VectorReader | None = None

    def read_vectors(self, rows: NDArray[Any]) -> Float32Array:
        """float32 [n, dim] of the rows."""
        assert self.vectors is not None
        return self.vectors.read(rows)

    @cached_property
    def deleted(self) -> Bitmap:
        """The rows that are no results, as of the first time this is asked for."""
        return read_bitmap(self.columns[DELETED], self.n)

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """The rows that are not deleted, ascending."""
        return rows_in(complement(self.n, self.deleted))


class Index(Protocol):
    """How candidates are found. Stateless: what it must remember is plain data in the snapshot's state."""

    kind: ClassVar[str]
    built_from_codes: ClassVar[bool]
    """Whether what it keeps is made of the codes, and has to be made anew for others."""

    def columns(self, quantizer: Quantizer) -> dict[str, ColumnSpec]:
        """Columns beyond codes that it keeps, and makes as long as it needs them.

        InputError where it cannot work on such codes.
        """
        ...

    def extend(
        self, data: IndexInput, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        """Take in rows that it does not point at: stored, not deleted, ascending, any below n. The new state."""
        ...

    def drop(self, data: IndexInput, state: IndexState, rows: Rows, threads: int) -> IndexState:
        """Rows, ascending, have been deleted: let go of them, or count them as dead and leave them to `mend`.

        Rows that it does not point at are passed over. Returns the new state.
        """
        ...

    def repair_due(self, state: IndexState) -> bool:
        """Whether it is time to `mend`."""
        ...

    def repair(self, data: IndexInput, state: IndexState, limit: int, threads: int) -> IndexState:
        """Let go of dead rows by going through ``limit`` rows of what it keeps, or a few more; the new state.

        None is dead after as many calls as it takes to go through all.
        """
        ...

    def referenced_rows(self, data: IndexInput, state: IndexState) -> Bitmap | None:
        """Rows that it points at, deleted ones among them: these must keep their codes. None: no deleted ones."""
        ...

    def unused_rows(self, data: IndexInput, state: IndexState) -> dict[str, NDArray[np.int64]]:
        """By column of what it keeps, the rows that hold nothing any more."""
        ...

    def n_lists(self, state: IndexState) -> int:
        """How many lists a search may probe; 0: it has none."""
        ...

    def finder(self, data: IndexInput, state: IndexState) -> Finder | None:
        """What finds candidates among the rows of any codes; None: a scan does.

        The columns hold what was made from the codes in force (:data:`qvec.schema.layout.NODES`) only where these are they.
        """
        ...

    def check(self, data: IndexInput, state: IndexState, deep: bool) -> list[str]:
        """Problems found in what it keeps; ``deep``: also by making anew what it made of vectors and codes."""
        ...
