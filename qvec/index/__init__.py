"""Indexes, which find the candidates of a search.

- ``base``: the interface; ``flat``: a scan of all codes.
- ``hnsw``: the graph index. ``graph``: its state, entries and pruning; ``graph_build``: linking rows; ``graph_codes``:
  the codes that are compared when rows are linked; ``graph_nodes``: the packed layout; ``graph_repair``: removing
  deleted rows.
- ``ivf``: inverted lists; ``ivf_clusters``: their centroids; ``ivf_check``: verification.
"""

from qvec.codes.configs import HNSW, IVF, Flat, IndexConfig
from qvec.index.base import CodeColumn, Index, IndexInput, Progress
from qvec.index.flat import FlatIndex
from qvec.index.graph import GraphShape
from qvec.index.graph_codes import linking_codes
from qvec.index.graph_duplicates import isolated_duplicates
from qvec.index.graph_nodes import pack_new_nodes, pack_nodes
from qvec.index.hnsw import HNSWIndex
from qvec.schema.state import State

__all__ = [
    "CodeColumn",
    "FlatIndex",
    "GraphShape",
    "HNSWIndex",
    "Index",
    "IndexInput",
    "Progress",
    "isolated_duplicates",
    "linking_codes",
    "load_index",
    "make_index",
    "pack_new_nodes",
    "pack_nodes",
]


def make_index(config: IndexConfig) -> Index:
    """Create the index that a configuration describes."""
    if isinstance(config, IVF):
        from qvec.index.ivf import IVFIndex  # late: most collections have no lists

        return IVFIndex(config)
    return FlatIndex() if isinstance(config, Flat) else HNSWIndex(config)


def load_index(config: IndexConfig | None, state: State) -> Index:
    """Create the index of a collection's state. ``config``: of the collection; None: the number of rows decides."""
    wanted = state.own_index or config
    if wanted is not None and wanted.kind == state.index.kind:
        return make_index(wanted)
    return make_index(HNSW() if state.index.kind == HNSW.kind else Flat())
