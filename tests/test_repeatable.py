"""A query's hits do not depend on earlier queries or on the reuse of scratch memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered

DIM, N, QUERIES = 48, 6_000, 400
WAYS: tuple[dict[str, Any], ...] = ({"ef": 10}, {"ef": 40}, {"ef": 150}, {"k": 60}, {"where": {"a": {"$lt": 30}}})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "index"),
    [
        ("int8", qvec.HNSW()),
        ("int8", qvec.HNSW(layout="packed")),
        ("int4", qvec.HNSW(layout="packed")),
        ("rabitq1", qvec.HNSW()),
        ("int8", qvec.IVF()),
        ("rabitq1", qvec.IVF()),
        ("binary", qvec.Flat()),
    ],
)
def test_hits_do_not_depend_on_the_queries_before(path: Path, code: Any, index: Any) -> None:
    rng = np.random.default_rng(3)
    data = clustered(rng, N + QUERIES, DIM)
    x, queries, order = data[:N], data[N:], rng.permutation(QUERIES)
    with qvec.create(path, DIM, metric="cosine", code=code, index=index, fields={"a": "int"}) as db:
        db.add(x, payloads=[{"a": int(i)} for i in rng.integers(0, 100, N)])
        for options in WAYS:
            if "ef" in options and not isinstance(index, qvec.HNSW):
                continue
            found = db.search(queries, threads=1, **options).ids
            np.testing.assert_array_equal(db.search(queries[order], threads=1, **options).ids, found[order])
            np.testing.assert_array_equal(db.search(queries, threads=2, **options).ids, found)
            for i in range(0, QUERIES, 40):
                with qvec.open(path, "r") as fresh:
                    np.testing.assert_array_equal(fresh.search(queries[i], **options).ids, found[i])
