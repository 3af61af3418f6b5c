"""The counting runs of the reliability suite, in their short form or, with QVEC_SCALE=nightly, in their long one."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import suite
from figures import SCALE, Job

SEED = int(os.environ.get("QVEC_SEED", str(random.SystemRandom().randrange(2**31))))


@pytest.mark.timeout(120 if SCALE == "short" else 12 * 3600)
@pytest.mark.parametrize("name", suite.ENGINES)
def test_nothing_fails(tmp_path: Path, name: str) -> None:
    figures = suite.run(name, Job(SCALE, tmp_path, SEED))
    assert figures.failures == [], f"QVEC_SEED={SEED}: {figures.amounts}"
