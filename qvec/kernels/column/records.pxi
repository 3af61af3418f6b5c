# cython: language_level=3
# Values of records (qvec/storage/records.py), many in one call.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy


def seal_pairs(bytes prefix not None, list names not None, list payloads not None):
    """Keys (prefix and name, bytes) with the values that store payloads (bytes) under them, and the sum of the checksums
    modulo 2^64. A value is the crc32c of key and payload, little-endian, and the payload.
    """
    cdef Py_ssize_t i, n = len(names), before = PyBytes_GET_SIZE(prefix), more, size
    cdef uint64_t total = 0
    cdef uint32_t crc
    cdef uint8_t *to
    cdef bytes name, payload, key, value
    if len(payloads) != n:
        raise ValueError(f"{len(payloads)} payloads for {n} names")
    pairs = []
    for i in range(n):
        name, payload = names[i], payloads[i]
        if name is None or payload is None:
            raise TypeError("names and payloads must be bytes")
        more, size = PyBytes_GET_SIZE(name), PyBytes_GET_SIZE(payload)
        key = PyBytes_FromStringAndSize(NULL, before + more)
        memcpy(PyBytes_AS_STRING(key), PyBytes_AS_STRING(prefix), before)
        memcpy(PyBytes_AS_STRING(key) + before, PyBytes_AS_STRING(name), more)
        crc = qv_crc32c(qv_crc32c(0, PyBytes_AS_STRING(key), before + more), PyBytes_AS_STRING(payload), size)
        value = PyBytes_FromStringAndSize(NULL, 4 + size)
        to = <uint8_t *>PyBytes_AS_STRING(value)
        to[0], to[1], to[2], to[3] = crc & 255, crc >> 8 & 255, crc >> 16 & 255, crc >> 24
        memcpy(to + 4, PyBytes_AS_STRING(payload), size)
        pairs.append((key, value))
        total += crc
    return pairs, total


def is_plain(value, int depth) -> bool:
    """Whether a value is None, a bool, int, float, str or bytes, or a list, tuple or dict with str keys of plain values, in
    at most `depth` levels. Subclasses are not plain.
    """
    return _is_plain(value, depth)


cdef bint _is_plain(value, int depth) except -1:
    kind = type(value)
    if kind is str or kind is int or kind is float or value is None or kind is bool or kind is bytes:
        return True
    if depth == 0:
        return False
    if kind is dict:
        for name, item in (<dict>value).items():
            if type(name) is not str or not _is_plain(item, depth - 1):
                return False
        return True
    if kind is list:
        for item in <list>value:
            if not _is_plain(item, depth - 1):
                return False
        return True
    if kind is tuple:
        for item in <tuple>value:
            if not _is_plain(item, depth - 1):
                return False
        return True
    return False
