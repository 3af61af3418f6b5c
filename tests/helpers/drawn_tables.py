"""Tables and JSON objects that Hypothesis draws, to be stored as payloads."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

MAX_ROWS = 4
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(),
    "bool": st.booleans(),
    "str": TEXT,
    "datetime": MOMENTS,
    "bytes": st.binary(max_size=8),
    "list": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    "texts": st.lists(TEXT, max_size=3),
    "date": st.dates(date(1900, 1, 1), date(2100, 1, 1)),  # refused
    "delta": st.timedeltas(timedelta(-1000), timedelta(1000)),  # refused
}
REFUSED = ("date", "delta")
JSON = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Columns of one kind each, some of them with nulls; and their kinds."""
    rows = draw(st.integers(1, MAX_ROWS))
    names = draw(st.lists(TEXT, min_size=1, max_size=4, unique=True))
    kinds = {name: draw(st.sampled_from(sorted(SCALARS))) for name in names}
    nulls = {name: draw(st.booleans()) for name in names}
    columns = {
        name: draw(st.lists(st.none() | SCALARS[kind] if nulls[name] else SCALARS[kind], min_size=rows, max_size=rows))
        for name, kind in kinds.items()
    }
    return columns, kinds


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    return bool(a == b)


FAST = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NIGHTLY = settings(FAST, max_examples=2000, suppress_health_check=list(HealthCheck))
