"""Changing the embedding model of a collection in place, while others read and write."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qvec
from qvec import Collection, InputError, LockedError, ReplacedError
from qvec.storage import atomic_file

OLD, NEW = 8, 12


class Model:
    """A vector for each text, from its checksum. ``texts``: those that were embedded; ``at``: calls to make first."""

    def __init__(self, dim: int, fails_after: int | None = None) -> None:
        self.dim, self.model, self.fails_after = dim, f"model-{dim}", fails_after
        self.texts: list[str] = []
        self.at: list[Callable[[], object]] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        if self.at:
            self.at.pop(0)()
        if self.fails_after is not None and len(self.texts) >= self.fails_after:
            raise ConnectionError("the service is away")
        self.texts += texts
        return np.stack([self.of(text) for text in texts])

    def of(self, text: str) -> np.ndarray:
        return np.random.default_rng([zlib.crc32(text.encode()), self.dim]).normal(size=self.dim).astype(np.float32)


@pytest.fixture
def db(path: Path) -> Iterator[Collection]:
    with filled(path, 300) as made:
        yield made


def filled(path: Path, n: int, **options: Any) -> Collection:
    fields: dict[str, Any] = {"body": "text", "n": "int", "until": "datetime"}
    made = qvec.create(path, OLD, embed=Model(OLD), fields=fields, expires="until", originals="f32", **options)
    if n:
        made.add(texts=[f"text {i}" for i in range(n)], payloads=[{"n": i} for i in range(n)])
    return made


def content(db: Collection) -> dict[Any, Any]:
    return {record.id: record.payload for part in db.scan() for record in part}


def check(db: Collection, model: Model, expected: dict[Any, Any]) -> None:
    """The collection has exactly these payloads, with the vectors of the model, and is sound."""
    assert (db.dim, db.model) == (model.dim, model.model)
    assert content(db) == expected
    for part in db.scan():
        for record in part:
            assert record.payload is not None
            np.testing.assert_array_equal(record.vector, model.of(record.payload["body"]))
    assert db.verify() == []


def test_vectors_change_and_everything_else_stays(db: Collection, path: Path) -> None:
    before, model = content(db), Model(NEW)
    progress: list[tuple[int, int]] = []
    db.reembed(model, dim=NEW, progress=lambda done, total: progress.append((done, total)))
    check(db, model, before)
    assert progress[-1] == (300, 300)
    assert db.search("text 7", 1).ids.tolist() == [7]
    assert db.search(text="7", k=1).ids.tolist() == [7]
    assert db.count(where={"n": {"$lt": 10}}) == 10
    assert db.stats().dim == NEW
    with qvec.open(path, embed=model) as again:
        assert again.search("text 8", 1).ids.tolist() == [8]


@pytest.mark.parametrize("ids", ["int64", "str"])
def test_changes_during_the_copy_are_included(path: Path, ids: Any) -> None:
    def name(i: int) -> Any:
        return i if ids == "int64" else f"id{i:05}"

    with qvec.create(path, OLD, embed=Model(OLD), ids=ids, fields={"body": "text"}) as db, qvec.open(path) as writer:
        db.upsert(texts=[f"text {i}" for i in range(100, 400)], ids=[name(i) for i in range(100, 400)])
        model = Model(NEW)

        def change() -> None:
            writer.delete([name(100), name(399)])
            writer.upsert(np.ones((2, OLD)), [name(5), name(150)], [{"body": "early"}, {"body": "replaced"}])
            writer.update_payloads([name(101)], [{"extra": 1}])
            writer.update_payloads([name(398)], [{"body": "another text"}])

        def declare() -> None:
            writer.add_field("n", "int")
            writer.upsert(np.ones((1, OLD)), [name(500)], [{"body": "late", "n": 3}])

        model.at = [lambda: None, change, declare]
        db.reembed(model, dim=NEW, batch=200)
        check(db, model, content(writer))
        assert not model.at
        assert db.count(where={"n": 3}) == 1


def test_unchanged_texts_are_embedded_once(db: Collection) -> None:
    model = Model(NEW)
    model.at = [lambda: None, lambda: db.update_payloads(list(range(300)), {"seen": True})]
    db.reembed(model, dim=NEW, batch=1000)
    sample = 300  # the code is trained on texts of the collection
    assert len(model.texts) == sample + 300
    assert db.get([4]).payloads[0] == {"body": "text 4", "n": 4, "seen": True}


def test_a_failed_call_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvec.collection.reembedding.SAMPLE", 50)
    monkeypatch.setattr("qvec.collection.second_file.ROWS", 50)
    with filled(path, 400) as db:
        before, away = content(db), Model(NEW, fails_after=250)
        with pytest.raises(ConnectionError):
            db.reembed(away, dim=NEW, batch=50)
        assert db.dim == OLD
        assert content(db) == before
        db.add(texts=["added since"])
        again = Model(NEW)
        db.reembed(again, dim=NEW)
        assert len(again.texts) == 400 - 200 + 1
        check(db, again, {**before, 400: {"body": "added since"}})


def test_an_unfinished_call_has_its_options(db: Collection) -> None:
    with pytest.raises(ConnectionError):
        db.reembed(Model(NEW, fails_after=300), dim=NEW)
    with pytest.raises(InputError, match="other options; restart=True"):
        db.reembed(Model(16), dim=16)
    with pytest.raises(InputError, match="takes texts from 'body', not 'title'"):
        db.reembed(Model(NEW), dim=NEW, field="title", missing="skip")
    db.reembed(Model(16), dim=16, restart=True)
    assert (db.dim, len(db)) == (16, 300)


def test_rows_without_a_text_are_refused_by_id_or_left_out(db: Collection, path: Path) -> None:
    db.add(np.ones((1, OLD)), [777], [{"n": 1}])
    with pytest.raises(InputError, match="id 777 has no text under 'body'"):
        db.reembed(Model(NEW), dim=NEW)
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}-lock"]
    db.reembed(Model(NEW), dim=NEW, missing="skip")
    assert len(db) == 300


def test_a_wrong_dimension_is_refused_before_anything_is_written(db: Collection, path: Path) -> None:
    with pytest.raises(InputError, match="12"):
        db.reembed(Model(NEW), dim=NEW + 1)
    with qvec.open(path) as other, other._store.read() as snap:
        assert snap.state.reembedding is None


def test_the_previous_collection_comes_back_with_later_changes(db: Collection, path: Path) -> None:
    before = content(db)
    db.reembed(Model(NEW), dim=NEW)
    db.add(texts=["later"])
    db.delete([3])
    with pytest.raises(InputError, match="give function="):
        db.undo_reembed()
    with pytest.raises(InputError, match=f"of model 'model-{OLD}', not 'model-16'"):
        db.undo_reembed(Model(16))
    del before[3]
    db.undo_reembed(Model(OLD))
    check(db, Model(OLD), {**before, 300: {"body": "later"}})
    assert db.search("later", 1).ids.tolist() == [300]
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}-lock"]
    with pytest.raises(InputError, match="has not replaced another"):
        db.undo_reembed()


def test_without_changes_no_function_is_needed_to_go_back(db: Collection) -> None:
    before = content(db)
    db.reembed(Model(NEW), dim=NEW)
    db.undo_reembed()
    check(db, Model(OLD), before)
    with pytest.raises(InputError, match="needs a function"):
        db.search("a text")  # the handle had the function of the other model


def test_a_snapshot_reads_the_old_collection_and_keeps_it_from_coming_back(db: Collection) -> None:
    with db.snapshot() as snapshot:
        db.reembed(Model(NEW), dim=NEW)
        assert snapshot.dim == OLD
        assert snapshot.search(Model(OLD).of("text 9"), 1).ids.tolist() == [9]
        with pytest.raises(InputError, match="a snapshot is of one commit"):
            snapshot.reopen()
        with pytest.raises(LockedError, match="open in this process"):
            db.undo_reembed()
    del snapshot  # which refers to the old file
    db.undo_reembed()


def test_other_handles_read_the_old_file_until_they_are_reopened(db: Collection, path: Path) -> None:
    with qvec.open(path, embed=Model(OLD)) as other:
        assert other.reopen() is False
        db.reembed(Model(NEW), dim=NEW)
        assert other.search("text 5", 1).ids.tolist() == [5]
        with pytest.raises(ReplacedError):
            other.add(texts=["lost?"])
        with pytest.raises(InputError, match="of model"):
            other.reopen(Model(OLD))
        assert other.reopen(Model(NEW)) is True
        other.add(texts=["kept"])
        assert db.search("kept", 1).ids.tolist() == [300]


def test_a_second_call_needs_the_first_to_be_settled(db: Collection, path: Path) -> None:
    db.reembed(Model(NEW), dim=NEW)
    with pytest.raises(InputError, match="discard_reembed"):
        db.reembed(Model(16), dim=16)
    with pytest.raises(InputError, match="discard_reembed"):
        db.erase([1])
    assert db.discard_reembed() is True
    assert db.discard_reembed() is False
    db.erase([1])
    db.reembed(Model(16), dim=16)
    assert len(db) == 299


def test_options_of_the_new_collection(db: Collection) -> None:
    with pytest.raises(InputError, match="takes no option 'ids'"):
        db.reembed(Model(NEW), dim=NEW, ids="str")  # type: ignore[call-arg]
    db.reembed(Model(NEW), dim=NEW, metric="l2", code="f32", index="flat", originals="none")
    assert (db.metric, db.code, db.index) == ("l2", "f32", "flat")


def test_an_empty_collection_changes_its_model(path: Path) -> None:
    with filled(path, 0) as db:
        db.reembed(Model(NEW), dim=NEW)
        db.add(texts=["first"])
        check(db, Model(NEW), {0: {"body": "first"}})


def test_a_switch_that_was_killed_half_way_is_completed(db: Collection, path: Path, monkeypatch: Any) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    before = content(db)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            db.reembed(Model(NEW), dim=NEW)
    assert os.stat(path).st_nlink == 2
    with qvec.open(path) as other:  # which removes the second name
        other.add(np.ones((1, OLD)), [900], [{"body": "since"}])
    db.reembed(Model(NEW), dim=NEW)
    check(db, Model(NEW), {**before, 900: {"body": "since"}})


def test_a_file_system_without_hard_links(db: Collection, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    target = Path(f"{path}{atomic_file.PREVIOUS}")
    (path.parent / "new").write_bytes(b"new")
    atomic_file.switch(str(path.parent / "new"), str(path))
    assert path.read_bytes() == b"new"
    assert target.stat().st_size > 1000


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "payload", "text"]), st.integers(0, 40)), min_size=1, max_size=12
)


@settings(max_examples=12, deadline=None)
@given(st.lists(OPERATIONS, min_size=1, max_size=5), st.lists(OPERATIONS, max_size=2))
def test_random_changes_during_and_after(
    tmp_path_factory: pytest.TempPathFactory, during: list[Any], after: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("reembed") / "a.qvec"
    with qvec.create(path, OLD, embed=Model(OLD), index="flat", fields={"body": "text"}) as db:
        db.add(texts=[f"text {i}" for i in range(30)])
        model: dict[Any, Any] = content(db)

        def change(handle: Collection, operations: list[Any]) -> None:
            for kind, i in operations:
                if kind == "put":
                    model[i] = {"body": f"put {len(model)} {i}"}
                    handle.upsert(np.ones((1, handle.dim)), [i], [model[i]])
                elif kind == "delete":
                    model.pop(i, None)
                    handle.delete([i])
                elif i in model:
                    new = {"tag": i} if kind == "payload" else {"body": f"other {i}"}
                    model[i] = {**model[i], **new}
                    handle.update_payloads([i], [new])

        new = Model(NEW)
        with qvec.open(path) as writer:
            new.at = [functools.partial(change, writer, operations) for operations in during]
            db.reembed(new, dim=NEW, batch=7)
        check(db, new, model)
        for operations in after:
            change(db, operations)
        db.undo_reembed(Model(OLD))
        assert content(db) == model
        assert db.verify() == []
