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
from qvec.common.parallel import run_on_threads, thread_pool
from qvec.common.types import Bitmap, NDArray
from qvec.index import graph_nodes
from qvec.index.base import CodeColumn, IndexInput, IndexState, Progress, Rows
from qvec.index.graph import Graph, GraphShape, choose_entries, pruning
from qvec.index.graph_codes import batch_codes
from qvec.schema.bitmaps import (
    are_in,
    bitmap_of,
    complement,
    count,
    mark,
    read_bitmap,
    rows_in,
    unused_rows,
    words_for,
)
from qvec.schema.layout import ADJACENCY, LINKED, NODES, REMOVING, bitmap_column, narrow_column
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

    data: IndexInput
    graph: Graph
    ef: int
    threads: int
    progress: Progress | None = None

    def run(self, rows: Rows) -> None:
        """Link the rows, in batches; where they are few, without all of their edges back."""
        data, graph = self.data, self.graph
        mark(data.columns[LINKED], rows, True)
        if graph.indexed == 0 and len(rows):
            graph.root = int(rows[0])
        few = len(rows) <= FEW
        with thread_pool(self.threads) as pool:
            linker = self._linker(batch_codes(data, rows, self.threads))
            done = 0
            while done < len(rows):
                stop = done + min(max(1, graph.indexed // BATCH_SHARE), BATCH_ROWS)
                self._link_batch(linker, rows[done:stop], pool, ANSWERED if few else ALL)
                done = min(stop, len(rows))
                self._choose_entries(linker, rows[done:])
                if self.progress is not None:
                    self.progress(done, len(rows))
            self._settle(linker, pool, self._due(rows))
            graph_nodes.update_nodes(data, linker, self.threads, pool)

    def _linker(self, codes: CodeColumn) -> Linker:
        data, graph = self.data, self.graph
        rule = pruning(data.codes.codec.metric, NODES in data.columns)
        return Linker(
            codes.codec,
            codes.column,
            data.columns[ADJACENCY],
            data.n,
            graph.entries,
            graph.root,
            rule.alpha,
            rule.fill,
            data.deleted,
        )

    def _link_batch(self, linker: Linker, rows: Rows, pool: ThreadPoolExecutor, answered: int) -> None:
        threads = min(self.threads, (len(rows) + 3) // 4)
        linker.begin(rows)
        run_on_threads(lambda: linker.link_out(self.ef, answered), threads, pool)
        linker.group()
        run_on_threads(linker.link_in, threads, pool)
        linker.finish()
        self.graph.indexed += len(rows)

    def _due(self, rows: Rows) -> int:
        """How many lists are to give edges back, now that these rows are linked; all, where there are none."""
        graph, n, added = self.graph, self.data.n, len(rows)
        if 0 < added <= FEW:
            before = len(graph.pending_rows)
            graph.add_pending(rows)
            added = max(len(graph.pending_rows) // TOGETHER - before // TOGETHER, 0) * TOGETHER
        return added * max(STEP_ROWS, -(-n // PASS_STEPS)) if len(rows) else n

    def _settle(self, linker: Linker, pool: ThreadPoolExecutor, span: int) -> None:
        """Have the lists of the next ``span`` rows give back the edges that rows are owed; of all at most."""
        graph, n = self.graph, self.data.n
        if span >= n:
            self._answer(linker, pool, 0, n)
            graph.pending_rows, graph.pending_in_sweep, graph.reverse_edge_cursor = np.zeros(0, np.uint32), 0, 0
            return
        if span == 0:
            return
        if graph.reverse_edge_cursor == 0:  # a pass begins
            graph.pending_in_sweep = len(graph.pending_rows)
        stop = graph.reverse_edge_cursor + span
        self._answer(linker, pool, graph.reverse_edge_cursor, min(stop, n))
        if stop >= n:  # the next pass begins
            graph.pending_rows = graph.pending_rows[graph.pending_in_sweep :]
            graph.pending_in_sweep, stop = len(graph.pending_rows), stop - n
            self._answer(linker, pool, 0, stop)
        graph.reverse_edge_cursor = stop

    def _answer(self, linker: Linker, pool: ThreadPoolExecutor, first: int, stop: int) -> None:
        """Have the lists of the rows first..stop give back the edges that rows are owed which are still there."""
        data, rows = self.data, self.graph.pending_rows[self.graph.pending_rows < self.data.n]
        there = read_bitmap(data.columns[LINKED], data.n) & ~data.deleted
        rows = rows[are_in(there, rows)]
        if not len(rows):
            return
        linker.pending(rows, first, stop)
        linker.group()
        run_on_threads(linker.link_in, self.threads, pool)

    def _choose_entries(self, linker: Linker, waiting: Rows) -> None:
        """Choose entries anew when the graph has doubled, and at the end when it has grown by a fifth."""
        graph = self.graph
        if graph.indexed < (2 if len(waiting) else 1.2) * graph.entries_chosen_at:
            return
        data = self.data
        held = read_bitmap(data.columns[LINKED], data.n)
        there = rows_in(held & ~data.deleted & ~bitmap_of(waiting, data.n))
        graph.entries, graph.entries_chosen_at = choose_entries(data.codes, graph.root, there), graph.indexed
        linker.set_entries(graph.entries, graph.root)


class HNSWIndex:
    """See :class:`qvec.index.base.Index`. State: that of :class:`qvec.index.graph.Graph`."""

    kind: ClassVar[str] = "hnsw"
    built_from_codes: ClassVar[bool] = True

    def __init__(self, config: HNSW) -> None:
        self.config = config

    def columns(self, quantizer: Quantizer) -> dict[str, ColumnSpec]:
        columns = {ADJACENCY: narrow_column(ADJACENCY, 8 * self.config.m)}
        columns |= {name: bitmap_column(name) for name in (LINKED, REMOVING)}
        if self.config.layout == "packed":
            columns[NODES] = graph_nodes.node_column(quantizer.codec, 2 * self.config.m)
        return columns

    def extend(
        self, data: IndexInput, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        columns, graph = data.columns, Graph.of(state)
        for name in (ADJACENCY, NODES):
            if name in columns:
                columns[name].resize(data.n)
        for name in (LINKED, REMOVING):
            columns[name].resize(words_for(data.n))
        Build(data, graph, self._width(graph), threads, progress).run(rows)
        return {**state, **graph.to_state()}

    def _width(self, graph: Graph) -> int:
        """The pool of a walk that links: larger by the share of deleted rows, which take places in it."""
        ef = self.config.ef_construction
        return (
            min(-(-ef * graph.indexed // max(graph.indexed - graph.tombstones, 1)), 2 * ef) if graph.tombstones else ef
        )

    def drop(self, data: IndexInput, state: IndexState, rows: Rows, threads: int) -> IndexState:
        graph = Graph.of(state)
        graph.tombstones = count(self.referenced_rows(data, state) & data.deleted) if graph.indexed else 0
        return {**state, **graph.to_state()}

    def repair_due(self, state: IndexState) -> bool:
        graph = Graph.of(state)
        return graph.repair_cursor is not None or graph.tombstones > DEAD_SHARE * graph.indexed

    def repair(self, data: IndexInput, state: IndexState, limit: int, threads: int) -> IndexState:
        from qvec.index.graph_repair import Repair  # late: only what deletes needs it

        graph = Graph.of(state)
        if graph.tombstones:
            Repair(data, graph, threads).run(limit)
        return {**state, **graph.to_state()}

    def referenced_rows(self, data: IndexInput, state: IndexState) -> Bitmap:
        return read_bitmap(data.columns[LINKED], data.n)

    def unused_rows(self, data: IndexInput, state: IndexState) -> dict[str, NDArray[np.int64]]:
        columns, held = data.columns, self.referenced_rows(data, state)
        return {name: unused_rows(columns[name], held, data.n) for name in (ADJACENCY, NODES) if name in columns}

    def n_lists(self, state: IndexState) -> int:
        return 0

    def finder(self, data: IndexInput, state: IndexState) -> Finder:
        codes, columns, entries = data.codes, data.columns, Graph.of(state).entries
        if self.config.layout == "packed" and NODES in columns:
            return graph_nodes.node_finder(codes, columns[NODES], 2 * self.config.m, data.n, entries)
        return GraphFinder(codes.codec, codes.column, columns[ADJACENCY], data.n, entries)

    def check(self, data: IndexInput, state: IndexState, deep: bool) -> list[str]:
        graph, held = Graph.of(state), self.referenced_rows(data, state)
        dead = count(held & data.deleted)
        if (count(held), dead) != (graph.indexed, graph.tombstones):
            stated = f"{graph.indexed} and {graph.tombstones}"
            return [f"{count(held)} rows are linked, {dead} of them deleted; the state says {stated}"]
        outside = rows_in(complement(data.n, data.deleted) & ~held)
        if len(outside):
            return [f"{len(outside)} rows are not in the graph, the first is row {outside[0]}"]
        if not graph.indexed:
            return []
        return [*self._check_tree(data, graph, held), *(self._check_nodes(data, held) if deep else [])]

    def shape(self, data: IndexInput, state: IndexState) -> GraphShape:
        """What the graph looks like to those who walk it; goes through all of it."""
        graph, codes, adjacency = Graph.of(state), data.codes, data.columns[ADJACENCY]
        live, links = data.live, 0
        for start in range(0, len(live), CHECKED_ROWS):
            links += int((adjacency.read(live[start : start + CHECKED_ROWS]).view("<u4") != NO_NEIGHBOR).sum())
        reached = reachable(codes.codec, codes.column, adjacency, data.n, graph.entries, graph.root)
        return GraphShape(links / max(1, len(live)), count(reached & complement(data.n, data.deleted)))

    def _check_tree(self, data: IndexInput, graph: Graph, held: Bitmap) -> list[str]:
        """Whether every row that is not being taken out hangs in the tree."""
        codes, adjacency = data.codes, data.columns[ADJACENCY]
        reached = reachable(codes.codec, codes.column, adjacency, data.n, graph.entries, graph.root, tree_only=True)
        lost = rows_in(held & ~read_bitmap(data.columns[REMOVING], data.n) & ~reached)
        return [f"{len(lost)} rows cannot be reached in the graph, the first is row {lost[0]}"] if len(lost) else []

    def _check_nodes(self, data: IndexInput, held: Bitmap) -> list[str]:
        if self.config.layout != "packed":
            return []
        columns = data.columns
        if NODES not in columns:
            return ["the packed nodes of the graph are not there"]
        differ = graph_nodes.wrong_nodes(data.codes, columns[ADJACENCY], columns[NODES], data.n)
        wrong = rows_in(held & bitmap_of(differ, data.n))
        if not len(wrong):
            return []
        return [f"{len(wrong)} packed nodes differ from their lists and codes, the first is row {wrong[0]}"]
