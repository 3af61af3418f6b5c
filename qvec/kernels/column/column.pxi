# cython: language_level=3
# Columns of rows in blocks. Relies on memory.pxi.

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

import numpy as np

from qvec.common.errors import CorruptError, InputError, MapFullError


cdef extern from "column/column.h" nogil:
    enum: QV_BLOCK_HEADER
    enum: QV_PAGE_HEADER
    enum: QV_MAX_ROWS
    ctypedef struct qv_entry:
        uint32_t pgno
        uint32_t crc
    ctypedef struct qv_column:
        uint32_t stride, rows_per_block, n_blocks
        uint32_t psize, value_size
        uint8_t id
        uint16_t generation
        const uint8_t *map
        uint64_t map_size
        qv_entry *entries
        uint8_t **table
        uint8_t **scratch
        int verify
        int64_t bad_block
        int row_sums
        uint64_t *checked
        uint32_t words
        uint32_t whole_after
        int partly_copied
    enum: QV_ROW_SUM
    int qv_column_init(qv_column *, uint8_t, uint16_t, uint32_t, uint32_t, uint32_t, uint32_t, int, int)
    void qv_column_free(qv_column *)
    int qv_column_resize(qv_column *, uint32_t)
    uint8_t *qv_resolve(qv_column *, uint32_t)
    uint8_t *qv_touch(qv_column *, uint32_t)
    uint8_t *qv_seal(qv_column *, uint32_t, uint64_t)
    void qv_set_page(qv_column *, uint32_t, uint32_t)
    void qv_discard(qv_column *, uint32_t)
    void qv_release(qv_column *)
    size_t qv_private_bytes(const qv_column *)
    int qv_block_intact(const qv_column *, uint32_t, const uint8_t *, uint32_t, int)
    uint32_t qv_chunk_entries(uint32_t)
    uint32_t qv_chunk_pack(const qv_column *, uint32_t, uint64_t, uint8_t *)
    int qv_chunk_load(qv_column *, uint32_t, const uint8_t *, uint32_t)
    const uint8_t *qv_row(qv_column *, uint32_t)
    const uint8_t *qv_lone_row(qv_column *, uint32_t)
    void qv_request_row(const qv_column *, uint32_t)
    uint32_t qv_block_of(const qv_column *, uint32_t)
    uint8_t *qv_row_mut(qv_column *, uint32_t)


cdef enum:
    ROWS_READ_ALONE = 256  # of more rows in one call, whole blocks are verified


def page_of(const uint8_t[::1] value not None) -> tuple[int, int]:
    """Address of an overflow value in the map, and the number of its first page (LMDB 0.9 page header, mp_pgno)."""
    cdef const uint8_t *at = &value[0]
    cdef uint64_t pgno
    memcpy(&pgno, at - QV_PAGE_HEADER, sizeof(pgno))
    return <uintptr_t>at, pgno


def chunk_entries(psize: int) -> int:
    """Entries in one chunk of the page table on pages of ``psize`` bytes."""
    return qv_chunk_entries(psize)


