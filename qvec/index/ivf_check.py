"""Verification of inverted lists: every chain of blocks, every slot, every entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qvec._kernels import Column, Lists
from qvec.common.types import NDArray
from qvec.index.base import IndexInput
from qvec.schema.layout import LIST_BLOCKS, LISTS, SLOTS

ENTRIES_PER_BLOCK = 32
NOWHERE = 0xFFFFFFFF
ROWS_PER_STEP = 4096
MIN_COMPARED = 64  # rows, from which on entries and codes are compared
MIN_COSINE = 0.2  # of both, in the mean: .7 for codes of one bit in 384 dimensions, 0 for those of other rows
Numbers = NDArray[np.int64]


def is_listed(data: IndexInput, rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each row whether it is in a list."""
    listed: NDArray[np.bool_] = (data.columns[SLOTS].read(rows).view("<u4") != NOWHERE).any(axis=1)
    return listed


def check_lists(
    data: IndexInput, listed: Numbers, lists: Lists, copies: int, deep: bool, exact: bool = True
) -> list[str]:
    """Find problems. Each of the ``listed`` rows must be in ``copies`` lists; ``deep``: with entries that match its
    vector; ``exact``: the vector that the entries were made from is stored, otherwise only a coarse code of it."""
    chains = Chains.read(data, lists)
    problems = chains.follow()
    problems = problems or _check_slots(data, listed, chains, copies)
    check = _check_entries if exact else _compare_with_codes
    return problems or (check(data, listed, lists, copies) if deep else [])


@dataclass(frozen=True)
class Chains:
    """Heads of blocks and lists as int64 arrays. ``rows`` is [n_blocks, 32], NOWHERE in empty slots."""

    after: Numbers
    owner: Numbers
    rows: Numbers
    heads: Numbers
    sizes: Numbers
    n_free: int
    free_block: int

    @classmethod
    def read(cls, data: IndexInput, lists: Lists) -> Chains:
        """Copy the heads from the columns."""
        heads = data.columns[LISTS].read_range(0, lists.n_lists).view("<u4").astype(np.int64)
        parts = [
            _block_heads(data.columns[LIST_BLOCKS], i, lists.n_blocks) for i in range(0, lists.n_blocks, ROWS_PER_STEP)
        ]
        blocks = np.concatenate(parts).astype(np.int64)
        return cls(blocks[:, 0], blocks[:, 1], blocks[:, 16:], heads[:, 0], heads[:, 1], lists.n_free, lists.free_block)

    def follow(self) -> list[str]:
        """Follow every chain of blocks. Return the first problem found."""
        n_blocks, n_lists = len(self.after), len(self.heads)
        reached = np.zeros(n_blocks, bool)
        reached[: -(-n_lists // ENTRIES_PER_BLOCK)] = True  # the lists of centroids
        left, at, first = self.sizes.copy(), self.heads.copy(), True
        while (unfinished := np.flatnonzero(left > 0)).size:
            blocks = at[unfinished]
            fit = blocks < n_blocks
            wrong = (
                unfinished[~fit] if not fit.all() else unfinished[(self.owner[blocks] != unfinished) | reached[blocks]]
            )
            if len(wrong):
                return [f"list {wrong[0]} refers to a block of another list"]
            here = np.where(first, (left[unfinished] - 1) % ENTRIES_PER_BLOCK + 1, ENTRIES_PER_BLOCK)
            filled = self.rows[blocks] != NOWHERE
            if (odd := (filled != (np.arange(ENTRIES_PER_BLOCK) < here[:, None])).any(axis=1)).any():
                return [f"list {unfinished[odd][0]} has entries in slots that do not match its size"]
            reached[blocks] = True
            left[unfinished] -= here
            at[unfinished], first = self.after[blocks], False
        if not self._reach_free(reached):
            return [f"{self.n_free} free blocks are expected, but not all of them are free"]
        lost = np.flatnonzero(~reached)
        return [f"{len(lost)} blocks belong to no list, the first is block {lost[0]}"] if len(lost) else []

    def _reach_free(self, reached: NDArray[np.bool_]) -> bool:
        at = self.free_block
        for _ in range(self.n_free):
            if at >= len(self.after) or reached[at]:
                return False
            reached[at] = True
            at = int(self.after[at])
        return True


def _block_heads(column: Column, start: int, n_blocks: int) -> NDArray[np.uint32]:
    """Return the head of each block, beginning at ``start``: next, list, 14 reserved numbers and 32 rows."""
    return column.read_range(start, min(start + ROWS_PER_STEP, n_blocks))[:, :192].view("<u4").copy()


def _check_slots(data: IndexInput, live: Numbers, chains: Chains, copies: int) -> list[str]:
    """Check that the slots of listed rows refer to all entries, and that those of one row are in different lists."""
    block, place = np.nonzero(chains.rows != NOWHERE)
    in_lists = chains.owner[block] < len(chains.heads)
    block, place = block[in_lists], place[in_lists]
    rows, slots = chains.rows[block, place], block * ENTRIES_PER_BLOCK + place
    if len(rows) != copies * len(live) or (len(live) > 0 and rows.max() >= data.n):
        return [f"{len(rows)} entries are in lists, expected {copies} for each of {len(live)} rows"]
    known = data.columns[SLOTS].read(live).view("<u4")[:, :copies].astype(np.int64)
    order = np.lexsort((slots, rows))
    wrong = (rows[order].reshape(-1, copies) != live[:, None]) | (slots[order].reshape(-1, copies) != np.sort(known))
    if wrong.any():
        return [f"row {live[wrong.any(axis=1)][0]} is not at its slots"]
    owners = np.sort(chains.owner[known // ENTRIES_PER_BLOCK], axis=1)
    twice = (np.diff(owners, axis=1) == 0).any(axis=1)
    return [f"row {live[twice][0]} is in one list twice"] if twice.any() else []


def _check_entries(data: IndexInput, live: Numbers, lists: Lists, copies: int) -> list[str]:
    for start in range(0, len(live), ROWS_PER_STEP):
        rows = live[start : start + ROWS_PER_STEP].astype(np.uint32)
        right = lists.holds(rows, lists.vectors(data.read_vectors(rows)))[:, :copies].all(axis=1)
        if not right.all():
            return [f"the entry of row {rows[~right][0]} does not match its vector"]
    return []


def _compare_with_codes(data: IndexInput, live: Numbers, lists: Lists, copies: int) -> list[str]:
    """Compare entries that were made from vectors with codes of the same vectors. Both are inexact in their own way, so
    that only the mean of many rows tells whether they belong together."""
    del copies
    cosines = [
        _cosines(data, live[start : start + ROWS_PER_STEP], lists) for start in range(0, len(live), ROWS_PER_STEP)
    ]
    known = np.concatenate(cosines) if cosines else np.zeros(0)
    if len(known) < MIN_COMPARED or known.mean() > MIN_COSINE:
        return []
    return [f"the entries of {len(known)} rows have a mean cosine of {known.mean():.2f} with their codes"]


def _cosines(data: IndexInput, live: Numbers, lists: Lists) -> NDArray[np.float64]:
    """The cosine of the angle between the vector of the entries and that of the code, both less the mean; without rows
    that equal the mean."""
    rows = live.astype(np.uint32)
    entries = lists.center(lists.decode(rows)[0]).astype(np.float64)
    codes = lists.vectors(data.read_vectors(rows)).astype(np.float64)
    norms = np.linalg.norm(entries, axis=1) * np.linalg.norm(codes, axis=1)
    known: NDArray[np.float64] = (entries * codes).sum(axis=1)[norms > 0] / norms[norms > 0]
    return known
