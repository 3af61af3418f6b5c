"""The language of ``where=``: conditions on declared fields, as MongoDB, Chroma and Pinecone write them.

    {"lang": "en", "year": {"$gte": 2020}, "$or": [{"tags": {"$contains": "a"}}, {"score": {"$exists": False}}]}

A filter is parsed into a tree of the nodes below, in which values are keys (qvec/filters/schema.py). Rules that
MongoDB's documentation leaves open: a row without the field matches ``$ne``, ``$nin``, ``$not`` and ``$exists: False``
only. A list matches a condition if any of its items does, and ``$ne`` and ``$nin`` if no item is equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.filters.schema import MAX_KEY, Field, Key, Schema, shown
from qvec.schema.payloads import listed

MAX_DEPTH = 16  # levels of nested $and, $or and $not
MAX_CONDITIONS = 1024
MAX_VALUES = 65_536  # in all $in and $nin together


@dataclass(frozen=True, slots=True)
class Among:
    """Rows that have one of the keys."""

    field: Field
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """Rows that have a key from ``low`` to ``high``, both included."""

    field: Field
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Exists:
    """Rows that have the field, even if it is an empty list."""

    field: Field


@dataclass(frozen=True, slots=True)
class HasItems:
    """Rows whose list has at least one item."""

    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    node: Node


@dataclass(frozen=True, slots=True)
class And:
    """Without nodes: all rows."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """Rows whose text has all terms; no rows if there are none."""

    field: Field
    terms: tuple[bytes, ...]


Node = Among | Between | Exists | HasItems | Matches | Not | And | Or
Terms = Callable[[str, str], tuple[bytes, ...]]
"""The terms of a text in a text field, given by its name."""


def parse(where: object, schema: Schema, name: str = "where", terms: Terms | None = None) -> Node:
    """Parse a filter. Raises InputError with the path of the faulty part, starting at ``name``."""
    return _Parser(schema, terms).filter(where, name, 0)


class _Parser:
    def __init__(self, schema: Schema, terms: Terms | None) -> None:
        self.schema, self.terms = schema, terms
        self.conditions = self.values = 0

    def filter(self, where: object, path: str, depth: int) -> Node:
        """A mapping of fields to conditions, and of ``$and``, ``$or``, ``$not`` to filters; a row must match all."""
        if depth > MAX_DEPTH:
            raise InputError(f"{path} is nested deeper than {MAX_DEPTH} levels")
        if not isinstance(where, Mapping):
            raise InputError(f"{path} must be a mapping of fields to conditions, got {shown(where)}")
        return _all([self._part(name, part, f"{path}[{shown(name)}]", depth) for name, part in where.items()])

    def _part(self, name: object, part: object, path: str, depth: int) -> Node:
        if name in ("$and", "$or"):
            nodes = self._filters(part, path, depth)
            return _all(nodes) if name == "$and" else _any(nodes)
        if name == "$not":
            return Not(self.filter(part, path, depth + 1))
        if isinstance(name, str) and name.startswith("$"):
            raise InputError(f"{path}: unknown operator; filters have {_choices(name, _CONNECTIVES)}")
        return self._condition(self._field(name, path), part, path, depth)

    def _filters(self, part: object, path: str, depth: int) -> list[Node]:
        if not isinstance(part, list | tuple) or not part:
            raise InputError(f"{path} must be a list of one or more filters, got {shown(part)}")
        return [self.filter(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(part)]

    def _field(self, name: object, path: str) -> Field:
        if not isinstance(name, str):
            raise InputError(f"{path}: a field name must be a string")
        if name in _IDS and name not in self.schema:
            raise InputError(f"{path}: ids are not a payload field: pass them as ids_in=, or in the call itself")
        if name not in self.schema:
            near = get_close_matches(name[:100], self.schema, 1)
            meant = f"did you mean {near[0]!r}? Else " if near else ""
            raise InputError(
                f"{path}: {shown(name)} is not a declared field, so it is not indexed: {meant}declare it with"
                f" add_field({shown(name)}, type); declared are: {', '.join(self.schema) or 'none'}"
            )
        return self.schema[name]

    def _condition(self, field: Field, part: object, path: str, depth: int) -> Node:
        """A value, which means ``$eq``, or a mapping of operators; a row must match all."""
        if not isinstance(part, Mapping):
            return self._apply(field, "$eq", part, path, depth)
        if not part:
            raise InputError(f"{path} is an empty condition; give an operator, or leave {field.name!r} out")
        return _all([self._apply(field, name, value, f"{path}[{shown(name)}]", depth) for name, value in part.items()])

    def _apply(self, field: Field, operator: object, value: object, path: str, depth: int) -> Node:
        self.conditions += 1
        if self.conditions > MAX_CONDITIONS:
            raise InputError(f"{path}: the filter has more than {MAX_CONDITIONS} conditions")
        if operator == "$not":
            if depth >= MAX_DEPTH:
                raise InputError(f"{path} is nested deeper than {MAX_DEPTH} levels")
            return Not(self._condition(field, _operators(value, path), path, depth + 1))
        make = _OPERATORS.get(operator) if isinstance(operator, str) else None
        if make is None or (field.is_searched and operator not in _fitting(field)):
            raise InputError(f"{path}: unknown operator; {field.name!r} has {_choices(operator, _fitting(field))}")
        return make(self, field, value, path)

    def _key(self, field: Field, value: object, path: str) -> Key:
        if value is None:
            raise InputError(f"{path} is None: use {{'$exists': False}}")
        if isinstance(value, list | tuple):
            raise InputError(f"{path} is a list: use $in to match any of several values")
        return field.key(value, path)

    # --- operators ---

    def equals(self, field: Field, value: object, path: str) -> Node:
        return Among(field, (self._key(field, value, path),))

    def among(self, field: Field, value: object, path: str) -> Node:
        value = listed(value)
        if not isinstance(value, list | tuple | set | frozenset | range):
            raise InputError(f"{path} must be a list of values, got {shown(value)}")
        self.values += len(value)
        if self.values > MAX_VALUES:
            raise InputError(f"{path}: the filter has more than {MAX_VALUES} values in its lists")
        keys = {self._key(field, item, f"{path}[{i}]") for i, item in enumerate(value)}
        return Among(field, tuple(sorted(keys))) if keys else Or(())

    def contains(self, field: Field, value: object, path: str) -> Node:
        if not field.many:
            raise InputError(f"{path}: {field.name!r} is a {field.kind}, not a list that could contain values; use $eq")
        return self.equals(field, value, path)

    def exists(self, field: Field, value: object, path: str) -> Node:
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{path} must be True or False, got {shown(value)}")
        return Exists(field) if value else Not(Exists(field))

    def empty(self, field: Field, value: object, path: str) -> Node:
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{path} must be True or False, got {shown(value)}")
        filled: Node = HasItems(field) if field.many else Exists(field)
        if field.type == "keyword":
            filled = And((filled, Not(Among(field, (field.key("", path),)))))
        return Not(filled) if value else filled

    def matches(self, field: Field, value: object, path: str) -> Node:
        if field.type != "text":
            raise InputError(f"{path}: {field.name!r} is a {field.type}; $match is for text fields")
        if not isinstance(value, str) or self.terms is None:
            raise InputError(f"{path} must be a text, got {shown(value)}")
        return Matches(field, self.terms(field.name, value))

    def greater(self, field: Field, value: object, path: str) -> Node:
        return _between(field, self._order(field, value, path) + 1, MAX_KEY)

    def at_least(self, field: Field, value: object, path: str) -> Node:
        return _between(field, self._order(field, value, path), MAX_KEY)

    def less(self, field: Field, value: object, path: str) -> Node:
        return _between(field, 1, self._order(field, value, path) - 1)

    def at_most(self, field: Field, value: object, path: str) -> Node:
        return _between(field, 1, self._order(field, value, path))

    def _order(self, field: Field, value: object, path: str) -> int:
        if not field.is_ordered:
            raise InputError(f"{path}: {field.name!r} is a {field.type}, whose values have no order")
        key = self._key(field, value, path)
        assert isinstance(key, int)
        return key


_OPERATORS: dict[str, Callable[[_Parser, Field, Any, str], Node]] = {
    "$eq": _Parser.equals,
    "$ne": lambda parser, field, value, path: Not(parser.equals(field, value, path)),
    "$in": _Parser.among,
    "$nin": lambda parser, field, value, path: Not(parser.among(field, value, path)),
    "$gt": _Parser.greater,
    "$gte": _Parser.at_least,
    "$lt": _Parser.less,
    "$lte": _Parser.at_most,
    "$exists": _Parser.exists,
    "$empty": _Parser.empty,
    "$contains": _Parser.contains,
    "$match": _Parser.matches,
}


_CONNECTIVES = ("$and", "$or", "$not")
_IDS = ("id", "ids", "_id")  # names under which users may look for ids in a filter


def _fitting(field: Field) -> list[str]:
    """The operators that suit a field's values."""
    if field.is_searched:
        return ["$match", "$exists", "$not"] if field.type == "text" else ["$exists", "$not"]
    lacking = {"$match"} | {name for name in ("$gt", "$gte", "$lt", "$lte") if not field.is_ordered}
    lacking |= set() if field.many else {"$contains"}
    return [name for name in (*_OPERATORS, "$not") if name not in lacking]


