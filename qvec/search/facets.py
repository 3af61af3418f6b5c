"""Facets, and the order of records by a field."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import NDArray
from qvec.filters.facets import (
    count_items,
    count_numbers,
    field_named,
    first_row,
    long_value,
    most_frequent,
    sort_rows,
    value_of,
)
from qvec.filters.field_values import Values, read_field
from qvec.filters.schema import Field
from qvec.rows.lookup import payloads_of, read_records
from qvec.search.row_selection import matching_rows, selection_of
from qvec.storage.store import Snapshot, Transaction

DIRECTIONS = ("asc", "desc")
MAX_FIELDS = 8  # whose values are kept with a commit, four bytes for each row


def facets(reading: Snapshot, name: object, where: object, limit: int | None) -> dict[Any, int]:
    """Return the number of matching rows by value of a field, the most frequent values first.

    A row with a list of values counts for each. ``limit``: the number of values to return; None: all.
    """
    selector = selection_of(reading)
    field = field_named(selector.schema, name, "facets")
    bits = selector.matching(reading, where)
    counts = count_items(reading, field, bits) if field.many else count_numbers(_values_of(reading, field), bits)
    found: dict[Any, int] = {}
    for part, count in most_frequent(counts, limit):
        value = value_of(field, part)
        if value is None and isinstance(part, bytes):
            (payload,) = payloads_of(read_records(reading, [first_row(reading, field, part, bits)]))
            value = long_value(field, part, (payload or {}).get(field.name))
        found[value] = count
    return found


def ordered_rows(reading: Snapshot, where: object, order_by: object) -> NDArray[np.int64]:
    """Return the matching rows in the order of a field: a name, or a name with "asc" or "desc". None: in row order."""
    rows = matching_rows(reading, where)
    if order_by is None:
        return rows
    name, direction = order_by if isinstance(order_by, tuple | list) and len(order_by) == 2 else (order_by, "asc")
    if direction not in DIRECTIONS:
        raise InputError(f"order_by is a field, or a field with 'asc' or 'desc'; got {order_by!r}")
    field = field_named(selection_of(reading).schema, name, "order_by")
    if field.many:
        raise InputError(f"order_by: {field.name!r} is a list of values, which has no order")
    return sort_rows(field, _values_of(reading, field), rows, direction == "desc")


def _values_of(reading: Snapshot, field: Field) -> Values:
    """Return the values of a field, which are kept with the commit, and for the next one."""
    if isinstance(reading, Transaction):  # it changes without a commit
        return read_field(reading, field, None)
    kept: dict[int, Values] = reading.derived.setdefault("field values", {})
    values = kept.get(field.number)
    if values is None:
        lasting: dict[int, Values] = reading.view.lasting.setdefault("field values", {})
        values = read_field(reading, field, lasting.get(field.number))
        for known in (kept, lasting):
            if len(known) >= MAX_FIELDS:
                known.clear()
            known[field.number] = values
    return values
