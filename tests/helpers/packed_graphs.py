"""Small graphs with packed nodes, built without a collection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qvec._kernels import Codec, Column, node_shape
from qvec.index.base import CodeColumn, IndexInput
from qvec.index.graph import Graph
from qvec.index.graph_build import GraphBuild
from qvec.schema.bitmaps import words_for
from qvec.storage.store import block_geometry

Floats = NDArray[np.float32]


def column(name: str, stride: int, rows: int) -> Column:
    rows_per_block, pages = block_geometry(stride, 4096, 1, 16)
    made = Column(name, 1, 0, stride, rows_per_block, pages, 4096, writable=True)
    made.resize(rows)
    return made


def clustered(n: int, dim: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    centroids = np.random.default_rng(9).normal(size=(40, dim))
    return (centroids[rng.integers(40, size=n)] + 0.6 * rng.normal(size=(n, dim))).astype(np.float32)


def linked(
    x: Floats, metric: str = "l2", simd: str | None = None
) -> tuple[CodeColumn, Column, Column, NDArray[np.uint32]]:
    """Codes, lists, nodes and entries of the vectors."""
    codec = Codec("int8", metric, x.shape[1], simd=simd)
    coded = CodeColumn(codec, column("codes", codec.stride, len(x)))
    coded.column.write(0, codec.encode(x))
    columns = {name: column(name, 8, words_for(len(x))) for name in ("deleted", "linked")}
    columns |= {
        "adjacency": column("adjacency", 128, len(x)),
        "nodes": column("nodes", node_shape(codec, 32)[1], len(x)),
    }
    graph = Graph()
    GraphBuild(IndexInput(columns, coded, len(x)), graph, 64, 2).run(np.arange(len(x), dtype=np.uint32))
    return coded, columns["adjacency"], columns["nodes"], graph.entries
