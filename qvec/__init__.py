"""qvec: an embedded vector database with quantized storage."""

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
from qvec.common import __version__ as __version__
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
    MissingShardError,
    NotFoundError,
    QvecError,
    ReadOnlyError,
    ReplacedError,
    SearchTimeoutError,
)
from qvec.common.findings import Finding
from qvec.common.types import Stats
from qvec.rows.results import AddResult, Record, Records
from qvec.schema.generations import Generation
from qvec.search.results import BatchHits, Hit, Hits

if TYPE_CHECKING:  # the optional packages, which are above this module and are loaded when they are named
    from qvec import aio, bench, datasets, integrations, interchange, qat, ray, shards, torch
    from qvec.codes.calibration import Calibration
    from qvec.collection.database import Database
    from qvec.collection.sharding import ShardedIndex, merge_topk
    from qvec.quality.choose import Choice
    from qvec.quality.drift import Drift
    from qvec.quality.fusion_tuning import FusionChoice
    from qvec.quality.relevance_report import RelevanceReport
    from qvec.quality.report import Report
    from qvec.text.analysis import register_analyzer
    from qvec.text.options import Sparse, Text

__all__ = [
    "HNSW",
    "IVF",
    "AbortedError",
    "AddResult",
    "BFloat16",
    "BatchHits",
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
    "Finding",
    "Flat",
    "Float16",
    "Float32",
    "ForkedError",
    "FormatError",
    "FusionChoice",
    "Generation",
    "Hit",
    "Hits",
    "InputError",
    "Int4",
    "Int8",
    "LockedError",
    "MapFullError",
    "MissingIdError",
    "MissingShardError",
    "Mixed",
    "NotFoundError",
    "Prequantized",
    "QvecError",
    "RaBitQ",
    "ReadOnlyError",
    "Record",
    "Records",
    "RelevanceReport",
    "ReplacedError",
    "Report",
    "SearchTimeoutError",
    "ShardedIndex",
    "Sparse",
    "Stats",
    "Ternary",
    "Text",
    "aio",
    "bench",
    "create",
    "datasets",
    "integrations",
    "interchange",
    "merge_topk",
    "open",
    "qat",
    "ray",
    "register_analyzer",
    "shards",
    "simd_level",
    "torch",
]


if not TYPE_CHECKING:  # type checkers would take any name for one of these
    _LATE = {
        "Calibration": "qvec.codes.calibration",
        "Choice": "qvec.quality.choose",
        "Database": "qvec.collection.database",
        "Drift": "qvec.quality.drift",
        "FusionChoice": "qvec.quality.fusion_tuning",
        "RelevanceReport": "qvec.quality.relevance_report",
        "Report": "qvec.quality.report",
        "ShardedIndex": "qvec.collection.sharding",
        "Sparse": "qvec.text.options",
        "Text": "qvec.text.options",
        "register_analyzer": "qvec.text.analysis",
        "merge_topk": "qvec.collection.sharding",
    }
    _PACKAGES = ("aio", "bench", "datasets", "integrations", "interchange", "qat", "ray", "shards", "torch")

    def __getattr__(name):
        """Load a package, or an object that few programs use, when it is first named."""
        from importlib import import_module

        if name in _PACKAGES:
            return import_module(f"qvec.{name}")
        if name not in _LATE:
            raise AttributeError(f"module 'qvec' has no attribute {name!r}")
        return getattr(import_module(_LATE[name]), name)

    def __dir__():
        """The public names."""
        return [*__all__, "__version__"]
