cdef extern from "codec.h" nogil:
    int QV_PANEL
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
