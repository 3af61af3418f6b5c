"""The last step of the demo: the same questions with each code, compared with exact search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec.collection.collection import Collection
from qvec.collection.open import create
from qvec.common.console import heading, print_table
from qvec.common.types import CodeKind
from qvec.datasets import exact_knn
from qvec.demo.corpus import Corpus
from qvec.quality.recall import recall_of_rows
from qvec.search.results import BatchHits

K = 10
CODED: dict[str, dict[str, Any]] = {"graph": {"oversample": 0}, "re-ranked": {}}
SEARCHES: dict[CodeKind, dict[str, dict[str, Any]]] = {
    "f32": {"exact scan": {"exact": True}, "graph": {}},
    "int8": CODED,
    "binary": CODED,
}
MEASURE_SECONDS = 0.5
SIZES = ("code", "graph", "both", "original")
COLUMNS = ("code", "search", f"recall@{K}", f"hit@{K}", *(f"{size} B" for size in SIZES), "queries/s")

Ids = NDArray[np.int64]
Row = tuple[str, ...]


def print_comparison(folder: Path, corpus: Corpus) -> None:
    """Measure each code with and without re-ranking, and print a row for each."""
    questions = len(corpus.questions)
    heading(f"4. Compare the codes: {questions} questions, one thread, bytes (B) of one vector")
    exact = exact_knn(corpus.vectors, corpus.queries, K, "cosine")[0]
    rows = [row for code in SEARCHES for row in _measure(folder, corpus, code, exact)]
    print_table("", COLUMNS, rows)
    print(f"  recall@{K}: the part of the {K} nearest by exact float32 search that is found.")
    print(f"  hit@{K}: the part of the questions whose answering passage is; exactly: {_hit(corpus, exact)}.")
    print("  A search reads codes and graph; re-ranking also reads the float32 originals of the best few.")


def _measure(folder: Path, corpus: Corpus, code: CodeKind, exact: Ids) -> Iterator[Row]:
    n, dim = corpus.vectors.shape
    with create(folder / f"{code}.qvec", dim, metric="cosine", code=code, index="hnsw") as db:
        db.add(corpus.vectors)
        stats = db.stats()
        sizes = (
            stats.codes_bytes,
            stats.graph_bytes,
            stats.codes_bytes + stats.graph_bytes,
            stats.vectors_bytes,
        )
        per_vector = [f"{size / n:,.0f}" for size in sizes]
        for name, options in SEARCHES[code].items():
            search = partial(_search, db, corpus, options)
            found, rate = search(), len(corpus.queries) / _seconds(search)
            recalls = recall_of_rows(found, exact, corpus.queries, corpus.vectors, "cosine")
            quality = f"{recalls.mean():.3f}", _hit(corpus, found)
            yield code, name, *quality, *per_vector, f"{rate:,.0f}"


def _search(db: Collection, corpus: Corpus, options: dict[str, Any]) -> Ids:
    hits: BatchHits = db.search(corpus.queries, K, threads=1, include=(), **options)
    return hits.ids


def _hit(corpus: Corpus, found: Ids) -> str:
    passages = np.array([question.passage for question in corpus.questions])
    return f"{(found == passages[:, None]).any(axis=1).mean():.3f}"


def _seconds(search: Callable[[], Ids]) -> float:
    """The shortest time of the runs within the time limit; slower runs were disturbed."""
    best, end = np.inf, time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        search()
        best = min(best, time.perf_counter() - start)
    return float(best)
