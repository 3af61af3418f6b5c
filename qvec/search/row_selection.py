"""The rows that a search can find: filters and allowed ids as bitmaps, cached for each commit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Hashable
from functools import partial
from typing import Any

import numpy as np

from qvec._kernels import Deadline, Selection, bits_count, bits_rows
from qvec.common.errors import InputError
from qvec.common.types import Bitmap, IdKind, NDArray
from qvec.filters.evaluate import Matcher
from qvec.filters.language import And, Node, parse
from qvec.filters.schema import searchable_fields
from qvec.rows.access import RowAccess
from qvec.rows.lookup import find_rows
from qvec.rows.results import Records
from qvec.rows.visibility import Visibility
from qvec.schema.bitmaps import bitmap_of, complement, read_bitmap, rows_in
from qvec.schema.layout import DELETED, IDS
from qvec.schema.validation import as_id_set, id_keys
from qvec.storage.records import fingerprint
from qvec.storage.store import Snapshot, Store, Transaction
from qvec.text.reader import text_terms

MAX_FILTER_BYTES = 4 << 20
MAX_CACHED = 256
MAX_CACHED_BYTES = 64 << 20
N_SEEDS = 32  # a filtered walk starts from this many selected rows, in addition to the graph's entries


class SelectedRows:
    """A selection of live rows of one commit, in the form that each strategy needs."""

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
        """The selection for a search that scores every selected row."""
        if self._brute_force is None:
            self._brute_force = Selection(self.n, self.count, rows=bits_rows(self.bits))
        return self._brute_force

    @property
    def post_filter(self) -> Selection:
        """The selection for a search of the whole index, from whose result other rows are removed."""
        if self._post_filter is None:
            self._post_filter = Selection(self.n, self.count, ~self.bits)
        return self._post_filter

    @property
    def filtered_walk(self) -> Selection:
        """The selection for a walk of the graph among the selected rows."""
        if self._filtered_walk is None:
            rows = bits_rows(self.bits)
            seeds = rows[np.linspace(0, len(rows) - 1, min(N_SEEDS, len(rows))).astype(np.int64)]
            self._filtered_walk = Selection(self.n, self.count, ~self.bits, seeds=seeds)
        return self._filtered_walk

    @property
    def nbytes(self) -> int:
        """An upper bound of the bytes of all selections."""
        return 3 * self.bits.nbytes + 4 * self.count


class Selector:
    """Evaluates the filters and the allowed ids of one commit, and caches the selected rows."""

    def __init__(self, reading: Snapshot) -> None:
        self.n: int = reading.state.n
        has_deleted = self.n > reading.state.live
        self.live = complement(self.n, read_bitmap(reading.columns[DELETED], self.n) if has_deleted else None)
        self.schema = searchable_fields(reading.state)
        self._hides = reading.state.expires is not None  # field indexes have the rows that have expired
        self._evaluated: dict[Node, Bitmap] = {}
        self._cache: OrderedDict[Hashable, SelectedRows] = OrderedDict()

    def matching(
        self,
        reading: Snapshot,
        where: object,
        name: str = "where",
        *,
        remember: bool = True,
        deadline: Deadline | None = None,
    ) -> Bitmap:
        """Return the live rows that match a filter (None: all). InputError calls the filter ``name`` and gives the
        path.

        remember: cache the rows of the filter's parts until the next commit.
        """
        node = And(()) if where is None else parse(where, self.schema, name, partial(_terms, reading))
        bits = Matcher(reading, self.live, self._evaluated if remember else {}, deadline).rows(node)
        return bits & self.live if self._hides else bits

    def select(
        self,
        reading: Snapshot,
        where: object,
        ids_in: object,
        ids: IdKind,
        name: str = "where",
        limited: bool = True,
        deadline: Deadline | None = None,
    ) -> SelectedRows:
        """Return the live rows that match a filter (None: all) and have one of the allowed ids (None: any).

        limited: refuse a large filter. Otherwise it is evaluated, but not cached. Raises SearchTimeoutError soon after
        the deadline.
        """
        allowed = None if ids_in is None else _allowed_ids(ids_in, ids)
        packed = fingerprint(where)
        if packed is not None and len(packed) > MAX_FILTER_BYTES:
            if limited:
                raise InputError(f"{name} takes {len(packed)} bytes; the limit is {MAX_FILTER_BYTES}")
            packed = None
        key: Hashable | None = None if packed is None else (packed, None)
        if allowed is not None and packed is not None:
            key = packed, allowed.tobytes() if isinstance(allowed, np.ndarray) else tuple(allowed)
        selected = None if key is None else self._cache.get(key)
        if selected is not None:
            try:  # noqa: SIM105 - contextlib.suppress costs as much as the look-up
                self._cache.move_to_end(key)
            except KeyError:  # another thread has just removed the key
                pass
            return selected
        bits = self.matching(reading, where, name, remember=key is not None, deadline=deadline)
        if allowed is not None:
            bits = bits & _rows_with_ids(reading, allowed, self.n, deadline)
        selected = SelectedRows(bits, self.n)
        if key is not None:
            self._cache[key] = selected
            while len(self._cache) > 1 and (
                len(self._cache) > MAX_CACHED
                or sum(other.nbytes for other in list(self._cache.values())) > MAX_CACHED_BYTES
            ):
                self._cache.popitem(last=False)
        return selected


def _allowed_ids(ids_in: Any, ids: IdKind) -> NDArray[Any] | list[str]:
    """Return the allowed ids, given as a list of ids or as a mask over integer ids."""
    if not isinstance(ids_in, np.ndarray) or ids_in.dtype != np.bool_:
        return as_id_set(ids_in, ids, "ids_in")
    if ids != "int64" or ids_in.ndim != 1:
        raise InputError("ids_in: a mask is a 1-D array of booleans, for a collection whose ids are integers")
    return np.flatnonzero(ids_in)


def _rows_with_ids(reading: Snapshot, allowed: NDArray[Any] | list[str], n: int, deadline: Deadline | None) -> Bitmap:
    """Return the rows with these ids. Ids that are not stored are ignored."""
    if isinstance(allowed, np.ndarray) and len(allowed) > n // 64:
        stored = reading.columns[IDS].read_range(0, n).view("<i8").reshape(-1)
        rows = np.flatnonzero(np.isin(stored, allowed))
    else:
        rows = find_rows(reading, id_keys(allowed), deadline)
    return bitmap_of(rows[rows >= 0], n)


def _terms(reading: Snapshot, field: str, text: str) -> tuple[bytes, ...]:
    return tuple(sorted(term for term, _ in text_terms(reading.state, field, text)))


def selector_of(reading: Snapshot) -> Selector:
    """Return the selector of a commit."""
    selector = reading.derived.get("selector")
    if selector is None:
        selector = reading.derived["selector"] = Selector(reading)
    return selector


def selection_of(reading: Snapshot) -> Selector:
    """Return the selector of a commit, or a new one for a transaction, which may have changed rows since the last."""
    return Selector(reading) if isinstance(reading, Transaction) else selector_of(reading)


def matching_rows(reading: Snapshot, where: object) -> NDArray[np.int64]:
    """Return the live rows that match a filter, or all live rows if it is None; ascending."""
    return rows_in(selection_of(reading).matching(reading, where))


def scan(
    store: Store, access: RowAccess, visibility: Visibility, where: object, size: int
) -> Generator[Records, None, None]:
    """Yield the live rows that match a filter in batches of ``size``, from the last commit at the first step."""
    with store.read() as whole:
        snap = visibility.of(whole)
        version = snap.version
        for records in access.reader(snap).in_batches(matching_rows(snap, where), size):
            if snap.version != version:
                raise InputError("the transaction has changed the collection since this scan began")
            with store.idle(whole):
                yield records
