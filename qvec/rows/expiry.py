"""Rows whose time has passed: readers do not see them, although they are stored until :meth:`Collection.optimize`.

The state names a field of datetimes. A row with a time at or before the moment at which a call begins has expired. A
reader sees a commit without these rows (:class:`Present`): their bits are set in its column of deleted rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qvec._kernels import Column, Deadline, bits_count
from qvec.common.types import Bitmap, NDArray
from qvec.filters.schema import MAX_KEY, ZERO, Field
from qvec.filters.values import keys_of_rows, read_values
from qvec.schema.bitmaps import are_in, bitmap_of, bytes_of, read_bitmap, words_for
from qvec.schema.layout import DELETED, bitmap_column, column_in_memory
from qvec.schema.state import GraphState, State
from qvec.storage.store import Snapshot, Transaction

UPCOMING = 1024  # rows that expire next: as long as only these expire, the column of times is not read again

clock: Callable[[], int] = time.time_ns
"""Nanoseconds since 1970 in UTC."""


def present() -> int:
    """Return the key of the present moment, in microseconds as in columns of datetimes."""
    return clock() // 1000 + ZERO


def expiry_field(state: State) -> Field | None:
    """Return the field with the times at which rows expire; None: rows do not expire."""
    if state.expires is None:
        return None
    declared = state.fields[state.expires]
    return Field(state.expires, declared.number, declared.type)


def times_of(reading: Snapshot) -> NDArray[np.uint64]:
    """Return the key of the time of each row, uint64 [n]; 0: the row does not expire, or is deleted."""
    state: State = reading.state
    found = expiry_field(state)
    if found is None or not state.n:
        return np.zeros(state.n, np.uint64)
    return read_values(reading.columns, found, state.n)


def expired_rows(reading: Snapshot, now: int) -> NDArray[np.int64]:
    """Return the live rows that have expired, ascending."""
    times = times_of(reading)
    rows = np.flatnonzero((times > 0) & (times <= np.uint64(now)))
    if len(rows) and reading.state.live < reading.state.n:
        rows = rows[~are_in(read_bitmap(reading.columns[DELETED], reading.state.n), rows)]
    return rows


def have_expired(reading: Snapshot, rows: NDArray[np.int64], now: int) -> NDArray[np.bool_]:
    """Return for each row whether it has expired; rows below 0 have not."""
    found, known = expiry_field(reading.state), rows >= 0
    expired = np.zeros(len(rows), np.bool_)
    if found is not None and known.any():
        times = keys_of_rows(reading.columns, found, rows[known])
        expired[known] = (times > 0) & (times <= np.uint64(now))
    return expired


@dataclass(frozen=True, slots=True)
class Moment:
    """What is visible of a commit from the time ``first`` to before ``next``.

    ``hidden``: the expired rows, ``count`` of them. ``times``, ``rows``: those that expire next, ascending, up to the
    time ``horizon``. ``deleted``: the column of deleted and expired rows. ``derived``: as that of a snapshot.
    """

    first: int
    next: int
    horizon: int
    hidden: Bitmap
    count: int
    times: NDArray[np.uint64]
    rows: NDArray[np.int64]
    state: State
    deleted: Column | None
    derived: dict[Any, Any] = field(default_factory=dict)

    def is_current(self) -> bool:
        """Whether it is the present moment: no row has expired since then."""
        return self.first <= present() < self.next


def moment_of(reading: Snapshot, moment: int | None) -> Moment:
    """Return what is visible of a commit at a moment, or at the present one; kept with the commit."""
    key: Any = "moment" if moment is None else ("moment", moment)
    now = present() if moment is None else moment
    known: Moment | None = reading.derived.get(key)
    if known is not None and known.first <= now < known.next:
        return known
    if known is not None and known.first <= now < known.horizon:
        made = _advanced(reading, known, now)
    else:
        made = _scanned(reading, now)
    if not isinstance(reading, Transaction):  # it changes without a commit
        reading.derived[key] = made
    return made


def _scanned(reading: Snapshot, now: int) -> Moment:
    """Read the time of every row."""
    state: State = reading.state
    times = times_of(reading)
    if state.live < state.n:
        times[_rows_of(read_bitmap(reading.columns[DELETED], state.n), state.n)] = 0
    expired = np.flatnonzero((times > 0) & (times <= np.uint64(now)))
    later = np.flatnonzero(times > np.uint64(now))
    horizon = MAX_KEY
    if len(later) > UPCOMING:
        later = later[np.argpartition(times[later], UPCOMING)[: UPCOMING + 1]]
        horizon = int(times[later].max())
    later = later[np.argsort(times[later], kind="stable")]
    first = int(times[expired].max()) if len(expired) else 0
    return _moment(reading, bitmap_of(expired, state.n), first, times[later], later, horizon)


def _advanced(reading: Snapshot, known: Moment, now: int) -> Moment:
    """Add the rows that have expired since the known moment."""
    passed = int(np.searchsorted(known.times, np.uint64(now), "right"))
    hidden = known.hidden | bitmap_of(known.rows[:passed], reading.state.n)
    first = int(known.times[passed - 1])
    return _moment(reading, hidden, first, known.times[passed:], known.rows[passed:], known.horizon)


def _moment(
    reading: Snapshot,
    hidden: Bitmap,
    first: int,
    times: NDArray[np.uint64],
    rows: NDArray[np.int64],
    horizon: int,
) -> Moment:
    state, count, column = reading.state, bits_count(hidden), None
    if count:
        column = column_in_memory(DELETED, bitmap_column(DELETED), words_for(state.n))
        deleted = read_bitmap(reading.columns[DELETED], state.n) if state.live < state.n else np.zeros_like(hidden)
        column.write(0, bytes_of(deleted | hidden))
        state = _without(state, count)
    following = int(times[0]) if len(times) else horizon
    return Moment(first, following, horizon, hidden, count, times, rows, state, column)


def _without(state: State, count: int) -> State:
    """Return the state of a commit in which a number of rows, which all have payloads, are deleted."""
    index = state.index
    if isinstance(index, GraphState):  # walks reach these rows, as they reach deleted ones
        index = replace(index, tombstones=index.tombstones + count)
    return replace(state, live=state.live - count, records=state.records - count, index=index)


def _rows_of(bits: Bitmap, n: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.unpackbits(bits.view(np.uint8), bitorder="little")[:n].astype(np.bool_)
    return found


class Present(Snapshot):
    """A commit without the rows that have expired at a moment. It ends with the snapshot that it was made from."""

    __slots__ = ("_moment", "_whole")

    def __init__(self, whole: Snapshot, moment: Moment) -> None:
        super().__init__(whole.env, whole.live(), whole.view)
        self._whole, self._moment = whole, moment

    def live(self) -> Any:
        return self._whole.live()

    @property
    def version(self) -> int:
        return self._whole.version

    @property
    def state(self) -> Any:
        self._whole.live()
        return self._moment.state

    @property
    def columns(self) -> Mapping[str, Column]:
        columns, deleted = self._whole.columns, self._moment.deleted
        if deleted is None:
            return columns
        found: Mapping[str, Column] | None = self._moment.derived.get("columns")
        if found is None:  # a search asks for them several times
            found = self._moment.derived["columns"] = {**columns, DELETED: deleted}
        return found

    @property
    def derived(self) -> dict[Any, Any]:
        return self._moment.derived

    @property
    def hidden(self) -> Bitmap | None:
        """The expired rows; None if there are none."""
        return self._moment.hidden if self._moment.count else None

    def row_of(self, key: bytes) -> int | None:
        row = self._whole.row_of(key)
        return None if row is None or self._is_hidden(row) else row

    def rows_of(self, ids: Sequence[bytes], deadline: Deadline | None = None) -> NDArray[np.int64]:
        rows = self._whole.rows_of(ids, deadline)
        if self._moment.count:
            known = (rows >= 0) & (rows < self._moment.state.n)
            rows[known] = np.where(are_in(self._moment.hidden, rows[known]), -1, rows[known])
        return rows

    def _is_hidden(self, row: int) -> bool:
        moment = self._moment
        return moment.count > 0 and row < moment.state.n and bool(are_in(moment.hidden, np.array([row]))[0])


def show(whole: Snapshot, moment: int | None) -> Snapshot:
    """Return a commit without the rows that have expired at a moment. None: the present one."""
    return Present(whole, moment_of(whole, moment))
