"""Whether a snapshot is sound: every checksum, every id, every count, every edge."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qvec.config import Config
from qvec.engine import read_bitmap
from qvec.errors import CorruptError
from qvec.index import Coded, make_index
from qvec.layout import CODES, DELETED, IDS, ROW
from qvec.quantizers import Quantizer
from qvec.store import Snapshot
from qvec.types import HNSW, Flat, NDArray

SHOWN = 5  # of a kind of problem


def verify_snapshot(snap: Snapshot, config: Config, quantizer: Quantizer | None, keep: Quantizer | None) -> list[str]:
    """Problems found, none when the snapshot is sound. Reads everything once."""
    problems = list(snap.check())
    if problems or quantizer is None:
        return problems  # what follows would only trip over the damage
    try:
        return [*_check_rows(snap, config), *_check_index(snap, quantizer)]
    except CorruptError as error:
        return [str(error)]


def _check_rows(snap: Snapshot, config: Config) -> Iterator[str]:
    n = snap.state["n"]
    live = _live_rows(snap, n)
    if len(live) != snap.state["live"]:
        yield f"{len(live)} rows are live, the state says {snap.state['live']}"
    named = dict(snap.iter_ids())
    if len(named) != len(live) or set(named.values()) != set(live.tolist()):
        yield f"the id map names {len(set(named.values()))} rows, {len(live)} are live"
    yield from _some("row {} has no record", (row for row in live.tolist() if _record_lost(snap, config, row)))
    if config.ids == "int64":
        stored = snap.columns[IDS].read(live).view("<i8").reshape(-1)
        wrong = (row for row, i in zip(live.tolist(), stored.tolist(), strict=True) if named.get(_key(i)) != row)
        yield from _some("the id of row {} leads elsewhere", wrong)


def _key(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=value < 0)


def _record_lost(snap: Snapshot, config: Config, row: int) -> bool:
    return config.ids == "str" and snap.record(ROW, row) is None


def _live_rows(snap: Snapshot, n: int) -> NDArray[np.int64]:
    bits = np.unpackbits(read_bitmap(snap.columns[DELETED], n).view(np.uint8), bitorder="little")[:n]
    return np.flatnonzero(bits == 0)


def _check_index(snap: Snapshot, quantizer: Quantizer) -> list[str]:
    index = make_index(HNSW() if snap.state["index"]["kind"] == "hnsw" else Flat())
    coded = Coded(quantizer.codec, snap.columns[CODES])
    return index.check(snap.columns, coded, snap.state["index"], snap.state["n"])


def _some(text: str, rows: Iterator[int]) -> Iterator[str]:
    found = list(rows)
    for row in found[:SHOWN]:
        yield text.format(row)
    if len(found) > SHOWN:
        yield f"... and {len(found) - SHOWN} more of these"
