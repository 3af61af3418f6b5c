"""A navigable small-world graph in fixed-degree lists, built in batches that need no locks.

Rows that are added a few at a time are answered by their nearest neighbors alone, and owed the other edges back. Each
fourth of them has some of these added, to lists that lie side by side, in passes over all lists (docs/adr/0011).

One level and a table of entry points stand in for the upper layers of HNSW (Malkov and Yashunin 2018): in more than a
few dozen dimensions the hierarchy brings nothing over good entries. The steps of a batch are in kernels/graph/build.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qvec._kernels import Finder, GraphFinder, Linker, reachable
from qvec.codes.configs import HNSW
from qvec.codes.registry import Quantizer
from qvec.common.parallel import run_on_threads
from qvec.common.types import NDArray
from qvec.index import packed
from qvec.index.base import Coded, IndexState, Progress, Rows, Source
from qvec.index.graph import Graph, GraphShape, choose_entries, pruning
from qvec.index.linking import comparable
from qvec.schema.bitmaps import (
    Bitmap,
    are_in,
    bitmap_of,
    count,
    mark,
    read_bitmap,
    rows_in,
    unused_rows,
    without,
    words_for,
)
from qvec.schema.layout import ADJACENCY, CONDEMNED, LINKED, NODES, bitmap_column, narrow_column
from qvec.storage.store import ColumnSpec

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

BATCH_SHARE = 50  # a batch is at most n / 50 rows: they search the graph as it stood before
BATCH_ROWS = 1024  # and each row of a batch is scored against all others of it
CHECKED_ROWS = 65_536  # read at a time
NO_NEIGHBOR = 0xFFFFFFFF
ALL = 128  # edges that a row has at most
FEW = 8  # rows: of so many at a time, only the nearest edges get one back at once; each changes a page of lists
ANSWERED = 8  # edges of such a row that do
STEP_ROWS = 128  # for each row added, so many lists give edges back that are owed ...
PASS_STEPS = 512  # ... or more, so that no pass over all of them takes more rows
TOGETHER = 4  # such rows whose steps are taken at once: lists side by side share pages of LMDB's tree
DEAD_SHARE = 0.075  # of the rows of a graph: beyond, deleted ones are taken out


@dataclass
class Build:
    """Links rows into a graph, which is changed."""

    source: Source
    graph: Graph
    ef: int
    threads: int
    progress: Progress | None = None

    def run(self, rows: Rows) -> None:
        """Link the rows, in batches; where they are few, without all of their edges back."""
        source, graph = self.source, self.graph
        mark(source.columns[LINKED], rows, True)
        if graph.linked == 0 and len(rows):
            graph.root = int(rows[0])
        from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

        few = len(rows) <= FEW
        with ThreadPoolExecutor(self.threads) as pool:
            linker = self._linker(comparable(source, rows, self.threads, pool))
            done = 0
            while done < len(rows):
                stop = done + min(max(1, graph.linked // BATCH_SHARE), BATCH_ROWS)
                self._link_batch(linker, rows[done:stop], pool, ANSWERED if few else ALL)
                done = min(stop, len(rows))
                self._choose_entries(linker, rows[done:])
                if self.progress is not None:
                    self.progress(done, len(rows))
            self._settle(linker, pool, self._due(rows))
            packed.keep_up(source, linker, self.threads, pool)

    def _linker(self, coded: Coded) -> Linker:
        source, graph = self.source, self.graph
        rule = pruning(source.coded.codec.metric, NODES in source.columns)
        return Linker(
            coded.codec,
            coded.codes,
            source.columns[ADJACENCY],
            source.n,
            graph.entries,
            graph.root,
            rule.alpha,
            rule.fill,
            source.deleted,
        )

    def _link_batch(self, linker: Linker, rows: Rows, pool: ThreadPoolExecutor, answered: int) -> None:
        threads = min(self.threads, (len(rows) + 3) // 4)
        linker.begin(rows)
        run_on_threads(lambda: linker.link_out(self.ef, answered), threads, pool)
        linker.group()
        run_on_threads(linker.link_in, threads, pool)
        linker.finish()
        self.graph.linked += len(rows)

    def _due(self, rows: Rows) -> int:
        """How many lists are to give edges back, now that these rows are linked; all, where there are none."""
        graph, n, added = self.graph, self.source.n, len(rows)
        if 0 < added <= FEW:
            before = len(graph.owed)
            graph.owe(rows)
            added = max(len(graph.owed) // TOGETHER - before // TOGETHER, 0) * TOGETHER
        return added * max(STEP_ROWS, -(-n // PASS_STEPS)) if len(rows) else n

    def _settle(self, linker: Linker, pool: ThreadPoolExecutor, span: int) -> None:
        """Have the lists of the next ``span`` rows give back the edges that rows are owed; of all at most."""
        graph, n = self.graph, self.source.n
        if span >= n:
            self._answer(linker, pool, 0, n)
            graph.owed, graph.owed_before, graph.answered = np.zeros(0, np.uint32), 0, 0
            return
        if span == 0:
            return
        if graph.answered == 0:  # a pass begins
            graph.owed_before = len(graph.owed)
        stop = graph.answered + span
        self._answer(linker, pool, graph.answered, min(stop, n))
        if stop >= n:  # the next pass begins
            graph.owed = graph.owed[graph.owed_before :]
            graph.owed_before, stop = len(graph.owed), stop - n
            self._answer(linker, pool, 0, stop)
        graph.answered = stop

    def _answer(self, linker: Linker, pool: ThreadPoolExecutor, first: int, stop: int) -> None:
        """Have the lists of the rows first..stop give back the edges that rows are owed which are still there."""
        source, rows = self.source, self.graph.owed[self.graph.owed < self.source.n]
        there = read_bitmap(source.columns[LINKED], source.n) & ~source.deleted
        rows = rows[are_in(there, rows)]
        if not len(rows):
            return
        linker.owed(rows, first, stop)
        linker.group()
        run_on_threads(linker.link_in, self.threads, pool)

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


class HNSWIndex:
    """See :class:`qvec.index.base.Index`. State: that of :class:`qvec.index.graph.Graph`."""

    kind: ClassVar[str] = "hnsw"
    of_codes: ClassVar[bool] = True

    def __init__(self, config: HNSW) -> None:
        self.config = config

    def columns(self, quantizer: Quantizer) -> dict[str, ColumnSpec]:
        columns = {ADJACENCY: narrow_column(ADJACENCY, 8 * self.config.m)}
        columns |= {name: bitmap_column(name) for name in (LINKED, CONDEMNED)}
        if self.config.layout == "packed":
            columns[NODES] = packed.node_column(quantizer.codec, 2 * self.config.m)
        return columns

    def extend(
        self, source: Source, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        columns, graph = source.columns, Graph.of(state)
        for name in (ADJACENCY, NODES):
            if name in columns:
                columns[name].resize(source.n)
        for name in (LINKED, CONDEMNED):
            columns[name].resize(words_for(source.n))
        Build(source, graph, self._width(graph), threads, progress).run(rows)
        return {**state, **graph.to_state()}

    def _width(self, graph: Graph) -> int:
        """The pool of a walk that links: larger by the share of deleted rows, which take places in it."""
        ef = self.config.ef_construction
        return min(-(-ef * graph.linked // max(graph.linked - graph.dead, 1)), 2 * ef) if graph.dead else ef

    def drop(self, source: Source, state: IndexState, rows: Rows, threads: int) -> IndexState:
        graph = Graph.of(state)
        graph.dead = count(self.held(source, state) & source.deleted) if graph.linked else 0
        return {**state, **graph.to_state()}

    def due(self, state: IndexState) -> bool:
        graph = Graph.of(state)
        return graph.cursor is not None or graph.dead > DEAD_SHARE * graph.linked

    def mend(self, source: Source, state: IndexState, limit: int, threads: int) -> IndexState:
        from qvec.index.graph_repair import Repair  # late: only what deletes needs it

        graph = Graph.of(state)
        if graph.dead:
            Repair(source, graph, threads).run(limit)
        return {**state, **graph.to_state()}

    def held(self, source: Source, state: IndexState) -> Bitmap:
        return read_bitmap(source.columns[LINKED], source.n)

    def spare(self, source: Source, state: IndexState) -> dict[str, NDArray[np.int64]]:
        columns, held = source.columns, self.held(source, state)
        return {name: unused_rows(columns[name], held, source.n) for name in (ADJACENCY, NODES) if name in columns}

    def n_lists(self, state: IndexState) -> int:
        return 0

    def finder(self, source: Source, state: IndexState) -> Finder:
        coded, columns, entries = source.coded, source.columns, Graph.of(state).entries
        if self.config.layout == "packed" and NODES in columns:
            return packed.finder(coded, columns[NODES], 2 * self.config.m, source.n, entries)
        return GraphFinder(coded.codec, coded.codes, columns[ADJACENCY], source.n, entries)

    def check(self, source: Source, state: IndexState, deep: bool) -> list[str]:
        graph, held = Graph.of(state), self.held(source, state)
        dead = count(held & source.deleted)
        if (count(held), dead) != (graph.linked, graph.dead):
            return [f"of {count(held)} linked rows {dead} are dead; the state says {graph.linked} and {graph.dead}"]
        outside = rows_in(without(source.n, source.deleted) & ~held)
        if len(outside):
            return [f"{len(outside)} rows are not in the graph, the first is row {outside[0]}"]
        if not graph.linked:
            return []
        return [*self._check_tree(source, graph, held), *(self._check_nodes(source, held) if deep else [])]

    def shape(self, source: Source, state: IndexState) -> GraphShape:
        """What the graph looks like to those who walk it; goes through all of it."""
        graph, coded, adjacency = Graph.of(state), source.coded, source.columns[ADJACENCY]
        live, links = source.live, 0
        for start in range(0, len(live), CHECKED_ROWS):
            links += int((adjacency.read(live[start : start + CHECKED_ROWS]).view("<u4") != NO_NEIGHBOR).sum())
        reached = reachable(coded.codec, coded.codes, adjacency, source.n, graph.entries, graph.root)
        return GraphShape(links / max(1, len(live)), count(reached & without(source.n, source.deleted)))

    def _check_tree(self, source: Source, graph: Graph, held: Bitmap) -> list[str]:
        """Whether every row that is not being taken out hangs in the tree."""
        coded, adjacency = source.coded, source.columns[ADJACENCY]
        reached = reachable(coded.codec, coded.codes, adjacency, source.n, graph.entries, graph.root, pinned_only=True)
        lost = rows_in(held & ~read_bitmap(source.columns[CONDEMNED], source.n) & ~reached)
        return [f"{len(lost)} rows cannot be reached in the graph, the first is row {lost[0]}"] if len(lost) else []

    def _check_nodes(self, source: Source, held: Bitmap) -> list[str]:
        if self.config.layout != "packed":
            return []
        columns = source.columns
        if NODES not in columns:
            return ["the packed nodes of the graph are not there"]
        differ = packed.wrong(source.coded, columns[ADJACENCY], columns[NODES], source.n)
        wrong = rows_in(held & bitmap_of(differ, source.n))
        if not len(wrong):
            return []
        return [f"{len(wrong)} packed nodes differ from their lists and codes, the first is row {wrong[0]}"]
