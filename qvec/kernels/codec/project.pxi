cdef extern from "codec/codec.h" nogil:
    int QV_PANEL
    ctypedef struct qv_map:
        int dim, width, padded, normalize, n_panels, simd
        const float *mean
        const float *panels
        const uint8_t *signs
    void qv_project(const float *x, size_t n, int dim, const float *panels, int n_panels, int simd, float *out) noexcept

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


cdef class QueryMap:
    """`transform` and `project` as searches apply them to a query of at least `dim` values: the first `dim` values,
    normalized if requested, minus the mean, times the matrix, rotated.

    :param padded: values of the result, at least `width`; with signs, a multiple of 64.
    :param panels: float32 [n_panels * dim, PANEL]; only the first `width` columns count; None: no matrix.
    """

    cdef qv_map m
    cdef tuple _kept

    def __init__(self, dim, width, padded, bint normalize, mean, panels, signs):
        cdef int n = _dimension("dim", dim), columns = _dimension("width", width), out = _dimension("padded", padded)
        cdef cnp.ndarray center = None, weights = None, bits = None
        self.m.dim, self.m.width, self.m.padded, self.m.normalize = n, columns, out, normalize
        self.m.simd = _level(None)
        self.m.mean = self.m.panels = NULL
        self.m.signs = NULL
        if out < columns or (panels is None and columns != n) or (signs is not None and out % 64):
            raise ValueError(f"dim {n}, width {columns} and padded {out} do not go together")
        if mean is not None:
            center = _vector(mean, "mean", cnp.NPY_FLOAT32, n)
            self.m.mean = <const float *> cnp.PyArray_DATA(center)
        if panels is not None:
            weights = _checked(panels, "panels", cnp.NPY_FLOAT32, QV_PANEL)
            self.m.n_panels = (columns + QV_PANEL - 1) // QV_PANEL
            if _count(weights) != <Py_ssize_t> self.m.n_panels * n:
                raise ValueError(f"panels must have {self.m.n_panels * n} rows, not {_count(weights)}")
            self.m.panels = <const float *> cnp.PyArray_DATA(weights)
        if signs is not None:
            bits = _vector(signs, "signs", cnp.NPY_UINT8, out // 2)
            self.m.signs = <const uint8_t *> cnp.PyArray_DATA(bits)
        self._kept = (center, weights, bits)
