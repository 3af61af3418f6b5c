"""Records: plain data is read back unchanged, other data is refused by name."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvec.common.errors import CorruptError, FormatError, InputError
from qvec.storage import header, keys, records

KEY = keys.record(1, 7)
scalars = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False)
plain = st.recursive(
    scalars | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_plain_data_is_read_back_equal(payload: object) -> None:
    assert records.unseal(KEY, records.seal(KEY, payload)) == payload


@given(st.binary(min_size=1, max_size=64), st.integers(0, 511))
def test_any_flipped_bit_is_found(data: bytes, bit: int) -> None:
    value = bytearray(records.seal(KEY, data))
    value[bit // 8 % len(value)] ^= 1 << bit % 8
    with pytest.raises(CorruptError, match="record 7 of kind 1"):
        records.unseal(KEY, value)


@given(st.binary(max_size=200))
def test_bytes_without_a_valid_seal_are_refused(junk: bytes) -> None:
    with pytest.raises(CorruptError):
        records.unseal(KEY, junk)


def test_a_record_under_another_key_is_refused() -> None:
    with pytest.raises(CorruptError, match="record 8"):
        records.unseal(keys.record(1, 8), records.seal(KEY, {"a": 1}))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"year": np.int64(3)}, r"payload\['year'\] is a numpy.int64"),
        ({"a": [1, {"b": np.zeros(2)}]}, r"payload\['a'\]\[1\]\['b'\] is a numpy.ndarray"),
        ({"a": 1 << 64}, r"payload\['a'\] = 18446744073709551616 does not fit 64 bits"),
        ({"a": -(1 << 63) - 1}, "does not fit 64 bits"),
        ({1: 2}, "key 1, which is not a str"),
        ({"a": "\ud800"}, r"payload\['a'\] has a lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
        ({"a": {1, 2}}, r"payload\['a'\] is a builtins.set"),
        ({"a": np.float64(1.0)}, "numpy.float64"),
    ],
)
def test_data_that_cannot_be_stored_is_named(payload: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        records.pack(payload)


def test_nesting_and_size_are_limited() -> None:
    deep: object = 1
    for _ in range(records.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(InputError, match="deeper than 64"):
        records.pack(deep)
    with pytest.raises(InputError, match="more than the"):
        records.pack(bytes(records.MAX_BYTES))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",  # never used
        b"\x93\x01\x02",  # cut short
        b"\x01\x02",  # two values
        b"\xd4\x05\x00",  # extension type 5
        b"\x81\x01\x02",  # a map with an int key
        b"\xa1\xff",  # no UTF-8
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 items
        b"\x91" * 5000 + b"\x01",
    ],
)
def test_msgpack_that_is_not_plain_data_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="not plain msgpack data"):
        records.unpack(packed)


def test_keys_sort_by_kind_then_column_then_generation_then_number() -> None:
    ordered = [keys.block(1, 0, 255), keys.block(1, 0, 256), keys.block(1, 1, 0), keys.block(2, 0, 0)]
    ordered += [keys.chunk(0, 0, 0), keys.record(0, 0), keys.CONFIG, keys.STATE, keys.ID + b"\0"]
    assert sorted(ordered) == ordered


@pytest.mark.parametrize("size", [0, 1, 3000, 4064, 4065, 20000])
def test_the_configuration_fills_whole_pages_and_is_read_back(size: int) -> None:
    value = header.pack({"a": "x" * size}, 4096)
    assert (len(value) + 16) % 4096 == 0
    assert header.unpack(value, "f") == {"a": "x" * size}


def test_a_foreign_newer_or_damaged_configuration_is_told_apart() -> None:
    value = bytearray(header.pack({"a": 1}, 4096))
    with pytest.raises(FormatError, match="not a qvec file"):
        header.unpack(b"XXXX" + value[4:], "f")
    newer = value[:4] + struct.pack("<I", header.FORMAT_VERSION + 1) + value[8:]
    with pytest.raises(FormatError, match=f"format {header.FORMAT_VERSION + 1}.*up to {header.FORMAT_VERSION}"):
        header.unpack(newer, "f")
    for at in (8, 12, 14, 16, 18):
        value[at] ^= 1
        with pytest.raises(CorruptError, match="checksum"):
            header.unpack(value, "f")
        value[at] ^= 1
    assert header.unpack(value, "f") == {"a": 1}
