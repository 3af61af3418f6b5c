# cython: language_level=3
# Values of records (qvec/storage/records.py), many in one call.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
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


def plain_bytes(value, int depth) -> int:
    """An upper bound of the msgpack bytes of plain data: None, a bool, an int of 64 bits, a float, text that UTF-8 can hold,
    bytes, or a list, tuple or dict with str keys of plain data, in at most `depth` levels. -1: the value may be something
    else. Subclasses are not plain.
    """
    return _plain_bytes(value, depth)


cdef long long _text_bytes(value) except -2:
    cdef Py_ssize_t size = len(<str>value)
    if value.isascii():
        return 5 + size
    try:
        PyUnicode_AsUTF8AndSize(value, &size)
    except UnicodeEncodeError:
        return -1
    return 5 + size


cdef long long _plain_bytes(value, int depth) except -2:
    cdef long long total = 5, more
    kind = type(value)
    if kind is str:
        return _text_bytes(value)
    if kind is int:
        return 9 if -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF else -1
    if kind is float or value is None or kind is bool:
        return 9
    if kind is bytes:
        return 5 + len(<bytes>value)
    if depth == 0:
        return -1
    if kind is dict:
        for name, item in (<dict>value).items():
            more = _text_bytes(name) if type(name) is str else -1
            if more < 0:
                return -1
            total += more
            more = _plain_bytes(item, depth - 1)
            if more < 0:
                return -1
            total += more
        return total
    if kind is not list and kind is not tuple:
        return -1
    for item in value:
        more = _plain_bytes(item, depth - 1)
        if more < 0:
            return -1
        total += more
    return total
