# cython: language_level=3
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from "column/crc32c.h" nogil:
    uint32_t qv_crc32c(uint32_t crc, const void *data, size_t n) noexcept


def crc32c(data, unsigned int crc=0):
    """CRC-32C (Castagnoli, RFC 3720) of a contiguous buffer, continuing from `crc`."""
    cdef Py_buffer view
    cdef uint32_t result
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        result = qv_crc32c(crc, view.buf, view.len)
    PyBuffer_Release(&view)
    return result
