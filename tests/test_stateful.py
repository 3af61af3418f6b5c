"""Random sequences of calls on a collection and on the model: they never come apart."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from machine import EXAMPLES, STEPS
from machine_upkeep import FullMachine

TestCollection = FullMachine.TestCase
TestCollection.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
