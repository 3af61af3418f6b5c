"""Columns without a store: the file is an array in memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from helpers.column_files import PSIZE, File, commit
from qvec._kernels import Column, chunk_entries, make_resident, page_of
from qvec.common.errors import CorruptError, InputError
from qvec.storage.store import block_geometry

STRIDE, ROWS, PAGES = 128, 31, 1
N_BLOCKS = 5


def new_column(writable: bool = False, **options: bool) -> Column:
    return Column("lists", 1, 3, STRIDE, ROWS, PAGES, PSIZE, writable=writable, **options)


def stored(n_blocks: int = N_BLOCKS) -> tuple[File, Column, np.ndarray, memoryview, int]:
    """A file with a committed column; its writer, its rows, its page table chunk and that chunk's checksum."""
    file, writer = File(), new_column(writable=True)
    file.attach(writer)
    writer.resize(n_blocks * ROWS)
    rows = np.random.default_rng(1).integers(0, 256, (n_blocks * ROWS, STRIDE), dtype=np.uint8)
    writer.write(0, rows)
    chunk, crc = commit(file, writer, 7)
    return file, writer, rows, chunk, crc


def reader_of(file: File, chunk: memoryview, crc: int, n_blocks: int = N_BLOCKS, **options: bool) -> Column:
    reader = new_column(**options)
    file.attach(reader)
    reader.resize(n_blocks * ROWS)
    reader.load(0, chunk, crc)
    return reader


