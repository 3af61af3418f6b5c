"""Check a snapshot: every checksum, id, count and edge."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qvec.codes.registry import from_state
from qvec.common.errors import CorruptError, FormatError
from qvec.common.findings import Finding
from qvec.common.types import Codes, NDArray
from qvec.filters.check import check_fields_of
from qvec.index import GraphShape, HNSWIndex, IndexInput, isolated_duplicates, load_index
from qvec.quality.drift_record import read_drift_record
from qvec.rows.lookup import live_rows, read_record
from qvec.schema.config import Config
from qvec.schema.layout import CODES, IDS, QUANTIZER, VECTORS, active_columns
from qvec.schema.quantizers import QuantizerLoader, Quantizers
from qvec.schema.state import GraphState
from qvec.search.curves import stored_curves
from qvec.storage.store import Snapshot

CHECKED_ROWS = 8192
SHOWN = 5  # of a kind of problem


def verify_snapshot(snap: Snapshot, loader: QuantizerLoader, deep: bool) -> list[Finding]:
    """Check a snapshot. Reads everything once. ``deep``: also recompute and compare derived data, and look for what
    :meth:`qvec.Collection.optimize` would improve."""
    problems = [Finding(problem) for problem in _problems(snap, loader, deep)]
    return problems if problems or not deep else _advice(snap, loader)


def _problems(snap: Snapshot, loader: QuantizerLoader, deep: bool) -> list[str]:
    problems = list(snap.check())
    if problems:
        return problems  # the checks below assume whole data
    try:
        problems = [*_check_quantizers(snap, loader.config)]
        if not problems and (quantizers := loader.active(snap)) is not None:
            problems += _check_rows(snap, loader.config)
            index = load_index(loader.config.index, snap.state)
            problems += index.check(active_index_input(snap, quantizers), snap.state.index, deep)
            if deep:
                problems += _check_fields(snap)
                wrong = (row for rows, _ in wrong_codes(snap, quantizers) for row in rows.tolist())
                problems += _some("the code of row {} is not that of its vector", wrong)
    except (CorruptError, FormatError) as error:
        problems.append(str(error))
    return problems


def _advice(snap: Snapshot, loader: QuantizerLoader) -> list[Finding]:
    """What can be improved in a sound snapshot."""
    quantizers = loader.active(snap)
    if quantizers is None or not isinstance(snap.state.index, GraphState):
        return []
    rows = isolated_duplicates(active_index_input(snap, quantizers))
    if not len(rows):
        return []
    text = f"{len(rows)} rows with equal codes are not attached below one of them, the first is row {rows[0]}"
    return [Finding(f"{text}: optimize() builds a graph that finds more", "advice")]


def _check_quantizers(snap: Snapshot, config: Config) -> Iterator[str]:
    """Check that every record the state names exists and can be read."""
    for record in snap.state.generations:
        number = record.number
        plain = snap.record(QUANTIZER, number)
        if plain is None:
            yield f"the quantizer of generation {number} is lost"
            continue
        quantizer = from_state(plain)
        if (quantizer.dim, quantizer.metric) != (config.dim, config.metric):
            yield f"the quantizer of generation {number} is of {quantizer.dim} dimensions under {quantizer.metric}"
        elif record.code_size != quantizer.code_size:
            yield f"codes of generation {number} have {quantizer.code_size} bytes, the state says {record.code_size}"
        read_drift_record(snap, number, config.dim)
    stored_curves(snap)


def _check_rows(snap: Snapshot, config: Config) -> Iterator[str]:
    live = live_rows(snap)
    if len(live) != snap.state.live:
        yield f"{len(live)} rows are live, the state says {snap.state.live}"
    named = dict(snap.iter_ids())
    if len(named) != len(live) or set(named.values()) != set(live.tolist()):
        yield f"the id map names {len(set(named.values()))} rows, {len(live)} are live"
    lost = [row for row in live.tolist() if read_record(snap, row) is None]
    if len(live) - len(lost) != snap.state.records:
        yield f"{len(live) - len(lost)} live rows have a record, the state says {snap.state.records}"
    if config.ids == "str":
        yield from _some("row {} has no record", iter(lost))
    if config.ids == "int64":
        stored = snap.columns[IDS].read(live).view("<i8").reshape(-1)
        wrong = (row for row, i in zip(live.tolist(), stored.tolist(), strict=True) if named.get(_key(i)) != row)
        yield from _some("the id of row {} refers to another row", wrong)


def _check_fields(snap: Snapshot) -> Iterator[str]:
    if snap.state.fields:
        rows = live_rows(snap).tolist()
        records = ((row, read_record(snap, row)) for row in rows)
        yield from check_fields_of(snap, {row: record.payload for row, record in records if record is not None})


def _key(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=value < 0)


def wrong_codes(reading: Snapshot, quantizers: Quantizers) -> Iterator[tuple[NDArray[np.int64], Codes]]:
    """Rows whose codes differ from those of their originals, to the last bit, and the right codes.

    Yields nothing if the originals were rounded when they were stored.
    """
    originals = quantizers.originals
    if originals is None or originals.kind != "f32":
        return
    columns, live = active_columns(reading.columns, reading.state.column_names), live_rows(reading)
    for start in range(0, len(live), CHECKED_ROWS):
        rows = live[start : start + CHECKED_ROWS]
        codes = quantizers.codes.encode(originals.decode(columns[VECTORS].read(rows)))
        wrong = (codes != columns[CODES].read(rows)).any(axis=1)
        yield rows[wrong], codes[wrong]


def graph_shape(snap: Snapshot, loader: QuantizerLoader) -> GraphShape | None:
    """The shape of the active graph; None if there is none."""
    index, quantizers = load_index(loader.config.index, snap.state), loader.active(snap)
    if quantizers is None or not isinstance(index, HNSWIndex) or not snap.state.live:
        return None
    return index.shape(active_index_input(snap, quantizers), snap.state.index)


def active_index_input(reading: Snapshot, quantizers: Quantizers) -> IndexInput:
    """The input of the active index, to search and check it."""
    columns = active_columns(reading.columns, reading.state.column_names)
    return IndexInput.of_codes(quantizers, columns, reading.state.n)


def _some(text: str, rows: Iterator[int]) -> Iterator[str]:
    found = list(rows)
    for row in found[:SHOWN]:
        yield text.format(row)
    if len(found) > SHOWN:
        yield f"... and {len(found) - SHOWN} more of these"