def _choices(wrong: object, right: Sequence[str]) -> str:
    """The valid names, and the one that is closest to the wrong name."""
    near = get_close_matches(f"${str(wrong)[:100].lstrip('$').lower()}", right, 1)
    return f"{', '.join(right[:-1])} and {right[-1]}" + (f"; did you mean {near[0]}?" if near else "")


def _operators(value: object, path: str) -> object:
    if not isinstance(value, Mapping):
        raise InputError(f"{path} must be a mapping of operators; use $ne for one value")
    return value


def _between(field: Field, low: int, high: int) -> Node:
    return Between(field, low, high) if low <= high else Or(())


def _all(nodes: list[Node]) -> Node:
    """The conjunction of nodes. Ranges of the same single-valued field are merged into their intersection."""
    merged: dict[str, Between] = {}
    rest: list[Node] = []
    for node in nodes:
        if isinstance(node, Between) and not node.field.many:
            name, low, high = node.field.name, node.low, node.high
            known = merged.get(name, node)
            merged[name] = Between(node.field, max(low, known.low), min(high, known.high))
        else:
            rest.append(node)
    rest += [_between(node.field, node.low, node.high) for node in merged.values()]
    return rest[0] if len(rest) == 1 else And(tuple(rest))


def _any(nodes: list[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else Or(tuple(nodes))
