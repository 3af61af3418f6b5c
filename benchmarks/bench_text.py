"""Full text against other libraries: queries/s of one thread, top 10, single queries; indexing rate; bytes.

All get the same tokens: those of qvec's plain analyzer, joined by spaces, and queries as disjunctions. Contestants
alternate in parts of the queries, so that ratios hold on a machine whose speed varies. Times are CPU seconds.

    QVEC_TEXT_DATA=DIR python benchmarks/bench_text.py [--rows N] [--queries N] [--peers bm25s tantivy fts5]

DIR has ``passages.jsonl.gz`` (a line with ``text`` for each passage) and ``queries.jsonl`` (a line with ``text`` or
``question`` for each query). With more rows than passages, further ones are made of random sentences of the others.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import qvec
from qvec.text.analysis import split_words

BATCH, K, ROUNDS = 1000, 10, 5
Search = Callable[[list[str]], list[int]]


def load(folder: Path, rows: int, n_queries: int) -> tuple[list[str], list[list[str]]]:
    """The texts of passages as tokens joined by spaces, and the tokens of queries."""
    with gzip.open(folder / "passages.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"] for line in file]
    if rows > len(texts):
        texts += list(made_of_sentences(texts, rows - len(texts)))
    with open(folder / "queries.jsonl") as file:
        found = [json.loads(line) for line in file]
    asked = [split_words(one.get("text") or one["question"]) for one in found[:n_queries]]
    return [" ".join(split_words(text)) for text in texts[:rows]], asked


def made_of_sentences(texts: list[str], n: int) -> Iterator[str]:
    """New passages: as many random sentences of all passages as a passage has."""
    rng = np.random.default_rng(0)
    sentences = [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text)]
    mean = len(sentences) / len(texts)
    for count in rng.poisson(mean, n):
        yield " ".join(sentences[i] for i in rng.integers(0, len(sentences), max(1, count)))


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def index_qvec(texts: list[str], folder: Path) -> tuple[Search, int]:
    """One durable commit for each batch. The vectors have one dimension, and are not linked."""
    db = qvec.create(folder / "a.qvec", 1, metric="l2", code="f32", index="flat", fields={"body": "text"})
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        db.add(np.zeros((len(part), 1), np.float32), payloads=[{"body": text} for text in part])
    db.optimize()
    with db._store.read() as snap:
        size = sum(
            column.n_blocks * (column.pages * 4096)
            for name, column in snap.columns.items()
            if name.split(" ")[0] in ("postings", "segment_rows", "lengths")
        )
    return lambda words: db.search(text=" ".join(words), k=K, include=()).ids.tolist(), size


def index_bm25s(texts: list[str], folder: Path) -> tuple[Search, int]:
    import bm25s

    model = bm25s.BM25(method="lucene", k1=1.2, b=0.75, backend="numba" if has_numba() else "numpy")
    model.index([text.split(" ") for text in texts], show_progress=False)
    model.save(str(folder / "bm25s"))

    def search(words: list[str]) -> list[int]:
        return model.retrieve([words], k=K, show_progress=False, n_threads=1)[0][0].tolist()

    return search, bytes_of(folder / "bm25s")


def has_numba() -> bool:
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def index_tantivy(texts: list[str], folder: Path) -> tuple[Search, int]:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("body", stored=False, tokenizer_name="whitespace", index_option="freq")
    builder.add_integer_field("row", stored=False, fast=True)
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
    size, searcher = bytes_of(path), index.searcher()
    any_of = tantivy.Occur.Should

    def search(words: list[str]) -> list[int]:
        query = tantivy.Query.boolean_query([(any_of, tantivy.Query.term_query(schema, "body", w)) for w in words])
        return [address.doc for _, address in searcher.search(query, K, count=False).hits]

    return search, size


def index_fts5(texts: list[str], folder: Path) -> tuple[Search, int]:
    db = sqlite3.connect(folder / "fts5.db")
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    tokenizer = """tokenize="unicode61 tokenchars '.,;''_’'\""""
    db.execute(f"create virtual table t using fts5(body, content='', detail=none, {tokenizer})")
    for start in range(0, len(texts), BATCH):
        with db:
            db.executemany("insert into t(rowid, body) values (?, ?)", enumerate(texts[start : start + BATCH], start))
    db.execute("pragma wal_checkpoint(truncate)")
    size = (folder / "fts5.db").stat().st_size

    def search(words: list[str]) -> list[int]:
        match = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
        return [row for (row,) in db.execute("select rowid from t where t match ? order by rank limit ?", (match, K))]

    return search, size


CONTESTANTS: dict[str, Callable[[list[str], Path], tuple[Search, int]]] = {
    "qvec": index_qvec,
    "bm25s": index_bm25s,
    "tantivy": index_tantivy,
    "fts5": index_fts5,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("QVEC_TEXT_DATA"))
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--peers", nargs="*", default=["bm25s", "tantivy", "fts5"])
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or the environment variable QVEC_TEXT_DATA")
    texts, queries = load(Path(args.data), args.rows, args.queries)
    folder = Path(tempfile.mkdtemp())
    made: dict[str, Search] = {}
    try:
        for name in ["qvec", *args.peers]:
            begin, cpu = time.perf_counter(), time.process_time()
            made[name], size = CONTESTANTS[name](texts, folder)
            took, used = time.perf_counter() - begin, time.process_time() - cpu
            rates = f"{len(texts) / used:>9,.0f} rows/CPU s {len(texts) / took:>9,.0f} rows/s"
            print(f"{name:<8} indexed {rates} {size:>12,} bytes")
        seconds = dict.fromkeys(made, 0.0)
        for name in made:
            for words in queries[:50]:
                made[name](words)
        done = 0
        for part in np.array_split(np.arange(len(queries)), ROUNDS * 4):
            for name, search in made.items():
                begin = time.process_time()
                for i in part:
                    search(queries[i])
                seconds[name] += time.process_time() - begin
            done += len(part)
        for name, used in seconds.items():
            print(f"{name:<8} {done / used:>9,.0f} queries/s of one thread")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
