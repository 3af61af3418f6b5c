"""A navigable small-world graph in fixed-degree lists, built in batches that need no locks.

One level and a table of entry points stand in for the upper layers of HNSW (Malkov and Yashunin 2018): in more than a
few dozen dimensions the hierarchy brings nothing over good entries. The steps of a batch are in kernels/build.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from qvec._kernels import GraphFinder, Linker, reachable
from qvec.bitmaps import Bitmap, bitmap_of, count, mark, read_bitmap, rows_in, without, words_for
from qvec.configs import HNSW
from qvec.index.base import Coded, IndexState, Progress, Rows, Source
from qvec.layout import ADJACENCY, LINKED, bitmap_column, narrow_column
from qvec.storage.store import ColumnSpec
from qvec.types import Float32Array, NDArray

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

ALPHA = 1.1  # squared distances
BATCH_SHARE = 50  # a batch is at most n / 50 rows: they search the graph as it stood before
BATCH_ROWS = 1024  # and each row of a batch is scored against all others of it
ENTRIES = 64
SAMPLE = 4096
LLOYD_ROUNDS = 4


def choose_entries(coded: Coded, root: int, rows: NDArray[np.int64]) -> Rows:
    """Up to 64 of the rows to start walks from: the root of the tree, and medoids of a sample (Lloyd's k-means)."""
    if len(rows) <= ENTRIES:
        return np.union1d([root], rows).astype(np.uint32)
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64))]
    x = coded.codec.decode(coded.codes.read(sample))
    return np.union1d([root], sample[_medoids(x, ENTRIES - 1)]).astype(np.uint32)


def _medoids(x: Float32Array, k: int) -> NDArray[np.int64]:
    x = x - x.mean(axis=0)
    centres = x[np.linspace(0, len(x) - 1, k).astype(np.int64)]
    for _ in range(LLOYD_ROUNDS):
        owner = np.argmin(_distances(x, centres), axis=1)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(k + 1))
        filled = np.flatnonzero(np.diff(bounds))
        sums = np.add.reduceat(x[order], bounds[filled], axis=0)
        centres[filled] = sums / np.diff(bounds)[filled, None]
    nearest: NDArray[np.int64] = np.argmin(_distances(x, centres), axis=0)
    return nearest


def _distances(x: Float32Array, centres: Float32Array) -> Float32Array:
    """Squared distances but for |x|^2, which shifts a row as a whole."""
    shifted: Float32Array = np.einsum("ij,ij->i", centres, centres) - 2 * (x @ centres.T)
    return shifted


@dataclass
class Graph:
    """Where walks start: entry rows, and the root of the tree among them; ``linked``: rows that the graph holds.

    ``chosen_at``: how many it held when the entries were last chosen.
    """

    linked: int = 0
    root: int = 0
    entries: Rows = field(default_factory=lambda: np.zeros(0, np.uint32))
    chosen_at: int = 0

    @classmethod
    def of(cls, state: IndexState) -> Self:
        """The graph that a state describes; an empty one where it describes none yet."""
        if not state.get("linked"):
            return cls()
        entries = np.frombuffer(state["entries"], "<u4").astype(np.uint32)
        return cls(state["linked"], state["root"], entries, state["chosen_at"])

    def to_state(self) -> IndexState:
        """Plain data for :meth:`of`."""
        return {
            "linked": self.linked,
            "root": self.root,
            "entries": self.entries.astype("<u4").tobytes(),
            "chosen_at": self.chosen_at,
        }


