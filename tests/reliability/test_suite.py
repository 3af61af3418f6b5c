"""The counting runs of the reliability suite, in their short form or, with QVEC_SCALE=nightly, in their long one."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import suite
from figures import SCALE, Job

# The short form repeats the same inputs, so a failure belongs to the change; the nightly form tries new ones.
SEED = int(os.environ.get("QVEC_SEED", "1" if SCALE == "short" else str(random.SystemRandom().randrange(2**31))))
TIMED = {"R10", "R11", "R12", "R21"}  # measure latencies and interrupts


@pytest.mark.timeout(120 if SCALE == "short" else 12 * 3600)
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.alone if name in TIMED else ()) for name in suite.ENGINES]
)
def test_nothing_fails(tmp_path: Path, name: str) -> None:
    figures = suite.run(name, Job(SCALE, tmp_path, SEED))
    assert figures.failures == [], f"QVEC_SEED={SEED}: {figures.amounts}"
