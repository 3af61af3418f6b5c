"""The rows that match a filter, as a bitmap: uint64 [ceil(n / 64)], bit r of word w is row 64 w + r."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qvec._kernels import Deadline
from qvec.common.types import Bitmap
from qvec.filters.language import Among, And, Between, Exists, HasItems, Matches, Node, Not, Or
from qvec.filters.postings import read_items, read_postings, read_range
from qvec.filters.schema import MAX_KEY
from qvec.filters.values import scan_values
from qvec.storage.store import Snapshot
from qvec.text.reader import rows_with_all, rows_with_any

MAX_REMEMBERED_BYTES = 16 << 20


class Matcher:
    """Evaluates filters over the live rows of a snapshot, or of a transaction that writes nothing during the call."""

    def __init__(
        self, reading: Snapshot, live: Bitmap, known: dict[Node, Bitmap], deadline: Deadline | None = None
    ) -> None:
        """``known``: results for the same rows, which are reused; new results are added."""
        self.reading, self.live, self._known, self._deadline = reading, live, known, deadline
        self.n: int = reading.state.n

    def rows(self, node: Node) -> Bitmap:
        """The live rows that match a filter; read-only. SearchTimeoutError soon after the deadline."""
        if self._deadline is not None:
            self._deadline.check()
        known = self._known.get(node)
        if known is None:
            if len(self._known) * self.live.nbytes >= MAX_REMEMBERED_BYTES:
                self._known.clear()
            known = self._known[node] = self._evaluate(node)
        return known

    def _evaluate(self, node: Node) -> Bitmap:
        if isinstance(node, And):
            return self._combined(np.bitwise_and, self.live, node.nodes)
        if isinstance(node, Or):
            return self._combined(np.bitwise_or, np.zeros_like(self.live), node.nodes)
        if isinstance(node, Not):
            return self.live & ~self.rows(node.node)
        bits = np.zeros_like(self.live)
        self._leaf(node, bits)
        return bits

    def _combined(self, join: Callable[..., Bitmap], start: Bitmap, nodes: tuple[Node, ...]) -> Bitmap:
        found = start.copy()
        for node in nodes:
            join(found, self.rows(node), out=found)
        return found

    def _leaf(self, node: Among | Between | Exists | HasItems | Matches, bits: Bitmap) -> None:
        field, deadline = node.field, self._deadline
        if isinstance(node, Matches):
            rows_with_all(self.reading, field.name, node.terms, self.n, bits)
        elif field.is_searched:
            rows_with_any(self.reading, field.name, self.n, bits)
        elif isinstance(node, HasItems):
            read_items(self.reading, field, self.n, bits, deadline)
        elif isinstance(node, Among) and field.has_postings:
            for key in node.keys:
                read_postings(self.reading, field, key, self.n, bits, deadline)
        elif field.has_column:
            scan_values(self.reading.columns, field, _ranges(node), self.n, bits)
        elif isinstance(node, Between):
            read_range(self.reading, field, node.low, node.high, self.n, bits, deadline)
        else:
            read_postings(self.reading, field, None, self.n, bits, deadline)


def _ranges(node: Among | Between | Exists) -> list[tuple[int, int]]:
    if isinstance(node, Among):
        return [(key, key) for key in node.keys if isinstance(key, int)]
    if isinstance(node, Between):
        return [(node.low, node.high)]
    return [(1, MAX_KEY)]
