"""Text fields: analysis, exact BM25 through every change of the collection, filters, damage, erasure."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import qvec
from helpers.text_model import bm25, check_hits, random_texts
from qvec._kernels import split_ascii
from qvec.schema.postings import SegmentRecord, SparseOptions
from qvec.text import analysis
from qvec.text.analysis import register_analyzer, split_words
from qvec.text.writer import PostingsWriter

DIM = 4


def vectors(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, DIM)).astype(np.float32)


def payloads(texts: list[list[str]]) -> list[dict[str, Any]]:
    return [{"body": " ".join(words), "n": i % 10} for i, words in enumerate(texts)]


def make(path: Path, texts: list[list[str]], **options: Any) -> qvec.Collection:
    db = qvec.create(path / "a.qvec", DIM, fields={"body": "text", "n": "int"} | options.pop("fields", {}), **options)
    if texts:
        db.add(vectors(len(texts)), payloads=payloads(texts))
    return db


# --- words ---


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
    expected = [word for word in analysis._pattern("", False).findall(text.lower()) if word.strip("_")]
    assert split_words(text) == expected


@given(st.text(st.sampled_from("aB1_.,;:'’ \t\u00a0é\u0301–“東京ｶ\u0308ßﬁ½x²́ "), max_size=40) | st.text(max_size=40))
def test_parts_of_a_text_are_split_as_the_whole(text: str) -> None:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    assert split_words(text) == (split_ascii(text) if text.isascii() else analysis._matched(folded))


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


# --- scores ---


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_scores_are_those_of_bm25(tmp_path: Path, index: str) -> None:
    texts = random_texts(1500, 300, 40, 1)
    docs = dict(enumerate(texts))
    with make(tmp_path, texts, index=index) as db:
        for query in random_texts(60, 300, 8, 2):
            check_hits(db.search(text=" ".join(query), k=10), bm25(docs, query), 10)
        batch = random_texts(40, 300, 8, 3)
        for query, hits in zip(batch, db.search(text=[" ".join(query) for query in batch], k=5), strict=True):
            check_hits(hits, bm25(docs, query), 5)


@pytest.mark.slow
def test_a_thousand_queries_score_as_plain_python_does(tmp_path: Path) -> None:
    texts = random_texts(3000, 900, 60, 4)
    docs = dict(enumerate(texts))
    with make(tmp_path, texts) as db:
        for query in random_texts(1000, 900, 12, 5):
            check_hits(db.search(text=" ".join(query), k=10), bm25(docs, query), 10)


def test_filters_do_not_change_scores_and_find_k_rows_if_k_match(tmp_path: Path) -> None:
    texts = random_texts(1200, 30, 30, 6)
    docs = dict(enumerate(texts))
    with make(tmp_path, texts) as db:
        for count, where in [
            (600, {"n": {"$lt": 5}}),
            (120, {"n": 3}),
            (12, {"$and": [{"n": 3}, {"body": {"$match": "w0"}}]}),
        ]:
            allowed = {i for i in docs if i % 10 < 5} if count == 600 else {i for i in docs if i % 10 == 3}
            allowed = {i for i in allowed if "w0" in docs[i]} if count == 12 else allowed
            check_hits(
                db.search(text="w0 w1 w29", k=10, where=where), bm25(docs, ["w0", "w1", "w29"], allowed=allowed), 10
            )
        many = db.search(text=["w0", "w1"], k=4, where=[{"n": 1}, {"n": 2}])
        check_hits(many[0], bm25(docs, ["w0"], allowed={i for i in docs if i % 10 == 1}), 4)
        check_hits(many[1], bm25(docs, ["w1"], allowed={i for i in docs if i % 10 == 2}), 4)


def test_match_keeps_rows_that_have_all_terms(tmp_path: Path) -> None:
    texts = random_texts(300, 40, 20, 7)
    with make(tmp_path, texts) as db:
        for words in (["w1"], ["w1", "w2"], ["w0", "w3", "w9"], ["nothing"], []):
            expected = sum(bool(words) and set(words) <= set(text) for text in texts)
            assert db.count({"body": {"$match": " ".join(words).upper()}}) == expected
        assert db.count({"body": {"$exists": True}}) == 300
        assert db.count({"body": {"$not": {"$match": "w1"}}}) == sum("w1" not in text for text in texts)
        with pytest.raises(qvec.InputError, match=r"\$match"):
            db.count({"body": "w1"})


def test_phrases_are_words_next_to_each_other(tmp_path: Path) -> None:
    fields = {"body": qvec.Text(positions=True, stop_words=["the"]), "title": "text"}
    texts = ["new york hotel", "york new hotel", "hotel of New the York", "york hotel new", "nothing new"]
    with qvec.create(tmp_path / "a.qvec", DIM, fields=fields) as db:
        db.add(vectors(5), payloads=[{"body": text, "title": "new york"} for text in texts])
        assert set(db.search(text='"new york" hotel', k=5, text_weights={"title": 0}).ids[:2].tolist()) == {0, 2}
        assert len(db.search(text='"new york" hotel', k=5)) == 2
        assert len(db.search(text="new york hotel", k=5)) == 5
        assert len(db.search(text='"york hotel" "hotel new"', k=5)) == 1
        assert len(db.search(text='"no such"', k=5)) == 0
        assert len(db.search(text='"new york"', k=5, where={"body": {"$match": "of"}})) == 1


# --- changes ---


class TextMachine(RuleBasedStateMachine):
    """A collection with text next to a dict of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.db = make(self.path, [], durability="relaxed")
        self.model: dict[int, list[str]] = {}
        self.rng = np.random.default_rng(0)

    def texts(self, n: int) -> list[list[str]]:
        return random_texts(n, 25, 12, int(self.rng.integers(1 << 30)))

    @rule(n=st.integers(1, 30), seed=st.integers(0, 99))
    def upsert(self, n: int, seed: int) -> None:
        ids = np.random.default_rng(seed).choice(60, n, replace=False).tolist()
        texts = self.texts(n)
        given: list[Any] = payloads(texts)
        for i in range(0, n, 5):
            given[i], texts[i] = {"n": 1}, []
        self.db.upsert(vectors(n), ids, given)
        self.model.update(zip(ids, texts, strict=True))

    @precondition(lambda self: self.model)
    @rule(seed=st.integers(0, 99), n=st.integers(1, 20))
    def delete(self, seed: int, n: int) -> None:
        ids = np.random.default_rng(seed).permutation(sorted(self.model))[:n].tolist()
        self.db.delete(ids)
        for i in ids:
            del self.model[i]

    @precondition(lambda self: self.model)
    @rule(seed=st.integers(0, 99))
    def update(self, seed: int) -> None:
        i = int(np.random.default_rng(seed).choice(sorted(self.model)))
        (self.model[i],) = self.texts(1)
        self.db.update_payloads([i], [{"body": " ".join(self.model[i])}])

    @rule(fails=st.booleans())
    def transaction(self, fails: bool) -> None:
        before = dict(self.model)
        try:
            with self.db.transaction():
                self.upsert(7, 3)
                self.upsert(5, 4)
                self.delete(1, 3)
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.model = before

    @rule()
    def optimize(self) -> None:
        self.db.optimize()

    @rule()
    def reopen(self) -> None:
        self.db.close()
        self.db = qvec.open(self.path / "a.qvec")

    @rule()
    def add_again(self) -> None:
        self.db.drop_field("body")
        self.db.add_field("body", "text")

    @invariant()
    def searches_are_exact(self) -> None:
        query = ["w0", "w1", "w7", f"w{int(self.rng.integers(25))}"]
        check_hits(self.db.search(text=" ".join(query), k=10), bm25(self.model, query), 10)

    def teardown(self) -> None:
        assert self.db.verify() == []
        self.db.close()
        self.folder.cleanup()


