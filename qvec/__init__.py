"""qvec: an embedded vector database with quantized storage."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qvec._kernels import simd_level
from qvec.collection.api import create, open
from qvec.collection.collection import Collection
from qvec.configs import (
    HNSW,
    IVF,
    BFloat16,
    Binary,
    Flat,
    Float16,
    Float32,
    Int4,
    Int8,
    Mixed,
    Prequantized,
    RaBitQ,
    Ternary,
)
from qvec.errors import (
    AbortedError,
    ClosedError,
    CorruptError,
    DiskFullError,
    DriftError,
    DriftWarning,
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
from qvec.generations.calibrations import Generation
from qvec.results import AddResult, Hits, Records
from qvec.types import Stats

if TYPE_CHECKING:
    from qvec.calibration.calibration import Calibration
    from qvec.database import Database
    from qvec.drift.watch import Drift
    from qvec.evaluation.choose import Choice
    from qvec.evaluation.report import Report
    from qvec.sharding import MergedHits, ShardedIndex, merge_topk

__version__ = "0.1.0"

__all__ = [
    "HNSW",
    "IVF",
    "AbortedError",
    "AddResult",
    "BFloat16",
    "Binary",
    "Calibration",
    "Choice",
    "ClosedError",
    "Collection",
    "CorruptError",
    "Database",
    "DiskFullError",
    "Drift",
    "DriftError",
    "DriftWarning",
    "DuplicateIdError",
    "ExistsError",
    "Flat",
    "Float16",
    "Float32",
    "ForkedError",
    "FormatError",
    "Generation",
    "Hits",
    "InputError",
    "Int4",
    "Int8",
    "LockedError",
    "MapFullError",
    "MergedHits",
    "MissingIdError",
    "Mixed",
    "NotFoundError",
    "Prequantized",
    "QvecError",
    "RaBitQ",
    "ReadOnlyError",
    "Records",
    "Report",
    "ShardedIndex",
    "Stats",
    "Ternary",
    "create",
    "merge_topk",
    "open",
    "simd_level",
]


_LATE = {
    "MergedHits": "qvec.sharding",
    "ShardedIndex": "qvec.sharding",
    "merge_topk": "qvec.sharding",
    "Calibration": "qvec.calibration.calibration",
    "Database": "qvec.database",
    "Choice": "qvec.evaluation.choose",
    "Drift": "qvec.drift.watch",
    "Report": "qvec.evaluation.report",
}


def __getattr__(name: str) -> object:
    """What few programs name is imported when they do."""
    if name not in _LATE:
        raise AttributeError(f"module 'qvec' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    """These names among the others, for completion."""
    return sorted({*globals(), *_LATE})
