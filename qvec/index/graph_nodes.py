"""The packed layout of a graph: beside each list, what a walk needs to know of a node and its neighbors in one block.

A node is made from its list and the codes alone (kernels/graph/nodes.h); whoever changes a list makes the node anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qvec._kernels import Codec, Column, PackedFinder, Packer, node_shape
from qvec.codes.transforms import rotation_signs
from qvec.common.errors import InputError
from qvec.common.parallel import run_on_threads
from qvec.common.types import Codes
from qvec.index.base import CodeColumn, IndexInput, Rows
from qvec.schema.layout import ADJACENCY, NODES, wide_column
from qvec.storage.store import ColumnSpec

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from qvec._kernels import GraphRepair, Linker

MAX_DIM = 4096  # so that a node of 64 neighbors fits into a block
MIN_BITS = 4  # a dimension: coarser codes tell too little of where a node is
STEP = 2048  # nodes made between two looks for Ctrl-C
SEED = 1  # of the rotation; part of the format


def node_column(codec: Codec, degree: int) -> ColumnSpec:
    """The column of nodes with ``degree`` neighbors; InputError where codes or dimensions are not for it."""
    if codec.kind == "binary" or 8 * codec.data_size < MIN_BITS * codec.dim:
        raise InputError(f"layout='packed' needs codes of {MIN_BITS} bits a dimension or more, not {codec.kind}")
    if codec.dim > MAX_DIM:
        raise InputError(f"layout='packed' is for {MAX_DIM} dimensions at most, not {codec.dim}")
    return wide_column(NODES, node_shape(codec, degree)[1])


def keep_up(data: IndexInput, changer: Linker | GraphRepair, threads: int, pool: ThreadPoolExecutor) -> None:
    """Make the nodes anew of rows whose lists have been changed, where the graph has nodes."""
    nodes = data.columns.get(NODES)
    if nodes is not None:
        pack(data.codes, data.columns[ADJACENCY], nodes, changer.changed, data.n, threads, pool)


def pack(
    codes: CodeColumn, adjacency: Column, nodes: Column, rows: Rows, n: int, threads: int, pool: ThreadPoolExecutor
) -> None:
    """Make the nodes of ``rows`` anew from their lists among n rows of codes."""
    packer = _packer(codes, adjacency, nodes, n)
    for start in range(0, len(rows), STEP):
        part = rows[start : start + STEP]
        packer.begin(part)
        run_on_threads(packer.run, min(threads, max(1, len(part) // 64)), pool)


def wrong(codes: CodeColumn, adjacency: Column, nodes: Column, n: int) -> Rows:
    """Rows whose nodes are not what their lists and codes make."""
    return _packer(codes, adjacency, nodes, n).wrong(0, n)


def finder(codes: CodeColumn, nodes: Column, degree: int, n: int, entries: Rows) -> PackedFinder:
    """What walks the nodes from the entries."""
    return PackedFinder(codes.codec, codes.column, nodes, n, degree, _signs(codes.codec, degree), entries)


def _packer(codes: CodeColumn, adjacency: Column, nodes: Column, n: int) -> Packer:
    signs = _signs(codes.codec, adjacency.stride // np.dtype(np.uint32).itemsize)
    return Packer(codes.codec, codes.column, adjacency, nodes, n, signs)


def _signs(codec: Codec, degree: int) -> Codes:
    return rotation_signs(SEED, node_shape(codec, degree)[0])
