"""Deleted rows leave a graph list by list, in as many transactions as one likes; see kernels/graph/repair.c.

A repair condemns the rows that are deleted when it begins, and goes through the lists in the order of rows. When it
has come to the end no list names them, and they are free for other vectors. Rows that are deleted meanwhile stay for
the next repair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvec._kernels import GraphRepair
from qvec.common.parallel import run_on_threads
from qvec.index import graph_nodes
from qvec.index.base import IndexInput, Rows
from qvec.index.graph import Graph, choose_entries, pruning
from qvec.schema.bitmaps import Bitmap, bytes_of, count, read_bitmap, rows_between, rows_in
from qvec.schema.layout import ADJACENCY, LINKED, NODES, REMOVING

STEP = 4096  # lists mended at a time


@dataclass
class Repair:
    """Takes deleted rows out of a graph, which is changed."""

    data: IndexInput
    graph: Graph
    threads: int

    def run(self, limit: int) -> None:
        """Begin a repair, or go on with it, and mend at most ``limit`` lists, in whole blocks of them."""
        data, graph, codes = self.data, self.graph, self.data.codes
        held = read_bitmap(data.columns[LINKED], data.n)
        begins = graph.repair_cursor is None
        condemned = held & data.deleted if begins else read_bitmap(data.columns[REMOVING], data.n)
        repair = GraphRepair(
            codes.codec,
            codes.column,
            data.columns[ADJACENCY],
            data.n,
            graph.root,
            pruning(codes.codec.metric, NODES in data.columns).alpha,
            data.deleted,
            condemned,
        )
        if begins and not self._begin(repair, condemned):
            self._end(held, condemned)
            return
        start, per_block = graph.repair_cursor or 0, data.columns[ADJACENCY].rows_per_block
        graph.repair_cursor = min(data.n, -(-(start + limit) // per_block) * per_block)
        self._mend(repair, rows_between(held & ~condemned, start, graph.repair_cursor).astype(np.uint32))
        if graph.repair_cursor == data.n:
            self._end(held, condemned)

    def _begin(self, repair: GraphRepair, condemned: Bitmap) -> bool:
        """Condemn rows; whether any is left."""
        self.data.columns[REMOVING].write(0, bytes_of(condemned))
        self.graph.repair_cursor, root = 0, repair.replace_root()
        if root is None:
            return False
        self.graph.root = root
        self.graph.entries = np.union1d(self.graph.entries, [root]).astype(np.uint32)
        return True

    def _mend(self, repair: GraphRepair, rows: Rows) -> None:
        """Mend the lists of rows."""
        from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

        with ThreadPoolExecutor(self.threads) as pool:
            for i in range(0, len(rows), STEP):
                step = rows[i : i + STEP]
                repair.begin(step)
                run_on_threads(repair.relink, min(self.threads, (len(step) + 3) // 4), pool)
                repair.reparent_children()
            graph_nodes.keep_up(self.data, repair, self.threads, pool)

    def _end(self, held: Bitmap, condemned: Bitmap) -> None:
        """Let go of the condemned rows, and choose entries among the others."""
        data, graph = self.data, self.graph
        left = held & ~condemned
        data.columns[LINKED].write(0, bytes_of(left))
        data.columns[REMOVING].write(0, bytes_of(np.zeros_like(left)))
        graph.indexed, graph.tombstones, graph.repair_cursor = count(left), count(left & data.deleted), None
        live = rows_in(left & ~data.deleted)
        graph.entries, graph.entries_chosen_at = choose_entries(data.codes, graph.root, live), graph.indexed
