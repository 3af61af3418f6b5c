"""Rows that are verified alone: their checksums, the damage that these detect, and what a search reads."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.column_files import PSIZE, File, commit
from qvec._kernels import Column, crc32c, make_resident
from qvec.common.errors import CorruptError, InputError

STRIDE, PAGES = 208, 4
ROWS = (PAGES * PSIZE - 64) // STRIDE
N_BLOCKS = 3


def new_column(writable: bool = False, **options: bool) -> Column:
    return Column("codes", 1, 2, STRIDE, ROWS, PAGES, PSIZE, writable=writable, row_sums=True, **options)


def random_rows(n: int, seed: int = 1) -> np.ndarray:
    rows = np.random.default_rng(seed).integers(0, 256, (n, STRIDE), dtype=np.uint8)
    rows[:, -4:] = 0
    return rows


class Stored:
    """A file with one column of N_BLOCKS blocks, and its writer."""

    def __init__(self) -> None:
        self.file, self.writer = File(), new_column(writable=True)
        self.file.attach(self.writer)
        self.writer.resize(N_BLOCKS * ROWS)
        self.rows = random_rows(N_BLOCKS * ROWS)
        self.writer.write(0, self.rows)
        self.pages = [2 + block * PAGES for block in range(N_BLOCKS)]
        self.chunk, self.crc = commit(self.file, self.writer, 7)

    def reader(self, **options: bool) -> Column:
        column = new_column(**options)
        self.file.attach(column)
        column.resize(N_BLOCKS * ROWS)
        column.load(0, self.chunk, self.crc)
        return column

    def at(self, row: int) -> int:
        """Position of a row in the file."""
        return self.pages[row // ROWS] * PSIZE + 64 + row % ROWS * STRIDE

    def bytes_of(self, row: int) -> np.ndarray:
        return self.file.bytes[self.at(row) : self.at(row) + STRIDE]


def test_rows_and_sums_are_those_of_the_format() -> None:
    stored = Stored()
    value = stored.file.bytes[stored.pages[1] * PSIZE + 16 : (stored.pages[1] + PAGES) * PSIZE].tobytes()
    rows = [value[48 + i * STRIDE : 48 + (i + 1) * STRIDE] for i in range(ROWS)]
    sums = [crc32c(row[:-4]) for row in rows]
    expected = crc32c(value[:12] + value[16:48] + np.array(sums, "<u4").tobytes() + value[48 + ROWS * STRIDE :])
    assert value[5] == 2
    assert int.from_bytes(value[12:16], "little") == expected
    for i, row in enumerate(rows):
        assert int.from_bytes(row[-4:], "little") == sums[i] ^ crc32c(i.to_bytes(4, "little"), expected)
    assert np.array_equal(stored.reader().read(np.arange(len(stored.rows))), stored.rows)
    assert np.array_equal(stored.reader().read_range(3, 150), stored.rows[3:150])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, N_BLOCKS * ROWS - 1), st.integers(0, STRIDE - 1), st.integers(0, 7))
def test_a_flipped_bit_is_found_by_reading_the_row_alone(row: int, byte: int, bit: int) -> None:
    stored = Stored()
    stored.bytes_of(row)[byte] ^= 1 << bit
    reader = stored.reader()
    with pytest.raises(CorruptError, match=f"block {row // ROWS}"):
        reader.read([row])
    neighbor = row + 1 if row % ROWS == 0 else row - 1
    assert np.array_equal(reader.read([neighbor]), stored.rows[[neighbor]])
    with pytest.raises(CorruptError):
        reader.read_range(row, row + 1)
    assert not reader.check(row // ROWS)


def test_a_row_of_another_version_place_or_block_is_found() -> None:
    stored = Stored()
    old = stored.file.bytes.copy()
    stored.writer.write(5, random_rows(1, seed=2))
    stored.pages[0] = stored.file.next_page
    stored.chunk, stored.crc = commit(stored.file, stored.writer, 8)
    newer = stored.bytes_of(9).copy()
    first = 2 * PSIZE + 64
    stored.bytes_of(9)[:] = old[first + 9 * STRIDE : first + 10 * STRIDE]  # equal, but of the version before
    with pytest.raises(CorruptError):
        stored.reader().read([9])
    stored.bytes_of(9)[:] = newer
    assert np.array_equal(stored.reader().read([9]), stored.rows[[9]])
    for other in (10, ROWS + 9):
        stored.bytes_of(9)[:] = stored.bytes_of(other)
        with pytest.raises(CorruptError):
            stored.reader().read([9])


def test_damage_elsewhere_in_a_block_is_found_when_the_whole_block_is_read() -> None:
    for at in (20, 48 + ROWS * STRIDE):  # the header, the zeros at the end
        stored = Stored()
        stored.file.bytes[stored.pages[1] * PSIZE + 16 + at] ^= 1
        reader = stored.reader()
        assert np.array_equal(reader.read([ROWS]), stored.rows[[ROWS]])
        with pytest.raises(CorruptError):
            reader.read_range(ROWS, ROWS + 1)
        writer = new_column(writable=True)
        stored.file.attach(writer)
        writer.resize(N_BLOCKS * ROWS)
        writer.load(0, stored.chunk, stored.crc)
        with pytest.raises(CorruptError):
            writer.write(ROWS, stored.rows[:1])


def test_a_block_is_verified_after_some_of_its_rows_were() -> None:
    stored = Stored()
    stored.bytes_of(50)[0] ^= 1
    reader = stored.reader()
    reader.whole_after = 4
    for row in (1, 1, 2, 3, 3):
        assert np.array_equal(reader.read([row]), stored.rows[[row]])
    with pytest.raises(CorruptError):
        reader.read([4])


def test_a_changed_block_is_verified_again() -> None:
    stored = Stored()
    reader = stored.reader()
    for row in (3, ROWS + 3):
        reader.read([row])
    copy = reader.clone()
    stored.writer.write(0, random_rows(1, seed=3))
    stored.pages[0] = stored.file.next_page
    copy.load(0, *commit(stored.file, stored.writer, 8))
    for row in (3, ROWS + 3):
        stored.bytes_of(row)[0] ^= 1
    with pytest.raises(CorruptError):
        copy.read([3])
    assert len(copy.read([ROWS + 3])) == 1  # verified before it was damaged, in a block that has not changed
    assert np.array_equal(reader.read([3]), stored.rows[[3]])


def test_a_writer_verifies_a_block_again_after_it_stored_it() -> None:
    stored = Stored()
    assert np.array_equal(stored.writer.read([7]), stored.rows[[7]])
    stored.writer.write(1, random_rows(1, seed=4))
    stored.pages[0] = stored.file.next_page
    commit(stored.file, stored.writer, 8)
    stored.bytes_of(7)[3] ^= 8
    with pytest.raises(CorruptError):
        stored.writer.read([7])


def test_without_checksums_rows_are_read_as_they_are() -> None:
    stored = Stored()
    stored.bytes_of(8)[1] ^= 1
    damaged = stored.rows[[8]].copy()
    damaged[0, 1] ^= 1
    assert np.array_equal(stored.reader(verify=False).read([8]), damaged)


def test_a_row_has_more_bytes_than_its_sum() -> None:
    with pytest.raises(InputError):
        Column("codes", 1, 2, 4, 8, 1, PSIZE, row_sums=True)


@pytest.mark.parametrize("budget", [0, 1, ROWS * STRIDE + 63, 4 * (ROWS * STRIDE + 64), None])
def test_copies_stay_within_a_budget_and_answer_alike(budget: int | None) -> None:
    stored = Stored()
    readers = [stored.reader(), stored.reader()]
    make_resident(readers, stored.file.fd, budget)
    pitch = (ROWS * STRIDE + 63) // 64 * 64
    copied = 2 * N_BLOCKS if budget is None else budget // pitch
    assert sum(reader.resident_bytes for reader in readers) == copied * pitch
    for reader in readers:
        assert np.array_equal(reader.read(np.arange(N_BLOCKS * ROWS)), stored.rows)
    stored.file.bytes[2 * PSIZE :] = 0
    for reader, blocks in zip(readers, (min(copied, N_BLOCKS), max(copied - N_BLOCKS, 0)), strict=True):
        assert np.array_equal(reader.read_range(0, blocks * ROWS), stored.rows[: blocks * ROWS])


def test_copying_names_the_damaged_or_missing_block() -> None:
    stored = Stored()
    stored.bytes_of(ROWS + 1)[0] ^= 1
    with pytest.raises(CorruptError, match="block 1"):
        make_resident([stored.reader(), stored.reader()], stored.file.fd)
    whole = Stored()
    make_resident([whole.reader()], whole.file.fd)
    reader = whole.reader()
    os.truncate(whole.file.fd, whole.pages[2] * PSIZE + 100)
    with pytest.raises(CorruptError, match="block"):
        make_resident([reader], whole.file.fd)
