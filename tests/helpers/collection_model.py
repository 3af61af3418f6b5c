"""The reference model of a collection: a dict of float64 vectors, searched by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from helpers.filter_model import matches
from qvec import BatchHits, Collection, Hits

Id = int | str
Payload = dict[str, Any]
Vector = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Metric = Literal["cosine", "ip", "l2"]
OnConflict = Literal["error", "skip", "replace"]

RELATIVE = 1e-4  # float32 kernels against float64
ROUNDING = 4e-6  # error of a distance in units of |q| |x|, if it is a difference of larger numbers


@dataclass
class Model:
    """The public calls over a dict. Ids are as given, or the next integers after the largest ever stored."""

    dim: int
    metric: Metric = "l2"
    rows: dict[Id, tuple[Vector, Payload | None]] = field(default_factory=dict)
    next_id: int = 0

    def add(
        self,
        vectors: npt.ArrayLike,
        ids: Sequence[Id] | None = None,
        payloads: Sequence[Payload | None] | None = None,
        on_conflict: OnConflict = "replace",
    ) -> tuple[list[Id], int, int, int]:
        """Store a batch; returns its ids and the numbers added, replaced and skipped. KeyError: nothing was stored."""
        x = np.asarray(vectors, np.float64).reshape(-1, self.dim)
        names: list[Id] = list(range(self.next_id, self.next_id + len(x))) if ids is None else list(ids)
        taken = [i in self.rows for i in names]
        if on_conflict == "error" and any(taken):
            raise KeyError(names[taken.index(True)])
        payloads = [None] * len(x) if payloads is None else payloads
        for name, vector, value, known in zip(names, x, payloads, taken, strict=True):
            if not (known and on_conflict == "skip"):
                self.rows[name] = (vector, in_utc(value))
                self.next_id = max(self.next_id, name + 1) if isinstance(name, int) else 0
        replaced, skipped = (0, sum(taken)) if on_conflict == "skip" else (sum(taken), 0)
        return names, len(x) - sum(taken), replaced, skipped

    def delete(self, ids: Sequence[Id]) -> int:
        return sum(self.rows.pop(i, None) is not None for i in dict.fromkeys(ids))

    def update_payloads(self, ids: Sequence[Id], payload: Payload | None, merge: bool) -> int:
        """Change the payloads of stored ids; returns the number of ids that are stored."""
        found = [i for i in ids if i in self.rows]
        for i in found:
            vector, old = self.rows[i]
            self.rows[i] = (vector, in_utc(merged(old, payload) if merge else payload))
        return len(found)

    def matching(self, where: dict[str, Any]) -> Model:
        """A model of the vectors that match a filter."""
        rows = {i: row for i, row in self.rows.items() if matches(row[1], where)}
        return Model(self.dim, self.metric, rows, self.next_id)

    def copy(self) -> Model:
        """An independent copy."""
        return replace(self, rows=dict(self.rows))

    def distances(self, query: npt.ArrayLike) -> dict[Id, float]:
        """Distance of every stored vector: squared Euclidean, -dot, or 1 - cos."""
        return dict(zip(self.rows, self._distances(np.asarray(query, np.float64)).tolist(), strict=True))

    def tolerance(self, query: npt.ArrayLike) -> float:
        """The rounding error of a distance near zero."""
        if self.metric == "cosine" or not self.rows:
            return ROUNDING
        return ROUNDING * max(1e-12, float(np.linalg.norm(query)) + self._longest()) ** 2

    def _longest(self) -> float:
        return float(np.linalg.norm(self._matrix(), axis=1).max())

    def _matrix(self) -> Vector:
        return np.array([vector for vector, _ in self.rows.values()]).reshape(-1, self.dim)

    def _distances(self, query: Vector) -> Vector:
        x = self._matrix()
        if self.metric == "l2":
            return np.asarray(((x - query) ** 2).sum(axis=1))
        dots = x @ query
        if self.metric == "ip":
            return np.asarray(-dots)
        return np.asarray(1 - dots / (np.linalg.norm(x, axis=1) * np.linalg.norm(query)))


def in_utc(value: Any) -> Any:
    """A payload as it is read: datetimes without a zone in UTC, tuples as lists."""
    if isinstance(value, dict):
        return {name: in_utc(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [in_utc(item) for item in value]
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def merged(old: Payload | None, change: Payload | None) -> Payload | None:
    """A payload with some keys changed; those changed to None are left out."""
    if change is None:
        return old
    both = {**(old or {}), **change}
    return {name: value for name, value in both.items() if not (name in change and value is None)}


def assert_hits_are_exact(model: Model, queries: npt.ArrayLike, k: int, hits: Hits | BatchHits) -> None:
    """The hits are the k nearest, each with its distance. Any of several vectors at one distance may be a hit."""
    assert_hits_are_sound(model, queries, k, hits)
    for query, found, count in zip(np.atleast_2d(queries), np.atleast_2d(hits.distances), _counts(hits), strict=True):
        true = sorted(model.distances(query).values())[:k]
        assert count == len(true)
        np.testing.assert_allclose(found[:count], true, rtol=RELATIVE, atol=model.tolerance(query))


def assert_hits_are_sound(
    model: Model, queries: npt.ArrayLike, k: int, hits: Hits | BatchHits, error: float = 0.0
) -> None:
    """Ids are live and unique, nearest first, with the right payloads, and distances within a share ``error`` of |q|
    |x|; places without a hit are padded.
    """
    assert hits.ids.shape == hits.distances.shape == hits.scores.shape
    assert hits.ids.shape == ((k,) if np.ndim(queries) == 1 else (np.shape(queries)[0], k))
    assert np.shape(hits.counts) == hits.ids.shape[:-1]
    lines = zip(np.atleast_2d(queries), np.atleast_2d(hits.ids), np.atleast_2d(hits.distances), strict=True)
    for row, (query, ids, distances) in enumerate(lines):
        count = _counts(hits)[row]
        _assert_line(model, query, ids[:count].tolist(), distances[:count], error)
        assert all(i in (-1, "") for i in ids[count:].tolist())
        assert np.isposinf(distances[count:]).all()
    _assert_scores(model, hits)
    _assert_payloads(model, hits)


def _counts(hits: Hits | BatchHits) -> list[int]:
    counts: list[int] = np.atleast_1d(hits.counts).tolist()
    return counts


def _assert_line(model: Model, query: Any, ids: list[Id], distances: Float32, error: float) -> None:
    assert len(set(ids)) == len(ids)
    assert (np.diff(distances) >= 0).all()
    true = model.distances(query)
    assert all(i in true for i in ids), "a hit is not stored"
    atol = model.tolerance(query) * (1 + error / ROUNDING)
    np.testing.assert_allclose(distances, [true[i] for i in ids], rtol=RELATIVE, atol=atol)


def _assert_scores(model: Model, hits: Hits | BatchHits) -> None:
    found = np.isfinite(hits.distances)
    expected = 1 - hits.distances[found] if model.metric == "cosine" else -hits.distances[found]
    np.testing.assert_allclose(hits.scores[found], expected, rtol=1e-6, atol=1e-6)
    assert np.isneginf(hits.scores[~found]).all()


def _assert_payloads(model: Model, hits: Hits | BatchHits) -> None:
    if "payloads" not in hits.included:
        return
    lines: Any = [hits.payloads] if isinstance(hits, Hits) else hits.payloads
    for ids, payloads in zip(np.atleast_2d(hits.ids).tolist(), lines, strict=True):
        assert payloads == [None if i in (-1, "") else model.rows[i][1] for i in ids]


def assert_same_content(db: Collection, model: Model, error: float = 0.0) -> None:
    """Length, scan, get and membership agree with the model; vectors within a share ``error`` of their length."""
    assert len(db) == len(model.rows)
    seen: dict[Id, tuple[Float32, Payload | None]] = {}
    for batch in db.scan(batch_size=7):
        assert len(batch.ids) == len(batch.vectors) == len(batch.payloads) <= 7
        for name, vector, payload in zip(batch.ids.tolist(), batch.vectors, batch.payloads, strict=True):
            assert name not in seen
            seen[name] = vector, payload
    assert seen.keys() == model.rows.keys()
    for name, (vector, payload) in seen.items():
        assert payload == model.rows[name][1]
        assert_vector(vector, model.rows[name][0], error)
    names = list(model.rows)
    records = db.get(names)
    assert records.ids.tolist() == names
    assert records.payloads == [payload for _, payload in model.rows.values()]
    assert all(name in db for name in names)


def assert_vector(found: Float32, expected: Vector, error: float = 0.0) -> None:
    """Equal if ``error`` is 0, else within that share of the length."""
    assert found.dtype == np.float32
    assert float(np.linalg.norm(found - expected)) <= error * float(np.linalg.norm(expected))
