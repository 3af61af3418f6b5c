"""Values that Hypothesis makes beforehand, for machines to choose from: a filter costs more to draw than to use."""

from __future__ import annotations

import os
import random
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Value = TypeVar("Value")
SEED = int(os.environ.get("QVEC_SEED", str(random.SystemRandom().randrange(2**31))))
"""Of all pools: with it and the blob that Hypothesis prints, a failure is had again."""


def drawn(strategy: SearchStrategy[Value], size: int) -> list[Value]:
    """Up to so many values; small ones come first."""
    values: list[Value] = []

    @seed(SEED)
    @settings(
        max_examples=size, database=None, phases=[Phase.generate], deadline=None, suppress_health_check=HealthCheck
    )
    @given(strategy)
    def take(value: Value) -> None:
        values.append(value)

    take()
    return values


def one_of(values: list[Value]) -> SearchStrategy[Value]:
    """A choice that costs one number, whatever the values are."""

    @st.composite
    def one(draw: st.DrawFn) -> Value:
        return values[draw(st.integers(0, len(values) - 1))]

    return one()
