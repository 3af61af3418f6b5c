"""A sample of the queries of a handle, and their recall by the active codes."""

from __future__ import annotations

from itertools import count

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.common.types import Codes, Float32Array
from qvec.quality.drift_stats import recalls_among

SAMPLE_QUERIES = 256  # the newest sampled queries are kept
QUERIES_PER_BATCH = 8
MIN_QUERIES = 32  # recall is measured with at least this many queries


class QuerySample:
    """The newest SAMPLE_QUERIES queries that were added. Threads may add queries at the same time."""

    def __init__(self, dim: int) -> None:
        self._rows = np.zeros((SAMPLE_QUERIES, dim), np.float32)
        self._places, self._taken = (
            count(),
            0,
        )  # next() is atomic: two threads never write to the same row at once

    def take(self, queries: Float32Array) -> None:
        """Add one query, float32 [dim], or QUERIES_PER_BATCH queries of a batch, float32 [n, dim]."""
        rows = queries.reshape(-1, self._rows.shape[1])
        for row in rows[:: max(1, -(-len(rows) // QUERIES_PER_BATCH))]:
            place = next(self._places)
            self._rows[place % SAMPLE_QUERIES] = row
            self._taken = place + 1

    @property
    def rows(self) -> Float32Array:
        """The sampled queries: float32 [n, dim]."""
        return self._rows[: min(SAMPLE_QUERIES, self._taken)].copy()


def query_evidence(queries: Float32Array, quantizer: Quantizer, base: Float32Array, codes: Codes) -> dict[str, float]:
    """Measure recall@10 by codes for sampled queries among stored vectors. {} if there are too few of either."""
    if len(queries) < MIN_QUERIES or len(base) < 2:
        return {}
    return {"queries": len(queries), "recall_queries": float(recalls_among(quantizer, queries, base, codes).mean())}
