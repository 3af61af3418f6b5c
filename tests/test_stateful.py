"""Random sequences of calls on a collection and on its model give the same results."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from helpers.state_machine import BATCHES, EXAMPLES, FILTERS, PAYLOADS, STEPS
from helpers.state_machine_maintenance import FullMachine


class TestCollection(FullMachine.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        """Draw the shared values before the first example, which would take their time otherwise."""
        assert all(drawn.values for drawn in (PAYLOADS, BATCHES, FILTERS))


TestCollection.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
