"""Text fields: words, stop words, stems, registered analyzers, and values that are refused."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qvec
from helpers.text_collections import DIM, make, vectors
from qvec._kernels import split_ascii
from qvec.text import analysis
from qvec.text.analysis import register_analyzer, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The quick, brown FOX!", ["the", "quick", "brown", "fox"]),
        (
            "don't 3.14 1,000 e.g. U.S.A. a_b __ x;y 2;3",
            ["don't", "3.14", "1,000", "e.g", "u.s.a", "a_b", "x", "y", "2;3"],
        ),
        ("key:value a.1 http://x.org/y", ["key", "value", "a", "1", "http", "x.org", "y"]),
        ("Straße ﬁne Ｗｉｄｅ", ["strasse", "fine", "wide"]),
        ("naïve nai\u0308ve", ["naïve", "naïve"]),
        ("東京都 is Tokyo, 東", ["東京", "京都", "is", "tokyo", "東"]),
        ("한국어 카페", ["한국", "국어", "카페"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("l’été aujourd’hui", ["l’été", "aujourd’hui"]),
        ("", []),
    ],
)
def test_words_are_those_of_unicode(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_is_split_as_other_text_is(text: str) -> None:
    expected = [word for word in analysis._pattern(False, False).findall(text.lower()) if word.strip("_")]
    assert split_words(text) == expected


@given(st.text(st.sampled_from("aB1_.,;:'’ \t\u00a0é\u0301–“東京ｶ\u0308ßﬁ½x²́ "), max_size=40) | st.text(max_size=40))
def test_parts_of_a_text_are_split_as_the_whole(text: str) -> None:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    assert split_words(text) == (split_ascii(text) if text.isascii() else analysis._matched(folded))


def test_every_mark_is_part_of_its_word() -> None:
    marks = [chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i))[0] == "M"]
    words = re.compile(f"[{analysis._marks()}]")
    assert [mark for mark in marks if not words.match(mark)] == []
    assert [chr(i) for i in range(0x20000) if words.match(chr(i)) and chr(i) not in {*marks}] == []


def test_stop_words_and_stems_apply_to_texts_and_queries(tmp_path: Path) -> None:
    field = qvec.Text(stemmer="english", stop_words="english")
    with qvec.create(tmp_path / "a.qvec", DIM, fields={"body": field}) as db:
        db.add(vectors(2), payloads=[{"body": "The running dogs"}, {"body": "A cat of the house"}])
        assert db.search(text="dog runs").ids[:1].tolist() == [0]
        assert len(db.search(text="the of a")) == 0
        assert db.verify() == []


def test_a_registered_analyzer_is_recorded_and_a_mismatch_is_refused(tmp_path: Path) -> None:
    register_analyzer("letters", list, "1")
    with qvec.create(tmp_path / "a.qvec", DIM, fields={"body": qvec.Text(analyzer="letters")}) as db:
        db.add(vectors(2), payloads=[{"body": "abc"}, {"body": "xyz"}])
        assert db.search(text="y").ids[:1].tolist() == [1]
    register_analyzer("letters", list, "2")
    with qvec.open(tmp_path / "a.qvec") as db:
        for call in (lambda: db.search(text="y"), lambda: db.add(vectors(1), payloads=[{"body": "q"}])):
            with pytest.raises(qvec.InputError, match="version '1', version '2' is installed"):
                call()
        db.add(vectors(1))  # without text
    analysis._registered.pop("letters")
    with qvec.open(tmp_path / "a.qvec") as db, pytest.raises(qvec.InputError, match="not registered"):
        db.search(text="y")


def test_tokens_are_stored_as_they_are(tmp_path: Path) -> None:
    with make(tmp_path, []) as db:
        db.add(vectors(2), payloads=[{"body": ["New York", "X" * 500]}, {"body": "new york"}])
        assert db.count({"body": {"$match": "new york"}}) == 1
        assert db.verify() == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"body": 5}, "must be a string or a list of tokens"),
        ({"body": "x" * (1 << 20) + "y"}, "the limit of a text is 1048576"),
        ({"body": "é" * (1 << 19) + "y"}, "takes 1048577 bytes"),
        ({"body": ["a", 1]}, "must be a string or a list of tokens"),
        ({"body": ["a\0b"]}, "character 0"),
    ],
)
def test_wrong_texts_are_refused_and_nothing_is_written(tmp_path: Path, payload: Any, message: str) -> None:
    with make(tmp_path, [["a"]]) as db:
        with pytest.raises(qvec.InputError, match=message):
            db.add(vectors(2), payloads=[{"body": "b"}, payload])
        assert len(db) == 1
        assert len(db.search(text="b")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": 5}, "text must be a string"),
        ({"text": "a", "fusion": "rrf"}, "fusion joins two inputs"),
        ({"text": "a", "query": np.ones(DIM), "fusion": "best"}, "fusion must be 'rrf', 'weighted'"),
        ({"text": "a", "query": np.ones(DIM), "fusion": {"vector": 1.0}}, "a weight for each of vector, text"),
        ({"text": "a", "query": np.ones(DIM), "fusion": {"vector": -1.0, "text": 1}}, "zero or above"),
        ({"text": "a", "text_weights": {"n": 1.0}}, "which is no text field"),
        ({"text": "a", "text_weights": {"body": 0.0}}, "a weight above zero"),
        ({"text": "a", "max_distance": 1.0}, "max_distance"),
        ({"text": "a", "ef": 10}, "ef is for searches by a vector"),
        ({"text": ["a"], "query": np.ones((2, DIM))}, "different numbers of queries"),
        ({"sparse": {1: 1.0}}, "needs a sparse field"),
        ({"query": np.ones(DIM), "highlight": True}, "give text or sparse"),
        ({}, "give query, text or sparse"),
        ({"text": "x" * ((1 << 20) + 1)}, "longer than the limit"),
    ],
)
def test_wrong_searches_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with make(tmp_path, [["a"]]) as db, pytest.raises(qvec.InputError, match=message):
        db.search(**options)


def test_text_needs_a_text_field(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM, fields={"n": "int"}) as db:
        db.add(vectors(1))
        with pytest.raises(qvec.InputError, match="needs a text field"):
            db.search(text="a")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (qvec.Text(analyzer="none"), "not registered"),
        (qvec.Text(stemmer="klingon"), "stemmer 'klingon' is unknown"),
        (qvec.Text(stop_words="klingon"), "stop_words"),
        (qvec.Text(k1=-1), "k1"),
        (qvec.Sparse(originals="f64"), "originals"),
    ],
)
def test_wrong_declarations_are_refused(tmp_path: Path, field: Any, message: str) -> None:
    with pytest.raises(qvec.InputError, match=message):
        qvec.create(tmp_path / "a.qvec", DIM, fields={"body": field})
