"""Whether a snapshot is sound: every checksum, every id, every count, every edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from qvec.codes.registry import Quantizer, from_state
from qvec.common.errors import CorruptError, FormatError
from qvec.common.types import Codes, NDArray
from qvec.filters.check import check_fields_of
from qvec.index import CodeColumn, GraphShape, HNSWIndex, IndexInput, load_index, vector_reader
from qvec.quality.drift_record import read_drift_record
from qvec.rows.lookup import live_rows, stored_record
from qvec.schema.config import Config
from qvec.schema.layout import CALIBRATION, CODES, IDS, TUNING, VECTORS, in_force
from qvec.search.curves import Curves
from qvec.storage.store import Snapshot

CHECKED_ROWS = 8192
SHOWN = 5  # of a kind of problem


def verify_snapshot(
    snap: Snapshot,
    config: Config,
    quantizer: Callable[[Snapshot], Quantizer | None],
    original_quantizer: Callable[[Snapshot], Quantizer | None],
    deep: bool,
) -> list[str]:
    """Problems found, none when the snapshot is sound. Reads everything once; ``deep``: makes the derived anew too."""
    problems = list(snap.check())
    if problems:
        return problems  # what follows would only trip over the damage
    try:
        problems = [*_check_calibrations(snap, config)]
        if (codes := quantizer(snap)) is not None and not problems:
            originals = original_quantizer(snap)
            problems += _check_rows(snap, config)
            problems += _check_index(snap, config, codes, originals, deep)
            if deep:
                problems += _check_fields(snap)
                problems += _check_codes(snap, codes, originals)
    except (CorruptError, FormatError) as error:
        problems.append(str(error))
    return problems


def _check_calibrations(snap: Snapshot, config: Config) -> Iterator[str]:
    """Whether all that the state names is there, and can be read."""
    for entry in snap.state["generations"]:
        number = entry["number"]
        state = snap.record(CALIBRATION, number)
        if state is None:
            yield f"the calibration of generation {number} is lost"
            continue
        quantizer = from_state(state)
        if (quantizer.dim, quantizer.metric) != (config.dim, config.metric):
            yield f"the calibration of generation {number} is of {quantizer.dim} dimensions under {quantizer.metric}"
        elif entry["code_size"] != quantizer.code_size:
            yield f"codes of generation {number} have {quantizer.code_size} bytes, the state says {entry['code_size']}"
        read_drift_record(snap, number, config.dim)
    if snap.state["tuned"] is not None:
        Curves.from_state(snap.record(TUNING, 0))


def _check_rows(snap: Snapshot, config: Config) -> Iterator[str]:
    live = live_rows(snap)
    if len(live) != snap.state["live"]:
        yield f"{len(live)} rows are live, the state says {snap.state['live']}"
    named = dict(snap.iter_ids())
    if len(named) != len(live) or set(named.values()) != set(live.tolist()):
        yield f"the id map names {len(set(named.values()))} rows, {len(live)} are live"
    lost = [row for row in live.tolist() if stored_record(snap, row) is None]
    if len(live) - len(lost) != snap.state["records"]:
        yield f"{len(live) - len(lost)} live rows have a record, the state says {snap.state['records']}"
    if config.ids == "str":
        yield from _some("row {} has no record", iter(lost))
    if config.ids == "int64":
        stored = snap.columns[IDS].read(live).view("<i8").reshape(-1)
        wrong = (row for row, i in zip(live.tolist(), stored.tolist(), strict=True) if named.get(_key(i)) != row)
        yield from _some("the id of row {} leads elsewhere", wrong)


def _check_fields(snap: Snapshot) -> Iterator[str]:
    if snap.state["fields"]:
        rows = live_rows(snap).tolist()
        records = ((row, stored_record(snap, row)) for row in rows)
        yield from check_fields_of(snap, {row: record["payload"] for row, record in records if record is not None})


def _key(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=value < 0)


def _check_codes(snap: Snapshot, quantizer: Quantizer, original_quantizer: Quantizer | None) -> Iterator[str]:
    wrong = (row for rows, _ in wrong_codes(snap, quantizer, original_quantizer) for row in rows.tolist())
    yield from _some("the code of row {} is not that of its vector", wrong)


def wrong_codes(
    reading: Snapshot, quantizer: Quantizer, original_quantizer: Quantizer | None
) -> Iterator[tuple[NDArray[np.int64], Codes]]:
    """Rows whose codes are not those of their originals, to the last bit, and what these are.

    Originals that were rounded when they were stored tell nothing.
    """
    if original_quantizer is None or original_quantizer.kind != "f32":
        return
    columns, live = in_force(reading.columns, reading.state["names"]), live_rows(reading)
    for start in range(0, len(live), CHECKED_ROWS):
        rows = live[start : start + CHECKED_ROWS]
        codes = quantizer.encode(original_quantizer.decode(columns[VECTORS].read(rows)))
        wrong = (codes != columns[CODES].read(rows)).any(axis=1)
        yield rows[wrong], codes[wrong]


def _check_index(
    snap: Snapshot, config: Config, quantizer: Quantizer, original_quantizer: Quantizer | None, deep: bool
) -> list[str]:
    index = load_index(config.index, snap.state["index"])
    return index.check(source_of(snap, quantizer, original_quantizer), snap.state["index"], deep)


def shape_of_graph(
    snap: Snapshot, config: Config, quantizer: Quantizer | None, original_quantizer: Quantizer | None
) -> GraphShape | None:
    """What the graph in force looks like; None where there is none."""
    index = load_index(config.index, snap.state["index"])
    if quantizer is None or not isinstance(index, HNSWIndex) or not snap.state["live"]:
        return None
    return index.shape(source_of(snap, quantizer, original_quantizer), snap.state["index"])


def source_of(snap: Snapshot, quantizer: Quantizer, original_quantizer: Quantizer | None) -> IndexInput:
    """What the index in force is over."""
    columns = in_force(snap.columns, snap.state["names"])
    vectors = vector_reader(quantizer, original_quantizer, columns)
    return IndexInput(columns, CodeColumn(quantizer.codec, columns[CODES]), snap.state["n"], vectors)


def _some(text: str, rows: Iterator[int]) -> Iterator[str]:
    found = list(rows)
    for row in found[:SHOWN]:
        yield text.format(row)
    if len(found) > SHOWN:
        yield f"... and {len(found) - SHOWN} more of these"
