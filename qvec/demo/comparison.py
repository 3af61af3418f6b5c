"""The last thing the demo does: the same questions under each code, against exact search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import qvec
from qvec.console import heading, print_table
from qvec.datasets import exact_knn
from qvec.demo.corpus import Corpus
from qvec.types import CodeKind

K = 10
CODES: tuple[CodeKind, ...] = ("f32", "int8", "binary")
MEASURE_SECONDS = 0.5
COLUMNS = (
    "code",
    "re-ranked",
    f"recall@{K}",
    f"hit@{K}",
    "code B",
    "graph B",
    "total B",
    "original B",
    "queries/s",
)

Ids = NDArray[np.int64]
Row = tuple[str, ...]


def print_comparison(folder: Path, corpus: Corpus) -> None:
    """Measure each code with and without re-ranking, and print a row for each."""
    questions = len(corpus.questions)
    heading(f"4. Compare the codes: {questions} questions, HNSW graph, one thread, bytes of one vector")
    exact = exact_knn(corpus.vectors, corpus.queries, K, "cosine")[0]
    rows = [row for code in CODES for row in _measure(folder, corpus, code, exact)]
    print_table("", COLUMNS, rows)
    print(f"  recall@{K}: the part of the {K} nearest by exact float32 search that is found.")
    print(f"  hit@{K}: the part of the questions whose answering passage is; exactly: {_hit(corpus, exact)}.")
    print("  A search reads codes and graph; re-ranking also reads the float32 originals of the best few.")


def _measure(folder: Path, corpus: Corpus, code: CodeKind, exact: Ids) -> Iterator[Row]:
    n, dim = corpus.vectors.shape
    with qvec.create(folder / f"{code}.qvec", dim, metric="cosine", code=code, index="hnsw") as db:
        db.add(corpus.vectors)
        stats = db.stats()
        sizes = (
            stats.codes_bytes,
            stats.graph_bytes,
            stats.codes_bytes + stats.graph_bytes,
            stats.vectors_bytes,
        )
        per_vector = [f"{size / n:,.0f}" for size in sizes]
        for rescore in (False, True):
            search = partial(_search, db, corpus, rescore)
            found, rate = search(), len(corpus.queries) / _seconds(search)
            quality = f"{_recall(found, exact):.3f}", _hit(corpus, found)
            yield code, "yes" if rescore else "no", *quality, *per_vector, f"{rate:,.0f}"


def _search(db: qvec.Collection, corpus: Corpus, rescore: bool) -> Ids:
    return db.search(corpus.queries, K, rescore=rescore, threads=1, with_payload=False).ids


def _recall(found: Ids, exact: Ids) -> float:
    pairs = zip(found.tolist(), exact.tolist(), strict=True)
    return float(np.mean([len(set(got) & set(right)) / len(right) for got, right in pairs]))


def _hit(corpus: Corpus, found: Ids) -> str:
    passages = np.array([question.passage for question in corpus.questions])
    return f"{(found == passages[:, None]).any(axis=1).mean():.3f}"


def _seconds(search: Callable[[], Ids]) -> float:
    """The shortest of the runs that fit into the time: others were disturbed."""
    best, end = np.inf, time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        search()
        best = min(best, time.perf_counter() - start)
    return float(best)
