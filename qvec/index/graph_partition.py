"""Builds a graph of many rows at once, by partitions (ADR 20). The steps are in kernels/graph/partition.h."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qvec._kernels import PartitionLinker
from qvec.common.parallel import for_each
from qvec.common.types import NDArray
from qvec.index.base import CodeColumn, IndexInput
from qvec.index.graph import pruning
from qvec.index.graph_duplicates import repeats
from qvec.schema.layout import ADJACENCY, NODES
from qvec.schema.state import Rows

FANOUT_PER_EF = 1 / 16  # clusters of a row: 8 at ef_construction = 128
MIN_FANOUT, MAX_FANOUT = 4, 16
LEAF_FANOUT = 2
NEAREST = 5  # rows of a leaf that are candidates for each other
LEADERS_PER_ROOT = 1.2  # clusters, times the square root of the number of rows ...
MIN_CLUSTER_ROWS = 1300  # ... unless these would be too small to be divided into leaves
SEED = 1


@dataclass
class PartitionBuild:
    """Builds the lists of a graph of ``rows``, ascending, and its tree, by ``codes``.

    ``ef``: sets the number of clusters of a row. ``report``: called with the share of the work that is done.
    """

    data: IndexInput
    codes: CodeColumn
    root: int
    ef: int
    threads: int
    report: Callable[[float], object]

    def run(self, rows: Rows) -> Rows:
        """Build the lists. Rows with equal codes hang below the first of them. Return the rows that do not hang."""
        later, first = repeats(self.codes, rows)
        alone = np.setdiff1d(rows, later)
        if len(alone) < 2:
            alone, later, first = rows[:2], later[1:], first[1:]
        linker = self._linker(alone)
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
            done += share
        linker.tree(later, first)
        return alone

    def _run_step(self, step: Callable[[int], None], n_units: int, done: float, share: float) -> None:
        """Run the units on all threads. The calling thread reports, and Ctrl-C interrupts it between units."""
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
        n_leaders = int(min(LEADERS_PER_ROOT * math.sqrt(n), n * fanout / MIN_CLUSTER_ROWS))
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
