"""Make hits from the rows that a search has found: read ids, payloads and vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec._kernels import Deadline, ids_of_rows
from qvec.common.types import NDArray
from qvec.rows.lookup import read_records
from qvec.schema.config import Config
from qvec.schema.layout import IDS
from qvec.search.options import SearchOptions
from qvec.search.refine import Found
from qvec.search.results import NO_EXTRAS, BatchHits, Extras, Hits
from qvec.storage.store import Snapshot


def make_hits(
    snap: Snapshot,
    config: Config,
    found: Found,
    options: SearchOptions,
    extras: Extras = NO_EXTRAS,
    deadline: Deadline | None = None,
) -> Hits | BatchHits:
    """Hits of rows [..., k] (-1: none), distances [..., k] and counts [...]. SearchTimeoutError after the deadline."""
    rows, distances, counts = found
    ids: NDArray[Any] = rows
    payloads: list[Any] | None = None
    if config.ids == "str" or (options.payloads and snap.state.records):
        payloads, names = [], []
        for record in read_records(snap, rows.reshape(-1).tolist(), complete=True, deadline=deadline):
            payloads.append(None if record is None else record.payload)
            names.append("" if record is None else record.id)
        if config.ids == "str":
            ids = np.array(names, object).reshape(rows.shape)
        payloads = payloads if options.payloads else None
    elif options.payloads:
        payloads = [None] * rows.size
    if config.ids == "int64" and (column := snap.columns.get(IDS)) is not None:  # None: nothing is stored yet
        ids = ids_of_rows(column, rows)
    if payloads is not None and rows.ndim > 1:
        k = rows.shape[-1]
        payloads = [payloads[i : i + k] for i in range(0, len(payloads), k)]
    kind = Hits if rows.ndim == 1 else BatchHits
    zero_score = 1.0 if config.metric == "cosine" and extras.parts is None else 0.0
    return kind(ids, distances, counts, payloads, zero_score, extras)
