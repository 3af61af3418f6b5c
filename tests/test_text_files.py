"""Text fields in the file: erasure, damage, crafted states, export and import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.text_collections import make, payloads, vectors
from helpers.text_model import bm25, check_hits, random_texts
from qvec.schema.postings import SegmentRecord, SparseOptions
from qvec.text.writer import PostingsWriter


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