@dataclass
class Build:
    """Links rows into a graph, which is changed."""

    source: Source
    graph: Graph
    ef: int
    threads: int
    progress: Progress | None = None

    def run(self, rows: Rows) -> None:
        """Link the rows, in batches."""
        source, graph, coded = self.source, self.graph, self.source.coded
        mark(source.columns[LINKED], rows, True)
        if graph.linked == 0 and len(rows):
            graph.root = int(rows[0])
        linker = Linker(
            coded.codec,
            coded.codes,
            source.columns[ADJACENCY],
            source.n,
            graph.entries,
            graph.root,
            ALPHA,
            source.deleted,
        )
        from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

        with ThreadPoolExecutor(self.threads) as pool:
            done = 0
            while done < len(rows):
                stop = done + min(max(1, graph.linked // BATCH_SHARE), BATCH_ROWS)
                self._link_batch(linker, rows[done:stop], pool)
                done = min(stop, len(rows))
                self._choose_entries(linker, rows[done:])
                if self.progress is not None:
                    self.progress(done, len(rows))

    def _link_batch(self, linker: Linker, rows: Rows, pool: ThreadPoolExecutor) -> None:
        threads = min(self.threads, (len(rows) + 3) // 4)
        linker.begin(rows)
        _parallel(lambda: linker.link_out(self.ef), threads, pool)
        linker.group()
        _parallel(linker.link_in, threads, pool)
        linker.finish()
        self.graph.linked += len(rows)

    def _choose_entries(self, linker: Linker, waiting: Rows) -> None:
        """Choose entries anew when the graph has doubled, and at the end when it has grown by a fifth."""
        graph = self.graph
        if graph.linked < (2 if len(waiting) else 1.2) * graph.chosen_at:
            return
        source = self.source
        held = read_bitmap(source.columns[LINKED], source.n)
        there = rows_in(held & ~source.deleted & ~bitmap_of(waiting, source.n))
        graph.entries, graph.chosen_at = choose_entries(source.coded, graph.root, there), graph.linked
        linker.set_entries(graph.entries, graph.root)


def _parallel(task: Callable[[], None], threads: int, pool: ThreadPoolExecutor) -> None:
    """Run the task on `threads` threads, the caller's among them."""
    others = [pool.submit(task) for _ in range(threads - 1)]
    try:
        task()
    finally:
        for other in others:
            other.result()


class HNSWIndex:
    """See :class:`qvec.index.base.Index`. State: that of :class:`Graph`."""

    kind: ClassVar[str] = "hnsw"
    of_codes: ClassVar[bool] = True

    def __init__(self, config: HNSW) -> None:
        self.config = config

    def columns(self, dim: int) -> dict[str, ColumnSpec]:
        return {ADJACENCY: narrow_column(ADJACENCY, 8 * self.config.m), LINKED: bitmap_column(LINKED)}

    def extend(
        self, source: Source, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        columns, graph = source.columns, Graph.of(state)
        columns[ADJACENCY].resize(source.n)
        columns[LINKED].resize(words_for(source.n))
        Build(source, graph, self._width(state), threads, progress).run(rows)
        return {**state, **graph.to_state()}

    def _width(self, state: IndexState) -> int:
        """The pool of a walk that links: larger by the share of deleted rows, which take places in it."""
        linked, dead = state.get("linked", 0), state.get("dead", 0)
        ef = self.config.ef_construction
        return ef if not dead else min(-(-ef * linked // max(linked - dead, 1)), 2 * ef)

    def drop(self, source: Source, state: IndexState, rows: Rows, threads: int) -> IndexState:
        if not state.get("linked"):
            return state
        return {**state, "dead": count(self.held(source, state) & source.deleted)}

    def held(self, source: Source, state: IndexState) -> Bitmap:
        return read_bitmap(source.columns[LINKED], source.n)

    def n_lists(self, state: IndexState) -> int:
        return 0

    def finder(self, source: Source, state: IndexState) -> GraphFinder:
        coded = source.coded
        return GraphFinder(coded.codec, coded.codes, source.columns[ADJACENCY], source.n, Graph.of(state).entries)

    def check(self, source: Source, state: IndexState) -> list[str]:
        graph, held = Graph.of(state), self.held(source, state)
        if count(held) != graph.linked:
            return [f"{count(held)} rows are linked, the state says {graph.linked}"]
        outside = rows_in(without(source.n, source.deleted) & ~held)
        if len(outside):
            return [f"{len(outside)} rows are not in the graph, the first is row {outside[0]}"]
        lost = rows_in(held & ~self._reached(source, graph))
        return [f"{len(lost)} rows cannot be reached in the graph, the first is row {lost[0]}"] if len(lost) else []

    def _reached(self, source: Source, graph: Graph) -> Bitmap:
        """The rows that hang in the tree."""
        coded, adjacency = source.coded, source.columns[ADJACENCY]
        return reachable(coded.codec, coded.codes, adjacency, source.n, graph.entries, graph.root, pinned_only=True)
