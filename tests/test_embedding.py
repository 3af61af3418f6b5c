"""Texts in place of vectors: a function that embeds them, its batches, and its tag."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import qvec
from qvec import Collection, InputError
from qvec.common.errors import MissingExtraError

DIM = 16


class Hashed:
    """A vector for each text, from its hash. ``calls``: the numbers of texts of each call."""

    def __init__(self, model: str | None = None) -> None:
        self.calls: list[int] = []
        if model is not None:
            self.model = model

    def __call__(self, texts: list[str]) -> Any:
        assert type(texts) is list
        self.calls.append(len(texts))
        return [vector_of(text) for text in texts]


def vector_of(text: str) -> list[float]:
    return (np.frombuffer(hashlib.sha256(text.encode()).digest()[:DIM], np.uint8) - 127.5).tolist()


TEXTS = [f"text number {i}" for i in range(700)]


@pytest.fixture
def embed() -> Hashed:
    return Hashed("m1")


@pytest.fixture
def db(path: Path, embed: Hashed) -> Iterator[Collection]:
    with qvec.create(path, DIM, embed=embed) as made:
        made.add(texts=TEXTS)
        yield made


def test_texts_are_embedded_in_batches_stored_and_found(db: Collection, embed: Hashed) -> None:
    assert (embed.calls, db.model) == ([256, 256, 188], "m1")
    hits = db.search("text number 7", k=3)
    assert (hits.ids[0], hits[0].payload) == (7, {"text": "text number 7"})
    batch = db.search(["text number 9", "text number 600"], 1)
    assert batch.ids.tolist() == [[9], [600]]
    np.testing.assert_allclose(db.get([9]).vectors[0], vector_of("text number 9"), rtol=1e-6)
    assert db.search("text number 7", 1, where={}).ids.tolist() == [7]
    with db.snapshot() as held:
        assert held.search("text number 8", 1).ids.tolist() == [8]


def test_texts_come_with_ids_and_payloads(path: Path, embed: Hashed) -> None:
    with qvec.create(path, DIM, ids="str", fields={"body": "text", "kind": "keyword"}, embed=embed) as db:
        db.add(texts=["a", "b"], ids=["x", "y"], payloads=[{"kind": "k"}, None])
        assert db.get(["x", "y"]).payloads == [{"kind": "k", "body": "a"}, {"body": "b"}]
        db.upsert(texts=["c"], ids=["x"])
        assert db.get(["x"]).payloads == [{"body": "c"}]
        hits = db.search("c", 2, text="b")
        assert sorted(hits.ids.tolist()) == ["x", "y"]
        groups = db.search_groups("c", 1, group_by="kind")
        assert len(groups) == 0
        with pytest.raises(InputError, match=r"payload\[0\]\['body'\] is not the text of texts\[0\]"):
            db.add(texts=["d"], ids=["z"], payloads=[{"body": "e"}])
        assert len(db) == 2


def test_queries_can_have_a_function_of_their_own(path: Path) -> None:
    embed = Hashed()
    embed.embed_query = lambda texts: [vector_of(text.removeprefix("query: ")) for text in texts]  # type: ignore[attr-defined]
    with qvec.create(path, DIM, embed=embed, model="tag") as db:
        db.add(texts=TEXTS[:20])
        assert db.search("query: text number 3", 1).ids.tolist() == [3]
        assert db.model == "tag"


def test_the_tag_is_checked(db: Collection, path: Path) -> None:
    with qvec.open(path, embed=Hashed("m1")) as same:
        assert same.search("text number 5", 1).ids.tolist() == [5]
    with qvec.open(path, "r", embed=Hashed()) as untagged:
        assert untagged.search("text number 5", 1).ids.tolist() == [5]
    with pytest.raises(InputError, match="is of model 'm1', not 'm2'"):
        qvec.open(path, embed=Hashed("m2"))
    with pytest.raises(InputError, match=r"model is 'm3', but embed\.model is 'm2'"):
        qvec.create(path.with_name("b.qvec"), DIM, embed=Hashed("m2"), model="m3")
    with pytest.raises(InputError, match=r"embed\.model is the tag of the model, a string; got 7"):
        qvec.create(path.with_name("b.qvec"), DIM, embed=Hashed(7))  # type: ignore[arg-type]
    assert not path.with_name("b.qvec").exists()


def test_wrong_input_is_refused_before_anything_is_written(db: Collection, path: Path) -> None:
    with qvec.open(path) as plain:
        for call in (lambda: plain.search("a text"), lambda: plain.add(texts=["a"]), lambda: plain.search(["a"])):
            with pytest.raises(InputError, match="open the collection with embed="):
                call()
    for wrong, message in {
        "a text": "texts must be a list of strings, got str",
        ("a", 7): r"texts\[1\] is 7, which is not a string",
    }.items():
        with pytest.raises(InputError, match=message):
            db.add(texts=wrong)  # type: ignore[arg-type]
    for arguments in ({}, {"vectors": [[1] * DIM], "texts": ["a"]}):
        with pytest.raises(InputError, match="vectors and texts: give one of them"):
            db.add(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="embed must be a callable"):
        qvec.open(path, embed="model")  # type: ignore[arg-type]
    for returned, message in (([[1.0] * DIM], "returned shape"), ([[1.0] * 3] * 2, r"shape \(n, 16\)")):
        with (
            qvec.open(path, embed=lambda texts, returned=returned: returned) as broken,
            pytest.raises(InputError, match=message),
        ):
            broken.add(texts=["a", "b"])
    assert len(db) == len(TEXTS)


def test_no_text_is_no_row(db: Collection) -> None:
    assert db.add(texts=[]).added == 0


class FakeModel:
    """What the helpers call of the models of both libraries."""

    prompts: ClassVar = {"query": "query: ", "document": ""}

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, texts: list[str], show_progress_bar: bool, prompt_name: str | None = None) -> Any:
        return np.array([vector_of(text) for text in texts], np.float64) * (2 if prompt_name == "query" else 1)

    def passage_embed(self, texts: list[str]) -> Iterator[Any]:
        yield from np.array([vector_of(text) for text in texts])

    def query_embed(self, texts: list[str]) -> Iterator[Any]:
        yield from 2 * np.array([vector_of(text) for text in texts])


@pytest.mark.parametrize(
    ("library", "name"), [("sentence_transformers", "SentenceTransformer"), ("fastembed", "TextEmbedding")]
)
def test_helpers_call_the_models_of_libraries(
    path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    from qvec.integrations import embedders

    monkeypatch.setitem(sys.modules, library, SimpleNamespace(**{name: FakeModel}))  # type: ignore[arg-type]
    kind: Any = embedders.FastEmbedEmbedder if library == "fastembed" else embedders.SentenceTransformerEmbedder
    embed = kind("a-model")
    with qvec.create(path, DIM, embed=embed) as db:
        db.add(texts=TEXTS[:10])
        assert (db.search(TEXTS[4], 1).ids.tolist(), db.model) == ([4], "a-model")
    np.testing.assert_allclose(embed.embed_query(["x"]), 2 * embed(["x"]))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match="pip install"):
        kind("a-model")
