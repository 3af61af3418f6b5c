# cython: language_level=3
# Sets of rows as bitmaps, uint64 [ceil(n / 64)]: bit r of word w is row 64 w + r. Relies on Column (column.pxi).

cdef extern from "column/bitmap.h" nogil:
    const uint32_t QV_WORD_ROWS
    const uint32_t QV_CHUNK_ROWS
    int qv_bits_between(qv_column *values, uint32_t n, const uint64_t *bounds, uint32_t n_ranges, int simd, uint64_t *words)
    int qv_bits_roaring(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, uint64_t *words)
    int64_t qv_roaring_count(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, const uint64_t *words)
    int qv_roaring_fill(const uint8_t *data, size_t size, uint32_t chunk, uint32_t n, uint32_t value, uint32_t *values)
    int qv_bits_histogram(const uint32_t *values, const uint64_t *words, uint32_t n_words, uint32_t n_values,
                          int64_t *counts)
    uint32_t qv_bits_count(const uint64_t *words, uint32_t n_words)
    void qv_bits_rows(const uint64_t *words, uint32_t n_words, uint32_t *rows)

WORD_ROWS = QV_WORD_ROWS
CHUNK_ROWS = QV_CHUNK_ROWS


cdef uint64_t[::1] _words(object bits, uint32_t n):
    """A writable bitmap of at least n rows."""
    cdef uint64_t[::1] words = bits
    if <uint64_t>words.shape[0] * 64 < n:
        raise ValueError(f"a bitmap of {words.shape[0]} words does not hold {n} rows")
    return words


def bits_between(Column values not None, uint32_t n, const uint64_t[::1] bounds not None, bits, *, simd=None):
    """Set in ``bits`` the rows below n whose value lies in one of some ranges.

    values: row w contains the u64 values of the rows of word w. bounds: the lowest and the highest value of each range,
    ascending.
    """
    cdef uint64_t[::1] words = _words(bits, n)
    cdef uint32_t n_ranges = <uint32_t>(bounds.shape[0] // 2)
    cdef int level = _level(simd), status
    cdef Py_ssize_t i
    if values.c.stride != 8 * QV_WORD_ROWS:
        raise ValueError(f"column {values.name!r} does not hold u64 values")
    if (n + QV_WORD_ROWS - 1) // QV_WORD_ROWS > <uint64_t>values.c.n_blocks * values.c.rows_per_block:
        raise CorruptError(f"column {values.name!r} does not hold {n} values")
    if bounds.shape[0] % 2:
        raise ValueError("bounds must come in pairs")
    for i in range(1, bounds.shape[0]):
        if bounds[i] < bounds[i - 1]:
            raise ValueError("bounds must ascend")
    if n == 0 or n_ranges == 0:
        return
    with nogil:
        status = qv_bits_between(&values.c, n, &bounds[0], n_ranges, level, &words[0])
    if status < 0:
        values._fail()


def bits_roaring(const uint8_t[::1] data not None, uint32_t chunk, uint32_t n, bits):
    """Set in ``bits`` the rows of a serialized CRoaring bitmap.

    Returns False if the data is damaged, or contains rows outside of the chunk or not below n. Some bits may then be set.
    """
    cdef uint64_t[::1] words = _words(bits, n)
    return data.shape[0] > 0 and n > 0 and qv_bits_roaring(&data[0], data.shape[0], chunk, n, &words[0]) == 0


def roaring_count(const uint8_t[::1] data not None, uint32_t chunk, uint32_t n, const uint64_t[::1] bits not None):
    """The number of rows of a serialized CRoaring bitmap that are set in ``bits``; -1 as `bits_roaring` returns False."""
    if <uint64_t>bits.shape[0] * 64 < n:
        raise ValueError(f"a bitmap of {bits.shape[0]} words does not hold {n} rows")
    return qv_roaring_count(&data[0], data.shape[0], chunk, n, &bits[0]) if data.shape[0] > 0 and n > 0 else -1


def roaring_fill(const uint8_t[::1] data not None, uint32_t chunk, uint32_t value, uint32_t[::1] values not None):
    """Set the values of the rows of a serialized CRoaring bitmap. Returns False as `bits_roaring`.

    values: of the first rows of the chunk; rows behind them are not in it.
    """
    cdef uint64_t n = <uint64_t>chunk * QV_CHUNK_ROWS + <uint64_t>values.shape[0]
    if values.shape[0] > QV_CHUNK_ROWS or n >> 32:
        raise ValueError(f"chunk {chunk} does not have {values.shape[0]} rows")
    if data.shape[0] == 0 or values.shape[0] == 0:
        return False
    return qv_roaring_fill(&data[0], data.shape[0], chunk, <uint32_t>n, value, &values[0]) == 0


def bits_histogram(const uint32_t[::1] values not None, const uint64_t[::1] bits not None, int64_t[::1] counts not None):
    """Add the numbers of rows in a bitmap by value to ``counts``. ValueError: a value is not below their number."""
    cdef uint32_t n = <uint32_t>values.shape[0], n_words = (n + 63) // 64, n_values = <uint32_t>counts.shape[0]
    cdef int status = 0
    if <uint32_t>bits.shape[0] != n_words or (n % 64 and bits[n_words - 1] >> (n % 64)):
        raise ValueError(f"the bitmap is not one of {n} rows")
    if n:
        with nogil:
            status = qv_bits_histogram(&values[0], &bits[0], n_words, n_values, &counts[0] if n_values else NULL)
    if status:
        raise ValueError(f"a value is not below {n_values}")


def bits_set(const uint32_t[::1] rows not None, uint32_t n, bits):
    """Set in ``bits`` the given rows, which must be below n."""
    cdef uint64_t[::1] words = _words(bits, n)
    cdef Py_ssize_t i
    for i in range(rows.shape[0]):
        if rows[i] >= n:
            raise ValueError(f"row {rows[i]} is not below {n}")
        words[rows[i] >> 6] |= <uint64_t>1 << (rows[i] & 63)


def bits_count(const uint64_t[::1] words not None):
    """Number of rows in a bitmap."""
    return qv_bits_count(&words[0], <uint32_t>words.shape[0]) if words.shape[0] else 0


def bits_rows(const uint64_t[::1] words not None):
    """The rows of a bitmap, uint32, ascending."""
    cdef cnp.npy_intp count = bits_count(words)
    cdef cnp.ndarray rows = cnp.PyArray_SimpleNew(1, &count, cnp.NPY_UINT32)
    cdef uint32_t *to = <uint32_t *>cnp.PyArray_DATA(rows)
    if count:
        with nogil:
            qv_bits_rows(&words[0], <uint32_t>words.shape[0], to)
    return rows