cdef class Column:
    """Fixed-stride rows in blocks, read from the file map; see column.h for the life of a block.

    A reader's column is valid while the read transaction that it was refreshed under is open.
    ``writable`` columns collect changes in private copies until `release`. ``row_sums``: the last four bytes of each
    row are its checksum, and read as zeros. If ``whole_after`` rows of a block were verified alone, the block is; 0:
    never.
    """

    cdef qv_column c
    cdef _Region region
    cdef readonly str name
    cdef readonly bint writable

    def __init__(self, str name not None, int id, int generation, uint32_t stride, uint32_t rows_per_block,
                 uint32_t pages, uint32_t psize, *, bint verify=True, bint writable=False, bint row_sums=False):
        if self.c.stride:
            raise InputError("a Column is initialized once")
        if not (0 <= id < 256 and 0 <= generation < 65536):
            raise InputError(f"column {name!r}: id {id} is not below 256 or generation {generation} not below 65536")
        if qv_column_init(&self.c, id, generation, stride, rows_per_block, pages, psize, writable, row_sums):
            raise InputError(f"column {name!r}: {rows_per_block} rows of {stride} bytes do not fit {pages} pages of {psize}")
        self.c.verify = verify
        self.name = name
        self.writable = writable

    def __dealloc__(self):
        qv_column_free(&self.c)

    def __repr__(self) -> str:
        return f"<Column {self.name!r} generation {self.c.generation}: {self.n_rows} rows of {self.c.stride} bytes>"

    @property
    def id(self) -> int:
        return self.c.id

    @property
    def generation(self) -> int:
        return self.c.generation

    @property
    def stride(self) -> int:
        return self.c.stride

    @property
    def rows_per_block(self) -> int:
        return self.c.rows_per_block

    @property
    def row_sums(self) -> bool:
        return bool(self.c.row_sums)

    @property
    def whole_after(self) -> int:
        return self.c.whole_after

    @whole_after.setter
    def whole_after(self, rows: int) -> None:
        self.c.whole_after = rows

    @property
    def pages(self) -> int:
        return (self.c.value_size + QV_PAGE_HEADER) // self.c.psize

    @property
    def n_blocks(self) -> int:
        return self.c.n_blocks

    @property
    def n_rows(self) -> int:
        """Capacity in rows: whole blocks."""
        return <uint64_t>self.c.n_blocks * self.c.rows_per_block

    @property
    def private_bytes(self) -> int:
        """Memory of the private copies of changed blocks."""
        return qv_private_bytes(&self.c)

    # Rows

    def resize(self, n_rows: int) -> None:
        """Set the capacity to ``n_rows`` rows, in whole blocks: new rows are zero, blocks past the end are dropped."""
        if not 0 <= n_rows <= QV_MAX_ROWS - self.c.rows_per_block:
            raise InputError(f"column {self.name!r}: {n_rows} rows are not between 0 and {QV_MAX_ROWS - self.c.rows_per_block}")
        if qv_column_resize(&self.c, (n_rows + self.c.rows_per_block - 1) // self.c.rows_per_block):
            raise MemoryError(f"column {self.name!r}: no memory for the table of {n_rows} rows")

    def read(self, rows) -> np.ndarray:
        """Copy rows, uint8 [n, stride], by row number; InputError beyond `n_rows`, CorruptError for a damaged block."""
        cdef const int64_t[::1] wanted = self._checked(rows)
        cdef Py_ssize_t i, n = wanted.shape[0]
        cdef const uint8_t *row
        out = np.empty((n, self.c.stride), dtype=np.uint8)
        cdef uint8_t[:, ::1] to = out
        cdef bint alone = n <= ROWS_READ_ALONE
        with nogil:
            for i in range(n if alone else 0):
                if self.c.table[qv_block_of(&self.c, <uint32_t>wanted[i])] == NULL:
                    qv_request_row(&self.c, <uint32_t>wanted[i])
            for i in range(n):
                row = qv_lone_row(&self.c, <uint32_t>wanted[i]) if alone else qv_row(&self.c, <uint32_t>wanted[i])
                if row == NULL:
                    break
                memcpy(&to[i, 0], row, self.c.stride)
            else:
                i = n
        if i < n:
            self._fail()
        return self._without_sums(out)

    def read_range(self, start: int, stop: int) -> np.ndarray:
        """Copy rows start..stop, uint8 [stop - start, stride]."""
        self._check_range(start, stop)
        out = np.empty((stop - start, self.c.stride), dtype=np.uint8)
        if stop > start and self._copy(out, start, False):
            self._fail()
        return self._without_sums(out)

    cdef object _without_sums(self, out):
        if self.c.row_sums:
            out[:, self.c.stride - QV_ROW_SUM:] = 0
        return out

    def write(self, start: int, rows) -> None:
        """Write rows, uint8 [n, stride], from row ``start`` on, into private copies of their blocks."""
        rows = self._values(rows)
        self._check_writable()
        self._check_range(start, start + len(rows))
        if len(rows) and self._copy(rows, start, True):
            self._fail()

    def put(self, rows, values) -> None:
        """Write values, uint8 [n, stride], to the rows of these numbers, into private copies of their blocks."""
        cdef const int64_t[::1] wanted = self._checked(rows)
        cdef const uint8_t[:, ::1] from_ = self._values(values)
        cdef Py_ssize_t i = 0, n = wanted.shape[0]
        cdef uint8_t *row
        self._check_writable()
        if from_.shape[0] != n:
            raise InputError(f"column {self.name!r}: {from_.shape[0]} values for {n} rows")
        with nogil:
            while i < n:
                row = qv_row_mut(&self.c, <uint32_t>wanted[i])
                if row == NULL:
                    break
                memcpy(row, &from_[i, 0], self.c.stride)
                i += 1
        if i < n:
            self._fail()

    cdef int _copy(self, const uint8_t[:, ::1] rows, uint32_t start, bint into) except -2:
        """Copy whole runs of a block at a time; -1 where a block is damaged."""
        cdef uint32_t at = start, end = start + <uint32_t>rows.shape[0], run
        cdef uint8_t *here = <uint8_t *>&rows[0, 0]
        cdef uint8_t *row
        with nogil:
            while at < end:
                run = self.c.rows_per_block - at % self.c.rows_per_block
                if run > end - at:
                    run = end - at
                row = qv_row_mut(&self.c, at) if into else <uint8_t *>qv_row(&self.c, at)
                if row == NULL:
                    break
                if into:
                    memcpy(row, here, <size_t>run * self.c.stride)
                else:
                    memcpy(here, row, <size_t>run * self.c.stride)
                here += <size_t>run * self.c.stride
                at += run
        return 0 if at == end else -1

    # Where blocks lie

    def attach(self, base: int, size: int) -> None:
        """Set the file map: its address, and the bytes that may be read. A new address unresolves all blocks."""
        cdef const uint8_t *map = <const uint8_t *><uintptr_t>base
        cdef uint32_t block
        if self.c.map != map:
            for block in range(self.c.n_blocks):
                if self.c.scratch == NULL or self.c.scratch[block] == NULL:
                    self.c.table[block] = NULL
        self.c.map = map
        self.c.map_size = size

    def load(self, chunk: int, const uint8_t[::1] value not None, crc: int) -> None:
        """Load a chunk of the page table that has checksum ``crc``; blocks whose entry changed become unresolved."""
        if <size_t>value.shape[0] != self.c.psize - QV_PAGE_HEADER or qv_chunk_load(&self.c, chunk, &value[0], crc):
            raise CorruptError(f"column {self.name!r}: page table chunk {chunk} is damaged or not the one of this commit")

    def place(self, block: int, const uint8_t[::1] value not None) -> None:
        """Resolve a block to the value found by its key, regardless of the page number in the page table."""
        if block >= self.c.n_blocks:
            raise InputError(f"column {self.name!r}: block {block} is not below {self.c.n_blocks}")
        cdef const uint8_t *at = &value[0]
        cdef uint32_t number = block
        if <uint32_t>value.shape[0] != self.c.value_size or not qv_block_intact(
            &self.c, number, at, self.c.entries[number].crc, self.c.verify
        ):
            raise self._damaged(block)
        self.c.entries[number].pgno = self._page_number(at)
        if self.c.scratch == NULL or self.c.scratch[number] == NULL:
            self.c.table[number] = <uint8_t *>at + QV_BLOCK_HEADER

    @property
    def resident(self):
        """Whether rows were copied into memory."""
        return self.region is not None

    @property
    def resident_bytes(self) -> int:
        """Memory of the copied rows."""
        return 0 if self.region is None else self.region.size

    def clone(self, *, bint writable=False) -> Column:
        """An independent column of the same rows, as last committed."""
        cdef Column other = Column(self.name, self.c.id, self.c.generation, self.c.stride, self.c.rows_per_block,
                                   self.pages, self.c.psize, verify=self.c.verify, writable=writable, row_sums=self.c.row_sums)
        if self.writable:
            raise InputError(f"column {self.name!r}: a writer's column cannot be cloned: it has private changes")
        if qv_column_resize(&other.c, self.c.n_blocks):
            raise MemoryError(f"column {self.name!r}: no memory for a copy of its table")
        if self.c.n_blocks:
            memcpy(other.c.entries, self.c.entries, self.c.n_blocks * sizeof(qv_entry))
            memcpy(other.c.table, self.c.table, self.c.n_blocks * sizeof(uint8_t *))
            if self.c.row_sums:
                memcpy(other.c.checked, self.c.checked, <size_t>self.c.n_blocks * self.c.words * sizeof(uint64_t))
        other.c.map = self.c.map
        other.c.map_size = self.c.map_size
        other.c.whole_after, other.c.partly_copied, other.region = self.c.whole_after, self.c.partly_copied, self.region
        return other

    def check(self, block: int) -> bool:
        """Whether the stored block is the one in the page table; its checksum is computed from its bytes."""
        if not 0 <= block < self.c.n_blocks:
            raise InputError(f"column {self.name!r}: block {block} is not below {self.c.n_blocks}")
        cdef qv_entry entry = self.c.entries[<uint32_t>block]
        cdef uint64_t offset = <uint64_t>entry.pgno * self.c.psize
        if entry.pgno == 0 or offset + QV_PAGE_HEADER + self.c.value_size > self.c.map_size:
            return False
        return qv_block_intact(&self.c, block, self.c.map + offset + QV_PAGE_HEADER, entry.crc, True)

    # Commit

    def dirty(self) -> np.ndarray:
        """Numbers of the blocks to store, int64 ascending: changed ones, and new ones, which are zero."""
        self._check_writable()
        cdef uint32_t block
        found = []
        for block in range(self.c.n_blocks):
            if self.c.scratch[block] == NULL and self.c.entries[block].pgno == 0 and qv_touch(&self.c, block) == NULL:
                self._fail()
            if self.c.scratch[block] != NULL:
                found.append(block)
        return np.array(found, dtype=np.int64)

    def seal(self, block: int, txn_id: int) -> memoryview:
        """The value of a changed block, header and checksum filled in; valid until the next change or `release`."""
        self._check_private(block)
        cdef uint8_t *value = qv_seal(&self.c, block, txn_id)
        if value == NULL:
            raise MemoryError(f"column {self.name!r}: no memory for the checksums of a block's rows")
        return PyMemoryView_FromMemory(<char *>value, self.c.value_size, PyBUF_READ)

    def set_page(self, block: int, const uint8_t[::1] value not None) -> None:
        """Set the page table entry of a sealed block to the page at which LMDB stored ``value``."""
        self._check_private(block)
        qv_set_page(&self.c, block, self._page_number(&value[0]))

    def discard(self, block: int) -> None:
        """Free the memory of a stored block, which must not be read before `release`."""
        self._check_private(block)
        qv_discard(&self.c, block)

    def pack_chunk(self, chunk: int, txn_id: int) -> tuple[bytes, int]:
        """The value of a chunk of the page table, and its checksum."""
        value = PyBytes_FromStringAndSize(NULL, self.c.psize - QV_PAGE_HEADER)
        crc = qv_chunk_pack(&self.c, chunk, txn_id, <uint8_t *>PyBytes_AS_STRING(value))
        return value, crc

    def release(self) -> None:
        """Drop the private copies: after their commit, or to undo changes that were not stored."""
        self._check_writable()
        qv_release(&self.c)

    # Refusals

    cdef uint32_t _page_number(self, const uint8_t *value) except? 0:
        cdef uint64_t pgno
        memcpy(&pgno, value - QV_PAGE_HEADER, sizeof(pgno))
        if pgno > 0xFFFFFFFF:
            raise MapFullError(f"page {pgno} is beyond the 2^32 pages that a page table can name")
        return <uint32_t>pgno

    cdef int _check_writable(self) except -1:
        if self.c.scratch == NULL:
            raise InputError(f"column {self.name!r} is a reader's")
        return 0

    cdef int _check_private(self, block) except -1:
        self._check_writable()
        if not 0 <= block < self.c.n_blocks or self.c.scratch[<uint32_t>block] == NULL:
            raise InputError(f"column {self.name!r}: block {block} has no changes")
        return 0

    cdef object _checked(self, rows):
        """Row numbers as int64 [n]; InputError for a row past the capacity."""
        wanted = np.ascontiguousarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= np.minimum.reduce(wanted) <= np.maximum.reduce(wanted) < self.n_rows:
            bad = wanted[(wanted < 0) | (wanted >= self.n_rows)][0]
            raise InputError(f"column {self.name!r}: row {bad} is not below {self.n_rows}")
        return wanted

    cdef object _values(self, rows):
        """Rows as contiguous uint8 [n, stride]; InputError for anything else."""
        rows = np.ascontiguousarray(rows)
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self.c.stride:
            raise InputError(f"column {self.name!r}: rows must be uint8 [n, {self.c.stride}], "
                             f"not {rows.dtype} {list(rows.shape)}")
        return rows

    cdef int _check_range(self, start, stop) except -1:
        if not 0 <= start <= stop <= self.n_rows:
            raise InputError(f"column {self.name!r}: rows {start}..{stop} are not within 0..{self.n_rows}")
        return 0

    cdef object _damaged(self, block):
        return CorruptError(f"column {self.name!r}: block {block} (generation {self.c.generation}) is damaged, missing or stale")

    cdef int _fail(self) except -1:
        """Raise the error of the last failed qv_row or qv_row_mut."""
        cdef int64_t block = self.c.bad_block
        self.c.bad_block = -1
        if block < 0:
            raise MemoryError(f"column {self.name!r}: no memory for private copies of blocks")
        raise self._damaged(block)
