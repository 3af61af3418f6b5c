"""Which rows a search may find: filters and allowed ids as bitmaps, remembered for as long as a commit is searched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np

from qvec._kernels import Selection, bits_count, bits_rows
from qvec.common.errors import InputError
from qvec.common.types import Bitmap, IdKind, NDArray
from qvec.filters.evaluate import Matcher
from qvec.filters.language import And, Node, parse
from qvec.filters.schema import load_schema
from qvec.rows.lookup import find_rows
from qvec.schema.bitmaps import bitmap_of, complement, read_bitmap, rows_in
from qvec.schema.layout import DELETED, IDS
from qvec.schema.validation import as_id_set, id_keys
from qvec.storage.records import fingerprint
from qvec.storage.store import Snapshot, Transaction

MAX_FILTER_BYTES = 4 << 20
MAX_REMEMBERED = 256
MAX_REMEMBERED_BYTES = 64 << 20
N_SEEDS = 32  # selected rows from which a filtered walk starts, in addition to the graph's entries


class SelectedRows:
    """Some of the live rows of a commit, as a selection for each strategy of a search."""

    __slots__ = ("_brute_force", "_filtered_walk", "_post_filter", "bits", "count", "n", "strategies")

    def __init__(self, bits: Bitmap, n: int) -> None:
        self.bits, self.n, self.count = bits, n, bits_count(bits)
        self._brute_force: Selection | None = None
        self._post_filter: Selection | None = None
        self._filtered_walk: Selection | None = None
        self.strategies: dict[Any, Any] = {}
        """Chosen strategies by parameters (:func:`qvec.search.strategy.choose_strategy`)."""

    @property
    def brute_force(self) -> Selection:
        """Every selected row is scored, whatever the index."""
        if self._brute_force is None:
            self._brute_force = Selection(self.n, self.count, rows=bits_rows(self.bits))
        return self._brute_force

    @property
    def post_filter(self) -> Selection:
        """The index is searched without a filter; rows that are not selected are removed from the result."""
        if self._post_filter is None:
            self._post_filter = Selection(self.n, self.count, ~self.bits)
        return self._post_filter

    @property
    def filtered_walk(self) -> Selection:
        """The graph is walked among the selected rows."""
        if self._filtered_walk is None:
            rows = bits_rows(self.bits)
            seeds = rows[np.linspace(0, len(rows) - 1, min(N_SEEDS, len(rows))).astype(np.int64)]
            self._filtered_walk = Selection(self.n, self.count, ~self.bits, seeds=seeds)
        return self._filtered_walk

    @property
    def nbytes(self) -> int:
        """The most bytes that all selections take."""
        return 3 * self.bits.nbytes + 4 * self.count


class Selector:
    """The selections of one commit."""

    def __init__(self, reading: Snapshot) -> None:
        self.n: int = reading.state.n
        some_deleted = self.n > reading.state.live
        self.live = complement(self.n, read_bitmap(reading.columns[DELETED], self.n) if some_deleted else None)
        self.schema = load_schema(reading.state)
        self._known: dict[Node, Bitmap] = {}
        self._kept: OrderedDict[Hashable, SelectedRows] = OrderedDict()

    def matching(self, reading: Snapshot, where: object) -> Bitmap:
        """The live rows that fulfil a filter; InputError names the path of what is wrong in it."""
        return self._evaluate(reading, parse(where, self.schema))

    def select(
        self, reading: Snapshot, where: object, ids_in: object, ids: IdKind, name: str = "where"
    ) -> SelectedRows:
        """The live rows that fulfil a filter (None: all) and have one of the allowed ids (None: any).

        ``name``: what errors call the filter.
        """
        allowed = None if ids_in is None else _Allowed(ids_in, ids)
        key = _key(where, allowed)
        kept = None if key is None else self._kept.get(key)
        if kept is not None:
            self._touch(key)
            return kept
        bits = self._evaluate(reading, And(()) if where is None else parse(where, self.schema, name))
        if allowed is not None:
            bits = bits & allowed.rows(reading, self.n)
        selected = SelectedRows(bits, self.n)
        if key is not None:
            self._keep(key, selected)
        return selected

    def _evaluate(self, reading: Snapshot, node: Node) -> Bitmap:
        return Matcher(reading, self.live, self._known).rows(node)

    def _touch(self, key: Hashable) -> None:
        try:
            self._kept.move_to_end(key)
        except KeyError:  # another thread has just dropped it
            return

    def _keep(self, key: Hashable, selected: SelectedRows) -> None:
        self._kept[key] = selected
        while len(self._kept) > 1 and (
            len(self._kept) > MAX_REMEMBERED
            or sum(other.nbytes for other in list(self._kept.values())) > MAX_REMEMBERED_BYTES
        ):
            self._kept.popitem(last=False)


class _Allowed:
    """Ids that a search may find: a list, or a mask whose place i says whether the integer id i may be."""

    def __init__(self, ids_in: Any, ids: IdKind) -> None:
        mask = ids_in if isinstance(ids_in, np.ndarray) and ids_in.dtype == np.bool_ else None
        if mask is not None and (ids != "int64" or mask.ndim != 1):
            raise InputError("ids_in: a mask is a 1-D array of booleans, for a collection whose ids are integers")
        self._ids = np.flatnonzero(mask) if mask is not None else as_id_set(ids_in, ids, "ids_in")

    @property
    def key(self) -> Hashable:
        return self._ids.tobytes() if isinstance(self._ids, np.ndarray) else tuple(self._ids)

    def rows(self, reading: Snapshot, n: int) -> Bitmap:
        """The rows that have these ids; ids that are not stored are passed over."""
        if isinstance(self._ids, np.ndarray) and len(self._ids) > n // 64:
            stored = reading.columns[IDS].read_range(0, n).view("<i8").reshape(-1)
            rows = np.flatnonzero(np.isin(stored, self._ids))
        else:
            rows = find_rows(reading, id_keys(self._ids))
        return bitmap_of(rows[rows >= 0], n)


def _key(where: object, allowed: _Allowed | None) -> Hashable | None:
    """What a selection is remembered by; None where the filter is of other than plain data."""
    packed = fingerprint(where)
    if packed is None:
        return None
    if len(packed) > MAX_FILTER_BYTES:
        raise InputError(f"where takes {len(packed)} bytes; the limit is {MAX_FILTER_BYTES}")
    return packed, None if allowed is None else allowed.key


def selector_of(reading: Snapshot) -> Selector:
    """The selector that a commit keeps."""
    selector = reading.derived.get("selector")
    if selector is None:
        selector = reading.derived["selector"] = Selector(reading)
    return selector


def matching_rows(reading: Snapshot, where: object) -> NDArray[np.int64]:
    """Live rows that match a filter, or all live rows if it is None; ascending."""
    # A selector kept by a transaction may be older than the transaction's last change.
    selector = Selector(reading) if isinstance(reading, Transaction) else selector_of(reading)
    bits = selector.live if where is None else selector.matching(reading, where)
    return rows_in(bits)
