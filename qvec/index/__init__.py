"""How candidates are found: by a scan of every code, or by a walk through a graph."""

from qvec.index.base import Coded, Index, IndexState, Progress
from qvec.index.flat import FlatIndex
from qvec.index.hnsw import HNSWIndex
from qvec.types import Flat, IndexConfig

__all__ = ["Coded", "FlatIndex", "HNSWIndex", "Index", "IndexState", "Progress", "make_index"]


def make_index(config: IndexConfig) -> Index:
    """The index that a configuration describes."""
    return FlatIndex() if isinstance(config, Flat) else HNSWIndex(config)
