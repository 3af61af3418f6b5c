"""A graph besides its lists: where walks start, and the tree that keeps every row reachable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from qvec.common.types import Float32Array, NDArray
from qvec.index.base import Coded, IndexState, Rows

ENTRIES = 64
SAMPLE = 4096
LLOYD_ROUNDS = 4
_NUMBERS = ("linked", "dead", "root", "chosen_at", "cursor", "owed_before", "answered")


class Pruning(NamedTuple):
    """``alpha``: a neighbor s hides another e where alpha * d(s, e) <= d(u, e), squared distances.

    ``fill``: up to this share of a list, the nearest that are hidden are kept as well.
    """

    alpha: float
    fill: float


def pruning(metric: str, packed: bool) -> Pruning:
    """How lists are pruned; what was measured is in docs/adr, 2 and 7."""
    if metric == "ip":  # negated dot products are no distances, to be stretched; a long vector hides nearly all others
        return Pruning(1.0, 0.75)
    return Pruning(1.05, 0.75) if packed else Pruning(1.1, 0.0)  # a packed node's places are scored, filled or not


@dataclass(frozen=True)
class GraphShape:
    """``degree``: links of a live row, on average; ``reachable``: live rows that walks from the entries can reach."""

    degree: float
    reachable: int


@dataclass
class Graph:
    """What is known of a graph besides its lists.

    ``linked``: rows that it holds; ``dead``: those of them that are deleted. ``entries``: where walks start, the
    ``root`` of the tree among them; ``chosen_at``: rows that it held when these were last chosen. ``cursor``: while
    a repair is running, the first row whose list is still to be mended. ``owed``: rows that were added a few at a time,
    in that order, and whose farther neighbors have no edge back to them yet. Passes over all lists add these edges:
    ``answered`` is the row that the next step of a pass begins with, ``owed_before`` how many rows were owed some when
    the pass began, and will be owed none when it ends.
    """

    linked: int = 0
    dead: int = 0
    root: int = 0
    entries: Rows = field(default_factory=lambda: np.zeros(0, np.uint32))
    chosen_at: int = 0
    cursor: int | None = None
    owed: Rows = field(default_factory=lambda: np.zeros(0, np.uint32))
    owed_before: int = 0
    answered: int = 0

    @classmethod
    def of(cls, state: IndexState) -> Self:
        """The graph that a state describes; an empty one where it describes none yet."""
        if not state.get("linked"):
            return cls()
        entries, owed = (np.frombuffer(state[name], "<u4").astype(np.uint32) for name in ("entries", "owed"))
        numbers = {name: state[name] for name in _NUMBERS}
        return cls(entries=entries, owed=owed, **numbers)

    def to_state(self) -> IndexState:
        """Plain data for :meth:`of`."""
        rows = {"entries": self.entries.astype("<u4").tobytes(), "owed": self.owed.astype("<u4").tobytes()}
        return {name: getattr(self, name) for name in _NUMBERS} | rows

    def owe(self, rows: Rows) -> None:
        """Some rows are owed edges; one that was, as another vector, no longer is."""
        again = np.isin(self.owed, rows)
        self.owed_before -= int(again[: self.owed_before].sum())
        self.owed = np.concatenate([self.owed[~again], rows]).astype(np.uint32)


def choose_entries(coded: Coded, root: int, rows: NDArray[np.int64]) -> Rows:
    """Up to 64 of the rows to start walks from: the root of the tree, and medoids of a sample (Lloyd's k-means)."""
    if len(rows) <= ENTRIES:
        return np.union1d([root], rows).astype(np.uint32)
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(np.int64))]
    x = coded.codec.decode(coded.codes.read(sample))
    return np.union1d([root], sample[_medoids(x, ENTRIES - 1)]).astype(np.uint32)


def _medoids(x: Float32Array, k: int) -> NDArray[np.int64]:
    x = x - x.mean(axis=0)
    centroids = x[np.linspace(0, len(x) - 1, k).astype(np.int64)]
    for _ in range(LLOYD_ROUNDS):
        owner = np.argmin(_distances(x, centroids), axis=1)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(k + 1))
        filled = np.flatnonzero(np.diff(bounds))
        sums = np.add.reduceat(x[order], bounds[filled], axis=0)
        centroids[filled] = sums / np.diff(bounds)[filled, None]
    nearest: NDArray[np.int64] = np.argmin(_distances(x, centroids), axis=0)
    return nearest


def _distances(x: Float32Array, centroids: Float32Array) -> Float32Array:
    """Squared distances but for |x|^2, which shifts a row as a whole."""
    shifted: Float32Array = np.einsum("ij,ij->i", centroids, centroids) - 2 * (x @ centroids.T)
    return shifted
