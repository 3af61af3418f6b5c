"""Plain-Python BM25, and a collection with text next to a dict that says what it should hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

import qvec

K1, B = 1.2, 0.75


def bm25(
    docs: Mapping[int, Sequence[str]],
    query: Iterable[str],
    k1: float = K1,
    b: float = B,
    allowed: set[int] | None = None,
) -> dict[int, float]:
    """The score of each document that has a term of the query. ``docs``: id -> terms; ``allowed``: ids that may be
    found, which does not change the statistics."""
    held = {i: Counter(terms) for i, terms in docs.items() if terms}
    lengths = {i: sum(counts.values()) for i, counts in held.items()}
    mean = sum(lengths.values()) / max(len(lengths), 1)
    scores: dict[int, float] = {}
    for term, times in Counter(query).items():
        rows = [i for i, counts in held.items() if term in counts]
        idf = math.log(1 + (len(held) - len(rows) + 0.5) / (len(rows) + 0.5))
        for i in rows:
            if allowed is None or i in allowed:
                f = held[i][term]
                score = times * idf * f / (f + k1 * (1 - b + b * lengths[i] / mean))
                scores[i] = scores.get(i, 0.0) + score
    return scores


def check_hits(hits: qvec.Hits, scores: Mapping[int, float], k: int, tolerance: float = 1e-5) -> None:
    """The hits are the k best of ``scores``: equal scores may be in any order."""
    best = sorted(scores.values(), reverse=True)[:k]
    assert len(hits) == len(best)
    np.testing.assert_allclose(hits.scores[: len(best)], best, rtol=tolerance)
    found = hits.ids[: len(best)].tolist()
    assert len(set(found)) == len(found)
    np.testing.assert_allclose([scores[i] for i in found], best, rtol=tolerance)


def random_texts(n: int, vocabulary: int, longest: int, seed: int) -> list[list[str]]:
    """Lists of words whose frequencies are skewed, as those of languages are."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, longest, n)
    return [[f"w{int(vocabulary * u**3)}" for u in rng.random(size)] for size in sizes]
