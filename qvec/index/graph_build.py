"""Links rows into a graph, in batches that need no locks. The steps of a batch are in kernels/graph/build.c.

For small batches, only the nearest neighbors get reverse edges at once. Later sweeps over the adjacency lists add the
deferred reverse edges: consecutive lists share pages of the file, so a sweep rewrites fewer pages (ADR 11).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qvec._kernels import Linker
from qvec.common.parallel import run_on_threads, thread_pool
from qvec.index import graph_nodes
from qvec.index.base import CodeColumn, IndexInput, Progress
from qvec.index.graph import Graph, choose_entries, pruning
from qvec.index.graph_codes import batch_codes, is_scaled_int8, partition_codes
from qvec.index.graph_duplicates import COARSE_KINDS, repeats, with_linked_rows
from qvec.index.graph_partition import PartitionBuild
from qvec.schema.bitmaps import are_in, bitmap_of, count, mark, read_bitmap, rows_in
from qvec.schema.layout import ADJACENCY, LINKED, NODES, REMOVING
from qvec.schema.state import Rows

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

BATCH_FRACTION = 50  # a batch has at most n / 50 rows, because its searches do not see rows of the same batch
MAX_BATCH_ROWS = 1024  # each row of a batch is scored against all others of the batch
MAX_EDGES = 128  # edges of a row

MIN_PARTITION_ROWS = 4096  # an add of fewer rows inserts them in batches
SMALL_ROWS, SMALL_DIM = 50_000, 64  # a graph of fewer rows and dimensions is built by insertion, and finds more
MAX_HASHED_PER_ROW = 256  # for each added row, codes of at most this many rows are read to find duplicates
MAX_LINKED_PER_ROW = 3  # the graph is rebuilt if it has fewer than this many rows for each added row (ADR 20)

NO_ROWS = np.zeros(0, np.uint32)

DEFERRING_BATCH_ROWS = 8  # adds of up to this many rows defer reverse edges: each edge changes a page of lists
IMMEDIATE_REVERSE_EDGES = 8  # not deferred, for each row of such an add
LISTS_PER_ROW = 128  # a sweep visits this many lists for each added row ...
MAX_STEPS_PER_SWEEP = 512  # ... or more, so that it ends after this many adds of one row
LISTS_PER_THREAD = 2048  # a sweep of fewer lists takes less time than the start of another thread
ROWS_PER_SWEEP_STEP = 4  # the steps of this many adds of one row are taken together


@dataclass
class GraphBuild:
    """Links rows into a graph, which is changed in place.

    ``ef``: size of the candidate list in searches for neighbors.
    """

    data: IndexInput
    graph: Graph
    ef: int
    threads: int
    progress: Progress | None = None

    def run(self, rows: Rows) -> None:
        """Link the rows.

        If there are few, most of their reverse edges are added later. Without rows, add all pending ones.
        """
        data, graph = self.data, self.graph
        if self.builds_by_partitions(len(rows)):
            self._rebuild(rows)
            return
        mark(data.columns[LINKED], rows, True)
        if graph.indexed == 0 and len(rows):
            graph.root = int(rows[0])
        n_reverse = IMMEDIATE_REVERSE_EDGES if len(rows) <= DEFERRING_BATCH_ROWS else MAX_EDGES
        with thread_pool(self.threads) as pool:
            codes = batch_codes(data, rows, self.threads)
            linker, done = self._linker(codes), 0
            equal, first, passed = self._duplicates(linker, codes, rows)
            alone = rows[~np.isin(rows, equal)] if len(equal) else rows
            skipped = len(passed) - len(equal)  # linked rows that searches for neighbors skip
            while done < len(alone):
                stop = done + min(max(1, (graph.indexed - skipped) // BATCH_FRACTION), MAX_BATCH_ROWS)
                self._link_batch(linker, alone[done:stop], pool, n_reverse)
                done = min(stop, len(alone))
                self._update_entries(linker, np.concatenate([alone[done:], passed, equal]))
                if self.progress is not None:
                    self.progress(done, len(rows))
            if len(equal):
                linker.link_duplicates(equal, first)
                graph.indexed += len(equal)
            self._sweep(linker, pool, self._lists_to_sweep(rows))
            graph_nodes.update_nodes(data, linker, self.threads, pool)
        if self.progress is not None and len(equal):
            self.progress(len(rows), len(rows))

    def _duplicates(self, linker: Linker, codes: CodeColumn, rows: Rows) -> tuple[Rows, Rows, Rows]:
        """Find duplicates: rows whose code equals that of an earlier row. Searches now skip them.

        Returns the new duplicates, the linked row of each, and all skipped rows. All codes must be read. A small add
        to a large graph only compares the new rows; its searches find linked rows with equal codes.
        """
        data, graph = self.data, self.graph
        linked = read_bitmap(data.columns[LINKED], data.n) & ~data.deleted
        if count(linked) > MAX_HASHED_PER_ROW * len(rows):
            if codes.codec.kind in COARSE_KINDS:  # many different vectors have equal codes
                return NO_ROWS, NO_ROWS, NO_ROWS
            linker.set_distinct(True)
            return *(repeats(codes, rows) if len(rows) > 1 else (NO_ROWS, NO_ROWS)), NO_ROWS
        equal, first = with_linked_rows(data, *repeats(codes, rows_in(linked).astype(np.uint32)), rows)
        passed = np.setdiff1d(equal, [*graph.entries, graph.root]).astype(np.uint32)
        linker.set_repeats(bitmap_of(passed, data.n))
        new = np.isin(equal, rows) & np.isin(equal, passed)
        return equal[new], first[new], passed

    def builds_by_partitions(self, n_rows: int) -> bool:
        """Whether adding rows rebuilds the graph. Never under "ip", because dot products are not distances."""
        data, codec = self.data, self.data.codes.codec
        comparable = is_scaled_int8(codec) or (data.vectors is not None and codec.kind != "binary")
        many = n_rows >= MIN_PARTITION_ROWS and self.graph.indexed < MAX_LINKED_PER_ROW * n_rows
        small = codec.dim < SMALL_DIM and self.graph.indexed + n_rows < SMALL_ROWS
        return codec.metric != "ip" and comparable and many and not small

    def _rebuild(self, rows: Rows) -> None:
        """Build a new graph of the live rows and of ``rows``, without tombstones. The old edges are not read."""
        data, graph = self.data, self.graph
        linked = read_bitmap(data.columns[LINKED], data.n)
        live = rows_in((linked | bitmap_of(rows, data.n)) & ~data.deleted)
        root = graph.root if graph.indexed and graph.root in live else int(live[0])
        codes = partition_codes(data, live, self.threads)
        build = PartitionBuild(data, codes, root, self.ef, self.threads, self._report(len(rows)))
        alone = build.run(live.astype(np.uint32))
        entries = choose_entries(data.codes, root, alone.astype(np.int64))
        vars(graph).update(vars(Graph(len(live), 0, root, entries, len(live))))
        with thread_pool(self.threads) as pool:
            graph_nodes.pack_new_nodes(data, live.astype(np.uint32), self.threads, pool)
        for name in (LINKED, REMOVING):
            if name in data.columns:
                mark(data.columns[name], rows_in(read_bitmap(data.columns[name], data.n)), False)
        mark(data.columns[LINKED], live, True)
        if self.progress is not None:
            self.progress(len(rows), len(rows))

    def _report(self, n_rows: int) -> Callable[[float], object]:
        """Return a function that reports a share of the work as a number of rows."""
        progress = self.progress
        return (lambda share: None) if progress is None else lambda share: progress(int(share * n_rows), n_rows)

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

    def _link_batch(self, linker: Linker, rows: Rows, pool: ThreadPoolExecutor, n_reverse: int) -> None:
        threads = min(self.threads, (len(rows) + 3) // 4)
        linker.begin(rows)
        run_on_threads(lambda: linker.link_out(self.ef, n_reverse), threads, pool)
        linker.group()
        run_on_threads(linker.link_in, threads, pool)
        linker.finish()
        self.graph.indexed += len(rows)

    def _update_entries(self, linker: Linker, waiting: Rows) -> None:
        """Choose new entries if the graph has doubled or, when no rows are waiting, has grown by a fifth."""
        graph, data = self.graph, self.data
        if graph.indexed < (2 if len(waiting) else 1.2) * graph.entries_chosen_at:
            return
        linked = read_bitmap(data.columns[LINKED], data.n) & ~bitmap_of(waiting, data.n)
        live = rows_in(linked & ~data.deleted)
        graph.entries, graph.entries_chosen_at = choose_entries(data.codes, graph.root, live), graph.indexed
        linker.set_entries(graph.entries, graph.root)

    # --- pending reverse edges ---

    def _lists_to_sweep(self, rows: Rows) -> int:
        """Return how many lists the sweep visits after these rows were linked; all lists if there are no rows."""
        graph, n, added = self.graph, self.data.n, len(rows)
        if added == 0:
            return n
        if added <= DEFERRING_BATCH_ROWS:
            before = len(graph.pending_rows) // ROWS_PER_SWEEP_STEP
            graph.add_pending(rows)
            added = max(len(graph.pending_rows) // ROWS_PER_SWEEP_STEP - before, 0) * ROWS_PER_SWEEP_STEP
        return added * max(LISTS_PER_ROW, -(-n // MAX_STEPS_PER_SWEEP))

    def _sweep(self, linker: Linker, pool: ThreadPoolExecutor, n_lists: int) -> None:
        """Add pending reverse edges to the next ``n_lists`` lists.

        After a sweep, rows that were pending before are done.
        """
        graph, n = self.graph, self.data.n
        if n_lists >= n:
            self._flush_reverse_edges(linker, pool, 0, n)
            graph.pending_rows, graph.pending_in_sweep, graph.reverse_edge_cursor = np.zeros(0, np.uint32), 0, 0
            return
        if n_lists == 0:
            return
        if graph.reverse_edge_cursor == 0:
            graph.pending_in_sweep = len(graph.pending_rows)
        stop = graph.reverse_edge_cursor + n_lists
        self._flush_reverse_edges(linker, pool, graph.reverse_edge_cursor, min(stop, n))
        if stop >= n:  # the next sweep begins
            graph.pending_rows = graph.pending_rows[graph.pending_in_sweep :]
            graph.pending_in_sweep, stop = len(graph.pending_rows), stop - n
            self._flush_reverse_edges(linker, pool, 0, stop)
        graph.reverse_edge_cursor = stop

    def _flush_reverse_edges(self, linker: Linker, pool: ThreadPoolExecutor, first: int, stop: int) -> None:
        """Add pending reverse edges to the lists of the rows first..stop. Skip rows that were deleted since."""
        data, rows = self.data, self.graph.pending_rows[self.graph.pending_rows < self.data.n]
        rows = rows[are_in(read_bitmap(data.columns[LINKED], data.n) & ~data.deleted, rows)]
        if len(rows):
            linker.pending(rows, first, stop)
            linker.group()
            threads = min(self.threads, max(1, (stop - first) // LISTS_PER_THREAD))
            run_on_threads(linker.link_in, threads, pool)
