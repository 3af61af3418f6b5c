"""Random sequences of calls on a collection and on the model: they never come apart."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from helpers.state_machine import EXAMPLES, STEPS
from helpers.state_machine_maintenance import FullMachine

TestCollection = FullMachine.TestCase
TestCollection.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
