"""The step of the demo with indexes: compact and packed graphs, and hnswlib if it is installed, at the same recall."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qvec.collection.open import create
from qvec.common.console import print_table
from qvec.common.extras import find
from qvec.datasets import exact_knn
from qvec.demo.comparison import K, shortest_time
from qvec.demo.corpus import Corpus
from qvec.demo.steps import Step, say
from qvec.quality.recall import recall_of_rows

TARGET = 0.95
EFS = (10, 12, 14, 16, 20, 24, 28, 34, 40, 48, 60, 80, 120, 200)
PEER = "hnswlib"
COLUMNS = ("index", "ef", f"recall@{K}", "queries/s", f"/ {PEER}", "index B", "build s")


class Contestant(ABC):
    """An index over the passages. ``build_s``: seconds of its build; ``index_bytes``: of all that it searches in.

    ``files``: are open until this is left.
    """

    name: ClassVar[str]
    files: ExitStack
    build_s: float
    index_bytes: int

    @abstractmethod
    def __init__(self, corpus: Corpus, folder: Path) -> None:
        """Build the index; ``folder``: for its files."""

    @abstractmethod
    def search(self, query: NDArray[np.float32], ef: int) -> NDArray[np.int64]:
        """Return the rows of the K nearest passages of one query."""


class Own(Contestant):
    """A graph of qvec over int8 codes, in its file."""

    kind: ClassVar[str]

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        path, dim, self.files = folder / f"{self.kind}-graph.qvec", corpus.vectors.shape[1], ExitStack()
        start = time.perf_counter()
        self.db = self.files.enter_context(create(path, dim, metric="cosine", index=self.kind))
        self.db.add(corpus.vectors)
        self.build_s, stats = time.perf_counter() - start, self.db.stats()
        self.index_bytes = stats.codes_bytes + stats.graph_bytes

    def search(self, query: NDArray[np.float32], ef: int) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = self.db.search(query, K, ef=ef, include=()).ids
        return ids


class Compact(Own):
    """The smallest graph."""

    name, kind = "qvec, compact graph", "hnsw"


class Packed(Own):
    """The fastest graph."""

    name, kind = "qvec, packed graph", "packed"


class Hnswlib(Contestant):
    """hnswlib with its usual options."""

    name = PEER

    def __init__(self, corpus: Corpus, folder: Path) -> None:
        (n, dim), self.files = corpus.vectors.shape, ExitStack()
        start = time.perf_counter()
        self.index = find(PEER).Index("ip", dim)
        self.index.init_index(n, M=16, ef_construction=200)
        self.index.add_items(corpus.vectors, np.arange(n))
        self.build_s = time.perf_counter() - start
        self.index.save_index(str(folder / "hnswlib.bin"))
        self.index_bytes = (folder / "hnswlib.bin").stat().st_size

    def search(self, query: NDArray[np.float32], ef: int) -> NDArray[np.int64]:
        self.index.set_ef(ef)
        ids: NDArray[np.int64] = self.index.knn_query(query, K, num_threads=1)[0][0].astype(np.int64)
        return ids


class Indexes(Step):
    """Measures each index at the smallest ef that reaches TARGET."""

    name = "indexes"

    @property
    def title(self) -> str:
        return f"Compare graphs at a recall of {TARGET:g}: one question at a time, one thread"

    def run(self) -> dict[str, Any]:
        exact = exact_knn(self.corpus.vectors, self.corpus.queries, K, "cosine")[0]
        kinds: list[type[Contestant]] = [Compact, Packed]
        if find(PEER) is not None:
            kinds.append(Hnswlib)
        rows = [_measure(kind, self.corpus, self.demo.folder, exact) for kind in kinds]
        return {"k": K, "target": TARGET, "rows": rows}

    def show(self, result: dict[str, Any]) -> None:
        rates = {row["index"]: row["queries_per_second"] for row in result["rows"]}
        print_table("", COLUMNS, [_cells(row, rates.get(PEER)) for row in result["rows"]])
        say("index B: bytes per vector of codes and graph; with hnswlib, of float32 vectors and graph.")
        if PEER not in rates:
            say(f"{PEER} is not installed, and was not measured: pip install {PEER}")


def _measure(kind: type[Contestant], corpus: Corpus, folder: Path, exact: NDArray[np.int64]) -> dict[str, Any]:
    index = kind(corpus, folder)
    with index.files:
        for ef in EFS:
            search = partial(_all, index, corpus, ef)
            recall = float(recall_of_rows(search(), exact, corpus.queries, corpus.vectors, "cosine").mean())
            if recall >= TARGET:
                break
        return {
            "index": kind.name,
            "ef": ef,
            "recall": recall,
            "queries_per_second": len(corpus.queries) / shortest_time(search),
            "index_bytes": index.index_bytes / len(corpus.vectors),
            "build_s": index.build_s,
        }


def _all(index: Contestant, corpus: Corpus, ef: int) -> NDArray[np.int64]:
    return np.array([index.search(query, ef) for query in corpus.queries])


def _cells(row: dict[str, Any], peer: float | None) -> tuple[str, ...]:
    ratio = "-" if peer is None else f"{row['queries_per_second'] / peer:.1f}"
    figures = f"{row['recall']:.3f}", f"{row['queries_per_second']:,.0f}", ratio
    return row["index"], str(row["ef"]), *figures, f"{row['index_bytes']:,.0f}", f"{row['build_s']:.2f}"
