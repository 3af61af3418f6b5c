"""Values drawn once by Hypothesis and shared by all examples: choosing one is cheaper than drawing one."""

from __future__ import annotations

import os
import random
from functools import cached_property
from typing import Generic, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Value = TypeVar("Value")
SEED = int(os.environ.get("QVEC_SEED", str(random.SystemRandom().randrange(2**31))))
"""Seed of all drawn values. It and the blob that Hypothesis prints reproduce a failure."""


class DrawnValues(Generic[Value]):
    """Up to ``size`` values of a strategy, small ones first. They are drawn at the first use, not at import."""

    def __init__(self, strategy: SearchStrategy[Value], size: int) -> None:
        self.strategy, self.size = strategy, size

    @cached_property
    def values(self) -> list[Value]:
        values: list[Value] = []

        @seed(SEED)
        @settings(
            max_examples=self.size,
            database=None,
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=HealthCheck,
        )
        @given(self.strategy)
        def take(value: Value) -> None:
            values.append(value)

        take()
        return values


def one_of(drawn: DrawnValues[Value], *, nonempty: bool = False) -> SearchStrategy[Value]:
    """Choose a drawn value by one integer; ``nonempty`` leaves out empty values."""

    @st.composite
    def one(draw: st.DrawFn) -> Value:
        values = [value for value in drawn.values if value] if nonempty else drawn.values
        return values[draw(st.integers(0, len(values) - 1))]

    return one()
