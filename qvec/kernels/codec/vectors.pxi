# cython: language_level=3
# Functions over plain float32 arrays: the squared length and the transform.

cdef extern from "codec/rows.h" nogil:
    float qv_plain_norm2(const float *x, int dim) noexcept


def plain_norm2(x, Py_ssize_t dim):
    """|x|^2 of a float32 array of `dim` values that kernels can read in place; -1 for any other x.

    Not finite if a value is not finite or the sum exceeds float32.
    """
    return _plain_norm2(x, dim)


cdef float _plain_norm2(x, Py_ssize_t dim):
    if type(x) is not cnp.ndarray:
        return -1
    cdef cnp.ndarray array = <cnp.ndarray>x
    if (array.ndim != 1 or array.shape[0] != dim or cnp.PyArray_TYPE(array) != cnp.NPY_FLOAT32
            or not cnp.PyArray_ISCARRAY_RO(array)):
        return -1
    return qv_plain_norm2(<const float *>cnp.PyArray_DATA(array), <int>dim)


cdef Py_ssize_t _last_dim(object x) except -1:
    shape = getattr(x, "shape", None)
    if not shape:
        raise TypeError(f"x must be a NumPy array of float32 with 1 or 2 dimensions, not {x!r:.80}")
    return shape[len(shape) - 1]


def transform(x, padded, bint normalize, mean, signs):
    """R(x - mean) of float32 [n, dim]: float32 [n, padded], each vector normalized first if asked (zeros stay zeros).

    :param padded: dim or more, at most 65536; if there are signs, a multiple of 16, and 32 or more.
    :param mean: float32 [dim] or None.
    :param signs: uint8 [4 * padded / 8], four rounds of random bits, lowest bit first; None: no rotation.
        The rotation is orthogonal: norms are kept to 1e-5.
    """
    cdef int width = _dimension("padded", padded)
    cdef int dim = _dimension("dim", _last_dim(x))
    cdef cnp.ndarray vectors = _checked(x, "x", cnp.NPY_FLOAT32, dim)
    cdef const float *center = NULL
    cdef const uint8_t *bits = NULL
    if width < dim:
        raise ValueError(f"padded must be at least dim, {dim}, not {width}")
    if mean is not None:
        center = <const float *> cnp.PyArray_DATA(_vector(mean, "mean", cnp.NPY_FLOAT32, dim))
    if signs is not None:
        if width % 16 or width < 32:
            raise ValueError(f"padded must be a multiple of 16, at least 32, to rotate, not {width}")
        bits = <const uint8_t *> cnp.PyArray_DATA(_vector(signs, "signs", cnp.NPY_UINT8, width // 2))
    cdef Py_ssize_t n = _count(vectors)
    cdef cnp.ndarray out = _floats(n, width)
    cdef const float *source = <const float *> cnp.PyArray_DATA(vectors)
    cdef float *target = <float *> cnp.PyArray_DATA(out)
    with nogil:
        qv_transform(source, n, dim, width, normalize, center, bits, target)
    return out
