"""Verification of field indexes against the payloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qvec._kernels import bits_roaring
from qvec.common.errors import InputError
from qvec.common.types import NDArray, Payload
from qvec.filters.maintain import posted
from qvec.filters.postings import VERSION, VERSION_BYTES, all_names, chunk_of, version_name
from qvec.filters.schema import Field, Keys, load_schema, payload_keys, searchable_fields
from qvec.filters.values import column_name
from qvec.schema.bitmaps import rows_in, words_for
from qvec.storage.store import Snapshot
from qvec.text.check import check_postings_of


def check_fields_of(reading: Snapshot, payloads: Mapping[int, Payload | None]) -> Iterator[str]:
    """Find problems in the indexes of all fields that searches use. ``payloads``: the payloads of live rows."""
    rows = sorted(payloads)
    for field in searchable_fields(reading.state).values():
        try:
            held = [payload_keys((field,), payloads[row], f"the payload of row {row}")[0] for row in rows]
        except InputError as error:
            yield str(error)
            continue
        if field.is_searched:
            yield from check_postings_of(reading, field.name, rows, held)
        if field.has_postings:
            yield from _check_postings(reading, field, rows, held)
        if field.has_column:
            yield from _check_values(reading, field, rows, held)
    yield from _check_strays(reading)


def _check_postings(reading: Snapshot, field: Field, rows: list[int], held: list[Keys | None]) -> Iterator[str]:
    n = reading.state.n
    expected = {name: come for name, (come, _) in posted(field, rows, [None] * len(rows), held).items()}
    wrong, chunks, versions = 0, set(map(chunk_of, expected)), set()
    for name, data in reading.entries(*all_names(field)):
        if name[2:3] == VERSION:
            versions.add(chunk_of(name))
            wrong += name != version_name(field, chunk_of(name)) or len(data) != VERSION_BYTES
        elif _rows(data, name, n) != expected.pop(name, None):
            wrong += 1
    if wrong or expected:
        yield f"field {field.name!r}: {wrong} of its bitmaps do not match the payloads, {len(expected)} are missing"
    if lost := sorted(chunks - versions):
        yield f"field {field.name!r}: {len(lost)} chunks have no version, the first is chunk {lost[0]}"


def _rows(data: Any, name: bytes, n: int) -> list[int] | None:
    """The rows of a bitmap. None: the bitmap is malformed."""
    bits = np.zeros(words_for(n), np.uint64)
    chunk = int.from_bytes(name[-2:], "big")
    return rows_in(bits).tolist() if bits_roaring(data, chunk, n, bits) else None


def _check_values(reading: Snapshot, field: Field, rows: list[int], held: list[Keys | None]) -> Iterator[str]:
    n = reading.state.n
    expected = np.zeros(words_for(n) * 64, np.uint64)
    expected[rows] = [0 if keys is None else keys[0] for keys in held]
    stored: NDArray[np.uint64] = reading.columns[column_name(field)].read_range(0, words_for(n)).view("<u8").reshape(-1)
    if wrong := np.flatnonzero(stored != expected).tolist():
        problem = f"{len(wrong)} rows have a value that differs from their payload, the first is row {wrong[0]}"
        yield f"field {field.name!r}: {problem}"


def _check_strays(reading: Snapshot) -> Iterator[str]:
    """Find entries of undeclared fields."""
    numbers = {field.number for field in load_schema(reading.state).values() if field.has_postings}
    strays = sum(int.from_bytes(name[:2], "big") not in numbers for name, _ in reading.entries(b"\x00", b"\xff" * 400))
    if strays:
        yield f"{strays} bitmaps belong to undeclared fields"
