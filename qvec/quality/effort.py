"""Search effort per query: learns from measured queries after which stage a search should end (ADR 22).

A search runs in stages of growing width. Ending query q after stage s has the value recall(q, s) - price * cost(q, s).
From the last stage backwards, a linear model of the stage's features predicts how much more going on is worth than
ending there; the search goes on if that is positive. This is optimal stopping by regression (Longstaff and Schwartz,
Review of Financial Studies 2001). A higher price gives cheaper searches: a list of prices gives a curve. Its recall and
cost are those of queries that a model did not learn from: the queries are split in two halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qvec.common.types import Float32Array, NDArray

MIN_QUERIES = 200  # fewer teach too little
RIDGE = 0.01  # of the number of queries: weight of the squared coefficients of standardized features
MIN_REACHED = 64  # queries that reached a stage, to learn its recall from them alone
N_PRICES = 32
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What stages did: features float [stages, nq, features], recalls and costs float [stages, nq].

    The first feature is 1. A query's cost grows from stage to stage.
    """

    features: Floats
    recalls: Floats
    costs: Floats

    def part(self, queries: NDArray[Any]) -> Measured:
        """The same for some of the queries."""
        return Measured(self.features[:, queries], self.recalls[:, queries], self.costs[:, queries])


class Policy(NamedTuple):
    """Weights of features, float32 [stages, features]; recalls and costs of the queries, float [nq], by models that did
    not learn from them."""

    go_on: Float32Array
    recall: Float32Array
    recalls: Floats
    costs: Floats


def policies(measured: Measured, seed: int) -> list[Policy]:
    """Policies for a range of prices, by ascending cost."""
    half = np.random.default_rng(seed).permutation(measured.recalls.shape[1])
    parts = half[::2], half[1::2]
    found = []
    for price in _prices(measured):
        recalls, costs = np.empty(len(half)), np.empty(len(half))
        for taught, tested in (parts, parts[::-1]):
            other = measured.part(tested)
            ends = last_stages(go_on_weights(measured.part(taught), price), other)
            recalls[tested], costs[tested] = _ended(other, ends)
        go_on = go_on_weights(measured, price)
        recall = recall_weights(measured, last_stages(go_on, measured))
        found.append(Policy(go_on.astype(np.float32), recall.astype(np.float32), recalls, costs))
    return sorted(found, key=lambda policy: float(policy.costs.mean()))


def go_on_weights(measured: Measured, price: float) -> Floats:
    """Weights of the features of each stage, whose sum is positive where going on is worth its cost."""
    n_stages, _, n_features = measured.features.shape
    value = measured.recalls - price * measured.costs
    weights, best = np.zeros((n_stages, n_features)), value[-1]
    for stage in range(n_stages - 2, -1, -1):
        weights[stage] = _fitted(measured.features[stage], best - value[stage])
        best = np.where(measured.features[stage] @ weights[stage] > 0, best, value[stage])
    return weights


def recall_weights(measured: Measured, ends: NDArray[np.int64]) -> Floats:
    """Weights of the features of each stage, whose sum is the recall to expect if the search ends there."""
    weights = np.zeros((len(measured.recalls), measured.features.shape[2]))
    for stage, (features, recalls) in enumerate(zip(measured.features, measured.recalls, strict=True)):
        reached = ends >= stage
        if reached.sum() < MIN_REACHED:
            reached[:] = True
        weights[stage] = _fitted(features[reached], recalls[reached])
    return weights


def last_stages(go_on: Floats, measured: Measured) -> NDArray[np.int64]:
    """The stage that each query ends with: int64 [nq]."""
    last = len(go_on) - 1
    stops = np.stack([features @ weights <= 0 for features, weights in zip(measured.features, go_on, strict=True)])
    stops[last] = True
    ends: NDArray[np.int64] = stops.argmax(axis=0)
    return ends


def _ended(measured: Measured, ends: NDArray[np.int64]) -> tuple[Floats, Floats]:
    queries = np.arange(len(ends))
    return measured.recalls[ends, queries], measured.costs[ends, queries]


def _prices(measured: Measured) -> Floats:
    """Prices at which policies range from the first stage to the last: gains of recall for each unit of cost."""
    recalls, costs = measured.recalls.mean(axis=1), measured.costs.mean(axis=1)
    rates = np.diff(recalls) / np.maximum(np.diff(costs), 1e-9)
    rates = rates[rates > 0]
    if not len(rates):
        return np.zeros(0)
    return np.geomspace(rates.min() / 2, 4 * rates.max(), N_PRICES)


def _fitted(features: Floats, wanted: Floats) -> Floats:
    """Coefficients of a ridge regression on standardized features, for the features as they are."""
    x = features[:, 1:]
    mean, std = x.mean(axis=0), x.std(axis=0)
    scale = np.where(std > 1e-9 * (1 + np.abs(mean)), std, np.inf)
    z = (x - mean) / scale
    centered = wanted - wanted.mean()
    gram = z.T @ z + RIDGE * len(z) * np.eye(z.shape[1])
    coefficients = np.linalg.solve(gram, z.T @ centered) / scale
    return np.concatenate([[wanted.mean() - mean @ coefficients], coefficients])
