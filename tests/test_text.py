"""Text fields: exact BM25 through every change of the collection, filters, phrases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import qvec
from helpers.text_collections import DIM, make, payloads, vectors
from helpers.text_model import bm25, check_hits, random_texts


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
