"""Transforms of vectors before encoding: truncate, normalize, center, project, rotate. Stored ones never change."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from qvec import _kernels
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, floats_to_bytes, take_flag, take_floats, take_int, take_state, take_version
from qvec.common.types import MAX_DIM, Codes, Float32Array, NDArray, check_int

VERSION = 1
ROUNDS = 4  # of the rotation
ROTATED_BYTES = 128 << 10  # of rows that are rotated back at a time: they stay in the cache
MAX_SEED = 2**64 - 1
MAX_MATRIX_BYTES = 60 << 20  # a quantizer is one record, of 64 MiB at most
_FIELDS = ("version", "dim", "dims", "padded", "normalize", "mean", "seed", "width", "matrix", "columns", "residual")


@dataclass(frozen=True, eq=False)
class Transform:
    """``R M^T (x' - mean)``, where ``x'`` is ``x / |x|`` if ``normalize``, otherwise ``x``.

    R is a random orthogonal matrix drawn with ``seed`` (None: no rotation): the fast Hadamard transform, with Kac's
    walk for sizes that are not powers of two. x is the first ``dims`` of ``dim`` input values; None: all (Matryoshka
    embeddings, Kusupati et al., arXiv:2205.13147). ``mean``: float32[dims] or None. ``matrix``: M, float32[dims, width]
    of 60 MiB at most, or None. The output has ``padded`` values: ``width`` (``dims`` without a matrix), rounded up to a
    multiple of 64 if there is a rotation.

    ``columns``: M as int8 codes of its columns, uint8[width, stride] rows of ``Codec("int8", "ip", dims)``; ``matrix``
    is then what they decode to. Queries are encoded with 8 bits before they are multiplied with codes of columns, which
    takes a quarter of the time. ``residual``: the length of what M leaves out of a vector is one more value, before the
    rotation; for queries it is 0. Squared distances of queries then include what M leaves out of vectors.
    """

    dim: int
    normalize: bool
    mean: Float32Array | None
    seed: int | None
    dims: int | None = None
    matrix: Float32Array | None = None
    columns: Codes | None = None
    residual: bool = False
    signs: Codes | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_int("dim", self.dim, 1, MAX_DIM)
        if self.dims is not None:
            check_int("dims", self.dims, 1, self.dim)
        if self.seed is not None:
            check_int("seed", self.seed, 0, MAX_SEED)
        if self.mean is not None:
            object.__setattr__(self, "mean", _checked_mean(self.mean, self.kept))
        if self.columns is not None:
            object.__setattr__(self, "columns", _checked_columns(self.columns, self.kept))
            object.__setattr__(self, "matrix", np.ascontiguousarray(self._column_codec.decode(self.columns).T))
        if self.matrix is not None:
            object.__setattr__(self, "matrix", _checked_matrix(self.matrix, self.kept))
        elif self.residual:
            raise InputError("residual needs a matrix: without one, nothing is left out")
        signs = None if self.seed is None else rotation_signs(self.seed, self.padded)
        object.__setattr__(self, "signs", signs)

    @property
    def width(self) -> int:
        """The number of columns of M; without it, that of its inputs."""
        return self.kept if self.matrix is None else self.matrix.shape[1]

    @property
    def padded(self) -> int:
        """The number of dimensions of the output."""
        used = self.width + self.residual
        return used if self.seed is None else -(-used // 64) * 64

    @property
    def kept(self) -> int:
        """The number of dimensions after truncation."""
        return self.dim if self.dims is None else self.dims

    @cached_property
    def _panels(self) -> Float32Array:
        """The matrix in the layout of the kernel: float32[n_panels * kept, PANEL], padded with zero columns."""
        assert self.matrix is not None
        panel = _kernels.PANEL
        wide = np.pad(self.matrix, ((0, 0), (0, -self.width % panel)))
        return np.ascontiguousarray(wide.reshape(self.kept, -1, panel).swapaxes(0, 1)).reshape(-1, panel)

    @cached_property
    def _inverse(self) -> Float32Array:
        """The Moore-Penrose inverse of M, float32[width, kept]; its transpose if M is orthogonal."""
        assert self.matrix is not None
        return np.linalg.pinv(self.matrix.astype(np.float64)).astype(np.float32)

    @cached_property
    def of_queries(self) -> _kernels.QueryMap:
        """Return the transform for the kernels, which apply it during searches."""
        panels = None if self.matrix is None or self.columns is not None else self._panels
        sizes = self.kept, self.width, self.padded
        return _kernels.QueryMap(*sizes, self.normalize, self.mean, panels, self.signs, columns=self.columns)

    @property
    def _column_codec(self) -> _kernels.Codec:
        return column_codec(self.kept)

    def apply_to_queries(self, x: Float32Array) -> Float32Array:
        """Transform queries, float32[n, dim], to float32[n, padded], as searches do."""
        return self.of_queries.apply(x if self.dims is None else np.ascontiguousarray(x[:, : self.dims]))

    def apply(self, x: Float32Array) -> Float32Array:
        """Transform vectors, float32[n, dim], to float32[n, padded]."""
        x = x if self.dims is None else np.ascontiguousarray(x[:, : self.dims])
        if self.matrix is None:
            return _kernels.transform(x, self.padded, self.normalize, self.mean, self.signs)
        if self.normalize or self.mean is not None:
            x = _kernels.transform(x, self.kept, self.normalize, self.mean, None)
        y = np.ascontiguousarray(_kernels.project(x, self._panels)[:, : self.width])
        y = _kernels.append_residual(x, y) if self.residual else y
        return y if self.signs is None else _kernels.transform(y, self.padded, False, None, self.signs)

    def unrotate(self, y: Float32Array) -> Float32Array:
        """Apply R^-1 and M^-1 to float32[n, padded]; return float32[n, dim]. What M left out is zero.

        The norm is not restored, the mean is not added, and truncated dimensions are zero.
        """
        x = y if self.signs is None else _inverse_rotation(y, self.signs)
        x = x[:, : self.width]
        x = x if self.matrix is None else x @ self._inverse
        if self.dims is None:
            return np.ascontiguousarray(x)
        return np.pad(x, ((0, 0), (0, self.dim - self.kept)))

    def state(self) -> State:
        """Return the transform as plain data."""
        mean = None if self.mean is None else floats_to_bytes(self.mean)
        plain: State = {"version": VERSION, "dim": self.dim, "dims": self.dims, "padded": self.padded}
        matrix = None if self.matrix is None or self.columns is not None else floats_to_bytes(self.matrix)
        columns = None if self.columns is None else self.columns.tobytes()
        plain |= {"normalize": self.normalize, "mean": mean, "seed": self.seed}
        return plain | {"width": self.width, "matrix": matrix, "columns": columns, "residual": self.residual}

    @classmethod
    def from_state(cls, state: object) -> Self:
        """Rebuild a transform; FormatError names the wrong field."""
        fields = take_state(state, "transform", _FIELDS)
        take_version(fields, VERSION)
        dim = take_int(fields, "dim", 1, MAX_DIM)
        dims = None if fields["dims"] is None else take_int(fields, "dims", 1, dim)
        mean = None if fields["mean"] is None else take_floats(fields, "mean", dims or dim)
        seed = None if fields["seed"] is None else take_int(fields, "seed", 0, MAX_SEED)
        matrix = None if fields["matrix"] is None else _take_matrix(fields, dims or dim)
        columns = None if fields["columns"] is None else _take_columns(fields, dims or dim)
        residual = take_flag(fields, "residual")
        if matrix is not None and columns is not None:
            raise FormatError("field 'columns' must be empty if there is a matrix")
        if residual and matrix is None and columns is None:
            raise FormatError("field 'residual' must be false if there is no matrix")
        transform = cls(dim, take_flag(fields, "normalize"), mean, seed, dims, matrix, columns, residual)
        take_int(fields, "width", transform.width, transform.width)
        take_int(fields, "padded", transform.padded, transform.padded)
        return transform


def splitmix64(seed: int, n: int) -> NDArray[np.uint64]:
    """Return ``n`` outputs of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014; Stafford's mix 13) as uint64[n].

    Stored rotations depend on this generator, so it must not change; NumPy's streams may change between versions.
    """
    z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def rotation_signs(seed: int, padded: int) -> Codes:
    """Return the sign bits of the rotation's rounds: uint8[ROUNDS * padded / 8].

    Bit ``i % 8`` of byte ``r * padded / 8 + i / 8`` belongs to dimension i in round r; the bytes are the
    little-endian outputs of SplitMix64.
    """
    words = splitmix64(seed, ROUNDS * padded // 64)
    signs = words.astype("<u8").view(np.uint8)
    signs.flags.writeable = False
    return signs


def _checked_mean(mean: Float32Array, dim: int) -> Float32Array:
    if mean.shape != (dim,) or mean.dtype != np.float32:
        raise InputError(f"mean must be float32 of shape ({dim},), got {mean.dtype} of shape {mean.shape}")
    if not np.isfinite(mean).all():
        raise InputError(f"mean is not finite in dimension {int(np.flatnonzero(~np.isfinite(mean))[0])}")
    own = np.array(mean, order="C")
    own.flags.writeable = False
    return own


def _checked_matrix(matrix: Float32Array, dim: int) -> Float32Array:
    if matrix.ndim != 2 or matrix.shape[0] != dim or not matrix.shape[1] or matrix.dtype != np.float32:
        got = f"{matrix.dtype} of shape {matrix.shape}"
        raise InputError(f"matrix must be float32 of shape ({dim}, width), got {got}")
    if matrix.nbytes > MAX_MATRIX_BYTES:
        raise InputError(f"matrix takes {matrix.nbytes} bytes; the limit is {MAX_MATRIX_BYTES}")
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise InputError(f"matrix is not finite in row {row}")
    own = np.array(matrix, order="C")
    own.flags.writeable = False
    return own


def column_codec(dim: int) -> _kernels.Codec:
    """The codec of the columns of a matrix with ``dim`` rows."""
    return _kernels.Codec("int8", "ip", dim)


def _checked_columns(columns: Codes, dim: int) -> Codes:
    stride = column_codec(dim).stride
    if columns.ndim != 2 or columns.shape[1] != stride or not len(columns) or columns.dtype != np.uint8:
        got = f"{columns.dtype} of shape {columns.shape}"
        raise InputError(f"columns must be uint8 of shape (width, {stride}), got {got}")
    own = np.array(columns, order="C")
    own.flags.writeable = False
    return own


def _take_columns(fields: State, dim: int) -> Codes:
    codec, value = column_codec(dim), fields["columns"]
    width = take_int(fields, "width", 1, MAX_MATRIX_BYTES // (4 * dim))
    if not isinstance(value, bytes) or len(value) != width * codec.stride:
        raise FormatError(f"field 'columns' must hold {width} rows of {codec.stride} bytes")
    rows = np.frombuffer(value, np.uint8).reshape(width, codec.stride)
    factors = rows[:, codec.data_size : codec.data_size + 8].copy().view("<f4")
    if not ((factors >= 0) & (factors < np.inf)).all():
        raise FormatError("field 'columns' holds a scale or length that is negative or not finite")
    return rows


def _take_matrix(fields: State, dim: int) -> Float32Array:
    width = take_int(fields, "width", 1, MAX_MATRIX_BYTES // (4 * dim))
    return take_floats(fields, "matrix", dim * width).reshape(dim, width)


def _inverse_rotation(y: Float32Array, signs: Codes) -> Float32Array:
    """Undo the rotation of float32[n, padded]: run the rounds backwards, as each step is its own inverse."""
    padded = y.shape[1]
    flips = 1.0 - 2.0 * np.unpackbits(signs, bitorder="little").reshape(ROUNDS, padded).astype(np.float32)
    out = np.empty(y.shape, np.float32)
    step = max(1, ROTATED_BYTES // (4 * padded))
    for start in range(0, len(y), step):
        columns = np.array(y[start : start + step].T, dtype=np.float32, order="C")
        _rotate_back(columns, flips)
        out[start : start + step] = columns.T
    return out


def _rotate_back(columns: Float32Array, flips: Float32Array) -> None:
    """Undo the rotation of a few vectors in place: float32[padded, n]. The values of a dimension are contiguous, and
    each step is a sum of long arrays."""
    padded = len(columns)
    power = 1 << (padded.bit_length() - 1)
    for r in reversed(range(ROUNDS)):
        if power < padded:
            _butterfly(columns, padded // 2)
        start, half = 0 if r % 2 == 0 else padded - power, 1
        while half < power:
            _butterfly(columns[start : start + power], half)
            half *= 2
        columns *= flips[r][:, None]


def _butterfly(columns: Float32Array, half: int) -> None:
    """Map pairs of dimensions (a, b), ``half`` apart, to (a + b, a - b) / sqrt 2, in place.

    The map is orthogonal and its own inverse.
    """
    columns *= np.float32(0.5**0.5)
    pairs = columns.reshape(-1, 2, half, columns.shape[1])
    a, b = pairs[:, 0], pairs[:, 1]
    difference = a - b
    a += b
    b[...] = difference
