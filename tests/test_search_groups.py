"""Searches by groups and with a filter for each query, compared with float64 brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.common.types import Metric

N, DIM = 400, 12
RNG = np.random.default_rng(8)
DOCS = np.concatenate([np.zeros(150, int), RNG.integers(1, 40, N - 150)])  # one document is most of the rows
X = (RNG.normal(size=(N, DIM)) + 0.2 + 0.4 * RNG.normal(size=(40, DIM))[DOCS]).astype(np.float32)
Q = np.concatenate([X[:2], RNG.normal(size=(2, DIM)).astype(np.float32)])
LANGS = ["de", "en", "fr"]
DELETED, HOMELESS = [5, 160, 399], [170, 171]  # the latter are in no group
METRICS: list[Metric] = ["cosine", "ip", "l2"]


def payload(i: int) -> dict[str, Any]:
    own = {} if i in HOMELESS else {"doc": int(DOCS[i])}
    return own | {"lang": LANGS[i % 3], "when": f"2024-01-{1 + DOCS[i] % 28:02d}", "weight": float(DOCS[i]) / 4}


@pytest.fixture(params=[(m, index) for m in METRICS for index in ("flat", "hnsw")], ids=str)
def db(request: pytest.FixtureRequest, path: Path) -> Any:
    metric, index = request.param
    fields: dict[str, Any] = {
        "doc": "int",
        "lang": "keyword",
        "when": "datetime",
        "weight": "float",
        "tags": "keyword[]",
    }
    with qvec.create(path, DIM, metric=metric, index=index, fields=fields) as db:
        db.add(X, np.arange(N), [payload(i) for i in range(N)])
        db.delete(DELETED)
        yield db


def distances(db: qvec.Collection, q: Any) -> Any:
    x, q = X.astype(np.float64), np.asarray(q, np.float64)
    if db.stats().metric == "l2":
        return ((x - q) ** 2).sum(axis=1)
    if db.stats().metric == "ip":
        return -(x @ q)
    return 1 - (x @ q) / (np.linalg.norm(x, axis=1) * np.linalg.norm(q))


def grouped(db: qvec.Collection, q: Any, k: int, size: int, field: str = "doc", **limits: Any) -> Any:
    """Groups by their nearest row: (value, rows), by the definition."""
    far = distances(db, q)
    groups: dict[Any, list[int]] = {}
    for i in np.argsort(far, kind="stable").tolist():
        held, lang = payload(i).get(field), payload(i)["lang"]
        allowed = i not in DELETED and i != limits.get("own") and limits.get("lang", lang) == lang
        if allowed and held is not None and far[i] <= limits.get("max_distance", np.inf):
            groups.setdefault(held, []).append(i)
    start = limits.get("offset", 0)
    return [(value, rows[:size]) for value, rows in list(groups.items())[start : start + k]], far


def assert_groups(hits: qvec.Hits, expected: Any, k: int, size: int) -> None:
    groups, far = expected
    ids = [i for _, rows in groups for i in rows]
    assert hits.ids.shape == (k * size,)
    assert int(hits.counts) == len(ids)
    assert hits.ids.tolist() == ids + [-1] * (k * size - len(ids))
    assert hits.groups == [value for value, rows in groups for _ in rows] + [None] * (k * size - len(ids))
    np.testing.assert_allclose(hits.distances[: len(ids)], far[ids], rtol=1e-4, atol=1e-5)
    assert np.isposinf(hits.distances[len(ids) :]).all()
    assert hits.payloads == [payload(i) for i in ids] + [None] * (k * size - len(ids))
    assert [hit["group"] for hit in hits.to_list()] == hits.groups[: len(ids)]


@pytest.mark.parametrize(("k", "size"), [(1, 1), (5, 1), (3, 4), (10, 2), (50, 1), (60, 7)])
def test_groups_are_those_of_brute_force(db: qvec.Collection, k: int, size: int) -> None:
    for q in Q:
        hits = db.search_groups(q, k, group_by="doc", group_size=size, ef=N)
        assert_groups(hits, grouped(db, q, k, size), k, size)
    batch = db.search_groups(Q, k, group_by="doc", group_size=size, ef=N)
    singles = [db.search_groups(q, k, group_by="doc", group_size=size, ef=N) for q in Q]
    assert batch.ids.tolist() == [hits.ids.tolist() for hits in singles]
    assert batch.groups == [hits.groups for hits in singles]
    assert batch.counts.tolist() == [int(hits.counts) for hits in singles]


@pytest.mark.parametrize("field", ["lang", "when", "weight"])
def test_fields_of_every_type_that_is_one_value_group(db: qvec.Collection, field: str) -> None:
    for q in Q[:2]:
        hits = db.search_groups(q, 4, group_by=field, group_size=3, ef=N)
        assert_groups(hits, grouped(db, q, 4, 3, field), 4, 3)


def test_groups_go_with_filters_radius_offset_and_ids(db: qvec.Collection) -> None:
    q = Q[2]
    options: dict[str, Any] = {"group_by": "doc", "group_size": 2, "ef": N}
    assert_groups(db.search_groups(q, 3, where={"lang": "de"}, **options), grouped(db, q, 3, 2, lang="de"), 3, 2)
    assert_groups(db.search_groups(q, 3, offset=2, **options), grouped(db, q, 3, 2, offset=2), 3, 2)
    max_distance = float(np.sort(distances(db, q))[9:11].mean())
    assert_groups(
        db.search_groups(q, 8, max_distance=max_distance, **options),
        grouped(db, q, 8, 2, max_distance=max_distance),
        8,
        2,
    )
    exact = db.search_groups(q, 3, group_by="doc", group_size=2, exact=True, include=["payloads", "vectors"])
    assert_groups(exact, grouped(db, q, 3, 2), 3, 2)
    np.testing.assert_array_equal(exact.vectors[: int(exact.counts)], X[exact.ids[: int(exact.counts)]])
    assert db.search_groups(q, 3, include=("payloads", "explanation"), **options).explanation.queries == 1


def test_times_that_are_written_differently_are_one_group(path: Path) -> None:
    with qvec.create(path, DIM, fields={"when": "datetime"}) as db:
        whens = ["2024-01-01", "2024-01-01T00:00:00+00:00", "2024-01-02"]
        db.add(X[:3], payloads=[{"when": when} for when in whens])
        hits = db.search_groups(X[0], 5, group_by="when", group_size=2)
        assert sorted(hits.ids[:3].tolist()) == [0, 1, 2]
        assert int(hits.counts) == 3
        assert len(set(hits.groups)) == 3  # two groups, and None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": "color"}, "group_by names a declared field, got 'color'; declared are: doc, lang, tags"),
        ({"group_by": 7}, "group_by must be the name of a declared field, got 7"),
        ({"group_by": "tags"}, "'tags' holds lists"),
        ({"group_by": "doc", "group_size": 0}, "group_size must be an integer from 1 to"),
        ({"group_by": "doc", "group_size": 200_000}, "group_size must be an integer from 1 to 100000"),
        ({"where": [{"lang": "de"}]}, "got 1 for one query"),
        ({"where": [{"lang": "de"}, {"color": "red"}]}, "got 2 for one query"),
    ],
)
def test_bad_groupings_are_named(path: Path, options: dict[str, Any], message: str) -> None:
    with qvec.create(path, DIM, fields={"doc": "int", "lang": "keyword", "tags": "keyword[]"}) as db:
        db.add(X[:5], payloads=[payload(i) for i in range(5)])
        with pytest.raises(qvec.InputError, match=message):
            (db.search_groups if "group_by" in options else db.search)(Q[0], **options)
        with pytest.raises(qvec.InputError, match="color"):
            db.search(Q[:2], where=[None, {"color": "red"}])


def test_an_empty_collection_has_no_groups(path: Path) -> None:
    with qvec.create(path, DIM, fields={"doc": "int"}) as db:
        hits = db.search_groups(Q, 3, group_by="doc", group_size=2)
        assert (hits.ids.shape, hits.counts.tolist(), hits.groups) == ((4, 6), [0] * 4, [[None] * 6] * 4)


# --- a filter for each query ---


def test_each_query_of_a_batch_can_have_its_own_filter(db: qvec.Collection) -> None:
    filters: list[Any] = [{"lang": "de"}, None, {"lang": "de"}, {"doc": {"$lt": 0}}]
    for options in ({}, {"offset": 2}, {"include": ["vectors"]}, {"include": ["explanation"]}, {"mmr": 0.5}):
        hits = db.search(Q, 6, where=filters, ef=N, **options)
        singles = [db.search(q, 6, where=one, ef=N, **options) for q, one in zip(Q, filters, strict=True)]
        assert hits.ids.tolist() == [single.ids.tolist() for single in singles]
        np.testing.assert_array_equal(hits.distances, [single.distances for single in singles])
        assert hits.counts.tolist() == [int(single.counts) for single in singles]
        assert hits.counts.tolist()[3] == 0
    far = distances(db, Q[0])
    live = [i for i in np.argsort(far).tolist() if i not in DELETED and i % 3 == 0]
    assert db.search(Q, 6, where=filters, ef=N).ids[0].tolist() == live[:6]
    groups = db.search_groups(Q, 2, where=filters, group_by="doc", ef=N)
    assert groups.ids[0].tolist() == db.search_groups(Q[0], 2, where=filters[0], group_by="doc", ef=N).ids.tolist()
    by_id = db.search_by_id([0, 1], k=3, where=[{"lang": "en"}, None], ef=N)
    assert all(i % 3 == 1 for i in by_id.ids[0].tolist())


def test_groups_can_have_long_values(tmp_path: Path) -> None:
    """The values of the groups that were found before are excluded; they do not count as the caller's filter."""
    n = 160
    x = np.random.default_rng(1).normal(size=(n, 8)).astype(np.float32)
    with qvec.create(tmp_path / "s.qvec", 8, fields={"text": "keyword"}) as db:
        db.add(np.repeat(x, 3, axis=0), payloads=[{"text": f"{i // 3} " + "x" * 60_000} for i in range(3 * n)])
        hits = db.search_groups(x[0], 120, group_by="text", group_size=1)
        assert len(set(hits.groups)) == len(hits.ids) == 120
