"""The laws that every quantizer obeys, as functions. They are applied to every registered kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgpack  # noqa: TID251 - states must survive the packer itself
import numpy as np
import pytest

from qvec.codes import registry as quantizers
from qvec.codes.configs import BFloat16, Binary, CodeConfig, Float16, Float32, Int4, Int8, Mixed, RaBitQ, Ternary
from qvec.codes.rabitq import RaBitQuantizer
from qvec.codes.registry import Quantizer
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Float32Array, Int64Array, Metric

CONFIGS: dict[str, CodeConfig] = {
    "f32": Float32(),
    "f16": Float16(),
    "int8": Int8(),
    "int8-rotated": Int8(rotate=True),
    "int8-minmax": Int8(scale="per_dim"),
    "int8-minmax-rotated": Int8(scale="per_dim", rotate=True),
    "int8-percentile": Int8(scale="per_dim", method="percentile", percentile=99.5),
    "int8-mse": Int8(scale="per_dim", method="mse"),
    "int8-symmetric": Int8(scale="per_dim", symmetric=True),
    "int8-global": Int8(scale="global"),
    "int8-truncated": Int8(scale="per_dim", rounding="truncate"),
    "bf16": BFloat16(),
    "int4": Int4(),
    "int4-raw": Int4(centroids=0, rotate=False),
    "int4-one-center": Int4(centroids=1),
    "int4-off-center": Int4(centroids=0),
    "int4-mse": Int4(scale="per_dim"),
    "int4-minmax": Int4(scale="per_dim", method="minmax", rotate=False),
    "int4-global-symmetric": Int4(scale="global", symmetric=True),
    "ternary": Ternary(),
    "ternary-raw": Ternary(centroids=0, rotate=False),
    "ternary-off-center": Ternary(centroids=0),
    "binary": Binary(),
    "binary-rotated": Binary(center=False),
    "binary-centered": Binary(rotate=False),
    "binary-raw": Binary(center=False, rotate=False),
    "rabitq1": RaBitQ(),
    "rabitq1-off-center": RaBitQ(centroids=0),
    "rabitq3": RaBitQ(3),
    "rabitq4-off-center": RaBitQ(4, centroids=0),
    "rabitq8": RaBitQ(8),
    "mixed": Mixed(),
    "mixed-bytes": Mixed(bytes=24),
    "mixed-raw": Mixed(bits=5, groups="raw"),
}
# Error of a dot product that rounding the query adds, as a share of |q| |x|.
QUERY_ERROR = {"f32": 1e-6, "f16": 1e-6, "bf16": 1e-6, "int8": 0.015, "int4": 0.015, "ternary": 0.02}
# Recall@10 by code alone, on the data of `clustered`.
RECALL = {"f32": 1.0, "f16": 0.99, "bf16": 0.97, "int8": 0.92, "int4": 0.70, "ternary": 0.50, "binary": 0.48}
QUERY_ERROR |= {"rabitq": 0.015, "mixed": 0.015}
RECALL |= {"rabitq1": 0.68, "rabitq3": 0.86, "rabitq4": 0.9, "rabitq8": 0.98, "mixed": 0.82}


def clustered(rng: np.random.Generator, n: int, dim: int) -> Float32Array:
    """float32[n, dim] around 20 centroids, off the origin, with unequal variance of the dimensions."""
    centroids = rng.normal(size=(20, dim))
    spread = rng.uniform(0.2, 1.5, dim)
    points = centroids[rng.integers(0, 20, n)] + spread * rng.normal(size=(n, dim)) + 0.3
    return points.astype(np.float32)


def oracle(metric: Metric, queries: Float32Array, x: Float32Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Distances of the metric by their definition, float64[nq, n]."""
    q, v = queries.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        differences = q[:, None] - v[None]
        return np.einsum("qnd,qnd->qn", differences, differences)
    if metric == "cosine":
        q, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, v))
    return float(metric == "cosine") - q @ v.T


def coded_view(quantizer: Quantizer, x: Float32Array) -> Float32Array:
    return x if quantizer.transform is None else quantizer.transform.apply(x)


def check_batches(quantizer: Quantizer, x: Float32Array) -> None:
    """Codes and prepared queries of a batch equal those of its rows one by one."""
    whole, prepared = quantizer.encode(x), quantizer.prepare(x)
    assert whole.shape == (len(x), quantizer.code_size)
    assert whole.dtype == prepared.dtype == np.uint8
    for cut in (1, 3, 7):
        parts = [x[i : i + cut] for i in range(0, len(x), cut)]
        assert np.array_equal(np.vstack([quantizer.encode(p) for p in parts]), whole)
        assert np.array_equal(np.vstack([quantizer.prepare(p) for p in parts]), prepared)
    assert np.array_equal(quantizer.encode(np.asfortranarray(x)), whole)
    assert quantizer.encode(x[:0]).shape == (0, quantizer.code_size)


