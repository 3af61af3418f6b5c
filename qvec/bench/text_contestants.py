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


def fts5_table(texts: Sequence[str], folder: Path, options: str) -> sqlite3.Connection:
    """A table of SQLite FTS5 with texts, in durable commits. ``options``: of the table, such as ``content='',``.

    Without positions (``detail``), it would rank all rows alike.
    """
    db = sqlite3.connect(folder / "fts5.db")
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute(f"create virtual table t using fts5(body, {options} {FTS5_TOKENIZER})")
    for start in range(0, len(texts), BATCH):
        with db:
            db.executemany("insert into t(rowid, body) values (?, ?)", enumerate(texts[start : start + BATCH], start))
    db.execute("pragma wal_checkpoint(truncate)")
    return db


def index_fts5(texts: Sequence[str], folder: Path) -> tuple[Search, int]:
    """A table of SQLite FTS5 that stores no texts."""
    db = fts5_table(texts, folder, "content='',")

    def search(words: Words, k: int) -> list[int]:
        match = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
        return [row for (row,) in db.execute("select rowid from t where t match ? order by rank limit ?", (match, k))]

    return search, (folder / "fts5.db").stat().st_size


def index_lancedb(texts: Sequence[str], folder: Path) -> tuple[Search, int]:
    """A table with its texts, and an index of frequencies; a version for each batch. Threads are LanceDB's."""
    arrow, lancedb = require("pyarrow"), require("lancedb")
    schema = arrow.schema([("row", arrow.int64()), ("body", arrow.string())])
    table = lancedb.connect(str(folder / "lancedb")).create_table("t", schema=schema)
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        table.add(arrow.table({"row": np.arange(start, start + len(part)), "body": list(part)}, schema=schema))
    plain = dict.fromkeys(("lower_case", "stem", "remove_stop_words", "ascii_folding", "with_position"), False)
    config = require("lancedb.index").FTS(base_tokenizer="whitespace", max_token_length=None, **plain)
    table.create_index("body", config=config)
    query_of = require("lancedb.query").MatchQuery

    def search(words: Words, k: int) -> list[int]:
        found = table.search(query_of(" ".join(words), "body"), query_type="fts").select(["row", "_score"]).limit(k)
        rows: list[int] = found.to_arrow()["row"].to_pylist()
        return rows

    indexes = [*(folder / "lancedb").rglob("_indices")]
    return search, sum(map(_bytes_of, indexes))


def index_zvec(texts: Sequence[str], folder: Path) -> tuple[Search, int]:
    """A collection with its texts and vectors of one dimension, on disk after each batch. Bytes: of all files."""
    zvec = require("zvec")
    zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=1)
    index = zvec.FtsIndexParam(tokenizer_name="whitespace", filters=[])
    body = zvec.FieldSchema("body", zvec.DataType.STRING, index_param=index)
    vector = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, 1, zvec.FlatIndexParam(zvec.MetricType.L2))
    schema = zvec.CollectionSchema("bench", fields=[body], vectors=[vector])
    collection = zvec.create_and_open(str(folder / "zvec"), schema)
    for start in range(0, len(texts), BATCH):
        part = enumerate(texts[start : start + BATCH], start)
        docs = [zvec.Doc(id=str(row), fields={"body": text}, vectors={"vector": [0.0]}) for row, text in part]
        if not all(status.ok() for status in collection.insert(docs)):
            raise RuntimeError(f"zvec did not take rows from {start} on")
        collection.flush()
    collection.optimize(zvec.OptimizeOption(concurrency=1))

    def search(words: Words, k: int) -> list[int]:
        query = zvec.Query("body", fts=zvec.Fts(match_string=" ".join(words)))
        return [int(document.id) for document in collection.query(query, topk=k, output_fields=[])]

    return search, _bytes_of(folder / "zvec")


CONTESTANTS: dict[str, Callable[[Sequence[str], Path], tuple[Search, int]]] = {
    "qvec": index_qvec,
    "bm25s": index_bm25s,
    "tantivy": index_tantivy,
    "fts5": index_fts5,
    "lancedb": index_lancedb,
    "zvec": index_zvec,
}
PEERS = tuple(name for name in CONTESTANTS if name != "qvec")


def is_installed(peer: str) -> bool:
    """Whether a peer can be measured here; SQLite comes with Python."""
    return peer == "fts5" or find(peer) is not None


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
