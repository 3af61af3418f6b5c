"""No structure at all: every search scans the codes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.common.types import NDArray
from qvec.index.base import IndexState, Progress, Rows, Source
from qvec.storage.store import ColumnSpec


class FlatIndex:
    """See :class:`qvec.index.base.Index`. Points at nothing, and so remembers nothing."""

    kind: ClassVar[str] = "flat"
    of_codes: ClassVar[bool] = False

    def columns(self, quantizer: Quantizer) -> dict[str, ColumnSpec]:
        return {}

    def extend(
        self, source: Source, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        if progress is not None:
            progress(len(rows), len(rows))
        return state

    def drop(self, source: Source, state: IndexState, rows: Rows, threads: int) -> IndexState:
        return state

    def due(self, state: IndexState) -> bool:
        return False

    def mend(self, source: Source, state: IndexState, limit: int, threads: int) -> IndexState:
        return state

    def held(self, source: Source, state: IndexState) -> None:
        return None

    def spare(self, source: Source, state: IndexState) -> dict[str, NDArray[np.int64]]:
        return {}

    def n_lists(self, state: IndexState) -> int:
        return 0

    def finder(self, source: Source, state: IndexState) -> None:
        return None

    def check(self, source: Source, state: IndexState, deep: bool) -> list[str]:
        return []
