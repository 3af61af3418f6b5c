"""Contestants of ``qvec bench --text``: full-text indexes that get the same tokens, joined by spaces.

Each function indexes texts in a folder with a durable commit for each batch, and returns a search for the rows of the
best k texts with any of some words, and the bytes of the index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from qvec.collection.open import create
from qvec.common.extras import find, require

BATCH = 1000
K1, B = 1.2, 0.75  # constants of BM25
FTS5_TOKENIZER = """tokenize="unicode61 tokenchars '.,;''_’'\""""

Words = Sequence[str]
Search = Callable[[Words, int], list[int]]


def index_qvec(texts: Sequence[str], folder: Path) -> tuple[Search, int]:
    """A collection whose vectors have one dimension and are not linked. Bytes: of posting lists."""
    db = create(folder / "a.qvec", 1, metric="l2", code="f32", index="flat", fields={"body": "text"})
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        db.add(np.zeros((len(part), 1), np.float32), payloads=[{"body": text} for text in part])
    db.optimize()

    def search(words: Words, k: int) -> list[int]:
        ids: list[int] = db.search(text=" ".join(words), k=k, include=()).ids.tolist()
        return ids

    return search, db.stats().fields_bytes


def index_bm25s(texts: Sequence[str], folder: Path) -> tuple[Search, int]:
    """Scores of all postings, in arrays. Bytes: of the saved index."""
    backend = "numpy" if find("numba") is None else "numba"
    model = require("bm25s").BM25(method="lucene", k1=K1, b=B, backend=backend)
    model.index([text.split(" ") for text in texts], show_progress=False)
    model.save(str(folder / "bm25s"))

    def search(words: Words, k: int) -> list[int]:
        rows: list[int] = model.retrieve([list(words)], k=k, show_progress=False, n_threads=1)[0][0].tolist()
        return rows

    return search, _bytes_of(folder / "bm25s")


def index_tantivy(texts: Sequence[str], folder: Path) -> tuple[Search, int]:
    """Segments with frequencies, without positions and stored texts."""
    tantivy = require("tantivy")
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("body", stored=False, tokenizer_name="whitespace", index_option="freq")
    builder.add_integer_field("row", stored=True)
    path = folder / "tantivy"
    path.mkdir()
    schema = builder.build()
    index = tantivy.Index(schema, path=str(path))
    writer = index.writer(num_threads=1)
    for start in range(0, len(texts), BATCH):
        for row in range(start, min(start + BATCH, len(texts))):
            writer.add_document(tantivy.Document(body=texts[row], row=row))
        writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(words: Words, k: int) -> list[int]:
        terms = [(tantivy.Occur.Should, tantivy.Query.term_query(schema, "body", word)) for word in words]
        hits = searcher.search(tantivy.Query.boolean_query(terms), k, count=False).hits
        return [searcher.doc(address)["row"][0] for _, address in hits]

    return search, _bytes_of(path)


def index_fts5(texts: Sequence[str], folder: Path) -> tuple[Search, int]:
    """A table of SQLite FTS5 that stores no texts. Without positions (``detail``), it would rank all rows alike."""
    db = sqlite3.connect(folder / "fts5.db")
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute(f"create virtual table t using fts5(body, content='', {FTS5_TOKENIZER})")
    for start in range(0, len(texts), BATCH):
        with db:
            db.executemany("insert into t(rowid, body) values (?, ?)", enumerate(texts[start : start + BATCH], start))
    db.execute("pragma wal_checkpoint(truncate)")

    def search(words: Words, k: int) -> list[int]:
        match = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
        return [row for (row,) in db.execute("select rowid from t where t match ? order by rank limit ?", (match, k))]

    return search, (folder / "fts5.db").stat().st_size


CONTESTANTS: dict[str, Callable[[Sequence[str], Path], tuple[Search, int]]] = {
    "qvec": index_qvec,
    "bm25s": index_bm25s,
    "tantivy": index_tantivy,
    "fts5": index_fts5,
}
PEERS = tuple(name for name in CONTESTANTS if name != "qvec")


def is_installed(peer: str) -> bool:
    """Whether a peer can be measured here; SQLite comes with Python."""
    return peer == "fts5" or find(peer) is not None


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
