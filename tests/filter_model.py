"""Filters evaluated over payloads in plain Python, and strategies that make both."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from qvec.types import FieldType

Payload = dict[str, Any]
FIELDS: dict[str, FieldType] = {
    "word": "keyword", "year": "int", "score": "float", "ok": "bool", "at": "datetime",
    "words": "keyword[]", "years": "int[]", "scores": "float[]", "oks": "bool[]", "ats": "datetime[]",
}  # fmt: skip
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le,
}  # fmt: skip


def fulfils(payload: Payload | None, where: dict[str, Any]) -> bool:
    """Whether a payload fulfils a filter on FIELDS."""
    return all(_holds(payload, name, part) for name, part in where.items())


def _holds(payload: Payload | None, name: str, part: Any) -> bool:
    if name == "$and":
        return all(fulfils(payload, each) for each in part)
    if name == "$or":
        return any(fulfils(payload, each) for each in part)
    if name == "$not":
        return not fulfils(payload, part)
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
    """Datetimes in UTC, of text where it is one; anything else as it is."""
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


@st.composite
def _payloads(draw: st.DrawFn) -> Payload:
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True))
    return {name: draw(_held(name)) for name in names}


@st.composite
def _operators(draw: st.DrawFn, name: str) -> dict[str, Any]:
    value = VALUES[_kind(name)]
    choices = ["$eq", "$ne", "$in", "$nin", "$exists"]
    choices += list(ORDERS) if _kind(name) not in ("keyword", "bool") else []
    choices += ["$contains"] if FIELDS[name].endswith("[]") else []
    part: dict[str, Any] = {}
    for operator_name in draw(st.lists(st.sampled_from(choices), min_size=1, max_size=3, unique=True)):
        several = operator_name in ("$in", "$nin")
        part[operator_name] = draw(
            st.lists(value, max_size=12) if several else st.booleans() if operator_name == "$exists" else value
        )
    return {"$not": part} if draw(st.booleans()) else part


@st.composite
def _conditions(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True))
    return {name: draw(VALUES[_kind(name)] | _operators(name)) for name in names}


@st.composite
def _compounds(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    where = draw(_conditions())
    for name in draw(st.lists(st.sampled_from(["$and", "$or", "$not"]), min_size=1, unique=True)):
        where[name] = draw(inner if name == "$not" else some)
    return where


payloads = st.none() | _payloads()
filters = st.recursive(_conditions(), _compounds, max_leaves=6)
