"""The packed layout of a graph: one node per row, with everything that a walk reads of the row and its neighbors.

A node follows from the row's adjacency list and the codes (kernels/graph/nodes.h). It is rebuilt when the list changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qvec._kernels import Codec, Column, PackedFinder, Packer, node_shape
from qvec.codes.transforms import rotation_signs
from qvec.common.parallel import run_on_threads
from qvec.common.types import Codes
from qvec.index.base import CodeColumn, IndexInput
from qvec.schema.config import check_packed
from qvec.schema.layout import ADJACENCY, NODES, wide_column
from qvec.schema.state import Rows
from qvec.storage.store import ColumnSpec

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from qvec._kernels import GraphRepair, Linker

NODES_PER_STEP = 2048  # between two checks for Ctrl-C
ROTATION_SEED = 1  # part of the format


def node_column(codec: Codec, degree: int) -> ColumnSpec:
    """Describe the column of nodes with ``degree`` neighbors. Raises InputError if codes are too coarse or too long."""
    check_packed(codec.kind, codec.dim, 1 if codec.kind == "binary" else 8 * codec.data_size / codec.dim)
    return wide_column(NODES, node_shape(codec, degree)[1])


def update_nodes(data: IndexInput, changer: Linker | GraphRepair, threads: int, pool: ThreadPoolExecutor) -> None:
    """Rebuild the nodes whose lists ``changer`` has changed. Does nothing if the graph has no nodes."""
    nodes = data.columns.get(NODES)
    if nodes is not None and not data.lists_only:
        nodes.resize(data.n)
        pack_nodes(data.codes, data.columns[ADJACENCY], nodes, changer.changed, data.n, threads, pool)


def pack_new_nodes(data: IndexInput, rows: Rows, threads: int, pool: ThreadPoolExecutor) -> None:
    """Build the nodes of ``rows`` of a new graph, ascending. Does nothing if the graph has no nodes."""
    nodes = data.columns.get(NODES)
    if nodes is None or data.lists_only:
        return
    nodes.resize(data.n)
    pack_nodes(data.codes, data.columns[ADJACENCY], nodes, rows, data.n, threads, pool)


def pack_nodes(
    codes: CodeColumn, adjacency: Column, nodes: Column, rows: Rows, n: int, threads: int, pool: ThreadPoolExecutor
) -> None:
    """Build the nodes of ``rows`` from their lists and n rows of codes."""
    packer = _packer(codes, adjacency, nodes, n)
    for start in range(0, len(rows), NODES_PER_STEP):
        part = rows[start : start + NODES_PER_STEP]
        packer.begin(part)
        run_on_threads(packer.run, min(threads, max(1, len(part) // 64)), pool)


def wrong_nodes(codes: CodeColumn, adjacency: Column, nodes: Column, n: int, stop: int) -> Rows:
    """Return the rows below ``stop`` whose nodes do not match their lists and the n rows of codes."""
    return _packer(codes, adjacency, nodes, n).wrong(0, stop)


def node_finder(codes: CodeColumn, nodes: Column, degree: int, n: int, entries: Rows) -> PackedFinder:
    """Return the finder that walks the nodes from the entries."""
    return PackedFinder(codes.codec, codes.column, nodes, n, degree, _signs(codes.codec, degree), entries)


def _packer(codes: CodeColumn, adjacency: Column, nodes: Column, n: int) -> Packer:
    signs = _signs(codes.codec, adjacency.stride // np.dtype(np.uint32).itemsize)
    return Packer(codes.codec, codes.column, adjacency, nodes, n, signs)


def _signs(codec: Codec, degree: int) -> Codes:
    return rotation_signs(ROTATION_SEED, node_shape(codec, degree)[0])
