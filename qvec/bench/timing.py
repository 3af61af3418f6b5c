"""Timing of searches."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from qvec.bench.adapters.base import Calls, id_rows
from qvec.common.types import Float32Array, Int64Array

MIN_QUERIES = 100  # per trial, however long they take
WARM_UP = 100
Query = Callable[[Float32Array], Any]


def time_singles(calls: Calls, queries: Sequence[Float32Array], budget: float) -> tuple[dict[str, float], list[Any]]:
    """Run single queries for ``budget`` seconds at most, but at least MIN_QUERIES.

    Returns figures (``seconds``, ``queries``, ``p50_us``, ``p95_us``, ``p99_us``) and the answers. The clock is read
    once per query; answers are converted later.
    """
    one = calls.one
    for query in queries[-min(WARM_UP, max(1, len(queries) // 5)) :]:
        one(query)
    found: list[Any] = []
    stamps: list[int] = []
    clock, record, stamp = time.perf_counter_ns, found.append, stamps.append
    with undisturbed():
        first = now = clock()
        stamp(first)
        for start in range(0, len(queries), MIN_QUERIES):
            for query in queries[start : start + MIN_QUERIES]:
                record(one(query))
                now = clock()
                stamp(now)
            if now - first > budget * 1e9:
                break
    microseconds = np.diff(np.array(stamps)) / 1e3
    p50, p95, p99 = (float(value) for value in np.percentile(microseconds, (50, 95, 99)))
    return {"seconds": (now - first) / 1e9, "queries": len(found), "p50_us": p50, "p95_us": p95, "p99_us": p99}, found


def time_batch(many: Query, queries: Float32Array) -> tuple[float, Any]:
    """Run all queries in one call; return the seconds and the answer."""
    with undisturbed():
        start = time.perf_counter()
        found = many(queries)
        return time.perf_counter() - start, found


def ids_of(calls: Calls, found: Sequence[Any], k: int) -> Int64Array:
    """Return the ids of single answers: int64 [len(found), k]."""
    return np.vstack([id_rows(calls.ids(answer), k) for answer in found])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Disable garbage collection, as timeit does."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
