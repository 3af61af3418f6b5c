"""Searches of sets of shards by text, sparse vectors and vectors find what one collection with all rows finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.text_model import random_texts
from qvec import shards
from qvec.text.statistics import FieldCounts, TextStatistics

N, DIM = 600, 8
TEXTS = [" ".join(words) for words in random_texts(N, 80, 12, 3)]
RNG = np.random.default_rng(6)
X = RNG.standard_normal((N, DIM)).astype(np.float32)
SPARSE = [
    dict(zip(RNG.choice(40, 5, replace=False).tolist(), RNG.gamma(2, 1, 5).tolist(), strict=True)) for _ in range(N)
]
MORE = SPARSE[1:] + SPARSE[:1]
FIELDS: Any = {"body": "text", "title": "text", "lexical": "sparse", "more": "sparse", "n": "int"}
BOUNDS = (0, 40, 300, 310, N)  # shards of very different sizes, so that their own document counts differ
ASKED = ["w1 w7 w30", "w2", "title3 w11"]


def payload(i: int) -> dict[str, Any]:
    lexical, more = ([[*row], [*row.values()]] for row in (SPARSE[i], MORE[i]))
    return {"body": TEXTS[i], "title": f"title{i % 9}", "n": i % 10, "lexical": lexical, "more": more}


@pytest.fixture(scope="module")
def one(tmp_path_factory: Any) -> Iterator[qvec.Collection]:
    path = tmp_path_factory.mktemp("one") / "a.qvec"
    with qvec.create(path, DIM, fields=FIELDS, index="flat", code="f32") as db:
        db.add(X, payloads=[payload(i) for i in range(N)])
        yield db


@pytest.fixture(scope="module", params=["index", "set"])
def many(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("many")
    rows = [range(start, stop) for start, stop in itertools.pairwise(BOUNDS)]
    if request.param == "index":
        paths = [folder / f"{number}.qvec" for number in range(len(rows))]
        for path, part in zip(paths, rows, strict=True):
            with qvec.create(path, DIM, fields=FIELDS, index="flat", code="f32") as db:
                db.add(X[part], list(part), payloads=[payload(i) for i in part])
        with qvec.ShardedIndex(paths) as index:
            yield index
        return
    shards.create(folder / "s", DIM, fields=FIELDS, index="flat", code="f32")
    blocks = [
        shards.write_block(folder / "s", f"b{part.start:04}", X[part], list(part), [payload(i) for i in part])
        for part in rows
    ]
    shards.commit(folder / "s", blocks)
    with shards.open(folder / "s", "r") as opened:
        yield opened


INPUTS: list[dict[str, Any]] = [
    {"text": ASKED},
    {"text": ASKED, "text_weights": {"title": 3.0}},
    {"text": ASKED, "where": {"n": {"$lt": 4}}},
    {"text": ASKED, "where": [{"n": 1}, None, {"n": 3}], "offset": 3},
    {"sparse": {"lexical": SPARSE[:3]}, "oversample": 0},
    {"sparse": {"lexical": SPARSE[:3], "more": MORE[:3]}, "oversample": 0},
    {"query": X[:3] + 0.1, "text": ASKED},
    {"query": X[:3] + 0.1, "text": ASKED, "fusion": {"vector": 0.3, "text": 0.7}, "offset": 2},
    {"query": X[:3] + 0.1, "text": ASKED, "sparse": {"lexical": SPARSE[:3]}, "fusion": "weighted", "fusion_depth": 30},
    {"query": X[:3] + 0.1, "text": ASKED, "where": {"n": {"$lt": 4}}, "include": ("payloads", "vectors")},
]


@pytest.mark.parametrize("options", INPUTS)
def test_shards_find_what_one_collection_finds(one: qvec.Collection, many: Any, options: dict[str, Any]) -> None:
    query = options.get("query")
    rest = {name: value for name, value in options.items() if name != "query"}
    expected, found = one.search(query, 9, **rest), many.search(query, 9, **rest)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-2 if "sparse" in rest else 1e-5)
    assert found.counts.tolist() == expected.counts.tolist()
    if "sparse" not in rest:  # weights are rounded by list, so that the lists of shards differ
        assert [set(row) for row in found.ids.tolist()] == [set(row) for row in expected.ids.tolist()]
    for name, part in found.parts.items():
        assert np.isfinite(part).any(), name
    for row, ids, numbers in zip(found.payloads, found.ids.tolist(), found.shards.tolist(), strict=True):
        assert [p["body"] for p in row if p] == [TEXTS[i] for i in ids if i >= 0]
        assert numbers == [-1 if i < 0 else int(np.searchsorted(BOUNDS, i, "right")) - 1 for i in ids]
    if "vectors" in options.get("include", ()):
        np.testing.assert_array_equal(found.vectors[0], X[found.ids[0]])


def test_one_query_has_one_list_of_hits(one: qvec.Collection, many: Any) -> None:
    for options in ({"text": "w1 w7"}, {"sparse": {"lexical": SPARSE[3]}, "oversample": 0}):
        expected, found = one.search(k=5, **options), many.search(k=5, **options)
        assert isinstance(found, qvec.Hits)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-2)
    both = many.search(X[0], 5, text="w1 w7")
    assert both.ids.shape == (5,)
    assert set(both[0].parts) == {"vector", "text"}
    np.testing.assert_allclose(both.scores, one.search(X[0], 5, text="w1 w7").scores, rtol=1e-5)


def test_scores_of_shards_alone_would_differ(one: qvec.Collection, many: Any) -> None:
    shard = next(iter(many.shards() if callable(many.shards) else many.shards))
    alone, together = shard.search(text="w1 w7"), many.search(text="w1 w7", k=N)
    scores = dict(zip(together.ids.tolist(), together.scores.tolist(), strict=True))
    assert not np.allclose(alone.scores[0], scores[int(alone.ids[0])], rtol=1e-2)
    parts = [own.text_statistics(["w1 w7"]) for own in (many.shards() if callable(many.shards) else many.shards)]
    counts = shard.search(text="w1 w7", statistics=TextStatistics.sum(parts))
    np.testing.assert_allclose(counts.scores, [scores[i] for i in counts.ids.tolist()], rtol=1e-5)
    assert TextStatistics.sum(parts) == one.text_statistics(["w1 w7"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "a", "highlight": True}, "highlight is for a search of one collection"),
        ({"text": "a", "mmr": 0.5}, "mmr is for a search of one collection"),
        ({"fusion": "rrf"}, "give text or sparse"),
        ({"text": 5}, "text must be a string"),
        ({"query": X[:2], "text": "a"}, "a list of strings for a batch"),
        ({"query": X[:2], "text": ["a"]}, "there are 2 queries, and 1 of text"),
        ({"text": "a", "fusion": "rrf"}, "fusion joins two inputs"),
        ({"text": "a", "statistics": 5}, "counts documents itself"),
        ({"text": "a", "text_weights": {"lead": 1}}, "no text field"),
    ],
)
def test_wrong_searches_are_refused(many: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        many.search(options.get("query"), **{name: value for name, value in options.items() if name != "query"})


@pytest.mark.parametrize(
    ("value", "message"),
    [(5, "must be TextStatistics of body, title"), (TextStatistics({}), "must be TextStatistics of body, title")],
)
def test_wrong_statistics_are_refused(one: qvec.Collection, value: Any, message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        one.search(text="w1", statistics=value)
    with pytest.raises(qvec.InputError, match="give text="):
        one.search(sparse={"lexical": SPARSE[0]}, statistics=value)
    with pytest.raises(qvec.InputError, match="3 rows with a term, 2 rows"):
        FieldCounts(2, 9, {b"a": 3})
    with pytest.raises(qvec.InputError, match="different text fields"):
        TextStatistics.sum([TextStatistics({}), one.text_statistics(["w1"])])


def test_relevance_is_not_measured_on_a_sample_of_shards(many: Any) -> None:
    if not hasattr(many, "evaluate"):
        pytest.skip("only sets of shards are evaluated")
    with pytest.raises(qvec.InputError, match="relevant is for an evaluation of one collection"):
        many.evaluate(X[:3], relevant=[1, 2, 3])


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    shards.create(folder, DIM, fields=FIELDS)
    blocks = [
        shards.write_block(folder, f"b{i:04}", X[i : i + 50], range(i, i + 50), [payload(j) for j in range(i, i + 50)])
        for i in (0, 50)
    ]
    shards.commit(folder, blocks)
    with shards.open(folder, "r") as opened:
        gone = opened.names[1]
        (folder / gone).unlink()
        with pytest.raises(qvec.MissingShardError, match=gone):
            opened.search(text="w1")
        found = opened.search(X[0], 5, text="w1", partial=True)
        assert found.missing == (gone,)
        assert all(i < 50 for i in found.ids.tolist())
