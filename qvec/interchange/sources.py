"""Formats of sources: detection by path, and their readers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from qvec.common.errors import InputError, NotFoundError
from qvec.common.types import check_choice
from qvec.datasets import SUFFIXES
from qvec.datasets.text_files import CSV_SUFFIXES, JSONL_SUFFIXES
from qvec.interchange.arrow import ipc_source, parquet_source
from qvec.interchange.base import Source
from qvec.interchange.databases import LANCE, ChromaSource, lance_source
from qvec.interchange.faiss import FaissSource
from qvec.interchange.files import FileSource
from qvec.interchange.hnswlib import HnswlibSource
from qvec.interchange.text import TextSource

SourceFormat = Literal["vectors", "jsonl", "csv", "parquet", "arrow", "faiss", "hnswlib", "chroma", "lancedb"]
PARQUET_SUFFIXES, IPC_SUFFIXES, FAISS_SUFFIXES = (".parquet", ".pq"), (".arrow", ".feather"), (".faiss",)

_READERS: dict[str, Callable[..., Source]] = {
    "vectors": FileSource,
    "jsonl": TextSource,
    "csv": TextSource,
    "parquet": parquet_source,
    "arrow": ipc_source,
    "faiss": FaissSource,
    "hnswlib": HnswlibSource,
    "chroma": ChromaSource,
    "lancedb": lance_source,
}
_ARROW_OPTIONS = {"vector", "id", "payload", "columns", "skip"}
_OPTIONS: dict[str, set[str]] = {
    "vectors": {"key", "ids", "payloads"},
    "jsonl": {"vector", "id"},
    "csv": {"vector", "id", "types"},
    "parquet": _ARROW_OPTIONS,
    "arrow": _ARROW_OPTIONS,
    "faiss": set(),
    "hnswlib": set(),
    "chroma": {"table", "document"},
    "lancedb": {"table", *_ARROW_OPTIONS},
}
_BY_SUFFIX: dict[str, SourceFormat] = {
    **dict.fromkeys(SUFFIXES, "vectors"),
    **dict.fromkeys(JSONL_SUFFIXES, "jsonl"),
    **dict.fromkeys(CSV_SUFFIXES, "csv"),
    **dict.fromkeys(PARQUET_SUFFIXES, "parquet"),
    **dict.fromkeys(IPC_SUFFIXES, "arrow"),
    **dict.fromkeys(FAISS_SUFFIXES, "faiss"),
}


def open_source(path: str | os.PathLike[str], format: SourceFormat | None = None, **options: Any) -> Source:
    """Open a file or another database as a source of rows.

    =============  ====================================  ==========================  ===============================
    format         detected by                           options                     needs
    =============  ====================================  ==========================  ===============================
    ``vectors``    the suffixes of `qvec.datasets`       ``key``, ``ids``,           extra ``hdf5`` for .hdf5
                                                         ``payload`` (files)
    ``jsonl``      .jsonl .ndjson                        ``vector``, ``id`` (keys)
    ``csv``        .csv .tsv                             ``vector``, ``id``,
                                                         ``types``
    ``parquet``    .parquet .pq                          ``vector``, ``id``,         extra ``arrow``
                                                         ``payload``, ``columns``,
                                                         ``skip`` (columns)
    ``arrow``      .arrow .feather                       the same                    extra ``arrow``
    ``faiss``      .faiss                                                            extra ``faiss``
    ``hnswlib``    (give it)
    ``chroma``     a directory with ``chroma.sqlite3``   ``table``, ``document``     extra ``chroma``
    ``lancedb``    a directory ``*.lance``, or of them   ``table``, and those of     extra ``lancedb``
                                                         ``parquet``
    =============  ====================================  ==========================  ===============================

    Raises NotFoundError; InputError if the format is unknown or not that of the path, or does not have an option;
    MissingExtraError.
    """
    place = Path(path)
    if not place.exists():
        raise NotFoundError(f"{place}: no such file or directory")
    chosen = detect_format(place) if format is None else format
    check_choice("format", chosen, get_args(SourceFormat))
    if place.is_dir() != (chosen in ("chroma", "lancedb")):
        raise InputError(
            f"{place} is {'a directory' if place.is_dir() else 'not a directory'}: it cannot have the format {chosen}"
        )
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - _OPTIONS[chosen]):
        fitting = ", ".join(sorted(_OPTIONS[chosen])) or "none"
        raise InputError(f"{unknown[0]} is not an option of format {chosen}; its options are: {fitting}")
    return _READERS[chosen](place, **given)


def detect_format(path: Path) -> SourceFormat:
    """Detect the format by the suffix of a file or the content of a directory; InputError if it is unknown."""
    if path.is_dir():
        if (path / "chroma.sqlite3").exists():
            return "chroma"
        if path.suffix == LANCE or any(path.glob(f"*{LANCE}")):
            return "lancedb"
        raise InputError(f"{path} is a directory, but neither Chroma's (chroma.sqlite3) nor LanceDB's (*.lance)")
    if path.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix.lower()]
    raise InputError(
        f"{path}: unknown suffix {path.suffix!r}; known are {' '.join(_BY_SUFFIX)}; "
        f"or give the format: {', '.join(get_args(SourceFormat))}"
    )
