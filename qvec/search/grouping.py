"""The nearest groups of rows. Rows with the same value of a payload field form a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from qvec.common.errors import CorruptError, InputError
from qvec.filters.schema import Field, Key, Schema
from qvec.schema.validation import MAX_K, check_count

MIN_DEPTH, DEPTH_FACTOR = 20, 2  # rows that one round of the search finds: at least, and for each wanted hit
OWN_KEYS = {"int": int, "keyword": str, "bool": bool}  # equal values of these types have equal keys

Condition = dict[str, Any] | Any
"""A condition on the grouping field, as in a filter, or one of its values."""
Nearby = tuple[list[int], list[float], list[Any], bool]
"""Rows, nearest first, their distances, their values of the field, and whether there are no further rows."""
Nearest = Callable[[Condition, int], Nearby]
"""Finds at most a number of nearest rows that match a condition."""


@dataclass(slots=True)
class Group:
    """A value, and the nearest rows with this value, nearest first."""

    value: Any
    rows: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


def group_field(name: object, size: object, k: int, schema: Schema) -> Field:
    """Return the field to group by. InputError: it is not declared, it contains lists, or groups are too large."""
    if not isinstance(name, str) or name not in schema:
        known = ", ".join(sorted(schema)) or "none"
        raise InputError(f"group_by names a declared field, got {name!r}; declared are: {known}")
    if schema[name].type.endswith("[]"):
        raise InputError(f"group_by: the field {name!r} holds lists, and a vector belongs to one group")
    if type(size) is not int or not 1 <= size <= MAX_K // k:
        check_count("group_size", size, 1, MAX_K // k)
    return schema[name]


def nearest_groups(by: Field, size: int, k: int, nearest: Nearest) -> list[Group]:
    """Find the k nearest groups, with up to ``size`` rows each. The distance of a group is that of its nearest row.

    The search consists of rounds. Each round excludes the groups that earlier rounds have found, so that one large
    group cannot hide others. Afterwards, groups with too few rows are searched one at a time.
    """
    groups: dict[object, Group] = {}
    found: list[Any] = []
    depth = min(MAX_K, max(MIN_DEPTH, DEPTH_FACTOR * k * size))
    ended = rounds = 0
    own_key = OWN_KEYS.get(by.type)
    while len(groups) < k and not ended:
        rows, distances, values, ended = nearest({"$exists": True, "$nin": list(found)}, depth)
        for row, distance, value in zip(rows, distances, values, strict=True):
            key = value if type(value) is own_key else _stored_key(by, value, row)
            if key not in groups and len(groups) < k:
                groups[key] = Group(value)
                found.append(value)
            if key in groups and len(groups[key].rows) < size:
                groups[key].rows.append(row)
                groups[key].distances.append(distance)
        rounds += 1
    if not (ended and rounds == 1):  # otherwise the only round found every row
        for group in groups.values():
            if len(group.rows) < size:
                group.rows, group.distances, _, _ = nearest(group.value, size)
    return sorted(groups.values(), key=attrgetter("distances"))


def _stored_key(by: Field, value: object, row: int) -> Key:
    """Return the key of a stored value. CorruptError: the value has another type, although the index has its row."""
    try:
        return by.key(value, by.name)
    except InputError as error:
        raise CorruptError(f"the payload of row {row} does not fit the declared field: {error}") from error
