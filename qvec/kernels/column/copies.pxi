# cython: language_level=3
# Copies of columns in memory. Relies on memory.pxi and column.pxi.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc

from qvec.common.parallel import for_each


cdef extern from "column/column.h" nogil:
    ctypedef struct qv_copy:
        qv_column *col
        uint8_t *region
        size_t pitch
        uint32_t n_blocks
    int qv_columns_copy(const qv_copy *, uint32_t, int, uint32_t, uint32_t)


cdef enum:
    COPIED_BY_MANY = 32 << 20  # bytes
    COPYING_THREADS = 4


cdef size_t _pitch(Column column):
    """Bytes from block to block of copied rows."""
    return (<size_t>column.c.stride * column.c.rows_per_block + 63) // 64 * 64


cdef class _Copies:
    """The blocks to copy, and memory for them."""

    cdef qv_copy *copies
    cdef readonly list chosen
    cdef readonly object size
    cdef bint failed

    def __cinit__(self, columns, budget):
        cdef Column column
        cdef _Region region
        cdef uint32_t n = 0
        self.chosen = _regions(columns, budget)
        self.size = 0
        self.copies = <qv_copy *>malloc((len(self.chosen) + 1) * sizeof(qv_copy))
        if self.copies == NULL:
            raise MemoryError("no memory for the list of columns to copy")
        for column, region, blocks in self.chosen:
            self.copies[n] = qv_copy(&column.c, region.memory, _pitch(column), blocks)
            self.size += region.size
            n += 1

    def __dealloc__(self):
        free(self.copies)

    def run(self, int fd, uint32_t part, uint32_t parts):
        cdef uint32_t n = <uint32_t>len(self.chosen)
        cdef int failed
        with nogil:
            failed = qv_columns_copy(self.copies, n, fd, part, parts)
        self.failed = self.failed or failed

    def finish(self):
        cdef Column column
        for column, region, _ in self.chosen:  # also after an error: some blocks are read from there
            column.region = region
        if self.failed:
            for column, _, _ in self.chosen:
                if column.c.bad_block >= 0:
                    column._fail()
            raise MemoryError("no memory for the list of blocks to copy")


def make_resident(columns, int fd, budget: int | None = None) -> None:
    """Copy columns into huge pages, in the order of the file, and read them from there until they change.

    All copied blocks are verified. fd: the open file that the columns are attached to. budget: bytes of memory for all
    copies; the first blocks of a column are copied if the rest of the budget is too small for it. None: all blocks of
    all columns. Columns that have a copy are skipped. Four threads share large copies, so that the disk always has
    something to read while others verify and copy.
    """
    cdef _Copies copies = _Copies(columns, budget)
    parts = COPYING_THREADS if copies.size >= COPIED_BY_MANY else 1
    for_each(lambda part: copies.run(fd, part, parts), range(parts), parts)
    copies.finish()


cdef list _regions(columns, budget):
    """The columns to copy, memory for each, and the number of blocks to copy into it."""
    cdef Column column
    chosen = []
    for column in columns:
        if column.region is not None:
            continue
        pitch, blocks = _pitch(column), column.c.n_blocks
        if budget is not None:
            blocks = min(blocks, budget // pitch)
            budget -= blocks * pitch
            column.c.partly_copied = blocks < column.c.n_blocks
        if blocks:
            chosen.append((column, _Region(blocks * pitch), blocks))
    return chosen
