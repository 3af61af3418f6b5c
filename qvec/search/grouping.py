"""The nearest groups of rows. Rows with the same value of a payload field form a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qvec.common.errors import InputError
from qvec.common.types import Float32Array, NDArray
from qvec.filters.schema import Field, Key, Schema
from qvec.schema.validation import MAX_K, check_count

MIN_DEPTH, DEPTH_FACTOR = 20, 2  # rows of one round of the search: at least, and for each place of a hit

Condition = dict[str, Any]
Nearest = Callable[[Condition, int], tuple[NDArray[Any], Float32Array, bool]]
"""The nearest rows that match a condition, up to a number: rows, distances, and whether there are no more."""


@dataclass(slots=True)
class Group:
    """A value, and the nearest rows with this value, nearest first."""

    value: Any
    rows: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


def group_field(name: object, size: object, k: int, schema: Schema) -> Field:
    """The field to group by; InputError if it is not declared or holds lists, or if the groups are too large."""
    if not isinstance(name, str) or name not in schema:
        known = ", ".join(sorted(schema)) or "none"
        raise InputError(f"group_by names a declared field, got {name!r}; declared are: {known}")
    if schema[name].type.endswith("[]"):
        raise InputError(f"group_by: the field {name!r} holds lists, and a vector belongs to one group")
    if type(size) is not int or not 1 <= size <= MAX_K // k:
        check_count("group_size", size, 1, MAX_K // k)
    return schema[name]


def nearest_groups(
    by: Field, size: int, k: int, nearest: Nearest, values: Callable[[NDArray[Any]], Sequence[Any]]
) -> list[Group]:
    """The k groups whose nearest rows are nearest, with up to ``size`` rows each.

    The search goes in rounds. The rows of a round form groups; the next round excludes the rows of these groups, so
    one large group cannot hide the others. Groups with too few rows are then searched one by one. ``values``: the
    field's values in rows.
    """
    groups: dict[Key, Group] = {}
    depth = min(MAX_K, max(MIN_DEPTH, DEPTH_FACTOR * k * size))
    ended = rounds = 0
    is_key = by.type in ("int", "keyword", "bool")  # equal values of these types have equal keys
    while len(groups) < k and not ended:
        found = [group.value for group in groups.values()]
        rows, distances, ended = nearest({by.name: {"$exists": True, "$nin": found}}, depth)
        for row, distance, value in zip(rows.tolist(), distances.tolist(), values(rows), strict=True):
            key = value if is_key else by.key(value, by.name)
            if key not in groups and len(groups) < k:
                groups[key] = Group(value)
            if key in groups and len(groups[key].rows) < size:
                groups[key].rows.append(row)
                groups[key].distances.append(distance)
        rounds += 1
    if not (ended and rounds == 1):  # else the only round saw every row
        for group in groups.values():
            if len(group.rows) < size:
                rows, distances, _ = nearest({by.name: group.value}, size)
                group.rows, group.distances = rows.tolist(), distances.tolist()
    return sorted(groups.values(), key=lambda group: group.distances[0])
