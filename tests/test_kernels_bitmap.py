"""Bitmaps of rows: ranges, CRoaring's form, lists and counts against NumPy and pyroaring, on every level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Place
from numpy.typing import NDArray
from pyroaring import BitMap

from qvec._kernels import (
    CHUNK_ROWS,
    WORD_ROWS,
    Column,
    bits_between,
    bits_count,
    bits_histogram,
    bits_roaring,
    bits_rows,
    bits_set,
    roaring_count,
    roaring_fill,
    simd_levels,
)
from qvec.common.errors import CorruptError
from qvec.storage.state_record import ColumnSpec
from qvec.storage.store import Store

pytestmark = pytest.mark.simd

MAX = 2**64 - 1
SPEC = ColumnSpec(9, WORD_ROWS * 8, min_pages=1, max_pages=1)


def bitmap(n: int) -> NDArray[np.uint64]:
    return np.zeros(-(-n // 64), np.uint64)


def rows_of(bits: NDArray[np.uint64]) -> list[int]:
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist()


def filled(column: Column, values: NDArray[np.uint64]) -> None:
    words = -(-len(values) // WORD_ROWS)
    column.resize(words)
    column.write(0, np.pad(values, (0, words * WORD_ROWS - len(values))).reshape(words, -1).view(np.uint8))


@pytest.mark.parametrize("level", simd_levels())
@pytest.mark.parametrize("n", [1, 63, 64, 65, 127, 448, 449, 1000, 5000])
def test_ranges_of_values_are_those_of_numpy(level: str, n: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(n)
    edges = np.array([0, 1, 2, 2**63 - 1, 2**63, 2**63 + 1, MAX - 1, MAX], np.uint64)
    values = np.where(rng.random(n) < 0.5, rng.choice(edges, n), rng.integers(0, MAX, n, np.uint64, endpoint=True))
    with Store.create(tmp_path / "a", {"v": SPEC}, {}) as store, store.write() as txn:
        column = txn.columns["v"]
        filled(column, values)
        for count in (1, 2, 8, 9, 40):
            bounds = np.sort(np.concatenate([rng.choice(edges, 2), rng.integers(0, MAX, 2 * count - 2, np.uint64)]))
            bits = bitmap(n)
            bits_between(column, n, bounds, bits, simd=level)
            inside = ((values[:, None] >= bounds[::2]) & (values[:, None] <= bounds[1::2])).any(axis=1)
            assert rows_of(bits) == np.flatnonzero(inside).tolist()


def test_ranges_are_added_to_set_bits_and_bad_arguments_are_refused(tmp_path: Path) -> None:
    with Store.create(tmp_path / "a", {"v": SPEC, "w": ColumnSpec(8, 16)}, {}) as store, store.write() as txn:
        column = txn.columns["v"]
        filled(column, np.arange(100, dtype=np.uint64))
        bits = bitmap(100)
        for low in (3, 50):
            bits_between(column, 100, np.array([low, low], np.uint64), bits)
        assert rows_of(bits) == [3, 50]
        with pytest.raises(ValueError, match="ascend"):
            bits_between(column, 100, np.array([5, 4], np.uint64), bits)
        with pytest.raises(ValueError, match="pairs"):
            bits_between(column, 100, np.array([5], np.uint64), bits)
        with pytest.raises(ValueError, match="does not hold 200 rows"):
            bits_between(column, 200, np.array([5, 6], np.uint64), bits)
        with pytest.raises(CorruptError, match="does not hold 100000 values"):
            bits_between(column, 100_000, np.array([5, 6], np.uint64), bitmap(100_000))
        with pytest.raises(ValueError, match="u64"):
            bits_between(txn.columns["w"], 1, np.array([5, 6], np.uint64), bits)


SETS: dict[str, Any] = {
    "one": [7], "last": [CHUNK_ROWS - 1], "few": [0, 1, 63, 64, 65, 4095, 65535], "run": range(10, 200),
    "runs": [*range(3), *range(60, 130), *range(1000, 1064), 65535], "array": range(0, 8192, 2),
    "bitset": range(0, 65536, 3), "all": range(CHUNK_ROWS),
}  # fmt: skip


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("chunk", [0, 1, 5])
@pytest.mark.parametrize("name", SETS)
def test_serialized_bitmaps_are_read_as_pyroaring_wrote_them(
    name: str, chunk: int, optimized: bool, guarded: Place
) -> None:
    rows = [chunk * CHUNK_ROWS + row for row in SETS[name]]
    stored = BitMap(rows)
    if optimized:
        stored.run_optimize()
    data = guarded(np.frombuffer(stored.serialize(), np.uint8))
    n = rows[-1] + 1
    bits = guarded(bitmap(n))
    assert bits_roaring(data, chunk, n, bits)
    assert bits_count(bits) == len(rows)
    assert rows_of(bits) == bits_rows(bits).tolist() == rows
    assert not bits_roaring(data, chunk, n - 1, bitmap(n))  # a row beyond the last
    mask = np.random.default_rng(chunk).integers(0, MAX, len(bits), np.uint64, endpoint=True)
    assert roaring_count(data, chunk, n, mask) == bits_count(bits & mask)
    assert roaring_count(data, chunk, n, ~bitmap(n)) == len(rows)
    assert roaring_count(data, chunk, n - 1, mask) == -1
    first = chunk * CHUNK_ROWS
    values = guarded(np.full(n - first, 7, np.uint32))
    assert roaring_fill(data, chunk, 9, values)
    assert (np.flatnonzero(values == 9) + first).tolist() == rows
    assert not roaring_fill(data, chunk, 9, np.zeros(n - first - 1, np.uint32))
    with pytest.raises(ValueError, match="does not have 65537 rows"):
        roaring_fill(data, chunk, 9, np.zeros(CHUNK_ROWS + 1, np.uint32))
    assert roaring_count(data, chunk + 1, 8 * CHUNK_ROWS, ~bitmap(8 * CHUNK_ROWS)) == -1
    assert not bits_roaring(data, chunk + 1, 8 * CHUNK_ROWS, bitmap(8 * CHUNK_ROWS))


@pytest.mark.parametrize("name", SETS)
def test_no_damage_of_a_serialized_bitmap_reaches_beyond_its_arguments(name: str, guarded: Place) -> None:
    rng = np.random.default_rng(1)
    stored = BitMap(SETS[name])
    stored.run_optimize()
    whole = np.frombuffer(stored.serialize(), np.uint8)
    for size in {0, 1, 4, 5, 7, 10, 11, 15, 17, 18, len(whole) - 1} & set(range(len(whole))):
        assert not bits_roaring(guarded(whole[:size].copy()), 0, CHUNK_ROWS, bitmap(CHUNK_ROWS))
        assert roaring_count(guarded(whole[:size].copy()), 0, CHUNK_ROWS, bitmap(CHUNK_ROWS)) == -1
    for _ in range(60):
        damaged = whole.copy()
        damaged[rng.integers(0, min(len(whole), 24), 3)] = rng.integers(0, 256, 3)
        bits = guarded(bitmap(1000))
        bits_roaring(guarded(damaged), 0, 1000, bits)
        assert all(row < 1000 for row in rows_of(bits))
        assert roaring_count(guarded(damaged), 0, 1000, guarded(~bitmap(1000))) in range(-1, 1001)
        roaring_fill(guarded(damaged), 0, 3, guarded(np.zeros(1000, np.uint32)))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
def test_values_of_rows_are_counted_as_by_numpy(n: int, guarded: Place) -> None:
    rng = np.random.default_rng(n)
    values, chosen = guarded(rng.integers(0, 20, n).astype(np.uint32)), rng.random(n) < 0.4
    bits = guarded(np.packbits(np.pad(chosen, (0, -n % 64)), bitorder="little").view(np.uint64))
    counts = guarded(np.arange(20, dtype=np.int64))
    bits_histogram(values, bits, counts)
    assert (counts - np.arange(20)).tolist() == np.bincount(values[chosen], minlength=20).tolist()
    with pytest.raises(ValueError, match="a value is not below 3"):
        bits_histogram(np.full(n, 3, np.uint32), bits | np.uint64(1), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="not one of"):
        bits_histogram(values, bits[:-1], counts)
    if n % 64:
        with pytest.raises(ValueError, match="not one of"):
            bits_histogram(values, ~bitmap(n), counts)
    counts[:] = 5
    bits_histogram(np.zeros(0, np.uint32), bitmap(0), counts)
    assert counts.tolist() == [5] * 20


def test_rows_are_set_listed_and_counted(guarded: Place) -> None:
    rng = np.random.default_rng(4)
    for n in (1, 64, 65, 1000):
        rows = np.unique(rng.integers(0, n, n)).astype(np.uint32)
        bits = guarded(bitmap(n))
        bits_set(rows, n, bits)
        assert bits_rows(bits).tolist() == rows.tolist() == rows_of(bits)
        assert bits_count(bits) == len(rows)
    assert bits_rows(bitmap(0)).tolist() == []
    with pytest.raises(ValueError, match="row 5 is not below 5"):
        bits_set(np.array([5], np.uint32), 5, bitmap(5))
