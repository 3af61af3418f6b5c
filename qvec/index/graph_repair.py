"""Deleted rows leave a graph list by list, in as many transactions as one likes; see kernels/graph/repair.c.

A repair condemns the rows that are deleted when it begins, and goes through the lists in the order of rows. When it
has come to the end no list names them, and they are free for other vectors. Rows that are deleted meanwhile stay for
the next repair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvec._kernels import Mender
from qvec.common.parallel import run_on_threads
from qvec.index import packed
from qvec.index.base import Rows, Source
from qvec.index.graph import Graph, choose_entries, pruning
from qvec.schema.bitmaps import Bitmap, bytes_of, count, read_bitmap, rows_between, rows_in
from qvec.schema.layout import ADJACENCY, CONDEMNED, LINKED, NODES

STEP = 4096  # lists mended at a time


@dataclass
class Repair:
    """Takes deleted rows out of a graph, which is changed."""

    source: Source
    graph: Graph
    threads: int

    def run(self, limit: int) -> None:
        """Begin a repair, or go on with it, and mend at most ``limit`` lists, in whole blocks of them."""
        source, graph, coded = self.source, self.graph, self.source.coded
        held = read_bitmap(source.columns[LINKED], source.n)
        begins = graph.cursor is None
        condemned = held & source.deleted if begins else read_bitmap(source.columns[CONDEMNED], source.n)
        mender = Mender(
            coded.codec,
            coded.codes,
            source.columns[ADJACENCY],
            source.n,
            graph.root,
            pruning(coded.codec.metric, NODES in source.columns).alpha,
            source.deleted,
            condemned,
        )
        if begins and not self._begin(mender, condemned):
            self._end(held, condemned)
            return
        start, per_block = graph.cursor or 0, source.columns[ADJACENCY].rows_per_block
        graph.cursor = min(source.n, -(-(start + limit) // per_block) * per_block)
        self._mend(mender, rows_between(held & ~condemned, start, graph.cursor).astype(np.uint32))
        if graph.cursor == source.n:
            self._end(held, condemned)

    def _begin(self, mender: Mender, condemned: Bitmap) -> bool:
        """Condemn rows; whether any is left."""
        self.source.columns[CONDEMNED].write(0, bytes_of(condemned))
        self.graph.cursor, root = 0, mender.reroot()
        if root is None:
            return False
        self.graph.root = root
        self.graph.entries = np.union1d(self.graph.entries, [root]).astype(np.uint32)
        return True

    def _mend(self, mender: Mender, rows: Rows) -> None:
        """Mend the lists of rows."""
        from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

        with ThreadPoolExecutor(self.threads) as pool:
            for i in range(0, len(rows), STEP):
                step = rows[i : i + STEP]
                mender.begin(step)
                run_on_threads(mender.relink, min(self.threads, (len(step) + 3) // 4), pool)
                mender.hand_on()
            packed.keep_up(self.source, mender, self.threads, pool)

    def _end(self, held: Bitmap, condemned: Bitmap) -> None:
        """Let go of the condemned rows, and choose entries among the others."""
        source, graph = self.source, self.graph
        left = held & ~condemned
        source.columns[LINKED].write(0, bytes_of(left))
        source.columns[CONDEMNED].write(0, bytes_of(np.zeros_like(left)))
        graph.linked, graph.dead, graph.cursor = count(left), count(left & source.deleted), None
        live = rows_in(left & ~source.deleted)
        graph.entries, graph.chosen_at = choose_entries(source.coded, graph.root, live), graph.linked
