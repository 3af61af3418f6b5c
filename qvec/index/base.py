"""What the collection asks of an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from qvec._kernels import Codec, Column, Finder
from qvec.storage.store import ColumnSpec
from qvec.types import NDArray

Progress = Callable[[int, int], object]
"""Called with (done, total) rows."""

Rows = NDArray[np.uint32]
IndexState = dict[str, Any]


@dataclass(frozen=True)
class Coded:
    """Rows of codes and what scores them."""

    codec: Codec
    codes: Column


class Index(Protocol):
    """How candidates are found. Stateless: what it must remember is plain data in the snapshot's state."""

    kind: ClassVar[str]

    def columns(self, codec: Codec) -> dict[str, ColumnSpec]:
        """Columns beyond codes that it keeps; InputError where it cannot work on such codes."""
        ...

    def extend(
        self,
        columns: Mapping[str, Column],
        coded: Coded,
        state: IndexState,
        stop: int,
        threads: int,
        progress: Progress | None,
    ) -> IndexState:
        """Take in the stored rows [state's n, stop); the new state."""
        ...

    def finder(self, columns: Mapping[str, Column], coded: Coded, state: IndexState, n: int) -> Finder | None:
        """What finds candidates among n rows of the codes, whatever codes; None: a scan does.

        ``columns`` hold what was made from the codes in force (:data:`qvec.layout.NODES`) only where these are they.
        """
        ...

    def check(self, columns: Mapping[str, Column], coded: Coded, state: IndexState, n: int) -> list[str]:
        """Problems found in what it keeps of n rows."""
        ...
