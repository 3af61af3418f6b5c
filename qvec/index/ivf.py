"""Inverted lists: each vector is kept with its nearest centroids, and a search scans the lists that are near the query.

Lists hold one bit a dimension of what a centroid leaves of a vector, in blocks that are scanned in registers
(kernels/ivf/lists.h). What may be near by these is scored by the codes in force, and re-ranked. Lists are of the
vectors, not of the codes: other codes need no other lists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from qvec._kernels import LIST_BYTES, Codec, ListFinder, Lists, list_block_bytes
from qvec.codes.configs import IVF
from qvec.codes.registry import Quantizer
from qvec.codes.transforms import rotation_signs
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, NDArray
from qvec.index.base import IndexInput, IndexState, Progress, Rows
from qvec.index.ivf_check import ENTRIES_PER_BLOCK, NOWHERE, check_lists
from qvec.index.ivf_clusters import TRAINING_ROWS_PER_LIST, assign, cluster
from qvec.schema.layout import CENTROIDS, LIST_BLOCKS, LISTS, SLOTS, block_column, narrow_column, wide_column
from qvec.storage.store import ColumnSpec

LISTS_PER_ROOT = 4.0  # lists for n vectors: this times the root of n
MIN_ROWS = 16  # of a list, on average, where the number of lists is chosen
REGROWN = 4  # vectors are grouped anew when there are so many times as many as there were
CHUNK = 8192  # vectors held as floats
COARSE_BITS = 2.0  # codes of fewer bits a dimension tell no more than the lists do


@dataclass(frozen=True)
class Layout:
    """What the state remembers. ``clustered_at``: how many vectors there were when centroids were last chosen."""

    dim: int
    metric: str
    seed: int
    n_lists: int
    clustered_at: int
    n_blocks: int = 0
    n_free: int = 0
    free_block: int = NOWHERE

    @classmethod
    def of(cls, state: IndexState) -> Self | None:
        """The layout that a state describes; None: there are no lists yet."""
        return cls(**state["lists"]) if state.get("lists") else None

    def open(self, data: IndexInput) -> Lists:
        """The lists themselves."""
        columns = data.columns
        return Lists(
            columns[LIST_BLOCKS],
            columns[LISTS],
            columns[CENTROIDS],
            columns[SLOTS],
            self.dim,
            self.metric,
            rotation_signs(self.seed, dims_for(self.dim)),
            self.n_lists,
            data.n,
            self.n_blocks,
            self.n_free,
            self.free_block,
        )

    def state_with(self, lists: Lists) -> IndexState:
        """The state after changes of the lists."""
        fields = {name: getattr(self, name) for name in ("dim", "metric", "seed", "n_lists", "clustered_at")}
        fields |= {"n_blocks": lists.n_blocks, "n_free": lists.n_free, "free_block": lists.free_block}
        return {"kind": IVFIndex.kind, "lists": fields}


def dims_for(dim: int) -> int:
    """Dimensions of a rotated vector."""
    return -(-dim // 64) * 64


def _centroid_codec(dims: int) -> Codec:
    """What centroids are stored as."""
    return Codec("f32", "l2", dims)


def lists_for(n: int) -> int:
    """How many lists n vectors are best put into."""
    return max(1, min(round(LISTS_PER_ROOT * math.sqrt(n)), n // MIN_ROWS))


class IVFIndex:
    """See :class:`qvec.index.base.Index`. State: ``lists``, the fields of :class:`Layout`."""

    kind: ClassVar[str] = "ivf"
    built_from_codes: ClassVar[bool] = False

    def __init__(self, config: IVF) -> None:
        self.config = config

    def columns(self, quantizer: Quantizer) -> dict[str, ColumnSpec]:
        dims = dims_for(quantizer.dim)
        return {
            LIST_BLOCKS: block_column(LIST_BLOCKS, list_block_bytes(dims)),
            LISTS: narrow_column(LISTS, LIST_BYTES),
            CENTROIDS: wide_column(CENTROIDS, _centroid_codec(dims).stride),
            SLOTS: narrow_column(SLOTS, 4 * self.config.copies),
        }

    def extend(
        self, data: IndexInput, state: IndexState, rows: Rows, threads: int, progress: Progress | None
    ) -> IndexState:
        layout, live = Layout.of(state), len(data.live)
        data.columns[SLOTS].resize(data.n)
        if layout is None or live >= REGROWN * layout.clustered_at:
            rows = data.live.astype(np.uint32)
            layout = self._group(data, rows, threads, progress)
        lists = layout.open(data)
        _put(data, lists, rows, self._copies(layout), threads, progress)
        return layout.state_with(lists)

    def _copies(self, layout: Layout) -> int:
        return min(self.config.copies, layout.n_lists)

    def _group(self, data: IndexInput, rows: Rows, threads: int, progress: Progress | None) -> Layout:
        """Choose centroids for the rows, and begin their lists anew; none holds anything yet."""
        assert data.vectors is not None
        quantizer = data.vectors.quantizer
        n_lists = self._n_lists(len(rows))
        columns = data.columns
        layout = Layout(
            quantizer.dim, quantizer.metric, self.config.seed, n_lists, len(rows), -(-n_lists // ENTRIES_PER_BLOCK)
        )
        columns[LISTS].resize(n_lists + 1)
        columns[CENTROIDS].resize(n_lists + 1)
        columns[LIST_BLOCKS].resize(layout.n_blocks)
        for start in range(0, data.n, CHUNK):
            stop = min(start + CHUNK, data.n)
            columns[SLOTS].write(start, np.full((stop - start, 4 * self.config.copies), 255, np.uint8))
        rng = np.random.default_rng(self.config.seed)
        y = self._sample(data, layout, rows, rng)
        rounds = None if progress is None else lambda done, total: progress(len(rows) * done // (2 * total), len(rows))
        cluster(layout.open(data), y, rng, threads, rounds)
        return layout

    def _n_lists(self, n: int) -> int:
        if self.config.nlist == "auto":
            return lists_for(n)
        if self.config.nlist > n:
            raise InputError(
                f"IVF.nlist={self.config.nlist} is more than the {n} vectors to make lists of: add that many at once, "
                f"or create the collection with nlist='auto'"
            )
        return self.config.nlist

    def _sample(self, data: IndexInput, layout: Layout, rows: Rows, rng: np.random.Generator) -> Float32Array:
        """Vectors to learn from, in the space of the lists; their mean, the origin of that space, is stored."""
        size = min(len(rows), TRAINING_ROWS_PER_LIST * layout.n_lists)
        chosen = np.sort(rng.choice(rows, size, replace=False)) if size < len(rows) else rows
        centroids = data.columns[CENTROIDS]
        centroids.write(layout.n_lists, np.zeros((1, centroids.stride), np.uint8))
        lists = layout.open(data)  # its mean is zero as yet
        y = np.empty((size, lists.dims), np.float32)
        for start in range(0, size, CHUNK):
            y[start : start + CHUNK] = lists.vectors(data.read_vectors(chosen[start : start + CHUNK]))
        mean = y.mean(axis=0, dtype=np.float64).astype(np.float32)
        centroids.write(layout.n_lists, _centroid_codec(lists.dims).encode(mean[None]))
        y -= mean
        return y

    def drop(self, data: IndexInput, state: IndexState, rows: Rows, threads: int) -> IndexState:
        layout = Layout.of(state)
        if layout is None:
            return state
        lists = layout.open(data)
        lists.remove(rows)
        return layout.state_with(lists)

    def repair_due(self, state: IndexState) -> bool:
        return False

    def repair(self, data: IndexInput, state: IndexState, limit: int, threads: int) -> IndexState:
        return state

    def referenced_rows(self, data: IndexInput, state: IndexState) -> None:
        return None  # rows leave their lists when they are deleted

    def unused_rows(self, data: IndexInput, state: IndexState) -> dict[str, NDArray[np.int64]]:
        layout = Layout.of(state)
        if layout is None:
            return {}
        return {LIST_BLOCKS: np.arange(layout.n_blocks, data.columns[LIST_BLOCKS].n_rows)}

    def n_lists(self, state: IndexState) -> int:
        layout = Layout.of(state)
        return 0 if layout is None else layout.n_lists

    def finder(self, data: IndexInput, state: IndexState) -> ListFinder | None:
        layout = Layout.of(state)
        if layout is None:
            return None
        stored, codes, lists = data.vectors, data.codes, layout.open(data)
        assert stored is not None
        if 8 * codes.codec.data_size < COARSE_BITS * codes.codec.dim and stored.column is not codes.column:
            return ListFinder(lists, codes.codec, codes.column, False, stored.quantizer.codec, stored.column)
        return ListFinder(lists, codes.codec, codes.column, codes.codec.kind != "binary")

    def check(self, data: IndexInput, state: IndexState, deep: bool) -> list[str]:
        layout = Layout.of(state)
        if layout is None:
            return ["rows are in no list"] if len(data.live) else []
        return check_lists(data, layout.open(data), self._copies(layout), deep)


def _put(data: IndexInput, lists: Lists, rows: Rows, copies: int, threads: int, progress: Progress | None) -> None:
    """Put rows into their lists, list by list, so that what comes at once lies together."""
    owners = np.empty((len(rows), copies), np.uint32)
    blank = np.full((CHUNK, data.columns[SLOTS].stride), 255, np.uint8)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        data.columns[SLOTS].put(rows[part], blank[: len(rows[part])])
        owners[part] = assign(lists, lists.vectors(data.read_vectors(rows[part])), copies, threads)[0]
        if progress is not None:
            progress((len(rows) + start) // 2, len(rows))
    _make_room(data, lists, owners)
    order = np.argsort(owners.T.reshape(-1), kind="stable")
    for start in range(0, len(order), CHUNK):
        copy, at = np.divmod(order[start : start + CHUNK], len(rows))
        y = lists.vectors(data.read_vectors(rows[at]))
        lists.append(rows[at], y, owners[at, copy], copy.astype(np.uint8))
    if progress is not None:
        progress(len(rows), len(rows))


def _make_room(data: IndexInput, lists: Lists, owners: NDArray[np.uint32]) -> None:
    """Blocks for entries that are to come."""
    held = data.columns[LISTS].read_range(0, lists.n_lists).view("<u4")[:, 1].astype(np.int64)
    more = np.bincount(owners.reshape(-1), minlength=lists.n_lists)
    needed = int((-(-(held + more) // ENTRIES_PER_BLOCK) + held // -ENTRIES_PER_BLOCK).sum())
    data.columns[LIST_BLOCKS].resize(lists.n_blocks + max(0, needed - lists.n_free))
