from libc.string cimport memcpy

cdef extern from "codec/codec.h" nogil:
    int QV_PANEL
    ctypedef struct qv_map:
        int dim, width, padded, normalize, n_panels, simd
        const float *mean
        const float *panels
        const qv_codec *column_codec
        const uint8_t *const *columns
        const uint8_t *signs
    void qv_project(const float *x, size_t n, int dim, const float *panels, int n_panels, int simd, float *out) noexcept
    void qv_append_residual(const float *x, size_t n, int dim, const float *y, int width, float *out) noexcept
    size_t qv_map_floats(const qv_map *map) noexcept
    const float *qv_map_query(const qv_map *map, const float *q, float *buffer) noexcept

PANEL = QV_PANEL


def project(x, panels, *, simd=None):
    """x M of float32 [n, dim]: float32 [n, n_panels * PANEL], with the same bits on every machine and for every n.

    :param panels: float32 [n_panels * dim, PANEL], the columns of M [dim, n_panels * PANEL] in runs of PANEL.
    :param simd: one of `simd_levels()`; default `simd_level()`.
    """
    cdef int dim = _dimension("dim", _last_dim(x)), level = _level(simd)
    cdef cnp.ndarray vectors = _checked(x, "x", cnp.NPY_FLOAT32, dim)
    cdef cnp.ndarray weights = _checked(panels, "panels", cnp.NPY_FLOAT32, QV_PANEL)
    cdef Py_ssize_t n = _count(vectors), rows = _count(weights)
    if rows == 0 or rows % dim or rows // dim > _MAX_DIM // QV_PANEL:
        raise ValueError(f"panels must have a multiple of {dim} rows, at most {_MAX_DIM // QV_PANEL} times, not {rows}")
    cdef int n_panels = <int> (rows // dim)
    cdef cnp.ndarray out = _floats(n, n_panels * QV_PANEL)
    cdef const float *source = <const float *> cnp.PyArray_DATA(vectors)
    cdef const float *matrix = <const float *> cnp.PyArray_DATA(weights)
    cdef float *target = <float *> cnp.PyArray_DATA(out)
    with nogil:
        qv_project(source, n, dim, matrix, n_panels, level, target)
    return out


def append_residual(x, y):
    """Append to projections y, float32 [n, width], of x, float32 [n, dim], the length of what they leave out.

    Returns float32 [n, width + 1]; the last value is sqrt(|x|^2 - |y|^2), or 0 if that is not positive. It has the same
    bits on every machine.
    """
    cdef int dim = _dimension("dim", _last_dim(x)), width = _dimension("width", _last_dim(y))
    cdef cnp.ndarray vectors = _checked(x, "x", cnp.NPY_FLOAT32, dim), projected = _checked(y, "y", cnp.NPY_FLOAT32, width)
    cdef Py_ssize_t n = _count(vectors)
    if _count(projected) != n:
        raise ValueError(f"y must have {n} rows, not {_count(projected)}")
    cdef cnp.ndarray out = _floats(n, width + 1)
    cdef const float *source = <const float *> cnp.PyArray_DATA(vectors)
    cdef const float *known = <const float *> cnp.PyArray_DATA(projected)
    cdef float *target = <float *> cnp.PyArray_DATA(out)
    with nogil:
        qv_append_residual(source, n, dim, known, width, target)
    return out


cdef class QueryMap:
    """`transform` and `project` as searches apply them to a query of at least `dim` values: the first `dim` values,
    normalized if requested, minus the mean, times the matrix, rotated.

    :param padded: values of the result, at least `width`; with signs, a multiple of 64.
    :param panels: float32 [n_panels * dim, PANEL]; only the first `width` columns count; None: no matrix.
    :param columns: in place of panels, uint8 [width, stride] rows of Codec("int8", "ip", dim), the columns of the
        matrix. The query is encoded with 8 bits, and products have the same bits on every machine.
    :param simd: one of `simd_levels()`; default `simd_level()`.
    """

    cdef qv_map m
    cdef tuple _kept

    def __init__(self, dim, width, padded, bint normalize, mean, panels, signs, *, columns=None, simd=None):
        cdef int n = _dimension("dim", dim), n_columns = _dimension("width", width), out = _dimension("padded", padded)
        cdef cnp.ndarray center = None, weights = None, bits = None
        self.m.dim, self.m.width, self.m.padded, self.m.normalize = n, n_columns, out, normalize
        self.m.simd = _level(simd)
        self.m.mean = self.m.panels = NULL
        self.m.column_codec = NULL
        self.m.signs = NULL
        if out < n_columns or (panels is None and columns is None and n_columns != n) or (signs is not None and out % 64):
            raise ValueError(f"dim {n}, width {n_columns} and padded {out} do not go together")
        if panels is not None and columns is not None:
            raise ValueError("give panels or columns, not both")
        if mean is not None:
            center = _vector(mean, "mean", cnp.NPY_FLOAT32, n)
            self.m.mean = <const float *> cnp.PyArray_DATA(center)
        if panels is not None:
            weights = _checked(panels, "panels", cnp.NPY_FLOAT32, QV_PANEL)
            self.m.n_panels = (n_columns + QV_PANEL - 1) // QV_PANEL
            if _count(weights) != <Py_ssize_t> self.m.n_panels * n:
                raise ValueError(f"panels must have {self.m.n_panels * n} rows, not {_count(weights)}")
            self.m.panels = <const float *> cnp.PyArray_DATA(weights)
        if signs is not None:
            bits = _vector(signs, "signs", cnp.NPY_UINT8, out // 2)
            self.m.signs = <const uint8_t *> cnp.PyArray_DATA(bits)
        self._kept = (center, weights, bits, None if columns is None else self._take_columns(columns, simd))

    cdef tuple _take_columns(self, columns, simd):
        """Copy the columns to a 64-byte boundary. Returns what the map refers to."""
        cdef Codec codec = Codec("int8", "ip", self.m.dim, simd=simd)
        cdef cnp.ndarray given = _checked(columns, "columns", cnp.NPY_UINT8, codec.c.stride)
        cdef Py_ssize_t i
        if _count(given) != self.m.width:
            raise ValueError(f"columns must have {self.m.width} rows, not {_count(given)}")
        _check_factors(given, codec.c.data_size)
        cdef cnp.ndarray rows = _aligned(self.m.width, codec.c.stride)
        cdef cnp.ndarray addresses = _aligned(1, self.m.width * <Py_ssize_t> sizeof(uint8_t *))
        cdef const uint8_t **address = <const uint8_t **> cnp.PyArray_DATA(addresses)
        rows[:] = given
        for i in range(self.m.width):
            address[i] = <const uint8_t *> cnp.PyArray_DATA(rows) + i * codec.c.stride
        self.m.column_codec, self.m.columns = &codec.c, address
        return codec, rows, addresses

    def apply(self, x):
        """Queries as searches transform them: float32 [n, padded] of float32 [n, dim]."""
        cdef cnp.ndarray queries = _checked(x, "x", cnp.NPY_FLOAT32, self.m.dim)
        cdef Py_ssize_t i, n = _count(queries)
        cdef cnp.ndarray out = _floats(n, self.m.padded)
        cdef cnp.ndarray buffer = _aligned(1, <Py_ssize_t> (qv_map_floats(&self.m) * sizeof(float)))
        cdef const float *source = <const float *> cnp.PyArray_DATA(queries)
        cdef float *target = <float *> cnp.PyArray_DATA(out)
        cdef float *scratch = <float *> cnp.PyArray_DATA(buffer)
        with nogil:
            for i in range(n):
                memcpy(target + i * self.m.padded, qv_map_query(&self.m, source + i * self.m.dim, scratch),
                       self.m.padded * sizeof(float))
        return out
