"""The typed edge of the kernels: SIMD levels, checksums, and wrong arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from qvec._kernels import Codec, crc32c, simd_level, simd_levels, transform

pytestmark = pytest.mark.simd

ORDER = ["scalar", "avx2", "avx512", "neon", "neon_dot", "neon_i8mm"]
REPORT = """
import numpy as np
from qvec import _kernels as k
data = np.random.default_rng(0).integers(0, 256, 40000, dtype=np.uint8)
sums = [k.crc32c(data[i:n]) for i, n in ((0, 40000), (3, 799), (1, 6))]
print(k.simd_level(), k.Codec("f32", "l2", 8).simd, *sums)
"""


def run_with(level: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, "-c", REPORT], {**os.environ, "QVEC_SIMD": level}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_levels_ascend_from_scalar_to_the_default() -> None:
    levels = simd_levels()
    assert levels[0] == "scalar"
    assert levels[-1] == simd_level() == Codec("f32", "l2", 3).simd
    assert levels == sorted(levels, key=ORDER.index)


@pytest.mark.parametrize("level", simd_levels())
def test_the_environment_caps_the_level_and_checksums_do_not_change(level: str) -> None:
    data = np.random.default_rng(0).integers(0, 256, 40000, dtype=np.uint8)
    sums = [crc32c(data[i:n]) for i, n in ((0, 40000), (3, 799), (1, 6))]
    assert run_with(level).stdout.split() == [level, level, *map(str, sums)]


def test_an_empty_cap_is_no_cap() -> None:
    inherited = os.environ.get("QVEC_SIMD", "")
    assert run_with(inherited).stdout.split()[0] == simd_level()


def test_an_unknown_level_fails_the_import_and_names_the_choices() -> None:
    done = run_with("sse9")
    assert done.returncode != 0
    assert "ValueError: QVEC_SIMD must be one of scalar, " in done.stderr
    assert "not 'sse9'" in done.stderr


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_returns_the_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def bitwise_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c_is_right_at_every_length_and_can_be_continued() -> None:
    data = np.random.default_rng(1).integers(0, 256, 26000, dtype=np.uint8).tobytes()
    for n in [*range(40), 255, 767, 768, 775, 1536, 4080, 12287, 12288, 13063, 26000]:
        expected = bitwise_crc(data[:n])
        assert crc32c(data[:n]) == expected, n
        for cut in (0, min(1, n), n // 3, n):
            assert crc32c(data[cut:n], crc32c(data[:cut])) == expected, (n, cut)


def test_crc32c_refuses_a_buffer_that_is_not_contiguous() -> None:
    with pytest.raises(TypeError):
        crc32c("text")  # type: ignore[arg-type]
    with pytest.raises((ValueError, BufferError), match="contiguous"):
        crc32c(np.zeros(10, np.uint8)[::2])
    with pytest.raises(OverflowError):
        crc32c(b"", -1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("f64", "l2", 3), {}, "int4, ternary, rabitq, mixed, not 'f64'"),
        (("f32", "L2", 3), {}, "metric must be one of l2, ip, cosine, not 'L2'"),
        (("f32", "l2", 0), {}, "dim must be in 1..65536, not 0"),
        (("f32", "l2", 65537), {}, "dim must be in 1..65536, not 65537"),
        (("f32", "l2", 2**80), {}, "dim must be in 1..65536"),
        (("f32", "l2", 3), {"simd": "sse9"}, "simd must be one of scalar.*not 'sse9'"),
        (("int8", "l2", 3), {"lower": np.zeros(3, np.float32)}, "lower and step must be given together"),
        (
            ("f32", "l2", 3),
            {"lower": np.zeros(3, np.float32), "step": np.zeros(3, np.float32)},
            "kinds int8 and int4 only",
        ),
        (
            ("ternary", "l2", 3),
            {"lower": np.zeros(3, np.float32), "step": np.ones(3, np.float32)},
            "int8 and int4 only",
        ),
        (("int4", "l2", 3), {"step": np.ones(3, np.float32)}, "given together"),
        (("f32", "l2", 3), {"integers": True}, "integers is for kind int8"),
        (("int8", "l2", 3), {"rounding": "truncate"}, "rounding goes with lower and step"),
        (("int8", "l2", 3), {"rounding": "up"}, "rounding must be one of nearest, truncate"),
    ],
)
def test_codec_options_are_checked(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codec(*arguments, **options)


@pytest.mark.parametrize(
    ("lower", "step", "message"),
    [
        (np.zeros(2, np.float32), np.ones(3, np.float32), "lower must be 3 wide, not 2"),
        (np.zeros(3, np.float32), np.ones((1, 3), np.float32), "step must have 1 dimension"),
        (np.array([0, np.inf, 0], np.float32), np.ones(3, np.float32), r"lower\[1\] must be finite"),
        (np.zeros(3, np.float32), np.array([1, 1, np.nan], np.float32), r"step\[2\] must be finite"),
        (np.zeros(3, np.float32), np.array([1, -1, 1], np.float32), r"step must not be negative: step\[1\]"),
    ],
)
def test_static_parameters_are_checked(lower: Any, step: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codec("int8", "l2", 3, lower=lower, step=step)


def test_static_parameters_are_copied() -> None:
    lower, step = np.zeros(3, np.float32), np.ones(3, np.float32)
    codec = Codec("int8", "l2", 3, lower=lower, step=step)
    step[:] = 100
    assert codec.decode(codec.encode(np.array([[1, 2, 3]], np.float32))).tolist() == [[1, 2, 3]]


def test_dim_must_be_an_integer() -> None:
    with pytest.raises(TypeError):
        Codec("f32", "l2", 3.5)  # type: ignore[arg-type]


HOSTILE: list[tuple[Any, type[Exception], str]] = [
    ([[0.0] * 8], TypeError, "must be a NumPy array of float32, not list"),
    (None, TypeError, "not NoneType"),
    (np.zeros((2, 8)), TypeError, "must be float32, not float64"),
    (np.zeros((2, 8), np.float32).astype(">f4"), TypeError, "must be float32, not >f4"),
    (np.zeros((2, 8), object), TypeError, "not object"),
    (np.zeros((2, 7), np.float32), ValueError, "must be 8 wide, not 7"),
    (np.zeros((2, 0), np.float32), ValueError, "must be 8 wide, not 0"),
    (np.float32(1), TypeError, "not float32"),
    (np.array(1, np.float32), ValueError, "must have 1 or 2 dimensions, not 0"),
    (np.zeros((1, 2, 8), np.float32), ValueError, "must have 1 or 2 dimensions, not 3"),
    (np.zeros((8, 8), np.float32, order="F"), ValueError, "C-contiguous"),
    (np.zeros((4, 8), np.float32)[::2], ValueError, "C-contiguous"),
    (np.broadcast_to(np.zeros(8, np.float32), (2**33, 8)), ValueError, "C-contiguous"),
    (np.zeros(65, np.uint8)[1:].view(np.float32).reshape(2, 8), ValueError, "aligned"),
]


@pytest.mark.parametrize(("array", "error", "message"), HOSTILE)
def test_float_arguments_are_checked(array: Any, error: type[Exception], message: str) -> None:
    codec = Codec("f32", "l2", 8)
    for call in (codec.encode, codec.prepare):
        with pytest.raises(error, match=message):
            call(array)


@pytest.mark.parametrize("array", [None, 3, np.float32(1), np.array(1, np.float32), np.zeros((2, 8))])
def test_transform_checks_its_vectors(array: Any) -> None:
    with pytest.raises(TypeError, match="x must be"):
        transform(array, 64, False, None, None)


def test_row_arguments_are_checked() -> None:
    codec = Codec("int8", "l2", 8)
    rows = codec.encode(np.ones((2, 8), np.float32))
    query = codec.prepare(np.ones(8, np.float32))
    for call in (codec.decode, codec.prepare_rows, lambda r: codec.score(query, r)):
        with pytest.raises(TypeError, match="rows must be uint8, not int8"):
            call(rows.view(np.int8))
        with pytest.raises(ValueError, match="rows must be 128 wide, not 127"):
            call(np.ascontiguousarray(rows[:, :-1]))


def test_prepared_queries_are_checked() -> None:
    codec = Codec("int8", "l2", 8)
    rows = codec.encode(np.ones((2, 8), np.float32))
    prepared = codec.prepare(np.ones((3, 8), np.float32))
    assert codec.score(prepared[1:], rows).shape == (2, 2)
    with pytest.raises(ValueError, match="prepared must be 128 wide"):
        codec.score(rows[:, :64].copy(), rows)
    room = np.empty(prepared.size + 128, np.uint8)
    shifted = room[(-room.ctypes.data) % 64 + 16 :][: prepared.size].reshape(prepared.shape)
    with pytest.raises(ValueError, match="64-byte boundary"):
        codec.score(shifted, rows)


def test_read_only_and_empty_arrays_are_accepted() -> None:
    x = np.ones((3, 8), np.float32)
    x.flags.writeable = False
    codec = Codec("f16", "ip", 8)
    rows = codec.encode(x)
    rows.flags.writeable = False
    assert codec.score(codec.prepare(x), rows).tolist() == [[-8.0] * 3] * 3
    assert codec.encode(x[:0]).shape == (0, codec.stride)
    assert codec.decode(rows[:0]).shape == (0, 8)
    assert codec.score(codec.prepare(x[:0]), rows).shape == (0, 3)
    assert codec.score(codec.prepare(x), rows[:0]).shape == (3, 0)


def test_results_stay_valid_after_their_codec_is_gone() -> None:
    codec = Codec("int8", "l2", 8)
    rows = codec.encode(np.ones((2, 8), np.float32))
    copy = rows.copy()
    del codec
    assert np.array_equal(rows, copy)
    assert rows.flags.writeable
    assert rows.base is not None
