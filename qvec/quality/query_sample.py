"""Some of the queries that a handle is asked, and what their code finds of them."""

from __future__ import annotations

from itertools import count

import numpy as np

from qvec.codes.registry import Quantizer
from qvec.common.types import Codes, Float32Array
from qvec.quality.drift_stats import recalls_among

KEPT = 256  # the newest
FROM_A_BATCH = 8
ENOUGH = 32  # to say anything


class QuerySample:
    """The newest KEPT of the queries that were handed in; any thread may hand in more."""

    def __init__(self, dim: int) -> None:
        self._rows = np.zeros((KEPT, dim), np.float32)
        self._places, self._taken = count(), 0  # a place is drawn by one call: no two threads write to one at once

    def take(self, queries: Float32Array) -> None:
        """Keep one query, float32 [dim], or FROM_A_BATCH of a batch, float32 [n, dim]."""
        rows = queries.reshape(-1, self._rows.shape[1])
        for row in rows[:: max(1, -(-len(rows) // FROM_A_BATCH))]:
            place = next(self._places)
            self._rows[place % KEPT] = row
            self._taken = place + 1

    @property
    def rows(self) -> Float32Array:
        """What is kept: float32 [n, dim]."""
        return self._rows[: min(KEPT, self._taken)].copy()


def query_evidence(queries: Float32Array, quantizer: Quantizer, base: Float32Array, codes: Codes) -> dict[str, float]:
    """Recall@10 by code of sampled queries among stored vectors; nothing where there are too few of either."""
    if len(queries) < ENOUGH or len(base) < 2:
        return {}
    return {"queries": len(queries), "recall_queries": float(recalls_among(quantizer, queries, base, codes).mean())}
