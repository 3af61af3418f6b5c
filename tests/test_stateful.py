"""Random sequences of calls on a collection and on its model give the same results."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from helpers.state_machine import BATCHES, FILTERS, PAYLOADS
from helpers.state_machine_maintenance import FullMachine


def limits(examples: int, steps: int) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow, print_blob=True
    )


class TestShortSequences(FullMachine.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        """Draw the shared values before the first example."""
        assert all(drawn.values for drawn in (PAYLOADS, BATCHES, FILTERS))


@pytest.mark.slow
class TestLongSequences(TestShortSequences):
    pass


TestShortSequences.settings = limits(8, 25)
TestLongSequences.settings = limits(int(os.environ.get("QVEC_EXAMPLES", "60")), int(os.environ.get("QVEC_STEPS", "40")))
