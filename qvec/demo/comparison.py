"""The step of the demo with codes: the same questions with each code, compared with exact search."""

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
from qvec.common.console import print_table
from qvec.common.types import CodeKind
from qvec.datasets import exact_knn
from qvec.demo.corpus import Corpus
from qvec.demo.steps import Step, say
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
COLUMNS = ("code", "search", f"recall@{K}", f"hit@{K}", "code B", "graph B", "both B", "original B", "queries/s")

Ids = NDArray[np.int64]


class Comparison(Step):
    """Measures each code with and without re-ranking."""

    name = "codes"

    @property
    def title(self) -> str:
        return f"Compare the codes: {len(self.corpus.questions)} questions, one thread, bytes (B) of one vector"

    def run(self) -> dict[str, Any]:
        exact = exact_knn(self.corpus.vectors, self.corpus.queries, K, "cosine")[0]
        rows = [row for code in SEARCHES for row in _measure(self.demo.folder, self.corpus, code, exact)]
        return {"k": K, "exact_hit": _hit(self.corpus, exact), "rows": rows}

    def show(self, result: dict[str, Any]) -> None:
        print_table("", COLUMNS, [_cells(**row) for row in result["rows"]])
        share = f"{result['exact_hit']:.3f}"
        say(f"recall@{K}: the part of the {K} nearest by exact float32 search that is found.")
        say(f"hit@{K}: the part of the questions whose answering passage is; exactly: {share}.")
        say("A search reads codes and graph; re-ranking also reads the float32 originals of the best few.")


def _cells(
    code: str,
    search: str,
    recall: float,
    hit: float,
    code_bytes: float,
    graph_bytes: float,
    original_bytes: float,
    queries_per_second: float,
) -> tuple[str, ...]:
    sizes = code_bytes, graph_bytes, code_bytes + graph_bytes, original_bytes, queries_per_second
    return code, search, f"{recall:.3f}", f"{hit:.3f}", *(f"{size:,.0f}" for size in sizes)


def _measure(folder: Path, corpus: Corpus, code: CodeKind, exact: Ids) -> Iterator[dict[str, Any]]:
    n, dim = corpus.vectors.shape
    with create(folder / f"{code}.qvec", dim, metric="cosine", code=code, index="hnsw") as db:
        db.add(corpus.vectors)
        stats = db.stats()
        sizes = {"code": stats.codes_bytes, "graph": stats.graph_bytes, "original": stats.vectors_bytes}
        for name, options in SEARCHES[code].items():
            search = partial(_search, db, corpus, options)
            found, rate = search(), len(corpus.queries) / shortest_time(search)
            recalls = recall_of_rows(found, exact, corpus.queries, corpus.vectors, "cosine")
            yield {
                "code": code,
                "search": name,
                "recall": float(recalls.mean()),
                "hit": _hit(corpus, found),
                **{f"{part}_bytes": size / n for part, size in sizes.items()},
                "queries_per_second": rate,
            }


def _search(db: Collection, corpus: Corpus, options: dict[str, Any]) -> Ids:
    hits: BatchHits = db.search(corpus.queries, K, threads=1, include=(), **options)
    return hits.ids


def _hit(corpus: Corpus, found: Ids) -> float:
    passages = np.array([question.passage for question in corpus.questions])
    return float((found == passages[:, None]).any(axis=1).mean())


def shortest_time(search: Callable[[], Ids]) -> float:
    """Return the shortest time of a search, of those that fit in MEASURE_SECONDS; slower ones were disturbed."""
    best, end = np.inf, time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        search()
        best = min(best, time.perf_counter() - start)
    return float(best)