def check_state(quantizer: Quantizer, x: Float32Array) -> None:
    """A state passes through msgpack unchanged, and the rebuilt quantizer gives the same codes."""
    state = quantizer.state()
    packed = msgpack.packb(state)
    again = quantizers.from_state(msgpack.unpackb(packed))
    assert type(again) is type(quantizer)
    assert msgpack.packb(again.state()) == packed
    assert np.array_equal(again.encode(x), quantizer.encode(x))
    assert np.array_equal(again.prepare(x), quantizer.prepare(x))


def check_bad_states(quantizer: Quantizer) -> None:
    """A missing, mistyped or unknown field is refused by name, at any depth."""
    state = quantizer.state()
    for path in _paths(state):
        for bad in (object(), float("nan"), b"\x00", -1):
            _check_refused(_replaced(state, path, bad), path[-1])
        _check_refused(_replaced(state, path, None, drop=True), path[-1])
    _check_refused(state | {"surplus": 1}, "surplus")


def check_input(quantizer: Quantizer) -> None:
    """Wrong dimensions and dtypes are refused; the message names the expected ones."""
    for call in (quantizer.encode, quantizer.prepare):
        with pytest.raises(InputError, match=rf"shape \(n, {quantizer.dim}\)"):
            call(np.zeros((2, quantizer.dim + 1), np.float32))
        with pytest.raises(InputError, match=rf"shape \(n, {quantizer.dim}\)"):
            call(np.zeros(quantizer.dim, np.float32))
        with pytest.raises(InputError, match="float32 array, got float64"):
            call(np.zeros((2, quantizer.dim)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"codes must have shape \(n, {quantizer.code_size}\)"):
        quantizer.decode(np.zeros((2, quantizer.code_size + 1), np.uint8))
    with pytest.raises(InputError, match="codes must be a uint8 array, got int8"):
        quantizer.decode(np.zeros((2, quantizer.code_size), np.int8))  # type: ignore[arg-type]


def check_scores(quantizer: Quantizer, queries: Float32Array, x: Float32Array) -> None:
    """Keys are the metric's distances within the error of the code; for binary, the number of different bits."""
    keys = quantizer.codec.score(quantizer.prepare(queries), quantizer.encode(x))
    assert keys.shape == (len(queries), len(x))
    assert keys.dtype == np.float32
    if quantizer.kind == "binary":
        assert np.array_equal(keys, _differing_signs(quantizer, queries, x))
        return
    error = np.abs(keys - oracle(quantizer.metric, queries, x))
    bound = _dot_error(quantizer, queries, x) * (2 if quantizer.metric == "l2" else 1)
    assert (error <= bound).all(), f"worst: {(error / bound).max():.2g} times the bound"


def check_recall(quantizer: Quantizer, queries: Float32Array, x: Float32Array) -> None:
    """A scan by code finds most of the true ten."""
    keys = quantizer.codec.score(quantizer.prepare(queries), quantizer.encode(x))
    found = np.argsort(keys, axis=1, kind="stable")[:, :10]
    true = np.argsort(oracle(quantizer.metric, queries, x), axis=1, kind="stable")[:, :10]
    recall = np.mean([len(np.intersect1d(f, t)) / 10 for f, t in zip(found, true, strict=True)])
    kind = f"rabitq{quantizer.bits}" if isinstance(quantizer, RaBitQuantizer) else quantizer.kind
    assert recall >= RECALL[kind]


def _dot_error(quantizer: Quantizer, queries: Float32Array, x: Float32Array) -> Float32Array:
    """Bound of |<q, x> - score|: |q| |x - decoded| (Cauchy-Schwarz) plus the rounding error of the query."""
    decoded = quantizer.decode(quantizer.encode(x))
    if quantizer.metric == "cosine":
        queries, x = _unit(queries), _unit(x)
        decoded = _unit(decoded) if quantizer.kind in ("f32", "f16", "bf16") else decoded
    q, v = np.linalg.norm(queries, axis=1)[:, None], np.linalg.norm(x, axis=1)
    return q * np.linalg.norm(x - decoded, axis=1) + QUERY_ERROR[quantizer.kind] * (q * v + q * q + v * v)


def _unit(x: Float32Array) -> Float32Array:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _differing_signs(quantizer: Quantizer, queries: Float32Array, x: Float32Array) -> Int64Array:
    """Number of different signs by the definition: y = R(x - mean); under ip queries are rotated, but not centered."""
    q, v = coded_view(quantizer, queries), coded_view(quantizer, x)
    if quantizer.metric == "ip" and quantizer.transform is not None:
        q = replace(quantizer.transform, mean=None).apply(queries)
    return ((q > 0)[:, None] != (v > 0)[None]).sum(axis=2)


def _paths(state: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in state.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *rest) for rest in _paths(value))


def _replaced(state: dict[str, Any], path: tuple[str, ...], value: Any, drop: bool = False) -> dict[str, Any]:
    head, rest = path[0], path[1:]
    if rest:
        return state | {head: _replaced(state[head], rest, value, drop)}
    return {k: v for k, v in state.items() if k != head} if drop else state | {head: value}


def _check_refused(state: dict[str, Any], field: str) -> None:
    with pytest.raises(FormatError, match=field):
        quantizers.from_state(state)
