"""Recency: scores with a decay, against the formula computed from the payloads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import Collection, InputError
from qvec.rows import expiry

NOW = datetime(2030, 1, 1, tzinfo=UTC)
N, DIM = 300, 8
X = clustered(np.random.default_rng(7), N, DIM)
DAYS = [None if i % 5 == 0 else (i * 37) % 60 - 5 for i in range(N)]


@pytest.fixture(params=["cosine", "ip", "l2"])
def db(request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    monkeypatch.setattr(expiry, "clock", lambda: int(NOW.timestamp() * 1e9))
    fields: dict[str, Any] = {"at": "datetime", "text": "text", "kind": "keyword"}
    with qvec.create(path, DIM, metric=request.param, fields=fields, code="f32") as made:
        held = [
            {"at": None if days is None else NOW - timedelta(days=days), "text": f"a{i % 9} b", "kind": "uv"[i % 2]}
            for i, days in enumerate(DAYS)
        ]
        made.add(X, payloads=held)
        yield made


def decay(id: int, half_life: float) -> float:
    days = DAYS[id]
    return 0.0 if days is None else float(2 ** (-max(days, 0) / half_life))


@pytest.mark.parametrize("weight", [None, 0.2, 1, 0])
def test_scores_are_combined_with_a_decay(db: Collection, weight: float | None) -> None:
    near = db.search(X[3], 100)
    scaled = (near.scores - near.scores[-1]) / (near.scores[0] - near.scores[-1])
    w = 0.5 if weight is None else weight
    totals = np.array([(1 - w) * s + w * decay(int(id), 7) for id, s in zip(near.ids, scaled, strict=True)])
    best = np.argsort(-totals, kind="stable")[:10]
    found = db.search(X[3], 10, boost={"at": ("decay", "7d") if weight is None else ("decay", "7d", weight)})
    np.testing.assert_allclose(found.scores, totals[best], rtol=1e-5, atol=1e-6)
    assert len(set(found.ids.tolist()) & set(near.ids[best].tolist())) >= 9  # equal totals can change places
    for hit in found:
        assert hit.parts["decay"] == pytest.approx(decay(hit.id, 7), rel=1e-6)
        assert hit.parts["vector"] == pytest.approx(float(near.scores[near.ids.tolist().index(hit.id)]), rel=1e-6)


def test_a_boost_goes_with_text_filters_pages_and_batches(db: Collection) -> None:
    boost = {"at": ("decay", timedelta(days=2))}
    found = db.search(text="a3", k=5, boost=boost)  # type: ignore[arg-type]
    decays = [decay(int(id), 2) for id in found.ids]
    assert decays == sorted((decay(i, 2) for i in range(N) if i % 9 == 3), reverse=True)[:5]
    assert sorted(found[0].parts) == ["decay", "text"]
    both = db.search(X[3], 5, text="a3", boost=boost)  # type: ignore[call-overload]
    assert sorted(both[0].parts) == ["decay", "text", "vector"]
    batch = db.search(X[:3], 6, boost=boost, where={"kind": "v"})  # type: ignore[call-overload]
    assert all(id % 2 for id in batch.ids.reshape(-1).tolist())
    for query, hits in zip(X[:3], batch, strict=True):
        alone = db.search(query, 6, boost=boost, where={"kind": "v"})  # type: ignore[call-overload]
        np.testing.assert_allclose(alone.scores, hits.scores, rtol=1e-5)
    page = db.search(X[0], 3, boost=boost, offset=3)  # type: ignore[call-overload]
    np.testing.assert_allclose(page.scores, db.search(X[0], 6, boost=boost).scores[3:], rtol=1e-5)  # type: ignore[call-overload]


def test_wrong_boosts_are_refused(db: Collection) -> None:
    for boost, message in [
        ("at", "boost must name one field"),
        ({}, "boost must name one field"),
        ({"kind": ("decay", "7d")}, "must name a field of type datetime, got 'kind'; such fields are: at"),
        ({"at": "7d"}, r"must be \(\"decay\", half-life\)"),
        ({"at": ("linear", "7d")}, r"must be \(\"decay\", half-life\)"),
        ({"at": ("decay", "7")}, "the half-life must be a time above zero"),
        ({"at": ("decay", "0d")}, "the half-life must be a time above zero"),
        ({"at": ("decay", timedelta(0))}, "the half-life must be a time above zero"),
        ({"at": ("decay", "9999999999999w")}, "the half-life must be a time above zero"),
        ({"at": ("decay", "7d", 2)}, "the weight must be a number from 0 to 1, got 2"),
    ]:
        with pytest.raises(InputError, match=message):
            db.search(X[0], 3, boost=boost)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="give query, text or sparse"):
        db.search(boost={"at": ("decay", "7d")})
    with pytest.raises(InputError, match="max_distance"):
        db.search(X[0], 3, boost={"at": ("decay", "7d")}, max_distance=1.0)
