# cython: language_level=3
# Shared memory, trimming of the heap, and leaked references.

cimport cython
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t

cdef extern from "system/system.h" nogil:
    uint8_t *qv_huge_alloc(size_t)
    void qv_huge_free(uint8_t *, size_t)
    void qv_trim_heap()
    void qv_aligned_free(void *)


def keep_forever(thing: object) -> None:
    """Leak a reference: the object is not destroyed, not even at interpreter exit."""
    Py_INCREF(thing)


def trim_heap() -> None:
    """Return unused memory of malloc to the system (glibc only)."""
    with nogil:
        qv_trim_heap()


@cython.internal
cdef class _Region:
    """Anonymous memory that columns share."""

    cdef uint8_t *memory
    cdef size_t size

    def __cinit__(self, size_t size):
        self.memory, self.size = qv_huge_alloc(size), size
        if self.memory == NULL:
            raise MemoryError(f"no memory for {size} bytes of resident rows")

    def __dealloc__(self):
        qv_huge_free(self.memory, self.size)
