"""Build a graph of many rows at once from random partitions (ADR 20). kernels/graph/partition.h describes the steps.

The rows are divided into overlapping clusters around randomly chosen rows, the leaders. Each cluster is divided again
into overlapping leaves of about 240 rows. The nearest rows in the same leaf become candidate neighbors of each other.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qvec._kernels import PartitionLinker, trim_heap
from qvec.common.parallel import for_each
from qvec.common.types import NDArray
from qvec.index.base import CodeColumn, IndexInput
from qvec.index.graph import pruning
from qvec.index.graph_duplicates import repeats
from qvec.schema.layout import ADJACENCY, NODES
from qvec.schema.state import Rows

FANOUT_PER_EF = 9 / 128  # each row is assigned to this times ``ef`` clusters: 9 at ef_construction = 128
MIN_FANOUT, MAX_FANOUT = 4, 16
LEAF_FANOUT = 2  # each row of a cluster is assigned to this many of its leaves
NEAREST = 5  # each row gets this many candidates from each of its leaves
LEADERS_PER_SQRT_ROWS = 1.2  # number of leaders, divided by the square root of the number of rows ...
MIN_CLUSTER_ROWS = 1300  # ... unless clusters would have fewer rows than this, too few to divide
SEED = 1


@dataclass
class PartitionBuild:
    """Builds the adjacency lists of a graph, and marks the edges of its spanning tree. Distances are between ``codes``.

    ``root``: the row at the root of the spanning tree. ``ef``: determines how many clusters each row is assigned to.
    ``report``: called with the completed share of the work, 0 to 1.
    """

    data: IndexInput
    codes: CodeColumn
    root: int
    ef: int
    threads: int
    report: Callable[[float], object]

    def run(self, rows: Rows) -> Rows:
        """Build the graph of ``rows``, which ascend. Return the rows that were linked: one for each different code.

        A row whose code equals that of an earlier row is a duplicate: it is attached below the earlier row.
        """
        duplicates, originals = repeats(self.codes, rows)
        linked = np.setdiff1d(rows, duplicates)
        if len(linked) < 2:  # all codes are equal, and a graph needs two rows
            linked, duplicates, originals = rows[:2], duplicates[1:], originals[1:]
        linker = self._linker(linked)
        self._spill(linker, len(linked))
        steps: list[tuple[float, int, Callable[[int], None]]] = [
            (0.2, linker.n_assign, linker.assign),
            (0, 1, lambda _: linker.group()),
            (0.55, linker.n_clusters, linker.cluster),
            (0.15, linker.n_parts, linker.prune),
            (0, 1, lambda _: linker.reverse()),
            (0.1, linker.n_parts, linker.write),
        ]
        done = 0.0
        for share, n_units, step in steps:
            self._run_step(step, n_units, done, share)
            trim_heap()  # candidates and lists are freed in other steps than those that allocate them
            done += share
        linker.tree(duplicates, originals)
        return linked

    def _spill(self, linker: PartitionLinker, n: int) -> None:
        """Keep in a file what exceeds the memory of a build."""
        workspace = self.data.workspace
        memory = workspace.bytes_for(n, self.data.codes.codec.dim) - linker.cluster_bytes
        n_in_memory = min(max(memory, 0) // linker.part_bytes, linker.n_parts)
        if n_in_memory < linker.n_parts:
            linker.spill(n_in_memory, workspace.file((linker.n_parts - n_in_memory) * linker.part_bytes))

    def _run_step(self, step: Callable[[int], None], n_units: int, done: float, share: float) -> None:
        """Run the units of a step on all threads.

        Only the calling thread reports progress. Ctrl-C interrupts the calling thread between two units.
        """
        caller = threading.get_ident()

        def run(unit: int) -> None:
            step(unit)
            if threading.get_ident() == caller:
                self.report(done + share * unit / n_units)

        for_each(run, range(n_units), min(self.threads, n_units))

    def _linker(self, rows: NDArray[np.uint32]) -> PartitionLinker:
        data, codes, n = self.data, self.codes, len(rows)
        rule = pruning(data.codes.codec.metric, NODES in data.columns)
        fanout = min(max(round(self.ef * FANOUT_PER_EF), MIN_FANOUT), MAX_FANOUT)
        n_leaders = int(min(LEADERS_PER_SQRT_ROWS * math.sqrt(n), n * fanout / MIN_CLUSTER_ROWS))
        return PartitionLinker(
            codes.codec,
            codes.column,
            data.columns[ADJACENCY],
            data.n,
            rows,
            self.root,
            rule.alpha,
            rule.fill,
            fanout=fanout,
            leaf_fanout=LEAF_FANOUT,
            nearest=NEAREST,
            n_leaders=min(max(n_leaders, 2), n),
            seed=SEED,
        )
