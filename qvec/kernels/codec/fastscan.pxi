# cython: language_level=3
# Sign codes of 32 vectors at a time, their table and their sums, as functions over arrays. Engines call the C below.

cdef extern from "codec/fastscan.h" nogil:
    int QV_FS_VECTORS
    int QV_FS_DIMS
    ctypedef struct qv_fs_factors:
        float add
        float rescale
        float error
    ctypedef void (*qv_fs_sums_fn)(const uint8_t *codes, const uint8_t *table, int dims, int32_t *sums) noexcept
    size_t qv_fs_bytes(int dims)
    void qv_fs_put(const float *residual, int dims, int slot, uint8_t *codes) noexcept
    qv_fs_factors qv_fs_factors_of(int metric, const float *residual, const float *center, int dims, int coded) noexcept
    float qv_fs_table(const float *q, int dims, uint8_t *table) noexcept
    qv_fs_sums_fn qv_fs_sums(int simd) noexcept


cdef int _fastscan_dims(object x) except -1:
    cdef int dims = _dimension("dims", _last_dim(x))
    if dims % QV_FS_DIMS:
        raise ValueError(f"dims must be a multiple of {QV_FS_DIMS}, not {dims}")
    return dims


def fastscan_encode(residuals, center, str metric):
    """Codes uint8 [4 * dims] of up to 32 float32 residuals [n, dims] of a center [dims], dims a multiple of 16.

    The second result is their factors, float32 [n, 3]: the term to add to the center's key, the factor of <b, q>, and
    a bound of the error as a share of |q - center|, which is rarely exceeded. See fastscan.h.
    """
    cdef int dims = _fastscan_dims(residuals), kind = _one_of("metric", metric, _METRICS), i
    cdef cnp.ndarray r = _checked(residuals, "residuals", cnp.NPY_FLOAT32, dims)
    cdef cnp.ndarray c = _vector(center, "center", cnp.NPY_FLOAT32, dims)
    if _count(r) > QV_FS_VECTORS:
        raise ValueError(f"a group holds {QV_FS_VECTORS} vectors, not {_count(r)}")
    cdef cnp.ndarray codes = np.zeros(qv_fs_bytes(dims), np.uint8), factors = _floats(_count(r), 3)
    cdef const float *source = <const float *> cnp.PyArray_DATA(r)
    cdef qv_fs_factors *out = <qv_fs_factors *> cnp.PyArray_DATA(factors)
    for i in range(_count(r)):
        qv_fs_put(source + i * dims, dims, i, <uint8_t *> cnp.PyArray_DATA(codes))
        out[i] = qv_fs_factors_of(kind, source + i * dims, <const float *> cnp.PyArray_DATA(c), dims, dims)
    return codes, factors


def fastscan_table(q):
    """The table of a float32 query [dims], uint8 [4 * dims], and its unit: <b, q> is nearly unit * sum."""
    cdef int dims = _fastscan_dims(q)
    cdef cnp.ndarray vector = _vector(q, "q", cnp.NPY_FLOAT32, dims)
    cdef cnp.ndarray table = np.empty(qv_fs_bytes(dims), np.uint8)
    cdef float unit = qv_fs_table(<const float *> cnp.PyArray_DATA(vector), dims, <uint8_t *> cnp.PyArray_DATA(table))
    return table, unit


def fastscan_sums(codes, table, *, simd=None):
    """Sums int32 [n, 32] of groups of codes, uint8 [n, 4 * dims], by a query's table."""
    cdef int width = _last_dim(table), level = _level(simd)
    cdef cnp.ndarray entries = _vector(table, "table", cnp.NPY_UINT8, width)
    cdef cnp.ndarray groups = _checked(codes, "codes", cnp.NPY_UINT8, width)
    if width % 64 or not 0 < width <= 4 * _MAX_DIM:
        raise ValueError(f"codes must be a multiple of 64 bytes wide, at most {4 * _MAX_DIM}, not {width}")
    cdef Py_ssize_t i, n = _count(groups)
    cdef cnp.ndarray sums = np.empty((n, QV_FS_VECTORS), np.int32)
    cdef const uint8_t *source = <const uint8_t *> cnp.PyArray_DATA(groups)
    cdef int32_t *out = <int32_t *> cnp.PyArray_DATA(sums)
    cdef qv_fs_sums_fn add_up = qv_fs_sums(level)
    with nogil:
        for i in range(n):
            add_up(source + i * width, <const uint8_t *> cnp.PyArray_DATA(entries), width // 4, out + i * QV_FS_VECTORS)
    return sums