@pytest.mark.parametrize("stride", [1, 8, 128, 384, 388, 1536, 4000])
def test_a_block_wastes_the_least_that_the_allowed_page_counts_permit(stride: int) -> None:
    rows, pages = block_geometry(stride, PSIZE, 4, 16)
    assert rows * stride + 64 <= pages * PSIZE
    used = rows * stride / pages
    assert all((n * PSIZE - 64) // stride * stride / n <= used for n in range(4, 17))
    assert all((n * PSIZE - 64) // stride * stride / n < used for n in range(4, pages))


def test_a_row_that_fits_no_block_is_refused_with_the_limit() -> None:
    assert block_geometry(16 * PSIZE - 64, PSIZE, 4, 16) == (1, 16)
    with pytest.raises(InputError, match=r"65473 bytes.*65472"):
        block_geometry(16 * PSIZE - 63, PSIZE, 4, 16)


@pytest.mark.parametrize("rows_per_block", [1, 2, 3, 7, 31, 32, 33, 41, 170, 1000])
def test_the_block_of_a_row_is_its_quotient(rows_per_block: int) -> None:
    pages = -(-(rows_per_block * 16 + 64) // PSIZE)
    column = Column("c", 1, 0, 16, rows_per_block, pages, PSIZE, writable=True)
    n = 40 * rows_per_block
    column.resize(n)
    numbers = np.arange(n, dtype="<u8")
    rows = np.zeros((n, 2), dtype="<u8")
    rows[:, 0] = numbers
    column.write(0, rows.view(np.uint8))
    for first in range(0, n, 997):
        some = numbers[first : first + 997]
        assert np.array_equal(column.read(some).view("<u8")[:, 0], some)


def test_a_reader_sees_the_rows_that_the_writer_stored() -> None:
    file, _, rows, chunk, crc = stored()
    reader = reader_of(file, chunk, crc)
    assert np.array_equal(reader.read_range(0, len(rows)), rows)
    some = np.random.default_rng(0).integers(0, len(rows), 100)
    assert np.array_equal(reader.read(some), rows[some])
    assert all(reader.check(block) for block in range(N_BLOCKS))


def test_a_change_dirties_its_block_only_and_leaves_readers_alone() -> None:
    file, writer, rows, chunk, crc = stored()
    reader = reader_of(file, chunk, crc)
    writer.write(2 * ROWS, np.zeros((1, STRIDE), np.uint8))
    assert writer.dirty().tolist() == [2]
    assert np.array_equal(reader.read_range(0, len(rows)), rows)
    reader.load(0, *commit(file, writer, 8))
    assert not reader.read([2 * ROWS]).any()
    assert np.array_equal(reader.read([2 * ROWS + 1]), rows[[2 * ROWS + 1]])


def test_released_changes_are_discarded() -> None:
    file, writer, rows, _, _ = stored()
    before = file.bytes.copy()
    writer.write(0, np.zeros((len(rows), STRIDE), np.uint8))
    writer.release()
    assert np.array_equal(writer.read_range(0, len(rows)), rows)
    assert writer.dirty().tolist() == []
    assert np.array_equal(file.bytes, before)


def test_new_rows_are_zero_also_where_a_private_copy_was_used_before() -> None:
    writer = new_column(writable=True)
    writer.resize(3 * ROWS)
    writer.write(0, np.full((3 * ROWS, STRIDE), 255, np.uint8))
    writer.release()
    writer.resize(0)
    writer.resize(3 * ROWS)
    assert not writer.read_range(0, 3 * ROWS).any()
    assert writer.dirty().tolist() == [0, 1, 2]


def test_every_flipped_bit_of_a_block_is_found() -> None:
    file, _, _, chunk, crc = stored(1)
    start = 2 * PSIZE + 16
    for at in np.random.default_rng(2).integers(0, (PSIZE - 16) * 8, 300).tolist():
        mask = np.uint8(1 << at % 8)
        file.bytes[start + at // 8] ^= mask
        reader = reader_of(file, chunk, crc, 1)
        assert not reader.check(0)
        with pytest.raises(CorruptError, match="column 'lists': block 0"):
            reader.read([0])
        file.bytes[start + at // 8] ^= mask
    assert reader.check(0)


def test_every_flipped_bit_of_a_directory_chunk_is_found() -> None:
    file, _, _, chunk, crc = stored(1)
    for at in np.random.default_rng(3).integers(0, len(chunk) * 8, 300).tolist():
        chunk[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptError, match="page table chunk 0"):
            reader_of(file, chunk, crc, 1)
        chunk[at // 8] ^= 1 << at % 8
    reader_of(file, chunk, crc, 1)


@pytest.mark.parametrize("verify", [True, False])
def test_a_stale_or_swapped_block_is_detected_although_it_is_intact(verify: bool) -> None:
    file, writer, _, _, _ = stored()
    old = bytes(file.bytes[2 * PSIZE + 16 : 3 * PSIZE])
    writer.write(0, np.zeros((1, STRIDE), np.uint8))
    chunk, crc = commit(file, writer, 8)
    page = file.next_page - 2
    new = bytes(file.bytes[page * PSIZE + 16 : (page + 1) * PSIZE])
    other = bytes(file.bytes[3 * PSIZE + 16 : 4 * PSIZE])
    for wrong in (old, other):
        file.put(wrong, page)
        reader = reader_of(file, chunk, crc, verify=verify)
        with pytest.raises(CorruptError, match="block 0"):
            reader.read([0])
    file.put(new, page)
    assert not reader_of(file, chunk, crc, verify=verify).read([0]).any()


def test_a_page_beyond_the_map_is_not_touched() -> None:
    file, _, _, chunk, crc = stored()
    reader = new_column()
    reader.attach(file.bytes.ctypes.data, 3 * PSIZE)
    reader.resize(N_BLOCKS * ROWS)
    reader.load(0, chunk, crc)
    reader.read([0])
    with pytest.raises(CorruptError, match="block 1"):
        reader.read([ROWS])
    assert not reader.check(1)


def test_a_block_found_by_key_is_served_though_its_page_number_is_wrong() -> None:
    file, _, rows, chunk, crc = stored()
    reader = reader_of(file, chunk, crc)
    moved = [file.put(bytes(file.bytes[(2 + b) * PSIZE + 16 : (3 + b) * PSIZE])) for b in range(N_BLOCKS)]
    file.bytes[2 * PSIZE : (2 + N_BLOCKS) * PSIZE] = 0
    for block, value in enumerate(moved):
        reader.place(block, value)
    assert np.array_equal(reader.read_range(0, len(rows)), rows)
    with pytest.raises(CorruptError):
        reader.place(0, moved[1])


def test_resident_rows_outlive_the_file_until_they_change() -> None:
    file, writer, rows, chunk, crc = stored()
    reader = reader_of(file, chunk, crc)
    make_resident([reader], file.fd)
    copy = reader.clone()
    writer.write(0, np.zeros((1, STRIDE), np.uint8))
    newer = commit(file, writer, 8)
    file.bytes[2 * PSIZE : (2 + N_BLOCKS) * PSIZE] = 0
    copy.load(0, *newer)
    assert np.array_equal(reader.read_range(0, len(rows)), rows)
    assert not copy.read([0]).any()
    assert np.array_equal(copy.read_range(1, len(rows)), rows[1:])


def test_a_clone_moves_on_without_the_original() -> None:
    file, writer, rows, chunk, crc = stored()
    reader = reader_of(file, chunk, crc)
    copy = reader.clone()
    writer.write(0, np.zeros((1, STRIDE), np.uint8))
    copy.load(0, *commit(file, writer, 8))
    assert not copy.read([0]).any()
    assert np.array_equal(reader.read([0]), rows[[0]])


@pytest.mark.parametrize("pages", [1, 4, 16])
def test_rows_begin_on_a_64_byte_boundary_in_private_copies(pages: int) -> None:
    rows = (pages * PSIZE - 64) // 64
    column = Column("c", 1, 0, 64, rows, pages, PSIZE, writable=True)
    column.resize(600 * rows)
    column.write(0, np.ones((1, 64), np.uint8))
    for block in itertools.chain(range(5), range(590, 600)):
        column.write(block * rows, np.ones((1, 64), np.uint8))
        address, _ = page_of(column.seal(block, 1))
        assert (address + 48) % 64 == 0


def test_bad_arguments_are_refused_by_name() -> None:
    column = new_column(writable=True)
    column.resize(ROWS)
    with pytest.raises(InputError, match="row 31 is not below 31"):
        column.read([31])
    with pytest.raises(InputError, match="row -1"):
        column.read([-1])
    with pytest.raises(InputError, match=r"rows 30\.\.32"):
        column.read_range(30, 32)
    with pytest.raises(InputError, match=r"uint8 \[n, 128\]"):
        column.write(0, np.zeros((1, 127), np.uint8))
    with pytest.raises(InputError, match="2147483"):
        column.resize(1 << 31)
    with pytest.raises(InputError, match="no changes"):
        column.seal(0, 1)
    with pytest.raises(InputError, match="a reader's"):
        new_column().write(0, np.zeros((0, STRIDE), np.uint8))
    with pytest.raises(InputError, match="do not fit"):
        Column("c", 1, 0, 128, 32, 1, PSIZE)


def test_entries_of_a_chunk_fill_one_page() -> None:
    assert chunk_entries(PSIZE) == (PSIZE - 64) // 8
