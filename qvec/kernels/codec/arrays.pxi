# cython: language_level=3
# Arguments from Python: checked arrays and numbers, and new arrays for results.
cimport numpy as cnp
from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.stddef cimport size_t

from operator import index as _index

cnp.import_array()

cdef int _MAX_DIM = 65536


cdef cnp.ndarray _aligned(Py_ssize_t n, Py_ssize_t width):
    """An uninitialized uint8 array of n rows whose first byte lies on a 64-byte boundary."""
    cdef cnp.npy_intp shape[2]
    cdef cnp.npy_intp size
    cdef cnp.ndarray owner, rows
    if width and n > (PY_SSIZE_T_MAX - 64) // width:
        raise ValueError(f"{n} rows of {width} bytes do not fit in the address space")
    size = n * width + 64
    owner = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_UINT8)
    shape[0] = n
    shape[1] = width
    cdef char *start = cnp.PyArray_BYTES(owner)
    rows = cnp.PyArray_SimpleNewFromData(2, shape, cnp.NPY_UINT8, start + (-<size_t>start & 63))
    cnp.set_array_base(rows, owner)
    return rows


cdef cnp.ndarray _checked(object array, str name, int typenum, Py_ssize_t width):
    """`array` if it is [width] or [n, width], contiguous, aligned and of the dtype; else an error says what is not."""
    cdef cnp.ndarray a
    cdef str dtype = "float32" if typenum == cnp.NPY_FLOAT32 else "uint8"
    if not cnp.PyArray_Check(array):
        raise TypeError(f"{name} must be a NumPy array of {dtype}, not {type(array).__name__}")
    a = array
    if cnp.PyArray_TYPE(a) != typenum or not cnp.PyArray_ISNOTSWAPPED(a):
        raise TypeError(f"{name} must be {dtype}, not {array.dtype}")
    cdef int ndim = cnp.PyArray_NDIM(a)
    if ndim < 1 or ndim > 2:
        raise ValueError(f"{name} must have 1 or 2 dimensions, not {ndim}")
    if cnp.PyArray_DIM(a, ndim - 1) != width:
        raise ValueError(f"{name} must be {width} wide, not {cnp.PyArray_DIM(a, ndim - 1)}")
    if not cnp.PyArray_ISCARRAY_RO(a):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    return a


cdef inline Py_ssize_t _count(cnp.ndarray a) noexcept:
    return 1 if cnp.PyArray_NDIM(a) == 1 else cnp.PyArray_DIM(a, 0)


cdef cnp.ndarray _floats(Py_ssize_t n, Py_ssize_t width):
    cdef cnp.npy_intp shape[2]
    shape[0] = n
    shape[1] = width
    return cnp.PyArray_SimpleNew(2, shape, cnp.NPY_FLOAT32)


cdef cnp.ndarray _vector(object array, str name, int typenum, Py_ssize_t width):
    cdef cnp.ndarray checked = _checked(array, name, typenum, width)
    if cnp.PyArray_NDIM(checked) != 1:
        raise ValueError(f"{name} must have 1 dimension, not 2")
    return checked


cdef int _one_of(str name, object value, tuple choices) except -1:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return choices.index(value)


cdef int _dimension(str name, object value) except -1:
    size = _index(value)
    if not 1 <= size <= _MAX_DIM:
        raise ValueError(f"{name} must be in 1..{_MAX_DIM}, not {size}")
    return size
