"""How candidates are found: by a scan of every code, or by a walk through a graph."""

from qvec.configs import HNSW, Flat, IndexConfig
from qvec.index.base import Coded, Index, IndexState, Progress, Rows, Source
from qvec.index.flat import FlatIndex
from qvec.index.hnsw import HNSWIndex

__all__ = [
    "Coded",
    "FlatIndex",
    "HNSWIndex",
    "Index",
    "IndexState",
    "Progress",
    "Rows",
    "Source",
    "make_index",
    "stored_index",
]


def make_index(config: IndexConfig) -> Index:
    """The index that a configuration describes."""
    return FlatIndex() if isinstance(config, Flat) else HNSWIndex(config)


def stored_index(config: IndexConfig | None, state: IndexState) -> Index:
    """The index that a collection's state describes; ``config`` None: it was chosen by the number of rows."""
    if config is not None and config.kind == state["kind"]:
        return make_index(config)
    return make_index(HNSW() if state["kind"] == HNSW.kind else Flat())
