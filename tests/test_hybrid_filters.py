"""Hybrid searches with filters are exact; several sparse fields; posting lists in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.text_model import bm25, random_texts

N, DIM, K = 3000, 8, 10
TEXTS = random_texts(N, 150, 12, 2)
RNG = np.random.default_rng(7)
X = RNG.standard_normal((N, DIM)).astype(np.float32)
SPARSE = [
    [dict(zip(RNG.choice(60, 5, replace=False).tolist(), RNG.gamma(2, 1, 5).tolist(), strict=True)) for _ in range(N)]
    for _ in range(2)
]
SHARE = {"half": 2, "tenth": 10, "hundredth": 100, "thousandth": 1000}
FIELDS: Any = {"body": "text", "first": "sparse", "second": "sparse"} | dict.fromkeys(SHARE, "int")


def weights(row: dict[int, float]) -> list[Any]:
    return [list(row), list(row.values())]


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> Path:
    where: Path = tmp_path_factory.mktemp("filters") / "a.qvec"
    with qvec.create(where, DIM, fields=FIELDS, index="flat", code="f32") as db:
        rows = [
            {"body": " ".join(TEXTS[i]), "first": weights(SPARSE[0][i]), "second": weights(SPARSE[1][i])}
            | {name: i % n for name, n in SHARE.items()}
            for i in range(N)
        ]
        db.add(X, payloads=rows)
    return where


def vector_scores(query: np.ndarray) -> dict[int, float]:
    cosines = X.astype(np.float64) @ query / np.linalg.norm(X, axis=1) / np.linalg.norm(query)
    return dict(enumerate(cosines.tolist()))


def products(query: dict[int, float], of: int) -> dict[int, float]:
    found = {i: sum(query[j] * row.get(j, 0) for j in query) for i, row in enumerate(SPARSE[of])}
    return {i: score for i, score in found.items() if score}


def rrf(lists: list[dict[int, float]], depth: int = 100) -> dict[int, float]:
    fused: dict[int, float] = {}
    for scores in lists:
        best = sorted(scores, key=lambda i: (-scores[i], i))[:depth]
        for rank, i in enumerate(best, 1):
            fused[i] = fused.get(i, 0.0) + 1 / (60 + rank)
    return fused


@pytest.mark.parametrize("name", SHARE)
@pytest.mark.parametrize("inputs", [("vector", "text"), ("text",), ("vector", "text", "sparse")])
def test_hybrid_searches_with_filters_are_exact_and_full(path: Path, name: str, inputs: tuple[str, ...]) -> None:
    allowed = {i for i in range(N) if i % SHARE[name] == 1}
    with qvec.open(path, mode="r") as db:
        for seed in range(5):
            query, words = X[seed] + 0.3, ["w1", "w3", f"w{40 + seed}"]
            lists = {
                "vector": {i: s for i, s in vector_scores(query).items() if i in allowed},
                "text": bm25(dict(enumerate(TEXTS)), words, allowed=allowed),
                "sparse": {i: s for i, s in products(SPARSE[0][seed], 0).items() if i in allowed},
            }
            options: dict[str, Any] = {"text": " ".join(words), "where": {name: 1}}
            if "sparse" in inputs:
                options["sparse"] = {"first": SPARSE[0][seed]}
            hits = db.search(query if "vector" in inputs else None, K, **options)
            if inputs == ("text",):
                expected = sorted(lists["text"].values(), reverse=True)[:K]
            else:
                expected = sorted(rrf([lists[one] for one in inputs]).values(), reverse=True)[:K]
            assert len(hits) == min(K, len(allowed) if "vector" in inputs else len(lists["text"]))
            assert set(hits.ids[: len(hits)].tolist()) <= allowed
            tolerance = 2e-2 if "sparse" in inputs else 1e-5  # rounded weights may exchange neighbors in rank
            np.testing.assert_allclose(hits.scores[: len(hits)], expected, rtol=tolerance)


def test_scores_of_several_sparse_fields_are_added(path: Path) -> None:
    with qvec.open(path, mode="r") as db:
        queries = {"first": SPARSE[0][5], "second": SPARSE[1][9]}
        together = products(SPARSE[0][5], 0)
        for i, score in products(SPARSE[1][9], 1).items():
            together[i] = together.get(i, 0) + score
        hits = db.search(sparse=queries, k=K)
        best = sorted(together.values(), reverse=True)[:K]
        np.testing.assert_allclose(hits.scores, best, rtol=1e-3)
        np.testing.assert_allclose(hits.scores, [together[i] for i in hits.ids.tolist()], rtol=1e-3)
        rough = db.search(sparse=queries, k=K, oversample=0)
        np.testing.assert_allclose(rough.scores, best, rtol=2e-2)
        batch = db.search(sparse={name: [of, of] for name, of in queries.items()}, k=K)
        assert batch.ids.tolist() == [hits.ids.tolist()] * 2
        with pytest.raises(qvec.InputError, match=r"sparse must name|sparse= must name the fields"):
            db.search(sparse=SPARSE[0][5])
        with pytest.raises(qvec.InputError, match=r"sparse\['second'\] must be a CSR matrix or a list of 2"):
            db.search(sparse={"first": [SPARSE[0][0]] * 2, "second": [SPARSE[0][0]]})


@pytest.mark.parametrize("memory", ["index", "ram"])
def test_posting_lists_are_copied_to_memory_on_request(path: Path, memory: Any) -> None:
    names = ("postings", "segment_rows", "lengths")

    def resident(db: qvec.Collection) -> set[bool]:
        with db._store.read() as snap:
            return {column.resident for name, column in snap.columns.items() if name.split(" ")[0] in names}

    with qvec.open(path, mode="r") as mapped, qvec.open(path, memory=memory) as copied:
        for _ in range(2):
            text = {"text": "w1 w40"}, {"sparse": {"first": SPARSE[0][3]}}
            for options in text:
                assert copied.search(k=K, **options).ids.tolist() == mapped.search(k=K, **options).ids.tolist()
            assert resident(copied) == {True}
            assert resident(mapped) == {False}
            copied.update_payloads([7], {"body": "another text w1"})  # the next commit's lists are copied, too
