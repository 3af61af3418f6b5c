"""How candidates are found: by a scan of every code, or by a walk through a graph."""

from qvec.configs import Flat, IndexConfig
from qvec.index.base import Coded, Index, IndexState, Progress
from qvec.index.flat import FlatIndex
from qvec.index.hnsw import HNSWIndex

__all__ = ["Coded", "FlatIndex", "HNSWIndex", "Index", "IndexState", "Progress", "make_index"]


def make_index(config: IndexConfig) -> Index:
    """The index that a configuration describes."""
    return FlatIndex() if isinstance(config, Flat) else HNSWIndex(config)
