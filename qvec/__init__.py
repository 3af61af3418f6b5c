"""qvec: an embedded vector database with quantized storage."""

from __future__ import annotations

from qvec._kernels import simd_level
from qvec.api import create, open
from qvec.calibration import Calibration
from qvec.calibrations import Generation
from qvec.choose import Choice
from qvec.collection import Collection
from qvec.drift import Drift
from qvec.errors import (
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
from qvec.report import Report
from qvec.types import (
    HNSW,
    AddResult,
    BFloat16,
    Binary,
    Flat,
    Float16,
    Float32,
    Hits,
    Int4,
    Int8,
    Mixed,
    Prequantized,
    RaBitQ,
    Records,
    Stats,
    Ternary,
)

__version__ = "0.1.0"

__all__ = [
    "HNSW",
    "AddResult",
    "BFloat16",
    "Binary",
    "Calibration",
    "Choice",
    "ClosedError",
    "Collection",
    "CorruptError",
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
    "MissingIdError",
    "Mixed",
    "NotFoundError",
    "Prequantized",
    "QvecError",
    "RaBitQ",
    "ReadOnlyError",
    "Records",
    "Report",
    "Stats",
    "Ternary",
    "create",
    "open",
    "simd_level",
]
