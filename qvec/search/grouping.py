"""The nearest groups of rows: rows belong together that hold the same value of a payload field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qvec.common.errors import InputError
from qvec.common.types import Float32Array, NDArray
from qvec.filters.schema import Field, Key, Schema
from qvec.schema.validation import MAX_K, check_count

MIN_DEPTH, DEPTH_FACTOR = 20, 2  # of a round of the search: rows at least, and for each place of a hit

Condition = dict[str, Any]
Nearest = Callable[[Condition, int], tuple[NDArray[Any], Float32Array, bool]]
"""Of rows that fulfil a condition, the nearest so many: rows, distances, and whether there were no more."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """``field``: what rows are grouped by. ``size``: hits of a group at most."""

    field: Field
    size: int


@dataclass(slots=True)
class Group:
    """A value, and the nearest rows that hold it, nearest first."""

    value: Any
    rows: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)


def grouping(name: object, size: object, k: int, schema: Schema) -> Grouping:
    """Checked options of a search; InputError names the field that is not declared, or holds lists."""
    if not isinstance(name, str) or name not in schema:
        known = ", ".join(sorted(schema)) or "none"
        raise InputError(f"group_by names a declared field, got {name!r}; declared are: {known}")
    if schema[name].many:
        raise InputError(f"group_by: the field {name!r} holds lists, and a vector belongs to one group")
    return Grouping(schema[name], check_count("group_size", size, 1, MAX_K // k))


def nearest_groups(
    by: Grouping, k: int, nearest: Nearest, values: Callable[[NDArray[Any]], Sequence[Any]]
) -> list[Group]:
    """The k groups whose nearest rows are nearest, with up to ``by.size`` rows each.

    Rounds: the nearest rows bring groups; the next round looks among the rows of none of them, so that one large group
    cannot hide the others. Groups that lack rows are then searched by themselves. ``values``: what rows hold.
    """
    groups: dict[Key, Group] = {}
    depth = min(MAX_K, max(MIN_DEPTH, DEPTH_FACTOR * k * by.size))
    ended = rounds = 0
    while len(groups) < k and not ended:
        found = [group.value for group in groups.values()]
        rows, distances, ended = nearest({by.field.name: {"$exists": True, "$nin": found}}, depth)
        for row, distance, value in zip(rows.tolist(), distances.tolist(), values(rows), strict=True):
            _put(groups, by, k, row, distance, value)
        rounds += 1
    if not (ended and rounds == 1):  # else every row was seen
        for group in groups.values():
            if len(group.rows) < by.size:
                rows, distances, _ = nearest({by.field.name: group.value}, by.size)
                group.rows, group.distances = rows.tolist(), distances.tolist()
    return sorted(groups.values(), key=lambda group: group.distances[0])


def _put(groups: dict[Key, Group], by: Grouping, k: int, row: int, distance: float, value: Any) -> None:
    key = by.field.key(value, by.field.name)
    if key not in groups and len(groups) < k:
        groups[key] = Group(value)
    if key in groups and len(groups[key].rows) < by.size:
        groups[key].rows.append(row)
        groups[key].distances.append(distance)
