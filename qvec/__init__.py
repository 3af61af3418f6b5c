"""qvec: an embedded vector database with quantized storage."""

from __future__ import annotations

from qvec._kernels import simd_level
from qvec.api import create, open
from qvec.collection import Collection
from qvec.errors import (
    ClosedError,
    CorruptError,
    DiskFullError,
    DuplicateIdError,
    ExistsError,
    ForkedError,
    FormatError,
    InputError,
    LockedError,
    MapFullError,
    MissingIdError,
    NotFoundError,
    QvecError,
    ReadOnlyError,
)
from qvec.types import HNSW, AddResult, Binary, Flat, Float16, Float32, Hits, Int8, Mixed, RaBitQ, Records, Stats

__version__ = "0.1.0"

__all__ = [
    "HNSW",
    "AddResult",
    "Binary",
    "ClosedError",
    "Collection",
    "CorruptError",
    "DiskFullError",
    "DuplicateIdError",
    "ExistsError",
    "Flat",
    "Float16",
    "Float32",
    "ForkedError",
    "FormatError",
    "Hits",
    "InputError",
    "Int8",
    "LockedError",
    "MapFullError",
    "MissingIdError",
    "Mixed",
    "NotFoundError",
    "QvecError",
    "RaBitQ",
    "ReadOnlyError",
    "Records",
    "Stats",
    "create",
    "open",
    "simd_level",
]
