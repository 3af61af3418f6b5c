"""Filters evaluated over payloads in plain Python, and Hypothesis strategies for payloads and filters."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from qvec.common.types import FieldType

Payload = dict[str, Any]
FIELDS: dict[str, FieldType] = {
    "word": "keyword", "year": "int", "score": "float", "ok": "bool", "at": "datetime",
    "words": "keyword[]", "years": "int[]", "scores": "float[]", "oks": "bool[]", "ats": "datetime[]",
}  # fmt: skip
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le,
}  # fmt: skip


def matches(payload: Payload | None, where: dict[str, Any]) -> bool:
    """Whether a payload matches a filter on FIELDS."""
    return all(_holds(payload, name, part) for name, part in where.items())


def _holds(payload: Payload | None, name: str, part: Any) -> bool:
    if name == "$and":
        return all(matches(payload, each) for each in part)
    if name == "$or":
        return any(matches(payload, each) for each in part)
    if name == "$not":
        return not matches(payload, part)
    held = (payload or {}).get(name)
    values = None if held is None else [_plain(value) for value in (held if isinstance(held, list | tuple) else [held])]
    return _condition(values, part)


def _condition(values: list[Any] | None, part: Any) -> bool:
    if not isinstance(part, dict):
        part = {"$eq": part}
    return all(_operator(values, name, argument) for name, argument in part.items())


def _operator(values: list[Any] | None, name: str, argument: Any) -> bool:
    if name == "$not":
        return not _condition(values, argument)
    if name == "$exists":
        return (values is not None) == argument
    if name in ("$ne", "$nin"):
        return not _operator(values, {"$ne": "$eq", "$nin": "$in"}[name], argument)
    if name == "$in":
        return any(value == _plain(each) for value in values or () for each in argument)
    if name in ("$eq", "$contains"):
        return any(value == _plain(argument) for value in values or ())
    return any(ORDERS[name](value, _plain(argument)) for value in values or ())


def _plain(value: Any) -> Any:
    """Datetimes, and texts that are datetimes, in UTC; other values unchanged."""
    if isinstance(value, str) and value[:1].isdigit():
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


# --- strategies ---

_LONG = st.tuples(st.sampled_from("xy"), st.sampled_from([200, 201, 5000])).map(lambda pair: pair[0] * pair[1])
_WORDS = st.sampled_from(["", "a", "b", "é", "ab", "a\0"]) | _LONG
_INTS = st.integers(-3, 3) | st.sampled_from([2**63 - 1, -(2**63) + 1, 65536])
_FLOATS = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1, -1, 5e-324, 1.5e308, float("inf"), float("-inf")]) | _INTS
_START = datetime(1969, 12, 31, 23, 59, 59, 999_999)
_ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])


def _datetimes() -> st.SearchStrategy[Any]:
    moments = st.integers(-2, 2).map(lambda days: _START + timedelta(days=days, microseconds=days))
    zoned = st.tuples(moments, _ZONES).map(lambda pair: pair[0].replace(tzinfo=pair[1]))
    return zoned | zoned.map(datetime.isoformat) | st.just("2020-02-29")


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "keyword": _WORDS, "int": _INTS, "float": _FLOATS, "bool": st.booleans(), "datetime": _datetimes(),
}  # fmt: skip


def _kind(name: str) -> str:
    return FIELDS[name].removesuffix("[]")


def _held(name: str) -> st.SearchStrategy[Any]:
    value = VALUES[_kind(name)]
    return st.none() | (st.lists(value, max_size=4) if FIELDS[name].endswith("[]") else value)


def _some(values: dict[str, st.SearchStrategy[Any]], least: int, most: int) -> st.SearchStrategy[dict[str, Any]]:
    """A strategy of dicts with some of the keys and a value for each.

    The choices are made once: Hypothesis examines each new strategy, which takes longer than drawing from it.
    """
    names = st.lists(st.sampled_from(sorted(values)), min_size=least, max_size=most, unique=True)

    @st.composite
    def some(draw: st.DrawFn) -> dict[str, Any]:
        return {name: draw(values[name]) for name in draw(names)}

    return some()


def _operators(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """One to three operators on a field, or an operator that negates some of them."""
    value = VALUES[_kind(name)]
    arguments: dict[str, Any] = {"$eq": value, "$ne": value, "$exists": st.booleans()}
    arguments |= dict.fromkeys(("$in", "$nin"), st.lists(value, max_size=12))
    arguments |= dict.fromkeys(ORDERS if _kind(name) not in ("keyword", "bool") else (), value)
    arguments |= {"$contains": value} if FIELDS[name].endswith("[]") else {}
    parts = _some(arguments, 1, 3)
    return parts | parts.map(lambda part: {"$not": part})


def _compounds(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=3)
    joined = _some({"$and": several, "$or": several, "$not": inner}, 1, 3)
    return st.tuples(_CONDITIONS, joined).map(lambda pair: pair[0] | pair[1])


_CONDITIONS = _some({name: VALUES[_kind(name)] | _operators(name) for name in FIELDS}, 0, 3)
payloads = st.none() | _some({name: _held(name) for name in FIELDS}, 0, len(FIELDS))
filters = st.recursive(_CONDITIONS, _compounds, max_leaves=6)
