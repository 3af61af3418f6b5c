"""Relevance of searches: measures against their definitions, intervals, and the fusion that is tuned and stored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.quality.relevance import MEASURES, bootstrap, figures, intervals

DIM, N, WORDS = 8, 300, 120
RNG = np.random.default_rng(2)
X = RNG.standard_normal((N, DIM)).astype(np.float32)
TEXTS = [" ".join(f"w{word}" for word in RNG.choice(WORDS, 8)) for _ in range(N)]
RELEVANT = RNG.permutation(N)[:100].tolist()
QUERIES = X[RELEVANT] + RNG.normal(0, 1.2, (100, DIM)).astype(np.float32)
ASKED = [" ".join(RNG.choice(TEXTS[i].split(), 2)) for i in RELEVANT]


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with qvec.create(tmp_path / "a.qvec", DIM, fields={"body": "text"}, index="flat", code="f32") as made:
        made.add(X, payloads=[{"body": text} for text in TEXTS])
        yield made


def plain_measures(ranked: list[int], grades: dict[int, float], k: int) -> list[float]:
    gains = [grades.get(row, 0) for row in ranked[:k]]
    dcg = sum(gain / math.log2(i + 2) for i, gain in enumerate(gains))
    best = sum(gain / math.log2(i + 2) for i, gain in enumerate(sorted(grades.values(), reverse=True)[:k]))
    ranks = [i + 1 for i, gain in enumerate(gains) if gain]
    return [dcg / best, len(ranks) / len(grades), 1 / ranks[0] if ranks else 0, float(bool(ranks))]


def test_measures_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(0)
    ranked = [rng.permutation(30)[: rng.integers(0, 15)] for _ in range(50)]
    grades = [{int(row): float(rng.integers(1, 4)) for row in rng.permutation(30)[:5]} for _ in range(50)]
    found = figures(ranked, grades, 10)
    expected = [plain_measures(rows.tolist(), wanted, 10) for rows, wanted in zip(ranked, grades, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_intervals_of_a_bootstrap_are_those_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3, 2, (2000, 2))
    values[:, 1] = values[:, 0] + 0.5
    (mean, low, high), _ = intervals(values, 0)
    assert mean == pytest.approx(values[:, 0].mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values[:, 0].std() / math.sqrt(2000), rel=0.1)
    difference = bootstrap(values[:, 1:] - values[:, :1], 0)  # paired: it is the same for every query
    np.testing.assert_allclose(np.ravel(difference), 0.5)
    assert intervals(values, 0) == intervals(values, 0) != intervals(values, 1)


def test_an_evaluation_has_the_measures_of_what_a_search_finds(db: qvec.Collection) -> None:
    report = db.evaluate(QUERIES, 5, texts=ASKED, relevant=RELEVANT, fusion={"vector": 0.3, "text": 0.7})
    searches = {
        "vector": db.search(QUERIES, 5),
        "text": db.search(text=ASKED, k=5),
        "fused": db.search(QUERIES, 5, text=ASKED, fusion={"vector": 0.3, "text": 0.7}),
    }
    single = {}
    for name, hits in searches.items():
        values = np.array(
            [plain_measures(hits.ids[i, : hits.counts[i]].tolist(), {RELEVANT[i]: 1}, 5) for i in range(100)]
        )
        single[name] = values.mean(0)
        for measure, mean in zip(MEASURES, single[name], strict=True):
            interval = getattr(report[name], measure)
            assert interval.mean == pytest.approx(mean)
            assert interval.low < interval.mean < interval.high
    for i, measure in enumerate(MEASURES):
        gain = getattr(report["fused"], f"gain_{measure}")
        assert gain.mean == pytest.approx(single["fused"][i] - max(single["vector"][i], single["text"][i]))
    assert report["text"].gain_mrr is None
    assert [row["search"] for row in report.to_dicts()] == ["vector", "text", "fused"]
    assert "gain" in str(report)
    with pytest.raises(KeyError):
        report["sparse"]


def test_relevant_ids_have_grades_and_may_be_missing(db: qvec.Collection) -> None:
    hits = db.search(text=ASKED[:1], k=5).ids[0]
    graded = {int(hits[1]): 2, int(hits[3]): 1, 10_000: 3, 5: 0}
    report = db.evaluate(k=5, texts=ASKED[:1], relevant=[graded])
    expected = plain_measures(hits.tolist(), {int(hits[1]): 2, int(hits[3]): 1, 10_000: 3}, 5)
    assert [getattr(report["text"], name).mean for name in MEASURES] == pytest.approx(expected)
    assert [row.search for row in report.rows] == ["text"]
    several = db.evaluate(k=5, texts=ASKED[:4], relevant=[hits[:2], {int(hits[0])}, hits[3], np.array([hits[1]])])
    assert several.n_queries == 4
    assert db.evaluate(k=5, texts=ASKED[:2], relevant=np.array(RELEVANT[:2]))["text"].hit.mean >= 0
    assert report.fusion is None


def test_ids_may_be_strings(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, fields={"body": "text"}, ids="str") as made:
        made.add(X, [f"x{i}" for i in range(N)], [{"body": text} for text in TEXTS])
        made.delete(["x0"])
        report = made.evaluate(X[5:10], 3, texts=TEXTS[5:10], relevant=[f"x{i}" for i in range(5, 10)])
        assert report["vector"].mrr.mean == report["fused"].hit.mean == 1
        assert made.evaluate(X[:1], 3, relevant=[["x0"]])["vector"].hit.mean == 0
        with pytest.raises(qvec.InputError, match="ids are strings"):
            made.evaluate(X[:1], 3, relevant=[[0]])


def test_a_tuned_fusion_is_stored_and_is_the_default_of_searches(db: qvec.Collection) -> None:
    choice = db.tune_fusion(QUERIES, texts=ASKED, relevant=RELEVANT, measure="mrr", fusion_depth=40)
    assert choice.fusion != "rrf"
    assert choice.report.n_queries == 50
    assert choice.proved == (choice.report["fused"].gain_mrr.low > 0)
    weights = dict(choice.fusion)
    assert db.fusions == (choice.tuned,)
    assert db.fusions[0].fusion == weights
    before = db.search(QUERIES, 10, text=ASKED)
    with qvec.open(db.path, mode="r") as other:
        found = other.search(QUERIES, 10, text=ASKED)
        given = other.search(QUERIES, 10, text=ASKED, fusion=weights, fusion_depth=40)
        ranks = other.search(QUERIES, 10, text=ASKED, fusion="rrf")
        assert other.evaluate(QUERIES, texts=ASKED, relevant=RELEVANT).fusion == weights
    np.testing.assert_array_equal(found.ids, given.ids)
    np.testing.assert_array_equal(found.scores, given.scores)
    np.testing.assert_array_equal(found.ids, before.ids)
    assert ranks.ids.tolist() != found.ids.tolist()
    deeper = db.search(QUERIES, 10, text=ASKED, fusion_depth=100)
    np.testing.assert_array_equal(deeper.ids, db.search(QUERIES, 10, text=ASKED, fusion=weights, fusion_depth=100).ids)
    assert db.verify() == []


def test_the_chosen_weights_are_those_that_are_best_on_the_first_half(db: qvec.Collection) -> None:
    choice = db.tune_fusion(QUERIES, texts=ASKED, relevant=RELEVANT, seed=3)
    first = np.sort(np.random.default_rng(3).permutation(100)[:50])
    kept = [RELEVANT[i] for i in first], [ASKED[i] for i in first]
    tried: list[Any] = ["rrf", *({"vector": i / 20, "text": 1 - i / 20} for i in range(21))]
    scores = {}
    for fusion in tried:
        report = db.evaluate(QUERIES[first], texts=kept[1], relevant=kept[0], fusion=fusion)
        scores[str(fusion)] = report["fused"].ndcg.mean
    own = db.evaluate(QUERIES[first], texts=kept[1], relevant=kept[0], fusion=choice.fusion)
    assert own["fused"].ndcg.mean == pytest.approx(max(scores.values()))


def test_a_useless_input_gets_no_weight(db: qvec.Collection) -> None:
    noise = np.random.default_rng(9).standard_normal((100, DIM)).astype(np.float32)
    choice = db.tune_fusion(noise, texts=[TEXTS[i] for i in RELEVANT], relevant=RELEVANT)
    assert choice.fusion["text"] > 0.5  # type: ignore[index]
    assert not choice.proved
    assert choice.tuned.gain <= 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ASKED}, "give relevant="),
        ({"relevant": RELEVANT}, "give queries, texts or sparse"),
        ({"texts": ASKED[:3], "relevant": RELEVANT}, "100 lists of relevant ids, and 3 queries of text"),
        ({"texts": ASKED[:1], "relevant": [[]]}, r"relevant\[0\] must have an id"),
        ({"texts": ASKED[:1], "relevant": [{3: -1}]}, r"relevant\[0\] has the grade -1"),
        ({"texts": ASKED[:1], "relevant": [[3, 3]]}, r"relevant\[0\] names an id twice"),
        ({"texts": ASKED[:1], "relevant": ["x"]}, r"relevant\[0\].*integers"),
        ({"texts": ASKED[:1], "relevant": [1.5]}, r"relevant\[0\].*1.5"),
        ({"texts": ASKED[:1], "relevant": {0: [3]}}, "must be a list"),
        ({"texts": ASKED[:1], "relevant": [3], "codes": ["int8"]}, "without relevant ids"),
        ({"texts": ASKED[:1], "relevant": [3], "fusion": "rrf"}, "fusion joins two inputs"),
        ({"queries": X[:1], "relevant": [3], "text_weights": {"body": 1}}, "give texts="),
        ({"texts": [], "relevant": []}, "one query or more"),
    ],
)
def test_wrong_questions_are_refused(db: qvec.Collection, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        db.evaluate(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ASKED, "relevant": RELEVANT}, "fusion joins two inputs or more"),
        ({"queries": X[:5], "texts": ASKED[:5], "relevant": RELEVANT[:5]}, "needs 20 queries or more, got 5"),
        ({"queries": QUERIES, "texts": ASKED, "relevant": RELEVANT, "measure": "map"}, "measure must be one of"),
    ],
)
def test_a_fusion_is_not_tuned_from_too_little(db: qvec.Collection, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        db.tune_fusion(**arguments)
    with qvec.open(db.path, mode="r") as other, pytest.raises(qvec.ReadOnlyError):
        other.tune_fusion(QUERIES, texts=ASKED, relevant=RELEVANT)
    with db.transaction(), pytest.raises(qvec.InputError, match="outside of a transaction"):
        db.tune_fusion(QUERIES, texts=ASKED, relevant=RELEVANT)
