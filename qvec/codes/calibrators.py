"""Calibration methods, which find the range of each dimension. A method is a function and a line in METHODS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from qvec.codes.entropy import least_divergence_ranges
from qvec.codes.mse import least_squares_ranges
from qvec.common.errors import InputError
from qvec.common.types import MIN_SAMPLES_ENTROPY, MIN_SAMPLES_RANGE, Float32Array

Params = Mapping[str, float]
Ranges = tuple[Float32Array, Float32Array]


class Method(NamedTuple):
    """``ranges``: from float32[n, dim], n >= min_samples, and parameters to (lower, upper), float32[dim] each."""

    ranges: Callable[[Float32Array, Params], Ranges]
    defaults: Params
    min_samples: int = MIN_SAMPLES_RANGE


def minmax(sample: Float32Array, params: Params) -> Ranges:
    """Cover the whole sample."""
    return sample.min(axis=0), sample.max(axis=0)


def percentile(sample: Float32Array, params: Params) -> Ranges:
    """Cover the central ``params["percentile"]`` per cent of each dimension; both tails are cut equally."""
    covered = params["percentile"]
    if not 50.0 < covered <= 100.0:
        raise InputError(f"percentile must be above 50 and at most 100, got {covered}")
    tail = (100.0 - covered) / 2.0
    lower, upper = np.percentile(sample, [tail, 100.0 - tail], axis=0).astype(np.float32)
    return lower, upper


def mse(sample: Float32Array, params: Params) -> Ranges:
    """Minimize the squared error of codes with ``params["levels"]`` steps."""
    return least_squares_ranges(sample, _levels(params))


def entropy(sample: Float32Array, params: Params) -> Ranges:
    """Minimize the divergence between the histograms before and after coding with ``params["levels"]`` steps."""
    return least_divergence_ranges(sample, _levels(params))


def given(sample: Float32Array, params: Params) -> Ranges:
    """Raise InputError: given ranges are not learned from a sample."""
    raise InputError("method 'ranges' learns nothing: use Calibration.from_ranges")


METHODS: dict[str, Method] = {
    "minmax": Method(minmax, {}),
    "percentile": Method(percentile, {"percentile": 99.9}),
    "mse": Method(mse, {"levels": 255.0}),
    "entropy": Method(entropy, {"levels": 255.0}, MIN_SAMPLES_ENTROPY),
    "ranges": Method(given, {}),
}
LEARNED = tuple(name for name in METHODS if name != "ranges")
TRAINED = ("lsq",)  # ranges from training (qvec.torch): stored like others, but not computed from a sample alone


def _levels(params: Params) -> int:
    levels = params["levels"]
    if levels not in (15.0, 255.0):
        raise InputError(f"levels must be 15 (4 bits) or 255 (8 bits), got {levels:g}")
    return int(levels)


def merged_params(method: str, params: Params) -> dict[str, float]:
    """Add the method's defaults to ``params``; InputError names a parameter that the method does not have."""
    defaults = METHODS[method].defaults
    if unknown := sorted(params.keys() - defaults.keys()):
        known = ", ".join(sorted(defaults)) or "none"
        raise InputError(f"calibration by {method} has no parameter {unknown[0]!r} (it has: {known})")
    return {name: float(params.get(name, default)) for name, default in defaults.items()}
