"""What the tests share: where a collection lies, and data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's collection lies."""
    return tmp_path / "test.qvec"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)
