"""Calibration: the range of each dimension, learned from a sample; stored with a hash that is verified."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Self

import numpy as np

from qvec.codes.calibrators import LEARNED, METHODS, TRAINED, Params, merged_params
from qvec.codes.samples import check_finite, check_sample, check_vectors, mean_of, std_of
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import (
    State,
    floats_to_bytes,
    take_choice,
    take_floats,
    take_int,
    take_state,
    take_str,
    take_version,
)
from qvec.common.types import MAX_DIM, Float32Array, check_choice

VERSION = 1
LEVELS = 255
MIN_STEP = 1e-30  # for a constant dimension: avoids division by zero, and lower + 255 * step still equals lower
_ARRAYS = ("lower", "upper", "mean", "std", "min", "max")
_FIELDS = ("version", "id", "hash", "method", "params", "dim", "n_samples", "model", "created", *_ARRAYS)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranges of the dimensions, and statistics of their sample; ``lower`` is coded as 0, ``upper`` as 255.

    ``lower``, ``upper``: float32[dim], the ranges. ``mean``, ``std``, ``min``, ``max``: float32[dim], statistics of
    the sample. ``n_samples``: size of the sample. ``method``, ``params``: the calibration method. ``model``: tag of
    the model that made the vectors, or None. ``created``: UTC time, ISO 8601.
    """

    method: str
    params: Params
    n_samples: int
    lower: Float32Array
    upper: Float32Array
    mean: Float32Array
    std: Float32Array
    min: Float32Array
    max: Float32Array
    model: str | None
    created: str

    @classmethod
    def train(
        cls,
        sample: Float32Array,
        method: str = "minmax",
        params: Params | None = None,
        model: str | None = None,
        *,
        one_range: bool = False,
    ) -> Self:
        """Learn ranges from finite float32[n, dim], n >= 256 (entropy: 2048). InputError says what is wrong.

        ``one_range``: use one range for all dimensions, computed from the values of all dimensions.
        """
        check_choice("method", method, LEARNED)
        sample = check_sample(sample, None, METHODS[method].min_samples, f"calibration by {method}")
        chosen = merged_params(method, params or {})
        values = sample.reshape(-1, 1) if one_range else sample
        lower, upper = (np.broadcast_to(r, sample.shape[1]) for r in METHODS[method].ranges(values, chosen))
        statistics = mean_of(sample), std_of(sample), sample.min(axis=0), sample.max(axis=0)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(method, chosen, len(sample), lower, upper, *statistics, model, created)

    @classmethod
    def from_ranges(cls, ranges: Float32Array, model: str | None = None) -> Self:
        """Take the lowest and the highest value of each dimension, float32[2, dim], as sentence-transformers does.

        There is no sample: ``n_samples`` is 0, ``min`` and ``max`` are the ranges, ``mean`` is their middle, ``std``
        is zero. InputError: another shape or dtype, a value that is not finite, or a lower end above the upper.
        """
        given = check_vectors("ranges", ranges, None)
        if len(given) != 2:
            raise InputError(f"ranges must have shape (2, dim), got {given.shape}")
        check_finite("ranges", given)
        lower, upper = given
        if (lower > upper).any():
            raise InputError(f"ranges: the lower end exceeds the upper in dimension {int(np.argmax(lower > upper))}")
        middle = (lower / 2 + upper / 2).astype(np.float32)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls("ranges", {}, 0, lower, upper, middle, np.zeros_like(lower), lower, upper, model, created)

    def made_symmetric(self, levels: int = LEVELS) -> Self:
        """Widen each range to ``-(h + 1) s .. h s``, h = (levels - 1) / 2: code h + 1 is exactly zero."""
        reach, half = np.maximum(np.abs(self.lower), np.abs(self.upper)), (levels - 1) // 2
        return replace(self, lower=-reach * np.float32((half + 1) / half), upper=reach)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))
        for name in _ARRAYS:
            own = np.array(getattr(self, name), dtype=np.float32)
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    @property
    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.lower)

    @property
    def step(self) -> Float32Array:
        """Step of 8-bit codes, float32[dim]: ``steps(255)``."""
        return self.steps(LEVELS)

    def steps(self, levels: int) -> Float32Array:
        """Step between codes, float32[dim]: ``(upper - lower) / levels``, at least 1e-30.

        Both operations round to float32, as in ``quantize_embeddings`` of sentence-transformers, unless the width
        overflows float32.
        """
        with np.errstate(over="ignore"):
            width = self.upper - self.lower
        if not np.isfinite(width).all():
            width = self.upper.astype(np.float64) - self.lower
        steps: Float32Array = np.maximum((width / np.float32(levels)).astype(np.float32), np.float32(MIN_STEP))
        return steps

    @property
    def constant_dims(self) -> list[int]:
        """Dimensions with the same value in the whole sample, which contain no information."""
        return [int(i) for i in np.flatnonzero(self.min == self.max)]

    @property
    def hash(self) -> str:
        """SHA-256 in hex of all fields except ``created``: equal samples and methods give equal hashes."""
        head = [VERSION, self.method, sorted(self.params.items()), self.n_samples, self.dim, self.model]
        import hashlib  # late: it loads OpenSSL

        digest = hashlib.sha256(json.dumps(head).encode())
        for name in _ARRAYS:
            digest.update(floats_to_bytes(getattr(self, name)))
        return digest.hexdigest()

    @property
    def id(self) -> str:
        """The first 16 hex digits of the hash."""
        return self.hash[:16]

    def to_dict(self) -> State:
        """Return plain msgpack data; arrays are little-endian float32 bytes."""
        plain = {name: floats_to_bytes(getattr(self, name)) for name in _ARRAYS}
        return self._head() | plain

    @classmethod
    def from_dict(cls, state: object) -> Self:
        """Rebuild and verify a calibration; FormatError names the wrong field."""
        fields = take_state(state, "calibration", _FIELDS)
        take_version(fields, VERSION)
        method = take_choice(fields, "method", (*METHODS, *TRAINED))
        dim = take_int(fields, "dim", 1, MAX_DIM)
        n_samples = take_int(fields, "n_samples", 0 if method == "ranges" else 1, 2**63 - 1)
        arrays = {name: take_floats(fields, name, dim) for name in _ARRAYS}
        _check_order(arrays)
        model = None if fields["model"] is None else take_str(fields, "model")
        params, created = _take_params(fields, method), _take_date(fields)
        made = cls(method, params, n_samples, **arrays, model=model, created=created)
        for name in ("hash", "id"):
            if take_str(fields, name) != getattr(made, name):
                raise FormatError(f"field {name!r} does not match the calibration's content")
        return made

    def to_json(self) -> str:
        """Return JSON text; each float32 is read back to the same bits."""
        plain = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return json.dumps(self._head() | plain, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild and verify a calibration from :meth:`to_json`; FormatError names the wrong field."""
        try:
            state = json.loads(text)
        except json.JSONDecodeError as error:
            raise FormatError(f"calibration is not JSON: {error}") from error
        fields = take_state(state, "calibration", _FIELDS)
        return cls.from_dict(fields | {name: _pack_list(name, fields[name]) for name in _ARRAYS})

    def _head(self) -> State:
        return {
            "version": VERSION,
            "id": self.id,
            "hash": self.hash,
            "method": self.method,
            "params": dict(self.params),
            "dim": self.dim,
            "n_samples": self.n_samples,
            "model": self.model,
            "created": self.created,
        }


def _take_params(fields: State, method: str) -> dict[str, float]:
    params = take_state(fields["params"], "params", () if method in TRAINED else METHODS[method].defaults)
    for name, value in params.items():
        if not isinstance(value, float) or not np.isfinite(value):
            raise FormatError(f"field 'params': {name!r} must be a finite float, got {value!r}")
    return params


def _take_date(fields: State) -> str:
    created = take_str(fields, "created", limit=64)
    try:
        moment = datetime.fromisoformat(created)
    except ValueError as error:
        raise FormatError(f"field 'created' must be an ISO 8601 time, got {created!r}") from error
    if moment.utcoffset() is None:
        raise FormatError(f"field 'created' must have an offset from UTC, got {created!r}")
    return created


def _check_order(arrays: dict[str, Float32Array]) -> None:
    for low, high in (("lower", "upper"), ("min", "max")):
        above = np.flatnonzero(arrays[low] > arrays[high])
        if above.size:
            raise FormatError(f"field {low!r} exceeds {high!r} in dimension {int(above[0])}")
    if (arrays["std"] < 0).any():
        raise FormatError("field 'std' holds a negative value")


def _pack_list(name: str, values: object) -> bytes:
    if not isinstance(values, list) or not all(type(v) in (int, float) for v in values):
        raise FormatError(f"field {name!r} must be a list of numbers")
    try:
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are refused later by name
            return floats_to_bytes(np.array(values, dtype=np.float64).astype(np.float32))
    except OverflowError as error:
        raise FormatError(f"field {name!r} holds a number beyond float32") from error
