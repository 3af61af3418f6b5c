"""State of a graph outside its adjacency lists, the choice of entry points, and the rule that prunes lists."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import NamedTuple, Self

import numpy as np

from qvec.codes.kmeans import lloyd
from qvec.common.types import NDArray
from qvec.index.base import CodeColumn
from qvec.schema.state import GraphState, IndexState, Rows

MAX_ENTRIES = 64
ENTRY_SAMPLE_ROWS = 4096
ENTRY_KMEANS_ROUNDS = 4


class Pruning(NamedTuple):
    """``alpha``: neighbor s of u occludes neighbor e if alpha * d(s, e) <= d(u, e), in squared distances.

    ``fill``: up to this share of its slots, a list is filled with the nearest occluded neighbors.
    """

    alpha: float
    fill: float


def pruning(metric: str, packed: bool) -> Pruning:
    """Return the rule that prunes adjacency lists (measured, ADRs 2 and 7)."""
    if metric == "ip":  # alpha is for distances only, and a long vector occludes nearly all others
        return Pruning(1.0, 0.75)
    return Pruning(1.05, 0.75) if packed else Pruning(1.1, 0.0)  # a packed node with empty slots costs the same


@dataclass(frozen=True)
class GraphShape:
    """``degree``: average number of edges of a live row; ``reachable``: live rows that walks can reach."""

    degree: float
    reachable: int


@dataclass
class Graph:
    """State of a graph outside its adjacency lists.

    - ``indexed``: number of linked rows; ``tombstones``: how many of these are deleted. - ``root``: root of the
    spanning tree; ``entries``: rows at which walks start, including the root; ``entries_chosen_at``:
      ``indexed`` when the entries were chosen.
    - ``repair_cursor``: first row whose list the running repair has not visited; None if no repair is running.
    - ``pending_rows``: rows with pending reverse edges, in the order of insertion. Sweeps over all lists add these
      edges. ``reverse_edge_cursor``: row at which the next step of the sweep begins; ``pending_in_sweep``: how many of
      these rows were pending when the sweep began. Their reverse edges are complete when it ends.
    """

    indexed: int = 0
    tombstones: int = 0
    root: int = 0
    entries: Rows = field(default_factory=lambda: np.zeros(0, np.uint32))
    entries_chosen_at: int = 0
    repair_cursor: int | None = None
    pending_rows: Rows = field(default_factory=lambda: np.zeros(0, np.uint32))
    pending_in_sweep: int = 0
    reverse_edge_cursor: int = 0

    @classmethod
    def of(cls, state: IndexState) -> Self:
        """Return the graph that an index state describes; an empty graph if nothing is indexed yet."""
        if not isinstance(state, GraphState) or not state.indexed:
            return cls()
        return cls(**{part.name: getattr(state, part.name) for part in fields(cls)})

    def state(self) -> GraphState:
        """Return the state that :meth:`of` decodes."""
        return GraphState(**vars(self)) if self.indexed else GraphState()

    def add_pending(self, rows: Rows) -> None:
        """Append rows to the pending rows. A row that was already pending for another vector moves to the end."""
        again = np.isin(self.pending_rows, rows)
        self.pending_in_sweep -= int(again[: self.pending_in_sweep].sum())
        self.pending_rows = np.concatenate([self.pending_rows[~again], rows]).astype(np.uint32)


def choose_entries(codes: CodeColumn, root: int, rows: NDArray[np.int64]) -> Rows:
    """Choose up to MAX_ENTRIES rows at which walks start: the root, and one row for each cluster of a sample.

    The row of a cluster has the largest dot product with the cluster's centroid.
    """
    if len(rows) <= MAX_ENTRIES:
        return np.union1d([root], rows).astype(np.uint32)
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), ENTRY_SAMPLE_ROWS)).astype(np.int64))]
    x = codes.codec.decode(codes.column.read(sample))
    x -= x.mean(axis=0)
    start = x[np.linspace(0, len(x) - 1, MAX_ENTRIES - 1).astype(np.int64)]
    centroids = lloyd(x, start, ENTRY_KMEANS_ROUNDS)
    return np.union1d([root], sample[np.argmax(x @ centroids.T, axis=0)]).astype(np.uint32)
