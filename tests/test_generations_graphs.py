"""Graphs that generations share, and graphs of inactive generations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.recall import search_recall
from helpers.vectors import clustered
from qvec.common.types import Float32Array

DIM = 32
STATIC = qvec.Int8(scale="per_dim")


@pytest.fixture
def x() -> Float32Array:
    return clustered(np.random.default_rng(1), 600, DIM)


@pytest.mark.parametrize("layout", ["compact", "packed"])
@pytest.mark.parametrize("fewer", [False, True])
def test_an_inactive_shared_graph_ends_at_the_last_row_added_while_it_was_active(
    path: Path, x: Float32Array, layout: Any, fewer: bool
) -> None:
    """Codes of generation 0 end at row 300; its graph, which generation 1 continued to use, ends at row 350."""
    with qvec.create(path, DIM, code=STATIC, index=qvec.HNSW(m=16, ef_construction=30, layout=layout)) as db:
        db.add(x[:300])
        db.requantize("int8", relink=False)
        db.add(x[300:350])
        db.requantize("f16" if layout == "compact" else "int4", relink=True)
        if fewer:
            db.delete(range(310, 350))
            while db.optimize():
                pass
            assert db.stats().deleted == 0
        assert db.verify(deep=True) == []
        db.rollback(0)
        assert db.verify(deep=True) == []
        db.add(x[400:450])
        assert search_recall(db, x[:100]) > 0.9
        assert db.verify(deep=True) == []
        db.rollback(1)
        assert db.verify(deep=True) == []
        assert search_recall(db, x[:100]) > 0.9


def test_a_row_of_an_inactive_graph_is_reused(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, code=STATIC, index=qvec.HNSW(m=4, ef_construction=30)) as db:
        db.add(x[:300])
        db.requantize("int8", relink=False)
        db.add(x[300:350])
        db.requantize("f16", relink=True)
        db.delete(range(320, 350))
        db.optimize()
        db.add(x[500:530], ids=range(1000, 1030))
        db.rollback(0)
        assert db.verify(deep=True) == []
        assert search_recall(db, x[:100]) > 0.9
