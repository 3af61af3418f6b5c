"""Hits of the rows that a search found: ids, payloads and vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from qvec.common.types import NDArray
from qvec.rows.lookup import row_records
from qvec.schema.config import Config
from qvec.schema.layout import IDS
from qvec.storage.store import Snapshot


def ids_and_payloads(
    snap: Snapshot, config: Config, rows: NDArray[np.int64], with_payloads: bool
) -> tuple[NDArray[Any], list[Any] | None]:
    """Ids of rows [..., k] (-1: none), and their payloads if they are wanted, as lists of k."""
    ids: NDArray[Any]
    if config.ids == "int64":
        with_records = with_payloads and snap.state.records > 0
        ids = int_ids_of_rows(snap, rows) if snap.state.live else rows
    else:
        with_records = True
    records = row_records(snap, rows.reshape(-1).tolist()) if with_records else [None] * rows.size
    if config.ids != "int64":
        names = ["" if record is None else record["id"] for record in records]
        ids = np.array(names, object).reshape(rows.shape)
    if not with_payloads:
        return ids, None
    payloads = [None if record is None else record["payload"] for record in records] if with_records else records
    if rows.ndim > 1:
        k = rows.shape[-1]
        payloads = [payloads[i : i + k] for i in range(0, len(payloads), k)]
    return ids, payloads


def int_ids_of_rows(snap: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Integer ids of rows of any shape; -1 for the row -1."""
    ids, is_row = rows.copy(), rows >= 0
    ids[is_row] = snap.columns[IDS].read(rows[is_row]).view("<i8").reshape(-1)
    return ids
