"""Which rows a search may find: filters and allowed ids as bitmaps, remembered for as long as a commit is searched."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import numpy as np

from qvec._kernels import Selection, bits_count, bits_rows, bits_set
from qvec.common.errors import InputError
from qvec.common.types import Bitmap, IdKind, NDArray
from qvec.filters.evaluate import Matcher, live_bitmap
from qvec.filters.language import And, Node, parse
from qvec.filters.schema import load_schema
from qvec.rows.lookup import find_rows
from qvec.schema.bitmaps import read_bitmap
from qvec.schema.layout import DELETED, IDS
from qvec.schema.validation import as_id_set, id_keys
from qvec.storage.records import fingerprint
from qvec.storage.store import Reading, Snapshot, Transaction

MAX_FILTER_BYTES = 4 << 20
MAX_REMEMBERED = 256
MAX_REMEMBERED_BYTES = 64 << 20
SEEDS = 32  # rows that a walk among selected ones starts from, besides the graph's entries


class Selected:
    """Some of the live rows of a commit, in the forms that the kernels take."""

    __slots__ = ("_listed", "_passed", "_walked", "bits", "count", "n", "ways")

    def __init__(self, bits: Bitmap, n: int) -> None:
        self.bits, self.n, self.count = bits, n, bits_count(bits)
        self._listed: Selection | None = None
        self._passed: Selection | None = None
        self._walked: Selection | None = None
        self.ways: dict[Any, Any] = {}
        """What was chosen for them by plan (:func:`qvec.search.strategy.choose_way`)."""

    @property
    def listed(self) -> Selection:
        """Each row is scored, whatever the index."""
        if self._listed is None:
            self._listed = Selection(self.n, self.count, rows=bits_rows(self.bits))
        return self._listed

    @property
    def passed(self) -> Selection:
        """The index is searched as ever; what is not selected is dropped from what it finds."""
        if self._passed is None:
            self._passed = Selection(self.n, self.count, ~self.bits)
        return self._passed

    @property
    def walked(self) -> Selection:
        """A graph is walked among the selected rows."""
        if self._walked is None:
            rows = bits_rows(self.bits)
            spread = np.linspace(0, len(rows) - 1, min(SEEDS, len(rows))).astype(np.int64)
            self._walked = Selection(self.n, self.count, ~self.bits, seeds=rows[spread])
        return self._walked

    @property
    def nbytes(self) -> int:
        """What it may come to hold."""
        return 3 * self.bits.nbytes + 4 * self.count


class Selector:
    """The selections of one commit."""

    def __init__(self, reading: Reading) -> None:
        self.n: int = reading.state["n"]
        some_deleted = self.n > reading.state["live"]
        self.live = live_bitmap(self.n, read_bitmap(reading.columns[DELETED], self.n) if some_deleted else None)
        self.schema = load_schema(reading.state)
        self._known: dict[Node, Bitmap] = {}
        self._kept: OrderedDict[Hashable, Selected] = OrderedDict()

    def matching(self, reading: Reading, where: object) -> Bitmap:
        """The live rows that fulfil a filter; InputError names the path of what is wrong in it."""
        return self._evaluate(reading, parse(where, self.schema))

    def select(self, reading: Snapshot, where: object, ids_in: object, ids: IdKind, name: str = "where") -> Selected:
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
        selected = Selected(bits, self.n)
        if key is not None:
            self._keep(key, selected)
        return selected

    def _evaluate(self, reading: Reading, node: Node) -> Bitmap:
        return Matcher(reading, self.live, self._known).rows(node)

    def _touch(self, key: Hashable) -> None:
        try:
            self._kept.move_to_end(key)
        except KeyError:  # another thread has just dropped it
            return

    def _keep(self, key: Hashable, selected: Selected) -> None:
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
        bits = np.zeros((n + 63) // 64, np.uint64)
        if isinstance(self._ids, np.ndarray) and len(self._ids) > n // 64:
            stored = reading.columns[IDS].read_range(0, n).view("<i8").reshape(-1)
            rows = np.flatnonzero(np.isin(stored, self._ids))
        else:
            rows = find_rows(reading, id_keys(self._ids))
        bits_set(rows[rows >= 0].astype(np.uint32), n, bits)
        return bits


def _key(where: object, allowed: _Allowed | None) -> Hashable | None:
    """What a selection is remembered by; None where the filter is of other than plain data."""
    packed = fingerprint(where)
    if packed is None:
        return None
    if len(packed) > MAX_FILTER_BYTES:
        raise InputError(f"where takes {len(packed)} bytes; the limit is {MAX_FILTER_BYTES}")
    return packed, None if allowed is None else allowed.key


def selector_of(reading: Reading) -> Selector:
    """The selector that a commit keeps."""
    selector = reading.derived.get("selector")
    if selector is None:
        selector = reading.derived["selector"] = Selector(reading)
    return selector


def matching_rows(reading: Snapshot | Transaction, where: object) -> NDArray[np.int64]:
    """Live rows that match a filter, or all live rows if it is None; ascending."""
    # A selector kept by a transaction may be older than the transaction's last change.
    selector = Selector(reading) if isinstance(reading, Transaction) else selector_of(reading)
    bits = selector.live if where is None else selector.matching(reading, where)
    return bits_rows(bits).astype(np.int64)
