"""Segments of posting lists: encoding, merging and scoring against plain Python, at each SIMD level."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qvec
from helpers.text_model import bm25, random_texts
from qvec._kernels import Column, PostingField, Segment, TermBatch, merge_segments, search_postings, simd_levels
from qvec.common.errors import CorruptError
from qvec.text.analysis import Analyzer

PAGES = 2
PART_BYTES = PAGES * 4096 - 64

pytestmark = pytest.mark.simd


def column(data: np.ndarray, stride: int = 64, pages: int = PAGES) -> Column:
    made = Column("x", 24, 0, stride, (pages * 4096 - 64) // stride, pages, 4096, writable=True)
    rows = data.reshape(-1, stride)
    made.resize(len(rows))
    made.write(0, rows)
    return made


def lengths_of(texts: list[list[str]]) -> Column:
    lengths = np.zeros(-(-len(texts) // 64) * 64, np.uint32)
    lengths[: len(texts)] = [len(words) for words in texts]
    return column(lengths.view(np.uint8), 256, 1)


def bitmap(rows: set[int], n: int) -> np.ndarray:
    bits = np.zeros(-(-n // 64) * 64, bool)
    bits[list(rows)] = True
    return np.packbits(bits, bitorder="little").view(np.uint64)


def encoded(texts: list[list[str]], rows: range, lengths: Column) -> np.ndarray:
    batch = TermBatch("text")
    for row in rows:
        batch.add_words(row, texts[row])
    return batch.encode(PART_BYTES, lengths)


def segments_of(texts: list[list[str]], cuts: list[int], lengths: Column, valid: np.ndarray | None) -> list[Segment]:
    edges = [0, *cuts, len(texts)]
    return [Segment(column(encoded(texts, range(a, b), lengths)), "text", valid, 0) for a, b in pairwise(edges)]


@pytest.mark.parametrize("simd", simd_levels())
@pytest.mark.parametrize(
    ("n", "vocabulary", "longest", "cuts"),
    [(50, 20, 10, []), (3000, 400, 40, [1000]), (9000, 3000, 30, [10, 2000, 8000]), (12_000, 40, 12, [5000])],
)
def test_searches_find_the_best_rows_by_bm25(simd: str, n: int, vocabulary: int, longest: int, cuts: list[int]) -> None:
    texts = random_texts(n, vocabulary, longest, n)
    lengths, rng = lengths_of(texts), np.random.default_rng(1)
    for share in (1.0, 0.9):  # of valid rows
        live = set(np.flatnonzero(rng.random(n) < share).tolist()) if share < 1 else set(range(n))
        segments = segments_of(texts, cuts, lengths, None if share == 1 else bitmap(live, n))
        docs = {row: texts[row] for row in live}
        tokens = sum(len(texts[row]) for row in live)
        field = PostingField(segments, lengths, len(live), tokens, 1.2, 0.75)
        for query in random_texts(6, vocabulary, 7, 7):
            allowed = live if len(query) % 2 else set(np.flatnonzero(rng.random(n) < 0.3).tolist())
            excluded = None if allowed is live else ~bitmap(allowed, n)
            terms = [(0, word.encode(), float(times)) for word, times in Counter(query).items()]
            rows, scores, _ = search_postings([field], terms, n, 10, excluded, simd=simd)
            expected = bm25(docs, query, allowed=allowed)
            best = sorted(expected.values(), reverse=True)[:10]
            np.testing.assert_allclose(scores, best, rtol=1e-5)
            np.testing.assert_allclose([expected[row] for row in rows.tolist()], best, rtol=1e-5)
            same, other, _ = search_postings([field], terms, n, 10, excluded, simd="scalar")
            assert (rows == same).all()
            assert (scores == other).all()
        for word in ("w0", f"w{vocabulary // 2}", "none"):
            assert field.document_frequency(word.encode()) == sum(word in texts[row] for row in live)


@given(st.data())
def test_a_merge_of_segments_is_the_segment_of_all_their_valid_rows(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 400))
    texts = random_texts(n, data.draw(st.integers(1, 60)), 12, n)
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=4)))
    lengths = lengths_of(texts)
    live = set(range(n)) - data.draw(st.sets(st.integers(0, n - 1), max_size=n // 2))
    merged = merge_segments(
        segments_of(texts, cuts, lengths, bitmap(live, n)), "text", PART_BYTES, min(live), max(live), len(live), lengths
    )
    batch = TermBatch("text")
    for row in sorted(live):
        batch.add_words(row, texts[row])
    assert (merged == batch.encode(PART_BYTES, lengths)).all()
    expected = Counter(word.encode() for row in live for word in set(texts[row]))
    assert Segment(column(merged), "text", None, 0).terms() == sorted(expected.items())


WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
PARTS = st.sampled_from((
    "the", "The", "don't", "3.14", "a_b", "__", "U.S.A.", "naïve", "nai\u0308ve", "Straße", "東京都", "x²", "ﬁne",
    "\u0301", "l’été", "1990–1995", "“quoted”", "ｶﾞ", "½", "हिन्दी", "\u00a0", "a\tb", "q\x1cr", "", "ab" * 120,
))  # fmt: skip


@given(st.lists(st.lists(PARTS | WORD, max_size=12).map(" ".join), min_size=1, max_size=8), st.booleans())
def test_words_of_a_text_are_those_of_the_analyzer(texts: list[str], has_stop_words: bool) -> None:
    options = qvec.Text(stop_words=["the", "été"] if has_stop_words else ()).options()
    analyzer = Analyzer(options, "body")
    by_text = TermBatch("text", analyzer.words, analyzer.term_of)
    by_words = TermBatch("text", None, analyzer.term_of)
    for row, text in enumerate(texts):
        words = analyzer.words(text)
        assert by_text.add_text(row, text) == by_words.add_words(row, words) == len(analyzer.terms(text))
    lengths = lengths_of([analyzer.terms(text) for text in texts])
    if by_words.n_docs:
        assert (by_text.encode(PART_BYTES, lengths) == by_words.encode(PART_BYTES, lengths)).all()


@given(
    st.lists(st.text(st.sampled_from("ab\x01\xff\u4e00"), min_size=1, max_size=11), min_size=1, max_size=60),
    st.booleans(),
)
def test_terms_are_in_the_order_of_their_bytes(words: list[str], are_many: bool) -> None:
    """A batch with many terms is sorted by their first two bytes first."""
    if are_many:
        words += [f"{i % 97:x}{i}" for i in range(3000)]
    batch = TermBatch("text")
    batch.add_words(0, words)
    lengths = lengths_of([words])
    stored = Segment(column(batch.encode(PART_BYTES, lengths)), "text", None, 0).terms()
    assert stored == [(term, 1) for term in sorted({word.encode() for word in words})]


def test_weights_are_exact_to_half_a_step_of_their_list() -> None:
    rng = np.random.default_rng(2)
    n, weights = 700, {}
    batch = TermBatch("sparse")
    for row in range(n):
        ids = np.sort(rng.choice(90, 12, replace=False)).astype(np.uint32)
        weights[row] = dict(zip(ids.tolist(), rng.gamma(2, 1, 12).astype(np.float32).tolist(), strict=True))
        batch.add_weights(row, ids, np.array(list(weights[row].values()), np.float32))
    field = PostingField([Segment(column(batch.encode(PART_BYTES, None)), "sparse", None, 0)], None, n, 0, 0, 0)
    most = {i: max(held.get(i, 0.0) for held in weights.values()) for i in range(90)}
    query = {3: 1.0, 50: 0.5, 77: 2.0}
    terms = [(0, i.to_bytes(4, "big"), weight) for i, weight in query.items()]
    rows, scores, _ = search_postings([field], terms, n, n, None)
    bound = sum(weight * most[i] / 255 / 2 for i, weight in query.items()) + 1e-4
    for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
        assert abs(score - sum(query[i] * weights[row].get(i, 0.0) for i in query)) <= bound
    assert set(rows.tolist()) == {row for row in weights if set(query) & set(weights[row])}


@pytest.mark.parametrize("seed", range(8))
def test_damaged_segments_give_an_error_or_an_answer(seed: int) -> None:
    texts = random_texts(600, 60, 20, 3)
    lengths, rng = lengths_of(texts), np.random.default_rng(seed)
    whole = encoded(texts, range(600), lengths)
    used = np.flatnonzero(whole)
    for _ in range(150):
        data = whole.copy()
        for place in rng.choice(used, rng.integers(1, 6)):
            data[place] = rng.integers(256)
        try:
            segment = Segment(column(data), "text", bitmap(set(range(0, 600, 2)), 600), 0)
            field = PostingField([segment], lengths, 300, 3000, 1.2, 0.75)
            search_postings([field], [(0, b"w0", 1.0), (0, b"w1", 1.0), (0, b"w55", 1.0)], 600, 10, None)
            field.set_bits(b"w2", 600, np.zeros(10, np.uint64))
            segment.terms()
            merge_segments([segment], "text", PART_BYTES, 0, 599, 300, lengths)
        except CorruptError:
            pass


def test_a_segment_cut_short_is_refused() -> None:
    texts = random_texts(3000, 800, 20, 3)
    lengths = lengths_of(texts)
    whole = encoded(texts, range(3000), lengths)
    for parts in range(1, len(whole) // PART_BYTES):
        with pytest.raises(CorruptError):
            Segment(column(whole[: parts * PART_BYTES]), "text", None, 0).terms()