TestTextMachine = TextMachine.TestCase
TestTextMachine.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)


@pytest.mark.slow
class TestLongTextMachine(TextMachine.TestCase):
    settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_snapshot_keeps_its_texts(tmp_path: Path) -> None:
    with make(tmp_path, [["old"], ["both"]]) as db, db.snapshot() as before:
        db.upsert(vectors(1), [0], [{"body": "new both"}])
        assert (len(before.search(text="old")), len(before.search(text="new"))) == (1, 0)
        assert (len(db.search(text="old")), len(db.search(text="new"))) == (0, 1)


def test_a_field_is_added_to_stored_payloads_and_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: Any
) -> None:
    from qvec.maintenance import field_steps

    monkeypatch.setattr(field_steps, "INDEXED_ROWS", 100)
    texts = random_texts(350, 30, 10, 8)
    with qvec.create(tmp_path / "a.qvec", DIM) as db:
        db.add(vectors(350), payloads=payloads(texts))

        def stop(done: int, total: int) -> None:
            if done == 200:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            db.add_field("body", "text", progress=stop)
        with pytest.raises(qvec.InputError, match="is being added"):
            db.search(text="w0")
        db.delete([5, 300])
        db.upsert(vectors(2), [7, 320], payloads([["w0", "w1"], ["w0"]]))
        assert db.verify() == []
        db.add_field("body", "text")
        docs = {i: text for i, text in enumerate(texts) if i not in (5, 300)} | {7: ["w0", "w1"], 320: ["w0"]}
        check_hits(db.search(text="w0 w1", k=20), bm25(docs, ["w0", "w1"]), 20)
        assert db.verify() == []


