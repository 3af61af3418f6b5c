"""qvec: an embedded vector database with quantized storage."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qvec._kernels import simd_level
from qvec.codes.configs import (
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
from qvec.collection.collection import Collection
from qvec.collection.open import create, open
from qvec.common.errors import (
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
    ReplacedError,
)
from qvec.common.types import Stats
from qvec.rows.results import AddResult, Records
from qvec.schema.calibrations import Generation
from qvec.search.results import Hits

if TYPE_CHECKING:
    from qvec.codes.calibration import Calibration
    from qvec.collection.database import Database
    from qvec.collection.sharding import MergedHits, ShardedIndex, merge_topk
    from qvec.quality.choose import Choice
    from qvec.quality.drift import Drift
    from qvec.quality.report import Report

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
    "ReplacedError",
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
    "MergedHits": "qvec.collection.sharding",
    "ShardedIndex": "qvec.collection.sharding",
    "merge_topk": "qvec.collection.sharding",
    "Calibration": "qvec.codes.calibration",
    "Database": "qvec.collection.database",
    "Choice": "qvec.quality.choose",
    "Drift": "qvec.quality.drift",
    "Report": "qvec.quality.report",
}


def __getattr__(name: str) -> object:
    """What few programs name is imported when they do."""
    if name not in _LATE:
        raise AttributeError(f"module 'qvec' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    """These names among the others, for completion."""
    return sorted({*globals(), *_LATE})
