"""Removes deleted rows from a graph, list by list, in one or more transactions (kernels/graph/repair.c).

When a repair begins, it marks the deleted rows as "removing". Then it visits all adjacency lists in row order. When it
ends, no list refers to the marked rows, and they can be reused. Rows that are deleted in between wait for the next
repair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvec._kernels import GraphRepair
from qvec.common.parallel import run_on_threads, thread_pool
from qvec.common.types import Bitmap
from qvec.index import graph_nodes
from qvec.index.base import IndexInput
from qvec.index.graph import Graph, choose_entries, pruning
from qvec.schema.bitmaps import bytes_of, count, read_bitmap, rows_between, rows_in
from qvec.schema.layout import ADJACENCY, LINKED, NODES, REMOVING
from qvec.schema.state import Rows

LISTS_PER_STEP = 4096


@dataclass
class Repair:
    """Removes deleted rows from a graph, which is changed in place."""

    data: IndexInput
    graph: Graph
    threads: int

    def run(self, limit: int) -> None:
        """Begin or continue a repair: visit about ``limit`` lists, rounded up to whole blocks."""
        data, graph, codes = self.data, self.graph, self.data.codes
        linked = read_bitmap(data.columns[LINKED], data.n)
        begins = graph.repair_cursor is None
        removing = linked & data.deleted if begins else read_bitmap(data.columns[REMOVING], data.n)
        repair = GraphRepair(
            codes.codec,
            codes.column,
            data.columns[ADJACENCY],
            data.n,
            graph.root,
            pruning(codes.codec.metric, NODES in data.columns).alpha,
            data.deleted,
            removing,
        )
        if begins and not self._begin(repair, removing):
            self._end(linked, removing)
            return
        start, per_block = graph.repair_cursor or 0, data.columns[ADJACENCY].rows_per_block
        graph.repair_cursor = min(data.n, -(-(start + limit) // per_block) * per_block)
        self._repair_lists(repair, rows_between(linked & ~removing, start, graph.repair_cursor).astype(np.uint32))
        if graph.repair_cursor == data.n:
            self._end(linked, removing)

    def _begin(self, repair: GraphRepair, removing: Bitmap) -> bool:
        """Mark the rows to remove. Return False if no other row is left."""
        self.data.columns[REMOVING].write(0, bytes_of(removing))
        self.graph.repair_cursor, root = 0, repair.replace_root()
        if root is None:
            return False
        self.graph.root = root
        self.graph.entries = np.union1d(self.graph.entries, [root]).astype(np.uint32)
        return True

    def _repair_lists(self, repair: GraphRepair, rows: Rows) -> None:
        with thread_pool(self.threads) as pool:
            for i in range(0, len(rows), LISTS_PER_STEP):
                step = rows[i : i + LISTS_PER_STEP]
                repair.begin(step)
                run_on_threads(repair.relink, min(self.threads, (len(step) + 15) // 16), pool)
                repair.reparent_children()
            graph_nodes.update_nodes(self.data, repair, self.threads, pool)

    def _end(self, linked: Bitmap, removing: Bitmap) -> None:
        """Unlink the removed rows, and choose entries among the remaining rows."""
        data, graph = self.data, self.graph
        left = linked & ~removing
        data.columns[LINKED].write(0, bytes_of(left))
        data.columns[REMOVING].write(0, bytes_of(np.zeros_like(left)))
        graph.indexed, graph.tombstones, graph.repair_cursor = count(left), count(left & data.deleted), None
        live = rows_in(left & ~data.deleted)
        graph.entries, graph.entries_chosen_at = choose_entries(data.codes, graph.root, live), graph.indexed
