"""No structure at all: every search scans the codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from qvec._kernels import Codec, Column
from qvec.index.base import Coded, IndexState, Progress
from qvec.storage.store import ColumnSpec


class FlatIndex:
    """See :class:`qvec.index.base.Index`. State: rows taken in."""

    kind: ClassVar[str] = "flat"

    def columns(self, codec: Codec) -> dict[str, ColumnSpec]:
        return {}

    def extend(
        self,
        columns: Mapping[str, Column],
        coded: Coded,
        state: IndexState,
        stop: int,
        threads: int,
        progress: Progress | None,
    ) -> IndexState:
        rows = stop - state.get("n", 0)
        if progress is not None:
            progress(rows, rows)
        return {"n": stop}

    def finder(self, columns: Mapping[str, Column], coded: Coded, state: IndexState, n: int) -> None:
        return None

    def check(self, columns: Mapping[str, Column], coded: Coded, state: IndexState, n: int) -> list[str]:
        return []
