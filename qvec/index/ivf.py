"""The IVF index: each vector is in the inverted lists of its nearest centroids; a search scans the lists near the
query.

An entry of a list has one bit per dimension of the vector's residual from the centroid. Blocks of entries are scanned
in registers (kernels/ivf/lists.h). The candidates of this scan are scored by the active codes, then re-ranked. The
lists are derived from the vectors and do not depend on the codes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np

from qvec._kernels import LIST_BYTES, Codec, ListFinder, Lists, list_block_bytes
from qvec.codes.configs import IVF
from qvec.codes.registry import Quantizer
from qvec.codes.transforms import rotation_signs
from qvec.common.types import Float32Array, NDArray
from qvec.index.base import IndexInput, Progress
from qvec.index.ivf_check import ENTRIES_PER_BLOCK, check_lists, is_listed
from qvec.index.ivf_clusters import TRAINING_ROWS_PER_LIST, assign, cluster
from qvec.index.ivf_vectors import ListedVectors
from qvec.schema.layout import CENTROIDS, LIST_BLOCKS, LISTS, SLOTS, block_column, narrow_column, wide_column
from qvec.schema.quantizers import is_coarse
from qvec.schema.state import IndexState, ListLayout, ListsState, Rows
from qvec.storage.store import ColumnSpec

LISTS_PER_SQRT_ROWS = 4.0  # n vectors have this times sqrt(n) lists, if nlist="auto"
MIN_ROWS_PER_LIST = 16  # on average, if nlist="auto"
ROWS_PER_STEP = 8192  # vectors in memory as float32
LISTED_ROWS, LISTED_VALUES = 32_768, 10 << 20  # limits of what one transaction adds
MANY_LISTS = 4096  # from this number on, the time to assign a vector is proportional to it
CLUSTERED_ROWS, CLUSTERED_VALUES = 8192, 2 << 20  # ... or trains centroids on them
MIN_CODE_BITS = 2.0  # codes of fewer bits per dimension are no more exact than the entries of lists


def layout_of(state: IndexState) -> ListLayout | None:
    """Return the layout that a state describes. None: there are no lists yet."""
    return state.lists if isinstance(state, ListsState) else None


def open_lists(layout: ListLayout, data: IndexInput) -> Lists:
    """Open the inverted lists."""
    columns = data.columns
    return Lists(
        columns[LIST_BLOCKS],
        columns[LISTS],
        columns[CENTROIDS],
        columns[SLOTS],
        layout.dim,
        layout.metric,
        rotation_signs(layout.seed, dims_for(layout.dim)),
        layout.n_lists,
        data.n,
        layout.n_blocks,
        layout.n_free,
        layout.free_block,
    )


def _changed_state(layout: ListLayout, lists: Lists, more: int) -> ListsState:
    """Return the state after the lists have changed and contain ``more`` rows than before."""
    n_listed, blocks = layout.listed + more, (lists.n_blocks, lists.n_free, lists.free_block)
    changed = replace(layout, listed=n_listed, n_blocks=blocks[0], n_free=blocks[1], free_block=blocks[2])
    return ListsState(lists=changed)


def _has_coarse_vectors(data: IndexInput) -> bool:
    """Whether vectors are only stored as codes of few bits, from which no lists should be made."""
    assert data.vectors is not None
    return data.vectors.column is data.codes.column and is_coarse(data.vectors.quantizer)


def _vectors_of(data: IndexInput) -> ListedVectors:
    """Return the reader of the vectors that lists are made from."""
    if data.former is None or not _has_coarse_vectors(data):
        return ListedVectors(data)
    before, state = data.former
    layout = layout_of(state)
    return ListedVectors(data, None if layout is None else (open_lists(layout, before), before))


def dims_for(dim: int) -> int:
    """Return the dimensions of a rotated vector: a multiple of 64."""
    return -(-dim // 64) * 64


def _centroid_codec(dims: int) -> Codec:
    """Return the codec that stores centroids."""
    return Codec("f32", "l2", dims)


def lists_for(n: int) -> int:
    """Return the number of lists for n vectors, if nlist="auto"."""
    return max(1, min(round(LISTS_PER_SQRT_ROWS * math.sqrt(n)), n // MIN_ROWS_PER_LIST))


class IVFIndex:
    """See :class:`qvec.index.base.Index`. State: ``lists``, the fields of :class:`qvec.schema.state.ListLayout`."""

    kind: ClassVar[str] = "ivf"
    empty: ClassVar[IndexState] = ListsState()
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
        layout, live = layout_of(state), len(data.live)
        if layout is None and not len(rows):
            return state
        data.columns[SLOTS].resize(data.n)
        is_outgrown = isinstance(state, ListsState) and state.is_outgrown(live)
        if layout is None or (is_outgrown and 2 * len(rows) >= live):  # else qvec.maintenance.growth does it
            rows = data.live.astype(np.uint32)
            layout = self._cluster(data, rows, threads, progress)
        lists = open_lists(layout, data)
        _put(data, lists, rows, self._copies(layout), threads, progress)
        return _changed_state(layout, lists, len(rows))

    def max_rows(self, state: IndexState, live: int, dim: int) -> int:
        layout = layout_of(state)
        if layout is None or (isinstance(state, ListsState) and state.is_outgrown(live)):
            return max(1, min(CLUSTERED_ROWS, CLUSTERED_VALUES // dim))
        rows = min(LISTED_ROWS, LISTED_VALUES // dim)
        return max(1, rows * MANY_LISTS // max(layout.n_lists, MANY_LISTS))

    def defer(self, data: IndexInput, state: IndexState, rows: Rows) -> None:
        slots = data.columns[SLOTS]
        slots.resize(data.n)
        for start in range(0, len(rows), ROWS_PER_STEP):
            part = rows[start : start + ROWS_PER_STEP]
            slots.put(part, np.full((len(part), slots.stride), 255, np.uint8))

    def unindexed_rows(self, data: IndexInput, state: IndexState) -> Rows:
        if layout_of(state) is None:
            return data.live.astype(np.uint32)
        return data.live[~is_listed(data, data.live)].astype(np.uint32)

    def _copies(self, layout: ListLayout) -> int:
        return min(self.config.copies, layout.n_lists)

    def _cluster(self, data: IndexInput, rows: Rows, threads: int, progress: Progress | None) -> ListLayout:
        """Train centroids on the rows, and create an empty list for each."""
        assert data.vectors is not None
        quantizer = data.vectors.quantizer
        n_lists = self._n_lists(len(rows))
        columns = data.columns
        layout = ListLayout(
            quantizer.dim, quantizer.metric, self.config.seed, n_lists, len(rows), 0, -(-n_lists // ENTRIES_PER_BLOCK)
        )
        columns[LISTS].resize(n_lists + 1)
        columns[CENTROIDS].resize(n_lists + 1)
        columns[LIST_BLOCKS].resize(layout.n_blocks)
        for start in range(0, data.n, ROWS_PER_STEP):
            stop = min(start + ROWS_PER_STEP, data.n)
            columns[SLOTS].write(start, np.full((stop - start, 4 * self.config.copies), 255, np.uint8))
        rng = np.random.default_rng(self.config.seed)
        y = self._sample(data, layout, rows, rng)
        rounds = None if progress is None else lambda done, total: progress(len(rows) * done // (2 * total), len(rows))
        cluster(open_lists(layout, data), y, rng, threads, rounds)
        return layout

    def _n_lists(self, n: int) -> int:
        """Return the number of lists for n vectors, at most n. It grows with the number of vectors."""
        return lists_for(n) if self.config.nlist == "auto" else min(self.config.nlist, n)

    def _sample(self, data: IndexInput, layout: ListLayout, rows: Rows, rng: np.random.Generator) -> Float32Array:
        """Return training vectors in the coordinates of the lists, and store their mean, the origin of these
        coordinates."""
        size = min(len(rows), TRAINING_ROWS_PER_LIST * layout.n_lists)
        chosen = np.sort(rng.choice(rows, size, replace=False)) if size < len(rows) else rows
        centroids = data.columns[CENTROIDS]
        centroids.write(layout.n_lists, np.zeros((1, centroids.stride), np.uint8))
        lists = open_lists(layout, data)  # with a mean of zero
        y, vectors = np.empty((size, lists.dims), np.float32), _vectors_of(data)
        for start in range(0, size, ROWS_PER_STEP):
            y[start : start + ROWS_PER_STEP] = vectors.read(lists, chosen[start : start + ROWS_PER_STEP])[0]
        mean = y.mean(axis=0, dtype=np.float64).astype(np.float32)
        centroids.write(layout.n_lists, _centroid_codec(lists.dims).encode(mean[None]))
        y -= mean
        return y

    def drop(self, data: IndexInput, state: IndexState, rows: Rows, threads: int) -> IndexState:
        layout = layout_of(state)
        if layout is None:
            return state
        lists, n_listed = open_lists(layout, data), int(is_listed(data, rows).sum())
        lists.remove(rows)
        return _changed_state(layout, lists, -n_listed)

    def repair_due(self, state: IndexState) -> bool:
        return False

    def repair(self, data: IndexInput, state: IndexState, limit: int, threads: int) -> IndexState:
        return state

    def referenced_rows(self, data: IndexInput, state: IndexState) -> None:
        return None  # deleted rows are removed from their lists immediately

    def move(self, data: IndexInput, state: IndexState, old: Rows, new: Rows) -> bool:
        layout = layout_of(state)
        if layout is None or not is_listed(data, old).all():
            return False
        open_lists(layout, data).move(old, new)
        return True

    def unused_rows(self, data: IndexInput, state: IndexState) -> dict[str, NDArray[np.int64]]:
        layout = layout_of(state)
        if layout is None:
            return {}
        return {LIST_BLOCKS: np.arange(layout.n_blocks, data.columns[LIST_BLOCKS].n_rows)}

    def n_lists(self, state: IndexState) -> int:
        layout = layout_of(state)
        return 0 if layout is None else layout.n_lists

    def finder(self, data: IndexInput, state: IndexState) -> ListFinder | None:
        layout = layout_of(state)
        if layout is None:
            return None
        stored, codes, lists = data.vectors, data.codes, open_lists(layout, data)
        assert stored is not None
        if 8 * codes.codec.data_size < MIN_CODE_BITS * codes.codec.dim and stored.column is not codes.column:
            return ListFinder(lists, codes.codec, codes.column, False, stored.quantizer.codec, stored.column)
        return ListFinder(lists, codes.codec, codes.column, codes.codec.kind != "binary")

    def check(self, data: IndexInput, state: IndexState, deep: bool) -> list[str]:
        layout = layout_of(state)
        if layout is None:
            return []
        listed = data.live[is_listed(data, data.live)]
        if len(listed) != layout.listed:
            return [f"{len(listed)} live rows are in lists; the state says {layout.listed}"]
        exact = not _has_coarse_vectors(data)
        return check_lists(data, listed, open_lists(layout, data), self._copies(layout), deep, exact)


def _put(data: IndexInput, lists: Lists, rows: Rows, copies: int, threads: int, progress: Progress | None) -> None:
    """Append rows to their lists, list by list, so that entries that are added together share blocks."""
    owners, vectors = np.empty((len(rows), copies), np.uint32), _vectors_of(data)
    blank = np.full((ROWS_PER_STEP, data.columns[SLOTS].stride), 255, np.uint8)
    for start in range(0, len(rows), ROWS_PER_STEP):
        part = slice(start, start + ROWS_PER_STEP)
        data.columns[SLOTS].put(rows[part], blank[: len(rows[part])])
        owners[part] = assign(lists, vectors.read(lists, rows[part])[0], copies, threads)[0]
        if progress is not None:
            progress((len(rows) + start) // 2, len(rows))
    _reserve_blocks(data, lists, owners)
    order = np.argsort(owners.T.reshape(-1), kind="stable")
    for start in range(0, len(order), ROWS_PER_STEP):
        copy, at = np.divmod(order[start : start + ROWS_PER_STEP], len(rows))
        y, losses = vectors.read(lists, rows[at])
        lists.append(rows[at], y, owners[at, copy], copy.astype(np.uint8), losses)
    if progress is not None:
        progress(len(rows), len(rows))


def _reserve_blocks(data: IndexInput, lists: Lists, owners: NDArray[np.uint32]) -> None:
    """Resize the column of blocks for the entries to add."""
    sizes = data.columns[LISTS].read_range(0, lists.n_lists).view("<u4")[:, 1].astype(np.int64)
    more = np.bincount(owners.reshape(-1), minlength=lists.n_lists)
    needed = int((-(-(sizes + more) // ENTRIES_PER_BLOCK) + sizes // -ENTRIES_PER_BLOCK).sum())
    data.columns[LIST_BLOCKS].resize(lists.n_blocks + max(0, needed - lists.n_free))
