"""How candidates are found: by a scan of every code, a walk through a graph, or a scan of near lists."""

from qvec.codes.configs import HNSW, IVF, Flat, IndexConfig
from qvec.index.base import CodeColumn, Index, IndexInput, IndexState, Progress, Rows, VectorReader, vector_reader
from qvec.index.flat import FlatIndex
from qvec.index.graph import GraphShape
from qvec.index.graph_codes import linking_codes
from qvec.index.hnsw import HNSWIndex

__all__ = [
    "CodeColumn",
    "FlatIndex",
    "GraphShape",
    "HNSWIndex",
    "Index",
    "IndexInput",
    "IndexState",
    "Progress",
    "Rows",
    "VectorReader",
    "linking_codes",
    "load_index",
    "make_index",
    "vector_reader",
]


def make_index(config: IndexConfig) -> Index:
    """The index that a configuration describes."""
    if isinstance(config, IVF):
        from qvec.index.ivf import IVFIndex  # late: most collections have no lists

        return IVFIndex(config)
    return FlatIndex() if isinstance(config, Flat) else HNSWIndex(config)


def load_index(config: IndexConfig | None, state: IndexState) -> Index:
    """The index that a collection's state describes; ``config`` None: it was chosen by the number of rows."""
    if config is not None and config.kind == state["kind"]:
        return make_index(config)
    return make_index(HNSW() if state["kind"] == HNSW.kind else Flat())