def test_a_stored_value_of_another_type_leaves_no_field(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", DIM) as db:
        db.add(vectors(2), payloads=[{"body": "fine"}, {"body": 5}])
        with pytest.raises(qvec.InputError, match="id 1"):
            db.add_field("body", "text")
        assert dict(db.fields) == {}
        assert db.verify() == []


# --- files ---


def test_an_erased_text_leaves_no_term_in_the_file(tmp_path: Path) -> None:
    texts = [[*words, f"secretword{i:04}"] for i, words in enumerate(random_texts(400, 30, 10, 9))]
    with make(tmp_path, texts) as db:
        db.add(vectors(3), payloads=payloads([["w1"], ["w2"], ["w3"]]))
        db.erase(list(range(50, 400, 7)))
        data = (tmp_path / "a.qvec").read_bytes()
        for i in range(400):
            erased = i >= 50 and (i - 50) % 7 == 0
            assert (f"secretword{i:04}".encode() in data) <= (not erased)
        assert db.verify() == []


@pytest.mark.parametrize("name", ["postings", "segment_rows", "lengths"])
def test_damaged_postings_are_found_and_repaired(tmp_path: Path, name: str) -> None:
    texts = random_texts(300, 30, 10, 10)
    docs = dict(enumerate(texts))
    with make(tmp_path, texts) as db:
        with db._store.read() as snap:
            stored = next(column for column in snap.columns if column.split(" ")[0] == name)
        with db._store.write() as txn:
            column = txn.columns[stored]
            rows = column.read_range(0, 2)
            column.write(0, rows ^ np.uint8(5))
        assert db.verify() != []
        assert any("field" in done for done in db.repair())
        assert db.verify() == []
        check_hits(db.search(text="w0 w5", k=10), bm25(docs, ["w0", "w5"]), 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"docs": 7}, "has 7 rows, not those of its segments"),
        ({"segments": ()}, "not those of its segments"),
        ({"options": SparseOptions()}, "posting lists of another kind"),
        ({"docs": 3, "segments": (SegmentRecord(9, 0, 3, 3, 3),)}, "'postings 9' is missing"),
        ({"docs": 3, "segments": (SegmentRecord(0, 3, 3, 3, 3),)}, "multiple of 64"),
        ({"docs": 6, "segments": (SegmentRecord(0, 0, 3, 3, 3),) * 2}, "has 6 rows"),
        ({"docs": 2, "segments": (SegmentRecord(0, 0, 1, 1, 3),) * 2}, "names one segment twice"),
    ],
)
def test_a_crafted_state_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with make(tmp_path, [["a"], ["b"], ["c"]]) as db, db._store.write() as txn:
        PostingsWriter(txn, "body").set(**change)
    with pytest.raises(qvec.CorruptError, match=message):
        qvec.open(tmp_path / "a.qvec").close()


def test_a_segment_with_other_numbers_than_the_state_is_refused(tmp_path: Path) -> None:
    with make(tmp_path, [["a"], ["b"], ["c"]]) as db:
        with db._store.write() as txn:
            PostingsWriter(txn, "body").set(docs=2, segments=(SegmentRecord(0, 0, 2, 2, 3),))
        with pytest.raises(qvec.CorruptError, match="segment 0 has 3 rows"):
            db.search(text="a")
        assert db.verify() != []


def test_text_fields_are_exported_and_imported(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from qvec import interchange

    fields = {"title": qvec.Text(stop_words=["the"], k1=0.9)}
    with make(tmp_path, [["a", "b"], ["b"]], fields=fields) as db:
        interchange.export(db, tmp_path / "a.parquet")
    source = interchange.open_source(tmp_path / "a.parquet")
    with interchange.create_for(source, tmp_path / "b.qvec") as copy:
        interchange.add_from(copy, source)
        assert copy.declarations["title"] == qvec.Text(stop_words=("the",), k1=0.9)
        assert copy.search(text="a").ids[:1].tolist() == [0]


# --- refusals ---


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
