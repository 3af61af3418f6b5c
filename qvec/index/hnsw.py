"""The HNSW index: a navigable small-world graph, stored as adjacency lists with a fixed number of slots.

One level and a table of entry points stand in for the upper layers of HNSW (Malkov and Yashunin 2018): beyond a few
dozen dimensions, the hierarchy gains nothing over good entry points.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from qvec._kernels import Finder, GraphFinder, reachable
from qvec.codes.configs import HNSW
from qvec.codes.registry import Quantizer
from qvec.common.types import Bitmap, NDArray
from qvec.index import graph_nodes
from qvec.index.base import IndexInput, Progress
from qvec.index.graph import Graph, GraphShape
from qvec.index.graph_build import GraphBuild
from qvec.schema.bitmaps import bitmap_of, complement, count, read_bitmap, rows_in, unused_rows, words_for
from qvec.schema.layout import ADJACENCY, LINKED, NODES, REMOVING, bitmap_column, narrow_column
from qvec.schema.state import GraphState, IndexState, Rows
from qvec.storage.store import ColumnSpec

ROWS_PER_READ = 65_536
NO_NEIGHBOR = 0xFFFFFFFF
LINKED_ROWS, LINKED_VALUES = 8192, 2 << 20  # of one transaction: rows, and values of their vectors, at most
MAX_TOMBSTONE_SHARE = 0.075  # of the rows of a graph; a repair is due when more are deleted


class HNSWIndex:
    """See :class:`qvec.index.base.Index`. State: that of :class:`qvec.index.graph.Graph`."""

    kind: ClassVar[str] = "hnsw"
    empty: ClassVar[IndexState] = GraphState()
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
        graph = Graph.of(state)
        if not graph.indexed and not len(rows):
            return state
        self.defer(data, state, rows)
        GraphBuild(data, graph, self._search_width(graph), threads, progress).run(rows)
        return graph.state()

    def rebuilds(self, data: IndexInput, state: IndexState, n_rows: int) -> bool:
        """Whether `extend` by this many rows builds a new graph, and does not read the old one."""
        graph = Graph.of(state)
        return GraphBuild(data, graph, self._search_width(graph), 1).builds_by_partitions(n_rows)

    def max_rows(self, state: IndexState, live: int, dim: int) -> int:
        return max(1, min(LINKED_ROWS, LINKED_VALUES // dim))

    def defer(self, data: IndexInput, state: IndexState, rows: Rows) -> None:
        data.columns[ADJACENCY].resize(data.n)
        for name in (LINKED, REMOVING):
            data.columns[name].resize(words_for(data.n))

    def unindexed_rows(self, data: IndexInput, state: IndexState) -> Rows:
        live = complement(data.n, data.deleted)
        return rows_in(live & ~self.referenced_rows(data, state)).astype(np.uint32)

    def _search_width(self, graph: Graph) -> int:
        """Return the size of the candidate list for linking a row, enlarged because tombstones take slots in it."""
        ef = self.config.ef_construction
        return (
            min(-(-ef * graph.indexed // max(graph.indexed - graph.tombstones, 1)), 2 * ef) if graph.tombstones else ef
        )

    def drop(self, data: IndexInput, state: IndexState, rows: Rows, threads: int) -> IndexState:
        graph = Graph.of(state)
        graph.tombstones = count(self.referenced_rows(data, state) & data.deleted) if graph.indexed else 0
        return graph.state()

    def repair_due(self, state: IndexState) -> bool:
        graph = Graph.of(state)
        return graph.repair_cursor is not None or graph.tombstones > MAX_TOMBSTONE_SHARE * graph.indexed

    def repair(self, data: IndexInput, state: IndexState, limit: int, threads: int) -> IndexState:
        from qvec.index.graph_repair import Repair  # late: only deletes need it

        graph = Graph.of(state)
        if graph.tombstones:
            Repair(data, graph, threads).run(limit)
        return graph.state()

    def referenced_rows(self, data: IndexInput, state: IndexState) -> Bitmap:
        if not Graph.of(state).indexed:
            return np.zeros(words_for(data.n), np.uint64)
        return read_bitmap(data.columns[LINKED], data.n)

    def move(self, data: IndexInput, state: IndexState, old: Rows, new: Rows) -> bool:
        return False

    def unused_rows(self, data: IndexInput, state: IndexState) -> dict[str, NDArray[np.int64]]:
        columns, linked = data.columns, self.referenced_rows(data, state)
        return {name: unused_rows(columns[name], linked, data.n) for name in (ADJACENCY, NODES) if name in columns}

    def n_lists(self, state: IndexState) -> int:
        return 0

    def finder(self, data: IndexInput, state: IndexState) -> Finder | None:
        codes, columns, graph = data.codes, data.columns, Graph.of(state)
        if not graph.indexed:
            return None
        entries = graph.entries
        if self.config.layout == "packed" and NODES in columns:
            n = min(data.n, columns[NODES].n_rows)  # rows behind them are not linked yet
            return graph_nodes.node_finder(codes, columns[NODES], 2 * self.config.m, n, entries)
        return GraphFinder(codes.codec, codes.column, columns[ADJACENCY], data.n, entries)

    def check(self, data: IndexInput, state: IndexState, deep: bool) -> list[str]:
        graph, linked = Graph.of(state), self.referenced_rows(data, state)
        dead = count(linked & data.deleted)
        if (count(linked), dead) != (graph.indexed, graph.tombstones):
            stated = f"{graph.indexed} and {graph.tombstones}"
            return [f"{count(linked)} rows are linked, {dead} of them deleted; the state says {stated}"]
        if not graph.indexed:
            return []
        tree = self._check_tree(data, graph, linked)
        return [*tree, *(self._check_nodes(data, linked) if deep else [])]

    def shape(self, data: IndexInput, state: IndexState) -> GraphShape:
        """Compute the average degree and the reachability of the live rows. Reads the whole graph."""
        graph, codes = Graph.of(state), data.codes
        if not graph.indexed:
            return GraphShape(0.0, 0)
        adjacency, links = data.columns[ADJACENCY], 0
        live = rows_in(complement(data.n, data.deleted) & self.referenced_rows(data, state))
        for start in range(0, len(live), ROWS_PER_READ):
            links += int((adjacency.read(live[start : start + ROWS_PER_READ]).view("<u4") != NO_NEIGHBOR).sum())
        reached = reachable(codes.codec, codes.column, adjacency, data.n, graph.entries, graph.root)
        return GraphShape(links / max(1, len(live)), count(reached & complement(data.n, data.deleted)))

    def _check_tree(self, data: IndexInput, graph: Graph, linked: Bitmap) -> list[str]:
        """Check that the spanning tree reaches every row, except rows that a repair is removing."""
        codes, adjacency = data.codes, data.columns[ADJACENCY]
        reached = reachable(codes.codec, codes.column, adjacency, data.n, graph.entries, graph.root, tree_only=True)
        lost = rows_in(linked & ~read_bitmap(data.columns[REMOVING], data.n) & ~reached)
        return [f"{len(lost)} rows cannot be reached in the graph, the first is row {lost[0]}"] if len(lost) else []

    def _check_nodes(self, data: IndexInput, linked: Bitmap) -> list[str]:
        if self.config.layout != "packed":
            return []
        columns = data.columns
        if NODES not in columns:
            return ["the packed nodes of the graph are missing"]
        n = min(data.n, columns[NODES].n_rows)
        if (behind := int(rows_in(linked)[-1]) + 1 - n) > 0:
            return [f"the packed nodes of {behind} rows of the graph are missing"]
        differing = graph_nodes.wrong_nodes(data.codes, columns[ADJACENCY], columns[NODES], data.n, n)
        wrong = rows_in(linked & bitmap_of(differing, data.n))
        if not len(wrong):
            return []
        return [f"{len(wrong)} packed nodes differ from their lists and codes, the first is row {wrong[0]}"]
