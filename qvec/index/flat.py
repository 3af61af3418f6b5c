"""The flat index: every search scans all codes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.common.types import NDArray
from qvec.index.base import IndexInput, Progress
from qvec.schema.state import FlatState, IndexState, Rows
from qvec.storage.store import ColumnSpec


class FlatIndex:
    """See :class:`qvec.index.base.Index`. It has no columns and no state."""

    kind: ClassVar[str] = "flat"
    empty: ClassVar[IndexState] = FlatState()
    built_from_codes: ClassVar[bool] = False

    def columns(self, quantizer: Quantizer) -> dict[str, ColumnSpec]:
        return {}

    def extend(
        self, data: IndexInput, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        if progress is not None:
            progress(len(rows), len(rows))
        return state

    def max_rows(self, state: IndexState, live: int, dim: int) -> None:
        return None

    def defer(self, data: IndexInput, state: IndexState, rows: Rows) -> None:
        pass

    def unindexed_rows(self, data: IndexInput, state: IndexState) -> Rows:
        return np.zeros(0, np.uint32)

    def drop(self, data: IndexInput, state: IndexState, rows: Rows, threads: int) -> IndexState:
        return state

    def repair_due(self, state: IndexState) -> bool:
        return False

    def repair(self, data: IndexInput, state: IndexState, limit: int, threads: int) -> IndexState:
        return state

    def referenced_rows(self, data: IndexInput, state: IndexState) -> None:
        return None

    def move(self, data: IndexInput, state: IndexState, old: Rows, new: Rows) -> bool:
        return False

    def unused_rows(self, data: IndexInput, state: IndexState) -> dict[str, NDArray[np.int64]]:
        return {}

    def n_lists(self, state: IndexState) -> int:
        return 0

    def finder(self, data: IndexInput, state: IndexState) -> None:
        return None

    def check(self, data: IndexInput, state: IndexState, deep: bool) -> list[str]:
        return []
