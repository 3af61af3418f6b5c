"""Rows with equal codes in a graph: one row of a group is linked, and the others are attached below it (ADR 20).

If a search meets more equal rows than its candidate list has slots, it finds no other rows.
"""

from __future__ import annotations

import numpy as np

from qvec._kernels import first_equals
from qvec.common.types import NDArray
from qvec.index.base import CodeColumn, IndexInput
from qvec.schema.bitmaps import read_bitmap, rows_in
from qvec.schema.layout import ADJACENCY, LINKED
from qvec.schema.state import Rows

MAX_EQUAL_ROWS = 64  # a larger group can make other rows unfindable if its rows are linked only to each other
ROWS_PER_READ = 16_384
NO_NEIGHBOR = 0xFFFFFFFF
TREE_EDGE = 0x80000000
COARSE_KINDS = ("binary", "ternary")  # many different vectors have equal codes


def repeats(codes: CodeColumn, rows: Rows) -> tuple[Rows, Rows]:
    """Find the rows whose code equals that of an earlier row.

    Returns them and, for each, the first such row, ascending.
    """
    first = first_equals(codes.codec, codes.column, rows)
    later = np.flatnonzero(first != np.arange(len(rows)))
    later = later[np.argsort(first[later], kind="stable")]
    return rows[later], rows[first[later]]


def with_linked_rows(data: IndexInput, equal: Rows, first: Rows, new: Rows) -> tuple[Rows, Rows]:
    """Find the row of each group of equal rows that is linked to other rows, which need not be the first one.

    ``equal`` and ``first``: as returned by :func:`repeats`; ``new``: rows that have no adjacency list yet. Returns the
    other rows of the groups and, for each, the linked row, ascending. An attached row has one edge to the linked row
    of its group that is not a tree edge.
    """
    if len(equal) == 0:
        return equal, first
    rows = np.concatenate([np.unique(first), equal]).astype(np.int64)
    group = np.concatenate([np.unique(first), first]).astype(np.int64)
    order = np.lexsort((rows, np.isin(rows, new), group))
    rows, group = rows[order], group[order]
    numbers, at = np.unique(group, return_index=True)
    chosen = rows[at]  # of each group, the first row that is in the graph, or the first new one
    in_graph = ~np.isin(rows, new)
    group_of = np.full(data.n, -1)
    group_of[rows[in_graph]] = group[in_graph]
    old = in_graph[at]
    for _ in range(2):  # a row that was attached while the linked row was deleted has an edge to another attached row
        lists = data.columns[ADJACENCY].read(chosen[old]).view("<u4")
        neighbors = np.minimum(lists, data.n - 1).astype(np.int64)
        inside = (lists < data.n) & (group_of[neighbors] == numbers[old][:, None])
        named = neighbors[np.arange(len(lists)), inside.argmax(axis=1)]
        chosen[old] = np.where(inside.any(axis=1), named, chosen[old])
    linked = chosen[np.searchsorted(numbers, group)]
    others = rows != linked
    rows, linked = rows[others], linked[others]
    order = np.lexsort((rows, linked))
    return rows[order].astype(np.uint32), linked[order].astype(np.uint32)


def isolated_duplicates(data: IndexInput) -> NDArray[np.int64]:
    """Find live rows in large groups of equal rows if most rows of the group are not attached to another one.

    Attached duplicates have tree edges to other duplicates, exactly one other edge to a row of their group, and edges
    to other rows. Rows that are linked to each other have several such edges. Rows whose linked row was deleted have
    none, or several that the repair has added.
    """
    if data.codes.codec.kind in COARSE_KINDS or LINKED not in data.columns:
        return np.zeros(0, np.int64)
    rows = rows_in(read_bitmap(data.columns[LINKED], data.n) & ~data.deleted)
    group = np.full(data.n + 1, -1, np.int64)
    group[rows] = first_equals(data.codes.codec, data.codes.column, rows.astype(np.uint32))
    sizes = np.bincount(group[rows], minlength=1)
    members = rows[sizes[group[rows]] > MAX_EQUAL_ROWS]
    isolated = []
    for start in range(0, len(members), ROWS_PER_READ):
        part = members[start : start + ROWS_PER_READ]
        lists = data.columns[ADJACENCY].read(part).view("<u4")
        neighbors = np.where(lists == NO_NEIGHBOR, data.n, np.minimum(lists & (TREE_EDGE - 1), data.n)).astype(np.int64)
        inside = group[neighbors] == group[part][:, None]
        isolated.append(part[(inside & (lists < TREE_EDGE)).sum(axis=1) != 1])
    found = np.concatenate([*isolated, np.zeros(0, np.int64)])
    share = np.bincount(group[found], minlength=len(sizes)) / np.maximum(sizes, 1)
    isolated_rows: NDArray[np.int64] = found[share[group[found]] > 1 / 2]
    return isolated_rows
