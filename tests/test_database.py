"""Named collections in a directory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec

X = np.random.default_rng(5).normal(size=(20, 8)).astype(np.float32)


def test_collections_are_made_listed_opened_and_dropped(tmp_path: Path) -> None:
    with qvec.Database(tmp_path / "all") as database:
        assert (database.list(), len(database), "docs" in database) == ([], 0, False)
        docs = database.create("docs", 8, metric="l2", fields={"lang": "keyword"})
        docs.add(X, payloads=[{"lang": "en"}] * 20)
        images = database.create("images-2", 4, code="f32")
        assert list(database) == ["docs", "images-2"]
        assert "docs" in database
        with pytest.raises(qvec.ExistsError):
            database.create("docs", 8)
        images.close()
        assert len(database.create("images-2", 4, code="f32", exist_ok=True)) == 0
        with database.open("docs", "r") as reader:
            assert reader.search(X[3], 1, where={"lang": "en"}).ids.tolist() == [3]
        assert reader.closed
        assert not docs.closed
        with pytest.raises(qvec.LockedError):
            database.drop("docs")
        docs.close()
        (tmp_path / "all" / "notes.txt").write_text("not ours")
        (tmp_path / "all" / ".hidden.qvec").write_text("not ours")
        database.drop("docs")
        assert database.list() == ["images-2"]
        assert "docs" in repr(database) or "images-2" in repr(database)
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [
        ".hidden.qvec", "images-2.qvec", "images-2.qvec-lock", "notes.txt",
    ]  # fmt: skip
    with qvec.Database(tmp_path / "all") as again, pytest.raises(qvec.NotFoundError, match="there are: images-2"):
        again.open("docs")
    with qvec.open(tmp_path / "all" / "images-2.qvec") as alone:  # closed with the database
        assert len(alone) == 0


def test_a_garbage_collected_collection_can_be_opened_again(tmp_path: Path) -> None:
    with qvec.Database(tmp_path) as database:
        assert database.create("docs", 3).closed is False
        gc.collect()
        with database.open("docs") as docs:
            assert len(docs) == 0


def test_who_reads_a_dropped_collection_reads_on_and_its_name_is_free(tmp_path: Path) -> None:
    with qvec.Database(tmp_path) as database:
        with database.create("a", 8, metric="l2") as made:
            made.add(X)
        reader = database.open("a", "r")
        database.drop("a")
        assert "a" not in database
        assert reader.search(X[7], 1).ids.tolist() == [7]
        with database.create("a", 3) as other:
            assert len(other) == 0
            assert len(reader) == 20


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".", "-x", "é", "a" * 65, "a.b", "a\x00", "a b", None, 3, b"a"])
def test_bad_names_are_refused(tmp_path: Path, name: Any) -> None:
    database = qvec.Database(tmp_path)
    for call in (lambda: database.create(name, 8), lambda: database.open(name), lambda: database.drop(name)):
        with pytest.raises(qvec.InputError, match="name"):
            call()
    assert name not in database
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "none" / "none", tmp_path / "file" / "below"):
        with pytest.raises(qvec.NotFoundError, match="not a directory and cannot be created"):
            qvec.Database(path)
